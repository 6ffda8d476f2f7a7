"""What `peers.py` reports: the rows with the machine they are from, their summary against `targets.json`, and both as
Markdown and as a chart. As JSON a report is the fields of `Report`.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import triconv as tc
from _measure import Row, quartiles
from _shapes import PASSES

TARGETS = json.loads((Path(__file__).parent / "targets.json").read_text(encoding="utf-8"))
# With more running processes than this when the measurement begins, they compete for the cores.
QUIET_LOAD = 0.5


@dataclass
class Report:
    mode: str
    command: str
    machine: dict[str, Any]
    settings: dict[str, Any]
    peak_gflops: dict[int, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def json_text(report: Report) -> str:
    return json.dumps(asdict(report), indent=1, allow_nan=False) + "\n"


def cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_info() -> dict[str, Any]:
    from importlib import metadata

    import torch

    build = tc.build_info()
    peers = {"torch": torch.__version__, "numpy": np.__version__}
    for package in ("scipy", "opencv-python-headless"):
        try:
            peers[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "triconv": build.version,
        "compiler": build.compiler,
        "isa": build.isa,
        "load": os.getloadavg()[0],  # of the last minute, before anything was measured
        "peers": peers,
    }


# ---- Summary ---------------------------------------------------------------------------------------------------------


def set_target(row: Row) -> None:
    targets = TARGETS["ratio"].get(row.name)
    if targets is not None:
        row.target = targets[PASSES.index(row.which)]
        row.met = row.ratio >= row.target


def set_signal_target(row: Row) -> None:
    """Targets are for float32, one thread and two."""
    targets = TARGETS["signal"].get(row.name)
    if targets is not None and row.which == "float32" and row.threads <= len(targets):
        row.target = targets[row.threads - 1]
        row.met = row.ratio >= row.target


def summarize(report: Report) -> dict[str, Any]:
    rows = report.rows
    if report.mode == "sweep":
        return sweep_summary(rows)
    if report.mode == "signal":
        return target_counts(rows)
    return {
        **target_counts(rows),
        "limit_fractions": limit_fractions(rows),
        "thread_speedups": thread_speedups(rows),
    }


def target_counts(rows: list[Row]) -> dict[str, int]:
    with_target = [row for row in rows if row.target is not None]
    return {"targets": len(with_target), "targets_met": sum(bool(row.met) for row in with_target)}


def limit_fractions(rows: list[Row]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        if row.name in TARGETS["limit_fraction"]:
            target = TARGETS["limit_fraction"][row.name]
            entry = {"name": row.name, "pass": row.which, "threads": row.threads}
            found.append(
                {**entry, "fraction": row.limit_fraction, "target": target, "met": row.limit_fraction >= target}
            )
    return found


def thread_speedups(rows: list[Row]) -> list[dict[str, Any]]:
    """Of two threads over one, for what takes one thread long enough."""
    target = TARGETS["two_threads"]
    by_key = {(row.name, row.which, row.threads): row.triconv_ms for row in rows}
    found = []
    for (name, which, threads), one in by_key.items():
        two = by_key.get((name, which, 2))
        if threads == 1 and two is not None and one > target["from_ms"]:
            met = one / two >= target["speedup"]
            found.append({"name": name, "pass": which, "speedup": one / two, "target": target["speedup"], "met": met})
    return found


def sweep_summary(rows: list[Row]) -> dict[str, Any]:
    """Per number of threads: the distribution of ratios over all passes and for each, and whether the goals are met."""
    summary = {}
    for threads in sorted({row.threads for row in rows}):
        chosen = [row for row in rows if row.threads == threads]
        groups = {"all": chosen, **{which: [row for row in chosen if row.which == which] for which in PASSES}}
        summary[str(threads)] = {which: distribution(group) for which, group in groups.items() if group}
    return summary


def distribution(rows: list[Row]) -> dict[str, Any]:
    goal = TARGETS["sweep"]
    ratios = [row.ratio for row in rows]
    low, high = quartiles(ratios)
    figures = {
        "entries": len(rows),
        "median": statistics.median(ratios),
        "quartiles": (low, high),
        "share_below_one": sum(ratio < 1 for ratio in ratios) / len(rows),
        "lowest": min(ratios),
        "own_best_share": sum(row.own_best <= goal["own_best_within"] for row in rows) / len(rows),
    }
    figures["met"] = {
        "median": figures["median"] >= goal["median"],
        "share_below_one": figures["share_below_one"] <= goal["share_below_one"],
        "lowest": figures["lowest"] >= goal["lowest"],
        "own_best_share": figures["own_best_share"] >= goal["own_best_share"],
    }
    return figures


# ---- Markdown --------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits without an exponent."""
    if value is None:
        return ""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:.{max(0, digits)}f}"


def verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    header = list(header)
    yield f"| {' | '.join(header)} |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.2f}"


def memory_target(row: Row) -> str:
    if row.memory_target_bytes is None or row.peak_extra_bytes is None:
        return ""
    return f"{megabytes(row.memory_target_bytes)} {verdict(row.peak_extra_bytes <= row.memory_target_bytes)}"


# Columns that not every measurement fills.
OPTIONAL_COLUMNS: dict[str, Callable[[Row], str]] = {
    "GFLOP/s": lambda row: number(row.direct_gflops),
    "of limit": lambda row: "" if row.limit_fraction is None else f"{row.limit_fraction:.2f}",
    "workspace MB": lambda row: megabytes(row.workspace_bytes),
    "peak extra MB": lambda row: megabytes(row.peak_extra_bytes),
    "target MB": memory_target,
}


def row_cells(row: Row, peers: list[str], optional: list[str]) -> list[str]:
    low, high = row.ratio_quartiles
    ratio = "**WRONG RESULT**" if "triconv" in row.wrong else f"{number(row.ratio)} ({number(low)}-{number(high)})"
    return [
        row.name,
        row.which,
        row.algorithm,
        number(row.triconv_ms),
        *(number(row.peers_ms.get(peer)) for peer in peers),
        ratio,
        "" if row.target is None else f"{number(row.target)} {verdict(bool(row.met))}",
        *(OPTIONAL_COLUMNS[column](row) for column in optional),
    ]


def rows_markdown(rows: list[Row], subject: tuple[str, str] = ("layer", "pass")) -> Iterator[str]:
    peers = list(dict.fromkeys(peer for row in rows for peer in row.peers_ms))
    optional = [column for column, cell in OPTIONAL_COLUMNS.items() if any(cell(row) for row in rows)]
    header = [*subject, "algorithm", "triconv ms", *(f"{peer} ms" for peer in peers)]
    header += ["ratio (quartiles)", "target", *optional]
    return markdown_table(header, (row_cells(row, peers, optional) for row in rows))


def signal_markdown(report: Report) -> Iterator[str]:
    return all_rows_markdown(report, ("case", "dtype"))


def all_rows_markdown(report: Report, subject: tuple[str, str]) -> Iterator[str]:
    for threads, peak in report.peak_gflops.items():
        yield from ("", f"## Threads: {threads} (FMA peak {number(peak)} GFLOP/s)", "")
        yield from rows_markdown([row for row in report.rows if row.threads == threads], subject)
    yield from ("", f"{report.summary['targets_met']} of {report.summary['targets']} target ratios met.")


def table_markdown(report: Report) -> Iterator[str]:
    yield from all_rows_markdown(report, ("layer", "pass"))
    summary = report.summary
    if summary["limit_fractions"]:
        yield from ("", "## Fraction of the algorithm's own limit", "")
        rows = summary["limit_fractions"]
        cells = (
            [r["name"], r["pass"], f"{r['threads']}", f"{r['fraction']:.2f}", f"{r['target']:.2f} {verdict(r['met'])}"]
            for r in rows
        )
        yield from markdown_table(["layer", "pass", "threads", "fraction", "target"], cells)
    if summary["thread_speedups"]:
        yield from ("", "## Two threads over one", "")
        rows = summary["thread_speedups"]
        cells = ([r["name"], r["pass"], f"{r['speedup']:.2f}", f"{r['target']:.2f} {verdict(r['met'])}"] for r in rows)
        yield from markdown_table(["layer", "pass", "speed-up", "target"], cells)


def distribution_cells(which: str, figures: dict[str, Any]) -> list[str]:
    met = figures["met"]
    low, high = figures["quartiles"]
    return [
        which,
        f"{figures['entries']}",
        f"{number(figures['median'])} {verdict(met['median'])}",
        f"{number(low)}-{number(high)}",
        f"{100 * figures['share_below_one']:.1f}% {verdict(met['share_below_one'])}",
        f"{number(figures['lowest'])} {verdict(met['lowest'])}",
        f"{100 * figures['own_best_share']:.1f}% {verdict(met['own_best_share'])}",
    ]


def sweep_markdown(report: Report) -> Iterator[str]:
    goal = TARGETS["sweep"]
    within = f"auto within {100 * goal['own_best_within'] - 100:.0f}% of own best"
    header = ["pass", "entries", "median", "quartiles", "below 1.0", "lowest", within]
    for threads, by_pass in report.summary.items():
        yield from ("", f"## Threads: {threads} (FMA peak {number(report.peak_gflops[int(threads)])} GFLOP/s)", "")
        yield from markdown_table(header, (distribution_cells(*item) for item in by_pass.items()))
        rows = [row for row in report.rows if row.threads == int(threads)]
        slower = sorted((row for row in rows if row.ratio < 1), key=lambda row: row.ratio)
        yield from ("", "### Below 1.0", "")
        yield from rows_markdown(slower) if slower else ("None.",)
        yield from ("", "### Another algorithm would have been faster", "")
        yield from other_choices([row for row in rows if row.own_best > goal["own_best_within"]])


def other_choices(rows: list[Row]) -> Iterator[str]:
    if not rows:
        yield "None."
        return
    cells = []
    for row in sorted(rows, key=lambda row: -row.own_best):
        fastest = min(row.own_ms, key=row.own_ms.__getitem__)
        chosen, best = f"{row.algorithm} {number(row.triconv_ms)} ms", f"{fastest} {number(row.own_ms[fastest])} ms"
        cells.append([row.problem, row.which, chosen, best, number(row.own_best)])
    yield from markdown_table(["problem", "pass", "chosen", "fastest", "ratio"], cells)


# What a mode measures, and how its rows are written.
MODES: dict[str, tuple[str, Callable[[Report], Iterator[str]]]] = {
    "table": ("named layers", table_markdown),
    "sweep": ("random problems", sweep_markdown),
    "signal": ("signals and images", signal_markdown),
}


def markdown(report: Report) -> str:
    machine = report.machine
    busy = " (**the machine was busy: these figures are not to be quoted**)" if machine["load"] > QUIET_LOAD else ""
    subject, body = MODES[report.mode]
    lines = [
        f"# triconv and its peers: {subject}",
        "",
        f"- Command: `{report.command}`",
        f"- Machine: {machine['cpu']}, {machine['cores']} cores available, {machine['system']}",
        f"- Load before the start: {machine['load']:.2f}" + busy,
        f"- triconv {machine['triconv']}, {machine['isa']}, built with {machine['compiler']}",
        "- Peers: " + ", ".join(f"{name} {version}" for name, version in machine["peers"].items()),
        "- How to read this: bench/METHOD.md",
    ]
    wrong = [f"{row.name} {row.which}: {', '.join(row.wrong)}" for row in report.rows if row.wrong]
    lines += [f"- **Wrong results** in {text}" for text in wrong]
    lines += body(report)
    return "\n".join(lines) + "\n"


# ---- Chart -----------------------------------------------------------------------------------------------------------


def draw_chart(report: Report, path: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure = draw_sweep(report, pyplot) if report.mode == "sweep" else draw_table(report, pyplot)
    machine = report.machine
    peer = "the fastest peer" if report.mode == "signal" else f"PyTorch {machine['peers']['torch']}"
    figure.suptitle(
        f"Time of {peer} / time of triconv\n{machine['cpu']}, {machine['isa']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def label_decades(axis: Any) -> None:
    """Ticks at 1, 2, 5, 10, 20, ... without powers of ten."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def draw_table(report: Report, pyplot: Any) -> Any:
    """A panel per pass or dtype, a bar per layer or case and number of threads, a mark at the target."""
    names = list(dict.fromkeys(row.name for row in report.rows))
    panels = list(dict.fromkeys(row.which for row in report.rows))
    threads = list(report.peak_gflops)
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(4 * len(panels) + 1, 0.3 * len(names) + 2),
        layout="constrained",
    )
    height = 0.8 / len(threads)
    for axis, which in zip(axes[0], panels, strict=True):
        for index, count in enumerate(threads):
            rows = [row for row in report.rows if row.which == which and row.threads == count and row.ratio > 0]
            y = [names.index(row.name) + (index - (len(threads) - 1) / 2) * height for row in rows]
            label = f"{count} thread{'s' if count > 1 else ''}"
            axis.barh(y, [row.ratio - 1 for row in rows], height, left=1, label=label)
        goals = {row.name: row.target for row in report.rows if row.which == which and row.target is not None}
        axis.plot(list(goals.values()), [names.index(name) for name in goals], "k|", markersize=9, label="target")
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set(title=which, xscale="log", xlabel="times as fast")
        label_decades(axis.xaxis)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    return figure


def draw_sweep(report: Report, pyplot: Any) -> Any:
    """The sorted ratios of each pass; one panel per number of threads."""
    threads = list(report.peak_gflops)
    figure, axes = pyplot.subplots(
        1, len(threads), sharey=True, squeeze=False, figsize=(5 * len(threads) + 1, 5), layout="constrained"
    )
    for axis, count in zip(axes[0], threads, strict=True):
        for which in PASSES:
            ratios = sorted(
                row.ratio for row in report.rows if row.which == which and row.threads == count and row.ratio > 0
            )
            axis.plot([100 * (i + 0.5) / len(ratios) for i in range(len(ratios))], ratios, label=which)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set(title=f"threads: {count}", yscale="log", xlabel="percent of the problems", ylabel="times as fast")
        label_decades(axis.yaxis)
    axes[0, 0].legend()
    return figure
