"""`convolve2d` and `correlate2d` of `scipy.signal`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._convolve import convolve_arrays
from ._functions import convolved_axes, promoted
from ._modes import check_mode, check_valid, geometry, reverse
from ._workers import threads

if TYPE_CHECKING:
    from typing import SupportsIndex

    import numpy.typing as npt

    from .._typing import AnyArray
    from ._functions import Mode

__all__ = ["convolve2d", "correlate2d"]


def convolve2d(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve two 2-dimensional arrays.

    Parameters
    ----------
    in1, in2, mode, workers
        As for `convolve`.
    boundary, fillvalue
        What is outside of `in1`: ``"fill"`` with 0.

    Returns
    -------
    numpy.ndarray
        As of `convolve`; zeros if an input is empty.

    Raises
    ------
    TypeError, ValueError
        As `convolve`; ValueError if the arrays are not 2-dimensional, or the boundary is not known.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.convolve2d([[1, 2], [3, 4]], [[1, 1]])
    array([[1, 3, 2],
           [3, 7, 4]])
    """
    image, kernel = _images(in1, in2, mode, boundary, fillvalue)
    return _convolve(image, kernel, mode, workers, correlated=False)


def correlate2d(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    boundary: str = "fill",
    fillvalue: complex = 0,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Cross-correlate two 2-dimensional arrays.

    Two things differ from `correlate`, as in SciPy. With ``mode="same"`` and a kernel of even size the result is one
    position off. With ``mode="valid"`` and a complex in2 larger than in1 it is in1 that is conjugated.

    Parameters
    ----------
    in1, in2, mode, boundary, fillvalue, workers
        As for `convolve2d`.

    Returns
    -------
    numpy.ndarray
        As of `convolve2d`.

    Raises
    ------
    TypeError, ValueError
        As `convolve2d`.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.correlate2d([[1, 2, 3]], [[1, 10]])
    array([[10, 21, 32,  3]])
    """
    image, kernel = _images(in1, in2, mode, boundary, fillvalue)
    return _convolve(image, kernel, mode, workers, correlated=True)


def _images(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str, boundary: str, fillvalue: complex
) -> tuple[AnyArray, AnyArray]:
    check_mode(mode)
    if boundary not in ("fill", "pad") or fillvalue != 0:
        raise ValueError(f"boundary is {boundary!r} with {fillvalue!r}, expected 'fill' with 0")
    image, kernel = np.asarray(in1), np.asarray(in2)
    if image.ndim != 2 or kernel.ndim != 2:
        raise ValueError(f"in1 has {image.ndim} axes and in2 {kernel.ndim}, expected 2")
    return image, kernel


def _convolve(in1: AnyArray, in2: AnyArray, mode: str, workers: SupportsIndex | None, correlated: bool) -> AnyArray:
    dtype = promoted(in1.dtype, in2.dtype)
    swapped = mode == "valid" and check_valid(in1.shape, in2.shape, (0, 1))
    if in1.size == 0 or in2.size == 0:
        empty = geometry(mode, in1.shape, in2.shape, (0, 1))
        return np.zeros(empty.shape, dtype)
    axes = convolved_axes(in1.shape, in2.shape, (0, 1))
    whole = geometry(mode, in1.shape, in2.shape, axes, late=correlated)
    if correlated:
        in2 = reverse(in2, (0, 1))
    with threads(workers):
        out = convolve_arrays(in1, in2, whole, dtype, conjugate=correlated)
    if correlated and swapped and dtype.kind == "c":
        np.conj(out, out=out)
    return out
