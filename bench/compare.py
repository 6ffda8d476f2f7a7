"""Compare the speed of two installed builds of triconv: `bench/METHOD.md` says when a change counts.

    python bench/compare.py OLD NEW [--threads 1] [--filter REGEX]

OLD and NEW are each a Python interpreter, a virtual environment or a directory of packages that holds triconv. Exits
with 1 if NEW is slower somewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any

SIGNIFICANCE = 0.01  # chance that any change at all is flagged in a run where nothing changed
SAMPLE_SECONDS = 1e-3  # a sample repeats the call until it takes at least this long
LAYERS = Path(__file__).resolve().parents[1] / "tests" / "shapes" / "layers.txt"


# ---- Worker: runs inside one of the two builds -----------------------------------------------------------------------


def serve() -> None:
    """Answer requests, one JSON object per line, until the input ends."""
    import triconv as tc
    from _shapes import Problem, named_problems

    def info(_: dict[str, Any]) -> dict[str, Any]:
        return {"path": tc.__file__, **tc.build_info()._asdict()}

    def problems(request: dict[str, Any]) -> dict[str, str]:
        return {name: str(problem) for name, problem in named_problems(request["file"]).items()}

    def load(request: dict[str, Any]) -> dict[str, Any]:
        """Make the arrays, run once and once more for the time of a warm call."""
        tc.set_num_threads(request["threads"])
        problem = Problem.parse(request["problem"])
        arrays = problem.random_arrays(0)
        state["call"] = lambda: problem.run(request["pass"], *arrays)
        state["call"]()
        run = tc.last_run()
        assert run is not None, "a convolution has just run"
        return {"seconds": timed(1), "algorithm": run.algorithm}

    def timed(count: int) -> float:
        call = state["call"]
        begin = perf_counter()
        for _ in range(count):
            call()
        return (perf_counter() - begin) / count

    state: dict[str, Any] = {}
    handlers: dict[str, Callable[[dict[str, Any]], Any]]
    handlers = {"info": info, "problems": problems, "load": load, "time": lambda request: timed(request["count"])}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(handlers[request["do"]](request)), flush=True)


class Worker:
    """A process that runs one build; it computes only while it is asked to."""

    def __init__(self, build: str) -> None:
        command, environment = launch(Path(build))
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process that runs {self._process.args!r} ended; its message is above")
        return json.loads(answer)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


def launch(build: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a worker for an interpreter, a virtual environment or a directory of packages."""
    environment = dict(os.environ)
    script = [str(Path(__file__).resolve()), "--worker"]
    if (build / "triconv").is_dir():
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(build.resolve()), *([inherited] if inherited else [])])
        return [sys.executable, *script], environment
    python = next((path for path in (build / "bin" / "python", build) if path.is_file()), None)
    if python is None:
        raise SystemExit(f"{build} is no Python interpreter, no virtual environment and holds no directory triconv")
    return [str(python.absolute()), *script], environment


# ---- Statistics ------------------------------------------------------------------------------------------------------


@dataclass
class Change:
    """One pass of one problem: the time with NEW over the time with OLD, in pairs of neighbouring samples."""

    name: str
    problem: str
    which: str
    threads: int
    old_ms: float
    new_ms: float
    old_algorithm: str
    new_algorithm: str
    ratio: float
    p_value: float
    consistent: bool
    flag: str = ""


def sign_test(ratios: list[float]) -> float:
    """Two-sided p-value of the hypothesis that a ratio is as often above 1 as below; it assumes no distribution."""
    above, below = sum(ratio > 1 for ratio in ratios), sum(ratio < 1 for ratio in ratios)
    n = above + below
    tail = sum(math.comb(n, k) for k in range(min(above, below) + 1)) / 2.0**n
    return min(1.0, 2 * tail)


def flag(change: Change, comparisons: int, threshold: float) -> str:
    """Empty unless the change is significant, beyond the threshold, and the same way in every pair of processes.

    The significance level is shared among all comparisons of the run (Bonferroni).
    """
    significant = change.p_value * comparisons < SIGNIFICANCE and change.consistent
    if significant and change.ratio > 1 + threshold:
        return "SLOWER"
    return "faster" if significant and change.ratio < 1 / (1 + threshold) else ""


def fewest_rounds(comparisons: int) -> int:
    """Rounds below which not even a unanimous sign test is significant."""
    return math.floor(math.log2(2 * comparisons / SIGNIFICANCE)) + 1


# ---- Measurement -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    name: str
    problem: str
    which: str
    threads: int


@dataclass
class Samples:
    """Seconds per call, one list per pair of processes; entry i of both is of the same round."""

    old: list[list[float]]
    new: list[list[float]]
    algorithms: tuple[str, str] = ("", "")


def sample_pair(old: Worker, new: Worker, entry: Entry, rounds: int, samples: Samples) -> None:
    """Alternate between the two, the first of a round being the second of the next."""
    request = {"problem": entry.problem, "pass": entry.which, "threads": entry.threads}
    loaded = [worker.ask("load", **request) for worker in (old, new)]
    samples.algorithms = (loaded[0]["algorithm"], loaded[1]["algorithm"])
    count = max(1, math.ceil(SAMPLE_SECONDS / max(1e-9, min(answer["seconds"] for answer in loaded))))
    times: dict[Worker, list[float]] = {old: [], new: []}
    for index in range(rounds):
        for worker in (old, new) if index % 2 == 0 else (new, old):
            times[worker].append(float(worker.ask("time", count=count)))
    samples.old.append(times[old])
    samples.new.append(times[new])


def measure(builds: tuple[str, str], entries: list[Entry], processes: int, rounds: int) -> list[Change]:
    """`rounds` in all, spread over pairs of fresh processes: where memory lies differs from process to process."""
    samples = {entry: Samples([], []) for entry in entries}
    shares = [rounds // processes + (index < rounds % processes) for index in range(processes)]
    for index, share in enumerate(shares):
        with Worker(builds[0]) as old, Worker(builds[1]) as new:
            for entry in entries:
                sample_pair(old, new, entry, share, samples[entry])
        print(f"pair of processes {index + 1} of {processes} done", file=sys.stderr, flush=True)
    return [summarize(entry, samples[entry]) for entry in entries]


def summarize(entry: Entry, samples: Samples) -> Change:
    by_process = [[n / o for o, n in zip(*pair, strict=True)] for pair in zip(samples.old, samples.new, strict=True)]
    ratios = [ratio for group in by_process for ratio in group]
    medians = [statistics.median(group) for group in by_process]
    return Change(
        **asdict(entry),
        old_ms=1e3 * statistics.median(value for group in samples.old for value in group),
        new_ms=1e3 * statistics.median(value for group in samples.new for value in group),
        old_algorithm=samples.algorithms[0],
        new_algorithm=samples.algorithms[1],
        ratio=statistics.median(ratios),
        p_value=sign_test(ratios),
        consistent=min(medians) > 1 or max(medians) < 1,
    )


# ---- Command line ----------------------------------------------------------------------------------------------------


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--shapes", type=Path, default=LAYERS, metavar="FILE", help="named problems (%(default)s)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], metavar="T", help="measure with each (%(default)s)"
    )
    parser.add_argument("--filter", default="", metavar="REGEX", help="only where 'name pass' matches")
    parser.add_argument("--repeats", type=int, default=24, help="samples of each build, in pairs (%(default)s)")
    parser.add_argument("--processes", type=int, default=3, help="pairs of processes to spread them over (%(default)s)")
    parser.add_argument("--threshold", type=float, default=0.1, help="smallest change to flag (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write every comparison")
    parser.add_argument("--markdown", metavar="FILE", help="write the table here instead of printing it")
    arguments = parser.parse_args()
    if min([*arguments.threads, arguments.processes]) < 1 or arguments.repeats < arguments.processes:
        parser.error("--threads and --processes must be at least 1, --repeats at least --processes")
    return arguments


def describe(builds: tuple[str, str]) -> list[dict[str, Any]]:
    infos = []
    for build in builds:
        with Worker(build) as worker:
            infos.append({"build": build, **worker.ask("info")})
    return infos


def select_entries(arguments: argparse.Namespace) -> list[Entry]:
    with Worker(arguments.new) as worker:
        problems = worker.ask("problems", file=str(arguments.shapes.resolve()))
    return [
        Entry(name, problem, which, threads)
        for threads in dict.fromkeys(arguments.threads)
        for name, problem in problems.items()
        for which in ("forward", "input_grad", "weight_grad")
        if re.search(arguments.filter, f"{name} {which}")
    ]


def markdown(infos: list[dict[str, Any]], changes: list[Change], threshold: float) -> str:
    lines = [
        f"- {label}: {info['build']}, triconv {info['version']}, {info['isa']}, {info['compiler']}, {info['path']}"
        for label, info in zip(("OLD", "NEW"), infos, strict=True)
    ]
    flagged = sum(bool(change.flag) for change in changes)
    lines += ["", f"{flagged} of {len(changes)} changed significantly and by more than {100 * threshold:.0f}%.", ""]
    lines += ["| layer | pass | threads | old ms | new ms | new / old | p | algorithm | |", "|" + " --- |" * 9]
    for change in changes:
        algorithms = dict.fromkeys((change.old_algorithm, change.new_algorithm))
        cells = [change.name, change.which, change.threads, f"{change.old_ms:.4g}", f"{change.new_ms:.4g}"]
        cells += [f"{change.ratio:.3f}", f"{change.p_value:.1g}", " -> ".join(algorithms), change.flag]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    arguments = parse_arguments()
    builds = (arguments.old, arguments.new)
    infos = describe(builds)
    entries = select_entries(arguments)
    if not entries:
        raise SystemExit(f"no problem and pass matches {arguments.filter!r}")
    fewest = fewest_rounds(len(entries))
    if arguments.repeats < fewest:
        raise SystemExit(f"{len(entries)} comparisons need --repeats {fewest} or more to find anything significant")
    changes = measure(builds, entries, arguments.processes, arguments.repeats)
    for change in changes:
        change.flag = flag(change, len(changes), arguments.threshold)
    if arguments.json:
        text = json.dumps({"builds": infos, "changes": [asdict(change) for change in changes]}, indent=1)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    table = markdown(infos, changes, arguments.threshold)
    if arguments.markdown:
        Path(arguments.markdown).write_text(table, encoding="utf-8")
    else:
        print(table)
    return 1 if any(change.flag == "SLOWER" for change in changes) else 0


if __name__ == "__main__":
    if "--worker" in sys.argv[1:]:
        serve()
    else:
        sys.exit(main())
