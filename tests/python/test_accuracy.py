"""Error of every algorithm and pass on normal deviates, against sums in wider types and beside PyTorch's.

For float32 the reference is direct summation in float64, itself checked on sampled outputs against `math.fsum`, which
rounds once (the products of two float32 are exact in float64). For float64 it is sampled outputs summed in longdouble.
The option -s prints a table. Errors are relative to the largest output, Winograd's to the largest sum of
|first operand| |second operand|, as its bound is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import triconv as tc
from oracle import assert_within, chosen_row
from shapes import PASSES, Problem

# Up to R = 31 and C = 256; few output channels and small images keep the reference quick.
PROBLEMS = {
    "1x1": "n2c256k32 i14x14 r1x1",
    "3x3": "n2c256k32 i14x14 r3x3 p1",
    "3x3 many samples": "n16c8k8 i56x56 r3x3 p1",
    "5x5": "n1c256k16 i20x20 r5x5 p2",
    "7x7": "n1c256k16 i28x28 r7x7 p3",
    "11x11": "n1c256k8 i27x27 r11x11 p5",
    "15x15": "n1c256k8 i30x30 r15x15 p7",
    "31x31": "n1c256k4 i36x36 r31x31 p15",
    "31x31 valid": "n2c64k8 i48x44 r31x31",
    "31x31 depthwise": "n2c32k32 i40x40 r31x31 p15 g32",
    "1-D 31": "n4c256k32 i256 r31 p15",
    "1-D 501": "n1c16k16 i2000 r501 p250",
    "7x7 many samples": "n64c3k16 i112x112 r7x7 p3",
    "3-D 5x5x5": "n1c32k8 i10x12x11 r5x5x5 p2",
}
WINOGRAD = ("3x3", "3x3 many samples", "5x5", "7x7", "3-D 5x5x5")
LARGE_KERNELS = ("11x11", "15x15", "31x31", "31x31 valid", "31x31 depthwise", "1-D 31", "1-D 501")

# What is promised of direct summation and FFT, relative to the largest output.
PROMISED = {"f32": 1e-6, "f64": 1e-14}
# How much less exact than PyTorch the FFT may be on large kernels.
PEER_FACTOR = 1.5


@dataclass(frozen=True)
class Operands:
    """Arrays of a problem of stride and dilation 1, and the products behind single elements of its passes."""

    problem: Problem
    x: np.ndarray
    w: np.ndarray
    dy: np.ndarray
    padded_x: np.ndarray = field(init=False)
    padded_dy: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        around = [
            (r - 1 - low, r - 1 - high)
            for r, (low, high) in zip(self.problem.kernel, self.problem.padding, strict=True)
        ]
        outer = [(0, 0), (0, 0)]
        object.__setattr__(self, "padded_x", np.pad(self.x, [*outer, *self.problem.padding]))
        object.__setattr__(self, "padded_dy", np.pad(self.dy, [*outer, *around]))

    def pairs(self, which: str, at: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of numbers whose products sum to the element `at` of a pass."""
        p = self.problem
        per_group_in, per_group_out = p.in_channels // p.groups, p.out_channels // p.groups
        outer, inner, *place = at
        if which == "forward":
            first = inner // per_group_out * per_group_in
            window = self._window(place, p.kernel)
            return self.padded_x[(outer, slice(first, first + per_group_in), *window)], self.w[inner]
        if which == "input_grad":
            group, channel = divmod(inner, per_group_in)
            outputs = slice(group * per_group_out, (group + 1) * per_group_out)
            flipped = np.flip(self.w[outputs, channel], axis=tuple(range(1, 1 + p.rank)))
            return self.padded_dy[(outer, outputs, *self._window(place, p.kernel))], flipped
        channel = outer // per_group_out * per_group_in + inner
        return self.padded_x[(slice(None), channel, *self._window(place, p.output))], self.dy[:, outer]

    @staticmethod
    def _window(place: list[int], size: tuple[int, ...]) -> list[slice]:
        return [slice(i, i + n) for i, n in zip(place, size, strict=True)]

    def of(self, which: str) -> tuple[np.ndarray, np.ndarray]:
        return {"forward": (self.x, self.w), "input_grad": (self.w, self.dy), "weight_grad": (self.x, self.dy)}[which]


def operands_of(name: str, dtype: str) -> Operands:
    problem = Problem.parse(PROBLEMS[name]).with_dtype(dtype)
    return Operands(problem, *problem.random_arrays(5))


def samples(problem: Problem, which: str, count: int) -> list[tuple[int, ...]]:
    rng = np.random.default_rng(6)
    size = problem.result_size(which)
    return [tuple(int(rng.integers(n)) for n in size) for _ in range(count)]


def run(plan: tc.Plan, which: str, operands: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return getattr(plan, which)(*operands)


def in_float64(operands: Operands, which: str) -> np.ndarray:
    """Direct summation in float64, checked on samples: exact products of float32 summed with one rounding."""
    wide = operands.problem.with_dtype("f64").plan("direct")
    result = run(wide, which, tuple(a.astype(np.float64) for a in operands.of(which)))
    for at in samples(operands.problem, which, 5):
        first, second = operands.pairs(which, at)
        exact = math.fsum((first.astype(np.float64) * second.astype(np.float64)).ravel())
        # 1e-14 is what is promised of float64, and 1e-8 of what is measured with this reference.
        assert abs(result[at] - exact) <= 1e-14 * np.abs(result).max(), f"{operands.problem} {which} in float64 at {at}"
    return result


def scale_of(operands: Operands, which: str) -> float:
    wide = operands.problem.with_dtype("f64").plan("direct")
    return float(run(wide, which, tuple(np.abs(a).astype(np.float64) for a in operands.of(which))).max())


def relative_error(actual: np.ndarray, expected: np.ndarray, scale: float) -> float:
    error = float(np.abs(actual.astype(expected.dtype) - expected).max())
    assert not math.isnan(error), "the result holds a NaN"
    return error / scale


@pytest.fixture(scope="module")
def table():
    """Rows of measured errors, printed when all are there."""
    rows: list[tuple[str, ...]] = []
    yield rows
    header = ("problem", "pass", "algorithm", "error", "allowed", "PyTorch")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    print()
    for row in [header, *sorted(rows)]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_float32_direct_and_fft(name: str, which: str, table) -> None:
    from torch_support import torch_passes

    operands = operands_of(name, "f32")
    expected = in_float64(operands, which)
    largest = float(np.abs(expected).max())
    torch_result = torch_passes(operands.problem, operands.x, operands.w, operands.dy)[which]
    peer = relative_error(torch_result, expected, largest)
    errors = {}
    for algorithm in ("direct", "fft"):
        result = run(operands.problem.plan(algorithm), which, operands.of(which))
        assert tc.last_run().algorithm.startswith(algorithm), f"{operands.problem} {which}"
        errors[algorithm] = relative_error(result, expected, largest)
        cells = (tc.last_run().algorithm, f"{errors[algorithm]:.1e}", f"{PROMISED['f32']:.1e}", f"{peer:.1e}")
        table.append((str(operands.problem), which, *cells))
    context = f"{operands.problem} {which}: {errors}, PyTorch {peer:.2g}"
    assert max(errors.values()) <= PROMISED["f32"], context
    assert name not in LARGE_KERNELS or errors["fft"] <= PEER_FACTOR * peer, context


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_float64_direct_and_fft(name: str, which: str, table) -> None:
    operands = operands_of(name, "f64")
    places = samples(operands.problem, which, 100)
    expected = np.array([longdouble_sum(*operands.pairs(which, at)) for at in places])
    errors = {}
    for algorithm in ("direct", "fft"):
        result = run(operands.problem.plan(algorithm), which, operands.of(which))
        assert tc.last_run().algorithm.startswith(algorithm), f"{operands.problem} {which}"
        sampled = np.array([result[at] for at in places])
        errors[algorithm] = relative_error(sampled, expected, float(np.abs(result).max()))
        cells = (tc.last_run().algorithm, f"{errors[algorithm]:.1e}", f"{PROMISED['f64']:.1e}", "")
        table.append((str(operands.problem), which, *cells))
    assert max(errors.values()) <= PROMISED["f64"], f"{operands.problem} {which}: {errors}"


def longdouble_sum(first: np.ndarray, second: np.ndarray) -> np.longdouble:
    """Summed in pairs by NumPy: some 1e-18 of the sum of absolute values."""
    return np.sum((first.astype(np.longdouble) * second.astype(np.longdouble)).ravel())


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("name", WINOGRAD)
def test_winograd_keeps_its_bound(name: str, which: str, dtype: str, table) -> None:
    """The tile chosen and every tile alike along all axes, each within what `explain` documents."""
    operands = operands_of(name, dtype)
    problem = operands.problem
    chosen = problem.plan("winograd")
    rows = [row for row in getattr(chosen.explain(), which) if row.chosen or is_uniform(row.algorithm)]
    assert len(rows) > 1, f"{problem} {which}"
    scale = scale_of(operands, which)
    if dtype == "f32":
        expected = in_float64(operands, which)
    else:
        places = samples(problem, which, 100)
        expected = np.array([longdouble_sum(*operands.pairs(which, at)) for at in places])
    for row in rows:
        result = run(problem.plan(row.algorithm), which, operands.of(which))
        assert tc.last_run().algorithm == row.algorithm, f"{problem} {which}"
        compared = result if dtype == "f32" else np.array([result[at] for at in places])
        error = relative_error(compared, expected, scale)
        table.append((str(problem), which, row.algorithm, f"{error:.1e}", f"{row.error_bound:.1e}", ""))
        assert error <= row.error_bound, (
            f"{problem} {which} {row.algorithm}: {error:.3g}, documented {row.error_bound:.3g}"
        )


def is_uniform(algorithm: str) -> bool:
    return len(set(algorithm.split(":")[1].split("x"))) == 1


@pytest.mark.parametrize("which", PASSES)
def test_direct_stays_exact_on_long_sums(which: str) -> None:
    """200,000 terms: summed one after the other in float32 they would err by 1.6e-5."""
    problem = Problem.parse(
        {"forward": "n1c4096k2 i8x8 r7x7", "input_grad": "n1c2k4096 i14x14 r7x7"}.get(which, "n4c1k1 i224x225 r1x1")
    )
    operands = Operands(problem, *(np.abs(a) for a in problem.random_arrays(7)))
    expected = in_float64(operands, which)
    result = run(problem.plan("direct"), which, operands.of(which))
    row = chosen_row(problem.plan("direct"), which)
    # All terms being positive, the largest output is the scale of the bound: 16 eps, 1.9e-6, and 1e-6 as promised.
    assert_within(
        result.astype(np.float64), expected, min(row.error_bound, 1e-6) * expected.max(), f"{problem} {which}"
    )
