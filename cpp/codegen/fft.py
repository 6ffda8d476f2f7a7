"""Graphs of the discrete Fourier transforms of small lengths.

Complex values are pairs of terms; zero inputs and the symmetries of real and Hermitian sequences are pairs with a
None, or mirrored conjugates, so one set of recursions serves the complex and the real transforms. A plan is the tuple
of radices, outermost first. A radix coprime to the rest may be split off without twiddle factors (Good-Thomas); that
scatters the zeros of a pruned sequence, so which splitting is cheaper is found by trying.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from math import gcd
from typing import NamedTuple

from dag import Graph, Term, Transform, operation_count


class Complex(NamedTuple):
    re: Term
    im: Term


class Split(NamedTuple):
    """One level of a plan: a radix, split off by Good-Thomas or by Cooley-Tukey."""

    radix: int
    coprime: bool


Plan = tuple[Split, ...]
Sequence = list[Complex]

ONE = Decimal(1)


# ---- constants ------------------------------------------------------------------------------------------------------


@functools.cache
def pi() -> Decimal:
    """Machin: pi = 16 arctan(1/5) - 4 arctan(1/239)."""

    def arctan_inverse(n: int) -> Decimal:
        power, total, sign = ONE / n, Decimal(0), 1
        for odd in range(1, 200, 2):
            total += sign * power / odd
            power /= n * n
            sign = -sign
        return total

    return 16 * arctan_inverse(5) - 4 * arctan_inverse(239)


@functools.cache
def root_of_unity(k: int, n: int) -> tuple[Decimal, Decimal]:
    """cos and sin of 2 pi k / n; exact where they are 0 or +-1."""
    k %= n
    if 2 * k > n:
        c, s = root_of_unity(n - k, n)
        return c, -s
    if 4 * k > n:
        c, s = root_of_unity(n - 2 * k, 2 * n)
        return -c, s
    if 8 * k > n:
        c, s = root_of_unity(n - 4 * k, 4 * n)
        return s, c
    x = 2 * pi() * k / n
    cosine, sine, term = Decimal(0), Decimal(0), ONE
    for order in range(0, 60, 2):
        sign = -1 if order % 4 else 1
        cosine += sign * term
        sine += sign * term * x / (order + 1)
        term *= x * x / ((order + 1) * (order + 2))
    return cosine, sine


# ---- complex arithmetic on terms ------------------------------------------------------------------------------------


def add(g: Graph, a: Complex, b: Complex) -> Complex:
    return Complex(g.add(a.re, b.re), g.add(a.im, b.im))


def subtract(g: Graph, a: Complex, b: Complex) -> Complex:
    return Complex(g.subtract(a.re, b.re), g.subtract(a.im, b.im))


def scale(g: Graph, factor: Decimal, a: Complex) -> Complex:
    return Complex(g.multiply(factor, a.re), g.multiply(factor, a.im))


def times_i(g: Graph, a: Complex, sign: int) -> Complex:
    return Complex(g.negate(a.im), a.re) if sign > 0 else Complex(a.im, g.negate(a.re))


def conjugate(g: Graph, a: Complex) -> Complex:
    return Complex(a.re, g.negate(a.im))


def twiddle(g: Graph, a: Complex, k: int, n: int, sign: int) -> Complex:
    """a * exp(sign * 2 pi i k / n)"""
    c, s = root_of_unity(sign * k, n)
    return Complex(
        g.subtract(g.multiply(c, a.re), g.multiply(s, a.im)), g.add(g.multiply(c, a.im), g.multiply(s, a.re))
    )


# ---- transforms of a sequence ---------------------------------------------------------------------------------------


def is_real(x: Sequence) -> bool:
    return all(value.im is None for value in x)


def is_hermitian(g: Graph, x: Sequence) -> bool:
    return all(x[-k] == conjugate(g, x[k]) for k in range(len(x)))


def butterfly(g: Graph, x: Sequence, sign: int) -> Sequence:
    """Length 2, 4 or odd, without twiddle factors."""
    n = len(x)
    if n == 2:
        return [add(g, x[0], x[1]), subtract(g, x[0], x[1])]
    if n == 4:
        a, b = add(g, x[0], x[2]), subtract(g, x[0], x[2])
        c, d = add(g, x[1], x[3]), times_i(g, subtract(g, x[1], x[3]), sign)
        return [add(g, a, c), add(g, b, d), subtract(g, a, c), subtract(g, b, d)]
    return odd_butterfly(g, x, sign)


def odd_butterfly(g: Graph, x: Sequence, sign: int) -> Sequence:
    """Outputs k and n - k share the sums over x[j] + x[n-j] and x[j] - x[n-j]."""
    n = len(x)
    pairs = range(1, (n + 1) // 2)
    sums = {j: add(g, x[j], x[n - j]) for j in pairs}
    differences = {j: subtract(g, x[j], x[n - j]) for j in pairs}
    y = [functools.reduce(functools.partial(add, g), sums.values(), x[0])] * n
    for k in pairs:
        even, odd = x[0], Complex(None, None)
        for j in pairs:
            c, s = root_of_unity(sign * j * k, n)
            even = add(g, even, scale(g, c, sums[j]))
            odd = add(g, odd, scale(g, s, differences[j]))
        odd = times_i(g, odd, 1)
        y[k], y[n - k] = add(g, even, odd), subtract(g, even, odd)
    return y


def good_thomas(g: Graph, x: Sequence, sign: int, plan: Plan) -> Sequence:
    """radix * rest with coprime factors: input (m j + r p) mod n, output k at (k mod r, k mod m)."""
    n, r = len(x), plan[0].radix
    m = n // r
    real, hermitian = is_real(x), is_hermitian(g, x)
    rows: list[Sequence] = []
    for j in range(r):
        if hermitian and 2 * j > r:
            rows.append([conjugate(g, value) for value in rows[r - j]])
        else:
            rows.append(dft(g, [x[(m * j + r * p) % n] for p in range(m)], sign, plan[1:]))
    columns: list[Sequence] = []
    for k in range(m):
        if real and 2 * k > m:
            columns.append([conjugate(g, columns[m - k][-q]) for q in range(r)])
        else:
            columns.append(butterfly(g, [row[k] for row in rows], sign))
    return [columns[k % m][k % r] for k in range(n)]


def decimate_in_time(g: Graph, x: Sequence, sign: int, plan: Plan) -> Sequence:
    """Cooley-Tukey, twiddle factors before the outer butterfly: outputs come out without a scale."""
    n, r = len(x), plan[0].radix
    m = n // r
    real = is_real(x)
    rows = [dft(g, x[j::r], sign, plan[1:]) for j in range(r)]
    y = [Complex(None, None)] * n
    for k in range(m // 2 + 1 if real else m):
        column = butterfly(g, [twiddle(g, rows[j][k], j * k, n, sign) for j in range(r)], sign)
        for q in range(r):
            y[k + q * m] = column[q]
            if real and 0 < 2 * k < m:
                y[n - k - q * m] = conjugate(g, column[q])
    return y


def decimate_in_frequency(g: Graph, x: Sequence, sign: int, plan: Plan) -> Sequence:
    """Cooley-Tukey, twiddle factors after the outer butterfly: keeps Hermitian sequences Hermitian."""
    n, r = len(x), plan[0].radix
    m = n // r
    hermitian = is_hermitian(g, x)
    rows: list[Sequence] = [[Complex(None, None)] * m for _ in range(r)]
    for j in range(m // 2 + 1 if hermitian else m):
        column = butterfly(g, [x[j + p * m] for p in range(r)], sign)
        for q in range(r):
            value = twiddle(g, column[q], q * j, n, sign)
            rows[q][j] = value
            if hermitian and 0 < 2 * j < m:
                rows[q][m - j] = conjugate(g, value)
    y = [Complex(None, None)] * n
    for q in range(r):
        y[q::r] = dft(g, rows[q], sign, plan[1:])
    return y


def dft(g: Graph, x: Sequence, sign: int, plan: Plan) -> Sequence:
    if len(x) == 1:
        return x
    if len(plan) == 1:
        return butterfly(g, x, sign)
    if plan[0].coprime:
        return good_thomas(g, x, sign, plan)
    if is_hermitian(g, x) and not is_real(x):
        return decimate_in_frequency(g, x, sign, plan)
    return decimate_in_time(g, x, sign, plan)


# ---- plans ----------------------------------------------------------------------------------------------------------


def radix_orders(n: int) -> Iterator[tuple[int, ...]]:
    if n == 1:
        yield ()
    for radix in (2, 3, 4, 5, 7):
        if n % radix == 0:
            for rest in radix_orders(n // radix):
                yield (radix, *rest)


def plans(n: int) -> Iterator[Plan]:
    for radices in radix_orders(n):
        choices = []
        rest = n
        for radix in radices:
            rest //= radix
            choices.append((False, True) if rest > 1 and gcd(radix, rest) == 1 else (False,))
        for coprime in itertools.product(*choices):
            yield tuple(map(Split, radices, coprime))


# ---- the four kinds of transform ------------------------------------------------------------------------------------
#
# Inputs and outputs are numbered as the codelets address them: entry i of a real sequence or packed spectrum is i;
# of a complex sequence, 2 i is the real part of entry i and 2 i + 1 the imaginary part.


def complex_inputs(g: Graph, length: int, count: int) -> Sequence:
    zero = Complex(None, None)
    return [Complex(g.input(2 * i), g.input(2 * i + 1)) if i < count else zero for i in range(length)]


def real_inputs(g: Graph, length: int, count: int) -> Sequence:
    return [Complex(g.input(i) if i < count else None, None) for i in range(length)]


def packed_inputs(g: Graph, length: int) -> Sequence:
    x = [Complex(g.input(0), None)] * length
    for k in range(1, length // 2 + 1):
        nyquist = 2 * k == length
        x[k] = Complex(g.input(2 * k - 1), None if nyquist else g.input(2 * k))
        x[length - k] = conjugate(g, x[k])
    return x


def complex_outputs(y: Sequence, count: int) -> list[tuple[int, Term]]:
    return [(2 * k + part, y[k][part]) for k in range(count) for part in (0, 1)]


def packed_outputs(y: Sequence) -> list[tuple[int, Term]]:
    length = len(y)
    outputs = [(0, y[0].re)]
    for k in range(1, length // 2 + 1):
        outputs.append((2 * k - 1, y[k].re))
        if 2 * k != length:
            outputs.append((2 * k, y[k].im))
    return outputs


def fft_complex(length: int, count: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    return Transform(g, complex_outputs(dft(g, complex_inputs(g, length, count), -1, plan), length))


def fft_complex_inverse(length: int, count: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    return Transform(g, complex_outputs(dft(g, complex_inputs(g, length, length), 1, plan), count))


def fft_real(length: int, count: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    return Transform(g, packed_outputs(dft(g, real_inputs(g, length, count), -1, plan)))


def fft_real_inverse(length: int, count: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    y = dft(g, packed_inputs(g, length), 1, plan)
    return Transform(g, [(i, y[i].re) for i in range(count)])


KINDS: dict[str, Callable[[int, int, Plan], Transform]] = {
    "fft_real": fft_real,
    "fft_real_inverse": fft_real_inverse,
    "fft_complex": fft_complex,
    "fft_complex_inverse": fft_complex_inverse,
}


def best_transform(kind: str, length: int, count: int) -> Transform:
    """The transform with the fewest operations over all plans; `count` entries are read (or written, inverse)."""
    return min((KINDS[kind](length, count, plan) for plan in plans(length)), key=operation_count)


# ---- steps of composed transforms -----------------------------------------------------------------------------------
#
# Butterflies over the bins of equal number of `length` interleaved sub-sequences' spectra (see fft_composed-inl.h). Of
# a real sequence only half of each spectrum is kept: its middle bins have real entries, and belong to frequencies half
# a bin off.


def half_mirrored(g: Graph, y: Sequence) -> Sequence:
    """Entries from the middle on stand for the bins mirrored: their conjugates."""
    return [value if 2 * k < len(y) else conjugate(g, value) for k, value in enumerate(y)]


def step_real(length: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    return Transform(g, complex_outputs(half_mirrored(g, dft(g, complex_inputs(g, length, length), -1, plan)), length))


def step_real_inverse(length: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    return Transform(g, complex_outputs(dft(g, half_mirrored(g, complex_inputs(g, length, length)), 1, plan), length))


def as_bins(entries: list[tuple[int, Term]]) -> list[tuple[int, Term]]:
    """Packed entries numbered like complex ones, so that bins may lie apart: r0 in the place of i0."""
    return [(i + 1, term) for i, term in entries]


def step_real_first(length: int, plan: Plan) -> Transform:
    transform = fft_real(length, length, plan)
    return Transform(transform.graph, as_bins(transform.outputs))


def step_real_first_inverse(length: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    x = [Complex(g.input(1), None)] * length
    for k in range(1, length // 2 + 1):
        x[k] = Complex(g.input(2 * k), None if 2 * k == length else g.input(2 * k + 1))
        x[length - k] = conjugate(g, x[k])
    return Transform(g, [(i, value.re) for i, value in enumerate(dft(g, x, 1, plan))])


def step_real_middle(length: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    x = [twiddle(g, Complex(g.input(j), None), j, 2 * length, -1) for j in range(length)]
    y = dft(g, x, -1, plan)
    return Transform(g, [(2 * k + part, y[k][part]) for k in range(length) for part in (0, 1) if 2 * k + part < length])


def step_real_middle_inverse(length: int, plan: Plan) -> Transform:
    g = Graph(ONE)
    x = [Complex(None, None)] * length
    for k in range((length + 1) // 2):
        x[k] = Complex(g.input(2 * k), None if 2 * k + 1 == length else g.input(2 * k + 1))
        x[length - 1 - k] = conjugate(g, x[k])
    y = dft(g, x, 1, plan)
    return Transform(g, [(j, twiddle(g, y[j], j, 2 * length, 1).re) for j in range(length)])


STEPS: dict[str, Callable[[int, Plan], Transform]] = {
    "step_real": step_real,
    "step_real_inverse": step_real_inverse,
    "step_complex": lambda length, plan: fft_complex(length, length, plan),
    "step_complex_inverse": lambda length, plan: fft_complex_inverse(length, length, plan),
    "step_real_first": step_real_first,
    "step_real_first_inverse": step_real_first_inverse,
    "step_real_middle": step_real_middle,
    "step_real_middle_inverse": step_real_middle_inverse,
}


def best_step(kind: str, length: int) -> Transform:
    return min((STEPS[kind](length, plan) for plan in plans(length)), key=operation_count)
