"""A kernel, how it lies over an image, and its factors of one axis each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._typing import AnyArray
    from ..signal._boundary import Boundary
    from ..signal._problem import Ends


class Kernel(NamedTuple):
    """Weights of a correlation along some axes of an image; ``y[i] = sum over j of weights[j] * x[i - low + j]``."""

    axes: tuple[int, ...]  # ascending
    weights: AnyArray  # float64 or complex128, with an axis for each of `axes`
    ends: tuple[Ends, ...]  # (low, high) for each of `axes`: samples before and behind the one in the middle
    boundary: Boundary

    def for_rank(self, rank: int) -> AnyArray:
        """The weights with as many axes as an image has."""
        return np.expand_dims(self.weights, tuple(axis for axis in range(rank) if axis not in self.axes))


def factors(kernel: Kernel, tolerance: float) -> list[Kernel] | None:
    """Kernels of one axis each which, one after the other, do what this one does; None if there are none.

    The factors are the lines through the largest weight: their product is the best of rank one but for a small factor,
    and zeros in the kernel stay zeros. The sum of its differences from the kernel is at most `tolerance` of the sum of
    the weights, which bounds the error of any output relative to the largest sum of absolute products.
    """
    weights = kernel.weights
    largest = tuple(int(i) for i in np.unravel_index(np.argmax(np.abs(weights)), weights.shape))
    pivot = weights[largest]
    if pivot == 0 or not np.isfinite(weights).all():
        return None
    lines = [np.moveaxis(weights, d, -1)[(*largest[:d], *largest[d + 1 :])] for d in range(weights.ndim)]
    lines[1:] = [line / pivot for line in lines[1:]]
    product = lines[0]
    for line in lines[1:]:
        product = product[..., np.newaxis] * line
    if np.abs(product - weights).sum() > tolerance * np.abs(weights).sum():
        return None
    boundary = kernel.boundary
    parts = []
    for axis, line, ends in zip(kernel.axes, lines, kernel.ends, strict=True):
        parts.append(Kernel((axis,), line, (ends,), boundary))
        if boundary[0] == "constant" and boundary[1] != 0:
            # Outside of the image along the axes to come there are nothing but fills.
            boundary = ("constant", (line * boundary[1]).sum().item())
    return parts


def product_of(lines: Sequence[Kernel]) -> Kernel | None:
    """One kernel that does what kernels of one axis each do, one after the other; None if there is none.

    Its weights are to be looked at for their shape only: `multiplied_out` gives those that are meant.
    """
    boundary = lines[0].boundary
    filled = boundary[0] == "constant" and boundary[1] != 0  # outside there would be what the lines make of the fill
    axes = tuple(sorted(line.axes[0] for line in lines))
    if filled or len(set(axes)) < len(lines) or any(line.boundary != boundary for line in lines):
        return None
    by_axis = sorted(lines, key=lambda line: line.axes)
    weights = np.broadcast_to(by_axis[0].weights[0], [line.weights.size for line in by_axis])
    return Kernel(axes, weights, tuple(line.ends[0] for line in by_axis), boundary)


def multiplied_out(product: Kernel, lines: Sequence[Kernel]) -> Kernel:
    """`product_of` the lines with its weights."""
    by_axis = sorted(lines, key=lambda line: line.axes)
    weights = by_axis[0].weights
    for line in by_axis[1:]:
        weights = weights[..., np.newaxis] * line.weights
    return product._replace(weights=weights)
