"""Correlation of one channel as a matrix: of the kernel, or of the patches of the signal.

The sources are named in the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import AnyArray, ArrayIn


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
