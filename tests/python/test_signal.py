"""`triconv.signal` against the installed SciPy, whose behaviour is its specification.

Shapes, dtypes and kinds of errors are compared with SciPy's own results, values as scipy_checks.py says.

What differs from SciPy on purpose is in docs/signal.md and in the tests whose names begin with ``test_unlike_scipy``.
"""

from __future__ import annotations

import inspect
import sys
import threading
import tracemalloc
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal as scipy_signal
import triconv as tc
from hypothesis import given
from hypothesis import strategies as st
from scipy_checks import (
    FLOATS,
    INTEGERS,
    MODES,
    SCIPY_WARNINGS,
    assert_close,
    assert_same_outcome,
    broadcast_pairs,
    double,
    pairs,
    random_array,
)
from strategies import examples
from triconv import signal
from triconv.signal import _problem

pytestmark = SCIPY_WARNINGS


# ---- convolve, correlate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@examples(150)
@given(pairs(FLOATS), st.sampled_from(MODES), st.sampled_from(["auto", "direct", "fft"]))
def test_convolve_and_correlate(name, arrays, mode, method):
    assert_same_outcome(name, *arrays, mode, method=method)


@pytest.mark.parametrize("name", ["convolve", "correlate"])
@examples(100)
@given(pairs([*INTEGERS, "float32"]), st.sampled_from(MODES), st.sampled_from(["auto", "direct", "fft"]))
def test_integers(name, arrays, mode, method):
    if all(array.dtype.kind == "b" for array in arrays):
        arrays = arrays[0], arrays[1].astype(np.int8)
    assert_same_outcome(name, *arrays, mode, method=method)


@pytest.mark.parametrize("method", ["direct", "fft", "auto"])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "int8", "uint16"])
def test_integers_of_any_size_are_exact_and_wrap_around(rng, method, dtype):
    limits = np.iinfo(dtype)
    for shapes in [((40,), (9,)), ((7, 12), (4, 3))]:
        in1, in2 = (rng.integers(limits.min, limits.max, shape, dtype, endpoint=True) for shape in shapes)
        expected = (
            scipy_signal.convolve(in1.astype(object).ravel(), in2.astype(object).ravel())
            if len(shapes[0]) == 1
            else None
        )
        result = signal.convolve(in1, in2, method=method)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, scipy_signal.convolve(in1, in2, method="direct"))
        if expected is not None:
            wrapped = [(int(v) - int(limits.min)) % 2**limits.bits + int(limits.min) for v in expected]
            assert result.tolist() == wrapped


@pytest.mark.parametrize("bits", range(16, 32))
def test_integers_near_the_limits_of_each_arithmetic(rng, bits):
    """Sums of 64 products up to 2**(2 * bits + 6): by FFT, by direct sums in float64, in 64-bit integers."""
    in1 = rng.integers(-(2**bits), 2**bits, 300)
    in2 = rng.integers(2**bits - 3, 2**bits, 64)
    np.testing.assert_array_equal(signal.convolve(in1, in2, method="fft"), np.convolve(in1, in2))


@pytest.mark.parametrize("method", ["fft", "auto", "direct"])
@pytest.mark.parametrize(
    ("dtype", "bits"), [("int32", 15), ("uint32", 20), ("int32", 31), ("int64", 63), ("uint64", 64)]
)
def test_long_kernels_of_integers_are_exact(rng, method, dtype, bits):
    """Sums of 700 products of all magnitudes, the extremes in runs; the FFT takes their digits."""
    low, high = 0 if dtype[0] == "u" else -(2**bits), 2**bits - 1
    in1, in2 = (rng.integers(low, high, size, dtype, endpoint=True) for size in (3000, 700))
    for array in (in1, in2):
        array[:9], array[20:40] = low, high
    exact = np.convolve(in1.astype(np.uint64), in2.astype(np.uint64)).astype(dtype)
    np.testing.assert_array_equal(signal.convolve(in1, in2, method=method), exact)
    image, kernel = in1.reshape(50, 60), in2.reshape(35, 20)
    expected = scipy_signal.convolve2d(image, kernel, "same", "wrap")
    np.testing.assert_array_equal(signal.convolve2d(image, kernel, "same", "wrap"), expected)


def test_unlike_scipy_booleans_of_any_rank_are_combined_by_and_and_or(rng):
    in1, in2 = rng.random((9, 8)) < 0.2, rng.random((3, 2)) < 0.5
    counts = scipy_signal.convolve(in1.astype(int), in2.astype(int))
    for method in ("auto", "direct", "fft"):
        result = signal.convolve(in1, in2, method=method)
        assert result.dtype == bool
        np.testing.assert_array_equal(result, counts > 0)
    np.testing.assert_array_equal(signal.convolve(in1[0], in2[0]), scipy_signal.convolve(in1[0], in2[0]))


def test_unlike_scipy_float16_is_computed_in_float32(rng):
    for shapes in [((50,), (7,)), ((9, 9), (3, 3))]:
        in1, in2 = (random_array(rng, shape, "float16") for shape in shapes)
        result = signal.convolve(in1, in2)
        assert result.dtype == np.float16
        expected = scipy_signal.convolve(double(in1), double(in2))
        assert np.abs(result - expected).max() <= np.finfo(np.float16).eps * np.abs(expected).max()
        assert signal.fftconvolve(in1, in2).dtype == scipy_signal.fftconvolve(in1, in2).dtype == np.float32


@pytest.mark.parametrize("dtype", ["longdouble", "clongdouble"])
def test_longdouble_is_summed_in_longdouble(rng, dtype):
    if np.finfo(np.longdouble).eps == np.finfo(np.float64).eps:
        pytest.skip("longdouble is float64 here")
    for shapes in [((30,), (7,)), ((7, 6), (3, 2))]:
        in1, in2 = (random_array(rng, shape, dtype) + np.finfo(np.longdouble).eps for shape in shapes)
        for mode in MODES:
            for name in ("convolve", "correlate"):
                expected = getattr(scipy_signal, name)(in1, in2, mode, method="direct")
                result = getattr(signal, name)(in1, in2, mode)
                assert result.dtype == dtype
                assert np.abs(result - expected).max() <= 64 * np.finfo(np.longdouble).eps * np.abs(expected).max()
        assert signal.fftconvolve(in1, in2.real.astype("float32")).dtype == dtype


def test_objects():
    in1 = np.array([Fraction(1, 3), Fraction(1, 2), Fraction(1, 7)])
    in2 = np.array([Fraction(3), Fraction(2)])
    assert signal.convolve(in1, in2).tolist() == scipy_signal.convolve(in1, in2, method="direct").tolist()
    assert signal.correlate(in1, in2).tolist() == scipy_signal.correlate(in1, in2, method="direct").tolist()
    assert signal.convolve(np.array([[Decimal(1), Decimal(2)]]), np.array([[Decimal(3)]])).tolist() == [[3, 6]]


@pytest.mark.parametrize("name", ["convolve", "correlate", "fftconvolve", "oaconvolve"])
def test_arrays_without_axes(name):
    for in1, in2 in [(2, 3), (2.0, 3), (np.float32(2), 3 - 1j), (1 + 2j, 3 - 1j)]:
        expected = getattr(scipy_signal, name)(in1, in2)
        result = getattr(signal, name)(in1, in2)
        assert result == expected
        assert result.dtype == expected.dtype


def test_empty_arrays():
    empty, one = np.array([]), np.ones(3)
    for name in ("fftconvolve", "oaconvolve"):
        for in1, in2 in [(empty, one), (one, empty), (empty, empty), (np.ones((0, 3), "f"), np.ones((2, 2), "f"))]:
            for mode in MODES:
                assert_same_outcome(name, in1, in2, mode)
    for name in ("convolve", "correlate"):
        for in1, in2 in [(empty, one), (one, empty), (empty, empty)]:
            for mode in MODES:
                assert_same_outcome(name, in1, in2, mode)
        assert_same_outcome(name, np.ones((0, 3)), np.ones((2, 2)), "same")
        assert_same_outcome(name, np.ones((0, 3)), np.ones((2, 2)), "full")


@pytest.mark.parametrize("rank", [4, 5])
def test_more_than_three_convolved_axes(rng, rank):
    shape1, shape2 = [(5, 4, 3, 4, 3)[:rank], (2, 3, 2, 2, 3)[:rank]]
    for dtype in ("float64", "complex128", "int32"):
        in1, in2 = random_array(rng, shape1, dtype), random_array(rng, shape2, dtype)
        for mode in MODES:
            for name in ("convolve", "correlate"):
                assert_same_outcome(name, in1, in2, mode, method="fft")


# ---- fftconvolve, oaconvolve -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fftconvolve", "oaconvolve"])
@examples(250)
@given(broadcast_pairs(), st.sampled_from(MODES))
def test_convolution_along_axes(name, problem, mode):
    (in1, in2), axes = problem
    assert_same_outcome(name, in1, in2, mode, axes)


@examples(60)
@given(pairs(FLOATS), st.sampled_from(MODES))
def test_convolution_along_all_axes(arrays, mode):
    assert_same_outcome("fftconvolve", *arrays, mode)


def test_many_axes_that_are_one_in_memory_are_one_layer(rng):
    """Neither copied nor looped over: one run computes them all."""
    in1 = random_array(rng, (3, 4, 50), "float32")
    signal.oaconvolve(in1, random_array(rng, (1, 1, 5), "float32"), axes=-1)
    assert tc.last_run().problem.startswith("n12c1k1 ")
    signal.oaconvolve(in1, random_array(rng, (3, 4, 5), "float32"), axes=-1)
    assert tc.last_run().problem.startswith("n1c12k12 ")
    signal.oaconvolve(in1[:1, :1], random_array(rng, (3, 4, 5), "float32"), axes=-1)
    assert tc.last_run().problem.startswith("n1c1k12 ")


# ---- convolve2d, correlate2d -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
@examples(150)
@given(pairs([*FLOATS, "int16", "uint8"], 2, 2), st.sampled_from(MODES))
def test_images(name, arrays, mode):
    assert_same_outcome(name, *arrays, mode)


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
@examples(200)
@given(
    pairs([*FLOATS, "int16", "int64"], 2, 2),
    st.sampled_from(MODES),
    st.sampled_from(["fill", "pad", "wrap", "circular", "symm", "symmetric"]),
    st.sampled_from([0, 2, -3.75, 1.5, 1 - 2j]),
    st.booleans(),
)
def test_boundaries_of_images(name, arrays, mode, boundary, fillvalue, large):
    """Kernels may be larger than the image: its boundary then repeats."""
    in1, in2 = arrays
    if large and in1.dtype.kind == in2.dtype.kind == "i":  # beyond what float64 holds
        in1, in2 = in1 * np.int64(2**30), in2 * np.int64(2**28 + 1)
    if np.result_type(in1, in2).kind == "i":
        fillvalue = int(np.asarray(fillvalue).real.item())
    elif np.result_type(in1, in2).kind != "c":
        fillvalue = np.real(fillvalue)
    assert_same_outcome(name, in1, in2, mode, boundary=boundary, fillvalue=fillvalue)


def test_infinities_outside_of_an_image():
    for value in (np.inf, -np.inf, np.nan):
        expected = scipy_signal.convolve2d(np.ones((4, 4)), np.ones((3, 3)), fillvalue=value)
        np.testing.assert_array_equal(signal.convolve2d(np.ones((4, 4)), np.ones((3, 3)), fillvalue=value), expected)
        image = np.ones((5, 5), complex)
        for fill in (value, complex(0, value)):
            expected = scipy_signal.convolve2d(image, np.ones((3, 3)), "same", fillvalue=fill)
            result = signal.convolve2d(image, np.ones((3, 3)), "same", fillvalue=fill)
            np.testing.assert_array_equal(np.isfinite(result), np.isfinite(expected))
            assert np.isfinite(result).sum() == 9
    kernel = np.array([[1, np.inf, 2]])
    for boundary in ("wrap", "symm"):
        expected = scipy_signal.convolve2d([[1.0, -2.0, 3.0, 0.0]], kernel, boundary=boundary)
        np.testing.assert_array_equal(signal.convolve2d([[1.0, -2.0, 3.0, 0.0]], kernel, boundary=boundary), expected)


@pytest.mark.parametrize("boundary", ["wrap", "symm", "fill"])
def test_boundaries_of_large_images_by_fft(rng, boundary):
    image, kernel = random_array(rng, (200, 150), "float32"), random_array(rng, (40, 31), "float32")
    signal.convolve2d(image, kernel, "same", boundary, 0.5)
    assert tc.last_run().algorithm.startswith("fft")
    assert_same_outcome("convolve2d", image, kernel, "same", boundary=boundary, fillvalue=0.5)


@pytest.mark.parametrize("name", ["convolve2d", "correlate2d"])
def test_empty_images(name):
    for shape1, shape2 in [((0, 3), (2, 2)), ((2, 2), (0, 3)), ((0, 3), (0, 2)), ((2, 0), (2, 1)), ((3, 3), (0, 2))]:
        for mode in MODES:
            assert_same_outcome(name, np.ones(shape1), np.ones(shape2), mode)


# ---- Memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_larger_array_is_read_in_place(rng, dtype):
    """Beside the result nothing of the size of an image is allocated, whatever its strides, its role and the mode."""
    image = random_array(rng, (700, 900), dtype)[::-1].T
    kernel = random_array(rng, (3, 5), dtype)
    for name in ("convolve", "correlate", "oaconvolve", "convolve2d", "correlate2d"):
        for in1, in2, mode in [(image, kernel, "same"), (kernel, image, "full"), (image, kernel, "valid")]:
            signal.convolve(in1, in2, mode)  # what is kept between calls
            options = {"boundary": "symm"} if name.endswith("2d") and in1 is image else {}
            tracemalloc.start()
            result = getattr(signal, name)(in1, in2, mode, **options)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < result.nbytes + 0.05 * image.nbytes, (name, mode)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_kernels_in_parts(rng, monkeypatch, dtype):
    """Long ones, and those that vary with the signal."""
    monkeypatch.setattr(_problem, "_MIB", 0)
    tolerance = 20 * np.finfo(dtype).eps
    for in1, in2, axes in [
        ((300,), (200,), None),
        ((40, 30), (25, 20), None),
        ((3, 90), (3, 8), 1),
        ((3, 1, 90), (3, 2, 50), 2),
        ((2, 500), (1, 400), 1),
    ]:
        x, w = random_array(rng, in1, dtype), random_array(rng, in2, dtype)
        for mode in ("full", "same", "valid"):
            expected = scipy_signal.fftconvolve(x.astype(complex), w.astype(complex), mode, axes)
            result = signal.oaconvolve(x, w, mode, axes)
            assert result.dtype == dtype
            np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())
            prepared = signal.prepare(w, axes).convolve(x, mode)
            np.testing.assert_allclose(prepared, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    x, w = random_array(rng, (200,), dtype), random_array(rng, (150,), dtype)
    x[50] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = signal.convolve(x, w)
    finite = np.isfinite(result)
    assert not finite[50:200].any()
    assert finite[:50].all()
    assert finite[200:].all()


def test_planes_of_complex_images_have_fills_of_their_own(rng):
    image, kernel = random_array(rng, (1000, 1000), "complex64"), random_array(rng, (31, 31), "float32")
    signal.convolve2d(image, kernel, "same", fillvalue=2 - 1j)
    tracemalloc.start()
    result = signal.convolve2d(image, kernel, "same", fillvalue=2 - 1j)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.05 * result.nbytes
    padded = np.pad(image, 15, constant_values=2 - 1j)
    expected = signal.convolve(double(padded), double(kernel), "valid")
    assert_close(result, expected, signal.convolve(np.abs(padded), np.abs(kernel), "valid").max())


# ---- The small functions ---------------------------------------------------------------------------------------------


def test_correlation_lags():
    for in1_len in range(1, 9):
        for in2_len in range(1, 9):
            for mode in MODES:
                expected = scipy_signal.correlation_lags(in1_len, in2_len, mode)
                result = signal.correlation_lags(in1_len, in2_len, mode)
                np.testing.assert_array_equal(result, expected)
                assert result.dtype == expected.dtype
                assert result.size == signal.correlate(np.ones(in1_len), np.ones(in2_len), mode).size


@examples(60)
@given(pairs([*FLOATS, "int8", "bool", "longdouble"]), st.sampled_from(["full", "same"]))
def test_choose_conv_method_says_what_auto_does(arrays, mode):
    method = signal.choose_conv_method(*arrays, mode)
    assert method in ("direct", "fft")
    np.testing.assert_array_equal(signal.convolve(*arrays, mode), signal.convolve(*arrays, mode, method=method))


def test_choose_conv_method_takes_each_where_it_is_due():
    assert signal.choose_conv_method(np.ones(1000, "f"), np.ones(5, "f")) == "direct"
    assert signal.choose_conv_method(np.ones(100000, "f"), np.ones(5000, "f")) == "fft"
    assert signal.choose_conv_method(np.full(9000, 2**40), np.full(5000, 2**20)) == "fft"
    assert signal.choose_conv_method(np.ones(9000), np.full(500, Fraction(1))) == "direct"
    assert signal.choose_conv_method([], [1.0]) == "direct"
    assert signal.choose_conv_method(2, 3) == "direct"
    assert signal.choose_conv_method(np.ones((20, 20, 20, 20)), np.ones((9, 9, 9, 9))) == "fft"


def test_choose_conv_method_measures():
    method, seconds = signal.choose_conv_method(np.ones(50), np.ones(3), measure=True)
    assert sorted(seconds) == ["direct", "fft"]
    assert method == min(seconds, key=seconds.get)
    assert all(0 < value < 1 for value in seconds.values())


def test_methods_run_what_they_say(rng):
    in1, in2 = random_array(rng, (40, 40), "float32"), random_array(rng, (9, 9), "float32")
    for method in ("direct", "fft"):
        signal.convolve(in1, in2, method=method)
        assert tc.last_run().algorithm.startswith(method)
    for size in (3, 5, 7):
        signal.convolve(random_array(rng, (200, 200), "float32"), in2[:size, :size])
        assert not tc.last_run().algorithm.startswith("winograd")


@pytest.mark.parametrize(
    "name",
    [
        *("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d", "correlate2d"),
        *("choose_conv_method", "correlation_lags"),
    ],
)
def test_signatures_are_those_of_scipy_and_workers(name):
    parameters = list(inspect.signature(getattr(signal, name)).parameters.values())
    expected = inspect.signature(getattr(scipy_signal, name)).parameters.values()
    assert [(p.name, p.default) for p in parameters[:-1]] == [(p.name, p.default) for p in expected]
    assert (parameters[-1].name, parameters[-1].kind, parameters[-1].default) == (
        "workers",
        inspect.Parameter.KEYWORD_ONLY,
        None,
    )


# ---- workers ---------------------------------------------------------------------------------------------------------


def test_workers_hold_for_one_call(rng, keep_threads):
    tc.set_num_threads(2)
    in1, in2 = random_array(rng, 50_000, "float32"), random_array(rng, 500, "float32")
    expected = signal.convolve(in1, in2)
    for workers in (1, 2, 3, -1):
        assert signal.convolve(in1, in2, workers=workers).tobytes() == expected.tobytes()
        assert tc.get_num_threads() == 2
    with pytest.raises(ValueError, match="one must be at least as large"):
        signal.fftconvolve(np.ones((3, 4)), np.ones((4, 3)), "valid", workers=1)
    assert tc.get_num_threads() == 2


def test_workers_of_several_threads_leave_the_number_as_it_was(rng, keep_threads):
    tc.set_num_threads(2)
    in1, in2 = random_array(rng, 20_000, "float32"), random_array(rng, 100, "float32")
    expected = signal.convolve(in1, in2).tobytes()
    results = []

    def run(workers):
        results.extend(signal.convolve(in1, in2, workers=workers).tobytes() for _ in range(30))

    runners = [threading.Thread(target=run, args=(workers,)) for workers in (1, 3, 1, 2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert set(results) == {expected}
    assert tc.get_num_threads() == 2


def test_workers_are_checked():
    with pytest.raises(TypeError, match=r"workers is 1\.5, expected an int or None"):
        signal.convolve([1.0], [1.0], workers=1.5)
    with pytest.raises(ValueError, match="workers is -100000, expected at least 1, or -1 to -"):
        signal.convolve([1.0], [1.0], workers=-100_000)


# ---- The package -----------------------------------------------------------------------------------------------------


def test_scipy_is_not_imported():
    names = {name for name in sys.modules if name.startswith("triconv")}
    sources = [sys.modules[name].__file__ for name in names]
    for source in sources:
        if source.endswith(".py"):
            with open(source, encoding="utf-8") as file:
                assert "import scipy" not in file.read()
