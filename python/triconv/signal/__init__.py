"""Convolution and correlation of signals, images and volumes, as in `scipy.signal`."""

from ._functions import (
    choose_conv_method,
    convolve,
    correlate,
    correlation_lags,
    fftconvolve,
    oaconvolve,
)
from ._images import convolve2d, correlate2d
from ._prepared import PreparedKernel, prepare
from ._streaming import OverlapAdd, OverlapSave

__all__ = [
    "OverlapAdd",
    "OverlapSave",
    "PreparedKernel",
    "choose_conv_method",
    "convolve",
    "convolve2d",
    "correlate",
    "correlate2d",
    "correlation_lags",
    "fftconvolve",
    "oaconvolve",
    "prepare",
]
