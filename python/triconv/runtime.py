"""Threads, memory kept for reuse, the record of the last run, and what this build is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from . import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "BuildInfo",
    "RunInfo",
    "build_info",
    "get_num_threads",
    "last_run",
    "num_threads",
    "register_threadpoolctl",
    "release_memory",
    "set_num_threads",
]


class RunInfo(NamedTuple):
    """What a run did, as `last_run` returns it.

    Attributes
    ----------
    problem
        The problem and the pass in one line, such as ``"n8c64k64 i56x56 r7x7 p3 f32 fwd"``; without a pass after the
        backward of a step, which computes both gradients.
    algorithm
        The algorithm with its tile: ``"direct"``, ``"fft:16x16"``, ``"winograd:4x4"``.
    isa
        The kernels that ran: ``"baseline"``, ``"avx2"`` or ``"avx512"``.
    tiles
        Transform tiles computed; 0 for direct.
    recomputed_tiles
        Tiles that held a NaN or an infinity and were computed again by the definition; for direct, segments of output
        rows.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> y = tc.conv2d(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)), algorithm="direct")
    >>> isinstance(tc.last_run(), tc.RunInfo)
    True
    """

    problem: str
    algorithm: str
    isa: str
    tiles: int
    recomputed_tiles: int


def last_run() -> RunInfo | None:
    """Return what the calling thread's last convolution did.

    Returns
    -------
    RunInfo or None
        None if this thread has not computed any. Other threads' runs are not seen.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> y = tc.conv2d(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)), algorithm="direct")
    >>> tc.last_run().problem
    'n1c1k1 i8x8 r3x3 f64 fwd'
    >>> tc.last_run().algorithm
    'direct'
    """
    run = _core.last_run()
    return None if run is None else RunInfo(*run)


class BuildInfo(NamedTuple):
    """How the library was built and what it uses on this machine, as `build_info` returns it.

    Attributes
    ----------
    version, compiler, flags
        Of the library, and of the compiler that built it.
    isas
        The instruction sets compiled in, least to most capable.
    isa
        The one in use: the most capable that this CPU has, lowered by the environment variable ``TRICONV_MAX_ISA``.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.build_info().isas[0]
    'baseline'
    """

    version: str
    compiler: str
    flags: str
    isas: tuple[str, ...]
    isa: str


def build_info() -> BuildInfo:
    """Return how the library was built and which instruction set it uses.

    Raises
    ------
    ValueError
        If ``TRICONV_MAX_ISA`` is not one of ``baseline``, ``avx2``, ``avx512``, or not supported by this machine.

    Examples
    --------
    >>> import triconv as tc
    >>> info = tc.build_info()
    >>> info.isa in info.isas
    True
    """
    return BuildInfo(*_core.build_info())


def set_num_threads(n: int) -> None:
    """Set how many threads convolutions use, for the whole process.

    The first value comes from the environment variable ``TRICONV_NUM_THREADS``, else it is the number of cores the
    process may use. Results are the same bits for any number.

    Parameters
    ----------
    n
        Number of threads, from 1 to 65536.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int, or out of range.

    Examples
    --------
    >>> import triconv as tc
    >>> before = tc.get_num_threads()
    >>> tc.set_num_threads(1)
    >>> tc.get_num_threads()
    1
    >>> tc.set_num_threads(before)
    """
    _core.set_num_threads(n)


def get_num_threads() -> int:
    """Return how many threads convolutions use.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.get_num_threads() >= 1
    True
    """
    return _core.get_num_threads()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads inside a ``with`` block, then the former number again.

    The number belongs to the process: other Python threads see it too.

    Parameters
    ----------
    n
        Number of threads, at least 1.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an int, or less than 1.

    Examples
    --------
    >>> import triconv as tc
    >>> with tc.num_threads(1):
    ...     tc.get_num_threads()
    1
    """
    before = get_num_threads()
    set_num_threads(n)
    try:
        yield
    finally:
        set_num_threads(before)


def register_threadpoolctl() -> None:
    """Let threadpoolctl see and limit the threads of triconv, beside those of BLAS and OpenMP.

    Afterwards ``threadpoolctl.threadpool_info()`` lists the library, and ``threadpoolctl.threadpool_limits`` limits it:
    alone with ``user_api="triconv"``, or with all others. A second call changes nothing.

    Raises
    ------
    ImportError
        If threadpoolctl is not installed.

    Examples
    --------
    >>> import threadpoolctl, triconv as tc
    >>> tc.register_threadpoolctl()
    >>> with threadpoolctl.threadpool_limits(1):
    ...     tc.get_num_threads()
    1
    """
    from . import _threadpoolctl  # noqa: F401  registers when it is first imported


def release_memory() -> int:
    """Give the memory kept for reuse back to the system, and return how many bytes that was.

    Workspaces and results of 1 MiB or more come from a pool, because touching fresh memory for the first time takes
    longer than most layers' arithmetic allows. Their memory returns to the pool when the array is gone. It keeps what
    was used lately, up to 1 GiB or the environment variable ``TRICONV_MAX_IDLE_MIB``; with 0 there is no pool and
    results come from NumPy's allocator. Arrays in use are not touched.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> y = tc.conv2d(np.ones((1, 1, 1024, 1024)), np.ones((1, 1, 1, 1)))
    >>> del y
    >>> tc.release_memory() >= 8 * 1024 * 1024
    True
    >>> tc.release_memory()
    0
    """
    return _core.release_memory()
