"""Filters computed by the core, in float32, float64 and their complex counterparts.

Kernels of one axis run one after the other over bands of the image: no array of a large image's size lies between them,
and samples outside of it are copied for a few kinds of bands only. Other kernels are layer problems of the whole image,
whose boundaries the core reads with its tiles; so are those of one axis as one, their product, where that is predicted
to be faster.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ..signal._boundary import ZEROS, samples
from ..signal._convolve import as_operand, real_dtype
from ..signal._problem import correlate_into, is_filled_apart, layer_problem, plan_of, run_by_plan
from ._kernel import Kernel, factors, multiplied_out, product_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._typing import AnyArray
    from ..signal._boundary import Boundary
    from ..signal._problem import Ends, Padding

    AnyDType = np.dtype[Any]
    Store = Callable[[AnyArray, AnyArray], None]  # writes results into a part of the output

# What lies between two kernels of a band, at most. The core fetches ahead, so that a band need not fit L2; shorter ones
# of 2048 x 2048 pixels took up to 6 % longer. What NumPy converts should be in a cache.
_BAND_BYTES, _CONVERTED_BYTES = 8 << 20, 1 << 19
_LARGE_IMAGE, _SHARE = 64 << 20, 1 / 25  # of a large image, all that lies between kernels
_BAND_ROWS = 24  # whole blocks of direct convolution
_MOST_AXES = 3  # of a layer problem
_run = run_by_plan("auto")


def correlate_all(out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], work: AnyDType, store: Store) -> None:
    """Correlate an image with kernels, one after the other, in the arithmetic of `work`; each of one axis, or only one.

    `out` shares no memory with the image. `store` converts results that are not of its dtype.
    """
    whole: Kernel | None = None
    lines: Sequence[Kernel] | None = kernels
    if len(kernels) == 1 and len(kernels[0].axes) > 1:
        whole, lines = kernels[0], factors(kernels[0], 2 * float(np.finfo(work).eps))
    elif 1 < len(kernels) <= _MOST_AXES:
        whole = product_of(kernels)
        if whole and whole.weights.size > image.size:  # lines are short then: no question
            whole = None
    if whole and (lines is None or _seconds_by_bands(image, lines, work) >= _seconds_at_once(image, whole, work)):
        _correlate_at_once(out, image, whole if len(kernels) == 1 else multiplied_out(whole, kernels), work, store)
    elif lines:
        _correlate_by_bands(out, image, lines, work, store)


def assign(out: AnyArray, values: AnyArray) -> None:
    """The `Store` of floats."""
    out[...] = values


def _is_written_by_core(out: AnyArray, work: AnyDType) -> bool:
    return out.dtype == work and out.flags.aligned


def _correlate_at_once(out: AnyArray, image: AnyArray, kernel: Kernel, work: AnyDType, store: Store) -> None:
    results = out if _is_written_by_core(out, work) else _core.empty(out.shape, work)
    padding = tuple(zip(kernel.axes, kernel.ends, strict=True))
    weights = as_operand(kernel.for_rank(image.ndim), work)
    correlate_into(results, as_operand(image, work), weights, padding, _run, kernel.boundary)
    if results is not out:
        store(out, results)


def _correlate_by_bands(
    out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], work: AnyDType, store: Store
) -> None:
    axis = kernels[0].axes[0]
    before = (slice(None),) * axis
    in_place = _is_written_by_core(out, work)
    by_core = in_place and image.dtype == _operand_dtype(image.dtype.kind, work)
    extent = image.shape[axis]
    between = min(1 if in_place else 2, len(kernels) - in_place)  # buffers, used in turns, with the output if in place
    most_bytes = _BAND_BYTES if by_core else _CONVERTED_BYTES
    band = extent if by_core and between == 0 else _band(image.shape, kernels, work, most_bytes, between)
    weights = [as_operand(kernel.for_rank(image.ndim), work) for kernel in kernels]
    shape = (*image.shape[:axis], band, *image.shape[axis + 1 :])
    buffers = [_core.empty(shape, work) for _ in range(between)]
    for begin in range(0, extent, band):
        end = min(begin + band, extent)
        target = out[(*before, slice(begin, end))]
        values, ends = _samples_of_band(image, axis, begin, end, kernels[0], work)
        for i, kernel in enumerate([kernels[0]._replace(ends=(ends,)), *kernels[1:]]):
            turn = (len(kernels) - 1 - i) % 2
            results = target if in_place and turn == 0 else buffers[turn - in_place][(*before, slice(end - begin))]
            padding = _padding_of_line(kernel, image.ndim)
            correlate_into(results, as_operand(values, work), weights[i], padding, _run, kernel.boundary)
            values = results
        if not in_place:
            store(target, values)


def _samples_of_band(
    image: AnyArray, axis: int, begin: int, end: int, kernel: Kernel, work: AnyDType
) -> tuple[AnyArray, Ends]:
    """What outputs [begin, end) along an axis read, and how far beyond that the boundary is read at its two ends."""
    low, high = kernel.ends[0]
    extent = image.shape[axis]
    first, last = max(0, begin - low), min(extent, end + high)
    beyond = (first - (begin - low), end + high - last)
    near = beyond == (0, 0) or (kernel.boundary[0] != "wrap" and max(beyond) < last - first)
    if near or last - first == extent:
        return image[(*(slice(None),) * axis, slice(first, last))], beyond
    operand = _operand_dtype(image.dtype.kind, work)
    return samples(image, axis, begin - low, end - begin + low + high, kernel.boundary, operand), (0, 0)


def _padding_of_line(kernel: Kernel, rank: int) -> Padding:
    """A second axis counts as convolved, too: the core takes images, whose rows it computes together."""
    rows = min(kernel.axes[0], max(0, rank - 2))
    return tuple(sorted(({rows: (0, 0), rank - 1: (0, 0)} | {kernel.axes[0]: kernel.ends[0]}).items()))


def _band(
    shape: tuple[int, ...], kernels: Sequence[Kernel], work: AnyDType, most_bytes: int = _BAND_BYTES, between: int = 1
) -> int:
    """Positions along the axis of the first kernel that are computed together, with so many buffers of them."""
    axis, taps = kernels[0].axes[0], kernels[0].weights.size
    if len(kernels) == 1 and axis == len(shape) - 1:
        return shape[axis]
    one = prod(shape) // shape[axis] * work.itemsize
    if one * shape[axis] >= _LARGE_IMAGE:
        rows = min(most_bytes, int(_SHARE * one * shape[axis]) // max(1, between)) // one
    else:
        rows = max(most_bytes // one, taps - 1)  # much less than what the taps reach over would be read many times
    return min(shape[axis], max(1, rows - rows % _BAND_ROWS if rows > _BAND_ROWS else rows))


@lru_cache(maxsize=256)
def _seconds(
    shape: tuple[int, ...],
    weights: tuple[int, ...],
    dtypes: tuple[AnyDType, AnyDType, AnyDType],
    padding: Padding,
    boundary: Boundary,
) -> float:
    """What the cost model predicts, of image, kernel and result of these dtypes.

    Axes beyond three are summed tap by tap, what fills add apart is left out.
    """
    longest = tuple(sorted(sorted(padding, key=lambda item: weights[item[0]])[-3:]))
    loops = prod(weights[axis] for axis, _ in padding if axis not in dict(longest))
    taps = [size if axis in dict(longest) else 1 for axis, size in enumerate(weights)]
    x, w, out = (
        np.broadcast_to(np.empty((), dtype), extent)  # of which only the shape is looked at
        for dtype, extent in zip(dtypes, (shape, tuple(taps), shape), strict=True)
    )
    problem = layer_problem(out, x, w, longest, ZEROS if is_filled_apart(x, boundary) else boundary)
    _, seconds = plan_of(problem.key, "auto").forward_choice
    return float(seconds * prod(problem.loops) * loops)


def _operand_dtype(kind: str, work: AnyDType) -> AnyDType:
    return work if kind == "c" else real_dtype(work)


def _seconds_at_once(image: AnyArray, kernel: Kernel, work: AnyDType) -> float:
    dtypes = (_operand_dtype(image.dtype.kind, work), _operand_dtype(kernel.weights.dtype.kind, work), work)
    padding = tuple(zip(kernel.axes, kernel.ends, strict=True))
    return _seconds(image.shape, kernel.for_rank(image.ndim).shape, dtypes, padding, kernel.boundary)


def _seconds_by_bands(image: AnyArray, kernels: Sequence[Kernel], work: AnyDType) -> float:
    axis = kernels[0].axes[0]
    band = _band(image.shape, kernels, work)
    shape = (*image.shape[:axis], band, *image.shape[axis + 1 :])
    read = _operand_dtype(image.dtype.kind, work)
    total = 0.0
    for kernel in kernels:
        dtypes = (read, _operand_dtype(kernel.weights.dtype.kind, work), work)
        weights = kernel.for_rank(image.ndim).shape
        total += _seconds(shape, weights, dtypes, _padding_of_line(kernel, image.ndim), kernel.boundary)
        read = work
    return total * (int(image.shape[axis]) / band)
