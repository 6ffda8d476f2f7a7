"""Every convolution of arrays as layer problems of the core.

Along the axes that are not convolved arrays broadcast; what varies along such an axis says what it is to a layer:

====================  =========================
varies in             is
====================  =========================
the image only        batch (N)
the kernel only       output channels (K)
both                  groups (a depthwise layer)
====================  =========================

The core has one axis of each kind. Neighbouring axes of a kind become one where the strides permit; the largest goes to
the core; what is left is a loop. Nothing is copied but the kernel of a complex product: an image of any strides is read
in place, a true convolution is a correlation with the reversed kernel (negative strides), and the zeros around an image
are the core's padding, as are its other boundaries.

Complex numbers are two more planes of real ones: of a real kernel another batch axis, of a real image output channels,
and the product of two is a layer of two input channels (re, im), two output channels and the kernels
``[[re, -im], [im, re]]``, or two products by real kernels.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from .. import _core
from ._boundary import ZEROS, samples

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .._typing import AnyArray
    from ._boundary import Boundary

    Sizes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # of x, w and out
    Ends = tuple[int, int]
    Padding = tuple[tuple[int, Ends], ...]
    _Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Key(NamedTuple):
    """All that a plan depends on but the algorithm."""

    input_size: tuple[int, ...]
    weight_size: tuple[int, ...]
    padding: tuple[Ends, ...]
    boundary: Boundary
    groups: int
    dtype: str


class LayerProblem(NamedTuple):
    """Views of image, kernel and result as a layer has them, behind `loops`: the shape of the axes to loop over.

    An operand that does not vary along such an axis has extent 1 there.
    """

    key: Key
    loops: tuple[int, ...]
    x: AnyArray
    w: AnyArray
    out: AnyArray


class _Recipe(NamedTuple):
    """How arrays become the views of a layer problem: for each, a shape that needs no copy, then an order of axes."""

    key: Key
    loops: tuple[int, ...]
    x: _Layout
    w: _Layout
    out: _Layout


class Run(Protocol):
    """Computes one layer problem; `w_index` tells the kernels of one convolution apart."""

    def __call__(self, key: Key, x: AnyArray, w: AnyArray, w_index: tuple[int, ...], out: AnyArray) -> None: ...


_LARGE_PROBLEM = 1 << 16  # samples of a channel
_MIB = 1 << 20


def plan_of(key: Key, method: str) -> _core.Plan:
    """The plan of a problem. `method` is "direct", "fft", or "auto" for the faster of the two.

    Winograd has no place here: its errors are ten times those of the others. Plans are kept, of large problems only a
    few: for signals they hold factors of a tile's size.
    """
    return (_large_plan if prod(key.input_size[2:]) >= _LARGE_PROBLEM else _small_plan)(key, method)


def _make_plan(key: Key, method: str) -> _core.Plan:
    rank = len(key.padding)
    layer = (rank, key.input_size, key.weight_size, 1, key.padding, 1, key.groups, key.boundary, key.dtype)
    return _core.Plan(*layer, "direct,fft" if method == "auto" else method, None, None, None)


_small_plan = lru_cache(maxsize=256)(_make_plan)
_large_plan = lru_cache(maxsize=8)(_make_plan)


def run_by_plan(method: str) -> Run:
    """A `Run` by the plan for `method`."""

    def run(key: Key, x: AnyArray, w: AnyArray, w_index: tuple[int, ...], out: AnyArray) -> None:
        plan_of(key, method).forward(x, w, None, out)

    return run


def correlate_into(
    out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, run: Run, boundary: Boundary = ZEROS
) -> None:
    """Write the correlation of image `x` with kernel `w` along the axes in `padding`; along others they broadcast.

    The arrays have equal numbers of axes and dtypes of equal precision, float32, float64 or the complex of these.
    `padding` has the convolved axes, at least one, in order, with how much of the `boundary` is read at the two ends of
    the image. `out` is complex if an operand is.
    """
    if len(padding) > 3:
        _sum_over_taps(out, x, w, padding, run, boundary)
    elif is_filled_apart(x, boundary) and x.dtype.kind == "c" and w.dtype.kind != "c":
        fill = complex(boundary[1])
        correlate_into(out.real, x.real, w, padding, run, ("constant", fill.real))
        correlate_into(out.imag, x.imag, w, padding, run, ("constant", fill.imag))
    elif is_filled_apart(x, boundary):
        correlate_into(out, x, w, padding, run)
        nothing = np.broadcast_to(np.zeros((), out.real.dtype), x.shape)
        outside = np.empty(out.shape, w.dtype)
        correlate_into(outside, nothing, w, padding, run, ("constant", 1.0))
        out += boundary[1] * outside
    elif x.dtype.kind == w.dtype.kind == "c" and _is_better_in_parts(x, w, padding):
        correlate_into(out, x, w.real, padding, _run_of_part(run, 0), boundary)
        turned = _core.empty(out.shape, out.dtype)
        correlate_into(turned, x, w.imag, padding, _run_of_part(run, 1), boundary)
        with np.errstate(invalid="ignore", over="ignore"):
            out.real -= turned.imag
            out.imag += turned.real
    else:
        execute(layer_problem(out, x, w, padding, boundary), run)


def is_filled_apart(x: AnyArray, boundary: Boundary) -> bool:
    """Whether what is outside the image is added to a convolution with zeros, which is linear in it.

    The planes of a complex image have different values outside.
    """
    return boundary[1] != 0 and (x.dtype.kind == "c" or boundary[1].imag != 0)


def _is_better_in_parts(x: AnyArray, w: AnyArray, padding: Padding) -> bool:
    """Whether to take the real and the imaginary part of a complex kernel one after the other.

    Of a long kernel that needs half the memory, in about the same time: the four planes of its spectra are most of what
    a layer needs. Kernels that vary with the signal would be a loop over layers: mixing planes, they are no groups.
    """
    convolved = dict(padding)
    varies = any(w.shape[axis] > 1 and x.shape[axis] > 1 for axis in range(x.ndim) if axis not in convolved)
    return varies or (w.size > x.size // 3 and x.nbytes + w.nbytes >= _MIB)


def _sum_over_taps(out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, run: Run, boundary: Boundary) -> None:
    """Along the axis with the fewest taps, sum the correlations with each of them: one convolved axis less."""
    axis, (low, _) = min(padding, key=lambda item: w.shape[item[0]])
    rest = tuple(item for item in padding if item[0] != axis)
    before = (slice(None),) * axis
    out[...] = 0
    for tap in range(w.shape[axis]):
        # Zeros outside need no sum.
        begin = max(0, low - tap) if boundary == ZEROS else 0
        end = min(out.shape[axis], x.shape[axis] + low - tap) if boundary == ZEROS else out.shape[axis]
        if begin >= end:
            continue
        target = out[(*before, slice(begin, end))]
        term = np.empty(target.shape, out.dtype)
        source = samples(x, axis, begin + tap - low, end - begin, boundary)
        correlate_into(term, source, w[(*before, slice(tap, tap + 1))], rest, _run_of_part(run, tap), boundary)
        target += term


def _run_of_part(run: Run, part: int) -> Run:
    """A `Run` with one of several parts of a kernel."""

    def run_of_part(key: Key, x: AnyArray, w: AnyArray, w_index: tuple[int, ...], out: AnyArray) -> None:
        run(key, x, w, (part, *w_index), out)

    return run_of_part


def execute(problem: LayerProblem, run: Run) -> None:
    """Compute all layers of the problem."""
    key, loops, x, w, out = problem
    if not loops:
        run(key, x, w, (), out)
        return
    for index in product(*map(range, loops)):
        w_index = _broadcast_index(index, w)
        run(key, x[_broadcast_index(index, x)], w[w_index], w_index, out[index])


def _broadcast_index(index: tuple[int, ...], array: AnyArray) -> tuple[int, ...]:
    return tuple(i if extent > 1 else 0 for i, extent in zip(index, array.shape, strict=False))


def layer_problem(
    out: AnyArray, x: AnyArray, w: AnyArray, padding: Padding, boundary: Boundary = ZEROS
) -> LayerProblem:
    """The layers that `correlate_into` computes, for one to three convolved axes."""
    x, w, out = _real_planes(x, w, out)
    shapes, strides = (x.shape, w.shape, out.shape), (x.strides, w.strides, out.strides)
    recipe = _recipe(shapes, strides, padding, boundary, out.dtype.char)
    views = (
        array.reshape(shape).transpose(order) for array, (shape, order) in zip((x, w, out), recipe[2:], strict=True)
    )
    return LayerProblem(recipe.key, recipe.loops, *views)


def _planes(array: AnyArray) -> AnyArray:
    """A view of complex numbers as real ones, with a last axis (re, im)."""
    return array[..., np.newaxis].view(array.real.dtype)


def _real_planes(x: AnyArray, w: AnyArray, out: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """Real arrays with axes of channels to be mixed at their ends: x (..., C), w (..., K, C), out (..., K)."""
    if out.dtype.kind != "c":
        return x[..., np.newaxis], w[..., np.newaxis, np.newaxis], out[..., np.newaxis]
    if w.dtype.kind != "c":
        planes = w[..., np.newaxis]
        return _planes(x)[..., np.newaxis], planes[..., np.newaxis, np.newaxis], _planes(out)[..., np.newaxis]
    if x.dtype.kind != "c":
        return x[..., np.newaxis], _planes(w)[..., np.newaxis], _planes(out)
    matrix = np.empty((*w.shape, 2, 2), w.real.dtype)
    matrix[..., 0, 0] = matrix[..., 1, 1] = w.real
    matrix[..., 1, 0] = w.imag
    matrix[..., 0, 1] = -w.imag
    return _planes(x), matrix, _planes(out)


@lru_cache(maxsize=256)
def _recipe(shapes: Sizes, strides: Sizes, padding: Padding, boundary: Boundary, dtype: str) -> _Recipe:
    """How to see x, w and out, whose shapes and strides these are, with the axes of mixing at their ends, as layers."""
    convolved = dict(padding)
    axes = _merged_axes(shapes, strides, convolved)
    kinds = [_kind(group[0], shapes, convolved) for group in axes]

    def extent(operand: int, group: int) -> int:
        return prod(shapes[operand][axis] for axis in axes[group])

    def largest(kind: str) -> int | None:
        groups = [i for i, k in enumerate(kinds) if k == kind]
        return max(groups, key=lambda i: extent(2, i), default=None)

    mixes = shapes[1][-2] > 1
    batch = largest("batch")
    group = None if mixes else largest("group")
    output = None if mixes or group is not None else largest("output")
    channel = group if group is not None else output
    spatial = [i for i, kind in enumerate(kinds) if kind == "spatial"]
    loops = [i for i in range(len(kinds)) if i not in (batch, group, output, *spatial)]

    def layout(operand: int, outer: int | None, inner: int | None, mixed: Sequence[int]) -> _Layout:
        """Loops, two axes (of `axes`; None for the next of the extents `mixed`), then the spatial axes."""
        order = [*loops, outer, inner, *spatial]
        present = sorted(i for i in order if i is not None)
        rest = iter(range(len(present), len(order)))
        shape = (*(extent(operand, i) for i in present), *mixed)
        return shape, tuple(next(rest) if i is None else present.index(i) for i in order)

    one = [1]
    x = layout(0, batch, group, one * (batch is None) + [shapes[0][-1]] * (group is None))
    w = layout(1, channel, None, [shapes[1][-2]] * (channel is None) + [shapes[1][-1]])
    out = layout(2, batch, channel, one * (batch is None) + [shapes[2][-1]] * (channel is None))
    first = len(loops)
    sizes = [tuple(shape[i] for i in order) for shape, order in (x, w, out)]
    groups = 1 if group is None else extent(0, group)
    ends = tuple(ends for _, ends in padding)
    key = Key(sizes[0][first:], sizes[1][first:], ends, boundary, groups, dtype)
    return _Recipe(key, sizes[2][:first], x, w, out)


def _kind(axis: int, shapes: Sizes, convolved: Collection[int]) -> str:
    """What an axis is to the layer."""
    if axis in convolved:
        return "spatial"
    if shapes[1][axis] == 1:
        return "batch"
    return "output" if shapes[0][axis] == 1 else "group"


def _merged_axes(shapes: Sizes, strides: Sizes, convolved: Collection[int]) -> list[list[int]]:
    """The axes but those of mixing and of extent 1; neighbours of a kind in one list if they are one in memory."""

    def one_in_memory(outer: int, inner: int) -> bool:
        return all(
            shape[outer] == shape[inner] == 1 or stride[outer] == stride[inner] * shape[inner]
            for shape, stride in zip(shapes, strides, strict=True)
        )

    axes: list[list[int]] = []
    for axis in range(len(shapes[2]) - 1):
        if axis not in convolved and shapes[2][axis] == 1:
            continue
        kind = _kind(axis, shapes, convolved)
        if axes and kind == _kind(axes[-1][-1], shapes, convolved) != "spatial" and one_in_memory(axes[-1][-1], axis):
            axes[-1].append(axis)
        else:
            axes.append([axis])
    return axes
