"""`triconv.ndimage` against the installed SciPy, whose behaviour is its specification.

Shapes, dtypes, kinds of errors and integers are SciPy's own. Floats are compared with SciPy's sums in double precision,
to a tolerance relative to the largest sum of absolute products. What differs on purpose is in docs/ndimage.md and in
the tests whose names begin with ``test_unlike_scipy``.
"""

from __future__ import annotations

import inspect
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.ndimage as scipy_ndimage
import triconv as tc
from hypothesis import given
from hypothesis import strategies as st
from scipy_checks import random_array
from strategies import examples
from triconv import ndimage
from triconv.ndimage import _floats

MODES = ["reflect", "constant", "nearest", "mirror", "wrap", "grid-mirror", "grid-constant", "grid-wrap"]
FLOATS = ["float32", "float64", "complex64", "complex128"]
INTEGERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


# ---- Data and comparison ---------------------------------------------------------------------------------------------


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


def test_scipy_cuts_derivatives_of_ramps_by_the_last_bit():
    """Whether the slope is cut to one less depends on the last bits of the weights."""
    ramp = np.add.outer(5 * np.arange(60), -3 * np.arange(50))
    for sigma in (0.5, 1, 1.5, 2, 3.7):
        for order in ((1, 0), (0, 1), (2, 1), (3, 0), (4, 1)):
            expected = scipy_ndimage.gaussian_filter(ramp, sigma, order)
            np.testing.assert_array_equal(ndimage.gaussian_filter(ramp, sigma, order), expected)


# ---- Larger images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES[:5])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_of_many_bands(rng, monkeypatch, mode, dtype):
    monkeypatch.setattr(_floats, "_BAND_BYTES", 1 << 16)
    monkeypatch.setattr(_floats, "_seconds_by_bands", lambda *_: 0)
    image = (rng.random((400, 500)) * 255).astype(dtype)
    image[150:250, 200:400] = 200  # flat, as where a photograph is overexposed
    lines = scipy_ndimage.gaussian_filter1d(np.eye(1, 15, 7), 3)
    for name, args in [
        ("gaussian_filter", (8,)),
        ("uniform_filter", ((9, 40),)),
        ("correlate", (lines * lines.T,)),
        ("correlate", (rng.normal(size=(9, 10)),)),
        ("convolve1d", (rng.normal(size=40), 0)),
    ]:
        magnitude = 255 * np.abs(args[0]).sum() if name[0] == "c" else 255
        assert_same_outcome(name, image, *args, mode=mode, cval=7.5, magnitude=magnitude, **no_options(name))


def no_options(name: str) -> dict:
    return {"output": None, "origin": 0, "axes": None} if name == "correlate" else {}


@pytest.mark.parametrize("size", [5, 31, 101])
def test_float32_is_accurate(rng, size):
    image = rng.normal(size=(400, 400)).astype("float32")
    line = np.hanning(size + 2)[1:-1]
    for weights in (rng.normal(size=(size, size)), np.outer(line, line)):
        exact = ndimage.correlate(image, weights, output=np.float64)
        assert np.abs(ndimage.correlate(image, weights) - exact).max() <= 1e-6 * np.abs(exact).max()
    exact = scipy_ndimage.gaussian_filter(image.astype(float), size / 5)
    assert np.abs(ndimage.gaussian_filter(image, size / 5) - exact).max() <= 1e-6 * np.abs(image).max()


def test_separable_kernels_run_as_lines_or_at_once(rng, monkeypatch):
    image = rng.normal(size=(4, 200, 300)).astype("float32")
    line = rng.normal(size=61)
    ndimage.correlate(image, np.multiply.outer(line[:7], np.outer(line, line)))
    assert " r1x61 " in tc.last_run().problem
    ndimage.correlate(image, rng.normal(size=(7, 61, 61)))
    assert " r7x61x61 " in tc.last_run().problem
    image = rng.normal(size=(1000, 1000)).astype("float32")
    for seconds, taps in ((0, " r1x17 "), (1000, " r17x17 ")):
        monkeypatch.setattr(_floats, "_seconds_by_bands", lambda *_, seconds=seconds: seconds)
        ndimage.gaussian_filter(image, 2)
        assert taps in tc.last_run().problem
    ndimage.gaussian_filter(image, 2, mode=["mirror", "wrap"])
    assert " r1x17 " in tc.last_run().problem


@pytest.mark.parametrize(
    ("dtype", "factor", "cval"),
    [("float32", 1j, 2.0), ("complex64", 1, 1j), ("complex64", 1, 2.0), ("complex128", 1 - 2j, 1 + 1j)],
)
def test_separable_kernels_meet_complex_fills(rng, dtype, factor, cval):
    image = rng.normal(size=(40, 50)).astype(dtype)
    if image.dtype.kind == "c":
        image += 1j * rng.normal(size=image.shape)
    kernel = factor * np.outer(rng.normal(size=5), rng.normal(size=4))
    wide = image.astype(np.result_type(image, np.float64))
    expected = scipy_ndimage.correlate(wide, kernel, mode="constant", cval=cval)
    result = ndimage.correlate(image, kernel, mode="constant", cval=cval)
    assert result.dtype == np.result_type(dtype, np.complex64)
    assert abs(result - expected).max() <= 1e-6 * abs(expected).max()


def test_wide_lines_are_not_multiplied_out(rng):
    volume = rng.normal(size=(20, 24, 28)).astype("float32")
    expected = scipy_ndimage.gaussian_filter(volume.astype(float), 100)
    tracemalloc.start()
    np.testing.assert_allclose(ndimage.gaussian_filter(volume, 100), expected, atol=1e-6)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20  # all three would make 4 GB
    tracemalloc.stop()


def test_one_nan_damages_the_results_that_read_it(rng):
    image = rng.normal(size=(500, 500)).astype("float32")
    image[250, 250] = 0
    clean = ndimage.gaussian_filter(image, 8)
    image[250, 250] = np.nan
    filtered = ndimage.gaussian_filter(image, 8)
    damaged = np.isnan(filtered)
    assert damaged[218:283, 218:283].all()
    assert damaged.sum() == 65 * 65
    np.testing.assert_allclose(filtered[~damaged], clean[~damaged], atol=1e-6)


@pytest.mark.parametrize("mode", ["reflect", "constant", "nearest", "mirror", "wrap"])
@pytest.mark.parametrize("shape", [(150, 140), (30, 80, 100)])
@pytest.mark.parametrize("cval", [0.0, 2.0])
def test_lines_and_their_product_are_the_same_filter(rng, shape, mode, cval):
    image = rng.normal(size=shape)
    options = {"sigma": (3, 5, 4)[: len(shape)], "order": (0, 1, 2)[: len(shape)], "mode": mode, "cval": cval}
    expected = scipy_ndimage.gaussian_filter(image, **options)
    np.testing.assert_allclose(ndimage.gaussian_filter(image, **options), expected, atol=1e-13)


def test_memory_beside_a_large_image_is_little(rng):
    """Less than 5 % of an image of over 64 MB."""
    image = rng.random(size=(4200, 4000), dtype="float32")
    volume = image.reshape(280, 300, 200)
    small = (image * 255).astype(np.uint8)
    line = np.hanning(23)[1:-1]
    for function, x, *arguments in [
        (ndimage.gaussian_filter, image, 4),
        (ndimage.gaussian_filter, image, 50),
        (ndimage.gaussian_filter, volume, 2),
        (ndimage.uniform_filter, image, 9),
        (ndimage.correlate, image, np.outer(line, line)),
        (ndimage.correlate, image, rng.normal(size=(9, 9))),
        (ndimage.correlate1d, image, line, 0),
        (ndimage.correlate1d, image, line, 1),
        (ndimage.correlate1d, small, line, 0),
        (ndimage.gaussian_filter, small, 4),
    ]:
        out = np.empty(x.shape, "float32")
        function(x, *arguments, output=out)
        tracemalloc.start()
        function(x, *arguments, output=out)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 0.05 * out.nbytes


# ---- Output, threads, infinities -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "int16", "complex64"])
def test_output_may_be_the_image_or_overlap_with_it(rng, dtype):
    for name, args in [
        ("gaussian_filter", (3,)),
        ("uniform_filter", (5,)),
        ("correlate", (rng.normal(size=(5, 5)),)),
        ("convolve1d", ([1, 2, 3], 0)),
    ]:
        memory = random_array(rng, (310, 300), dtype)
        for shift in (0, 1, 10):
            image = memory[: 300 + shift - shift].copy()
            expected = getattr(ndimage, name)(image, *args)
            shared = np.concatenate([image, memory[300:]])
            out = shared[shift : 300 + shift]
            result = getattr(ndimage, name)(shared[:300], *args, output=out)
            assert result is out
            np.testing.assert_array_equal(out, expected)


def test_results_do_not_depend_on_workers(rng, keep_threads):
    tc.set_num_threads(2)
    image = rng.normal(size=(400, 500)).astype("float32")
    for name, argument in [("gaussian_filter", 5), ("correlate", rng.normal(size=(15, 15)))]:
        expected = getattr(ndimage, name)(image, argument)
        for workers in (1, 2, 3, -1):
            assert getattr(ndimage, name)(image, argument, workers=workers).tobytes() == expected.tobytes()
        assert tc.get_num_threads() == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_unlike_scipy_nan_and_infinity_reach_what_they_are_summed_into(rng, bad):
    image = rng.normal(size=(300, 200)).astype("float32")
    image[150, 100] = bad
    line = np.hanning(33)[1:-1]
    for result, reach in [
        (ndimage.gaussian_filter(image, 5), 20),
        (ndimage.uniform_filter(image, 31), 15),
        (ndimage.correlate(image, np.outer(line, line)), 15),
        (ndimage.correlate(image, 1 + rng.random((31, 31))), 15),
    ]:
        reached = np.zeros(image.shape, bool)
        reached[150 - reach : 151 + reach, 100 - reach : 101 + reach] = True
        np.testing.assert_array_equal(~np.isfinite(result), reached)
        np.testing.assert_array_equal(result[reached], bad)


@pytest.mark.parametrize("cval", [np.nan, np.inf])
def test_infinite_weights_and_fills_are_those_of_scipy(rng, cval):
    for dtype in ("float64", "complex128"):
        image = random_array(rng, (9, 8), dtype)
        for weights in ([[1, -1.0], [2, 3]], [[1, np.inf], [0, 3]]):
            expected = scipy_ndimage.correlate(image, weights, mode="constant", cval=cval)
            result = ndimage.correlate(image, weights, mode="constant", cval=cval)
            np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_unlike_scipy_weights_of_zero_meet_nan_and_tiny_ones_count():
    image = np.array([1.0, np.nan, 2.0, 3.0])
    assert np.isnan(ndimage.correlate(image, [0, 1, 0])).tolist() == [True, True, True, False]
    np.testing.assert_allclose(ndimage.correlate([1.0, 2.0], [1e-17]), [1e-17, 2e-17])


# ---- Errors ----------------------------------------------------------------------------------------------------------

IMAGE = np.arange(6.0).reshape(2, 3)
ONES = np.ones((3, 3))
READ_ONLY = np.zeros((2, 3))
READ_ONLY.flags.writeable = False
FILTERS = [("correlate", [[1, 2]]), ("convolve1d", [1, 2]), ("gaussian_filter", 1), ("uniform_filter", 3)]
MISUSE = [
    *((name, (np.zeros((2, 3), t), a), {}) for name, a in FILTERS for t in ("f2", "O", "U1", "M8[s]", "g")),
    *((name, (IMAGE, a), {"cval": cval}) for name, a in FILTERS for cval in (1j, "a", b"2", None)),
    *((name, (IMAGE, a), {"mode": mode}) for name, a in FILTERS for mode in ("x", None, 1)),
    *(
        (name, (IMAGE + shift, a), {"output": output})
        for name, a in FILTERS
        for shift in (0, 1j)
        for output in (np.zeros((3, 2)), "U5", "bool", "f2", complex, "f8", READ_ONLY, np.zeros((2, 3)))
    ),
    *((name, (IMAGE, a), {"origin": o}) for name, a in FILTERS if name[0] != "g" for o in (0.5, 1.0, 7, -7)),
    *(
        (name, (IMAGE, a), {"axes": axes})
        for name, a in FILTERS[2:]
        for axes in (2, (0, 2), (0, 0), 0.5, "a", object())
    ),
    *(("correlate", (IMAGE, w), {}) for w in ([1, 2], np.ones((0, 3)), [["a", "b"]], 2)),
    *(("convolve1d", (IMAGE, w), {}) for w in ([], [[1]], 2, "ab")),
    ("correlate", (IMAGE, ONES), {"mode": ["reflect", "wrap"]}),
    ("correlate", (IMAGE, ONES), {"origin": [1]}),
    ("correlate", (IMAGE, ONES), {"axes": 0}),
    ("correlate", (IMAGE, 1j * ONES), {"cval": 1j}),
    ("correlate1d", (IMAGE, [1, 2], 2), {}),
    ("correlate1d", (IMAGE, [1, 2], 0.5), {}),
    ("correlate1d", (np.array(3.0), [1.0]), {}),
    *(("gaussian_filter", (IMAGE, sigma), {}) for sigma in ([1, 2, 3], "a", 1j)),
    *(("gaussian_filter", (IMAGE, 1), {"order": order}) for order in (-1, 0.5, [1])),
    *(("gaussian_filter", (IMAGE, 1), {"radius": radius}) for radius in (-1, 1.5, [1, 2, 3])),
    *(("gaussian_filter1d", (IMAGE, sigma), {}) for sigma in (0, -1)),
    *(("uniform_filter", (IMAGE, size), {}) for size in ("a", [2], [1, 2, 3])),
    *(("uniform_filter1d", (IMAGE, size), {}) for size in (0, 2.5, -1)),
]


@pytest.mark.parametrize(("name", "args", "options"), MISUSE, ids=range(len(MISUSE)))
@pytest.mark.filterwarnings("ignore:promoting specified", "ignore:output is")
def test_misuse_is_the_same_kind_of_error_as_in_scipy(name, args, options):
    expected = outcome(getattr(scipy_ndimage, name), *args, **options)
    result = outcome(getattr(ndimage, name), *args, **options)
    assert type(result) is type(expected), (result, expected)


@pytest.mark.parametrize(("name", "argument"), FILTERS)
def test_unlike_scipy_other_dtypes_and_fills_are_refused(name, argument):
    for dtype in ("f2", "g", "O", "M8[s]"):
        with pytest.raises(RuntimeError, match="input has dtype"):
            getattr(ndimage, name)(np.zeros((0, 3), dtype), argument)
    for image, cval in [(IMAGE, np.complex64(2)), (IMAGE + 1j, "2")]:
        with pytest.raises(TypeError, match=r"cval is .*, expected"):
            getattr(ndimage, name)(image, argument, mode="constant", cval=cval)


@pytest.mark.parametrize("name", ndimage.__all__)
def test_signatures_are_those_of_scipy_and_workers(name):
    parameters = list(inspect.signature(getattr(ndimage, name)).parameters.values())
    expected = inspect.signature(getattr(scipy_ndimage, name)).parameters.values()
    assert [(p.name, p.default, p.kind) for p in parameters[:-1]] == [(p.name, p.default, p.kind) for p in expected]
    assert (parameters[-1].name, parameters[-1].kind) == ("workers", inspect.Parameter.KEYWORD_ONLY)


def test_images_without_axes_and_empty_ones():
    assert ndimage.correlate(np.array(3.0), np.array(2.0)) == 6
    assert ndimage.gaussian_filter(np.array(3.0), 1) == ndimage.uniform_filter(np.array(3.0)) == 3
    for name, argument in [("correlate", ONES), ("convolve1d", [1, 2]), ("gaussian_filter", 1), ("uniform_filter", 3)]:
        for dtype in ("float32", "uint8", "complex64"):
            result = getattr(ndimage, name)(np.zeros((0, 3), dtype), argument)
            assert (result.shape, result.dtype) == ((0, 3), dtype)
