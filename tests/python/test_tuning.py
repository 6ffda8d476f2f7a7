"""Plans made with tune=: candidates timed instead of predicted, and remembered in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import triconv as tc
from triconv import _core

SIZES = (2, 8, 20, 20), (8, 8, 3, 3)
PASSES = ("forward", "input_grad", "weight_grad")


def no_timing(monkeypatch):
    def fail(*_):
        raise AssertionError("timed")

    monkeypatch.setattr("triconv.plan._core", CoreWithTune(fail))


class CoreWithTune:
    """The extension module with another Plan.tune."""

    def __init__(self, tune):
        class Plan(_core.Plan):
            def tune(self):
                return tune(self)

        self.Plan = Plan

    def __getattr__(self, name):
        return getattr(_core, name)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tuning.json"


def tuned(path, *sizes, **options):
    return tc.plan_conv2d(*(sizes or SIZES), padding=1, tune=path, **options)


def test_tune_takes_a_candidate_of_each_pass(rng):
    plan = tc.plan_conv2d(*SIZES, padding=1, tune=True)
    explained = tc.explain(*SIZES, padding=1)
    for name, used in zip(PASSES, plan.algorithm, strict=True):
        assert used in {row.algorithm for row in getattr(explained, name)}
    x, w = (rng.normal(size=size).astype("f") for size in SIZES)
    np.testing.assert_allclose(plan.forward(x, w), tc.conv2d(x, w, padding=1, algorithm="direct"), atol=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank_can_be_tuned(rank):
    make = getattr(tc, f"plan_conv{rank}d")
    plan = make((1, 2, *[6] * rank), (3, 2, *[3] * rank), tune=True, dtype="float64")
    assert len(plan.algorithm) == 3


def test_options_restrict_what_is_timed():
    plan = tc.plan_conv2d(*SIZES, padding=1, tune=True, algorithm="fft")
    assert {name.split(":")[0] for name in plan.algorithm} == {"fft"}
    plan = tc.plan_conv2d(*SIZES, padding=1, tune=True, tolerance=2e-6)
    assert all(row.error_bound <= 2e-6 for rows in plan.explain()[1:] for row in rows if row.chosen)
    cap = min(tc.plan_conv2d(*SIZES, padding=1, algorithm="fft").workspace_bytes) // 2
    plan = tc.plan_conv2d(*SIZES, padding=1, tune=True, max_workspace=cap)
    assert max(plan.workspace_bytes) <= cap


def test_a_layer_with_nothing_to_compute_can_be_tuned():
    plan = tc.plan_conv2d((0, 3, 8, 8), (2, 3, 3, 3), tune=True)
    assert plan.forward(np.ones((0, 3, 8, 8), "f"), np.ones((2, 3, 3, 3), "f")).shape == (0, 2, 6, 6)


def test_nothing_is_timed_unless_asked(monkeypatch, path):
    no_timing(monkeypatch)
    tc.plan_conv2d(*SIZES, padding=1)
    tc.explain(*SIZES)
    with pytest.raises(AssertionError, match="timed"):
        tuned(path)


def test_an_answer_is_remembered_and_used(monkeypatch, path):
    answer = ("fft:8x8", "direct", "winograd:2x2")
    with monkeypatch.context() as patched:
        patched.setattr("triconv.plan._core", CoreWithTune(lambda _: answer))
        assert tuned(path).algorithm == answer
    with monkeypatch.context() as patched:
        no_timing(patched)
        assert tuned(path).algorithm == answer
        assert tuned(str(path)).algorithm == answer
    content = json.loads(path.read_text())
    assert list(content) == ["format", "answers"]
    ((key, names),) = content["answers"].items()
    assert names == dict(zip(PASSES, answer, strict=True))
    for part in ("n2c8k8 i20x20 r3x3 p1 f32", tc.build_info().version, tc.build_info().isa, _core.machine()[0]):
        assert part in key
    assert os.listdir(path.parent) == [path.name]


def test_the_tuned_choice_is_what_runs(monkeypatch, path, rng):
    monkeypatch.setattr("triconv.plan._core", CoreWithTune(lambda _: ("fft:8x8", "fft:9x9", "direct")))
    plan = tuned(path)
    x, w = (rng.normal(size=size).astype("f") for size in SIZES)
    y = plan.forward(x, w)
    assert tc.last_run().algorithm == "fft:8x8"
    dx = plan.input_grad(w, y)
    assert tc.last_run().algorithm == "fft:9x9"
    plan.weight_grad(x, y)
    assert tc.last_run().algorithm == "direct"
    np.testing.assert_array_equal(plan.prepare(w, which="input_grad").input_grad(y), dx)


def test_answers_of_other_problems_options_and_machines_are_kept_apart(monkeypatch, path):
    for answer, sizes, options in [
        (("direct",) * 3, SIZES, {}),
        (("fft:8x8",) * 3, ((1, 8, 20, 20), (8, 8, 3, 3)), {}),
        (("fft:9x9",) * 3, SIZES, {"dtype": "float64"}),
        (("fft:12x12",) * 3, SIZES, {"algorithm": "fft"}),
        (("fft:15x15",) * 3, SIZES, {"tolerance": 1e-3}),
    ]:
        with monkeypatch.context() as patched:
            patched.setattr("triconv.plan._core", CoreWithTune(lambda _, answer=answer: answer))
            assert tuned(path, *sizes, **options).algorithm == answer
    with monkeypatch.context() as patched:
        patched.setattr("triconv._core.machine", lambda: ("another CPU", 1, 2, 3))
        patched.setattr("triconv.plan._core", CoreWithTune(lambda _: ("fft:16x16",) * 3))
        assert tuned(path).algorithm == ("fft:16x16",) * 3
    no_timing(monkeypatch)
    assert tuned(path).algorithm == ("direct",) * 3
    assert len(json.loads(path.read_text())["answers"]) == 6


GOOD = {"forward": "direct", "input_grad": "direct", "weight_grad": "direct"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b'{"format": "triconv tuning 1", "answers": {', "is not JSON"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b"1" * 10_000, "is not JSON"),
        (b"[]", "was not written by triconv"),
        (b'{"model": 1}', "was not written by triconv"),
        (b'{"format": "triconv tuning 2", "answers": {}}', "has format 'triconv tuning 2', expected"),
        (b'{"format": "triconv tuning 1"}', "has no object 'answers'"),
        (b'{"format": "triconv tuning 1", "answers": []}', "has no object 'answers'"),
        (b'{"format": "triconv tuning 1", "answers": {"k": 3}}', "has 3 for 'k', expected an algorithm for each"),
        (b'{"format": "triconv tuning 1", "answers": {"k": {"forward": "direct"}}}', "expected an algorithm for each"),
        (json.dumps({"format": "triconv tuning 1", "answers": {"k": GOOD | {"more": "x"}}}).encode(), "for each of"),
        (json.dumps({"format": "triconv tuning 1", "answers": {"k": GOOD | {"forward": 1}}}).encode(), "for each of"),
    ],
)
def test_damaged_and_foreign_files(monkeypatch, path, content, reason):
    no_timing(monkeypatch)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        tuned(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content, "what cannot be read is left alone"


@pytest.mark.parametrize("name", ["cuda", "fft:x", "fft:2", "winograd:7", "direct\0"])
def test_an_answer_that_cannot_be_used(monkeypatch, path, name):
    with monkeypatch.context() as patched:
        patched.setattr("triconv.plan._core", CoreWithTune(lambda _: ("direct",) * 3))
        tuned(path)
    content = json.loads(path.read_text())
    (answer,) = content["answers"].values()
    answer["weight_grad"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has an answer for .* that cannot be used: ") as caught:
        tuned(path)
    assert str(path) in str(caught.value)


def test_an_answer_beyond_the_options_cannot_be_used(path, monkeypatch):
    monkeypatch.setattr("triconv.plan._core", CoreWithTune(lambda _: ("winograd:6x6",) * 3))
    with pytest.raises(ValueError, match="cannot be used: tolerance is"):
        tuned(path, tolerance=2e-6)


def test_files_that_cannot_be_read_or_written(monkeypatch, tmp_path):
    no_timing(monkeypatch)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tuned(tmp_path / "nowhere" / "tuning.json")
    with pytest.raises(IsADirectoryError):
        tuned(tmp_path)
    for value in (3, None, b"", 1.5):
        with pytest.raises(TypeError, match=r"tune is .*expected a bool or the path of a file"):
            tuned(value)


def test_permissions_and_links_survive(monkeypatch, tmp_path):
    monkeypatch.setattr("triconv.plan._core", CoreWithTune(lambda _: ("direct",) * 3))
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    tuned(target)
    target.chmod(0o600)
    link.symlink_to(target)
    tuned(link, (1, 2, 5, 5), (2, 2, 3, 3))
    assert link.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(target.read_text())["answers"]) == 2


def test_concurrent_writers_lose_nothing(path):
    program = (
        "import sys, triconv as tc\n"
        "for n in range(6):\n"
        "    tc.plan_conv1d((1, 1, 10 + n), (1, 1, 3 + int(sys.argv[1])), tune=sys.argv[2])\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(i), path], env={**os.environ, "TRICONV_NUM_THREADS": "1"})
        for i in range(4)
    ]
    assert [writer.wait(timeout=300) for writer in writers] == [0] * 4
    assert len(json.loads(path.read_text())["answers"]) == 24
    assert os.listdir(path.parent) == [path.name]
