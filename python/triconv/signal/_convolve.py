"""True convolution of two arrays in every dtype: in what arithmetic it is computed."""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import _core
from ._exact import add_taps, correlate_by_taps
from ._problem import correlate_into, is_filled_apart, layer_problem, plan_of, run_by_plan

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .._typing import AnyArray
    from ._boundary import Boundary
    from ._modes import Geometry
    from ._problem import Padding, Run

    AnyDType = np.dtype[Any]

# Integers below this are exact in float64, so direct sums of them are.
EXACT_IN_FLOAT64 = 2**53
# The error of the FFT, at most 4 * (1 + log2 of the tile's samples) epsilons, stays below a third up to tiles of 2**40.
EXACT_BY_FFT = 2**43


class _Operands(NamedTuple):
    """A correlation: views of the arrays, what is read around the image, and the shape of the result."""

    image: AnyArray
    kernel: AnyArray
    padding: Padding
    boundary: Boundary
    shape: tuple[int, ...]


def check_numeric(dtype: AnyDType, others: str = "") -> None:
    """Raise ValueError unless the dtype is a number's, or of one of the kinds in `others`."""
    if dtype.kind not in "biufc" + others:
        raise ValueError(f"an input has dtype {dtype}, expected numbers")


@lru_cache(maxsize=64)
def float_dtype(*dtypes: AnyDType) -> AnyDType:
    """What the FFT functions promote dtypes to: integers and booleans count as float64, float16 as float32.

    Raises ValueError for what is no number.
    """
    for dtype in dtypes:
        check_numeric(dtype)
    return np.result_type(*(np.float64 if d.kind in "biu" else np.promote_types(d, np.float32) for d in dtypes))


@lru_cache(maxsize=64)
def _work_dtype(dtype: AnyDType) -> AnyDType:
    """The core's dtype for results of this one: float32 for float16, else the dtype itself."""
    return np.promote_types(dtype, np.float32)


@lru_cache(maxsize=64)
def real_dtype(dtype: AnyDType) -> AnyDType:
    """The dtype of the real part."""
    return np.empty((), dtype).real.dtype


def is_computed_by_core(dtype: AnyDType) -> bool:
    """Not objects, and not longdouble where that is more than float64."""
    return dtype.kind in "biu" or (dtype.kind in "fc" and dtype.itemsize <= (8 if dtype.kind == "f" else 16))


def as_operand(array: AnyArray, dtype: AnyDType) -> AnyArray:
    """The array in `dtype`; in its real counterpart if the array is real. Not copied if it is so already."""
    return array.astype(dtype if array.dtype.kind == "c" else real_dtype(dtype), copy=False)


def convolve_arrays(
    in1: AnyArray,
    in2: AnyArray,
    geometry: Geometry,
    dtype: AnyDType,
    method: str = "auto",
    *,
    conjugate: bool = False,
    run: Run | None = None,
) -> AnyArray:
    """The convolution of two arrays in the arithmetic of `dtype`, with in2 conjugated if asked.

    `run` stands in for `method`.
    """
    operands = _operands(in1, in2, geometry)
    conjugate = conjugate and in2.dtype.kind == "c"
    if conjugate:  # the kernel, which is the smaller one: conj(a) * b = conj(a * conj(b))
        operands = operands._replace(kernel=operands.kernel.conj())
    if not geometry.padding or not is_computed_by_core(dtype):
        out = _convolve_exactly(operands, dtype)
    elif dtype.kind in "biu":
        out = _convolve_integers(operands, geometry.terms, dtype, method)
    else:
        out = _convolve_floats(operands, dtype, run or run_by_plan(method))
    if conjugate and geometry.swapped:
        np.conj(out, out=out)
    return out


def method_of(in1: AnyArray, in2: AnyArray, geometry: Geometry, dtype: AnyDType) -> str:
    """What ``method="auto"`` means for these arrays: "direct" or "fft"."""
    operands = _operands(in1, in2, geometry)
    if not geometry.padding or not is_computed_by_core(dtype):
        return "direct"
    return _faster_method(operands, np.dtype(np.float64) if dtype.kind in "biu" else _work_dtype(dtype))


def _faster_method(operands: _Operands, work: AnyDType) -> str:
    """The method that the cost model predicts to be faster in the dtype `work`."""
    kernel = operands.kernel.shape
    # Further axes are summed over, tap by tap.
    padding = tuple(sorted(sorted(operands.padding, key=lambda item: kernel[item[0]])[-3:]))
    summed = {axis for axis, _ in operands.padding} - {axis for axis, _ in padding}

    def shaped(shape: Sequence[int], kind: str) -> AnyArray:
        """An array of which only the shape is looked at."""
        return np.broadcast_to(np.empty((), work if kind == "c" else real_dtype(work)), shape)

    x = shaped(operands.image.shape, operands.image.dtype.kind)
    w = shaped([1 if axis in summed else size for axis, size in enumerate(kernel)], operands.kernel.dtype.kind)
    key = layer_problem(shaped(operands.shape, work.kind), x, w, padding).key
    return plan_of(key, "auto").forward_choice[0].partition(":")[0]


def _operands(in1: AnyArray, in2: AnyArray, geometry: Geometry) -> _Operands:
    image, kernel = (in2, in1) if geometry.swapped else (in1, in2)
    return _Operands(
        image[geometry.image], kernel[geometry.kernel], geometry.padding, geometry.boundary, geometry.shape
    )


def _convolve_floats(operands: _Operands, dtype: AnyDType, run: Run) -> AnyArray:
    """float32 and float64, real and complex, by the core; float16 computed in float32."""
    image, kernel, padding, boundary, shape = operands
    work = _work_dtype(dtype)
    finite = np.isfinite(kernel)
    all_finite = bool(finite.all())
    fill_apart = is_filled_apart(image, boundary) and not np.isfinite(boundary[1])
    if fill_apart or not (all_finite or (np.isfinite(image).all() and np.isfinite(boundary[1]))):
        # Infinities would meet zeros in the place of others.
        return _convolve_exactly(operands, work).astype(dtype, copy=False)
    out = _core.empty(shape, work)
    usual = kernel if all_finite else np.where(finite, kernel, 0)
    correlate_into(out, as_operand(image, work), as_operand(usual, work), padding, run, boundary)
    if not all_finite:
        _add_other_taps(out, operands, finite)
    return out.astype(dtype, copy=False)


def _add_other_taps(out: AnyArray, operands: _Operands, done: AnyArray) -> None:
    """Those that would meet the zeros around the image, one by one."""
    image, kernel, padding, boundary, _ = operands
    axes = [axis for axis, _ in padding]
    rest = np.where(done, 0, kernel).astype(out.dtype)
    anywhere = ~done.all(axis=tuple(axis for axis in range(done.ndim) if axis not in axes))
    add_taps(out, image.astype(out.dtype, copy=False), rest, padding, boundary, map(tuple, np.argwhere(anywhere)))


def _convolve_integers(operands: _Operands, terms: int, dtype: AnyDType, method: str) -> AnyArray:
    """Exact but for the wrap-around of the dtype; booleans as logical or of logical ands."""
    largest = _largest_sum(operands, terms)
    if largest < EXACT_BY_FFT:
        sums = _convolve_small_integers(operands, method)
        return sums != 0 if dtype.kind == "b" else sums.astype(dtype, copy=False)
    if method == "auto":
        method = _faster_method(operands, np.dtype(np.float64))
    if method == "fft" and operands.boundary[1] == 0:
        return _convolve_by_digits(operands, terms).astype(dtype, copy=False)
    if largest < EXACT_IN_FLOAT64:
        return _convolve_small_integers(operands, "direct").astype(dtype, copy=False)
    return _convolve_exactly(operands, dtype)


def _convolve_small_integers(operands: _Operands, method: str) -> AnyArray:
    """Sums that the method computes in float64 without error, as int64."""
    floats = _convolve_floats(operands, np.dtype(np.float64), run_by_plan(method))
    return np.rint(floats, out=floats).astype(np.int64)


def _convolve_by_digits(operands: _Operands, terms: int) -> AnyArray:
    """Modulo 2**64, by FFTs of digits so small that the sums of their products are exact; as int64."""
    bits = ((EXACT_BY_FFT // terms).bit_length() + 1) // 2  # digits are at most half of 2**bits
    image, kernel = _digits(operands.image, bits), _digits(operands.kernel, bits)
    out = np.zeros(operands.shape, np.int64)
    for (i, digits_of_image), (j, digits_of_kernel) in product(enumerate(image), enumerate(kernel)):
        if bits * (i + j) < 64:
            parts = operands._replace(image=digits_of_image, kernel=digits_of_kernel)
            out += _convolve_small_integers(parts, "fft") << bits * (i + j)
    return out


def _digits(array: AnyArray, bits: int) -> list[AnyArray]:
    """Digits from -half to half - 1 of the integers modulo 2**64 in base 2**bits, the lowest first; as int64."""
    half = 1 << (bits - 1)
    rest = array.astype(np.int64)
    digits: list[AnyArray] = []
    while not digits or (rest.any() and bits * len(digits) < 64):
        digits.append(((rest + half) & (2 * half - 1)) - half)
        rest = (rest - digits[-1]) >> bits
    return digits


def _largest_sum(operands: _Operands, terms: int) -> int:
    """No sum of products of the integers is larger than this."""
    outside = int(abs(operands.boundary[1]))
    return terms * max(_largest(operands.image), outside) * _largest(operands.kernel)


def _largest(array: AnyArray) -> int:
    return 1 if array.dtype.kind == "b" else max(int(array.max()), -int(array.min()))


def _convolve_exactly(operands: _Operands, dtype: AnyDType) -> AnyArray:
    image, kernel, padding, boundary, shape = operands
    out = np.empty(shape, dtype)
    correlate_by_taps(out, image.astype(dtype, copy=False), kernel.astype(dtype, copy=False), padding, boundary)
    return out
