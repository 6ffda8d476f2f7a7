"""Misuse of `triconv.signal`: the kinds of errors are those of SciPy, the messages say what was expected."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal as scipy_signal
from scipy_checks import SCIPY_WARNINGS, outcome
from triconv import signal

pytestmark = SCIPY_WARNINGS

ONE, TWO, LONG = np.ones(4), np.ones((3, 4)), np.ones(4, np.longdouble)
MISUSE = [
    *((name, (ONE, ONE, mode)) for name in ("convolve", "fftconvolve", "oaconvolve") for mode in ("bogus", None, 1)),
    *(("correlate", (ONE, ONE, mode)) for mode in ("bogus", None, 1)),
    *((name, (TWO, TWO, mode)) for name in ("convolve2d", "correlate2d") for mode in ("bogus", None, 1)),
    *((name, (ONE, ONE, "full", method)) for name in ("convolve", "correlate") for method in ("bogus", None)),
    *((name, (ONE, TWO)) for name in ("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d")),
    *((name, (2, ONE)) for name in ("convolve", "correlate", "fftconvolve", "oaconvolve")),
    *((name, (ONE, ONE)) for name in ("convolve2d", "correlate2d")),
    *((name, (TWO, TWO.T, "valid")) for name in ("convolve", "correlate", "fftconvolve", "oaconvolve", "convolve2d")),
    *(("fftconvolve", (TWO, TWO, "full", axes)) for axes in ([], [0, 0], 2, -3, 1.5, "x", [0, 1.0], [0, 2])),
    *(("oaconvolve", (TWO, ONE.reshape(2, 2), "full", axes)) for axes in ([], [0, 0], 2, -3, 1.5, 0)),
    *((name, (np.array(["a", "b"]), np.array(["a"]))) for name in ("convolve", "correlate")),
    *((name, (np.array(["2000-01-01"], "M8[s]"),) * 2) for name in ("convolve", "correlate")),
    *((name, (TWO, TWO, "full", boundary)) for name in ("convolve2d", "correlate2d") for boundary in ("bogus", None)),
    *(("convolve2d", (TWO, TWO, "full", "fill", fill)) for fill in ([], [1, 2], "a", 1j, 2 + 0j)),
    *(("convolve2d", (np.ones((2, 2), "u1"),) * 2 + ("full", "fill", fill)) for fill in (-1, 256, np.nan)),
    ("correlation_lags", (3, 2, "bogus")),
    ("choose_conv_method", (ONE, ONE, "bogus")),
]


@pytest.mark.parametrize(("name", "args"), MISUSE, ids=[f"{name}{i}" for i, (name, _) in enumerate(MISUSE)])
def test_misuse_is_the_same_kind_of_error_as_in_scipy(name, args):
    expected = outcome(getattr(scipy_signal, name), *args)
    result = outcome(getattr(signal, name), *args)
    assert isinstance(expected, (ValueError, TypeError))
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    "call",
    [
        *(lambda name=name: getattr(signal, name)(TWO, TWO, ["full"]) for name in ("convolve", "correlate2d")),
        lambda: signal.convolve2d(TWO, TWO, boundary=["fill"]),
        *(
            lambda f=fill: signal.convolve2d(TWO, TWO, fillvalue=f)
            for fill in (
                None,
                b"2",
                np.complex64(2),
                np.array(2j, object),
                np.datetime64(2, "ns"),
                object(),
                10**400,
                Decimal("sNaN"),
            )
        ),
        *(lambda name=name: getattr(signal, name)(np.ones(4, "m8[s]"), ONE) for name in ("convolve", "oaconvolve")),
        lambda: signal.choose_conv_method(TWO, TWO.T, "valid"),
        lambda: signal.choose_conv_method(ONE, TWO),
        lambda: signal.correlation_lags(3, 2, workers=0),
    ],
)
def test_unlike_scipy_misuse_is_a_value_error(call):
    with pytest.raises(ValueError, match=r", expected |must be at least"):
        call()


def test_fills_may_be_arrays_of_one_number():
    image = np.ones((2, 2), "float32")
    expected = signal.convolve2d(image, image, fillvalue=2)
    for fill in (np.array(2), np.array([2.0]), np.float16(2), np.longdouble(2), Fraction(2), Decimal(2)):
        np.testing.assert_array_equal(signal.convolve2d(image, image, fillvalue=fill), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: signal.convolve(ONE, ONE, "bogus"), "mode is 'bogus', expected 'full', 'same' or 'valid'"),
        (lambda: signal.convolve(ONE, ONE, method="x"), "method is 'x', expected 'auto', 'direct' or 'fft'"),
        (lambda: signal.convolve(ONE, TWO), "in1 has 1 axes and in2 2, expected equally many"),
        (lambda: signal.convolve(ONE, ONE[:0]), "in1 has shape (4,) and in2 (0,), expected no empty array"),
        (
            lambda: signal.fftconvolve(TWO, TWO, axes=2),
            "axes is 2, expected one or more different axes of arrays with 2",
        ),
        (lambda: signal.fftconvolve(TWO, TWO, axes=0.5), "axes is 0.5, expected an int, ints or None"),
        (
            lambda: signal.fftconvolve(TWO, np.ones((2, 4)), axes=1),
            "in1 has shape (3, 4) and in2 (2, 4), expected equal sizes, or 1, along axis 0, which is not convolved",
        ),
        (lambda: signal.fftconvolve(["a"], [1.0]), "an input has dtype <U1, expected numbers"),
        (lambda: signal.convolve(ONE, ONE, workers=0), "workers is 0, expected at least 1"),
        (lambda: signal.convolve2d(ONE, ONE), "in1 has 1 axes and in2 1, expected 2"),
        (lambda: signal.convolve2d(TWO, TWO, boundary="x"), "boundary is 'x', expected 'fill', 'wrap' or 'symm'"),
        (lambda: signal.convolve2d(TWO, TWO, fillvalue=1j), "fillvalue is 1j, expected a number that float64 holds"),
        (lambda: signal.prepare([]), "kernel has shape (0,), expected at least one axis and one sample"),
        (lambda: signal.prepare([1.0], axes=1), "axes is 1, expected one or more different axes of arrays with 1"),
        (lambda: signal.OverlapAdd(2.0), "kernel has shape (), expected at least one axis and one sample"),
        (lambda: signal.OverlapAdd(TWO, axis=2), "axis is 2, expected an axis of the kernel, which has 2"),
        (lambda: signal.OverlapAdd(ONE, axis=1).process(ONE), "axis is 1, expected an axis of the chunk, which has 1"),
        (lambda: signal.OverlapSave(ONE, block_size=0), "block_size is 0, expected at least 1"),
        (lambda: signal.OverlapAdd(LONG), f"kernel has dtype {LONG.dtype}, expected at most float64 or complex128"),
        (
            lambda: signal.OverlapAdd(ONE).process(LONG),
            f"chunk has dtype {LONG.dtype}, expected at most float64 or complex128",
        ),
        (lambda: signal.OverlapSave(TWO).process(ONE), "chunk has 1 axes, expected 2, as many as the kernel"),
        (
            lambda: signal.OverlapSave(TWO).process(np.ones((2, 5))),
            "chunk has shape (2, 5), expected one that broadcasts with (3,), the kernel's, along all axes but 1",
        ),
        (
            lambda: signal.OverlapSave(ONE).process(np.ones((0, 5))),
            "chunk has shape (0, 5), expected no empty axis but 1, that of time",
        ),
    ],
)
def test_messages_name_the_argument_its_value_and_what_was_expected(call, message):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is compared whole)
        call()
    assert str(raised.value).startswith(message)
