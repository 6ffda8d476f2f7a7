"""The numbers that `triconv.signal` gives: their errors beside those of SciPy, and NaN and infinities."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal as scipy_signal
from hypothesis import given
from hypothesis import strategies as st
from scipy_checks import FLOATS, MODES, SCIPY_WARNINGS, double, random_array
from strategies import examples
from triconv import signal

pytestmark = SCIPY_WARNINGS


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_unlike_scipy_nan_and_infinity_stay_where_they_belong(rng, dtype, bad):
    in1, in2 = random_array(rng, 3000, dtype), random_array(rng, 100, dtype)
    clean = signal.convolve(in1, in2, method="fft")
    in1[1234] = bad
    for method in ("direct", "fft", "auto"):
        result = signal.convolve(in1, in2, method=method)
        finite = np.isfinite(result)
        assert not finite[1234:1334].any()
        assert finite[:1234].all()
        assert finite[1334:].all()
        far = np.r_[:1000, 2000:3099]
        tolerance = 16 * np.finfo(dtype).eps * np.abs(clean[far]).max()
        np.testing.assert_allclose(result[far], clean[far], rtol=0, atol=tolerance)
    if np.dtype(dtype).kind == "f":
        expected = np.sign(bad) * np.sign(in2)
        np.testing.assert_array_equal(np.sign(result[1234:1334]), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", MODES)
def test_only_taps_that_are_not_finite_are_summed_one_by_one(rng, dtype, mode, monkeypatch):
    samples, kernel = random_array(rng, 300, dtype), random_array(rng, 50, dtype)
    kernel[[7, 20]] = np.inf, np.nan
    monkeypatch.delattr("triconv.signal._convolve.correlate_by_taps")
    result = signal.convolve(samples, kernel, mode)
    with np.errstate(invalid="ignore"):
        expected = np.convolve(double(samples), double(kernel), mode)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))
    finite = np.isfinite(expected)
    assert finite.any() == (mode != "valid")  # where all read such taps
    if finite.any():
        tolerance = 16 * np.finfo(dtype).eps * np.abs(expected[finite]).max()
        np.testing.assert_allclose(result[finite], expected[finite], rtol=0, atol=tolerance)


@examples(200)
@given(st.data(), st.sampled_from(MODES), st.sampled_from(["auto", "direct", "fft"]))
def test_products_with_nan_and_infinity_are_those_of_the_definition(data, mode, method):
    """Of samples that there are: nothing outside of the arrays is multiplied."""
    values = st.sampled_from(
        [0.0, 1.0, -2.0, 3.0, np.inf, -np.inf, np.nan] if data.draw(st.booleans()) else [1.0, -1.0, np.inf]
    )
    in1, in2 = (np.array(data.draw(st.lists(values, min_size=1, max_size=n))) for n in (12, 7))
    if mode == "same" and in1.size < in2.size:
        in1, in2 = in2, in1  # SciPy pads the shorter one with zeros
    expected = scipy_signal.convolve(in1, in2, mode, method="direct")
    np.testing.assert_allclose(signal.convolve(in1, in2, mode, method), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("samples", "taps"), [(1_000_000, 1000), (300_000, 30_000), (1000, 1000), (100_000, 10)])
def test_float32_is_accurate(rng, samples, taps):
    """At most 1e-6 of the largest output, and at most 1.5 times SciPy's own error."""
    in1, in2 = random_array(rng, samples, "float32"), random_array(rng, taps, "float32")
    exact = scipy_signal.fftconvolve(double(in1), double(in2))
    error = np.abs(signal.convolve(in1, in2) - exact).max() / np.abs(exact).max()
    assert error <= 1e-6
    assert error <= 1.5 * np.abs(scipy_signal.fftconvolve(in1, in2) - exact).max() / np.abs(exact).max()


@pytest.mark.parametrize(("samples", "taps"), [(1_000_000, 100_000), (300_000, 30_000), (20_000, 5000)])
def test_float32_of_decaying_signals_is_accurate(rng, samples, taps):
    """The largest values are few: what all products have too much of is not hidden by other errors."""

    def decaying(size, times):
        return (random_array(rng, size, "float32") * np.exp(-times * np.arange(size) / size)).astype("float32")

    for times in (8, 50):
        largest = []
        for _ in range(6 if samples > 500_000 else 24):
            in1, in2 = decaying(samples, times), decaying(taps, 8)
            exact = scipy_signal.fftconvolve(double(in1), double(in2))
            error, of_scipy = (f(in1, in2) - exact for f in (signal.fftconvolve, scipy_signal.fftconvolve))
            assert np.linalg.norm(error) <= 1.2 * np.linalg.norm(of_scipy)
            assert abs(np.dot(error, exact)) <= 1e-7 * np.dot(exact, exact)
            assert np.abs(error).max() <= 1e-6 * np.abs(exact).max()
            largest.append((np.abs(error).max(), np.abs(of_scipy).max()))
        mean, of_scipy = np.mean(largest, axis=0)  # of one draw a single value decides
        assert mean <= 1.5 * of_scipy


def test_images_are_accurate_in_float32(rng):
    for size, taps in [(300, 5), (300, 31), (200, 101)]:
        in1, in2 = random_array(rng, (size, size), "float32"), random_array(rng, (taps, taps), "float32")
        exact = scipy_signal.fftconvolve(double(in1), double(in2))
        assert np.abs(signal.convolve(in1, in2) - exact).max() <= 1e-6 * np.abs(exact).max()
