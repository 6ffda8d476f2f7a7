"""Convolution in the arithmetic of the dtype itself, tap by tap: products, wide integers, longdouble, infinite taps."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ._boundary import ZEROS, samples

if TYPE_CHECKING:
    from .._typing import AnyArray
    from ._boundary import Boundary
    from ._problem import Padding


def correlate_by_taps(out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, boundary: Boundary = ZEROS) -> None:
    """Write the correlation of `x` with `w` along the axes in `padding`; along others they broadcast.

    One product and one sum of whole arrays for each tap, of samples that there are: integers wrap around as in NumPy,
    and an infinite tap meets no zeros outside. The arrays have the dtype of the result.
    """
    out[...] = 0
    if boundary != ZEROS:
        _add_taps_with_boundary(out, x, w, padding, boundary)
        return
    for taps in product(*(range(w.shape[axis]) for axis, _ in padding)):
        source, target, tap = ([slice(None)] * x.ndim for _ in range(3))
        for (axis, (low, _)), offset in zip(padding, taps, strict=True):
            begin = max(0, low - offset)
            end = max(begin, min(out.shape[axis], x.shape[axis] + low - offset))
            target[axis] = slice(begin, end)
            source[axis] = slice(begin + offset - low, end + offset - low)
            tap[axis] = slice(offset, offset + 1)
        with np.errstate(invalid="ignore", over="ignore"):
            out[tuple(target)] += x[tuple(source)] * w[tuple(tap)]


def _add_taps_with_boundary(out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, boundary: Boundary) -> None:
    for taps in product(*(range(w.shape[axis]) for axis, _ in padding)):
        source = x
        tap = [slice(None)] * x.ndim
        for (axis, (low, _)), offset in zip(padding, taps, strict=True):
            source = samples(source, axis, offset - low, out.shape[axis], boundary)
            tap[axis] = slice(offset, offset + 1)
        with np.errstate(invalid="ignore", over="ignore"):
            out += source * w[tuple(tap)]
