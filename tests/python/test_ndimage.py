"""`triconv.ndimage` against the installed SciPy, whose behaviour is its specification.

Shapes, dtypes, kinds of errors and integers are SciPy's own. Floats are compared with SciPy's sums in double precision,
to a tolerance relative to the largest sum of absolute products. What differs on purpose is in docs/ndimage.md and in
the tests whose names begin with ``test_unlike_scipy``.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.ndimage as scipy_ndimage
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from triconv import ndimage

MODES = ["reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap"]
FLOATS = ["float32", "float64", "complex64", "complex128"]
INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FUNCTIONS = [
    "convolve",
    "convolve1d",
    "correlate",
    "correlate1d",
    "gaussian_filter",
    "gaussian_filter1d",
    "uniform_filter",
    "uniform_filter1d",
]


# ---- Data and comparison ---------------------------------------------------------------------------------------------


def random_array(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        low = 0 if dtype.kind in ("b", "u") else -9
        return rng.integers(low, 2 if dtype.kind == "b" else 10, shape).astype(dtype)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if dtype.kind == "c" else values).astype(dtype)


def double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.result_type(array.dtype, np.float64)) if array.dtype.kind in "fc" else array


def outcome(function, *args, **kwargs):
    """The result, or the exception."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return function(*args, **kwargs)
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        return error


def assert_close(result: np.ndarray, expected: np.ndarray, magnitude: float) -> None:
    """`magnitude` bounds the sums of absolute products."""
    if result.dtype.kind in "biu":
        np.testing.assert_array_equal(result, expected)
        return
    eps = np.finfo(result.dtype).eps
    bad = ~np.isfinite(expected)
    np.testing.assert_array_equal(result[bad], expected[bad])
    difference = np.abs(result.astype(expected.dtype) - expected)[~bad]
    assert difference.size == 0 or difference.max() <= 64 * eps * magnitude


def padded(function):
    """SciPy's function of images padded so far that no kernel is larger: with an origin it reads others there."""
    names = {"reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge"}

    def padded_function(image, weights, output, mode, cval, origin, axes):
        expected = function(image, weights, output, mode, cval, origin, axes=axes)
        along = range(image.ndim) if axes is None else sorted(axes)
        extents = [image.shape[axis] for axis in along]
        if all(taps <= extent for taps, extent in zip(weights.shape, extents, strict=True)):
            return expected
        width = [(0, 0)] * image.ndim
        for axis, taps in zip(along, weights.shape, strict=True):
            width[axis] = (taps, taps)
        name = names.get(mode, mode.removeprefix("grid-"))
        options = {"constant_values": cval} if name == "constant" else {}
        wide = np.pad(image.astype("c16" if image.dtype.kind == "c" else "f8"), width, name, **options)
        inner = tuple(slice(low, low + n) for (low, _), n in zip(width, image.shape, strict=True))
        return function(wide, weights, expected.dtype, mode, cval, origin, axes=axes)[inner]

    return padded_function


def assert_same_outcome(name: str, image: np.ndarray, *args, magnitude: float, **kwargs) -> None:
    """Kind of error, shape and dtype are those of SciPy; values those of its sums in double precision."""
    result = outcome(getattr(ndimage, name), image, *args, **kwargs)
    scipy_function = getattr(scipy_ndimage, name)
    if name in ("convolve", "correlate"):
        scipy_function = padded(scipy_function)
    expected = outcome(scipy_function, image, *args, **kwargs)
    if isinstance(expected, Exception) or isinstance(result, Exception):
        assert type(result) is type(expected), (result, expected)
        return
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert isinstance(result, np.ndarray)
    if result.dtype.kind in "fc":
        kwargs["output"] = np.result_type(result.dtype, np.float64)
        expected = scipy_function(double(image), *args, **kwargs)
    assert_close(result, expected, magnitude)


@st.composite
def images(draw, dtypes, most_rank=4, least_rank=1):
    """An array, in any layout."""
    rank = draw(st.integers(least_rank, most_rank))
    longest = {0: 1, 1: 60, 2: 14, 3: 7, 4: 4}[rank]
    shape = [draw(st.integers(1, longest)) for _ in range(rank)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = random_array(rng, shape, draw(st.sampled_from(dtypes)))
    if array.dtype.kind in "iu" and draw(st.booleans()):  # flat parts: means are integers but for rounding
        array[array > 0] = draw(st.sampled_from([1, 7, 100]))
    layout = draw(st.sampled_from(["C", "C", "F", "reversed", "swapped", "unaligned"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "reversed":
        return array[(slice(None, None, -1),) * rank]
    if layout == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if layout == "unaligned":
        view = np.ndarray(array.shape, array.dtype, np.zeros(array.nbytes + 1, np.uint8), offset=1)
        view[...] = array
        return view
    return array


@st.composite
def kernels(draw, shape, dtypes=("float64", "float64", "int64", "complex128")):
    """Weights, at times an outer product, symmetric, or sparse."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtype = draw(st.sampled_from(dtypes))
    kind = draw(st.sampled_from(["any", "any", "outer", "symmetric", "antisymmetric", "means"]))
    weights = random_array(rng, shape, dtype)
    flipped = weights[(slice(None, None, -1),) * weights.ndim]
    if kind == "outer":
        weights = np.ones((1,) * len(shape), dtype)
        for axis, size in enumerate(shape):
            line = random_array(rng, size, dtype)
            weights = weights * line.reshape([size if a == axis else 1 for a in range(len(shape))])
    elif kind == "symmetric":
        weights = weights + flipped
    elif kind == "antisymmetric":
        weights = weights - flipped
    elif kind == "means":
        weights = np.full(shape, 1 / weights.size)
    return weights


def outputs(draw, image: np.ndarray, complex_result: bool):
    """Values of `output`: mostly suitable."""
    if complex_result:
        return draw(st.sampled_from([None, None, "complex128", np.complex64]))
    return draw(st.sampled_from([None, None, "float32", np.float64, "uint8", np.int16, bool, np.uint64, np.int32]))


def fills(draw, complex_image: bool):
    return draw(st.sampled_from([0.0, 1.5, -2, 3, 1 - 2j] if complex_image else [0.0, 1.5, -2, 3]))


def limited(draw, size: int) -> int:
    """An origin: mostly one that leaves the middle inside of the kernel."""
    return draw(st.just(0) | st.integers(-(size // 2), (size - 1) // 2) | st.integers(-3, 3))


def magnitude_of(image, weights, cval) -> float:
    return float(max(np.abs(double(image)).max(initial=0), abs(cval)) * np.abs(weights).sum())


# ---- convolve, correlate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@examples(400)
@given(st.data())
def test_convolve_and_correlate(name, data):
    draw = data.draw
    image = draw(images([*FLOATS, *INTEGERS]))
    axes = draw(st.none() | st.permutations(range(image.ndim)).map(tuple))
    if axes is not None:
        axes = axes[: draw(st.integers(1, image.ndim))]
    rank = image.ndim if axes is None else len(axes)
    weights = draw(kernels([draw(st.integers(1, {1: 40, 2: 7, 3: 4, 4: 3}[rank])) for _ in range(rank)]))
    origin = limited(draw, min(weights.shape))
    if draw(st.booleans()):
        origin = [limited(draw, size) for size in weights.shape]
    cval = fills(draw, image.dtype.kind == "c")
    output = outputs(draw, image, "c" in (image.dtype.kind, weights.dtype.kind))
    mode = draw(st.sampled_from(MODES))
    assert_same_outcome(
        name,
        image,
        weights,
        output=output,
        mode=mode,
        cval=cval,
        origin=origin,
        axes=axes,
        magnitude=magnitude_of(image, weights, cval),
    )


@pytest.mark.parametrize("name", ["convolve1d", "correlate1d"])
@examples(400)
@given(st.data())
def test_convolve1d_and_correlate1d(name, data):
    draw = data.draw
    image = draw(images([*FLOATS, *INTEGERS]))
    weights = draw(kernels([draw(st.integers(1, 40))]))
    cval = fills(draw, image.dtype.kind == "c")
    output = outputs(draw, image, "c" in (image.dtype.kind, weights.dtype.kind))
    axis, mode = draw(st.integers(-image.ndim, image.ndim - 1)), draw(st.sampled_from(MODES))
    options = {"output": output, "mode": mode, "cval": cval, "origin": limited(draw, weights.size)}
    assert_same_outcome(name, image, weights, axis, magnitude=magnitude_of(image, weights, cval), **options)


# ---- gaussian_filter, uniform_filter ---------------------------------------------------------------------------------


def per_axis(draw, values, length: int):
    """One value, or one for each axis."""
    return draw(st.lists(values, min_size=length, max_size=length)) if draw(st.booleans()) else draw(values)


def some_axes(draw, rank: int):
    axes = draw(st.none() | st.permutations(range(rank)).map(tuple))
    return axes if axes is None else axes[: draw(st.integers(0, rank))]


@examples(400)
@given(st.data())
def test_gaussian_filter(data):
    draw = data.draw
    image = draw(images([*FLOATS, *INTEGERS]))
    axes = some_axes(draw, image.ndim)
    rank = image.ndim if axes is None else len(axes)
    cval = fills(draw, image.dtype.kind == "c")
    options = {
        "sigma": per_axis(draw, st.sampled_from([0, 0.4, 1, 1.7, 3.0]), rank),
        "order": per_axis(draw, st.sampled_from([0, 0, 1, 2, 3]), rank),
        "output": outputs(draw, image, image.dtype.kind == "c"),
        "mode": per_axis(draw, st.sampled_from(MODES), rank),
        "cval": cval,
        "truncate": draw(st.sampled_from([4.0, 1.5])),
        "radius": per_axis(draw, st.sampled_from([None, 0, 1, 5]), rank) if draw(st.booleans()) else None,
        "axes": axes,
    }
    # No derivative above has weights whose absolute values sum to more than 100.
    magnitude = 10.0**rank * max(float(np.abs(double(image)).max()), abs(cval), 1)
    assert_same_outcome("gaussian_filter", image, magnitude=magnitude, **options)


@examples(150)
@given(images([*FLOATS, *INTEGERS]), st.sampled_from([0.3, 1, 2.2]), st.integers(0, 4), st.sampled_from(MODES))
def test_gaussian_filter1d(image, sigma, order, mode):
    assert_same_outcome("gaussian_filter1d", image, sigma, 0, order, mode=mode, cval=2, magnitude=1000)


@examples(400)
@given(st.data())
def test_uniform_filter(data):
    draw = data.draw
    image = draw(images([*FLOATS, *INTEGERS]))
    axes = some_axes(draw, image.ndim)
    rank = image.ndim if axes is None else len(axes)
    cval = fills(draw, image.dtype.kind == "c")
    size = per_axis(draw, st.integers(0, 9), rank)
    options = {
        "size": size,
        "output": outputs(draw, image, image.dtype.kind == "c"),
        "mode": per_axis(draw, st.sampled_from(MODES), rank),
        "cval": cval,
        "origin": per_axis(draw, st.just(0) | st.integers(-2, 2), rank),
        "axes": axes,
    }
    magnitude = 2.0 * max(float(np.abs(double(image)).max()), abs(cval))
    assert_same_outcome("uniform_filter", image, magnitude=magnitude, **options)


@examples(150)
@given(images([*FLOATS, *INTEGERS]), st.integers(1, 50), st.integers(-2, 2), st.sampled_from(MODES))
def test_uniform_filter1d(image, size, origin, mode):
    assert_same_outcome("uniform_filter1d", image, size, -1, mode=mode, cval=2.5, origin=origin, magnitude=20)


@pytest.mark.parametrize("order", range(7))
def test_gaussian_weights_have_the_bits_of_scipy(rng, order):
    """Whether the derivative of a ramp of integers is cut to one less depends on them."""
    from triconv.ndimage._filters import _gaussian

    for sigma in [1, 2, 8, *rng.uniform(0.1, 12, 50)]:
        radius = int(4 * sigma + 0.5)
        impulse = np.zeros(4 * radius + 1)
        impulse[2 * radius] = 1
        expected = scipy_ndimage.gaussian_filter1d(impulse, sigma, order=order)[radius : 3 * radius + 1]
        if order % 2 == 0:
            np.testing.assert_array_equal(_gaussian(sigma, order, 4.0, None)[: radius + 1], expected[: radius + 1][::1])
