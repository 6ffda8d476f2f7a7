"""The functions of `scipy.signal`: names, arguments, results and kinds of errors are SciPy's."""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ._convolve import check_numeric, convolve_arrays, float_dtype, method_of
from ._modes import check_mode, check_valid, geometry, reverse
from ._workers import threads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any, Literal, SupportsIndex

    import numpy.typing as npt

    from .._typing import AnyArray
    from ._modes import Geometry

    Mode = Literal["full", "same", "valid"]
    Method = Literal["auto", "direct", "fft"]
    Axes = SupportsIndex | Iterable[SupportsIndex] | None


def convolve(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    method: Method = "auto",
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve two N-dimensional arrays.

    ``y[o] = sum over i of in1[i] * in2[o - i]``, samples outside the arrays being 0.

    Parameters
    ----------
    in1, in2
        Arrays with equal numbers of axes, any strides. The one with fewer samples is taken as the kernel; the other is
        read in place if it has the dtype of the result.
    mode
        ``"full"`` for every output, ``in1 + in2 - 1`` per axis; ``"same"`` for the middle ones, as many as `in1` has;
        ``"valid"`` for those that need no sample outside, for which one array must be at least as large as the other
        along every axis.
    method
        ``"direct"`` sums products, ``"fft"`` multiplies spectra of tiles, ``"auto"`` is the one predicted to be
        faster, as `choose_conv_method` says.
    workers
        Number of threads of this call, -1 for all cores; None for `triconv.get_num_threads`. The bits of the result do
        not depend on it.

    Returns
    -------
    numpy.ndarray
        Of the dtype that NumPy promotes those of `in1` and `in2` to. Integers are exact by either method, modulo the
        range of their dtype; booleans are combined by ``and`` and ``or``; float16 is computed in float32.

    Raises
    ------
    ValueError
        If an option is unknown, an array is empty (but for an empty `in1` with ``"same"``), the numbers of axes differ,
        the sizes do not fit ``"valid"``, or a dtype is not numeric.
    TypeError
        If `workers` is not an int.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.convolve([1, 2, 3], [0, 1, 10])
    array([ 0,  1, 12, 23, 30])
    >>> triconv.signal.convolve([1.0, 2.0, 3.0], [1.0, 1.0], mode="valid")
    array([3., 5.])
    """
    return _convolve(in1, in2, mode, method, workers, correlated=False)


def correlate(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    method: Method = "auto",
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Cross-correlate two N-dimensional arrays.

    ``y[k] = sum over i of in1[i + k] * conj(in2[i])`` for lags k from ``1 - (size of in2)``, which `correlation_lags`
    lists: the convolution with the reversed conjugate of `in2`.

    Parameters
    ----------
    in1, in2, mode, method, workers
        As for `convolve`.

    Returns
    -------
    numpy.ndarray
        As of `convolve`.

    Raises
    ------
    TypeError, ValueError
        As `convolve`.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.correlate([1, 2, 3], [0, 1, 10])
    array([10, 21, 32,  3,  0])
    """
    return _convolve(in1, in2, mode, method, workers, correlated=True)


def fftconvolve(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    axes: Axes = None,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve two arrays along some of their axes, in floating point.

    The same function as `oaconvolve`: both have the names of SciPy's. Both cut the larger array into tiles that fit the
    cache, and sum short kernels directly where that is predicted to be faster.

    Parameters
    ----------
    in1, in2
        Arrays with equal numbers of axes, any strides. Along axes that are not convolved they broadcast.
    mode
        As for `convolve`, along the convolved axes. ``"same"`` is the middle of the full result along every axis, those
        that are not convolved included.
    axes
        An int or ints; None for all axes.
    workers
        As for `convolve`.

    Returns
    -------
    numpy.ndarray
        float32, float64, longdouble or their complex counterparts; integers are computed in float64, float16 in
        float32. Where every axis has one sample in one of the arrays, the plain product with NumPy's dtype. An empty
        array of shape (0,) if an input is empty.

    Raises
    ------
    ValueError
        If an option is unknown, the numbers of axes differ, `axes` are not different axes of the arrays, the shapes do
        not broadcast along the others or do not fit ``"valid"``, or a dtype is not numeric.
    TypeError
        If `workers` is not an int.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> channels = np.ones((2, 5), dtype=np.float32)
    >>> triconv.signal.fftconvolve(channels, [[1, 1], [0, 2]], mode="valid", axes=-1)
    array([[2., 2., 2., 2.],
           [2., 2., 2., 2.]])
    """
    return _convolve_along(in1, in2, mode, axes, workers)


def oaconvolve(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    axes: Axes = None,
    *,
    workers: SupportsIndex | None = None,
) -> AnyArray:
    """Convolve two arrays along some of their axes, in floating point.

    The same function as `fftconvolve`, with its parameters, results and errors.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> triconv.signal.oaconvolve(np.ones(4), [1.0, 2.0])
    array([1., 3., 3., 3., 2.])
    """
    return _convolve_along(in1, in2, mode, axes, workers)


def choose_conv_method(
    in1: npt.ArrayLike,
    in2: npt.ArrayLike,
    mode: Mode = "full",
    measure: bool = False,
    *,
    workers: SupportsIndex | None = None,
) -> Any:
    """Tell whether `convolve` and `correlate` take the direct method or the FFT for these arrays.

    Parameters
    ----------
    in1, in2, mode, workers
        As for `convolve`.
    measure
        Whether to time both instead of asking the cost model, which never looks at a clock.

    Returns
    -------
    str
        ``"direct"`` or ``"fft"``.
    dict of str to float
        The seconds of each, only with `measure`.

    Raises
    ------
    TypeError, ValueError
        As `convolve`.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> triconv.signal.choose_conv_method(np.ones(100), np.ones(3))
    'direct'
    >>> triconv.signal.choose_conv_method(np.ones((1000, 1000)), np.ones((50, 50)))
    'fft'
    """
    check_mode(mode)
    in1, in2 = np.asarray(in1), np.asarray(in2)
    if measure:
        seconds = {method: _seconds(in1, in2, mode, method, workers) for method in ("fft", "direct")}
        return "fft" if seconds["fft"] < seconds["direct"] else "direct", seconds
    check_dimensions(in1, in2)
    if in1.ndim == 0 or in1.size == 0 or in2.size == 0:
        return "direct"
    dtype = promoted(in1.dtype, in2.dtype)
    return method_of(in1, in2, _whole(mode, in1.shape, in2.shape), dtype)


def correlation_lags(
    in1_len: int, in2_len: int, mode: Mode = "full", *, workers: SupportsIndex | None = None
) -> AnyArray:
    """Return the lag of each output of a 1-dimensional `correlate`.

    Parameters
    ----------
    in1_len, in2_len
        Samples of the two signals.
    mode
        That of `correlate`.
    workers
        As for `correlate`, for calls with the same arguments: there is nothing to share here.

    Returns
    -------
    numpy.ndarray
        Integers: the shift of `in2` at each position of the result.

    Raises
    ------
    ValueError
        If `mode` is unknown, or `workers` no number of threads.
    TypeError
        If `workers` is not an int.

    Examples
    --------
    >>> import triconv.signal
    >>> triconv.signal.correlation_lags(3, 2)
    array([-1,  0,  1,  2])
    """
    check_mode(mode)
    threads(workers)  # checks it
    if mode == "valid":
        surplus = in1_len - in2_len
        return np.arange(min(surplus, 0), max(surplus, 0) + 1)
    lags = np.arange(1 - in2_len, in1_len)
    if mode == "full":
        return lags
    start = lags.size // 2 - in1_len // 2
    return lags[start : start + in1_len]


def check_dimensions(in1: AnyArray, in2: AnyArray) -> None:
    if in1.ndim != in2.ndim:
        raise ValueError(f"in1 has {in1.ndim} axes and in2 {in2.ndim}, expected equally many")


def _check_method(method: object) -> None:
    if not isinstance(method, str) or method not in ("auto", "direct", "fft"):
        raise ValueError(f"method is {method!r}, expected 'auto', 'direct' or 'fft'")


@lru_cache(maxsize=256)
def _whole(mode: str, shape1: tuple[int, ...], shape2: tuple[int, ...]) -> Geometry:
    """The geometry of a convolution along all axes."""
    if mode == "valid":
        check_valid(shape1, shape2, range(len(shape1)))
    return geometry(mode, shape1, shape2, convolved_axes(shape1, shape2, range(len(shape1))))


@lru_cache(maxsize=64)
def promoted(dtype1: np.dtype[Any], dtype2: np.dtype[Any]) -> np.dtype[Any]:
    check_numeric(dtype1, others="O")
    check_numeric(dtype2, others="O")
    return np.result_type(dtype1, dtype2)


def convolved_axes(shape1: tuple[int, ...], shape2: tuple[int, ...], axes: Iterable[int]) -> tuple[int, ...]:
    """Those of the axes along which both arrays have more than one sample: else the convolution is a product."""
    return tuple(a for a in axes if shape1[a] != 1 and shape2[a] != 1)


def along(
    mode: str, in1: AnyArray, in2: AnyArray, axes: Iterable[int], commutes: bool = True
) -> tuple[Geometry, np.dtype[Any]]:
    """The geometry of a convolution along `axes` and the dtype of its result, by the rules of `fftconvolve`."""
    dtype = float_dtype(in1.dtype, in2.dtype)
    convolved = convolved_axes(in1.shape, in2.shape, axes)
    _check_broadcast(in1.shape, in2.shape, convolved)
    if mode == "valid":
        check_valid(in1.shape, in2.shape, convolved)
    if not convolved:  # a product, of NumPy's dtype
        dtype = np.result_type(in1, in2)
    return geometry(mode, in1.shape, in2.shape, convolved, commutes), dtype


def _product(in1: AnyArray, in2: AnyArray, correlated: bool) -> AnyArray:
    """Of arrays without axes, as SciPy does it: a NumPy scalar."""
    result: AnyArray = in1 * (np.conj(in2) if correlated and in2.dtype.kind == "c" else in2)
    return result


def _convolve(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str, method: str, workers: SupportsIndex | None, correlated: bool
) -> AnyArray:
    check_mode(mode)
    _check_method(method)
    in1, in2 = np.asarray(in1), np.asarray(in2)
    check_dimensions(in1, in2)
    if in1.ndim == 0:
        return _product(in1, in2, correlated)
    if in1.size == 0 and in2.size > 0 and mode == "same":
        return np.empty(in1.shape, np.result_type(in1, in2))
    if in1.size == 0 or in2.size == 0:
        raise ValueError(f"in1 has shape {in1.shape} and in2 {in2.shape}, expected no empty array")
    dtype = promoted(in1.dtype, in2.dtype)
    whole = _whole(mode, in1.shape, in2.shape)
    if correlated:
        in2 = reverse(in2, range(in2.ndim))
    with threads(workers):
        return convolve_arrays(in1, in2, whole, dtype, method, conjugate=correlated)


def _seconds(in1: AnyArray, in2: AnyArray, mode: str, method: str, workers: SupportsIndex | None) -> float:
    """Seconds of a call: the best of three rounds that take at least 5 ms each, or one call if it takes a second."""
    import timeit  # what most programs do not need

    timer = timeit.Timer(lambda: _convolve(in1, in2, mode, method, workers, correlated=False))
    number = 1
    while (seconds := timer.timeit(number)) < 5e-3:
        number *= 10
    return (seconds if seconds > 1 else min(timer.repeat(3, number))) / number


def axes_of(in1: AnyArray, axes: Axes) -> list[int]:
    if axes is None:
        return list(range(in1.ndim))
    try:
        listed = [operator.index(a) for a in ([axes] if isinstance(axes, (int, np.integer)) else axes)]  # type: ignore[union-attr]
    except TypeError:
        raise ValueError(f"axes is {axes!r}, expected an int, ints or None") from None
    positive = [a + in1.ndim if a < 0 else a for a in listed]
    if not listed or len(set(positive)) != len(positive) or not all(0 <= a < in1.ndim for a in positive):
        raise ValueError(f"axes is {axes!r}, expected one or more different axes of arrays with {in1.ndim}")
    return positive


def _convolve_along(
    in1: npt.ArrayLike, in2: npt.ArrayLike, mode: str, axes: Axes, workers: SupportsIndex | None
) -> AnyArray:
    check_mode(mode)
    in1, in2 = np.asarray(in1), np.asarray(in2)
    check_dimensions(in1, in2)
    if in1.ndim == 0:
        return _product(in1, in2, correlated=False)
    if in1.size == 0 or in2.size == 0:
        return np.array([])
    geometry_along, dtype = along(mode, in1, in2, axes_of(in1, axes))
    with threads(workers):
        return convolve_arrays(in1, in2, geometry_along, dtype)


def _check_broadcast(shape1: tuple[int, ...], shape2: tuple[int, ...], convolved: Collection[int]) -> None:
    for axis, sizes in enumerate(zip(shape1, shape2, strict=True)):
        if axis not in convolved and sizes[0] != sizes[1] and 1 not in sizes:
            raise ValueError(
                f"in1 has shape {shape1} and in2 {shape2}, expected equal sizes, or 1, along axis {axis}, "
                f"which is not convolved"
            )
