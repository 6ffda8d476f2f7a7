"""Cook-Toom matrices of F(m, r) in exact rationals, and the graphs of the transforms they stand for.

y = A^T [(G w) * (B^T x)] gives m outputs of the correlation of x (m + r - 1 values) with w (r values). Finite points
come first in the rows of B^T and G, infinity last. Rows of B^T are coefficients of monic polynomials and G takes the
divisors, so A and B are exact in binary.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import NamedTuple

from dag import Graph, Term, Transform, operation_count

Matrix = list[list[Fraction]]
ONE = Fraction(1)

# In the order they join. Pairs +-a share work; a point and its negative reciprocal balance the growth of the powers.
# Measured in float32 on two axes: 1/2, -2 as the fourth and fifth point have 0.7 times the r.m.s. error of 2, -2 or
# 1/2, -1/2 in F(4, 3) and F(2, 5), for a third more operations in B^T. +-3/2 and +-3/4 did not help.
POINTS = [Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2), Fraction(2), Fraction(-1, 2)]

MAX_TILE = len(POINTS) + 1
MAX_OUTPUTS = 6
MAX_KERNEL = 7


class CookToom(NamedTuple):
    output: Matrix  # A^T, m x T
    kernel: Matrix  # G, T x r
    data: Matrix  # B^T, T x T


def sizes() -> Iterator[tuple[int, int]]:
    """Every (m, r) there are codelets for; r = 1 for tiles whose kernel has extent 1 along an axis."""
    for m in range(1, MAX_TILE + 1):
        yield m, 1
    for r, m in product(range(2, MAX_KERNEL + 1), range(1, MAX_OUTPUTS + 1)):
        if m + r - 1 <= MAX_TILE:
            yield m, r


def transpose(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def identity(n: int) -> Matrix:
    return [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]


def polynomial_from_roots(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), constant term first."""
    coefficients = [ONE]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def powers(point: Fraction | None, count: int) -> list[Fraction]:
    """1, a, a^2, ...; infinity (None) picks the highest."""
    if point is None:
        return [Fraction(int(i == count - 1)) for i in range(count)]
    return [point**i for i in range(count)]


def cook_toom(m: int, r: int, points: list[Fraction] = POINTS) -> CookToom:
    tile = m + r - 1
    if r == 1:
        return CookToom(identity(m), [[ONE] for _ in range(m)], identity(m))
    if m == 1:
        return CookToom([[ONE] * r], identity(r), identity(r))
    finite = points[: tile - 1]
    data: Matrix = []
    kernel: Matrix = []
    for point in [*finite, None]:
        others = [other for other in finite if other != point]
        row = polynomial_from_roots(others)
        row += [Fraction(0)] * (tile - len(row))
        norm = ONE
        if point is not None:
            for other in others:
                norm *= point - other
        data.append(row)
        kernel.append([value / norm for value in powers(point, r)])
    output = transpose([powers(point, m) for point in [*finite, None]])
    return CookToom(output, kernel, data)


def amplification(m: int, r: int, points: list[Fraction] = POINTS) -> float:
    """See winograd_amplification in the generated header, which documents this number."""
    a, g, b = cook_toom(m, r, points)
    tile = m + r - 1
    weight = [
        [[sum(abs(a[i][j] * g[j][k] * b[j][n]) for j in range(tile)) for n in range(tile)] for k in range(r)]
        for i in range(m)
    ]
    over_data = max(sum(weight[i][k]) for i in range(m) for k in range(r))
    over_outputs = max(sum(weight[i][k][n] for i in range(m)) for k in range(r) for n in range(tile))
    return float(max(over_data, over_outputs))


# ---- graphs ---------------------------------------------------------------------------------------------------------


def linear_map(matrix: Matrix) -> Transform:
    """matrix * x in the cheaper of two ways to share the work of the points +a and -a."""
    return min(rows_by_parity(matrix), columns_by_pairs(matrix), key=operation_count)


def dot(g: Graph, row: list[Fraction], x: list[Term]) -> Term:
    """Terms with a factor of +-1 first: the graph then leaves the sum without a scale."""
    total: Term = None
    for factor, value in sorted(zip(row, x, strict=True), key=lambda term: abs(term[0]) != 1):
        total = g.add(total, g.multiply(factor, value))
    return total


def rows_by_parity(matrix: Matrix) -> Transform:
    """Rows of +a and -a agree, up to a factor, in the even columns and in the odd ones: sum these apart."""
    g = Graph(ONE)
    x: list[Term] = [g.input(i) for i in range(len(matrix[0]))]
    outputs = [(o, g.add(dot(g, row[::2], x[::2]), dot(g, row[1::2], x[1::2]))) for o, row in enumerate(matrix)]
    return Transform(g, outputs)


def mirror_ratio(p: list[Fraction], q: list[Fraction]) -> Fraction | None:
    """The number c with q[i] = c * (-1)^i * p[i], if there is one."""
    ratios = {y / (x if i % 2 == 0 else -x) for i, (x, y) in enumerate(zip(p, q, strict=True)) if x != 0}
    if len(ratios) != 1 or any(x == 0 and y != 0 for x, y in zip(p, q, strict=True)):
        return None
    return ratios.pop() or None


def columns_by_pairs(matrix: Matrix) -> Transform:
    """The transposed trick: x[p] + c x[q] serves the even rows, x[p] - c x[q] the odd ones."""
    g = Graph(ONE)
    columns = transpose(matrix)
    x: list[Term] = [g.input(i) for i in range(len(columns))]
    even: list[Term] = list(x)
    odd: list[Term] = list(x)
    paired: set[int] = set()
    for p in range(len(columns)):
        for q in range(p + 1, len(columns)):
            ratio = mirror_ratio(columns[p], columns[q])
            if ratio is not None and sum(value != 0 for value in columns[p]) > 1 and not paired & {p, q}:
                paired |= {p, q}
                even[p] = g.add(x[p], g.multiply(ratio, x[q]))
                odd[p] = g.subtract(x[p], g.multiply(ratio, x[q]))
                even[q] = odd[q] = None
    return Transform(g, [(o, dot(g, row, odd if o % 2 else even)) for o, row in enumerate(matrix)])


def roles(m: int, r: int) -> dict[str, Matrix]:
    """The matrix of every line transform of F(m, r)."""
    matrices = cook_toom(m, r)
    return {
        "winograd_data": matrices.data,
        "winograd_kernel": matrices.kernel,
        "winograd_output": matrices.output,
        "winograd_data_t": transpose(matrices.data),
        "winograd_kernel_t": transpose(matrices.kernel),
        "winograd_output_t": transpose(matrices.output),
    }
