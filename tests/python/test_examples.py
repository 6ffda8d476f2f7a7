"""The examples on pictures and sound run, find what they promise, and refuse what is wrong."""

from __future__ import annotations

import sys
import wave
from dataclasses import replace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def photo_example(load_example):
    return load_example("filter_photo")


@pytest.fixture(scope="module")
def reverb_example(load_example):
    return load_example("reverb")


def coefficient(window, template):
    return np.corrcoef(window.ravel(), template.ravel())[0, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalised_cross_correlation_is_the_coefficient_of_every_window(photo_example, rng, dtype):
    image = rng.normal(3, 1, (23, 31)).astype(dtype)
    template = rng.normal(size=(5, 8)).astype(dtype)
    scores = photo_example.normalised_cross_correlation(image, template)
    assert scores.dtype == dtype
    windows = np.lib.stride_tricks.sliding_window_view(image, template.shape)
    expected = [[coefficient(window, template) for window in row] for row in windows]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-6 if dtype == "float32" else 1e-13)


def test_normalised_cross_correlation_without_contrast_is_zero(photo_example, rng):
    image = np.full((40, 50), 0.7, np.float32)
    image[:, 30:] = rng.normal(size=(40, 20))
    scores = photo_example.normalised_cross_correlation(image, image[5:15, 32:42])
    assert (scores[:, :21] == 0).all()
    assert photo_example.best_position(scores) == (5, 32)
    flat = np.full((10, 10), 0.7, np.float32)
    assert (photo_example.normalised_cross_correlation(flat, image[5:10, 32:36]) == 0).all()
    with pytest.raises(ValueError, match="no contrast"):
        photo_example.normalised_cross_correlation(image, flat)


def test_blur_keeps_a_plain_picture_up_to_its_margin(photo_example):
    picture = np.full((60, 70, 3), 0.25, np.float32)
    for kernel in (photo_example.GAUSSIAN_5.astype(np.float32), photo_example.gaussian(101)):
        np.testing.assert_allclose(photo_example.blur(picture, kernel), picture, rtol=1e-5)


@pytest.mark.parametrize("photo", ["china.jpg", "flower.jpg"])
def test_filter_photo_reports_and_saves_a_picture(photo_example, monkeypatch, capsys, tmp_path, photo):
    picture = tmp_path / "photo.png"
    monkeypatch.setattr(sys, "argv", ["filter_photo.py", "--photo", photo, "--output", str(picture)])
    photo_example.main()
    lines = capsys.readouterr().out.splitlines()
    box = photo_example.TEMPLATE
    found = f"found by normalised correlation at row {box.row}, column {box.column} (coefficient 1.0000"
    assert any(line.startswith(found) for line in lines), lines
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_filter_photo_notices_a_wrong_result(photo_example, rng):
    result = photo_example.filter_photo(rng.random((120, 160, 3), np.float32), photo_example.Box(20, 30, 16, 24))
    photo_example.check(result, photo_example.Box(20, 30, 16, 24))
    with pytest.raises(SystemExit, match="template"):
        photo_example.check(result, photo_example.Box(21, 30, 16, 24))
    with pytest.raises(SystemExit, match="not convolution"):
        photo_example.check(replace(result, flipped=result.correlated), photo_example.Box(20, 30, 16, 24))


@pytest.mark.parametrize("stream", ["OverlapAdd", "OverlapSave"])
def test_reverb_reports_its_speed_and_writes_a_recording(reverb_example, monkeypatch, capsys, tmp_path, stream):
    output = tmp_path / "reverb.wav"
    arguments = ["--seconds", "1.5", "--stream", stream, "--block-size", "50000", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["reverb.py", *arguments])
    reverb_example.main()
    assert "times faster than real time" in capsys.readouterr().out
    with wave.open(str(output)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 44_100)
        assert file.getnframes() == 66_150 + 88_200 - 1
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(samples.astype(int)).max() == round(0.9 * 32767)
    assert (samples[:, 0] != samples[:, 1]).any()


def test_reverb_notices_a_wrong_result(reverb_example, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reverb.py", "--seconds", "0.1"])
    monkeypatch.setattr(reverb_example.signal, "oaconvolve", lambda *_, **__: np.ones((2, 92_609), np.float32))
    with pytest.raises(SystemExit, match="not the convolution"):
        reverb_example.main()


@pytest.mark.parametrize("arguments", [["--seconds", "0"], ["--block-size", "0"]])
def test_reverb_refuses_bad_arguments(reverb_example, monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["reverb.py", *arguments])
    with pytest.raises(SystemExit):
        reverb_example.main()
    assert arguments[0] in capsys.readouterr().err
