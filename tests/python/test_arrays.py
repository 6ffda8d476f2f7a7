"""Arrays in and out: every layout, byte order, alignment and source of memory gives what a plain array gives."""

from __future__ import annotations

import array
from types import SimpleNamespace

import numpy as np
import pytest
import triconv as tc
from strategies import OnlyDLPack

SHAPE, KERNEL = (2, 3, 6, 5), (4, 3, 3, 2)
TEXT = "n2c3k4 i6x5 r3x2"


def spread(plain):
    """Every second element of a larger array, on every axis."""
    buffer = np.full([2 * size for size in plain.shape], np.nan, plain.dtype)
    buffer[tuple(slice(None, None, 2) for _ in plain.shape)] = plain
    return buffer[tuple(slice(None, None, 2) for _ in plain.shape)]


def reversed_strides(plain):
    return np.flip(np.ascontiguousarray(np.flip(plain)))


def transposed(plain):
    return np.asfortranarray(plain)


def swapped(plain):
    return plain.astype(plain.dtype.newbyteorder("S"))


def unaligned(plain):
    raw = np.zeros(plain.nbytes + 1, np.uint8)[1:]
    view = raw.view(plain.dtype).reshape(plain.shape)
    view[...] = plain
    return view


def packed_record(plain):
    """A field of a packed record: strides that are no multiple of the element size."""
    records = np.zeros(plain.shape, np.dtype([("flag", "u1"), ("value", plain.dtype)]))
    records["value"] = plain
    return records["value"]


def read_only(plain):
    copy = plain.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = [spread, reversed_strides, transposed, swapped, unaligned, packed_record, read_only]


def channels_last(plain):
    """The same values, with strides in the order batch, spatial axes, channels."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(plain, 1, -1)), -1, 1)


def is_channels_last(result):
    return np.moveaxis(result, 1, -1).flags.c_contiguous and not result.flags.c_contiguous


@pytest.fixture(params=["float32", "float64"])
def data(request, rng):
    """Small integers, so that direct summation is exact and layouts can be compared bit by bit."""
    x, w = (rng.integers(-8, 9, size=size).astype(request.param) for size in (SHAPE, KERNEL))
    bias = rng.integers(-8, 9, size=4).astype(request.param)
    y = tc.conv2d(x, w, bias, algorithm="direct")
    dy = rng.integers(-8, 9, size=y.shape).astype(request.param)
    return SimpleNamespace(
        x=x,
        w=w,
        bias=bias,
        dy=dy,
        y=y,
        dx=tc.grad.conv2d_input(SHAPE, w, dy, algorithm="direct"),
        dw=tc.grad.conv2d_weight(x, KERNEL, dy, algorithm="direct"),
    )


def assert_same(result, expected, case):
    assert result.dtype == expected.dtype, f"{TEXT}: {case}"
    np.testing.assert_array_equal(result, expected, err_msg=f"{TEXT}: {case}")


def assert_three_passes(data, x, w, bias, dy, case):
    assert_same(tc.conv2d(x, w, bias, algorithm="direct"), data.y, case)
    assert_same(tc.grad.conv2d_input(SHAPE, w, dy, algorithm="direct"), data.dx, case)
    assert_same(tc.grad.conv2d_weight(x, KERNEL, dy, algorithm="direct"), data.dw, case)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_layouts(data, layout):
    before = [a.copy() for a in (data.x, data.w, data.bias, data.dy)]
    arrays = [layout(a) for a in before]
    assert_three_passes(data, *arrays, layout.__name__)
    for used, original in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(used, original, err_msg="inputs are left alone")


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
@pytest.mark.parametrize("layout", [spread, reversed_strides, transposed, channels_last])
def test_layout_never_changes_the_bits(rng, layout, algorithm):
    x, w = rng.normal(size=(2, 5, 13, 11)).astype("f"), rng.normal(size=(4, 5, 3, 3)).astype("f")
    expected = tc.conv2d(x, w, padding=1, algorithm=algorithm)
    result = tc.conv2d(layout(x), layout(w), padding=1, algorithm=algorithm)
    np.testing.assert_array_equal(result, expected, err_msg=f"n2c5k4 i13x11 r3x3 p1 f32 {algorithm}")


def test_zero_strides(data):
    x = np.broadcast_to(data.x[:1, :1, :1], SHAPE)
    w = np.broadcast_to(data.w[:1], KERNEL)
    bias = np.broadcast_to(data.bias[0], 4)
    dy = np.broadcast_to(data.dy[0, 0, 0, 0], data.dy.shape)
    plain = [np.ascontiguousarray(a) for a in (x, w, bias, dy)]
    assert_same(tc.conv2d(x, w, bias), tc.conv2d(*plain[:3]), "zero strides")
    assert_same(tc.grad.conv2d_input(SHAPE, w, dy), tc.grad.conv2d_input(SHAPE, plain[1], plain[3]), "zero strides")
    assert_same(tc.grad.conv2d_weight(x, KERNEL, dy), tc.grad.conv2d_weight(plain[0], KERNEL, plain[3]), "zero strides")


def test_buffer_protocol():
    signal = memoryview(array.array("f", [1, 2, 3, 4])).cast("B").cast("f", (1, 1, 4))
    y = tc.conv1d(signal, np.array([[[1, 10]]], "f"))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, [[[21, 32, 43]]])


def test_sequences():
    np.testing.assert_array_equal(tc.conv1d([[[1, 2, 3, 4]]], (((1.5, 0),),)), [[[1.5, 3, 4.5]]])


def test_dlpack(data):
    assert_three_passes(data, *map(OnlyDLPack, (data.x, data.w, data.bias, data.dy)), "dlpack")


def test_torch_tensors(data):
    from torch_support import torch

    assert_three_passes(data, *map(torch.from_numpy, (data.x, data.w, data.bias, data.dy)), "torch")
    x = torch.from_numpy(data.x).contiguous(memory_format=torch.channels_last)
    y = tc.conv2d(x, data.w, data.bias, algorithm="direct")
    assert_same(y, data.y, "torch channels_last")
    assert is_channels_last(y)


def test_torch_tensor_that_requires_grad_is_refused_as_numpy_does(data):
    from torch_support import torch

    x = torch.from_numpy(data.x).requires_grad_()
    with pytest.raises(TypeError, match=r"input cannot be read as an array: .*detach"):
        tc.conv2d(x, data.w)


@pytest.mark.parametrize(
    ("x_dtype", "w_dtype", "expected"),
    [
        ("float32", "float32", "float32"),
        ("float64", "float64", "float64"),
        ("float16", "float16", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float64", "float16", "float64"),
        ("int8", "float32", "float64"),
        ("uint8", "uint8", "float64"),
        ("int64", "bool", "float64"),
        (">f4", "float32", "float32"),
    ],
)
def test_promotion(x_dtype, w_dtype, expected):
    x, w = np.ones((1, 1, 4), x_dtype), np.ones((1, 1, 2), w_dtype)
    assert tc.conv1d(x, w).dtype == expected
    assert tc.grad.conv1d_input((1, 1, 4), w, x[..., :3]).dtype == expected
    assert tc.grad.conv1d_weight(x, (1, 1, 2), w[..., :1].repeat(3, -1)).dtype == expected
    np.testing.assert_array_equal(tc.conv1d(x, w), [[[2, 2, 2]]])


def test_bias_takes_part_in_promotion():
    x, w = np.ones((1, 1, 4), "f"), np.ones((1, 1, 2), "f")
    assert tc.conv1d(x, w, np.ones(1)).dtype == np.float64
    assert tc.conv_transpose1d(x, w, np.ones(1)).dtype == np.float64
    assert tc.conv_transpose1d(x, w, np.ones(1, "e")).dtype == np.float32


# ---- Output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_output_is_channels_last_if_the_input_is(rng, rank):
    x, w = rng.normal(size=(2, 3, *(6, 5, 4)[:rank])), rng.normal(size=(4, 3, *(2,) * rank))
    conv, transpose = getattr(tc, f"conv{rank}d"), getattr(tc, f"conv_transpose{rank}d")
    input_grad, weight_grad = getattr(tc.grad, f"conv{rank}d_input"), getattr(tc.grad, f"conv{rank}d_weight")
    y = conv(x, w)
    assert y.flags.c_contiguous
    last = conv(channels_last(x), w)
    assert is_channels_last(last)
    np.testing.assert_array_equal(last, y)
    assert is_channels_last(transpose(channels_last(y), w))
    assert is_channels_last(input_grad(x.shape, w, channels_last(y)))
    assert input_grad(x.shape, w, y).flags.c_contiguous
    assert weight_grad(channels_last(x), w.shape, channels_last(y)).flags.c_contiguous
    sample = conv(channels_last(x)[0], w)
    assert np.moveaxis(sample, 0, -1).flags.c_contiguous
    np.testing.assert_allclose(sample, y[0], rtol=0, atol=1e-12)  # another problem: perhaps another algorithm


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((2, 3, 4, 5), (60, 1, 15, 3)),
        ((2, 3, 4, 5), (60, 20, 5, 1)),
        ((2, 3, 4, 5), (120, 1, 30, 6)),
        ((2, 1, 4, 5), (20, 20, 5, 1)),
        ((2, 1, 4, 5), (20, 1, 5, 1)),
        ((2, 3, 1, 1), (3, 1, 1, 1)),
        ((2, 3, 1, 1), (3, 1, 3, 3)),
        ((1, 3, 4, 5), (60, 1, 15, 3)),
        ((1, 3, 4, 5), (1, 1, 15, 3)),
        ((2, 3, 4, 5), (1, 40, 10, 2)),
        ((2, 3, 4, 5), (0, 1, 15, 3)),
    ],
)
def test_channels_last_is_told_by_strides_as_in_pytorch(shape, strides):
    from torch_support import torch

    buffer = np.arange(1000, dtype="f")
    x = np.lib.stride_tricks.as_strided(buffer, shape, [4 * s for s in strides])
    tensor = torch.as_strided(torch.from_numpy(buffer), shape, strides)
    expected = torch.nn.functional.conv2d(tensor, torch.ones(2, shape[1], 1, 1))
    result = tc.conv2d(x, np.ones((2, shape[1], 1, 1), "f"))
    is_last = np.moveaxis(result, 1, -1).flags.c_contiguous
    assert is_last == expected.is_contiguous(memory_format=torch.channels_last), (shape, strides)
    assert result.flags.c_contiguous == expected.is_contiguous(), (shape, strides)


@pytest.mark.parametrize("layout", [spread, reversed_strides, transposed, channels_last])
def test_out_of_any_strides(data, layout):
    for expected, call in (
        (data.y, lambda out: tc.conv2d(data.x, data.w, data.bias, algorithm="direct", out=out)),
        (data.dx, lambda out: tc.grad.conv2d_input(SHAPE, data.w, data.dy, algorithm="direct", out=out)),
        (data.dw, lambda out: tc.grad.conv2d_weight(data.x, KERNEL, data.dy, algorithm="direct", out=out)),
    ):
        out = layout(np.full_like(expected, 99))
        surroundings = out.base.copy() if layout is spread else None
        assert call(out) is out
        assert_same(out, expected, f"out {layout.__name__}")
        if surroundings is not None:
            untouched = np.isnan(surroundings)
            assert np.isnan(out.base[untouched]).all(), "nothing outside out is written"


def test_out_of_transposed_convolution(data):
    expected = tc.conv_transpose2d(data.dy, data.w, data.bias[:3], stride=3, output_padding=2)
    out = spread(np.full_like(expected, 99))
    assert tc.conv_transpose2d(data.dy, data.w, data.bias[:3], stride=3, output_padding=2, out=out) is out
    assert_same(out, expected, "conv_transpose2d")


def test_out_may_interleave_with_an_input(data):
    """They share a buffer and its address range, but no element."""
    both = np.zeros((2, *SHAPE), data.x.dtype).transpose(1, 2, 3, 4, 0).copy().transpose(4, 0, 1, 2, 3)
    x, out = both
    x[...] = data.x
    w = np.eye(3, dtype=data.x.dtype).reshape(3, 3, 1, 1)
    tc.conv2d(x, w, out=out)
    np.testing.assert_array_equal(out, data.x)


def test_unbatched_arrays(data):
    assert_same(tc.conv2d(data.x[1], data.w, data.bias, algorithm="direct"), data.y[1], "unbatched")
    dx = tc.grad.conv2d_input(SHAPE[1:], data.w, data.dy[1], algorithm="direct")
    assert_same(dx, data.dx[1], "unbatched")
    dw = [tc.grad.conv2d_weight(data.x[n], KERNEL, data.dy[n], algorithm="direct") for n in range(2)]
    assert_same(dw[0] + dw[1], data.dw, "unbatched")
    transposed_batch = tc.conv_transpose2d(data.dy, data.w, algorithm="direct")
    assert_same(tc.conv_transpose2d(data.dy[1], data.w, algorithm="direct"), transposed_batch[1], "unbatched")


@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft", "winograd"])
def test_empty_batch_and_channels(algorithm):
    options = {"algorithm": algorithm}
    assert tc.conv2d(np.ones((0, 3, 6, 6)), np.ones((4, 3, 3, 3)), **options).shape == (0, 4, 4, 4)
    y = tc.conv2d(np.ones((2, 0, 6, 6)), np.ones((4, 0, 3, 3)), np.arange(4), **options)
    np.testing.assert_array_equal(y, np.broadcast_to(np.arange(4).reshape(4, 1, 1), (2, 4, 4, 4)))
    assert tc.conv2d(np.ones((2, 3, 6, 6)), np.ones((0, 3, 3, 3)), **options).shape == (2, 0, 4, 4)
    dx = tc.grad.conv2d_input((2, 3, 6, 6), np.ones((0, 3, 3, 3)), np.ones((2, 0, 4, 4)), **options)
    np.testing.assert_array_equal(dx, np.zeros((2, 3, 6, 6)))
    dw = tc.grad.conv2d_weight(np.ones((0, 3, 6, 6)), (4, 3, 3, 3), np.ones((0, 4, 4, 4)), **options)
    np.testing.assert_array_equal(dw, np.zeros((4, 3, 3, 3)))
    assert tc.grad.conv2d_input((0, 3, 6, 6), np.ones((4, 3, 3, 3)), np.ones((0, 4, 4, 4)), **options).size == 0
    y, backward = tc.plan_conv2d((0, 3, 6, 6), (4, 3, 3, 3), **options).step(
        np.ones((0, 3, 6, 6), "f"), np.ones((4, 3, 3, 3), "f")
    )
    dx, dw = backward(np.ones((0, 4, 4, 4), "f"))
    assert (y.shape, dx.shape) == ((0, 4, 4, 4), (0, 3, 6, 6))
    np.testing.assert_array_equal(dw, np.zeros((4, 3, 3, 3)))
