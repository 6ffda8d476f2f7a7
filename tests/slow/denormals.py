"""What denormal numbers cost: every pass by every algorithm, at most 1.5 times the time of normal numbers.

Inputs that are denormal, and inputs whose products are; the least time of several interleaved repetitions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import triconv as tc

LIMIT = 1.5
LAYERS = {
    "dense": ((4, 32, 48, 48), (32, 32, 3, 3), 1),
    "few channels": ((2, 1, 192, 192), (2, 1, 5, 5), 1),
    "depthwise": ((4, 64, 48, 48), (64, 1, 5, 5), 64),
}


def inputs(kind: str, x_size, w_size, dtype) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = (rng.uniform(0.5, 1, size).astype(dtype) for size in (x_size, w_size))
    smallest = np.finfo(dtype).smallest_normal
    if kind == "denormal":
        return x * (smallest / 4), w * (smallest / 4)
    if kind == "denormal products":
        scale = np.sqrt(smallest) / 64
        return x * scale, w * scale
    return x, w


def times(passes: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Least seconds of each kind's call."""
    best = dict.fromkeys(passes, float("inf"))
    for _ in range(repeats):
        for kind, call in passes.items():
            begin = time.perf_counter()
            call()
            best[kind] = min(best[kind], time.perf_counter() - begin)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    kinds = ("normal", "denormal", "denormal products")
    worst = 0.0
    for name, (x_size, w_size, groups) in LAYERS.items():
        for dtype in (np.float32, np.float64):
            for algorithm in ("direct", "fft", "winograd"):
                plan = tc.plan_conv2d(x_size, w_size, groups=groups, dtype=dtype, algorithm=algorithm)
                calls = {which: {} for which in ("forward", "input_grad", "weight_grad")}
                for kind in kinds:
                    x, w = inputs(kind, x_size, w_size, dtype)
                    dy = np.resize(x, plan.output_size)
                    calls["forward"][kind] = partial(plan.forward, x, w)
                    calls["input_grad"][kind] = partial(plan.input_grad, w, dy)
                    calls["weight_grad"][kind] = partial(plan.weight_grad, x, dy)
                for which, passes in calls.items():
                    best = times(passes, repeats)
                    ratios = [best[kind] / best["normal"] for kind in kinds[1:]]
                    worst = max(worst, *ratios)
                    print(
                        f"{name:13} {np.dtype(dtype).name} {algorithm:9} {which:12} {best['normal'] * 1e3:7.2f} ms, "
                        f"denormal x{ratios[0]:.2f}, denormal products x{ratios[1]:.2f}"
                    )
    print(f"{tc.build_info().isa}: at most x{worst:.2f} (limit x{LIMIT})")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
