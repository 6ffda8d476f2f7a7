"""What is outside of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from .._typing import AnyArray

# By the core's names: "constant" with a value, "nearest", "reflect", "mirror", "wrap" (and 0).
Boundary: TypeAlias = tuple[str, complex]
ZEROS: Boundary = ("constant", 0.0)


def samples(
    x: AnyArray, axis: int, start: int, count: int, boundary: Boundary, dtype: npt.DTypeLike | None = None
) -> AnyArray:
    """So many samples along the axis from `start` on, which may lie outside; of x's dtype unless another is given.

    A view if none does and the dtype is x's, else a copy.
    """
    dtype = x.dtype if dtype is None else dtype
    extent = x.shape[axis]
    before = (slice(None),) * axis
    if start >= 0 and start + count <= extent:
        return x[(*before, slice(start, start + count))].astype(dtype, copy=False)
    positions = np.arange(start, start + count)
    mode, fill = boundary
    if mode == "wrap":
        there = positions % extent
    elif mode == "reflect":
        there = positions % (2 * extent)
        there = np.minimum(there, 2 * extent - 1 - there)
    elif mode == "mirror":
        there = positions % max(1, 2 * extent - 2)
        there = np.minimum(there, 2 * extent - 2 - there)
    else:
        there = np.clip(positions, 0, extent - 1)
    moved: AnyArray = x.take(there, axis).astype(dtype, copy=False)
    if mode == "constant":
        moved[(*before, there != positions)] = fill
    return moved
