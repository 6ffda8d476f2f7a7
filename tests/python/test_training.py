"""The main job: the example trains on real images, and the algorithm of its convolutions does not change the training.

Tolerances are relative to the loss with direct summation, step by step. Rounding differs between algorithms from the
first step on, and training amplifies it: in float64 from 1e-16 to some 1e-14 over a whole run. In float32, single jumps
of up to some 1e-4 come on top, where a value lies so close to the corner of a ReLU, or two so close in a pooling block,
that rounding decides which way the gradient goes; hence fewer steps and wider tolerances there.
"""

from __future__ import annotations

import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def example(load_example):
    return load_example("train_digits")


@pytest.fixture(scope="module")
def whole_runs(example):
    """A run of the default length in float64 for each algorithm; "auto" chooses among them pass by pass."""
    return {algorithm: example.train(algorithm, dtype="float64") for algorithm in ("direct", "fft", "winograd")}


def difference(result, direct) -> float:
    """The largest difference of any step's loss, relative to direct's."""
    losses, expected = np.array(result.losses), np.array(direct.losses)
    assert losses.shape == expected.shape
    assert np.isfinite(losses).all()
    return float((np.abs(losses - expected) / expected).max())


@pytest.mark.parametrize("algorithm", ["fft", "winograd"])
def test_float64_losses_agree_throughout(whole_runs, algorithm):
    assert difference(whole_runs[algorithm], whole_runs["direct"]) <= 1e-9


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
def test_float64_accuracy(whole_runs, algorithm):
    assert whole_runs[algorithm].accuracy >= 0.975


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
def test_the_algorithm_asked_for_computes_every_pass(whole_runs, algorithm):
    for layer in (whole_runs[algorithm].network.conv1, whole_runs[algorithm].network.conv2):
        for plan in layer.plans.values():
            assert {name.partition(":")[0] for name in plan.algorithm} == {algorithm}, str(plan)


@pytest.mark.parametrize(("algorithm", "tolerance"), [("direct", 1e-3), ("fft", 1e-3), ("winograd", 1e-2)])
def test_float32_losses_agree_over_50_steps(example, algorithm, tolerance):
    """Direct against itself: a run is reproducible to the last bit."""
    direct = example.train("direct", steps=50)
    assert len(direct.losses) == 50
    measured = difference(example.train(algorithm, steps=50), direct)
    assert measured <= (0 if algorithm == "direct" else tolerance)


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd", "auto"])
def test_float32_accuracy(example, algorithm):
    result = example.train(algorithm)
    assert len(result.test_labels) == 450
    assert result.accuracy == np.mean(result.predictions == result.test_labels)
    assert result.accuracy >= 0.975


def test_gradients_are_those_of_the_loss(example):
    """Each parameter tensor's gradient against a central difference along a random direction.

    A step of 1e-6 leaves a truncation error of 1e-12 and a rounding error of 1e-16 / 1e-6 = 1e-10, both relative to
    terms of order 1.
    """
    rng = np.random.default_rng(0)
    network = example.Network("auto", np.dtype(np.float64), rng)
    images, labels = rng.normal(size=(5, 1, 8, 8)), np.arange(5)

    def loss() -> float:
        return example.cross_entropy(network.forward(images), labels)[0]

    network.backward(example.cross_entropy(network.forward(images), labels)[1])
    for layer in network.trained_layers:
        for name, parameter in layer.parameters.items():
            direction = rng.normal(size=parameter.shape)
            direction /= np.linalg.norm(direction)
            start = parameter.copy()
            parameter[...] = start + 1e-6 * direction
            above = loss()
            parameter[...] = start - 1e-6 * direction
            below = loss()
            parameter[...] = start
            assert (above - below) / 2e-6 == pytest.approx((layer.gradients[name] * direction).sum(), abs=1e-8)


def test_the_program_reports_and_saves_a_picture(example, monkeypatch, capsys, tmp_path):
    picture = tmp_path / "digits.png"
    arguments = ["--algorithm", "direct", "fft", "--steps", "3", "--output", str(picture)]
    monkeypatch.setattr(sys, "argv", ["train_digits.py", *arguments])
    example.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines].count("test accuracy") == 2
    for name in ("forward", "input grad", "weight grad"):
        assert any(line.startswith("conv2") and name in line and "fft:" in line for line in lines), lines
    assert picture.read_bytes().startswith(b"\x89PNG")
