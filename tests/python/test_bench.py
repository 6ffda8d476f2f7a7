"""The benchmark programs run and write what they promise, on problems too small to say anything about speed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from shapes import PASSES, Problem, named_problems

BENCH = Path(__file__).parents[2] / "bench"
SHAPES = """\
# A layer that the table has targets for, in small, one of SciPy's and OpenCV's, and the other ranks.
vgg1.2:   n1c4k4 i10x10 r3x3 p1 f32
single:   n1c1k1 i12x12 r5x5 p2 f32
line:     n2c4k4 i40 r9 p4 g4 f32
cube:     n1c2k2 i5x5x5 r3x3x3 p1 f32
"""
# With TRICONV_REQUIRE_TORCH=1 a missing PyTorch fails the program, and with it the test.
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None and os.environ.get("TRICONV_REQUIRE_TORCH") != "1",
    reason="PyTorch is not installed",
)


@pytest.fixture
def shape_file(tmp_path: Path) -> Path:
    file = tmp_path / "shapes.txt"
    file.write_text(SHAPES, encoding="utf-8")
    return file


@pytest.fixture
def bench_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


def run(program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture
def run_peers(bench_path: None, monkeypatch: pytest.MonkeyPatch, keep_threads: None) -> Iterator[Callable[..., int]]:
    """`peers.py` with these arguments in this process, which has PyTorch loaded already; returns the exit code."""
    import _measure
    import peers
    import torch

    def run_here(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["peers.py", *map(str, arguments)])
        return peers.main()

    # The figures mean nothing here: they need not wait for accuracy.
    monkeypatch.setattr(peers, "fma_peak_gflops", partial(peers.fma_peak_gflops, 0))
    monkeypatch.setattr(_measure, "SPIN_SECONDS", 1e-3)
    threads = torch.get_num_threads()
    yield run_here
    torch.set_num_threads(threads)


def test_peers_is_a_program() -> None:
    assert {"--table", "--sweep", "--signal"} <= set(run("peers.py", "--help").stdout.split())
    assert "must be at least 1" in run("peers.py", "--table", "--threads", 0, code=2).stderr


@needs_torch
def test_peers_table(tmp_path: Path, shape_file: Path, run_peers: Callable[..., int]) -> None:
    """A row for each problem, pass and number of threads; a target where there is one; a Markdown table; a picture."""
    results, table, chart = tmp_path / "t.json", tmp_path / "t.md", tmp_path / "t.png"
    options = ["--shapes", shape_file, "--threads", 1, 2, "--repeats", 2, "--seconds", 0.01]
    assert run_peers("--table", *options, "--json", results, "--markdown", table, "--chart", chart) == 0
    report = json.loads(results.read_text(encoding="utf-8"))
    keys = [(row["name"], row["which"], row["threads"]) for row in report["rows"]]
    names = ("vgg1.2", "single", "line", "cube")
    assert keys == [(name, which, threads) for threads in (1, 2) for name in names for which in PASSES]
    for row in report["rows"]:
        assert row["wrong"] == []
        assert row["ratio"] > 0
        assert row["limit_fraction"] > 0
        layouts = {"PyTorch NCHW"} if row["name"] == "line" else {"PyTorch NCHW", "PyTorch channels_last"}
        assert layouts <= row["peers_ms"].keys()
        assert (row["met"] is None) == (row["name"] != "vgg1.2")
    assert report["summary"]["targets"] == 6
    text = table.read_text(encoding="utf-8")
    assert sum(line.startswith("| vgg1.2 | forward |") for line in text.splitlines()) == 4  # 2 of them: of the limit
    assert chart.read_bytes().startswith(b"\x89PNG")


@needs_torch
def test_peers_sweep(tmp_path: Path, run_peers: Callable[..., int]) -> None:
    """The distribution of every pass, and triconv's own algorithms beside the one chosen."""
    results, table, chart = tmp_path / "s.json", tmp_path / "s.md", tmp_path / "s.png"
    options = ["--seed", 9, "--filter", "i[0-9]+ .* f32", "--repeats", 2, "--seconds", 0.01]
    assert run_peers("--sweep", 12, *options, "--json", results, "--markdown", table, "--chart", chart) == 0
    report = json.loads(results.read_text(encoding="utf-8"))
    assert report["rows"]
    assert any(row["own_ms"] for row in report["rows"])
    figures = report["summary"]["1"]
    assert figures["all"]["entries"] == len(report["rows"])
    assert figures["all"]["lowest"] == min(row["ratio"] for row in report["rows"])
    assert "auto within 10% of own best" in table.read_text(encoding="utf-8")
    assert chart.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def small_cases(bench_path: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import _cases

    monkeypatch.setattr(_cases, "CASES", tuple(case.shrunk() for case in _cases.CASES))


@needs_torch
@pytest.mark.usefixtures("small_cases")
def test_peers_signal(tmp_path: Path, run_peers: Callable[..., int]) -> None:
    """Every case in every dtype that it has a peer for; targets for float32."""
    import _cases

    results, table, chart = tmp_path / "s.json", tmp_path / "s.md", tmp_path / "s.png"
    options = ["--threads", 1, 2, "--repeats", 2, "--seconds", 0.01]
    assert run_peers("--signal", *options, "--json", results, "--markdown", table, "--chart", chart) == 0
    report = json.loads(results.read_text(encoding="utf-8"))
    rows = report["rows"]
    entries = [(case.name, dtype) for case, dtype in _cases.signal_entries()]
    assert [(row["name"], row["which"], row["threads"]) for row in rows] == [(*e, t) for t in (1, 2) for e in entries]
    scipy = {case.name for case in _cases.CASES if any(peer.startswith("SciPy") for peer in case.peers)}
    assert set(entries) >= {(name, dtype) for name in scipy for dtype in ("float32", "float64", "complex64")}
    assert all(row["wrong"] == [] and row["ratio"] > 0 for row in rows)
    line = next(row for row in rows if row["name"] == "1000000 * 64")
    assert line["peers_ms"].keys() == {"SciPy oaconvolve", "NumPy convolve", "PyTorch conv1d"}
    targets = json.loads((BENCH / "targets.json").read_text(encoding="utf-8"))["signal"]
    for row in rows:
        expected = targets.get(row["name"], [None, None])[row["threads"] - 1] if row["which"] == "float32" else None
        assert row["target"] == expected
    assert report["summary"]["targets"] == sum(row["target"] is not None for row in rows)
    text = table.read_text(encoding="utf-8")
    assert "| case | dtype | algorithm |" in text
    assert "GFLOP/s |" not in text
    assert sum(line.startswith("| 1000000 * 64 | float32 |") for line in text.splitlines()) == 2
    assert chart.read_bytes().startswith(b"\x89PNG")


@needs_torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peers_signal_memory(tmp_path: Path, run_peers: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the result of 32 MB, which is not counted, the case takes something, and less than whole spectra."""
    import _cases

    case = _cases.Case("long", (4_000_000,), (1_000,), "same", "oaconvolve", ("SciPy oaconvolve",))
    monkeypatch.setattr(_cases, "CASES", (case,))
    results, table = tmp_path / "m.json", tmp_path / "m.md"
    options = ["--memory", "--filter", "float64", "--repeats", 2, "--seconds", 0.01]
    assert run_peers("--signal", *options, "--json", results, "--markdown", table) == 0
    (row,) = json.loads(results.read_text(encoding="utf-8"))["rows"]
    assert row["memory_target_bytes"] == 3 * 8 * 4_000_999
    assert 0 < row["peak_extra_bytes"] < 16e6
    assert "| peak extra MB | target MB |" in table.read_text(encoding="utf-8")


def test_memory_targets_of_cases(bench_path: None) -> None:
    """A share of large inputs with small kernels, else spectra."""
    import _cases

    case = _cases.Case("volume", (256, 256, 256), (15, 15, 15), "same", "oaconvolve", ())
    assert case.memory_target("float32") == int(0.05 * 4 * 256**3)
    assert case.shrunk().memory_target("float32") == 3 * 4 * 72**3


@needs_torch
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peers_memory(tmp_path: Path, run_peers: Callable[..., int]) -> None:
    """The rise of resident memory is at least the workspace that FFT spectra of this size must touch."""
    shapes, results = tmp_path / "shapes.txt", tmp_path / "m.json"
    shapes.write_text("large: n2c32k32 i40x40 r9x9 p4 f32\n", encoding="utf-8")
    options = ["--memory", "--filter", "forward", "--repeats", 2, "--seconds", 0.01]
    assert run_peers("--table", "--shapes", shapes, *options, "--json", results) == 0
    (row,) = json.loads(results.read_text(encoding="utf-8"))["rows"]
    assert row["workspace_bytes"] > 0
    assert 0.3 * row["workspace_bytes"] < row["peak_extra_bytes"] < row["workspace_bytes"] + 4e6


@needs_torch
def test_peers_tells_a_wrong_result(bench_path: None) -> None:
    import numpy as np
    from _measure import Program, check_results

    expected = np.arange(8, dtype=np.float32)
    right = Program("PyTorch NCHW", "peer", lambda: expected)
    off = Program("off", "own", lambda: expected + np.float32(0.1))
    close = Program("close", "own", lambda: expected * np.float32(1 + 1e-5))
    broken = Program("broken", "own", lambda: expected * np.float32("nan"))
    assert check_results([off, close, broken, right]) == ["off", "broken"]


def test_alternatives_are_as_accurate_as_auto_demands(bench_path: None) -> None:
    import numpy as np
    from _measure import candidates, own_alternatives

    problem = Problem.parse("n1c32k32 i20x20x20 r3x3x3 p1 f32")
    rows = {row.algorithm: row for row in candidates(problem, "forward") if row.possible}
    tolerance = 1e4 * np.finfo(np.float32).eps
    fastest = sorted(rows.values(), key=lambda row: row.predicted_seconds)[:3]
    assert any(row.error_bound > tolerance for row in fastest)
    names = own_alternatives(problem, "forward", "direct")
    assert names
    assert all(rows[name].error_bound <= tolerance for name in names)


def test_random_problems(bench_path: None) -> None:
    """The same for a seed, within the ranges, of all ranks, with strides, dilations and groups."""
    from _shapes import random_problems

    problems = random_problems(150, 1)
    assert list(problems) == list(random_problems(150, 1))
    assert list(problems) != list(random_problems(150, 2))
    found = list(problems.values())
    assert {problem.rank for problem in found} == {1, 2, 3}
    assert {problem.stride[0] for problem in found} == {problem.dilation[0] for problem in found} == {1, 2}
    assert any(1 < problem.groups < problem.in_channels for problem in found)
    assert any(problem.groups == problem.in_channels > 1 for problem in found)
    for problem in found:
        assert 1 <= problem.batch <= 32
        assert min(problem.in_channels, problem.out_channels) >= 1
        assert max(problem.in_channels, problem.out_channels) <= 512
        assert 7 <= min(problem.input) <= max(problem.input) <= 224
        assert 1 <= problem.kernel[0] <= 31
        assert min(problem.output) >= 1


def test_targets_are_of_named_layers_and_cases(bench_path: None) -> None:
    import _cases

    targets = json.loads((BENCH / "targets.json").read_text(encoding="utf-8"))
    layers = named_problems("layers.txt")
    assert targets["ratio"].keys() == layers.keys()
    assert targets["limit_fraction"].keys() <= layers.keys()
    assert all(len(values) == len(PASSES) for values in targets["ratio"].values())
    names = [case.name for case in _cases.CASES]
    assert len(set(names)) == len(names)
    assert targets["signal"].keys() <= set(names)
    assert all(len(values) == 2 for values in targets["signal"].values())


def test_compare_a_build_with_itself(tmp_path: Path, shape_file: Path) -> None:
    results, table = tmp_path / "c.json", tmp_path / "c.md"
    options = ["--shapes", shape_file, "--filter", "vgg1.2|line", "--repeats", 11, "--processes", 2, "--threshold", 5]
    run("compare.py", sys.executable, sys.executable, *options, "--json", results, "--markdown", table)
    report = json.loads(results.read_text(encoding="utf-8"))
    assert [change["which"] for change in report["changes"]] == [*PASSES, *PASSES]
    assert report["builds"][0]["path"] == report["builds"][1]["path"]
    assert all(change["flag"] == "" and change["ratio"] > 0 for change in report["changes"])
    assert "0 of 6 changed" in table.read_text(encoding="utf-8")


def test_compare_refuses_what_cannot_be_significant(shape_file: Path) -> None:
    done = run("compare.py", sys.executable, sys.executable, "--shapes", shape_file, "--repeats", 3, code=1)
    assert "--repeats 12 or more" in done.stderr


def test_compare_flags_only_large_significant_consistent_changes(bench_path: None) -> None:
    import compare

    def flag(ratios: list[list[float]], comparisons: int = 81) -> str:
        samples = compare.Samples([[1.0] * len(group) for group in ratios], ratios)
        change = compare.summarize(compare.Entry("name", "text", "forward", 1), samples)
        return compare.flag(change, comparisons, threshold=0.1)

    assert flag([[1.2] * 10, [1.3] * 10]) == "SLOWER"
    assert flag([[0.8] * 10, [0.7] * 10]) == "faster"
    assert flag([[1.05] * 10, [1.05] * 10]) == ""  # too small
    assert flag([[1.2] * 5, [1.2] * 5]) == ""  # too few
    assert flag([[1.2] * 5, [1.2] * 5], comparisons=1) == "SLOWER"
    assert flag([[1.3] * 30, [0.99] * 5]) == ""  # the processes disagree
    assert compare.sign_test([1.1] * 3 + [0.9]) == 2 * 5 / 16


def test_compare_rounds_needed(bench_path: None) -> None:
    """`fewest_rounds` is the least number whose unanimous sign test can be flagged."""
    import compare

    for comparisons in (1, 6, 81):
        rounds = compare.fewest_rounds(comparisons)
        assert compare.sign_test([2.0] * rounds) * comparisons < compare.SIGNIFICANCE
        assert compare.sign_test([2.0] * (rounds - 1)) * comparisons >= compare.SIGNIFICANCE
