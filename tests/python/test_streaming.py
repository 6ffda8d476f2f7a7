"""Streams and prepared kernels of `triconv.signal`: the results of one convolution, however it is cut or repeated."""

from __future__ import annotations

import copy
import pickle
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.signal as scipy_signal
from hypothesis import given
from hypothesis import strategies as st
from scipy_checks import FLOATS, MODES, SCIPY_WARNINGS, assert_close, broadcast_pairs, double, outcome, random_array
from strategies import examples
from triconv import signal

pytestmark = SCIPY_WARNINGS

STREAMS = [signal.OverlapAdd, signal.OverlapSave]


@st.composite
def streams(draw):
    """A kernel, the axis, a signal, and the positions of cuts: everything from no cut to one-sample chunks."""
    taps, samples = draw(st.integers(1, 12)), draw(st.integers(1, 60))
    rank = draw(st.integers(1, 3))
    axis = draw(st.integers(0, rank - 1))
    channels = [draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 1)])) for _ in range(rank)]
    channels[axis] = (samples, taps)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtypes = st.sampled_from([*FLOATS, "int16"])
    samples_of_all = random_array(rng, [n for n, _ in channels], draw(dtypes))
    kernel = random_array(rng, [n for _, n in channels], draw(dtypes))
    if draw(st.booleans()):
        kernel = kernel.reshape(-1)[:taps]
    cuts = draw(st.lists(st.integers(0, samples), max_size=8)) if draw(st.booleans()) else range(samples)
    return kernel, draw(st.sampled_from([axis, axis - rank])), samples_of_all, sorted(cuts)


def feed(stream, samples: np.ndarray, axis: int, cuts) -> np.ndarray:
    parts = [stream.process(chunk) for chunk in np.split(samples, cuts, axis=axis)]
    return np.concatenate([*parts, stream.flush()], axis=axis)


@pytest.mark.parametrize("kind", STREAMS)
@examples(150)
@given(streams(), st.sampled_from([1, 2, 7, 16, 100]))
def test_streams_equal_one_convolution_whatever_the_chunks(kind, problem, block_size):
    kernel, axis, samples, cuts = problem
    # The axis is counted in the chunks; one counted from the end is the same in kernels of as many axes.
    stream = kind(kernel, axis, block_size=block_size)
    result = feed(stream, samples, axis, cuts)
    assert result.tobytes() == feed(kind(kernel, axis, block_size=block_size), samples, axis, []).tobytes()
    assert result.tobytes() == feed(stream, samples, axis, cuts).tobytes()  # after flush a new stream begins
    if kernel.ndim != samples.ndim:
        kernel = np.moveaxis(kernel[(np.newaxis,) * (samples.ndim - 1)], -1, axis)
    expected = scipy_signal.oaconvolve(double(samples), double(kernel), axes=axis)
    assert result.shape == expected.shape
    assert result.dtype == np.result_type(
        *(np.float64 if array.dtype.kind == "i" else array.dtype for array in (samples, kernel))
    )
    magnitudes = scipy_signal.oaconvolve(np.abs(double(samples)), np.abs(double(kernel)), axes=axis)
    assert_close(result, expected, magnitudes.max())


@pytest.mark.parametrize("kind", STREAMS)
def test_stream_with_the_default_block(kind, rng):
    samples, kernel = random_array(rng, (2, 50_000), "float32"), random_array(rng, 700, "float32")
    whole = feed(kind(kernel), samples, -1, [])
    assert whole.tobytes() == feed(kind(kernel), samples, -1, [0, 1, 2, 30_000, 30_000]).tobytes()
    expected = signal.oaconvolve(samples, kernel[np.newaxis], axes=-1)
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda stream: stream.copy(), lambda stream: pickle.loads(pickle.dumps(stream))],
)
def test_copies_go_their_own_way(kind, copied, rng):
    samples, other, kernel = (random_array(rng, n, "float64") for n in (100, 100, 9))
    stream = kind(kernel, block_size=16)
    unused = copied(stream)
    stream.process(samples[:41])
    branch = copied(stream)
    branch.process(other)
    twin = copied(stream)
    rest = np.concatenate([stream.process(samples[41:]), stream.flush()])
    assert np.concatenate([twin.process(samples[41:]), twin.flush()]).tobytes() == rest.tobytes()
    np.testing.assert_allclose(rest, np.convolve(samples, kernel)[32:], rtol=0, atol=1e-12)
    np.testing.assert_allclose(feed(unused, samples, 0, []), np.convolve(samples, kernel), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", STREAMS)
def test_empty_streams_and_chunks(kind):
    stream = kind(np.ones(5, np.float32))
    assert stream.flush().shape == (0,)
    assert stream.process(np.ones((2, 0), np.float64)).shape == (2, 0)
    assert stream.flush().shape == (2, 0)
    assert stream.process(np.ones((3, 7), np.float32)).shape == (3, 0)  # an empty chunk fixes nothing
    assert stream.process(np.ones((3, 0), np.float32)).dtype == np.float32
    assert stream.flush().shape == (3, 11)
    assert stream.flush().shape == (3, 0)


@pytest.mark.parametrize("kind", STREAMS)
def test_chunks_must_fit_those_before(kind):
    stream = kind(np.ones(5, np.float32))
    stream.process(np.ones((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"chunk has \(3,\) channels, expected \(2,\), those of the first chunk"):
        stream.process(np.ones((3, 3), np.float32))
    with pytest.raises(TypeError, match="chunk needs float64, expected float32, the dtype of the first chunk"):
        stream.process(np.ones((2, 3)))
    with pytest.raises(TypeError, match="chunk needs complex64"):
        stream.process(np.ones((2, 3), np.complex64))
    stream.process(np.ones((2, 3), np.float16))
    assert stream.flush().tolist() == feed(kind(np.ones(5, "f")), np.ones((2, 6), "f"), -1, []).tolist()


@pytest.mark.parametrize("kind", STREAMS)
def test_nan_in_a_stream_reaches_what_it_should(kind, rng):
    samples = random_array(rng, 200, "float32")
    samples[77] = np.nan
    result = feed(kind(random_array(rng, 10, "float32"), block_size=32), samples, 0, [50, 77, 78])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result)), np.arange(77, 87))


@pytest.mark.parametrize("kind", STREAMS)
def test_infinite_taps_meet_zeros_at_the_two_ends_only(kind):
    result = feed(kind(np.array([1, np.inf, 2], "f"), block_size=10), np.ones(40, "f"), 0, [3, 25])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result)), [0, 41])
    assert np.isposinf(result[1:41]).all()


@pytest.mark.parametrize("kind", STREAMS)
def test_infinities_of_both_signs_are_no_warning(kind):
    samples = np.ones(20, "f")
    samples[[3, 5]] = np.inf, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = feed(kind(np.ones(3, "f"), block_size=4), samples, 0, [])
    np.testing.assert_array_equal(result[2:9], [3, np.inf, np.inf, np.nan, -np.inf, -np.inf, 3])


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize(("workers", "error"), [("a", TypeError), (0, ValueError)])
def test_workers_of_a_stream_are_checked_when_it_is_made(kind, workers, error):
    with pytest.raises(error, match="workers is"):
        kind(np.ones(3), workers=workers)


@pytest.mark.parametrize("kind", STREAMS)
def test_memory_of_a_stream_does_not_grow(kind, rng):
    stream = kind(random_array(rng, 100, "float32"), block_size=1000)
    chunk = random_array(rng, 10_000, "float32")
    stream.process(chunk)
    tracemalloc.start()
    for _ in range(50):
        stream.process(chunk)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 20_000
    assert peak < 3 * chunk.nbytes


# ---- Prepared kernels ------------------------------------------------------------------------------------------------


@examples(150)
@given(broadcast_pairs(), st.sampled_from(MODES))
def test_prepared_kernels(problem, mode):
    (in1, in2), axes = problem
    prepared = signal.prepare(in2, axes)
    for _ in range(2):
        result = outcome(prepared.convolve, in1, mode)
        expected = outcome(signal.oaconvolve, in1, in2, mode, axes)
        if isinstance(expected, Exception):
            assert type(result) is type(expected)
            continue
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        expected = scipy_signal.fftconvolve(double(in1), double(in2), mode, axes)
        magnitudes = scipy_signal.fftconvolve(np.abs(double(in1)), np.abs(double(in2)), "full", axes)
        assert_close(result, expected, np.abs(magnitudes).max())


def test_prepared_kernel_transforms_once_for_each_shape(rng):
    kernel = random_array(rng, (31, 31), "float32")
    prepared = signal.prepare(kernel)
    bare = prepared.nbytes
    image = random_array(rng, (100, 100), "float32")
    prepared.convolve(image)
    once = prepared.nbytes
    assert once > bare
    prepared.convolve(image + 1)
    assert prepared.nbytes == once
    prepared.convolve(image[:50])
    assert prepared.nbytes > once
    for size in range(40, 80):
        prepared.convolve(image[:size])
    assert prepared.nbytes < 40 * (once - bare)
    for other in (copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        np.testing.assert_array_equal(other.convolve(image), prepared.convolve(image))
    kernel[...] = 0
    np.testing.assert_array_equal(prepared.convolve(image), signal.prepare(prepared.kernel).convolve(image))
    assert prepared.convolve(image).any()
    assert repr(prepared) == "PreparedKernel(shape=(31, 31), dtype=float32, axes=[0, 1])"
    assert prepared.convolve(image[:0]).size == 0


def test_prepared_kernel_tells_layouts_apart(rng):
    """Equal shapes of other strides are other layer problems, whose kernels are in another order."""
    kernel = random_array(rng, (2, 2, 2, 5), "float64")
    prepared = signal.prepare(kernel, axes=-1)
    image = random_array(rng, (2, 2, 2, 20), "float64")
    for order in [(0, 1, 2), (2, 0, 1), (1, 2, 0), (1, 0, 2), (2, 1, 0), (0, 2, 1)]:
        stored = np.ascontiguousarray(image.transpose(*order, 3)).transpose(*np.argsort(order), 3)
        np.testing.assert_allclose(
            prepared.convolve(stored), scipy_signal.oaconvolve(image, kernel, axes=-1), rtol=0, atol=1e-12
        )


def test_prepared_kernel_serves_several_threads(rng):
    prepared = signal.prepare(random_array(rng, 50, "float64"))
    signals = [random_array(rng, 1000 + 10 * i, "float64") for i in range(8)]
    expected = [prepared.convolve(x).tobytes() for x in signals]
    fresh = signal.prepare(prepared.kernel)
    wrong = []

    def run():
        wrong.extend(i for i, x in enumerate(signals) if fresh.convolve(x).tobytes() != expected[i])

    runners = [threading.Thread(target=run) for _ in range(4)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert not wrong
