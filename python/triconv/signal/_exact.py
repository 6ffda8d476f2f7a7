"""Convolution in the arithmetic of the dtype itself, tap by tap: products, wide integers, longdouble, infinite taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._boundary import ZEROS, samples

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._typing import AnyArray
    from ._boundary import Boundary
    from ._problem import Padding


def correlate_by_taps(out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, boundary: Boundary = ZEROS) -> None:
    """Write the correlation of `x` with `w` along the axes in `padding`; along others they broadcast.

    One product and one sum of whole arrays for each tap, of samples that there are: integers wrap around as in NumPy,
    and an infinite tap meets no zeros outside. The arrays have the dtype of the result.
    """
    out[...] = 0
    add_taps(out, x, w, padding, boundary, np.ndindex(*(w.shape[axis] for axis, _ in padding)))


def add_taps(
    out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, boundary: Boundary, taps: Iterable[tuple[int, ...]]
) -> None:
    """Add the products with some taps, as `correlate_by_taps` does: their indices along the axes in `padding`."""
    for offsets in taps:
        source, target, tap = ([slice(None)] * x.ndim for _ in range(3))
        shifted = x
        for (axis, (low, _)), offset in zip(padding, offsets, strict=True):
            tap[axis] = slice(offset, offset + 1)
            if boundary != ZEROS:
                shifted = samples(shifted, axis, offset - low, out.shape[axis], boundary)
                continue
            begin = max(0, low - offset)
            end = max(begin, min(out.shape[axis], x.shape[axis] + low - offset))
            target[axis] = slice(begin, end)
            source[axis] = slice(begin + offset - low, end + offset - low)
        with np.errstate(invalid="ignore", over="ignore"):
            out[tuple(target)] += shifted[tuple(source)] * w[tuple(tap)]
