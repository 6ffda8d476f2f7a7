"""The codelet generator: its graphs against the transforms they stand for, exactly where they are rational."""

from __future__ import annotations

import cmath
import itertools
import math
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

CODEGEN = Path(__file__).resolve().parents[2] / "cpp" / "codegen"
sys.path.insert(0, str(CODEGEN))

import dag  # noqa: E402
import emit  # noqa: E402
import fft  # noqa: E402
import generate  # noqa: E402
import schedule  # noqa: E402
import winograd  # noqa: E402

EPS = sys.float_info.epsilon


# ---- FFT ------------------------------------------------------------------------------------------------------------


def dft(x: list[complex], sign: int) -> list[complex]:
    n = len(x)
    return [sum(v * cmath.exp(sign * 2j * math.pi * (j * k % n) / n) for j, v in enumerate(x)) for k in range(n)]


def packed(spectrum: list[complex]) -> list[float]:
    values = [spectrum[0].real]
    for k in range(1, len(spectrum) // 2 + 1):
        values += [spectrum[k].real, spectrum[k].imag]
    return values[: len(spectrum)]


def unpacked(values: list[float]) -> list[complex]:
    n = len(values)
    spectrum = [complex(values[0])] * n
    for k in range(1, n // 2 + 1):
        spectrum[k] = complex(values[2 * k - 1], values[2 * k] if 2 * k < n else 0)
        spectrum[n - k] = spectrum[k].conjugate()
    return spectrum


def interleaved(values: list[complex]) -> list[float]:
    return [part for value in values for part in (value.real, value.imag)]


def expected_outputs(kind: str, length: int, count: int, inputs: list[float]) -> list[float]:
    if kind == "fft_real":
        return packed(dft([complex(v) for v in inputs[:count]] + [0j] * (length - count), -1))
    if kind == "fft_real_inverse":
        return [value.real for value in dft(unpacked(inputs), 1)[:count]]
    sequence = [complex(*inputs[2 * i : 2 * i + 2]) for i in range(length)]
    if kind == "fft_complex":
        return interleaved(dft(sequence[:count] + [0j] * (length - count), -1))
    return interleaved(dft(sequence, 1)[:count])


def check_fft(kind: str, length: int, count: int, transform: dag.Transform) -> None:
    inputs = [random.Random(length).uniform(-1, 1) for _ in range(2 * length)]
    if "complex" not in kind:
        inputs = inputs[:length]
    outputs = dag.evaluate(transform, inputs)
    expected = expected_outputs(kind, length, count, inputs)
    assert sorted(outputs) == list(range(len(expected)))
    # The reference sums n terms; the graph is more accurate than that.
    tolerance = 8 * length * EPS * sum(map(abs, inputs))
    assert all(abs(outputs[i] - value) <= tolerance for i, value in enumerate(expected))


@pytest.mark.parametrize("kind", fft.KINDS)
@pytest.mark.parametrize("length", [n for n in range(2, 33) if any(fft.plans(n))])
def test_every_plan_is_the_dft(kind: str, length: int) -> None:
    for plan in fft.plans(length):
        check_fft(kind, length, length, fft.KINDS[kind](length, length, plan))


@pytest.mark.parametrize("kind", fft.KINDS)
@pytest.mark.parametrize("length", generate.FFT_LENGTHS)
def test_pruned_transforms(kind: str, length: int) -> None:
    counts = generate.pruned_counts(kind, length)
    assert counts[-1] == length
    assert counts == sorted(set(counts))
    for count in counts:
        check_fft(kind, length, count, fft.best_transform(kind, length, count))


@pytest.mark.parametrize(("length", "operations"), [(2, 4), (3, 12), (4, 16), (5, 32), (8, 52), (16, 144), (32, 376)])
def test_operation_counts_do_not_grow(length: int, operations: int) -> None:
    """Fused operations of the complex transform; the known counts of radix 4 with twiddle factors fused."""
    assert dag.operation_count(fft.best_transform("fft_complex", length, length)) <= operations


@pytest.mark.parametrize("length", generate.FFT_LENGTHS)
def test_real_transforms_cost_less_than_half_of_complex_ones(length: int) -> None:
    whole = dag.operation_count(fft.best_transform("fft_complex", length, length))
    for kind in ("fft_real", "fft_real_inverse"):
        assert 2 * dag.operation_count(fft.best_transform(kind, length, length)) <= whole


def test_roots_of_unity_are_correct_to_forty_digits() -> None:
    for n in range(1, 40):
        for k in range(-n, 2 * n):
            c, s = fft.root_of_unity(k, n)
            assert abs(c * c + s * s - 1) < dag.Decimal("1e-40")
            assert abs(complex(c, s) - cmath.exp(2j * math.pi * k / n)) < 1e-14
    assert fft.root_of_unity(3, 4) == (0, -1)


# ---- Winograd -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "r"), list(winograd.sizes()))
def test_cook_toom_is_exactly_correlation(m: int, r: int) -> None:
    a, g, b = winograd.cook_toom(m, r)
    for i in range(m):
        for k in range(r):
            for n in range(m + r - 1):
                assert sum(a[i][j] * g[j][k] * b[j][n] for j in range(m + r - 1)) == (n == i + k)


@pytest.mark.parametrize(("m", "r"), list(winograd.sizes()))
def test_winograd_graphs_are_exactly_their_matrices(m: int, r: int) -> None:
    for matrix in winograd.roles(m, r).values():
        for make in (winograd.rows_by_parity, winograd.columns_by_pairs):
            assert graph_matrix(make(matrix), len(matrix[0])) == matrix


def graph_matrix(transform: dag.Transform, columns: int) -> list[list[Fraction]]:
    rows: list[list[Fraction]] = []
    for node in transform.graph.nodes:
        if isinstance(node, dag.Input):
            rows.append([Fraction(int(i == node.entry)) for i in range(columns)])
        else:
            rows.append([x + node.factor * y for x, y in zip(rows[node.left], rows[node.right], strict=True)])
    zero = [Fraction(0)] * columns
    return [zero if t is None else [t.scale * value for value in rows[t.node]] for _, t in transform.outputs]


@pytest.mark.parametrize(("m", "r"), list(winograd.sizes()))
def test_data_and_output_matrices_are_exact_in_binary(m: int, r: int) -> None:
    matrices = winograd.cook_toom(m, r)
    for number in itertools.chain(*matrices.data, *matrices.output):
        assert number.denominator & (number.denominator - 1) == 0


def test_amplification_bounds_float32_errors() -> None:
    """Two axes in single precision against exact sums: below amplification^2 * eps * max|x| * sum|w|."""
    numpy = pytest.importorskip("numpy")
    rng = numpy.random.default_rng(1)
    for m, r in ((2, 3), (4, 3), (6, 3), (2, 5), (4, 5)):
        a, g, b = (numpy.array(matrix, dtype=numpy.float64) for matrix in winograd.cook_toom(m, r))
        tile = m + r - 1
        x = rng.uniform(-1, 1, (100, tile, tile)).astype(numpy.float32)
        w = rng.uniform(-1, 1, (100, r, r)).astype(numpy.float32)
        a32, g32, b32 = (matrix.astype(numpy.float32) for matrix in (a, g, b))
        y = a32 @ ((g32 @ w @ g32.T) * (b32 @ x @ b32.T)) @ a32.T
        wide_x, wide_w = x.astype(numpy.float64), w.astype(numpy.float64)
        exact = a @ ((g @ wide_w @ g.T) * (b @ wide_x @ b.T)) @ a.T
        bound = winograd.amplification(m, r) ** 2 * 2.0**-23 * abs(x).max() * abs(wide_w).sum((1, 2))
        assert (abs(y - exact).max((1, 2)) <= bound).all()


# ---- emission -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", fft.KINDS)
def test_schedules_compute_operands_first(kind: str) -> None:
    transform = fft.best_transform(kind, 16, 16)
    for order in (schedule.creation_order(transform), schedule.depth_first_order(transform)):
        position = {number: time for time, number in enumerate(order)}
        assert sorted(position) == sorted(schedule.creation_order(transform))
        for number in order:
            for operand in schedule.operands(transform, number):
                is_input = isinstance(transform.graph.nodes[operand], dag.Input)
                assert is_input or position[operand] < position[number]


def test_codelet_text() -> None:
    graph = dag.Graph(winograd.ONE)
    x, y = graph.input(0), graph.input(1)
    difference = graph.subtract(x, y)
    outputs = [(0, graph.negate(difference)), (1, graph.multiply(Fraction(1, 4), graph.add(x, y))), (2, None)]
    text = emit.codelet("example", dag.Transform(graph, outputs), complex_in=False, complex_out=False, inline=True)
    assert "TRICONV_INLINE void example(const E* __restrict in, E* __restrict out," in text
    assert "store<E>(out + 0 * os, t1 - t0);" in text
    assert "E(0.25) * t" in text
    assert "store<E>(out + 2 * os, Vec<E>{});" in text


def test_generation_is_deterministic_and_keeps_time_stamps(tmp_path: Path) -> None:
    command = [sys.executable, str(CODEGEN / "generate.py"), "--output", str(tmp_path)]
    subprocess.run(command, check=True)
    names = ["fft_codelets-inl.h", "winograd_bounds.h", "winograd_codelets-inl.h"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    subprocess.run(command, check=True)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in names} == before
