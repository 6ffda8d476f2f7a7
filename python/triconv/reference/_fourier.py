"""The Fourier domain: the matrix that diagonalises circular convolution, and the gradients through it.

The sources are named in the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import AnyArray, ArrayIn


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
