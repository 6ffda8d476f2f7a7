"""Convolution and correlation of one channel, by their definitions and through the Fourier domain.

The sources are named in the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .._typing import AnyArray, ArrayIn


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
