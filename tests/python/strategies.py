"""Hypothesis strategies: convolution problems of every kind, and arrays of every layout.

Importing this module chooses the Hypothesis profile: "ci" draws the same examples in every run; with
TRICONV_HYPOTHESIS_PROFILE=explore they are new in each, and twenty times as many; with "quick", for sanitizers, there
are a tenth of those of "ci".
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from shapes import DTYPES, Problem

# No deadline: the machine may be busy. Examples are cheap to draw but not to run, hence no health check of slowness.
_COMMON = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, **_COMMON)
settings.register_profile("quick", derandomize=True, **_COMMON)
settings.register_profile("explore", print_blob=True, **_COMMON)
_PROFILE = os.environ.get("TRICONV_HYPOTHESIS_PROFILE", "ci")
settings.load_profile(_PROFILE)


def examples(count: int) -> settings:
    """Decorator: `count` examples in the profile "ci"."""
    return settings(max_examples={"quick": count // 10, "ci": count, "explore": 20 * count}[_PROFILE])


# ---- Problems --------------------------------------------------------------------------------------------------------

# By number of axes: the longest input and the longest kernel, so that both are larger than the usual tiles at times.
_LONGEST_INPUT = {1: 130, 2: 24, 3: 8}
_LONGEST_KERNEL = {1: 70, 2: 19, 3: 5}


@st.composite
def _axes(draw, rank: int) -> dict[str, tuple]:
    """Sizes along each axis; the input is padded further where the kernel would not fit."""
    axes = []
    for _ in range(rank):
        kernel = draw(st.integers(1, min(7, _LONGEST_KERNEL[rank])) | st.integers(1, _LONGEST_KERNEL[rank]))
        size = draw(st.integers(1, _LONGEST_INPUT[rank]))
        stride = draw(st.just(1) | st.integers(1, 4))
        dilation = draw(st.just(1) | st.integers(1, 3))
        span = dilation * (kernel - 1) + 1
        most = min(span + 1, _LONGEST_KERNEL[rank])
        low, high = draw(st.just((0, 0)) | st.tuples(st.integers(0, most), st.integers(0, most)))
        high += max(0, span - size - low - high)
        axes.append((size, kernel, stride, (low, high), dilation))
    names = ("input", "kernel", "stride", "padding", "dilation")
    return dict(zip(names, zip(*axes, strict=True), strict=True))


@st.composite
def _channels(draw) -> tuple[int, int, int]:
    """Groups, and the input and output channels of each: dense, grouped, depthwise (with a multiplier)."""
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise"]))
    if kind == "dense":
        return 1, draw(st.integers(0, 40)), draw(st.integers(0, 40))
    if kind == "grouped":
        return draw(st.integers(2, 5)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    return draw(st.integers(2, 40)), 1, draw(st.integers(1, 3))


# Of the core: a name and the fill. Integers, as some tests want sums that are exact.
boundaries = st.sampled_from(
    [("constant", 2), ("constant", -3), ("nearest", 0), ("reflect", 0), ("mirror", 0), ("wrap", 0)]
)


@st.composite
def problems(draw, most_multiplications: int = 400_000) -> Problem:
    """A layer of 1 to 3 dimensions. Batch and channels, 0 at times, are halved until the oracle can follow."""
    axes = draw(_axes(draw(st.sampled_from([1, 2, 2, 3]))))
    groups, per_group_in, per_group_out = draw(_channels())
    sizes = [draw(st.integers(0, 3)), groups, per_group_in, per_group_out]
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    boundary, fill = draw(st.just(("constant", 0)) | boundaries)
    while True:
        batch, groups, per_group_in, per_group_out = sizes
        problem = Problem(
            batch,
            groups * per_group_in,
            groups * per_group_out,
            **axes,
            groups=groups,
            dtype=DTYPES[dtype],
            boundary=boundary,
            fill=fill,
        )
        if problem.multiplications <= most_multiplications or max(sizes) == 1:
            return problem
        largest = sizes.index(max(sizes))
        sizes[largest] //= 2


linear_problems = problems().map(lambda problem: problem.linear)
seeds = st.integers(0, 2**32 - 1)
biases = st.booleans()
algorithms = st.sampled_from(["auto", "direct", "fft", "winograd"])


# ---- Arrays ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """How the elements of an array lie in memory; `keys` order its axes, the outermost first."""

    keys: tuple[float, ...]
    reversed_axes: tuple[bool, ...]
    steps: tuple[int, ...]
    misalignment: int = 0  # in bytes
    swapped: bool = False
    read_only: bool = False
    broadcast: tuple[bool, ...] = ()

    def values(self, plain: np.ndarray) -> np.ndarray:
        """The values that an array of this layout can hold: alike along the axes of stride zero."""
        for axis, repeated in enumerate(self.broadcast[: plain.ndim]):
            if repeated:
                plain = np.repeat(np.take(plain, [0], axis), plain.shape[axis], axis) if plain.shape[axis] else plain
        return np.ascontiguousarray(plain)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of this layout whose gaps between elements are NaN; axes are in reach of one another's steps."""
        order = sorted(range(len(shape)), key=lambda axis: self.keys[axis])
        spread = [shape[axis] * self.steps[axis] for axis in order]
        raw = np.zeros(math.prod(spread) * dtype.itemsize + self.misalignment, np.uint8)[self.misalignment :]
        whole = raw.view(dtype.newbyteorder("S") if self.swapped else dtype).reshape(spread)
        whole[...] = np.nan
        view = whole[tuple(slice(None, None, self.steps[axis]) for axis in order)].transpose(np.argsort(order))
        return view[tuple(slice(None, None, -1 if self.reversed_axes[axis] else 1) for axis in range(len(shape)))]

    def of(self, plain: np.ndarray) -> np.ndarray:
        """The values of `plain` in this layout."""
        zero_stride = [*self.broadcast, *[False] * plain.ndim][: plain.ndim]
        held = tuple(1 if zero and size else size for zero, size in zip(zero_stride, plain.shape, strict=True))
        view = self.empty(held, plain.dtype)
        view[...] = plain[tuple(slice(0, size) for size in held)]
        view.flags.writeable = not self.read_only
        if held != plain.shape:
            view = np.broadcast_to(view, plain.shape)
        return view


_MOST_AXES = 5


def _per_axis(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.tuples(*[values] * _MOST_AXES)


_CHANNELS_LAST = (0.0, 9.0, 1.0, 2.0, 3.0)
_orders = st.one_of(
    st.just((0.0, 1.0, 2.0, 3.0, 4.0)),
    st.just(_CHANNELS_LAST),
    st.just((4.0, 3.0, 2.0, 1.0, 0.0)),
    st.permutations([0.0, 1.0, 2.0, 3.0, 4.0]).map(tuple),
)
# What `out` may be: aligned, of native byte order, writeable, no element twice.
output_layouts = st.builds(
    Layout,
    _orders,
    st.just((False,) * _MOST_AXES) | _per_axis(st.booleans()),
    st.just((1,) * _MOST_AXES) | _per_axis(st.integers(1, 2)),
)
layouts = st.builds(
    replace,
    output_layouts,
    misalignment=st.integers(0, 7),
    swapped=st.booleans(),
    read_only=st.booleans(),
    broadcast=st.just(()) | _per_axis(st.booleans()),
)


class OnlyDLPack:
    """An array that exports its memory by DLPack and no other protocol."""

    def __init__(self, values):
        self._values = values

    def __dlpack__(self, **options):
        return self._values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._values.__dlpack_device__()
