"""The part of the full convolution that is asked for, axis by axis, and what of the arrays it reads."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ._boundary import ZEROS

if TYPE_CHECKING:
    from collections.abc import Collection

    from .._typing import AnyArray
    from ._boundary import Boundary
    from ._problem import Padding

    Shape = tuple[int, ...]
    Index = tuple[slice, ...]

MODES = ("full", "same", "valid")


class Geometry(NamedTuple):
    """A convolution of two arrays as the correlation of an image with a reversed kernel."""

    shape: Shape  # of the result
    swapped: bool  # the kernel is in1
    image: Index  # what is read of the array that is the image
    kernel: Index  # and of the kernel, reversed
    padding: Padding
    boundary: Boundary
    terms: int  # no output is a sum of more products


def check_mode(mode: object) -> None:
    """Raise ValueError unless `mode` is one of MODES."""
    if not isinstance(mode, str) or mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected 'full', 'same' or 'valid'")


def check_valid(shape1: Shape, shape2: Shape, axes: Collection[int]) -> bool:
    """Whether in2 is the larger array. ValueError unless one is at least as large as the other along all `axes`."""
    if all(shape1[a] >= shape2[a] for a in axes):
        return False
    if all(shape2[a] >= shape1[a] for a in axes):
        return True
    raise ValueError(
        f"in1 has shape {shape1} and in2 {shape2}: with mode='valid' one must be at least as large as the other along "
        f"every convolved axis"
    )


@lru_cache(maxsize=256)
def geometry(
    mode: str,
    shape1: Shape,
    shape2: Shape,
    axes: tuple[int, ...],
    commutes: bool = True,
    late: bool = False,
    boundary: Boundary = ZEROS,
) -> Geometry:
    """The geometry of a convolution along `axes`.

    The array with fewer samples along the axes is the kernel; or in2, unless the operation `commutes`. Along the other
    axes the arrays broadcast, and "same" keeps the middle of what in1 has only one of. Of two middles that is
    the first, or with `late` the second.
    """
    swapped = commutes and prod(shape1[a] for a in axes) < prod(shape2[a] for a in axes)
    image_shape, kernel_shape = (shape2, shape1) if swapped else (shape1, shape2)
    shape, image, kernel, padding = [], [], [], []
    for axis, (extent, taps) in enumerate(zip(image_shape, kernel_shape, strict=True)):
        start, size = _window(mode, shape1[axis], shape2[axis], axis in axes, late)
        shape.append(size)
        if axis in axes:
            end = start + size
            image.append(slice(max(0, start - taps + 1), min(extent, end)))
            kernel.append(slice(None, None, -1))
            padding.append((axis, (max(0, taps - 1 - start), max(0, end - extent))))
        else:
            image.append(slice(None) if extent == 1 else slice(start, start + size))
            kernel.append(slice(None) if taps == 1 else slice(start, start + size))
    terms = prod(kernel_shape[a] if boundary != ZEROS else min(shape1[a], shape2[a]) for a in axes)
    return Geometry(tuple(shape), swapped, tuple(image), tuple(kernel), tuple(padding), boundary, terms)


def _window(mode: str, n1: int, n2: int, convolved: bool, late: bool) -> tuple[int, int]:
    """First position and number of the outputs that `mode` keeps of the full convolution along an axis."""
    full = n1 + n2 - 1 if convolved else max(n1, n2)
    if mode == "same":
        return (full - n1 + late) // 2, n1
    if mode == "valid" and convolved:
        return min(n1, n2) - 1, abs(n1 - n2) + 1
    return 0, full


def reverse(array: AnyArray, axes: Collection[int]) -> AnyArray:
    """A view with the axes reversed."""
    return array[tuple(slice(None, None, -1 if axis in axes else 1) for axis in range(array.ndim))]
