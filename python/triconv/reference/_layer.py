"""The passes of a layer with every parameter, summed in extended precision.

The sources are named in the package.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from .._typing import AnyArray, ArrayIn, Padding, PerAxis


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
