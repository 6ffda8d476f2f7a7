"""Problems in their one text form (cpp/include/triconv/triconv.hpp), those named in tests/shapes, and their passes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import triconv as tc

SHAPES = Path(__file__).resolve().parent.parent / "shapes"
PASSES = ("forward", "input_grad", "weight_grad")
DTYPES = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


@dataclass(frozen=True, repr=False)
class Problem:
    """One convolution layer; per-axis values run from the outermost axis to the innermost."""

    batch: int
    in_channels: int
    out_channels: int
    input: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    dtype: np.dtype
    boundary: str = "constant"  # the core's names
    fill: float = 0

    @classmethod
    def parse(cls, text: str) -> Problem:
        """Read a problem such as ``n8c64k64 i56x56 r7x7 s2 p3:4x0 d1 g1 b=mirror f32``."""
        fields = {}
        for word in text.split():
            if word in DTYPES:
                fields["dtype"] = word
            elif channels := re.fullmatch(r"n(\d+)c(\d+)k(\d+)", word):
                fields["nck"] = tuple(int(size) for size in channels.groups())
            elif boundary := re.fullmatch(r"b=([a-z]+)(?::(\S+))?", word):
                fields["b"] = boundary.groups("0")
            elif re.fullmatch(r"[irsdpg]\d+(:\d+)?(x\d+(:\d+)?)*", word) and word[0] not in fields:
                fields[word[0]] = [tuple(int(end) for end in axis.split(":")) for axis in word[1:].split("x")]
            else:
                raise ValueError(f"{text!r} has the unreadable word {word!r}")
        rank = len(fields["i"])

        def per_axis(key: str, default: int) -> tuple[tuple[int, ...], ...]:
            values = fields.get(key, [(default,)])
            return tuple(values * rank if len(values) == 1 else values)

        return cls(
            *fields["nck"],
            input=tuple(size for (size,) in per_axis("i", 1)),
            kernel=tuple(size for (size,) in per_axis("r", 1)),
            stride=tuple(size for (size,) in per_axis("s", 1)),
            padding=tuple((ends[0], ends[-1]) for ends in per_axis("p", 0)),
            dilation=tuple(size for (size,) in per_axis("d", 1)),
            groups=fields.get("g", [(1,)])[0][0],
            dtype=DTYPES[fields.get("dtype", "f32")],
            boundary=fields.get("b", ("constant", "0"))[0],
            fill=float(fields.get("b", ("constant", "0"))[1]),
        )

    def __str__(self) -> str:
        padding = [f"{low}" if low == high else f"{low}:{high}" for low, high in self.padding]
        words = [
            f"n{self.batch}c{self.in_channels}k{self.out_channels}",
            "i" + "x".join(map(str, self.input)),
            "r" + "x".join(map(str, self.kernel)),
            *_unless_default("s", self.stride, 1),
            *_unless_default("p", padding, "0"),
            *_unless_default("d", self.dilation, 1),
            *_unless_default("g", (self.groups,), 1),
            *([f"b={self.boundary}"] if self.boundary != "constant" else []),
            *([f"b=constant:{self.fill:g}"] if self.fill else []),
            next(name for name, dtype in DTYPES.items() if dtype == self.dtype),
        ]
        return " ".join(words)

    __repr__ = __str__

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        """What Hypothesis prints of a failing example."""
        printer.text(str(self))

    def with_dtype(self, name: str) -> Problem:
        return replace(self, dtype=DTYPES[name])

    @property
    def linear(self) -> Problem:
        """The problem without a constant added by its padding."""
        return replace(self, fill=0)

    @property
    def zero_padded(self) -> Problem:
        """The problem with zeros for padding, what a transposed convolution knows."""
        return replace(self, boundary="constant", fill=0)

    def padded(self, x: np.ndarray) -> np.ndarray:
        """x with its padding, by the definition."""
        for axis, ends in enumerate(self.padding, 2):
            if self.boundary == "constant":
                widths = [(0, 0)] * x.ndim
                widths[axis] = ends
                x = np.pad(x, widths, constant_values=self.fill)
            else:
                x = np.take(x, self.samples_along(axis - 2), axis)
        return x

    def folded(self, padded: np.ndarray) -> np.ndarray:
        """The transpose of `padded`: every value is added where it was copied from."""
        for axis, (size, (low, _)) in enumerate(zip(self.input, self.padding, strict=True), 2):
            values = np.moveaxis(padded, axis, 0)
            if self.boundary == "constant":
                sums = values[low : low + size]
            else:
                sums = np.zeros((size, *values.shape[1:]), values.dtype)
                np.add.at(sums, self.samples_along(axis - 2), values)
            padded = np.moveaxis(sums, 0, axis)
        return padded

    def samples_along(self, axis: int) -> np.ndarray:
        """The sample that each position of the padded axis copies; not of a constant boundary."""
        mode = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect", "wrap": "wrap"}[self.boundary]
        return np.pad(np.arange(self.input[axis]), self.padding[axis], mode)

    @property
    def unpadded(self) -> Problem:
        """The problem of the padded input."""
        ends = zip(self.input, self.padding, strict=True)
        sizes = tuple(size + low + high for size, (low, high) in ends)
        none = ((0, 0),) * self.rank
        return replace(self, input=sizes, padding=none).zero_padded

    @property
    def rank(self) -> int:
        return len(self.input)

    @property
    def output(self) -> tuple[int, ...]:
        axes = zip(self.input, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((i + low + high - d * (r - 1) - 1) // s + 1 for i, r, s, (low, high), d in axes)

    @property
    def input_size(self) -> tuple[int, ...]:
        return (self.batch, self.in_channels, *self.input)

    @property
    def weight_size(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def output_size(self) -> tuple[int, ...]:
        return (self.batch, self.out_channels, *self.output)

    def result_size(self, which: str) -> tuple[int, ...]:
        return {"forward": self.output_size, "input_grad": self.input_size, "weight_grad": self.weight_size}[which]

    def reduction_length(self, which: str) -> int:
        """Number of products in the longest sum of a pass."""
        taps = math.prod(self.kernel)
        copies = 1
        if self.boundary != "constant":
            copies = math.prod(int(np.bincount(self.samples_along(axis)).max()) for axis in range(self.rank))
        return {
            "forward": self.in_channels // self.groups * taps,
            "input_grad": self.out_channels // self.groups * taps * copies,
            "weight_grad": self.batch * math.prod(self.output),
        }[which]

    @property
    def winograd(self) -> bool:
        """Whether Winograd can do it: it has transforms for up to 7 taps along an axis.

        A stride splits a kernel into phases of stride 1: taps r and r + s / gcd(s, d) read samples of one phase. A
        single output has no stride.
        """
        axes = zip(self.kernel, self.stride, self.dilation, self.output, strict=True)
        return all(-(-r // (s // math.gcd(s, d) if o > 1 else 1)) <= 7 for r, s, d, o in axes)

    @property
    def has_idle_taps(self) -> bool:
        """Whether some taps meet only zeros in the padding: left out, they may leave few enough for Winograd."""
        axes = zip(self.input, self.output, self.kernel, self.stride, self.dilation, self.padding, strict=True)
        return (self.boundary, self.fill) == ("constant", 0) and any(
            not any(0 <= o * s + r * d - low < size for o in range(outputs))
            for size, outputs, taps, s, d, (low, _) in axes
            for r in range(taps)
        )

    @property
    def multiplications(self) -> int:
        """Of one pass by the definition."""
        return math.prod(self.output_size) * self.reduction_length("forward")

    @property
    def parameters(self) -> dict[str, object]:
        """The keyword arguments that every layer function takes."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            **({} if self.boundary == "constant" and self.fill == 0 else {"padding_mode": (self.boundary, self.fill)}),
        }

    def random_arrays(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, w and dy of normal deviates."""
        rng = np.random.default_rng(seed)
        sizes = (self.input_size, self.weight_size, self.output_size)
        x, w, dy = (rng.normal(size=size).astype(self.dtype) for size in sizes)
        return x, w, dy

    def plan(self, algorithm: str = "auto") -> tc.Plan:
        make = getattr(tc, f"plan_conv{self.rank}d")
        return make(self.input_size, self.weight_size, **self.parameters, dtype=self.dtype, algorithm=algorithm)

    def forward(self, x, w, bias=None, **options) -> np.ndarray:
        return getattr(tc, f"conv{self.rank}d")(x, w, bias, **self.parameters, **options)

    def input_grad(self, w, dy, **options) -> np.ndarray:
        call = getattr(tc.grad, f"conv{self.rank}d_input")
        return call(self.input_size, w, dy, **self.parameters, **options)

    def weight_grad(self, x, dy, **options) -> np.ndarray:
        call = getattr(tc.grad, f"conv{self.rank}d_weight")
        return call(x, self.weight_size, dy, **self.parameters, **options)

    def run(self, which: str, x, w, dy, **options) -> np.ndarray:
        """One of `PASSES` by its layer function."""
        if which == "forward":
            return self.forward(x, w, **options)
        return self.input_grad(w, dy, **options) if which == "input_grad" else self.weight_grad(x, dy, **options)


def _unless_default(key: str, values, default) -> list[str]:
    if all(value == default for value in values):
        return []
    uniform = all(value == values[0] for value in values)
    return [key + "x".join(map(str, values[:1] if uniform else values))]


def named_problems(file: str) -> dict[str, Problem]:
    """The problems of a file of tests/shapes: lines ``name: problem``, comments after ``#``."""
    problems = {}
    for line in (SHAPES / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, text = line.split(":", 1)
            assert name not in problems, f"{file} has two problems named {name}"
            problems[name] = Problem.parse(text)
    return problems
