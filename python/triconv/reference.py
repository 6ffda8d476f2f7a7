"""The definitions by the book, in plain NumPy: to learn from, and to test against.

Nothing here is fast and nothing calls the compiled code. One channel first, where the mathematics is plainest: a
signal x, a kernel w, and y their correlation over the positions where w lies wholly inside x ("valid"). Seen as a
matrix this is y = T(w) x with a Toeplitz matrix made of w, and also y = T_x w with a matrix made of the patches of x;
both are linear, so the gradients are their transposes:

    dL/dx = T(w)^T dL/dy        dL/dw = T_x^T dL/dy

The discrete Fourier transform diagonalises circular convolution, which turns each of these into products of spectra
without changing a single number but for rounding. Last come the three passes of a layer with every parameter, summed
in extended precision.

Sources
-------
.. [DV] V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
.. [GVL] G. H. Golub, C. F. Van Loan, "Matrix Computations", 4th ed., sections 1.4 and 4.7-4.8.
.. [OS] A. V. Oppenheim, R. W. Schafer, "Discrete-Time Signal Processing", 3rd ed., sections 2.3 and 8.6-8.7.
.. [C] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document processing",
   2006 (im2col).
.. [MHL] M. Mathieu, M. Henaff, Y. LeCun, "Fast training of convolutional networks through FFTs", arXiv:1312.5851.
.. [LG] A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308 (Winograd).
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from ._typing import AnyArray, ArrayIn, Padding, PerAxis

__all__ = [
    "bttb_matrix",
    "circulant_matrix",
    "conv_input_reference",
    "conv_reference",
    "conv_transpose_reference",
    "conv_weight_reference",
    "convolve1d_fft",
    "convolve1d_loops",
    "convolve2d_fft",
    "convolve2d_loops",
    "convolve_circular_dft",
    "correlate1d_loops",
    "correlate2d_loops",
    "dft_matrix",
    "flip",
    "im2col",
    "input_grad_fft",
    "input_matrix_1d",
    "input_matrix_2d",
    "multiplications_direct",
    "multiplications_fft",
    "multiplications_winograd",
    "toeplitz_matrix",
    "weight_grad_fft",
]


# ---- Convolution and correlation of one channel ----------------------------------------------------------------------


def flip(w: ArrayIn) -> AnyArray:
    """Reverse every axis of a kernel: what turns correlation into convolution and back [DV].

    Examples
    --------
    >>> from triconv.reference import convolve1d_loops, correlate1d_loops, flip
    >>> flip([1, 2, 3])
    array([3, 2, 1])
    >>> convolve1d_loops([0, 1, 0, 0], [1, 2, 3])[2:4]
    array([2., 3.])
    >>> correlate1d_loops([0, 1, 0, 0], flip([1, 2, 3]))
    array([2., 3.])
    """
    return np.flip(np.asarray(w))


def convolve1d_loops(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Convolve by the definition: ``y[i + r] += x[i] * w[r]``, of length ``len(x) + len(w) - 1`` ("full") [OS, 2.3].

    Examples
    --------
    >>> from triconv.reference import convolve1d_loops
    >>> convolve1d_loops([1, 2, 3], [1, 10])
    array([ 1., 12., 23., 30.])
    """
    x, w = np.asarray(x), np.asarray(w)
    y = np.zeros(len(x) + len(w) - 1)
    for i in range(len(x)):
        for r in range(len(w)):
            y[i + r] += x[i] * w[r]
    return y


def convolve2d_loops(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Convolve images by the definition: ``y[i + r, j + s] += x[i, j] * w[r, s]`` ("full") [OS, 2.3].

    Examples
    --------
    >>> from triconv.reference import convolve2d_loops
    >>> convolve2d_loops([[1, 2]], [[1], [10]])
    array([[ 1.,  2.],
           [10., 20.]])
    """
    x, w = np.asarray(x), np.asarray(w)
    y = np.zeros((x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1))
    for i, j in np.ndindex(*x.shape):
        for r, s in np.ndindex(*w.shape):
            y[i + r, j + s] += x[i, j] * w[r, s]
    return y


def correlate1d_loops(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Correlate by the definition: ``y[o] = sum over r of x[o + r] * w[r]``, ``len(x) - len(w) + 1`` values [DV].

    This, without the flip, is what the layers of neural networks call convolution.

    Examples
    --------
    >>> from triconv.reference import correlate1d_loops
    >>> correlate1d_loops([1, 2, 3, 4], [1, 10])
    array([21., 32., 43.])
    """
    x, w = np.asarray(x), np.asarray(w)
    y = np.zeros(len(x) - len(w) + 1)
    for o in range(len(y)):
        for r in range(len(w)):
            y[o] += x[o + r] * w[r]
    return y


def correlate2d_loops(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Correlate images by the definition: ``y[o, p] = sum over r, s of x[o + r, p + s] * w[r, s]`` ("valid") [DV].

    Examples
    --------
    >>> from triconv.reference import correlate2d_loops
    >>> correlate2d_loops([[1, 2], [3, 4]], [[1, 10]])
    array([[21.],
           [43.]])
    """
    x, w = np.asarray(x), np.asarray(w)
    y = np.zeros((x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1))
    for o, p in np.ndindex(*y.shape):
        for r, s in np.ndindex(*w.shape):
            y[o, p] += x[o + r, p + s] * w[r, s]
    return y


def convolve1d_fft(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Convolve by the convolution theorem: the product of the spectra, transformed back [OS, 8.7].

    Both are padded with zeros to the length of the result, so that the circular convolution the theorem speaks of does
    not wrap.

    Examples
    --------
    >>> from triconv.reference import convolve1d_fft
    >>> convolve1d_fft([1, 2, 3], [1, 10]).round(12)
    array([ 1., 12., 23., 30.])
    """
    x, w = np.asarray(x), np.asarray(w)
    length = len(x) + len(w) - 1
    return np.fft.ifft(np.fft.fft(x, length) * np.fft.fft(w, length)).real


def convolve2d_fft(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Convolve images by the convolution theorem, padded to the size of the result [OS, 8.7].

    Examples
    --------
    >>> from triconv.reference import convolve2d_fft
    >>> convolve2d_fft([[1, 2]], [[1], [10]]).round(12)
    array([[ 1.,  2.],
           [10., 20.]])
    """
    x, w = np.asarray(x), np.asarray(w)
    size = (x.shape[0] + w.shape[0] - 1, x.shape[1] + w.shape[1] - 1)
    return np.fft.ifft2(np.fft.fft2(x, size) * np.fft.fft2(w, size)).real


# ---- Correlation as a matrix -----------------------------------------------------------------------------------------


def toeplitz_matrix(w: ArrayIn, n: int) -> AnyArray:
    """T(w), with ``T[o, o + r] = w[r]``: the matrix of y = T(w) x for a signal of `n` samples [GVL, 4.7].

    Equal numbers stand on each diagonal. Its transpose maps dL/dy to dL/dx.

    Examples
    --------
    >>> from triconv.reference import toeplitz_matrix
    >>> toeplitz_matrix([1, 10], 4)
    array([[ 1., 10.,  0.,  0.],
           [ 0.,  1., 10.,  0.],
           [ 0.,  0.,  1., 10.]])
    """
    w = np.asarray(w)
    matrix = np.zeros((n - len(w) + 1, n))
    for o in range(len(matrix)):
        matrix[o, o : o + len(w)] = w
    return matrix


def bttb_matrix(w: ArrayIn, size: tuple[int, int]) -> AnyArray:
    """T(w) of a kernel of two dimensions: block Toeplitz with Toeplitz blocks, y.ravel() = T(w) x.ravel() [GVL, 4.8].

    Block (o, o + r) is the Toeplitz matrix of row r of the kernel; `size` is that of the image.

    Examples
    --------
    >>> from triconv.reference import bttb_matrix
    >>> bttb_matrix([[1, 2], [3, 4]], (2, 3))
    array([[1., 2., 0., 3., 4., 0.],
           [0., 1., 2., 0., 3., 4.]])
    """
    w = np.asarray(w)
    height, width = size
    rows, columns = height - w.shape[0] + 1, width - w.shape[1] + 1
    matrix = np.zeros((rows, columns, height, width))
    for o in range(rows):
        for r in range(w.shape[0]):
            matrix[o, :, o + r, :] = toeplitz_matrix(w[r], width)
    return matrix.reshape(rows * columns, height * width)


def input_matrix_1d(x: ArrayIn, kernel: int) -> AnyArray:
    """T_x, with ``T_x[o, r] = x[o + r]``: the matrix of y = T_x w for a kernel of `kernel` taps [GVL, 4.7].

    Row o is the patch of x that output o sees; column r is all that weight r ever touches. Its transpose maps dL/dy
    to dL/dw.

    Examples
    --------
    >>> from triconv.reference import input_matrix_1d
    >>> input_matrix_1d([1, 2, 3, 4], 2)
    array([[1, 2],
           [2, 3],
           [3, 4]])
    """
    x = np.asarray(x)
    return np.array([x[o : o + kernel] for o in range(len(x) - kernel + 1)])


def input_matrix_2d(x: ArrayIn, kernel: tuple[int, int]) -> AnyArray:
    """T_x of an image: row (o, p) is the patch that output (o, p) sees, y.ravel() = T_x w.ravel() [C].

    Examples
    --------
    >>> from triconv.reference import input_matrix_2d
    >>> input_matrix_2d([[1, 2, 3], [4, 5, 6]], (2, 2))
    array([[1, 2, 4, 5],
           [2, 3, 5, 6]])
    """
    return im2col(np.asarray(x)[np.newaxis], kernel).T


def im2col(x: ArrayIn, kernel: tuple[int, int]) -> AnyArray:
    """Lay the patches of an image of shape (C, H, W) side by side as columns, (C R S, outputs) [C].

    With them a layer is one matrix product: ``y.reshape(K, -1) = w.reshape(K, -1) @ im2col(x, (R, S))``.

    Examples
    --------
    >>> from triconv.reference import im2col
    >>> im2col([[[1, 2, 3], [4, 5, 6]]], (2, 2))
    array([[1, 2],
           [2, 3],
           [4, 5],
           [5, 6]])
    """
    x = np.asarray(x)
    rows, columns = x.shape[1] - kernel[0] + 1, x.shape[2] - kernel[1] + 1
    patches = [x[:, o : o + kernel[0], p : p + kernel[1]].ravel() for o, p in np.ndindex(rows, columns)]
    return np.array(patches).T


# ---- The Fourier domain ----------------------------------------------------------------------------------------------


def dft_matrix(n: int) -> AnyArray:
    """F, with ``F[j, k] = exp(-2 pi i j k / n)``: the matrix of the discrete Fourier transform [GVL, 1.4].

    F is symmetric and its inverse is its conjugate over n.

    Examples
    --------
    >>> import numpy as np
    >>> from triconv.reference import dft_matrix
    >>> bool(np.allclose(dft_matrix(4) @ [1, 2, 3, 4], np.fft.fft([1, 2, 3, 4])))
    True
    """
    k = np.arange(n)
    turns = np.outer(k, k) % n / n  # whole turns removed first: large angles would lose digits
    matrix: AnyArray = np.exp(-2j * np.pi * turns)
    return matrix


def circulant_matrix(w: ArrayIn, n: int) -> AnyArray:
    """The matrix of circular convolution with `w` padded to `n`: ``C[i, j] = w[(i - j) mod n]`` [GVL, 4.8].

    It equals ``F^-1 diag(F w) F``: the DFT diagonalises every circulant, and that is the convolution theorem.

    Examples
    --------
    >>> from triconv.reference import circulant_matrix
    >>> circulant_matrix([1, 10], 3)
    array([[ 1.,  0., 10.],
           [10.,  1.,  0.],
           [ 0., 10.,  1.]])
    """
    w = np.asarray(w)
    column = np.zeros(n)
    column[: len(w)] = w
    return np.array([np.roll(column, j) for j in range(n)]).T


def convolve_circular_dft(x: ArrayIn, w: ArrayIn) -> AnyArray:
    """Convolve circularly as F^-1 diag(F w) F x, with the matrices written out [OS, 8.6]. `w` is padded to len(x).

    Examples
    --------
    >>> from triconv.reference import convolve_circular_dft
    >>> convolve_circular_dft([1, 2, 3], [1, 10]).round(12)
    array([31., 12., 23.])
    """
    x, w = np.asarray(x), np.asarray(w)
    n = len(x)
    padded = np.zeros(n)
    padded[: len(w)] = w
    F = dft_matrix(n)
    inverse = F.conj() / n
    result: AnyArray = inverse @ np.diag(F @ padded) @ F @ x
    return result.real


def input_grad_fft(w: ArrayIn, dy: ArrayIn) -> AnyArray:
    """dL/dx of a correlation through the Fourier domain: the full convolution of dL/dy with w [MHL].

    Any number of dimensions.

    Examples
    --------
    >>> from triconv.reference import input_grad_fft, toeplitz_matrix
    >>> input_grad_fft([1, 10], [1, 2, 3]).round(12)
    array([ 1., 12., 23., 30.])
    >>> toeplitz_matrix([1, 10], 4).T @ [1, 2, 3]
    array([ 1., 12., 23., 30.])
    """
    w, dy = np.asarray(w), np.asarray(dy)
    size = tuple(a + b - 1 for a, b in zip(w.shape, dy.shape, strict=True))
    axes = tuple(range(w.ndim))
    return np.fft.ifftn(np.fft.fftn(dy, size, axes) * np.fft.fftn(w, size, axes)).real


def weight_grad_fft(x: ArrayIn, dy: ArrayIn) -> AnyArray:
    """dL/dw of a correlation through the Fourier domain: the correlation of x with dL/dy [MHL].

    The spectrum of x times the conjugate of that of dL/dy, transformed back; of the circular result the first
    ``len(x) - len(dy) + 1`` values per axis have not wrapped. Any number of dimensions.

    Examples
    --------
    >>> from triconv.reference import input_matrix_1d, weight_grad_fft
    >>> weight_grad_fft([1, 2, 3, 4], [1, 0, 2]).round(12)
    array([ 7., 10.])
    >>> input_matrix_1d([1, 2, 3, 4], 2).T @ [1, 0, 2]
    array([ 7, 10])
    """
    x, dy = np.asarray(x), np.asarray(dy)
    axes = tuple(range(x.ndim))
    circular = np.fft.ifftn(np.fft.fftn(x) * np.fft.fftn(dy, x.shape, axes).conj()).real
    kernel = tuple(slice(a - b + 1) for a, b in zip(x.shape, dy.shape, strict=True))
    return circular[kernel]


# ---- Multiplications -------------------------------------------------------------------------------------------------


def multiplications_direct(channels: int, outputs: Sequence[int], kernel: Sequence[int]) -> int:
    """Real multiplications of one sample's layer by the definition: every output, every channel pair, every tap.

    `channels` is the number of pairs of input and output channel, C K / groups.

    Examples
    --------
    >>> from triconv.reference import multiplications_direct
    >>> multiplications_direct(64 * 64, (56, 56), (3, 3))
    115605504
    """
    return channels * math.prod(outputs) * math.prod(kernel)


def multiplications_winograd(channels: int, outputs: Sequence[int], kernel: Sequence[int], tile: Sequence[int]) -> int:
    """Real multiplications in the products of Winograd's F(tile, kernel): ``tile + kernel - 1`` per axis [LG].

    `tile` is the number of outputs per tile. The transforms, not counted, are shared by the channels.

    Examples
    --------
    >>> from triconv.reference import multiplications_winograd
    >>> multiplications_winograd(64 * 64, (56, 56), (3, 3), (4, 4))
    28901376
    """
    tiles = math.prod(-(-o // m) for o, m in zip(outputs, tile, strict=True))
    return channels * tiles * math.prod(m + r - 1 for m, r in zip(tile, kernel, strict=True))


def multiplications_fft(channels: int, outputs: Sequence[int], kernel: Sequence[int], length: Sequence[int]) -> int:
    """Real multiplications in the products of tiled FFT convolution with transforms of `length` per axis [MHL].

    A tile keeps ``length - kernel + 1`` outputs per axis. Its spectrum is Hermitian: the bins that are their own mirror
    image are real and take 1 multiplication, of the others every second one takes 4. The transforms, not counted, are
    shared by the channels.

    Examples
    --------
    >>> from triconv.reference import multiplications_fft
    >>> multiplications_fft(64 * 64, (56, 56), (7, 7), (16, 16))
    74907648
    """
    tiles = math.prod(-(-o // (t - r + 1)) for o, t, r in zip(outputs, length, kernel, strict=True))
    bins = math.prod(length)
    real_bins = math.prod(2 if t % 2 == 0 else 1 for t in length)
    return channels * tiles * (real_bins + 4 * (bins - real_bins) // 2)


# ---- The layer -------------------------------------------------------------------------------------------------------


def conv_reference(
    x: ArrayIn,
    w: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> AnyArray:
    """Forward pass of a layer in 1 to 3 dimensions, x of shape (N, C, ...), w of shape (K, C / groups, ...) [DV].

    Summed in NumPy's longdouble (64 bits of mantissa on x86), returned as float64.

    Examples
    --------
    >>> import numpy as np
    >>> from triconv.reference import conv_reference
    >>> conv_reference([[[1, 2, 3, 4]]], [[[1, 10]]], stride=2)
    array([[[21., 43.]]])
    """
    x, w = _wide(x), _wide(w)
    layer = _Layer(x.shape, w.shape, stride, padding, dilation, groups)
    padded = np.pad(x, [(0, 0), (0, 0), *layer.padding])
    y = np.zeros(layer.output_shape, np.longdouble)
    if bias is not None:
        y += _wide(bias).reshape(-1, *(1,) * layer.rank)
    for inputs, outputs, tap, window in layer.taps():
        y[:, outputs] += np.einsum(f"nc{layer.axes},kc->nk{layer.axes}", padded[:, inputs][window], w[outputs][tap])
    return y.astype(np.float64)


def conv_input_reference(
    input_size: Sequence[int],
    w: ArrayIn,
    dy: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> AnyArray:
    """Gradient of `conv_reference` with respect to x: every tap adds dy times its weight where it had read x [DV].

    Examples
    --------
    >>> from triconv.reference import conv_input_reference
    >>> conv_input_reference((1, 1, 4), [[[1, 10]]], [[[1, 2]]], stride=2)
    array([[[ 1., 10.,  2., 20.]]])
    """
    w, dy = _wide(w), _wide(dy)
    layer = _Layer(tuple(input_size), w.shape, stride, padding, dilation, groups)
    padded = np.zeros(layer.padded_shape, np.longdouble)
    for inputs, outputs, tap, window in layer.taps():
        padded[:, inputs][window] += np.einsum(f"nk{layer.axes},kc->nc{layer.axes}", dy[:, outputs], w[outputs][tap])
    inside = tuple(slice(low, low + size) for (low, _), size in zip(layer.padding, input_size[2:], strict=True))
    return padded[(slice(None), slice(None), *inside)].astype(np.float64)


def conv_weight_reference(
    x: ArrayIn,
    weight_size: Sequence[int],
    dy: ArrayIn,
    stride: PerAxis = 1,
    padding: Padding = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> AnyArray:
    """Gradient of `conv_reference` with respect to w: every tap sums dy times what it had read of x [DV].

    Examples
    --------
    >>> from triconv.reference import conv_weight_reference
    >>> conv_weight_reference([[[1, 2, 3, 4]]], (1, 1, 2), [[[1, 2]]], stride=2)
    array([[[ 7., 10.]]])
    """
    x, dy = _wide(x), _wide(dy)
    layer = _Layer(x.shape, tuple(weight_size), stride, padding, dilation, groups)
    padded = np.pad(x, [(0, 0), (0, 0), *layer.padding])
    dw = np.zeros(tuple(weight_size), np.longdouble)
    for inputs, outputs, tap, window in layer.taps():
        dw[outputs][tap] = np.einsum(f"nc{layer.axes},nk{layer.axes}->kc", padded[:, inputs][window], dy[:, outputs])
    return dw.astype(np.float64)


def conv_transpose_reference(
    x: ArrayIn,
    w: ArrayIn,
    bias: ArrayIn | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> AnyArray:
    """Transposed convolution, x of shape (N, C, ...), w of shape (C, K / groups, ...): every input spreads w [DV, 4].

    Examples
    --------
    >>> from triconv.reference import conv_transpose_reference
    >>> conv_transpose_reference([[[1, 2]]], [[[1, 10]]], stride=3, output_padding=1)
    array([[[ 1., 10.,  0.,  2., 20.,  0.]]])
    """
    x, w = _wide(x), _wide(w)
    rank = x.ndim - 2
    strides, dilations = _per_axis(stride, rank), _per_axis(dilation, rank)
    paddings, extras = _per_axis(padding, rank), _per_axis(output_padding, rank)
    spread = [
        (n - 1) * s + d * (r - 1) + 1 for n, s, d, r in zip(x.shape[2:], strides, dilations, w.shape[2:], strict=True)
    ]
    full = conv_input_reference((len(x), w.shape[1] * groups, *spread), w, x, stride, 0, dilation, groups)
    y = np.pad(full, [(0, 0), (0, 0), *((0, extra) for extra in extras)])
    inside = (slice(pad, size + extra - pad) for pad, size, extra in zip(paddings, spread, extras, strict=True))
    y = y[(slice(None), slice(None), *inside)]
    return y if bias is None else y + np.asarray(bias, np.float64).reshape(-1, *(1,) * rank)


def _wide(array: ArrayIn) -> AnyArray:
    return np.asarray(array).astype(np.longdouble)


def _per_axis(value: Any, rank: int) -> tuple[Any, ...]:
    return tuple(value) if hasattr(value, "__len__") else (value,) * rank


class _Layer:
    """The geometry of a layer: its shapes, and for every tap of its kernel what it reads and where that goes."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        weight_shape: tuple[int, ...],
        stride: PerAxis,
        padding: Padding,
        dilation: PerAxis,
        groups: int,
    ) -> None:
        self.rank = len(input_shape) - 2
        self.axes = "xyz"[: self.rank]
        self.kernel = weight_shape[2:]
        self.stride = _per_axis(stride, self.rank)
        self.dilation = _per_axis(dilation, self.rank)
        self.groups = groups
        self.channels = (weight_shape[1], weight_shape[0] // groups)
        self.padding = self._pairs(padding)
        padded = [size + low + high for size, (low, high) in zip(input_shape[2:], self.padding, strict=True)]
        self.padded_shape = (*input_shape[:2], *padded)
        spans = [d * (r - 1) + 1 for d, r in zip(self.dilation, self.kernel, strict=True)]
        self.outputs = [(p - span) // s + 1 for p, span, s in zip(padded, spans, self.stride, strict=True)]
        self.output_shape = (input_shape[0], weight_shape[0], *self.outputs)

    def _pairs(self, padding: Padding) -> list[tuple[int, int]]:
        if padding == "valid":
            return [(0, 0)] * self.rank
        if padding == "same":
            totals = [d * (r - 1) for d, r in zip(self.dilation, self.kernel, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        ends = [_per_axis(entry, 2) for entry in _per_axis(padding, self.rank)]
        return [(low, high) for low, high in ends]

    def taps(self) -> Iterator[tuple[slice, slice, tuple[Any, ...], tuple[Any, ...]]]:
        """Yield, per group and tap: its input channels, output channels, index into w, window of the padded input."""
        per_group_in, per_group_out = self.channels
        for g, tap in itertools.product(range(self.groups), np.ndindex(*self.kernel)):
            inputs = slice(g * per_group_in, (g + 1) * per_group_in)
            outputs = slice(g * per_group_out, (g + 1) * per_group_out)
            window = tuple(
                slice(r * d, r * d + (count - 1) * s + 1, s)
                for r, d, s, count in zip(tap, self.dilation, self.stride, self.outputs, strict=True)
            )
            everything = (slice(None), slice(None))
            yield inputs, outputs, (*everything, *tap), (*everything, *window)
