"""How `peers.py` measures: times of programs in interleaved samples, whether their results agree, and the memory that
triconv takes; and the programs that compute one pass of one layer. A measurement ends as a `Row`.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triconv as tc
from _shapes import Problem

Call = Callable[..., Any]

TORCH_LAYOUTS = ("PyTorch NCHW", "PyTorch channels_last")
# A sample repeats the call until it takes at least this long: far above the clock's resolution and the loop around it.
SAMPLE_SECONDS = 1e-3
# OpenMP's threads spin for a while after their work (libgomp: 300,000 pauses, some 20 ms). With more than one thread
# every sample waits longer than that, or PyTorch's idle threads would take triconv's cores.
SPIN_SECONDS = 0.05
# A program so much slower than the best of its kind keeps its first sample only.
HOPELESS = 3.0
# Largest |triconv - peer| / max |peer|: far above any algorithm's error, far below a wrong result's.
TOLERANCE = 1e-3
# What "auto" never uses is no alternative to it.
MAX_WORKSPACE = 2**30


# ---- Timing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """Something to time: `kind` says what it competes with in its own camp, "own", "peer" or "other". Ratios are to the
    fastest of the peers.
    """

    name: str
    kind: str
    call: Call


@dataclass(frozen=True)
class Budget:
    """At most `repeats` samples of each program, and about `seconds` for all samples of a measurement."""

    repeats: int
    seconds: float


def sample(call: Call, count: int) -> float:
    """Seconds of one call, the mean of `count`."""
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


def estimate(call: Call) -> float:
    """Seconds of one call, the better of two where that takes little time."""
    first = sample(call, 1)
    return first if first > 0.5 else min(first, sample(call, 1))


def interleaved_samples(programs: list[Program], budget: Budget, pause: float) -> dict[str, list[float]]:
    """Seconds per call: in every round each program once, every other round in reversed order.

    A call that is not timed precedes each sample: it finds what other programs have left in the caches, and its threads
    asleep. Expects that each program has run before. The first program is always sampled in full.
    """
    estimates = {program.name: estimate(program.call) for program in programs}
    rivals = _still_in_the_race(programs, estimates)
    counts = {p.name: max(1, math.ceil(SAMPLE_SECONDS / max(estimates[p.name], 1e-9))) for p in rivals}
    round_seconds = sum((counts[p.name] + 1) * estimates[p.name] + pause for p in rivals)
    samples = {name: [] if name in counts else [seconds] for name, seconds in estimates.items()}
    for index in range(min(budget.repeats, max(2, int(budget.seconds / round_seconds)))):
        for program in rivals if index % 2 == 0 else reversed(rivals):
            if pause > 0:
                time.sleep(pause)
            program.call()
            samples[program.name].append(sample(program.call, counts[program.name]))
    return samples


def _still_in_the_race(programs: list[Program], seconds: dict[str, float]) -> list[Program]:
    best: dict[str, float] = {}
    for program in programs:
        best[program.kind] = min(seconds[program.name], best.get(program.kind, math.inf))
    return [
        program
        for program in programs
        if program is programs[0] or seconds[program.name] <= max(HOPELESS * best[program.kind], 10 * SAMPLE_SECONDS)
    ]


def quartiles(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


# ---- Programs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrays:
    x: np.ndarray
    w: np.ndarray
    dy: np.ndarray


def triconv_call(problem: Problem, which: str, arrays: Arrays, algorithm: str = "auto") -> Call:
    """The layer function that a user would call; planning (cached), conversions and allocation are inside."""
    x, w, dy = arrays.x, arrays.w, arrays.dy
    options = {**problem.parameters, "algorithm": algorithm}
    if which == "forward":
        return partial(getattr(tc, f"conv{problem.rank}d"), x, w, **options)
    if which == "input_grad":
        return partial(getattr(tc.grad, f"conv{problem.rank}d_input"), problem.input_size, w, dy, **options)
    return partial(getattr(tc.grad, f"conv{problem.rank}d_weight"), x, problem.weight_size, dy, **options)


def torch_calls(problem: Problem, which: str, arrays: Arrays) -> list[Program]:
    """PyTorch in each memory format, on tensors that already have it."""
    import torch

    formats = [torch.contiguous_format, {2: torch.channels_last, 3: torch.channels_last_3d}.get(problem.rank)]
    programs = []
    for name, layout in zip(TORCH_LAYOUTS, formats, strict=True):
        if layout is not None:
            x, w, dy = (torch.from_numpy(a).contiguous(memory_format=layout) for a in (arrays.x, arrays.w, arrays.dy))
            programs.append(Program(name, "peer", _torch_call(problem, which, x, w, dy)))
    return programs


def _torch_call(problem: Problem, which: str, x: Any, w: Any, dy: Any) -> Call:
    import torch

    if any(low != high for low, high in problem.padding):
        raise ValueError(f"{problem}: PyTorch's padding is the same at both ends")
    padding = [low for low, _ in problem.padding]
    stride, dilation = list(problem.stride), list(problem.dilation)
    if which == "forward":
        call = getattr(torch.nn.functional, f"conv{problem.rank}d")
        return partial(call, x, w, None, stride, padding, dilation, problem.groups)
    mask = [which == "input_grad", which == "weight_grad", False]
    transposed, output_padding = False, [0] * problem.rank
    geometry = (stride, padding, dilation, transposed, output_padding, problem.groups)
    index = mask.index(True)
    backward = torch.ops.aten.convolution_backward
    return lambda: backward(dy, x, w, None, *geometry, mask)[index]


def single_channel_calls(problem: Problem, which: str, arrays: Arrays) -> list[Program]:
    """SciPy and OpenCV, where they are installed, for what they do too: one image, one kernel, stride 1, forward."""
    plain = {*problem.stride, *problem.dilation, problem.batch, problem.in_channels, problem.out_channels} == {1}
    if which != "forward" or not plain:
        return []
    programs = []
    x, w = arrays.x[0, 0], arrays.w[0, 0]
    if importlib.util.find_spec("scipy"):
        from scipy import signal

        padded = np.pad(x, problem.padding)
        programs.append(Program("SciPy", "other", lambda: signal.correlate(padded, w, mode="valid")))
    same = all(r % 2 == 1 and ends == (r // 2, r // 2) for r, ends in zip(w.shape, problem.padding, strict=True))
    if problem.rank == 2 and same and importlib.util.find_spec("cv2"):
        import cv2

        programs.append(Program("OpenCV", "other", lambda: cv2.filter2D(x, -1, w, borderType=cv2.BORDER_CONSTANT)))
    return programs


def candidates(problem: Problem, which: str) -> tuple[tc.Candidate, ...]:
    rows = tc.explain(problem.input_size, problem.weight_size, **problem.parameters, dtype=problem.dtype)
    chosen: tuple[tc.Candidate, ...] = getattr(rows, which)
    return chosen


def own_alternatives(problem: Problem, which: str, chosen: str) -> list[str]:
    """Each algorithm with its best tile, and the best three of all, by the cost model; not the chosen one.

    Of those that are as accurate as "auto" demands.
    """
    usable = (
        row
        for row in candidates(problem, which)
        if row.possible and row.workspace_bytes <= MAX_WORKSPACE and "tolerance" not in row.reason
    )
    rows = sorted(usable, key=lambda row: row.predicted_seconds)
    best_of_family = {row.algorithm.split(":")[0]: row.algorithm for row in reversed(rows)}
    names = dict.fromkeys([*best_of_family.values(), *(row.algorithm for row in rows[:3])])
    return [name for name in names if name != chosen]


# ---- Measurements ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """What one measurement is about: one pass of one problem with one number of threads."""

    name: str
    problem: Problem
    which: str
    threads: int


@dataclass
class Comparison:
    """What the times and results of some programs say."""

    triconv_ms: float
    peers_ms: dict[str, float]
    own_ms: dict[str, float]  # triconv's other algorithms, where they were timed
    samples: dict[str, int]
    ratio: float  # of the fastest peer to triconv, median over the rounds; 0 if triconv's result is wrong
    ratio_quartiles: tuple[float, float]
    wrong: list[str]  # the programs whose result is not the first peer's


@dataclass
class Row:
    """What came out of one measurement: its subject, the fields of its `Comparison`, and what was made of it."""

    name: str
    problem: str
    which: str  # the pass, or the dtype
    threads: int
    algorithm: str
    triconv_ms: float
    peers_ms: dict[str, float]
    own_ms: dict[str, float]
    samples: dict[str, int]
    ratio: float
    ratio_quartiles: tuple[float, float]
    wrong: list[str]
    direct_gflops: float | None = None
    limit_fraction: float | None = None
    target: float | None = None
    met: bool | None = None
    workspace_bytes: int | None = None
    peak_extra_bytes: int | None = None
    memory_target_bytes: int | None = None

    @property
    def own_best(self) -> float:
        """Time by the chosen algorithm over the time by the fastest of triconv's own."""
        return self.triconv_ms / min([self.triconv_ms, *self.own_ms.values()])


def set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    tc.set_num_threads(threads)
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(threads)


def fma_peak_gflops(seconds: float = 1.5) -> float:
    """Best speed of a float32 matrix product that is large enough to run at the arithmetic's limit."""
    import torch

    size = 1536
    a, b, c = (torch.ones(size, size) for _ in range(3))
    end = time.perf_counter() + seconds
    best = sample(partial(torch.mm, a, b, out=c), 1)
    while time.perf_counter() < end:
        best = min(best, sample(partial(torch.mm, a, b, out=c), 1))
    return 2e-9 * size**3 / best


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected value; not finite counts as infinite."""
    difference = float(np.abs(actual.reshape(expected.shape) - expected).max(initial=0))
    scale = float(np.abs(expected).max(initial=0))
    if not math.isfinite(difference):
        return math.inf
    return difference / scale if scale > 0 else difference


def check_results(programs: list[Program]) -> list[str]:
    """Run each program once, the warm-up; return those that disagree with the first peer."""
    reference = next(program for program in programs if program.kind == "peer")
    expected = np.asarray(reference.call())
    wrong = []
    for program in programs:
        if program is not reference and not relative_error(np.asarray(program.call()), expected) <= TOLERANCE:
            wrong.append(program.name)
    return wrong


def compare(programs: list[Program], threads: int, budget: Budget) -> Comparison:
    """Check the results of the programs and time them. The first is triconv's; some are peers."""
    wrong = check_results(programs)
    samples = interleaved_samples(programs, budget, SPIN_SECONDS if threads > 1 else 0)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    rounds = len(samples["triconv"])
    peers = [p.name for p in programs if p.kind == "peer" and len(samples[p.name]) == rounds]
    fastest = min(peers, key=medians.__getitem__)
    pairs = [peer / own for peer, own in zip(samples[fastest], samples["triconv"], strict=True)]
    return Comparison(
        triconv_ms=1e3 * medians["triconv"],
        peers_ms={p.name: 1e3 * medians[p.name] for p in programs if p.kind != "own"},
        own_ms={p.name: 1e3 * medians[p.name] for p in programs[1:] if p.kind == "own"},
        samples={name: len(values) for name, values in samples.items()},
        ratio=0.0 if "triconv" in wrong else statistics.median(pairs),
        ratio_quartiles=quartiles(pairs),
        wrong=wrong,
    )


def measure(entry: Entry, peak_gflops: float, budget: Budget, *, alternatives: bool) -> Row:
    """Time one pass by every program; `alternatives` adds triconv's other algorithms."""
    problem, which = entry.problem, entry.which
    arrays = Arrays(*problem.random_arrays(0))
    auto = triconv_call(problem, which, arrays)
    auto()
    run = tc.last_run()
    assert run is not None, "a convolution has just run"
    others = own_alternatives(problem, which, run.algorithm) if alternatives else []
    programs = [
        Program("triconv", "own", auto),
        *torch_calls(problem, which, arrays),
        *single_channel_calls(problem, which, arrays),
        *(Program(other, "own", triconv_call(problem, which, arrays, other)) for other in others),
    ]
    comparison = compare(programs, entry.threads, budget)
    row = Row(entry.name, str(problem), which, entry.threads, run.algorithm, **vars(comparison))
    set_speeds(row, problem, peak_gflops)
    return row


def set_speeds(row: Row, problem: Problem, peak_gflops: float) -> None:
    chosen = next(candidate for candidate in candidates(problem, row.which) if candidate.algorithm == row.algorithm)
    peak = peak_gflops * 4 / problem.dtype.itemsize  # float64 has half as many lanes
    seconds = 1e-3 * row.triconv_ms
    row.direct_gflops = 2e-9 * problem.multiplications / seconds
    row.limit_fraction = 2e-9 * chosen.multiplications / peak / seconds


# ---- Memory ----------------------------------------------------------------------------------------------------------


def _status_bytes(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return 1024 * int(found[1])


def resident_rise(call: Call) -> tuple[int, Any]:
    """How far a call raises the process's resident memory, and what it returns."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets the high-water mark to the present value
    before = _status_bytes("VmRSS")
    result = call()
    return max(0, _status_bytes("VmHWM") - before), result


def in_fresh_process(function: Call, *arguments: Any) -> Any:
    """What the function returns in a process of its own: this one keeps workspace from before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_extra_bytes(text: str, which: str, threads: int, algorithm: str) -> int:
    """How far one pass raises the resident memory of this process."""
    tc.set_num_threads(threads)
    problem = Problem.parse(text)
    arrays = Arrays(*problem.random_arrays(0))
    out = np.ones(problem.result_size(which), problem.dtype)
    # Code, tables and threads are there before the measurement.
    small = Problem.parse(f"n2c16k16 i{'x'.join(['12'] * problem.rank)} r3 p1 f32")
    triconv_call(small, which, Arrays(*small.random_arrays(0)), algorithm.split(":")[0])()
    return resident_rise(partial(triconv_call(problem, which, arrays), out=out))[0]


def add_memory(row: Row, problem: Problem) -> None:
    row.workspace_bytes = getattr(problem.plan().workspace_bytes, row.which)
    row.peak_extra_bytes = in_fresh_process(peak_extra_bytes, row.problem, row.which, row.threads, row.algorithm)
