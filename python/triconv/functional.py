"""The layer functions: convolution and transposed convolution in one, two and three dimensions.

As in every deep-learning framework these are cross-correlations; true convolution is the same with the kernel flipped.
Names, order and meaning of the arguments are PyTorch's. Arrays may have any strides, byte order and alignment, and may
be anything NumPy can read, a CPU tensor of PyTorch included. float32 and float64 are computed as they are; float16 is
promoted to float32, integers and booleans to float64, and float32 mixed with float64 to float64.
"""

# ruff: noqa: A002 (the argument `input` has the name it has in PyTorch)
from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from ._typing import AnyArray, ArrayIn, Ends, Padding, PaddingMode, PerAxis

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]


def conv1d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Convolve a batch of signals with a bank of kernels.

    Shapes: input (N, C, L) or (C, L), weight (K, C / groups, R), bias (K,), output (N, K, Lo) or (K, Lo).
    Parameters, errors and source as `conv2d`, with one spatial axis: padding of unlike ends is ``((low, high),)``.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> tc.conv1d([[[1, 2, 3, 4]]], [[[1, 0, -1]]])
    array([[[-2., -2.]]])
    """
    return _core.conv(1, input, weight, bias, stride, padding, dilation, groups, padding_mode, algorithm, out)


def conv2d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Convolve a batch of images with a bank of kernels.

    ``y[n, k, o] = bias[k] + sum over c, r of x[n, c, o * stride + r * dilation - padding] * w[k, c, r]``, the
    cross-correlation that frameworks call convolution (Dumoulin and Visin, arXiv:1603.07285), positions outside the
    input being 0 or what `padding_mode` says.

    Parameters
    ----------
    input
        Shape (N, C, H, W), or (C, H, W) for one sample.
    weight
        Shape (K, C / groups, R, S).
    bias
        Shape (K,), or None.
    stride, dilation
        At least 1: an int or 2 ints.
    padding
        Positions added around the input: an int, an int per axis, or ``((low, high), (low, high))``;
        ``"valid"`` for none; ``"same"`` for an output of the input's size (stride 1 only; an odd total puts the extra
        one at the high end).
    groups
        Channels are split into this many groups that do not mix; C groups make the convolution depthwise.
    padding_mode
        What the padding of ``a b c d`` holds, by PyTorch's names: ``"zeros"``; ``"reflect"``, ``c b | a b c d | c b``,
        narrower than the input; ``"replicate"``, ``a a | a b c d | d d``; ``"circular"``, ``c d | a b c d | a b``, no
        wider than the input. There is no padded copy: the samples are found as they are read.
    algorithm
        ``"auto"``, ``"direct"``, ``"fft"`` or ``"winograd"``; ``"direct,fft"`` is the faster of the two; ``"fft:16"``
        fixes the transform length, ``"winograd:4"`` the outputs per tile, ``"fft:16x32"`` per axis.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape (N, K, Ho, Wo), or (K, Ho, Wo) for one sample, with
        ``floor((input + padding at both ends - dilation * (kernel - 1) - 1) / stride) + 1`` positions per axis.
        channels_last if `input` is, else C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    >>> w = np.ones((1, 1, 3, 3), dtype=np.float32)
    >>> tc.conv2d(x, w)
    array([[[[45., 54.],
             [81., 90.]]]], dtype=float32)
    >>> tc.conv2d(x, w, padding="same").shape
    (1, 1, 4, 4)
    >>> tc.conv2d(x, w, padding="same", padding_mode="reflect")[0, 0, 0]
    array([30., 33., 42., 45.], dtype=float32)
    """
    return _core.conv(2, input, weight, bias, stride, padding, dilation, groups, padding_mode, algorithm, out)


def conv3d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Convolve a batch of volumes with a bank of kernels.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (K, C / groups, Q, R, S), bias (K,),
    output (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters, errors and source as `conv2d`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> tc.conv3d(np.ones((1, 1, 3, 3, 3)), np.ones((2, 1, 3, 3, 3)), bias=[0, 1])
    array([[[[[27.]]],
    <BLANKLINE>
    <BLANKLINE>
            [[[28.]]]]])
    """
    return _core.conv(3, input, weight, bias, stride, padding, dilation, groups, padding_mode, algorithm, out)


def conv_transpose1d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Apply the transpose of `conv1d`, also called deconvolution or fractionally strided convolution.

    Shapes: input (N, C, L) or (C, L), weight (C, K / groups, R), bias (K,), output (N, K, Lo) or (K, Lo).
    Parameters, errors and source as `conv_transpose2d`, with one spatial axis: padding of unlike ends is
    ``((low, high),)``.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.conv_transpose1d([[[1, 2]]], [[[1, 10, 100]]], stride=2)
    array([[[  1.,  10., 102.,  20., 200.]]])
    """
    return _core.conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv_transpose2d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Apply the transpose of `conv2d`, also called deconvolution or fractionally strided convolution.

    The linear map from the output of `conv2d` back to its input: what `triconv.grad.conv2d_input` computes, as a
    layer (Dumoulin and Visin, arXiv:1603.07285, section 4; Zeiler et al., CVPR 2010).

    Parameters
    ----------
    input
        Shape (N, C, H, W), or (C, H, W) for one sample.
    weight
        Shape (C, K / groups, R, S).
    bias
        Shape (K,), or None.
    stride, dilation
        Of the convolution that is transposed, at least 1: an int or 2 ints.
    padding
        Of the convolution that is transposed, so it shortens the output:
        an int, an int per axis, or ``((low, high), (low, high))``.
    output_padding
        Positions added at the high end of the output, fewer than the stride or the dilation:
        an int or 2 ints.
    groups
        Channels are split into this many groups that do not mix.
    algorithm
        As in `conv2d`.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape (N, K, Ho, Wo), or (K, Ho, Wo) for one sample, with
        ``(input - 1) * stride - padding at both ends + dilation * (kernel - 1) + output_padding + 1`` positions per
        axis. channels_last if `input` is, else C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.conv_transpose2d([[[[1, 2], [3, 4]]]], [[[[1, 1]]]])
    array([[[[1., 3., 2.],
             [3., 7., 4.]]]])
    """
    return _core.conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv_transpose3d(
    input: ArrayIn,
    weight: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Apply the transpose of `conv3d`, also called deconvolution or fractionally strided convolution.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (C, K / groups, Q, R, S), bias (K,),
    output (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters, errors and source as `conv_transpose2d`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> tc.conv_transpose3d(np.ones((2, 4, 5, 5, 5)), np.ones((4, 3, 2, 2, 2)), stride=2).shape
    (2, 3, 10, 10, 10)
    """
    return _core.conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, algorithm, out
    )
