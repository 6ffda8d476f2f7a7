"""The functions of `scipy.ndimage`: names, arguments, results and kinds of errors are SciPy's."""

# ruff: noqa: A002 (the argument `input` has the name it has in SciPy)

from __future__ import annotations

import numbers
import operator
from typing import TYPE_CHECKING

import numpy as np

from ..signal._modes import reverse
from ..signal._workers import threads
from ._arguments import (
    boundary_of,
    check_dtypes,
    ends_of,
    normalized_axes,
    normalized_axis,
    output_of,
    sequence,
)
from ._dispatch import filter_into
from ._kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Literal, SupportsIndex

    import numpy.typing as npt

    from .._typing import AnyArray
    from ..signal._boundary import Boundary
    from ._ordered import Order

    Mode = Literal["reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap"]
    Output = npt.DTypeLike | AnyArray | None
    Axes = SupportsIndex | Sequence[SupportsIndex] | None


def correlate(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex | Sequence[SupportsIndex] = 0,
    *,
    axes: Axes = None,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Correlate an image with weights.

    ``y[i] = sum over j of weights[j] * x[i + j - size // 2 - origin]`` along each axis; complex weights are conjugated.

    Parameters
    ----------
    input
        An array of integers, booleans, float32, float64, complex64 or complex128, with any number of axes and any
        strides. Called the image.
    weights
        An array with an axis for each of `axes`, in the order of the image's axes. May be larger than the image.
    output
        The array to write, which may be the image or share memory with it; or the dtype of the result. None for the
        image's dtype, or its complex counterpart if the weights are complex. A complex result needs a complex one.
    mode
        What is outside of the image ``a b c d``: ``"reflect"`` ``d c b a | a b c d | d c b a``, ``"mirror"``
        ``d c b | a b c d | c b a``, ``"nearest"`` ``a a a | a b c d | d d d``, ``"wrap"``
        ``a b c d | a b c d | a b c d``, ``"constant"`` `cval`. Names that begin with ``"grid-"`` are synonyms. No
        padded copy of the image is made.
    cval
        The value outside with ``mode="constant"``.
    origin
        Moves the kernel: 0 puts the middle of the weights on the sample, positive numbers to its left. One for all
        axes, or one for each.
    axes
        Axes to filter along; None for all. Along others the image is a batch of images.
    workers
        Number of threads of this call, -1 for all cores; None for `triconv.get_num_threads`. The bits of the result do
        not depend on it.

    Returns
    -------
    numpy.ndarray
        Of the image's shape. float32 is computed in float32, unless `output` is float64; integers are sums in float64
        cut towards zero.

    Raises
    ------
    RuntimeError
        If a mode is unknown, `output` or `weights` do not fit the image, or a dtype is not filtered.
    ValueError
        If `origin` leaves the weights, `axes` are not different axes of the image, `output` is read-only, weights are
        no numbers, or `cval` is complex for a real image and complex weights.
    TypeError
        If an int or a real number is expected.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.correlate([[1, 2, 3], [4, 5, 6]], [[0, 1], [0, 10]])
    array([[11, 22, 33],
           [41, 52, 63]])
    """
    return _correlate(input, weights, output, mode, cval, origin, axes, workers, convolution=False)


def convolve(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex | Sequence[SupportsIndex] = 0,
    *,
    axes: Axes = None,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve an image with weights.

    ``y[i] = sum over j of weights[j] * x[i - j + size // 2 + origin]`` along each axis.

    Parameters
    ----------
    input, weights, output, mode, cval, axes, workers
        As for `correlate`.
    origin
        As for `correlate`, in the other direction.

    Returns
    -------
    numpy.ndarray
        As of `correlate`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `correlate`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.convolve([1, 2, 3, 4], [1, 0, -1], mode="nearest")
    array([1, 2, 2, 1])
    """
    return _correlate(input, weights, output, mode, cval, origin, axes, workers, convolution=True)


def correlate1d(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    axis: SupportsIndex = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex = 0,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Correlate the lines of an image along one axis.

    Parameters
    ----------
    input, output, mode, cval, workers
        As for `correlate`.
    weights
        A sequence of numbers.
    axis, origin
        The axis, and how the kernel is moved along it.

    Returns
    -------
    numpy.ndarray
        As of `correlate`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `correlate`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.correlate1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([ 8, 26,  8, 12,  7, 28, 36,  9])
    """
    return _correlate1d(input, weights, axis, output, mode, cval, origin, workers, convolution=False)


def convolve1d(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    axis: SupportsIndex = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex = 0,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve the lines of an image along one axis.

    Parameters, results and errors are those of `correlate1d`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.convolve1d([2, 8, 0, 4, 1, 9, 9, 0], weights=[1, 3])
    array([14, 24,  4, 13, 12, 36, 27,  0])
    """
    return _correlate1d(input, weights, axis, output, mode, cval, origin, workers, convolution=True)


def gaussian_filter(
    input: npt.ArrayLike,
    sigma: float | Sequence[float],
    order: int | Sequence[int] = 0,
    output: Output = None,
    mode: Mode | Sequence[Mode] = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | Sequence[int] | None = None,
    axes: Axes = None,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Smooth an image with a Gaussian kernel, or filter it with derivatives of one.

    Parameters
    ----------
    input, output, cval, workers
        As for `correlate`.
    sigma
        Standard deviations, in samples: one for all axes, or one for each. Axes with one of 0 are left as they are.
    order
        0 for the kernel itself, n for its n-th derivative, along all axes or each.
    mode
        As for `correlate`, for all axes or each.
    truncate
        Standard deviations at which the kernel ends: its radius is ``int(truncate * sigma + 0.5)``.
    radius
        Samples on either side of the middle, instead of `truncate`; for all axes or each.
    axes
        Axes to filter along, in this order; None for all.

    Returns
    -------
    numpy.ndarray
        Of the image's shape. Integers are cut towards zero after every axis.

    Raises
    ------
    RuntimeError
        If a sequence does not have an entry for each axis; as `correlate`.
    ValueError
        If an order or a radius is negative or no integer; as `correlate`.
    TypeError
        As `correlate`.

    Examples
    --------
    >>> import numpy as np, triconv.ndimage
    >>> image = np.zeros((5, 5), np.float32)
    >>> image[2, 2] = 1
    >>> triconv.ndimage.gaussian_filter(image, sigma=1, radius=1).round(3)[1:4, 1:4]
    array([[0.075, 0.124, 0.075],
           [0.124, 0.204, 0.124],
           [0.075, 0.124, 0.075]], dtype=float32)
    """
    image = np.asarray(input)
    out = output_of(output, image)
    along = normalized_axes(axes, image.ndim)
    settings = zip(
        along,
        sequence("sigma", sigma, len(along)),
        sequence("order", order, len(along)),
        sequence("mode", mode, len(along)),
        sequence("radius", radius, len(along)),
        strict=True,
    )
    kernels = []
    for a, s, n, m, r in settings:
        if s > 1e-15:
            weights = _gaussian(s, n, truncate, r)
            kernels.append(_line(a, weights, 0, boundary_of(m, cval, image)))
    return _filtered(out, image, kernels, "line", workers)


def gaussian_filter1d(
    input: npt.ArrayLike,
    sigma: float,
    axis: SupportsIndex = -1,
    order: int = 0,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    truncate: float = 4.0,
    *,
    radius: int | None = None,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Smooth the lines of an image along one axis with a Gaussian kernel, or filter them with derivatives of one.

    Parameters
    ----------
    input, sigma, order, output, mode, cval, truncate, radius, workers
        As for `gaussian_filter`, of one axis.
    axis
        The axis.

    Returns
    -------
    numpy.ndarray
        As of `gaussian_filter`.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As `gaussian_filter`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.gaussian_filter1d([1.0, 2.0, 3.0, 4.0, 5.0], 1).round(3)
    array([1.427, 2.068, 3.   , 3.932, 4.573])
    """
    weights = _gaussian(sigma, order, truncate, radius)
    return _correlate1d(input, weights, axis, output, mode, cval, 0, workers, convolution=False)


def uniform_filter(
    input: npt.ArrayLike,
    size: int | Sequence[int] = 3,
    output: Output = None,
    mode: Mode | Sequence[Mode] = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex | Sequence[SupportsIndex] = 0,
    *,
    axes: Axes = None,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Replace every sample by the mean of those around it.

    Parameters
    ----------
    input, output, cval, origin, workers
        As for `correlate`.
    size
        Samples of which the mean is taken, along all axes or each. Axes with 1 or less are left as they are.
    mode
        As for `correlate`, for all axes or each.
    axes
        Axes to filter along, in this order; None for all.

    Returns
    -------
    numpy.ndarray
        Of the image's shape. Integers are cut towards zero after every axis.

    Raises
    ------
    RuntimeError
        If a sequence does not have an entry for each axis; as `correlate`.
    TypeError, ValueError
        As `correlate`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.uniform_filter([[0, 9, 0], [9, 0, 9]], size=(1, 3))
    array([[3, 3, 3],
           [6, 6, 6]])
    """
    image = np.asarray(input)
    out = output_of(output, image, np.iscomplexobj(image))
    along = normalized_axes(axes, image.ndim)
    settings = zip(
        along,
        sequence("size", size, len(along)),
        sequence("origin", origin, len(along)),
        sequence("mode", mode, len(along)),
        strict=True,
    )
    kernels = [_line(a, _box(int(n)), o, boundary_of(m, cval, image)) for a, n, o, m in settings if n > 1]
    return _filtered(out, image, kernels, "running", workers)


def uniform_filter1d(
    input: npt.ArrayLike,
    size: int,
    axis: SupportsIndex = -1,
    output: Output = None,
    mode: Mode = "reflect",
    cval: complex = 0.0,
    origin: SupportsIndex = 0,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Replace every sample by the mean of those around it along one axis.

    Parameters
    ----------
    input, output, mode, cval, workers
        As for `correlate`.
    size
        Samples of which the mean is taken.
    axis, origin
        The axis, and how the window is moved along it.

    Returns
    -------
    numpy.ndarray
        As of `uniform_filter`.

    Raises
    ------
    RuntimeError
        If `size` is less than 1; as `correlate`.
    TypeError, ValueError
        As `correlate`.

    Examples
    --------
    >>> import triconv.ndimage
    >>> triconv.ndimage.uniform_filter1d([2, 8, 0, 4, 1, 9, 9, 0], size=3)
    array([4, 3, 4, 1, 4, 6, 6, 3])
    """
    image = np.asarray(input)
    index = normalized_axis(axis, image.ndim)
    if size < 1:
        raise RuntimeError(f"size is {size!r}, expected at least 1")
    out = output_of(output, image, np.iscomplexobj(image))
    kernel = _line(index, _box(size), origin, boundary_of(mode, cval, image))
    return _filtered(out, image, [kernel], "running", workers)


def _box(size: SupportsIndex) -> AnyArray:
    count = operator.index(size)
    return np.full(count, 1 / count)


def _gaussian(sigma: Any, order: Any, truncate: float, radius: Any) -> AnyArray:
    """Weights of a correlation with a Gaussian kernel or the reversed derivative of one."""
    reach = int(truncate * float(sigma) + 0.5) if radius is None else radius
    if not isinstance(reach, numbers.Integral) or reach < 0:
        raise ValueError(f"radius is {reach!r}, expected an int of at least 0")
    if order < 0:
        raise ValueError(f"order is {order!r}, expected at least 0")
    degree = operator.index(order)
    variance = sigma * sigma
    x = np.arange(-int(reach), int(reach) + 1)
    density: AnyArray = np.exp(-0.5 / variance * x**2)
    density = density / density.sum()
    if degree == 0:
        return density
    # The derivative of p(x) * density(x) is (p' - p * x / variance) * density(x): a matrix for the coefficients of p.
    powers = np.arange(degree + 1)
    derivative = np.diag(powers[1:], 1) + np.diag(np.full(degree, -1 / variance), -1)
    coefficients = np.eye(1, degree + 1)[0]
    for _ in range(degree):
        coefficients = derivative.dot(coefficients)
    weights: AnyArray = ((x[:, np.newaxis] ** powers).dot(coefficients) * density)[::-1]
    return weights


def _line(axis: int, weights: AnyArray, origin: Any, boundary: Boundary) -> Kernel:
    return Kernel((axis,), weights, (ends_of(origin, weights.size),), boundary)


def _weights(weights: AnyArray, conjugate: bool) -> AnyArray:
    """A copy in double precision."""
    if weights.dtype.kind != "c":
        return np.array(weights, np.float64)
    doubled = np.array(weights, np.complex128)
    return doubled.conj() if conjugate else doubled


def _check_cval(image: AnyArray, weights: AnyArray, cval: complex) -> None:
    if weights.dtype.kind == "c" and image.dtype.kind != "c" and np.iscomplexobj(cval):
        raise ValueError(f"cval is {cval!r}, expected a real number for a real image")


def _correlate1d(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    axis: SupportsIndex,
    output: Output,
    mode: object,
    cval: complex,
    origin: Any,
    workers: SupportsIndex | None,
    convolution: bool,
) -> AnyArray:
    image, given = np.asarray(input), np.asarray(weights)
    if convolution:
        given = given[::-1]
        origin = -origin - (given.shape[0] + 1) % 2
    out = output_of(output, image, np.iscomplexobj(image) or np.iscomplexobj(given))
    _check_cval(image, given, cval)
    taps = _weights(given, conjugate=not convolution)
    if taps.ndim != 1 or taps.size == 0:
        raise RuntimeError(f"weights has shape {taps.shape}, expected one axis and at least one weight")
    kernel = _line(normalized_axis(axis, image.ndim), taps, origin, boundary_of(mode, cval, image))
    return _filtered(out, image, [kernel], "line", workers)


def _correlate(
    input: npt.ArrayLike,
    weights: npt.ArrayLike,
    output: Output,
    mode: object,
    cval: complex,
    origin: Any,
    axes: Axes,
    workers: SupportsIndex | None,
    convolution: bool,
) -> AnyArray:
    image, given = np.asarray(input), np.asarray(weights)
    out = output_of(output, image, np.iscomplexobj(image) or np.iscomplexobj(given))
    _check_cval(image, given, cval)
    along = normalized_axes(axes, image.ndim)
    taps = _weights(given, conjugate=not convolution)
    if taps.ndim != len(along) or taps.size == 0:
        raise RuntimeError(f"weights has shape {taps.shape}, expected {len(along)} axes and at least one weight")
    origins = sequence("origin", origin, len(along))
    if len(along) < image.ndim:  # SciPy looks at the order of all axes nowhere, at that of some for the origins only
        origins = [origins[along.index(axis)] for axis in sorted(along)]
    if convolution:
        taps = reverse(taps, range(taps.ndim))
        origins = [-o - (size + 1) % 2 for o, size in zip(origins, taps.shape, strict=True)]
    ends = [ends_of(o, size) for o, size in zip(origins, taps.shape, strict=True)]
    # Nothing is convolved along axes with one weight.
    kept = [(a, e) for a, e, size in zip(sorted(along), ends, taps.shape, strict=True) if size > 1]
    boundary = boundary_of(mode, cval, image)
    kernel = Kernel(tuple(a for a, _ in kept), taps.squeeze(), tuple(e for _, e in kept), boundary)
    return _filtered(out, image, [kernel], "rows", workers)


def _filtered(
    out: AnyArray, image: AnyArray, kernels: list[Kernel], order: Order, workers: SupportsIndex | None
) -> AnyArray:
    if not kernels:
        out[...] = image
        return out
    check_dtypes(image, out, np.iscomplexobj(image) or np.iscomplexobj(kernels[0].weights))
    with threads(workers):
        filter_into(out, image, kernels, order)
    return out
