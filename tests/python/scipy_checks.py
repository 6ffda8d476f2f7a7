"""Arrays for the tests of `triconv.signal` and `triconv.ndimage`, and comparisons with SciPy.

Values of signals are compared with SciPy's direct sums in double precision, because its FFT of float32 is no more
accurate than this one. The tolerance is the bound of the algorithm that ran (docs/algorithms.md) relative to the
largest sum of absolute products.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal as scipy_signal
import triconv as tc
from hypothesis import strategies as st
from triconv import signal

MODES = ["full", "same", "valid"]
FLOATS = ["float32", "float64", "complex64", "complex128"]
INTEGERS = ["bool", "int8", "uint8", "int32", "uint32", "int64"]

# For `pytestmark`: SciPy's estimate of operations takes the logarithm of 0; its direct sums cast memory that is not
# initialised; it reads a fillvalue as a complex number before it looks at the dtype.
SCIPY_WARNINGS = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in ("invalid value encountered", "divide by zero encountered", "Casting complex values to real")
]


def random_array(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind in "biu":
        low = 0 if dtype.kind in ("b", "u") else -9
        return rng.integers(low, 2 if dtype.kind == "b" else 10, shape).astype(dtype)
    values = rng.normal(size=shape)
    return (values + 1j * rng.normal(size=shape) if dtype.kind == "c" else values).astype(dtype)


def relaid(draw, array: np.ndarray) -> np.ndarray:
    """The same values with other strides, byte order or alignment."""
    layout = draw(st.sampled_from(["C", "C", "F", "steps", "reversed", "swapped", "unaligned"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "steps":
        wide = np.zeros([3 * n for n in array.shape], array.dtype)
        view = wide[tuple(slice(1, None, 3) for _ in array.shape)]
    elif layout == "reversed":
        view = np.empty_like(array)[(slice(None, None, -1),) * array.ndim]
    elif layout == "swapped":
        return array.astype(array.dtype.newbyteorder())
    elif layout == "unaligned":
        raw = np.zeros(array.nbytes + 1, np.uint8)
        view = np.ndarray(array.shape, array.dtype, raw, offset=1)
    else:
        return array
    view[...] = array
    return view


def plain(array: np.ndarray) -> np.ndarray:
    """The same values as SciPy likes them: its FFT refuses float16 of foreign byte order."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.result_type(array.dtype, np.float64))


def error_bound(dtype: np.dtype) -> float:
    """Of the last run of this thread, relative to the largest sum of absolute products."""
    run = tc.last_run()  # None while this thread has made products only
    name = "direct" if run is None else run.algorithm
    tile = math.prod(int(n) for n in name.partition(":")[2].split("x")) if name.startswith("fft") else 1
    factor = 16 if name == "direct" else 4 * (1 + math.log2(tile))
    # A complex product is two sums; a further axis is summed in float32, over at most 6 taps here.
    return (2 * factor + 6) * np.finfo(dtype).eps


def assert_close(result: np.ndarray, expected: np.ndarray, largest: float) -> None:
    """`expected` is in double precision; `largest` the largest sum of absolute products."""
    if result.dtype.kind in "biu":
        np.testing.assert_array_equal(result, expected)
    else:
        tolerance = (error_bound(result.dtype) + 1e-13) * largest
        assert np.abs(double(result) - expected).max() <= tolerance


def outcome(function, *args, **kwargs):
    """The result, or the exception."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError) as error:
        return error


def assert_same_outcome(name: str, in1: np.ndarray, in2: np.ndarray, *args, **kwargs) -> None:
    """Kind of error, shape and dtype are those of SciPy; values those of its direct sums in double precision."""
    result = outcome(getattr(signal, name), in1, in2, *args, **kwargs)
    in1, in2 = plain(in1), plain(in2)
    expected = outcome(getattr(scipy_signal, name), in1, in2, *args, **kwargs)
    if isinstance(expected, Exception) or isinstance(result, Exception):
        assert type(result) is type(expected), (result, expected)
        return
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert isinstance(result, np.ndarray)
    if "method" in kwargs:
        kwargs["method"] = "direct"
    if result.dtype.kind in "fc":
        expected = getattr(scipy_signal, name)(double(in1), double(in2), *args, **kwargs)
    if in1.size == 0 or in2.size == 0:
        np.testing.assert_array_equal(result, expected)
        return
    if "fillvalue" in kwargs:
        kwargs["fillvalue"] = abs(kwargs["fillvalue"])
    magnitudes = getattr(scipy_signal, name)(np.abs(double(in1)), np.abs(double(in2)), "full", *args[1:], **kwargs)
    assert_close(result, expected, np.abs(magnitudes).max())


@st.composite
def pairs(draw, dtypes, least_rank=1, most_rank=4):
    """Two arrays with equal numbers of axes; often one of them is the smaller along all."""
    rank = draw(st.integers(least_rank, most_rank))
    longest = {1: 40, 2: 12, 3: 7, 4: 4}[rank]
    shapes = [[draw(st.integers(1, longest)) for _ in range(rank)] for _ in range(2)]
    if draw(st.booleans()):
        shapes = [np.maximum(*shapes), np.minimum(*shapes)]
    if draw(st.booleans()):
        shapes.reverse()
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return tuple(relaid(draw, random_array(rng, shape, draw(st.sampled_from(dtypes)))) for shape in shapes)


@st.composite
def broadcast_pairs(draw):
    """Arrays that broadcast along axes not convolved, and these axes; at times they do not fit."""
    rank = draw(st.integers(1, 4))
    axes = draw(st.lists(st.integers(0, rank - 1), min_size=1, max_size=rank, unique=True))
    shapes: list[list[int]] = [[], []]
    for axis in range(rank):
        n1, n2 = (draw(st.integers(1, 9 if axis in axes else 4)) for _ in range(2))
        if axis not in axes:
            n1, n2 = draw(st.sampled_from([(n1, n1), (n1, 1), (1, n1), (n1, n1), (n1, 1), (1, n1), (n1, n2)]))
        shapes[0].append(n1)
        shapes[1].append(n2)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtypes = [*FLOATS, "float16", "int16", "bool"]
    arrays = tuple(relaid(draw, random_array(rng, shape, draw(st.sampled_from(dtypes)))) for shape in shapes)
    axes = [axis - rank if draw(st.booleans()) else axis for axis in axes]
    return arrays, draw(st.sampled_from([axes, axes[0] if len(axes) == 1 else axes]))
