"""Kernels whose transforms are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._convolve import convolve_arrays, float_dtype
from ._functions import along, axes_of, check_dimensions
from ._modes import check_mode
from ._problem import plan_of
from ._workers import threads

if TYPE_CHECKING:
    from typing import Any, SupportsIndex

    import numpy.typing as npt

    from .. import _core
    from .._typing import AnyArray
    from ._functions import Axes, Mode
    from ._problem import Key


def checked_kernel(kernel: npt.ArrayLike) -> AnyArray:
    """A read-only copy. Raises ValueError if it is empty, has no axes or no numeric dtype."""
    array = np.array(kernel)
    array.flags.writeable = False
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"kernel has shape {array.shape}, expected at least one axis and one sample")
    float_dtype(array.dtype)
    return array


class PreparedRun:
    """A `Run` that transforms each kernel at its first call, for images of one shape and layout."""

    def __init__(self) -> None:
        self._weights: dict[tuple[Key, tuple[int, ...]], _core.PreparedWeights] = {}

    def __call__(self, key: Key, x: AnyArray, w: AnyArray, w_index: tuple[int, ...], out: AnyArray) -> None:
        weights = self._weights.get((key, w_index))
        if weights is None:
            weights = self._weights[key, w_index] = plan_of(key, "auto").prepare(w, "forward")
        weights.forward(x, None, out)

    def __reduce__(self) -> tuple[type[PreparedRun], tuple[()]]:
        return PreparedRun, ()  # a copy, or what is read from a file, makes its transforms again

    @property
    def nbytes(self) -> int:
        """Memory that the transforms hold."""
        return sum(weights.nbytes for weights in list(self._weights.values()))  # another thread may add some


class PreparedKernel:
    """A kernel to convolve many arrays with, made by `prepare`. Any number of threads may use it.

    Examples
    --------
    >>> import triconv.signal
    >>> kernel = triconv.signal.prepare([1.0, 10.0])
    >>> kernel.convolve([1.0, 2.0, 3.0])
    array([ 1., 12., 23., 30.])
    >>> kernel.convolve([5.0, 6.0], mode="same")
    array([ 5., 56.])
    """

    _capacity = 16  # shapes

    def __init__(self, kernel: npt.ArrayLike, axes: Axes = None) -> None:
        self._kernel = checked_kernel(kernel)
        self._axes = axes_of(self._kernel, axes)
        # Least recently used first. Replaced, never changed, so that it needs no lock, which a fork could leave locked.
        self._runs: dict[tuple[Any, ...], PreparedRun] = {}

    @property
    def kernel(self) -> AnyArray:
        """The kernel, as it was given; read-only."""
        return self._kernel

    @property
    def nbytes(self) -> int:
        """Memory held: the kernel and its transforms."""
        return self._kernel.nbytes + sum(run.nbytes for run in self._runs.values())

    def convolve(self, in1: npt.ArrayLike, mode: Mode = "full", *, workers: SupportsIndex | None = None) -> AnyArray:
        """Return the convolution of `in1` with the kernel: that of ``oaconvolve(in1, kernel, mode, axes)``.

        The first call for a shape makes the transform that later calls for this shape read. Those of the 16 shapes used
        last are kept.

        Parameters
        ----------
        in1, mode, workers
            As for `oaconvolve`.

        Raises
        ------
        TypeError, ValueError
            As `oaconvolve`.
        """
        check_mode(mode)
        image = np.asarray(in1)
        check_dimensions(image, self._kernel)
        if image.size == 0:
            return np.array([])
        geometry, dtype = along(mode, image, self._kernel, self._axes, commutes=False)
        run = self._run_for((image.shape, image.strides, image.dtype, mode))
        with threads(workers):
            return convolve_arrays(image, self._kernel, geometry, dtype, run=run)

    def _run_for(self, signature: tuple[Any, ...]) -> PreparedRun:
        runs = dict(self._runs)
        run = runs.pop(signature, None) or PreparedRun()
        if len(runs) == self._capacity:
            del runs[next(iter(runs))]
        runs[signature] = run
        self._runs = runs  # another thread's addition may be lost: its transform is made again when asked for
        return run

    def __repr__(self) -> str:
        return f"PreparedKernel(shape={self._kernel.shape}, dtype={self._kernel.dtype}, axes={self._axes})"


def prepare(kernel: npt.ArrayLike, axes: Axes = None) -> PreparedKernel:
    """Keep the transform of a kernel for many arrays of any shape.

    Worth it for many small arrays: for one of many tiles the kernel's transform is a small part of the work.

    Parameters
    ----------
    kernel
        What `PreparedKernel.convolve` takes as its kernel, however small the array. It is copied.
    axes
        The convolved axes: an int or ints; None for all axes.

    Raises
    ------
    ValueError
        If the kernel is empty, has no axes or no numeric dtype, or `axes` are not different axes of it.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> blur = triconv.signal.prepare(np.full((3, 3), 1 / 9, dtype=np.float32))
    >>> [blur.convolve(np.ones(shape, dtype=np.float32), mode="valid").shape for shape in [(5, 5), (8, 4)]]
    [(3, 3), (6, 2)]
    """
    return PreparedKernel(kernel, axes)
