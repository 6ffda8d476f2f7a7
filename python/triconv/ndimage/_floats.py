"""Filters computed by the core, in float32, float64 and their complex counterparts.

Kernels of one axis run one after the other over bands of the image that fit the cache: no array of the image's size
lies between them, and outside of the image only what a band needs there is copied. Other kernels are layer problems of
the whole image, whose boundaries the core reads with its tiles; so are those of one axis as one, their product, where
that is predicted to be faster.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..signal._boundary import ZEROS, samples
from ..signal._convolve import as_operand, real_dtype
from ..signal._problem import correlate_into, is_filled_apart, layer_problem, plan_of, run_by_plan
from ._kernel import Kernel, factors, multiplied_out, product_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .._typing import AnyArray
    from ..signal._problem import Padding

    AnyDType = np.dtype[Any]
    Store = Callable[[AnyArray, AnyArray], None]  # writes results into a part of the output

# What lies between two kernels of a band: half of a small L2 cache.
_BAND_BYTES = 1 << 19
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
    results = out if _is_written_by_core(out, work) else np.empty(out.shape, work)
    padding = tuple(zip(kernel.axes, kernel.ends, strict=True))
    weights = as_operand(kernel.for_rank(image.ndim), work)
    correlate_into(results, as_operand(image, work), weights, padding, _run, kernel.boundary)
    if results is not out:
        store(out, results)


def _correlate_by_bands(
    out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], work: AnyDType, store: Store
) -> None:
    axis = kernels[0].axes[0]
    extent = image.shape[axis]
    band = _band(image.shape, kernels, work)
    before = (slice(None),) * axis
    for begin in range(0, extent, band):
        end = min(begin + band, extent)
        target = out[(*before, slice(begin, end))]
        in_place = _is_written_by_core(out, work)
        values, rest = image, kernels
        if band < extent:  # the first kernel finds the samples of its boundary in the band
            (low, high), first = kernels[0].ends[0], kernels[0]
            operand = _operand_dtype(image.dtype.kind, work)
            values = samples(image, axis, begin - low, end - begin + low + high, first.boundary, operand)
            rest = [first._replace(ends=((0, 0),)), *kernels[1:]]
        for i, kernel in enumerate(rest):
            last = i == len(rest) - 1
            results = target if last and in_place else np.empty(target.shape, work)
            _correlate_line(results, as_operand(values, work), kernel)
            values = results
        if not in_place:
            store(target, values)


def _correlate_line(out: AnyArray, x: AnyArray, kernel: Kernel) -> None:
    """With a kernel of one axis."""
    padding = _padding_of_line(kernel, x.ndim)
    correlate_into(out, x, as_operand(kernel.for_rank(x.ndim), out.dtype), padding, _run, kernel.boundary)


def _padding_of_line(kernel: Kernel, rank: int) -> Padding:
    """The last axis counts as convolved, too: the core reads rows."""
    padding: Padding = ((kernel.axes[0], kernel.ends[0]),)
    return padding if kernel.axes[0] == rank - 1 else (*padding, (rank - 1, (0, 0)))


def _band(shape: tuple[int, ...], kernels: Sequence[Kernel], work: AnyDType) -> int:
    """Positions along the axis of the first kernel that are computed together; as many as it has taps at least."""
    axis, taps = kernels[0].axes[0], kernels[0].weights.size
    if len(kernels) == 1 and axis == len(shape) - 1:
        return shape[axis]
    one = prod(shape) // shape[axis] * work.itemsize
    return min(shape[axis], max(_BAND_BYTES // one, taps - 1, 16))


def _seconds(out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, kernel: Kernel) -> float:
    """What the cost model predicts; axes beyond three are summed tap by tap, what fills add apart is left out."""
    longest = tuple(sorted(sorted(padding, key=lambda item: w.shape[item[0]])[-3:]))
    taps = prod(w.shape[axis] for axis, _ in padding if axis not in dict(longest))
    one = _shaped([size if axis in dict(longest) else 1 for axis, size in enumerate(w.shape)], w.dtype)
    problem = layer_problem(out, x, one, longest, ZEROS if is_filled_apart(x, kernel.boundary) else kernel.boundary)
    _, seconds = plan_of(problem.key, "auto").forward_choice
    return float(seconds * prod(problem.loops) * taps)


def _shaped(shape: Sequence[int], dtype: AnyDType) -> AnyArray:
    """An array of which only the shape is looked at."""
    return np.broadcast_to(np.empty((), dtype), tuple(shape))


def _operand_dtype(kind: str, work: AnyDType) -> AnyDType:
    return work if kind == "c" else real_dtype(work)


def _seconds_at_once(image: AnyArray, kernel: Kernel, work: AnyDType) -> float:
    x = _shaped(image.shape, _operand_dtype(image.dtype.kind, work))
    w = _shaped(kernel.for_rank(image.ndim).shape, _operand_dtype(kernel.weights.dtype.kind, work))
    return _seconds(_shaped(image.shape, work), x, w, tuple(zip(kernel.axes, kernel.ends, strict=True)), kernel)


def _seconds_by_bands(image: AnyArray, kernels: Sequence[Kernel], work: AnyDType) -> float:
    axis = kernels[0].axes[0]
    band = _band(image.shape, kernels, work)
    shape = [*image.shape[:axis], band, *image.shape[axis + 1 :]]
    total = 0.0
    x = _shaped(shape, _operand_dtype(image.dtype.kind, work))
    for kernel in kernels:
        w = _shaped(kernel.for_rank(image.ndim).shape, _operand_dtype(kernel.weights.dtype.kind, work))
        total += _seconds(_shaped(shape, work), x, w, _padding_of_line(kernel, image.ndim), kernel)
        x = _shaped(shape, work)
    return total * (int(image.shape[axis]) / band)
