"""The gradients of the layer functions, under the names of `torch.nn.grad`.

With L a scalar that depends on y = conv(x, w), and dy = dL/dy, these compute dL/dx = T(w)^T dy and dL/dw = T_x^T dy:
the transposes of y as a linear function of x and of w. The gradient for a bias is dy summed over all axes but that of
the channels. A transposed convolution being the transpose of a convolution, its gradients are a convolution and its
weight gradient.
"""

# ruff: noqa: A002 (the argument `input` has the name it has in PyTorch)
from __future__ import annotations

from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from ._typing import AnyArray, ArrayIn, Ends, Padding, PaddingMode, PerAxis, Size

__all__ = [
    "conv1d_input",
    "conv1d_weight",
    "conv2d_input",
    "conv2d_weight",
    "conv3d_input",
    "conv3d_weight",
    "conv_transpose1d_input",
    "conv_transpose1d_weight",
    "conv_transpose2d_input",
    "conv_transpose2d_weight",
    "conv_transpose3d_input",
    "conv_transpose3d_weight",
]


def conv1d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv1d` with respect to its input.

    Shapes: `input_size` and result (N, C, L) or (C, L), weight (K, C / groups, R), `grad_output` (N, K, Lo) or (K, Lo).
    Parameters and errors as `conv2d_input`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv1d_input((1, 1, 4), np.ones((1, 1, 3)), np.ones((1, 1, 2)))
    >>> dx.shape
    (1, 1, 4)
    >>> float(dx.sum())
    6.0
    """
    return _core.conv_input(
        1, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv1d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv1d` with respect to its weight.

    Shapes: input (N, C, L) or (C, L), `weight_size` and result (K, C / groups, R), `grad_output` (N, K, Lo) or (K, Lo).
    Parameters and errors as `conv2d_weight`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv1d_weight(np.ones((1, 1, 4)), (1, 1, 3), np.ones((1, 1, 2)))
    >>> dw.shape
    (1, 1, 3)
    >>> float(dw.sum())
    6.0
    """
    return _core.conv_weight(
        1, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv_transpose1d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose1d` with respect to its input.

    Shapes: `input_size` and result (N, C, L) or (C, L), weight (C, K / groups, R), `grad_output` (N, K, Lo) or (K, Lo).
    Parameters and errors as `conv_transpose2d_input`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv_transpose1d_input((1, 1, 4), np.ones((1, 1, 3)), np.ones((1, 1, 6)))
    >>> dx.shape
    (1, 1, 4)
    >>> float(dx.sum())
    12.0
    """
    return _core.conv_transpose_input(
        1, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv_transpose1d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose1d` with respect to its weight.

    Shapes: input (N, C, L) or (C, L), `weight_size` and result (C, K / groups, R), `grad_output` (N, K, Lo) or (K, Lo).
    Parameters and errors as `conv_transpose2d_weight`, with one spatial axis.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv_transpose1d_weight(np.ones((1, 1, 4)), (1, 1, 3), np.ones((1, 1, 6)))
    >>> dw.shape
    (1, 1, 3)
    >>> float(dw.sum())
    12.0
    """
    return _core.conv_transpose_weight(
        1, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv2d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv2d` with respect to its input.

    Parameters
    ----------
    input_size
        Shape of the input: (N, C, H, W), or (C, H, W) for one sample.
    weight
        Shape (K, C / groups, R, S).
    grad_output
        Gradient with respect to the output, of the output's shape: (N, K, Ho, Wo) or (K, Ho, Wo).
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape `input_size`. channels_last if `grad_output` is, else C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv2d_input((1, 1, 4, 4), np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    >>> dx.shape
    (1, 1, 4, 4)
    >>> float(dx.sum())
    36.0

    The padding holds copies of samples, whose gradients are added up:

    >>> tc.grad.conv2d_input((1, 1, 1, 3), [[[[1]]]], [[[[1, 2, 3, 4, 5]]]], padding=(0, 1), padding_mode="replicate")
    array([[[[3., 3., 9.]]]])
    """
    return _core.conv_input(
        2, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv2d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv2d` with respect to its weight.

    Parameters
    ----------
    input
        Shape (N, C, H, W), or (C, H, W) for one sample.
    weight_size
        Shape of the weight: (K, C / groups, R, S).
    grad_output
        Gradient with respect to the output, of the output's shape: (N, K, Ho, Wo) or (K, Ho, Wo).
    stride, padding, dilation, groups, padding_mode, algorithm
        As given to `conv2d`.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape `weight_size`, C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv2d_weight(np.ones((1, 1, 4, 4)), (1, 1, 3, 3), np.ones((1, 1, 2, 2)))
    >>> dw.shape
    (1, 1, 3, 3)
    >>> float(dw.sum())
    36.0
    """
    return _core.conv_weight(
        2, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv_transpose2d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose2d` with respect to its input.

    Parameters
    ----------
    input_size
        Shape of the input: (N, C, H, W), or (C, H, W) for one sample.
    weight
        Shape (C, K / groups, R, S).
    grad_output
        Gradient with respect to the output, of the output's shape: (N, K, Ho, Wo) or (K, Ho, Wo).
    stride, padding, output_padding, groups, dilation, algorithm
        As given to `conv_transpose2d`.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape `input_size`. channels_last if `grad_output` is, else C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv_transpose2d_input((1, 1, 4, 4), np.ones((1, 1, 3, 3)), np.ones((1, 1, 6, 6)))
    >>> dx.shape
    (1, 1, 4, 4)
    >>> float(dx.sum())
    144.0
    """
    return _core.conv_transpose_input(
        2, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv_transpose2d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose2d` with respect to its weight.

    Parameters
    ----------
    input
        Shape (N, C, H, W), or (C, H, W) for one sample.
    weight_size
        Shape of the weight: (C, K / groups, R, S).
    grad_output
        Gradient with respect to the output, of the output's shape: (N, K, Ho, Wo) or (K, Ho, Wo).
    stride, padding, output_padding, groups, dilation, algorithm
        As given to `conv_transpose2d`.
    out
        Where to put the result: a writeable array of its shape and dtype, any strides, that overlaps no input.

    Returns
    -------
    numpy.ndarray
        Shape `weight_size`, C-contiguous.

    Raises
    ------
    TypeError
        If an argument has the wrong type: an array of strings, objects or complex numbers, a stride of 1.5.
    ValueError
        If a shape, size or option does not fit, or `algorithm` cannot compute this shape. Raised before any work.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv_transpose2d_weight(np.ones((1, 1, 4, 4)), (1, 1, 3, 3), np.ones((1, 1, 6, 6)))
    >>> dw.shape
    (1, 1, 3, 3)
    >>> float(dw.sum())
    144.0
    """
    return _core.conv_transpose_weight(
        2, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv3d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv3d` with respect to its input.

    Shapes: `input_size` and result (N, C, D, H, W) or (C, D, H, W), weight (K, C / groups, Q, R, S),
    `grad_output` (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters and errors as `conv2d_input`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv3d_input((1, 1, 4, 4, 4), np.ones((1, 1, 3, 3, 3)), np.ones((1, 1, 2, 2, 2)))
    >>> dx.shape
    (1, 1, 4, 4, 4)
    >>> float(dx.sum())
    216.0
    """
    return _core.conv_input(
        3, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv3d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    *,
    padding_mode: PaddingMode = "zeros",
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv3d` with respect to its weight.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), `weight_size` and result (K, C / groups, Q, R, S),
    `grad_output` (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters and errors as `conv2d_weight`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv3d_weight(np.ones((1, 1, 4, 4, 4)), (1, 1, 3, 3, 3), np.ones((1, 1, 2, 2, 2)))
    >>> dw.shape
    (1, 1, 3, 3, 3)
    >>> float(dw.sum())
    216.0
    """
    return _core.conv_weight(
        3, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, algorithm, out
    )


def conv_transpose3d_input(
    input_size: Size,
    weight: ArrayIn,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose3d` with respect to its input.

    Shapes: `input_size` and result (N, C, D, H, W) or (C, D, H, W), weight (C, K / groups, Q, R, S),
    `grad_output` (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters and errors as `conv_transpose2d_input`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dx = tc.grad.conv_transpose3d_input((1, 1, 4, 4, 4), np.ones((1, 1, 3, 3, 3)), np.ones((1, 1, 6, 6, 6)))
    >>> dx.shape
    (1, 1, 4, 4, 4)
    >>> float(dx.sum())
    1728.0
    """
    return _core.conv_transpose_input(
        3, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )


def conv_transpose3d_weight(
    input: ArrayIn,
    weight_size: Size,
    grad_output: ArrayIn,
    stride: PerAxis = 1,
    padding: Ends = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    *,
    algorithm: str = "auto",
    out: AnyArray | None = None,
) -> AnyArray:
    """Compute the gradient of `conv_transpose3d` with respect to its weight.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), `weight_size` and result (C, K / groups, Q, R, S),
    `grad_output` (N, K, Do, Ho, Wo) or (K, Do, Ho, Wo).
    Parameters and errors as `conv_transpose2d_weight`, with three spatial axes.

    Examples
    --------
    >>> import numpy as np, triconv as tc
    >>> dw = tc.grad.conv_transpose3d_weight(np.ones((1, 1, 4, 4, 4)), (1, 1, 3, 3, 3), np.ones((1, 1, 6, 6, 6)))
    >>> dw.shape
    (1, 1, 3, 3, 3)
    >>> float(dw.sum())
    1728.0
    """
    return _core.conv_transpose_weight(
        3, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, algorithm, out
    )
