"""Time triconv against the libraries a user could pick instead: `bench/METHOD.md` says how to read the figures.

python bench/peers.py --table --markdown table.md --chart table.png --json table.json
python bench/peers.py --sweep 150 --threads 1 --json sweep.json
python bench/peers.py --signal --threads 1 2 --markdown signal.md

This is the command line; `_measure.py` takes the measurements, of what `_shapes.py` and `_cases.py` list, and
`_report.py` writes them up.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from _cases import Case, add_case_memory, measure_case, signal_entries
from _measure import Budget, Entry, Row, add_memory, fma_peak_gflops, measure, set_threads
from _report import (
    Report,
    draw_chart,
    json_text,
    machine_info,
    markdown,
    number,
    set_signal_target,
    set_target,
    summarize,
)
from _shapes import LAYERS, PASSES, Problem, named_problems, random_problems

# Makes the row for so many threads, of which the FMA peak is known.
Measurement = Callable[[int, float], Row]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--table", action="store_true", help="measure the named problems of --shapes")
    mode.add_argument("--sweep", type=int, metavar="N", help="measure N random problems")
    mode.add_argument("--signal", action="store_true", help="measure convolutions of signals and images")
    parser.add_argument(
        "--shapes", type=Path, default=LAYERS, metavar="FILE", help="what --table measures (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random problems (%(default)s)")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1], metavar="T", help="measure with each (%(default)s)"
    )
    parser.add_argument(
        "--filter", default="", metavar="REGEX", help="only where 'name pass', or 'name dtype', matches"
    )
    parser.add_argument("--repeats", type=int, default=15, help="samples of each program (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="fewer samples, but 2, once a measurement takes this (%(default)s)"
    )
    parser.add_argument(
        "--memory", action="store_true", help="add the workspace and the rise of resident memory (Linux)"
    )
    parser.add_argument("--json", metavar="FILE", help="write every row")
    parser.add_argument("--markdown", metavar="FILE", help="write tables")
    parser.add_argument("--chart", metavar="FILE", help="draw the ratios")
    arguments = parser.parse_args()
    if min([*arguments.threads, arguments.repeats]) < 1 or (arguments.sweep is not None and arguments.sweep < 1):
        parser.error("--threads, --repeats and --sweep must be at least 1")
    return arguments


def measurements(arguments: argparse.Namespace) -> Iterator[tuple[str, Measurement]]:
    """All that the mode has to measure, with the text that --filter is searched for in."""
    budget = Budget(arguments.repeats, arguments.seconds)
    if arguments.signal:
        for case, dtype in signal_entries():
            yield f"{case.name} {dtype}", partial(case_row, case, dtype, budget, arguments.memory)
        return
    sweep = arguments.sweep is not None
    problems = (
        random_problems(arguments.sweep, arguments.seed) if sweep else named_problems(str(arguments.shapes.resolve()))
    )
    for name, problem in problems.items():
        for which in PASSES:
            yield f"{name} {which}", partial(layer_row, name, problem, which, budget, sweep, arguments.memory)


def case_row(case: Case, dtype: str, budget: Budget, memory: bool, threads: int, _: float) -> Row:
    row = measure_case(case, dtype, threads, budget)
    if memory:
        add_case_memory(row, case)
    set_signal_target(row)
    return row


def layer_row(
    name: str, problem: Problem, which: str, budget: Budget, alternatives: bool, memory: bool, threads: int, peak: float
) -> Row:
    row = measure(Entry(name, problem, which, threads), peak, budget, alternatives=alternatives)
    if memory:
        add_memory(row, problem)
    set_target(row)
    return row


def run(arguments: argparse.Namespace) -> Report:
    mode = "signal" if arguments.signal else "table" if arguments.table else "sweep"
    settings = {key: getattr(arguments, key) for key in ("threads", "repeats", "seconds", "filter", "seed")}
    command = shlex.join(["python", *sys.argv])
    report = Report(mode, command, machine_info(), settings)
    chosen = [make_row for text, make_row in measurements(arguments) if re.search(arguments.filter, text)]
    if not chosen:
        raise SystemExit(f"nothing to measure matches {arguments.filter!r}")
    for threads in dict.fromkeys(arguments.threads):
        set_threads(threads)
        peak = report.peak_gflops[threads] = fma_peak_gflops()
        for make_row in chosen:
            row = make_row(threads, peak)
            report.rows.append(row)
            print_progress(row)
    report.summary = summarize(report)
    return report


def print_progress(row: Row) -> None:
    wrong = f"  WRONG: {', '.join(row.wrong)}" if row.wrong else ""
    name = row.name if row.name == row.problem else f"{row.name} {row.problem}"
    figures = f"{row.algorithm} {number(row.triconv_ms)} ms, ratio {number(row.ratio)}{wrong}"
    print(f"{name} {row.which} t{row.threads}: {figures}", flush=True)


def write(report: Report, arguments: argparse.Namespace) -> None:
    if arguments.json:
        Path(arguments.json).write_text(json_text(report), encoding="utf-8")
    if arguments.markdown:
        Path(arguments.markdown).write_text(markdown(report), encoding="utf-8")
    else:
        print(markdown(report))
    if arguments.chart:
        draw_chart(report, arguments.chart)


def main() -> int:
    arguments = parse_arguments()
    import torch  # after the arguments: an error in them need not wait for it

    with torch.no_grad():
        report = run(arguments)
    write(report, arguments)
    return 1 if any(row.wrong for row in report.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
