"""What a plan knows beforehand: the algorithm and costs of each pass, and of the candidates that were not chosen."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Candidate", "Explanation", "PassAlgorithms", "PassBytes", "PassFlops"]


class PassAlgorithms(NamedTuple):
    """The algorithm of each pass run by itself, with its tile: ``"direct"``, ``"fft:16x16"``, ``"winograd:4x4"``.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.plan_conv2d((1, 1, 8, 8), (1, 1, 3, 3), algorithm="direct").algorithm
    PassAlgorithms(forward='direct', input_grad='direct', weight_grad='direct')
    """

    forward: str
    input_grad: str
    weight_grad: str


class PassBytes(NamedTuple):
    """A number of bytes for each pass.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.plan_conv2d((1, 1, 8, 8), (1, 1, 3, 3)).workspace_bytes.forward >= 0
    True
    """

    forward: int
    input_grad: int
    weight_grad: int


class PassFlops(NamedTuple):
    """A number of floating-point operations for each pass.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.plan_conv2d((1, 1, 8, 8), (1, 1, 3, 3)).flops.forward > 0
    True
    """

    forward: float
    input_grad: float
    weight_grad: float


class Candidate(NamedTuple):
    """What one algorithm would cost for one pass, or why it cannot be used: a row of `Explanation`.

    Attributes
    ----------
    algorithm
        Name and tile.
    possible, chosen
        Whether it can compute this problem within the options, and whether it is the one that will.
    reason
        Why it is not possible or not chosen.
    multiplications
        Real multiplications in the products.
    transform_flops
        Floating-point operations in the transforms.
    bytes
        Memory traffic beyond the caches, estimated.
    predicted_seconds
        On one core.
    error_bound
        Largest error relative to the largest sum of ``|input * weight|``; of transforms, over all samples of a tile.
    workspace_bytes
        Memory beside the arrays.

    Examples
    --------
    >>> import triconv as tc
    >>> rows = tc.explain((1, 1, 8, 8), (1, 1, 3, 3)).forward
    >>> [row.chosen for row in rows].count(True)
    1
    """

    algorithm: str
    possible: bool
    chosen: bool
    reason: str
    multiplications: float
    transform_flops: float
    bytes: float
    predicted_seconds: float
    error_bound: float
    workspace_bytes: int


class Explanation(NamedTuple):
    """Every algorithm for every pass of a problem, as `explain` returns it; ``print`` shows it as a table.

    The table has the three tiles of each algorithm that are predicted fastest; the fields have all of them.

    Attributes
    ----------
    problem
        The problem in one line.
    forward, input_grad, weight_grad
        One `Candidate` per algorithm.

    Examples
    --------
    >>> import triconv as tc
    >>> tc.explain((1, 1, 8, 8), (1, 1, 3, 3)).problem
    'n1c1k1 i8x8 r3x3 f32'
    """

    problem: str
    forward: tuple[Candidate, ...]
    input_grad: tuple[Candidate, ...]
    weight_grad: tuple[Candidate, ...]

    def __str__(self) -> str:
        passes = {"forward": self.forward, "input_grad": self.input_grad, "weight_grad": self.weight_grad}
        lines = [self.problem]
        for name, candidates in passes.items():
            shown = _fastest(candidates)
            lines += ["", name, *_table(shown)]
            if len(shown) < len(candidates):
                lines.append(f"   and {len(candidates) - len(shown)} slower tiles")
        return "\n".join(lines)


def _fastest(candidates: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
    """The chosen candidate, the impossible ones, and of each algorithm the three tiles predicted fastest."""
    by_time = sorted(candidates, key=lambda row: row.predicted_seconds)
    seen: dict[str, int] = {}
    kept = set()
    for row in by_time:
        family = row.algorithm.split(":")[0]
        seen[family] = seen.get(family, 0) + row.possible
        if row.chosen or not row.possible or seen[family] <= 3:
            kept.add(row)
    return tuple(row for row in candidates if row in kept)


def _table(candidates: tuple[Candidate, ...]) -> list[str]:
    costs = ("multiplications", "transform flop", "traffic", "workspace", "time, 1 core", "error bound")
    header = ("", "algorithm", *costs)
    rows = [header, *(_cells(candidate) for candidate in candidates)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = []
    for index, cells in enumerate(rows):
        text = "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        reason = candidates[index - 1].reason if index > 0 else ""
        lines.append(f"{text}  {reason}".rstrip())
    return lines


def _cells(candidate: Candidate) -> tuple[str, ...]:
    mark = "*" if candidate.chosen else ""
    if not candidate.possible:
        return (mark, candidate.algorithm, "-", "-", "-", "-", "-", "-")
    return (
        mark,
        candidate.algorithm,
        f"{candidate.multiplications:.3g}",
        f"{candidate.transform_flops:.3g}",
        readable_bytes(candidate.bytes),
        readable_bytes(candidate.workspace_bytes),
        _readable_seconds(candidate.predicted_seconds),
        f"{candidate.error_bound:.1e}",
    )


def readable_bytes(count: float) -> str:
    """Three digits and a unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _readable_seconds(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
