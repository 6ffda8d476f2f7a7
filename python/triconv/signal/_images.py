"""`convolve2d` and `correlate2d` of `scipy.signal`."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from ._boundary import ZEROS
from ._convolve import convolve_arrays
from ._functions import convolved_axes, promoted
from ._modes import check_mode, check_valid, geometry, reverse
from ._workers import threads

if TYPE_CHECKING:
    from typing import Any, SupportsIndex

    import numpy.typing as npt

    from .._typing import AnyArray
    from ._boundary import Boundary
    from ._functions import Mode


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
    boundary
        What is outside of in1: `fillvalue` with ``"fill"`` (or ``"pad"``); in1 repeated with ``"wrap"``
        (``"circular"``); in1 mirrored, edges included, with ``"symm"`` (``"symmetric"``). No padded copy is made.
        ``mode="valid"`` reads nothing outside.
    fillvalue
        A number that the dtype of the result holds; looked at with ``"fill"`` only.

    Returns
    -------
    numpy.ndarray
        As of `convolve`; zeros if an input is empty.

    Raises
    ------
    TypeError, ValueError
        As `convolve`; ValueError if the arrays are not 2-dimensional, the boundary is not known, or `fillvalue` is not
        of the result's dtype.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.convolve2d([[1, 2], [3, 4]], [[1, 1]])
    array([[1, 3, 2],
           [3, 7, 4]])
    >>> triconv.signal.convolve2d([[1, 2], [3, 4]], [[1, 1]], mode="same", boundary="wrap")
    array([[3, 3],
           [7, 7]])
    """
    return _convolve(in1, in2, mode, boundary, fillvalue, workers, correlated=False)


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
    return _convolve(in1, in2, mode, boundary, fillvalue, workers, correlated=True)


_BOUNDARIES = {
    "fill": "constant",
    "pad": "constant",
    "wrap": "wrap",
    "circular": "wrap",
    "symm": "reflect",
    "symmetric": "reflect",
}


def _convolve(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: str,
    boundary: str,
    fillvalue: complex,
    workers: SupportsIndex | None,
    correlated: bool,
) -> AnyArray:
    check_mode(mode)
    image, kernel = np.asarray(in1), np.asarray(in2)
    if image.ndim != 2 or kernel.ndim != 2:
        raise ValueError(f"in1 has {image.ndim} axes and in2 {kernel.ndim}, expected 2")
    dtype = promoted(image.dtype, kernel.dtype)
    outside = _boundary(boundary, fillvalue, dtype)
    swapped = mode == "valid" and check_valid(image.shape, kernel.shape, (0, 1))
    if image.size == 0 or kernel.size == 0:
        return np.zeros(geometry(mode, image.shape, kernel.shape, (0, 1)).shape, dtype)
    if mode == "valid" or outside == ZEROS:
        axes = convolved_axes(image.shape, kernel.shape, (0, 1))
        whole = geometry(mode, image.shape, kernel.shape, axes, late=correlated)
    else:
        axes = tuple(a for a in (0, 1) if kernel.shape[a] > 1)
        whole = geometry(mode, image.shape, kernel.shape, axes, False, correlated, outside)
    if correlated:
        kernel = reverse(kernel, (0, 1))
    with threads(workers):
        out = convolve_arrays(image, kernel, whole, dtype, conjugate=correlated)
    if correlated and swapped and dtype.kind == "c":
        np.conj(out, out=out)
    return out


def _boundary(boundary: object, fillvalue: complex, dtype: np.dtype[Any]) -> Boundary:
    if not isinstance(boundary, str) or boundary not in _BOUNDARIES:
        raise ValueError(f"boundary is {boundary!r}, expected 'fill', 'wrap' or 'symm'")
    name = _BOUNDARIES[boundary]
    return name, _fill(fillvalue, dtype) if name == "constant" else 0.0


def _fill(fillvalue: complex, dtype: np.dtype[Any]) -> complex:
    """The value as a number of the dtype: of integers the integer part."""
    given = np.asarray(fillvalue)
    message = f"fillvalue is {fillvalue!r}, expected a number that {dtype} holds"
    if given.size != 1:
        raise ValueError(message)
    number = given.item()
    is_number = given.dtype.kind in ("biufc" if dtype.kind in "cO" else "biuf")
    if not is_number and not (given.dtype.kind == "O" and isinstance(number, (Real, Decimal))):
        raise ValueError(message)
    try:
        value = complex(number)
    except (OverflowError, ValueError):  # of a signalling NaN
        raise ValueError(message) from None
    if value.imag != 0:
        return value
    if dtype.kind in "fcO":
        return value.real
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not math.isfinite(value.real) or not limits[0] <= int(value.real) <= limits[1]:
        raise ValueError(message)
    return float(int(value.real))
