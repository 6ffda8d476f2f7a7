"""The definition of the three passes as matrix products in a wider type, and how far from it a result may be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from triconv import reference

if TYPE_CHECKING:
    import triconv as tc
    from shapes import Problem


def expected_passes(problem: Problem, x, w, dy) -> dict[str, np.ndarray]:
    """The three passes, summed in a type whose rounding is at least 2000 times finer than that of the problem's."""
    return _passes(problem, x, w, dy, np.float64 if problem.dtype == np.float32 else np.longdouble)


def scales(problem: Problem, x, w, dy) -> dict[str, float]:
    """What rounding errors of each pass are relative to: the largest sum of |first operand| |second operand|.

    At least the largest single product: the bounds of the transforms hold by tile, and a tile may read samples that no
    output does (with a stride, a large padding).
    """
    absolute = [np.abs(array) for array in (x, w, dy)]
    problem = replace(problem, fill=abs(problem.fill))
    sums = _passes(problem, *absolute, np.float64)
    largest_x, largest_w, largest_dy = (float(array.max(initial=0)) for array in absolute)
    largest_x = max(largest_x, problem.fill)
    products = {
        "forward": largest_x * largest_w,
        "input_grad": largest_w * largest_dy,
        "weight_grad": largest_x * largest_dy,
    }
    return {which: max(float(sums[which].max(initial=0)), products[which]) for which in products}


def _passes(problem: Problem, x, w, dy, wide: type) -> dict[str, np.ndarray]:
    groups, taps, outputs = problem.groups, np.prod(problem.kernel), np.prod(problem.output)
    per_group_in, per_group_out = problem.in_channels // groups, problem.out_channels // groups
    # One row per group, sample and output, one column per channel and tap.
    columns = _windows(problem, np.asarray(x, wide)).reshape(problem.batch, groups, per_group_in, outputs, taps)
    columns = columns.transpose(1, 0, 3, 2, 4).reshape(groups, problem.batch * outputs, per_group_in * taps)
    weights = np.asarray(w, wide).reshape(groups, per_group_out, per_group_in * taps)
    grads = np.asarray(dy, wide).reshape(problem.batch, groups, per_group_out, outputs)
    grads = grads.transpose(1, 0, 3, 2).reshape(groups, problem.batch * outputs, per_group_out)

    y = (columns @ weights.transpose(0, 2, 1)).reshape(groups, problem.batch, outputs, per_group_out)
    spread = (grads @ weights).reshape(groups, problem.batch, outputs, per_group_in, taps).transpose(1, 0, 3, 2, 4)
    return {
        "forward": y.transpose(1, 0, 3, 2).reshape(problem.output_size),
        "input_grad": _add_windows(problem, spread.reshape(*problem.input_size[:2], *problem.output, *problem.kernel)),
        "weight_grad": (grads.transpose(0, 2, 1) @ columns).reshape(problem.weight_size),
    }


def _windows(problem: Problem, x: np.ndarray) -> np.ndarray:
    """What each output reads: (N, C, *outputs, *taps)."""
    padded = problem.padded(x)
    spans = [d * (r - 1) + 1 for r, d in zip(problem.kernel, problem.dilation, strict=True)]
    # A contiguous copy of the strided view, as reshape could not make it of an array without elements.
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + problem.rank)))
    steps = [slice(None, None, s) for s in (*problem.stride, *problem.dilation)]
    return np.ascontiguousarray(windows[(slice(None), slice(None), *steps)])


def _add_windows(problem: Problem, values: np.ndarray) -> np.ndarray:
    """The transpose of `_windows`: every value is added where it would have been read."""
    ends = zip(problem.input, problem.padding, strict=True)
    padded = np.zeros((*problem.input_size[:2], *(i + low + high for i, (low, high) in ends)), values.dtype)
    for tap in np.ndindex(*problem.kernel):
        reads = tuple(
            slice(r * d, r * d + (o - 1) * s + 1, s)
            for r, d, o, s in zip(tap, problem.dilation, problem.output, problem.stride, strict=True)
        )
        padded[(slice(None), slice(None), *reads)] += values[(..., *tap)]
    return problem.folded(padded)


def reference_passes(problem: Problem, x, w, dy) -> dict[str, np.ndarray]:
    """The three passes by `triconv.reference`, of the padded input."""
    plain = problem.unpadded
    padded = problem.padded(x)
    return {
        "forward": reference.conv_reference(padded, w, **plain.parameters),
        "input_grad": problem.folded(reference.conv_input_reference(plain.input_size, w, dy, **plain.parameters)),
        "weight_grad": reference.conv_weight_reference(padded, problem.weight_size, dy, **plain.parameters),
    }


def direct_tolerance(problem: Problem, which: str) -> float:
    """Error of direct summation relative to the scale.

    A sum of L products, each rounded, errs by at most L eps / 2 (1 + L eps) of the sum of their absolute values in any
    order of summation (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Long sums are cut into
    blocks, and 16 eps is what is documented for them.
    """
    epsilon = float(np.finfo(problem.dtype).eps)
    return min((problem.reduction_length(which) + 1) / 2, 16) * epsilon


def tolerance(problem: Problem, which: str, row: tc.Candidate) -> float:
    """The documented error bound of an algorithm, relative to the scale; for short direct sums the rigorous one."""
    return direct_tolerance(problem, which) if row.algorithm == "direct" else row.error_bound


def chosen_row(plan: tc.Plan, which: str) -> tc.Candidate:
    return next(row for row in getattr(plan.explain(), which) if row.chosen)


def assert_within(actual: np.ndarray, expected: np.ndarray, bound: float, problem: object) -> None:
    """Fail unless every element is within `bound` of the expected one; a NaN in either fails."""
    assert actual.shape == expected.shape, f"{problem}: shape {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected)
    wrong = ~(error <= bound)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        pytest.fail(
            f"{problem}: {int(wrong.sum())} of {wrong.size} elements are wrong, first at {at}: {actual[at]}, expected "
            f"{expected[at]}; largest error {float(np.max(error)):.3g}, allowed {bound:.3g}"
        )


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, problem: object) -> None:
    """Fail unless the two hold the same bits (zeros of unlike sign differ), whatever their strides."""
    assert actual.dtype == expected.dtype, f"{problem}: dtype {actual.dtype}, expected {expected.dtype}"
    assert actual.shape == expected.shape, f"{problem}: shape {actual.shape}, expected {expected.shape}"
    bits = np.dtype(f"u{actual.dtype.itemsize}")
    unlike = np.ascontiguousarray(actual).view(bits) != np.ascontiguousarray(expected).view(bits)
    if unlike.any():
        at = tuple(int(i) for i in np.argwhere(unlike)[0])
        pytest.fail(
            f"{problem}: the bits of {int(unlike.sum())} of {unlike.size} elements differ, first at {at}: "
            f"{actual[at]!r} and {expected[at]!r}"
        )
