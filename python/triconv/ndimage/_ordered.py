"""Filters whose results are integers: sums in float64, cut towards zero after every kernel, equal to SciPy's.

What is cut depends on the last bit of a sum that is nearly an integer. Sums of integers are exact in any order, so the
core computes them. Others are made in SciPy's order: for kernels of one axis and odd size that are symmetric or
antisymmetric the middle, then pairs from the ends inwards; for others of one axis the last product, then from the first
on; for kernels of several axes row by row, leaving out weights of at most one epsilon; for uniform kernels of one axis
a running sum.
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..signal._boundary import samples
from ._floats import correlate_all

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
        work = None if order == "running" else _exact_dtype(image, kernel)
        if work is None:
            correlate_in_order(results, image, kernel, order, store)
        else:
            correlate_all(results, image, [kernel], work, _store_exact)
        image = results


def store(out: AnyArray, sums: AnyArray) -> None:
    """Cut towards zero, and modulo the range of the dtype."""
    with np.errstate(invalid="ignore"):
        if out.dtype.kind == "u" and out.dtype.itemsize == 8:
            upper = sums >= 2.0**63
            sums = np.where(upper, sums - 2.0**64, sums)
        whole = sums.astype(np.int64)
    out[...] = whole.astype(np.uint8) != 0 if out.dtype.kind == "b" else whole.astype(out.dtype)


def _store_exact(out: AnyArray, sums: AnyArray) -> None:
    store(out, np.rint(sums))


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
    largest = max(int(image.max()), -int(image.min()))
    return next((dtype for limit, dtype in _EXACT if total * max(largest, abs(fill)) < limit), None)


def _limit(dtype: AnyDType) -> int:
    """The largest magnitude that a dtype holds."""
    return 1 if dtype.kind == "b" else max(int(np.iinfo(dtype).max), -int(np.iinfo(dtype).min))


def correlate_in_order(out: AnyArray, image: AnyArray, kernel: Kernel, order: Order, store: Store) -> None:
    """Correlate an image with a kernel, in float64 and in SciPy's order of sums.

    Blocks of the image are copied with what the kernel reads around them.
    """
    sums = {"line": _line_sums, "rows": _sums, "running": _running_sums}[order]
    ends = dict(zip(kernel.axes, kernel.ends, strict=True))
    for block in _blocks(out.shape, kernel.axes, order == "running"):
        x = image[tuple(slice(None) if axis in ends else piece for axis, piece in enumerate(block))]
        x = x.astype(np.float64)
        for axis, (low, high) in ends.items():
            start, stop = block[axis].start, block[axis].stop
            x = samples(x, axis, start - low, stop - start + low + high, kernel.boundary)
        target = out[block]
        with np.errstate(invalid="ignore", over="ignore"):
            store(target, sums(x, kernel, target.shape))


def _blocks(shape: tuple[int, ...], axes: tuple[int, ...], running: bool) -> Iterator[tuple[slice, ...]]:
    """Blocks that are whole along the convolved axes; if all are, cut along the first unless the sums are running."""
    sizes = list(shape)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    for axis in others or ([] if running else [0]):
        least = 64 if axis == len(shape) - 1 else 1  # along rows NumPy's loops should be long
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
