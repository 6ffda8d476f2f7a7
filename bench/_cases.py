"""What `peers.py --signal` measures: convolutions of signals and images by `triconv.signal` and `triconv.ndimage`, and
by the functions of SciPy, NumPy, PyTorch and OpenCV that a user could call instead. All cases are in `CASES`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import triconv as tc
from _measure import Budget, Call, Program, Row, compare, in_fresh_process, resident_rise

DTYPES = ("float32", "float64", "complex64")
# The bounds on memory beyond inputs and results: for large inputs with small kernels a share of the input, else so many
# spectra of both arrays padded to the full result.
LARGE_BYTES = 64e6
SMALL_KERNEL = 0.01
LARGE_SHARE = 0.05
SPECTRA = 3


@dataclass(frozen=True)
class Case:
    """One function on arrays of these shapes, and the peers that its ratio is about: the fastest of them counts."""

    name: str
    signal: tuple[int, ...]
    kernel: tuple[int, ...]
    mode: str
    function: str  # of `FUNCTIONS`
    peers: tuple[str, ...]  # of `PEERS`

    def __str__(self) -> str:
        sizes = ("x".join(map(str, shape)) for shape in (self.signal, self.kernel))
        return f"{self.function} {' * '.join(sizes)} {self.mode}"

    @property
    def axes(self) -> tuple[int, ...]:
        """Those that are convolved."""
        return tuple(axis for axis, taps in enumerate(self.kernel) if taps > 1)

    @property
    def sigma(self) -> float:
        """Of the Gaussian that the kernel's size cuts off at 4 standard deviations, as SciPy does."""
        return (self.kernel[0] - 1) / 8

    def shrunk(self) -> Case:
        """The same on arrays that take no time: at most 64 samples and 9 taps along each axis."""
        signal, kernel = tuple(min(n, 64) for n in self.signal), tuple(min(taps, 9) for taps in self.kernel)
        return replace(self, signal=signal, kernel=kernel)

    def arrays(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """Signal and kernel, normal deviates."""
        rng = np.random.default_rng(0)

        def draw(shape: tuple[int, ...]) -> np.ndarray:
            values = rng.standard_normal(shape)
            return (values + 1j * rng.standard_normal(shape) if dtype.startswith("complex") else values).astype(dtype)

        return draw(self.signal), draw(self.kernel)

    def memory_target(self, dtype: str) -> int:
        """Bytes beyond inputs and results that the case may take."""
        itemsize, signal, kernel = np.dtype(dtype).itemsize, math.prod(self.signal), math.prod(self.kernel)
        if signal * itemsize > LARGE_BYTES and kernel < SMALL_KERNEL * signal:
            return int(LARGE_SHARE * signal * itemsize)
        return SPECTRA * itemsize * math.prod(n + taps - 1 for n, taps in zip(self.signal, self.kernel, strict=True))


def _images(size: int, taps: int) -> tuple[Case, Case]:
    """OpenCV's filter2D correlates; SciPy's function for kernels that are not tiny is oaconvolve."""
    shapes = ((size, size), (taps, taps), "same")
    text = f"{size}^2 * {taps}^2"
    return (
        Case(f"{text}, OpenCV", *shapes, "correlate", ("OpenCV filter2D",)),
        Case(f"{text}, SciPy", *shapes, "oaconvolve", ("SciPy oaconvolve",)),
    )


def _gaussian(peer: str, library: str) -> Case:
    return Case(f"gaussian sigma 8 2048^2, {library}", (2048, 2048), (65, 65), "reflect", "gaussian_filter", (peer,))


CASES = (
    Case(
        "1000000 * 64",
        (1_000_000,),
        (64,),
        "same",
        "oaconvolve",
        ("SciPy oaconvolve", "NumPy convolve", "PyTorch conv1d"),
    ),
    Case("1000000 * 1000", (1_000_000,), (1_000,), "full", "oaconvolve", ("SciPy oaconvolve", "SciPy fftconvolve")),
    Case("1000000 * 100000", (1_000_000,), (100_000,), "full", "oaconvolve", ("SciPy fftconvolve",)),
    Case("64 x 100000 * 4000", (64, 100_000), (1, 4_000), "full", "oaconvolve", ("SciPy oaconvolve",)),
    *_images(2048, 5),
    *_images(2048, 11),
    *_images(2048, 31),
    *_images(2048, 101),
    Case("512^2 * 31^2", (512, 512), (31, 31), "same", "oaconvolve", ("SciPy fftconvolve",)),
    Case("256^3 * 15^3", (256, 256, 256), (15, 15, 15), "same", "oaconvolve", ("SciPy oaconvolve",)),
    _gaussian("SciPy gaussian_filter", "SciPy"),
    _gaussian("OpenCV GaussianBlur", "OpenCV"),
)


# ---- Programs --------------------------------------------------------------------------------------------------------


def _oaconvolve(case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    from triconv import signal

    return partial(signal.oaconvolve, x, w, case.mode, case.axes)


def _correlate(case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    from triconv import signal

    return partial(signal.correlate, x, w, case.mode)


def _gaussian_filter(case: Case, x: np.ndarray, _: np.ndarray) -> Call:
    from triconv import ndimage

    return partial(ndimage.gaussian_filter, x, case.sigma, mode=case.mode)


FUNCTIONS = {"oaconvolve": _oaconvolve, "correlate": _correlate, "gaussian_filter": _gaussian_filter}


def _scipy_convolution(name: str, case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    from scipy import signal

    return partial(getattr(signal, name), x, w, case.mode, case.axes)


def _scipy_gaussian_filter(case: Case, x: np.ndarray, _: np.ndarray) -> Call:
    from scipy import ndimage

    return partial(ndimage.gaussian_filter, x, case.sigma, mode=case.mode)


def _numpy_convolve(case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    return partial(np.convolve, x, w, case.mode)


def _torch_conv1d(case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    """The layer correlates, so its kernel is flipped before; padding is the same at both ends, so that an even number
    of taps leaves one result too many.
    """
    import torch

    signal, kernel = (torch.from_numpy(array.copy())[None, None] for array in (x, w[::-1]))
    padding, count = len(w) // 2, len(x)
    return lambda: torch.nn.functional.conv1d(signal, kernel, padding=padding)[0, 0, :count]


def _opencv_filter2d(case: Case, x: np.ndarray, w: np.ndarray) -> Call:
    import cv2

    return partial(cv2.filter2D, x, -1, w, borderType=cv2.BORDER_CONSTANT)


def _opencv_gaussian_blur(case: Case, x: np.ndarray, _: np.ndarray) -> Call:
    import cv2

    return partial(cv2.GaussianBlur, x, case.kernel, case.sigma, borderType=cv2.BORDER_REFLECT)


@dataclass(frozen=True)
class Peer:
    package: str
    dtypes: tuple[str, ...]
    call: Callable[[Case, np.ndarray, np.ndarray], Call]


PEERS = {
    "SciPy oaconvolve": Peer("scipy", DTYPES, partial(_scipy_convolution, "oaconvolve")),
    "SciPy fftconvolve": Peer("scipy", DTYPES, partial(_scipy_convolution, "fftconvolve")),
    "SciPy gaussian_filter": Peer("scipy", DTYPES, _scipy_gaussian_filter),
    "NumPy convolve": Peer("numpy", DTYPES, _numpy_convolve),
    "PyTorch conv1d": Peer("torch", ("float32",), _torch_conv1d),
    "OpenCV filter2D": Peer("cv2", ("float32",), _opencv_filter2d),
    "OpenCV GaussianBlur": Peer("cv2", ("float32",), _opencv_gaussian_blur),
}


def available_peers(case: Case, dtype: str) -> list[str]:
    """Those of the case that are installed and compared in this dtype."""
    return [
        name for name in case.peers if dtype in PEERS[name].dtypes and importlib.util.find_spec(PEERS[name].package)
    ]


def signal_entries() -> list[tuple[Case, str]]:
    """The cases and dtypes that have a peer."""
    return [(case, dtype) for dtype in DTYPES for case in CASES if available_peers(case, dtype)]


# ---- Measurements ----------------------------------------------------------------------------------------------------


def measure_case(case: Case, dtype: str, threads: int, budget: Budget) -> Row:
    x, w = case.arrays(dtype)
    programs = [
        Program("triconv", "own", FUNCTIONS[case.function](case, x, w)),
        *(Program(name, "peer", PEERS[name].call(case, x, w)) for name in available_peers(case, dtype)),
    ]
    programs[0].call()
    run = tc.last_run()
    assert run is not None, "a convolution has just run"
    comparison = compare(programs, threads, budget)
    return Row(case.name, str(case), dtype, threads, run.algorithm, **vars(comparison))


def add_case_memory(row: Row, case: Case) -> None:
    row.peak_extra_bytes = in_fresh_process(case_extra_bytes, case, row.which, row.threads)
    row.memory_target_bytes = case.memory_target(row.which)


def case_extra_bytes(case: Case, dtype: str, threads: int) -> int:
    """How far the case raises the resident memory of this process, less the result."""

    def call_of(case: Case) -> Callable[[], Any]:
        return FUNCTIONS[case.function](case, *case.arrays(dtype))

    tc.set_num_threads(threads)
    call_of(case.shrunk())()
    rise, result = resident_rise(call_of(case))
    return max(0, rise - result.nbytes)
