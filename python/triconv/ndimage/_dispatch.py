"""Which arithmetic a filter is computed in."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from .. import _core
from ._floats import assign, correlate_all
from ._kernel import Kernel
from ._ordered import correlate_in_order, correlate_integers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._typing import AnyArray
    from ._ordered import Order

    AnyDType = np.dtype[Any]

# float32 holds weights and fills between these, and their products with samples of usual size.
_FLOAT32_RANGE = (1e-30, 1e30)


def filter_into(out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], order: Order) -> None:
    """Write the correlation of the image with the kernels, one after the other, each of one axis or the only one.

    `out` may share memory with the image. `order` is SciPy's order of sums.
    """
    if image.size == 0:
        return
    results = _core.empty(out.shape, out.dtype) if np.may_share_memory(out, image) else out
    _filter(np.atleast_1d(results), np.atleast_1d(image), [_with_axes(kernel, image.ndim) for kernel in kernels], order)
    if results is not out:
        out[...] = results


def _with_axes(kernel: Kernel, rank: int) -> Kernel:
    """A kernel of one weight has the last axis."""
    return kernel if kernel.axes else Kernel((max(0, rank - 1),), kernel.weights.reshape(1), ((0, 0),), kernel.boundary)


def _filter(out: AnyArray, image: AnyArray, kernels: Sequence[Kernel], order: Order) -> None:
    if out.dtype.kind in "biu":
        correlate_integers(out, image, kernels, order)
    elif all(np.isfinite(kernel.weights).all() and np.isfinite(kernel.boundary[1]) for kernel in kernels):
        correlate_all(out, image, kernels, _work_dtype(image, out, kernels), assign)
    else:
        for kernel in kernels:
            results = _core.empty(out.shape, np.result_type(out.dtype, np.float64))
            _correlate_infinities(results, image, kernel, order)
            image = results
        out[...] = image


def _work_dtype(image: AnyArray, out: AnyArray, kernels: Sequence[Kernel]) -> AnyDType:
    """That of the image and the result together; double precision if float32 does not hold the weights or fills."""
    work = np.result_type(image.dtype, out.dtype)
    low, high = _FLOAT32_RANGE
    largest = [float(np.abs(kernel.weights).max()) for kernel in kernels]
    fills = [abs(kernel.boundary[1]) for kernel in kernels]
    if any(0 < size < low or size > high for size in largest + fills):
        work = np.result_type(work, np.float64)
    return work


def _correlate_infinities(out: AnyArray, image: AnyArray, kernel: Kernel, order: Order) -> None:
    """Infinite weights or fills meet zeros, which gives NaN: of complex numbers, in the products that are made."""
    out[...] = 0
    for (i, x), (j, weights) in product(enumerate(_parts(image)), enumerate(_parts(kernel.weights))):
        fill = complex(kernel.boundary[1])
        boundary = (kernel.boundary[0], (fill.real, fill.imag)[i])
        sums = np.empty(out.shape)
        correlate_in_order(sums, x, kernel._replace(weights=weights, boundary=boundary), order, assign)
        part = out.imag if i + j == 1 else out.real
        with np.errstate(invalid="ignore"):
            part += -sums if i + j == 2 else sums


def _parts(array: AnyArray) -> list[AnyArray]:
    return [array.real, array.imag] if array.dtype.kind == "c" else [array]
