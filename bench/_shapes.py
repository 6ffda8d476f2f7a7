"""The problems that the benchmarks measure: those of a file, read as the tests read them, and random ones."""

from __future__ import annotations

import math
import random
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The reader of tests/shapes lives beside the tests, which benchmark and tests share with their problems.
sys.path.insert(0, str(ROOT / "tests" / "python"))

from shapes import PASSES, Problem, named_problems  # noqa: E402

__all__ = ["LAYERS", "PASSES", "Problem", "named_problems", "random_problems"]

LAYERS = ROOT / "tests" / "shapes" / "layers.txt"

# Bounds of a random problem: a pass at the speed of direct convolution then takes about 0.1 s on one core. PyTorch's
# gradients of some depthwise layers take seconds all the same.
MAX_MULTIPLICATIONS = 4e9
MAX_ELEMENTS = 16e6


def random_problems(count: int, seed: int) -> dict[str, Problem]:
    """`count` problems, the same for the same seed, named by their own text."""
    rng = random.Random(seed)
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        problem = _draw(rng)
        if _measurable(problem):
            problems[str(problem)] = problem
    return problems


def _draw(rng: random.Random) -> Problem:
    """Sizes are log-uniform; kernel, stride and dilation are equal along all axes, as in most networks."""
    rank = rng.choices((1, 2, 3), weights=(1, 4, 1))[0]
    kernel, dilation = _log_uniform(rng, 1, 31), rng.choices((1, 2), weights=(4, 1))[0]
    padding = rng.choice((0, dilation * (kernel - 1) // 2))
    in_channels, out_channels, groups = _draw_channels(rng)
    return Problem.parse(
        f"n{_log_uniform(rng, 1, 32)}c{in_channels}k{out_channels} "
        f"i{'x'.join(str(_log_uniform(rng, 7, 224)) for _ in range(rank))} r{'x'.join([str(kernel)] * rank)} "
        f"s{rng.choices((1, 2), weights=(3, 1))[0]} p{padding} d{dilation} g{groups} f32"
    )


def _draw_channels(rng: random.Random) -> tuple[int, int, int]:
    """Input channels, output channels, groups: one group mostly, else some, else one per channel."""
    in_channels, out_channels = _log_uniform(rng, 1, 512), _log_uniform(rng, 1, 512)
    kind = rng.choices(("one", "some", "all"), weights=(3, 1, 1))[0]
    if kind == "all":
        return in_channels, in_channels, in_channels
    if kind == "some":
        groups = rng.choice((2, 4, 8))
        return max(1, in_channels // groups) * groups, max(1, out_channels // groups) * groups, groups
    return in_channels, out_channels, 1


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return int(math.exp(rng.uniform(math.log(low), math.log(high + 1))))


def _measurable(problem: Problem) -> bool:
    if min(problem.output) < 1:
        return False
    sizes = (problem.input_size, problem.weight_size, problem.output_size)
    return problem.multiplications <= MAX_MULTIPLICATIONS and sum(map(math.prod, sizes)) <= MAX_ELEMENTS
