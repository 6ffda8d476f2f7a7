"""Filters whose results are integers: sums in float64, cut towards zero after every kernel, equal to SciPy's.

What is cut depends on the last bit of a sum that is nearly an integer. Sums of integers are exact in any order. Of
others those that are nearly integers are made again in SciPy's order: for kernels of one axis and odd size that are
symmetric or antisymmetric the middle, then pairs from the ends inwards; for others of one axis the last product, then
from the first on; for kernels of several axes row by row, leaving out weights of at most one epsilon; for uniform
kernels of one axis a running sum.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..signal._boundary import samples
from ._floats import assign, correlate_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, Literal

    from .._typing import AnyArray
    from ._floats import Store
    from ._kernel import Kernel

    Order = Literal["line", "rows", "running"]
    AnyDType = np.dtype[Any]

_EPSILON = float(np.finfo(np.float64).eps)
# Sums of products below are exact when the core's are rounded, by any algorithm: the error of its FFT and that of
# factors of a kernel together stay below a third.
_EXACT = ((2**14, np.dtype(np.float32)), (2**42, np.dtype(np.float64)))
# Samples of the output that are summed together: with the products a part of a small L2 cache.
_BLOCK = 1 << 14


def correlate_integers(out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], order: Order) -> None:
    """Correlate an image with kernels, one after the other.

    `out`, of integers, shares no memory with the image. Booleans between two kernels are bytes.
    """
    for i, kernel in enumerate(kernels):
        last = i == len(kernels) - 1
        results = out if last else np.empty(out.shape, np.uint8 if out.dtype.kind == "b" else out.dtype)
        size = kernel.weights.size if order == "running" else 1
        whole = kernel._replace(weights=np.ones(size)) if order == "running" else kernel
        work = _exact_dtype(image, whole)
        if work is not None:
            correlate_all(results, image, [whole], work, _store_of_exact(size))
        elif order == "running":
            correlate_in_order(results, image, kernel, order, store)
        else:
            _correlate_but_doubts(results, image, kernel, order)
        image = results


def _correlate_but_doubts(out: AnyArray, image: AnyArray, kernel: Kernel, order: Order) -> None:
    """By the core; in SciPy's order where a sum is so near to an integer that the errors of either decide."""
    largest = float(np.abs(kernel.weights).sum()) * max(_largest(image), abs(kernel.boundary[1]))
    if not largest < 2.0**53:  # or NaN: such sums are integers whatever their errors
        correlate_in_order(out, image, kernel, order, store)
        return
    sums = np.empty(out.shape)
    correlate_all(sums, image, [kernel], sums.dtype, assign)
    store(out, sums)
    nearest = np.rint(sums)
    doubtful = np.abs(sums - nearest) <= (128 + 2 * kernel.weights.size) * _EPSILON * largest
    doubtful &= nearest != 0  # what is nearly 0 is cut to 0 on either side
    correlate_in_order(out, image, kernel, order, store, doubtful)


def store(out: AnyArray, sums: AnyArray) -> None:
    """Cut towards zero, and modulo the range of the dtype."""
    with np.errstate(invalid="ignore"):
        if out.dtype.kind == "u" and out.dtype.itemsize == 8:
            upper = sums >= 2.0**63
            whole = np.where(upper, sums - 2.0**63, sums).astype(np.int64)
            whole[upper] ^= np.iinfo(np.int64).min
        else:
            whole = sums.astype(np.int64)
    out[...] = whole.astype(np.uint8) != 0 if out.dtype.kind == "b" else whole.astype(out.dtype)


def _store_of_exact(size: int) -> Store:
    """For sums of integers with rounding errors, of which the means of so many are wanted."""

    def store_exact(out: AnyArray, sums: AnyArray) -> None:
        np.rint(sums, out=sums)
        store(out, sums if size == 1 else sums.astype(np.float64) / size)

    return store_exact


def _exact_dtype(image: AnyArray, kernel: Kernel) -> AnyDType | None:
    """In which the core's sums are exact integers once they are rounded."""
    weights, fill = kernel.weights, kernel.boundary[1].real
    if image.dtype.kind not in "biu" or not np.isfinite(weights).all() or (np.rint(weights) != weights).any():
        return None
    if not np.isfinite(fill) or round(fill) != fill:
        return None
    total = float(np.abs(weights).sum())
    for limit, dtype in _EXACT:
        if total * max(_limit(image.dtype), abs(fill)) < limit:
            return dtype
    largest = max(_largest(image), abs(fill))
    return next((dtype for limit, dtype in _EXACT if total * largest < limit), None)


def _largest(image: AnyArray) -> float:
    """The largest magnitude in an image; NaN if there is one."""
    return 1.0 if image.dtype.kind == "b" else float(np.maximum(float(image.max()), -float(image.min())))


def _limit(dtype: AnyDType) -> int:
    """The largest magnitude that a dtype holds."""
    return 1 if dtype.kind == "b" else max(int(np.iinfo(dtype).max), -int(np.iinfo(dtype).min))


def correlate_in_order(
    out: AnyArray, image: AnyArray, kernel: Kernel, order: Order, store: Store, where: AnyArray | None = None
) -> None:
    """Correlate an image with a kernel, in float64 and in SciPy's order of sums; at least `where` it is asked for.

    Blocks of the image are copied with what the kernel reads around them.
    """
    sums = {"line": _line_sums, "rows": _sums, "running": _running_sums}[order]
    ends = dict(zip(kernel.axes, kernel.ends, strict=True))
    for block in _blocks(out.shape, kernel.axes, order == "running"):
        if where is not None and not where[block].any():
            continue
        x = image[tuple(slice(None) if axis in ends else piece for axis, piece in enumerate(block))]
        for axis, (low, high) in ends.items():
            start, stop = block[axis].start, block[axis].stop
            x = samples(x, axis, start - low, stop - start + low + high, kernel.boundary, np.float64)
        target = out[block]
        with np.errstate(invalid="ignore", over="ignore"):
            store(target, sums(x, kernel, target.shape))


def _blocks(shape: tuple[int, ...], axes: tuple[int, ...], running: bool) -> Iterator[tuple[slice, ...]]:
    """Blocks that fit the cache, whole along the axes of running sums and long along the last axis."""
    sizes = list(shape)
    for axis in range(len(shape)):
        if running and axis in axes:
            continue
        least = 64 if axis == len(shape) - 1 else 1
        sizes[axis] = min(sizes[axis], max(least, _BLOCK * sizes[axis] // prod(sizes)))
    starts = (range(0, extent, size) for extent, size in zip(shape, sizes, strict=True))
    for begin in product(*starts):
        yield tuple(slice(b, min(b + size, n)) for b, size, n in zip(begin, sizes, shape, strict=True))


def _window(x: AnyArray, axis: int, start: int, count: int) -> AnyArray:
    return x[(slice(None),) * axis + (slice(start, start + count),)]


def _line_sums(x: AnyArray, kernel: Kernel, shape: tuple[int, ...]) -> AnyArray:
    axis, weights = kernel.axes[0], kernel.weights
    count, taps = shape[axis], weights.size
    half = taps // 2
    term = np.empty(shape)
    sign = _symmetry(weights)
    if sign == 0:
        result: AnyArray = _window(x, axis, taps - 1, count) * weights[-1]
        for tap in range(taps - 1):
            np.multiply(_window(x, axis, tap, count), weights[tap], out=term)
            result += term
        return result
    combine = np.add if sign > 0 else np.subtract
    result = _window(x, axis, half, count) * weights[half]
    for tap in range(half):
        combine(_window(x, axis, tap, count), _window(x, axis, taps - 1 - tap, count), out=term)
        term *= weights[tap]
        result += term
    return result


def _symmetry(weights: AnyArray) -> int:
    """1 for symmetric weights of odd size, -1 for antisymmetric ones, 0 for others: to one epsilon."""
    half = weights.size // 2
    if weights.size % 2 == 0:
        return 0
    before, behind = weights[:half], weights[: weights.size - half - 1 : -1]
    if not (np.abs(behind - before) > _EPSILON).any():
        return 1
    return 0 if (np.abs(behind + before) > _EPSILON).any() else -1


def _sums(x: AnyArray, kernel: Kernel, shape: tuple[int, ...]) -> AnyArray:
    result, term = np.zeros(shape), np.empty(shape)
    for taps in product(*map(range, kernel.weights.shape)):
        weight = kernel.weights[taps]
        if abs(weight) <= _EPSILON:
            continue
        source = x
        for axis, tap in zip(kernel.axes, taps, strict=True):
            source = _window(source, axis, tap, shape[axis])
        np.multiply(source, weight, out=term)
        result += term
    return result


def _running_sums(x: AnyArray, kernel: Kernel, shape: tuple[int, ...]) -> AnyArray:
    """Of a block that begins with the first sample of its lines."""
    axis, size, count = kernel.axes[0], kernel.weights.size, shape[kernel.axes[0]]
    steps = np.empty(shape)
    first = np.add.accumulate(_window(x, axis, 0, size), axis=axis)
    _window(steps, axis, 0, 1)[...] = _window(first, axis, size - 1, 1)
    np.subtract(
        _window(x, axis, size, count - 1), _window(x, axis, 0, count - 1), out=_window(steps, axis, 1, count - 1)
    )
    result: AnyArray = np.add.accumulate(steps, axis=axis)
    result /= size
    return result
