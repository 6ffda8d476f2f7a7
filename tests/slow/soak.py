"""Mixed random work for some minutes: the resident memory stays flat and the bits stay the same.

Layers of random shapes, algorithms and numbers of threads, signals, filters, training steps, results kept for a while,
plans of more shapes than the cache holds, other Python threads, and child processes. Resident memory is read after
release_memory() at the end of each of several equal intervals, when the C library has given back what it keeps of freed
memory (a question of fragments in the heaps of many threads, not of leaks). In the second half it must not rise by more
than a few mebibytes above the first half, in which the caches fill.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
import time

import numpy as np
import triconv as tc
from triconv import ndimage, signal

MIB = 1 << 20
ALLOWED_GROWTH = 8 * MIB


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def give_back_memory() -> None:
    tc.release_memory()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def random_layer(rng: np.random.Generator) -> None:
    rank = int(rng.integers(1, 4))
    longest = (400, 48, 12)[rank - 1]
    groups = int(rng.choice([1, 1, 1, 4, 16]))
    channels = groups * rng.integers(1, 6, 2)
    size = tuple(int(n) for n in rng.integers(7, longest, rank))
    kernel = tuple(int(n) for n in rng.integers(1, 6, rank))
    dtype = rng.choice([np.float32, np.float64])
    x = rng.normal(size=(int(rng.integers(1, 4)), int(channels[0]), *size)).astype(dtype)
    w = rng.normal(size=(int(channels[1]), int(channels[0]) // groups, *kernel)).astype(dtype)
    algorithm = str(rng.choice(["auto", "direct", "fft", "winograd"]))
    convolve = (tc.conv1d, tc.conv2d, tc.conv3d)[rank - 1]
    make_plan = (tc.plan_conv1d, tc.plan_conv2d, tc.plan_conv3d)[rank - 1]
    parameters = {"padding": 2, "groups": groups, "padding_mode": str(rng.choice(["zeros", "circular", "replicate"]))}
    try:
        plan = make_plan(x.shape, w.shape, dtype=dtype, algorithm=algorithm, **parameters)
    except ValueError:
        return  # no such transform
    if rng.integers(0, 20) == 0:
        x.flat[int(rng.integers(0, x.size))] = np.nan
    y, backward = plan.step(x, w)
    dx, dw = backward(y)
    np.testing.assert_array_equal(plan.prepare(w).forward(x), plan.forward(x, w))
    np.testing.assert_array_equal(convolve(x, w, algorithm=algorithm, **parameters), plan.forward(x, w))
    assert dx.shape == x.shape
    assert dw.shape == w.shape


def random_signal(rng: np.random.Generator) -> None:
    samples = rng.normal(size=int(rng.integers(1, 60_000)))
    kernel = rng.normal(size=int(rng.integers(1, 3_000)))
    whole = signal.oaconvolve(samples, kernel)
    stream = signal.OverlapAdd(kernel)
    cut = int(rng.integers(0, samples.size + 1))
    parts = np.concatenate([stream.process(samples[:cut]), stream.process(samples[cut:]), stream.flush()])
    np.testing.assert_allclose(parts, whole, atol=1e-9)
    image = rng.integers(0, 256, tuple(rng.integers(5, 300, 2)), dtype=np.uint8)
    ndimage.gaussian_filter(image, sigma=float(rng.uniform(0.5, 4)), mode=str(rng.choice(["mirror", "wrap"])))


def large_results(rng: np.random.Generator, kept: list) -> None:
    x = np.ones((1, 1, 1024, int(rng.integers(300, 3000))), np.float32)
    kept.append(tc.conv2d(x, np.ones((1, 1, 3, 3), np.float32)))
    if len(kept) > 4:
        kept.pop(int(rng.integers(0, len(kept))))


def child(rng: np.random.Generator) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            random_layer(rng)
        except BaseException:
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        raise RuntimeError("a child failed")


def work(seed: int, until: float) -> int:
    rng, kept, rounds = np.random.default_rng(seed), [], 0
    while time.monotonic() < until:
        tc.set_num_threads(int(rng.integers(1, 5)))
        random_layer(rng)
        random_signal(rng)
        large_results(rng, kept)
        threads = [threading.Thread(target=random_layer, args=(np.random.default_rng(rounds + i),)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if rounds % 10 == 0:
            child(rng)
        rounds += 1
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--intervals", type=int, default=10)
    arguments = parser.parse_args()
    interval = arguments.minutes * 60 / arguments.intervals
    begin, levels = time.monotonic(), []
    for i in range(arguments.intervals):
        rounds = work(i, begin + (i + 1) * interval)
        give_back_memory()
        levels.append(resident())
        print(f"{(time.monotonic() - begin) / 60:5.1f} min: {rounds} rounds, {levels[-1] / MIB:.1f} MiB", flush=True)
    half = (len(levels) + 1) // 2
    growth = max(levels[half:], default=0) - max(levels[:half])
    print(f"{tc.build_info().isa}: {growth / MIB:.1f} MiB above the first half (limit {ALLOWED_GROWTH / MIB:.0f})")
    return int(growth > ALLOWED_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
