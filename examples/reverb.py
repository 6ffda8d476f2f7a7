"""Put a room around a recording, block by block as it arrives, with triconv.signal's streams.

Nothing is downloaded: the recording, a mono arpeggio of plucked strings, and the response of the room, two seconds of
exponentially decaying noise for each ear, are synthesised. The response has 88,200 taps per ear at 44,100 samples per
second. The recording comes in chunks, as from a sound card; a stream (``OverlapAdd`` or ``OverlapSave``) returns the
samples that are ready. They are compared with one convolution of the whole recording, and the time that the stream took
with the time that the recording lasts.

    python examples/reverb.py --output reverb.wav
    python examples/reverb.py --stream OverlapSave --block-size 16384

A stream computes whenever a block is complete: longer blocks need less work, shorter ones less delay. Run ``python
examples/reverb.py --help`` for the options.
"""

from __future__ import annotations

import argparse
import time
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from triconv import signal

RATE = 44_100
CHUNK = 1_024
STREAMS = {"OverlapAdd": signal.OverlapAdd, "OverlapSave": signal.OverlapSave}
ROOM_SECONDS = 2.0
NOTE_SECONDS = 0.25
# An arpeggio through four chords, in semitones above A of 110 Hz.
CHORDS = (
    (0, 7, 12, 15, 19, 15, 12, 7),
    (-4, 3, 8, 12, 15, 12, 8, 3),
    (3, 10, 15, 19, 22, 19, 15, 10),
    (-2, 5, 10, 14, 17, 14, 10, 5),
)
# Largest difference between the stream and one convolution, relative to the largest sample: float32's rounding.
TOLERANCE = 1e-5


# ---- sounds ----------------------------------------------------------------------------------------------------------


def pluck(frequency: float, seconds: float) -> np.ndarray:
    """A string: harmonics that are the weaker, and decay the faster, the higher they are."""
    t = np.arange(int(seconds * RATE)) / RATE
    count = min(12, int(RATE / 2 / frequency))
    harmonics = (np.exp(-3 * n * t) * np.sin(2 * np.pi * n * frequency * t) / n for n in range(1, count + 1))
    return sum(harmonics, np.zeros_like(t))


def recording(seconds: float) -> np.ndarray:
    """1 x samples, float32: one channel, which both ears' responses are applied to."""
    notes = [semitone for chord in CHORDS for semitone in chord]
    sound = np.zeros(int(seconds * RATE))
    for index, start in enumerate(range(0, len(sound), int(NOTE_SECONDS * RATE))):
        note = pluck(110 * 2 ** (notes[index % len(notes)] / 12), 4 * NOTE_SECONDS)
        rest = sound[start : start + len(note)]
        rest += note[: len(rest)]
    return (sound / np.abs(sound).max(initial=1)).astype(np.float32)[np.newaxis]


def room_response(seconds: float, seed: int) -> np.ndarray:
    """2 x taps, float32: the direct sound, then noise, different for each ear, that falls by 60 dB in `seconds`."""
    t = np.arange(int(seconds * RATE)) / RATE
    decay = 10 ** (-3 * t / seconds)
    echoes = np.random.default_rng(seed).normal(size=(2, len(t))) * decay
    echoes /= np.linalg.norm(echoes, axis=-1, keepdims=True)  # as much energy as the direct sound
    echoes[:, 0] = 1
    return echoes.astype(np.float32)


# ---- the stream ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    sound: np.ndarray  # 2 x samples
    seconds: float  # that the stream took
    block_size: int


def stream_reverb(source: np.ndarray, response: np.ndarray, stream_name: str, block_size: int | None = None) -> Result:
    """Feed the recording to a stream, chunk by chunk."""
    stream = STREAMS[stream_name](response, block_size=block_size)
    begin = time.perf_counter()
    ready = [stream.process(source[:, start : start + CHUNK]) for start in range(0, source.shape[-1], CHUNK)]
    ready.append(stream.flush())
    seconds = time.perf_counter() - begin
    return Result(np.concatenate(ready, axis=-1), seconds, stream.block_size)


def write_wave(path: Path, sound: np.ndarray) -> None:
    """As 16-bit integers, interleaved, the loudest sample at nine tenths of their range."""
    samples = np.rint(sound * (0.9 * 32767 / np.abs(sound).max())).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(sound.shape[0])
        file.setsampwidth(samples.itemsize)
        file.setframerate(RATE)
        file.writeframes(samples.T.tobytes())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Put a synthetic room around a synthetic recording, by streaming.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the recording (%(default)s)")
    parser.add_argument("--stream", choices=STREAMS, default="OverlapAdd", help="(%(default)s)")
    parser.add_argument(
        "--block-size", type=int, help="samples to collect before some are ready (the stream's default)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the room's noise (%(default)s)")
    parser.add_argument("--output", type=Path, help="WAV file to write")
    options = parser.parse_args()
    if options.seconds * RATE < 1:
        parser.error("--seconds is too short for one sample")
    if options.block_size is not None and options.block_size < 1:
        parser.error("--block-size must be at least 1")
    return options


def main() -> None:
    options = parse_arguments()
    source, response = recording(options.seconds), room_response(ROOM_SECONDS, options.seed)
    result = stream_reverb(source, response, options.stream, options.block_size)
    expected = signal.oaconvolve(source, response, axes=-1)
    duration = source.shape[-1] / RATE
    difference = np.abs(result.sound - expected).max() / np.abs(expected).max()
    print(f"recording: {duration:.1f} s, {source.shape[-1]} samples; room: 2 x {response.shape[-1]} taps")
    print(
        f"{options.stream}, chunks of {CHUNK}, blocks of {result.block_size} ({result.block_size / RATE:.2f} s delay)"
    )
    print(f"took {result.seconds:.3f} s: {duration / result.seconds:.0f} times faster than real time")
    print(f"differs from one convolution of all by {difference:.1e} of the largest sample")
    if not difference <= TOLERANCE:
        raise SystemExit("the stream is not the convolution")
    if options.output:
        write_wave(options.output, result.sound)
        print(f"wrote {options.output}, {result.sound.shape[-1] / RATE:.1f} s in stereo")


if __name__ == "__main__":
    main()
