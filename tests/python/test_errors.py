"""Bad input: the kind of error, and a message that names the argument, its value and what was expected.

Each message is matched in the caller's terms. Nothing may have been computed or written when it is raised.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import triconv as tc

X, W = np.ones((2, 4, 6, 6), np.float32), np.ones((8, 4, 3, 3), np.float32)
DY = np.ones((2, 8, 4, 4), np.float32)


def raises_value(match):
    return pytest.raises(ValueError, match=match)


def raises_type(match):
    return pytest.raises(TypeError, match=match)


# ---- Ranks and channels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (6,), (6, 6), (1, 2, 4, 6, 6)])
def test_wrong_rank_of_input(shape):
    with raises_value(rf"input has {len(shape)} dimensions.*expected 4 \(N, C, H, W\) or 3 \(C, H, W\)"):
        tc.conv2d(np.ones(shape), W)


def test_wrong_rank_of_weight():
    with raises_value(r"weight has 3 dimensions, shape \(8, 4, 3\), expected 4 \(K, C / groups, H, W\)"):
        tc.conv2d(X, W[..., 0])
    with raises_value(r"weight has 4 dimensions.*expected 3 \(C, K / groups, L\)"):
        tc.conv_transpose1d(X[0], W)


def test_wrong_rank_of_sizes():
    with raises_value(r"input_size has 2 dimensions, shape \(6, 6\), expected 4"):
        tc.grad.conv2d_input((6, 6), W, DY)
    with raises_value(r"weight_size has 2 dimensions, shape \(3, 3\), expected 4"):
        tc.grad.conv2d_weight(X, (3, 3), DY)
    with raises_value(r"weight_size is \(3, 3\) with 2 entries, expected 3, 4 or 5"):
        tc.explain((6, 6), (3, 3))


def test_channel_mismatch():
    with raises_value(r"weight has 3 input channels, expected 4, those of input"):
        tc.conv2d(X, W[:, :3])
    with raises_value(r"weight has 4 input channels per group, expected 2 = 4 channels / 2 groups"):
        tc.conv2d(X, W, groups=2)
    with raises_value(r"weight has 8 input channels on axis 0, expected 4, those of input"):
        tc.conv_transpose2d(X, W)
    with raises_value(r"weight_size has 5 input channels, expected 4, those of input_size"):
        tc.plan_conv2d(X.shape, (8, 5, 3, 3))


def test_groups_that_do_not_divide():
    with raises_value(r"groups is 3, which does not divide the 4 input channels of input"):
        tc.conv2d(X, W, groups=3)
    with raises_value(r"groups is 4, which does not divide the 6 output channels of weight"):
        tc.conv2d(X, np.ones((6, 1, 3, 3)), groups=4)
    with raises_value(r"groups is 3, which does not divide the 8 input channels of input"):
        tc.conv_transpose2d(DY, W, groups=3)


@pytest.mark.parametrize("groups", [0, -2])
def test_groups_below_one(groups):
    with raises_value(rf"groups is {groups}, expected at least 1"):
        tc.conv2d(X, W, groups=groups)


def test_bias_of_another_length():
    with raises_value(r"bias has shape \(4,\), expected \(8,\), one number per output channel"):
        tc.conv2d(X, W, np.ones(4))
    with raises_value(r"bias has shape \(8, 1, 1\), expected \(8,\)"):
        tc.conv2d(X, W, np.ones((8, 1, 1)))
    with raises_value(r"bias has shape \(8,\), expected \(4,\)"):
        tc.conv_transpose2d(DY, W, np.ones(8))


# ---- Stride, dilation, padding, sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [0, -1, (1, 0), (-3, 1)])
def test_zero_or_negative_stride_and_dilation(name, value):
    shown = re.escape(repr(value))
    for call in (lambda **k: tc.conv2d(X, W, **k), lambda **k: tc.conv_transpose2d(DY, W, **k)):
        with raises_value(rf"{name} is {shown}, expected at least 1 on every axis"):
            call(**{name: value})


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [1.5, "2", None, (1, 1.5), {1: 2}])
def test_stride_and_dilation_of_another_type(name, value):
    with raises_type(rf"{name} is {re.escape(repr(value))}, expected an int or a sequence of 2 ints"):
        tc.conv2d(X, W, **{name: value})


@pytest.mark.parametrize("name", ["stride", "dilation"])
def test_stride_and_dilation_of_another_length(name):
    with raises_value(rf"{name} is \(1, 1, 1\) with 3 entries, expected an int or 2 ints"):
        tc.conv2d(X, W, **{name: (1, 1, 1)})


@pytest.mark.parametrize("value", [-1, (0, -1), ((0, 0), (0, -1))])
def test_negative_padding(value):
    with raises_value(rf"padding is {re.escape(repr(value))}, expected 0 or more at every end"):
        tc.conv2d(X, W, padding=value)


@pytest.mark.parametrize("value", ["SAME", "full", (1, 1, 1), ((1, 1, 1), (1, 1, 1)), (), ((1, 2.5), 1)])
def test_padding_of_no_known_form(value):
    shown = re.escape(repr(value))
    with raises_value(rf"padding is {shown}, expected an int, 2 ints, 2 \(low, high\) pairs, 'valid' or 'same'"):
        tc.conv2d(X, W, padding=value)


@pytest.mark.parametrize("value", [1.5, None])
def test_padding_of_another_type(value):
    with raises_type(rf"padding is {value}, expected an int, 2 ints, 2 \(low, high\) pairs, 'valid' or 'same'"):
        tc.conv2d(X, W, padding=value)


@pytest.mark.parametrize(("mode", "padding", "most"), [("reflect", 6, 5), ("circular", ((0, 0), (2, 7)), 6)])
def test_padding_wider_than_its_mode_allows(mode, padding, most):
    message = rf"padding is {re.escape(repr(padding))}, .*expected at most {most} with padding_mode '{mode}'"
    with raises_value(message):
        tc.conv2d(X, W, padding=padding, padding_mode=mode)
    with raises_value(message):
        tc.plan_conv2d(X.shape, W.shape, padding=padding, padding_mode=mode)
    layer = tc.nn.Conv2d(4, 8, 3, padding=padding, padding_mode=mode)  # a larger input would do
    with raises_value(message):
        layer(X)
    for allowed in ("zeros", "replicate"):
        tc.conv2d(X, W, padding=padding, padding_mode=allowed)


def test_unknown_padding_mode():
    expected = "expected 'zeros', 'reflect', 'replicate' or 'circular'"
    for call in (
        lambda mode: tc.conv2d(X, W, padding_mode=mode),
        lambda mode: tc.grad.conv2d_input(X.shape, W, DY, padding_mode=mode),
        lambda mode: tc.grad.conv2d_weight(X, W.shape, DY, padding_mode=mode),
        lambda mode: tc.plan_conv2d(X.shape, W.shape, padding_mode=mode),
        lambda mode: tc.explain(X.shape, W.shape, padding_mode=mode),
        lambda mode: tc.nn.Conv2d(4, 8, 3, padding_mode=mode),
    ):
        with raises_value(rf"padding_mode is 'mirror', {expected}"):
            call("mirror")
        with raises_type(rf"padding_mode is None, {expected}"):
            call(None)


def test_same_padding_with_stride():
    with raises_value(r"padding is 'same' with stride \(1, 2\), expected stride 1 on every axis"):
        tc.conv2d(X, W, stride=(1, 2), padding="same")


def test_same_padding_of_a_transposed_convolution():
    with raises_value(r"padding is 'same', expected an int, 2 ints, 2 \(low, high\) pairs$"):
        tc.conv_transpose2d(DY, W, padding="same")


def test_zero_and_negative_sizes():
    with raises_value(r"input has shape \(2, 4, 0, 6\), expected at least 1 on axis 2"):
        tc.conv2d(X[:, :, :0], W, padding=3)
    with raises_value(r"weight has shape \(8, 4, 3, 0\), expected at least 1 on axis 3"):
        tc.conv2d(X, W[..., :0])
    with raises_value(r"input_size has shape \(2, 4, -6, 6\), expected at least 1 on axis 2"):
        tc.grad.conv2d_input((2, 4, -6, 6), W, DY)
    with raises_value(r"input_size has shape \(-2, 4, 6, 6\), expected at least 0 on axis 0"):
        tc.plan_conv2d((-2, 4, 6, 6), W.shape)
    with raises_value(r"weight_size has shape \(8, -4, 3, 3\), expected at least 0 on axis 1"):
        tc.grad.conv2d_weight(X, (8, -4, 3, 3), DY)


def test_sizes_of_another_type():
    with raises_type(r"input_size is 6, expected a sequence of ints"):
        tc.plan_conv2d(6, W.shape)
    with raises_type(r"weight_size is \(8, 4, 3.0, 3\), expected a sequence of ints"):
        tc.plan_conv2d(X.shape, (8, 4, 3.0, 3))
    with raises_type(r"groups is 1.0, expected an int"):
        tc.conv2d(X, W, groups=1.0)


def test_kernel_larger_than_the_padded_input():
    with raises_value(r"kernel is larger than the padded input \(width\): kernel spans 7.*expected at most 6"):
        tc.conv2d(X, np.ones((8, 4, 3, 7)))
    with raises_value(r"kernel spans 9.*expected at most 8"):
        tc.conv2d(X, W, padding=1, dilation=4)


def test_output_padding_too_large():
    with raises_value(r"output_padding is 2, expected less than the stride or the dilation of every axis"):
        tc.conv_transpose2d(DY, W, stride=2, output_padding=2)
    with raises_value(r"output_padding is \(0, -1\), expected at least 0"):
        tc.conv_transpose2d(DY, W, output_padding=(0, -1))


def test_padding_that_leaves_no_transposed_output():
    with raises_value(r"padding is 3, which leaves an output of 0 on spatial axis 0.*expected at least 1"):
        tc.conv_transpose2d(DY, W, padding=3)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stride", 2**62, r"contains {value}, expected at most 2\*\*40"),
        (
            "dilation",
            2**62,
            r"is {value} for weight of shape \(8, 4, 3, 3\), expected a kernel that spans at most 2\*\*40",
        ),
        ("padding", 2**62, r"contains {value}, expected at most 2\*\*40"),
        ("stride", 2**70, r"contains {value}, which does not fit in 64 bits"),
        ("dilation", 2**70, r"contains {value}, which does not fit in 64 bits"),
        ("padding", 2**70, r"contains {value}, which does not fit in 64 bits"),
    ],
)
def test_parameters_that_overflow(name, value, message):
    for call in (lambda **k: tc.conv2d(X, W, **k), lambda **k: tc.conv_transpose2d(DY, W, **k)):
        with raises_value(f"{name} {message.format(value=value)}"):
            call(**{name: value})


def test_sizes_whose_bytes_overflow():
    huge = 2**21
    with raises_value(r"input .*too large"):
        tc.plan_conv2d((huge, 4, huge, huge), W.shape)
    x = np.broadcast_to(np.float32(0), (1, 4, 2**20, 2**20))
    w = np.broadcast_to(np.float32(0), (2**30, 4, 1, 1))
    with raises_value(r"output .*too large"):
        tc.conv2d(x, w)
    with raises_value(r"input .*too large"):  # of the convolution that is transposed
        tc.conv_transpose2d(x, np.broadcast_to(np.float32(0), (4, 2**30, 1, 1)))
    with raises_value(r"input_size contains 9223372036854775807, expected at most"):
        tc.plan_conv2d((2**63 - 1, 4, 6, 6), W.shape)
    with raises_value(r"input_size contains 9223372036854775808, which does not fit in 64 bits"):
        tc.plan_conv2d((2**63, 4, 6, 6), W.shape)


# ---- Arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "object", "U3", "S3", "M8[s]", "longdouble", "V4"])
def test_dtypes_that_are_no_real_numbers(dtype):
    bad = np.zeros(X.shape, dtype)
    message = (
        f"has dtype {re.escape(str(bad.dtype))}, expected real numbers: float32, float64, float16, integers or booleans"
    )
    with raises_type(f"input {message}"):
        tc.conv2d(bad, W)
    with raises_type(f"weight {message}"):
        tc.conv2d(X, bad)
    with raises_type(f"grad_output {message}"):
        tc.grad.conv2d_input(X.shape, W, bad)
    with raises_type(f"bias {message}"):
        tc.conv2d(X, W, bad)


def test_things_that_are_no_arrays():
    with raises_type(r"input is None, expected an array"):
        tc.conv2d(None, W)
    with raises_type(r"weight has dtype <U5, expected real numbers"):
        tc.conv2d(X, "words")
    with raises_type(r"weight has dtype object, expected real numbers"):
        tc.conv2d(X, object())
    with raises_value(r"input cannot be read as an array: .*inhomogeneous"):
        tc.conv1d([[[1, 2], [3]]], W)


def test_grad_output_of_another_shape():
    expected = r"expected \(2, 8, 4, 4\), the output of input(_size)? \(2, 4, 6, 6\) and weight(_size)? \(8, 4, 3, 3\)"
    with raises_value(r"grad_output has shape \(2, 8, 5, 4\), " + expected):
        tc.grad.conv2d_input(X.shape, W, np.ones((2, 8, 5, 4)))
    with raises_value(r"grad_output has shape \(2, 7, 4, 4\), " + expected):
        tc.grad.conv2d_weight(X, W.shape, np.ones((2, 7, 4, 4)))
    with raises_value(r"grad_output has shape \(8, 4, 4\), " + expected):
        tc.grad.conv2d_weight(X, W.shape, DY[0])
    with raises_value(
        r"grad_output has shape \(2, 4, 6, 5\), expected \(2, 4, 6, 6\), the output of input_size \(2, 8, 4, 4\)"
    ):
        tc.grad.conv_transpose2d_input(DY.shape, W, X[..., 1:])
    with raises_value(
        r"grad_output has shape \(2, 4, 6, 5\), expected \(2, 4, 6, 6\), the output of input \(2, 8, 4, 4\)"
    ):
        tc.grad.conv_transpose2d_weight(DY, W.shape, X[..., 1:])


def test_input_size_that_does_not_give_grad_output():
    with raises_value(
        r"grad_output has shape \(2, 8, 4, 4\), expected \(2, 8, 5, 5\), the output of input_size \(2, 4, 7, 7\)"
    ):
        tc.grad.conv2d_input((2, 4, 7, 7), W, DY)
    with raises_value(
        r"grad_output has shape \(2, 8, 4, 4\), expected \(8, 4, 4\), the output of input_size \(4, 6, 6\)"
    ):
        tc.grad.conv2d_input((4, 6, 6), W, DY)
    with raises_value(r"weight has 4 input channels, expected 3, those of input_size"):
        tc.grad.conv2d_input((2, 3, 6, 6), W, DY)


# ---- out -------------------------------------------------------------------------------------------------------------


def all_functions(out_for):
    """Every kind of function, with the out that `out_for` makes from the shape of its result."""
    return [
        lambda: tc.conv2d(X, W, out=out_for((2, 8, 4, 4))),
        lambda: tc.grad.conv2d_input(X.shape, W, DY, out=out_for((2, 4, 6, 6))),
        lambda: tc.grad.conv2d_weight(X, W.shape, DY, out=out_for((8, 4, 3, 3))),
        lambda: tc.conv_transpose2d(DY, W, out=out_for((2, 4, 6, 6))),
        lambda: tc.plan_conv2d(X.shape, W.shape).forward(X, W, out=out_for((2, 8, 4, 4))),
    ]


@pytest.mark.parametrize("kind", range(5))
def test_out_of_wrong_shape(kind):
    with raises_value(r"out has shape \(1, 2, 3\), expected \(\d, \d, \d, \d\), the shape of the result"):
        all_functions(lambda shape: np.ones((1, 2, 3), np.float32))[kind]()


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("dtype", ["float64", "int32", "float16"])
def test_out_of_wrong_dtype(kind, dtype):
    with raises_type(rf"out has dtype {dtype}, expected float32, the dtype of the result"):
        all_functions(lambda shape: np.ones(shape, dtype))[kind]()


@pytest.mark.parametrize("kind", range(5))
def test_out_read_only(kind):
    def read_only(shape):
        out = np.ones(shape, np.float32)
        out.flags.writeable = False
        return out

    with raises_value(r"out is read-only, expected a writeable array"):
        all_functions(read_only)[kind]()


def test_out_that_is_no_array():
    with raises_type(r"out is a list, expected a numpy.ndarray"):
        tc.conv2d(X, W, out=[1])


def test_out_of_foreign_byte_order_or_alignment():
    with raises_value(r"out has dtype >f4, expected native byte order"):
        tc.conv2d(X, W, out=np.ones(DY.shape, ">f4"))
    unaligned = np.zeros(DY.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(DY.shape)
    with raises_value(r"out is not aligned to its elements of 4 bytes"):
        tc.conv2d(X, W, out=unaligned)


def test_out_that_overlaps_itself():
    out = np.lib.stride_tricks.as_strided(np.ones(1000, np.float32), DY.shape, (256, 32, 8, 4))
    with raises_value(r"out has elements that overlap one another"):
        tc.conv2d(X, W, out=out)


def test_out_that_overlaps_an_input():
    x = X.copy()
    square = np.ones((4, 4, 1, 1), np.float32)
    memory = np.ones(64, np.float32)
    bias, row = memory[:4], memory[:24].reshape(1, 4, 6)
    with raises_value(r"out overlaps input in memory"):
        tc.conv2d(x, square, out=x)
    with raises_value(r"out overlaps input in memory"):
        tc.conv2d(x[:, :, 1:], square, out=x[:, :, :-1])
    with raises_value(r"out overlaps weight in memory"):
        tc.conv2d(square.copy(), square, out=square)
    with raises_value(r"out overlaps bias in memory"):
        tc.conv1d(X[:1, :, 0], square[..., 0], bias, out=row)
    with raises_value(r"out overlaps bias in memory"):
        tc.conv_transpose1d(X[:1, :, 0], square[..., 0], bias, out=row)
    with raises_value(r"out overlaps grad_output in memory"):
        tc.grad.conv2d_input(x.shape, square, x, out=x)
    with raises_value(r"out overlaps input in memory"):
        tc.grad.conv2d_weight(square, square.shape, square.copy(), out=square)
    np.testing.assert_array_equal(x, X, err_msg="nothing was written")


# ---- Options ---------------------------------------------------------------------------------------------------------


def test_unknown_algorithm():
    for call in (lambda: tc.conv2d(X, W, algorithm="FTT"), lambda: tc.plan_conv2d(X.shape, W.shape, algorithm="FTT")):
        with raises_value(r"algorithm is 'FTT', expected 'auto', 'direct', 'fft' or 'winograd'"):
            call()
    with raises_type(r"algorithm is None, expected a str"):
        tc.conv2d(X, W, algorithm=None)


def test_algorithm_that_cannot_compute_the_shape():
    with raises_value(r"winograd has no transform for 9 taps along the height, expected 1 to 7"):
        tc.conv2d(X, np.ones((8, 4, 9, 3)), padding=4, algorithm="winograd")


@pytest.mark.parametrize("tile", ["fft:", "fft:0", "fft:x", "winograd:-1", "direct:4", "fft:16x16x16"])
def test_tiles_of_no_meaning(tile):
    with raises_value(rf"algorithm is '{tile}', expected 'auto', .* or one with a tile: 'fft:16' or"):
        tc.conv2d(X, W, algorithm=tile)


def test_tiles_that_the_kernel_does_not_fit():
    with raises_value(r"algorithm has an FFT tile of 2, expected at least 3, the taps of the kernel"):
        tc.conv2d(X, W, algorithm="fft:2")
    with raises_value(r"algorithm has a Winograd tile of 40 outputs, which for 3 taps there is no transform for"):
        tc.conv2d(X, W, algorithm="winograd:40")


def test_workspace_cap_below_the_least():
    with raises_value(r"max_workspace is 1 bytes, expected at least \d{4,} for forward with algorithm 'auto'"):
        tc.plan_conv2d((8, 64, 56, 56), (64, 64, 7, 7), max_workspace=1)
    with raises_value(r"max_workspace is -1, expected at least 0"):
        tc.plan_conv2d(X.shape, W.shape, max_workspace=-1)
    with raises_type(r"max_workspace is 1.5, expected an int"):
        tc.plan_conv2d(X.shape, W.shape, max_workspace=1.5)


def test_tolerance_that_nothing_meets():
    with raises_value(r"tolerance is 1e-30, expected at least \d\S*e-0\d for forward with algorithm 'auto'"):
        tc.plan_conv2d(X.shape, W.shape, tolerance=1e-30)
    for bad in (0, -1.0, float("nan")):
        with raises_value(rf"tolerance is {bad}, expected more than 0, or None"):
            tc.plan_conv2d(X.shape, W.shape, tolerance=bad)
    with raises_type(r"tolerance is 'tight', expected a float or None"):
        tc.plan_conv2d(X.shape, W.shape, tolerance="tight")


def test_plan_of_another_dtype():
    with raises_type(r"dtype is float16, expected float32 or float64"):
        tc.plan_conv2d(X.shape, W.shape, dtype=np.float16)
    with raises_type("data type 'not a dtype' not understood"):
        tc.plan_conv2d(X.shape, W.shape, dtype="not a dtype")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "n is 0, expected at least 1"),
        (-1, "n is -1, expected at least 1"),
        (2**20, "n is 1048576, expected at most 65536 threads"),
        (2**80, "n contains 1208925819614629174706176, which does not fit in 64 bits"),
    ],
)
@pytest.mark.usefixtures("keep_threads")
def test_number_of_threads_out_of_range(count, message):
    with raises_value(message):
        tc.set_num_threads(count)


def test_number_of_threads_of_another_type():
    with raises_type(r"n is 1.5, expected an int"), tc.num_threads(1.5):
        pass
