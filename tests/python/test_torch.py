"""Forward and both gradients against PyTorch by every algorithm, on layers of real networks (shapes/torch.txt)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import triconv as tc
from oracle import assert_within, chosen_row, scales, tolerance
from shapes import PASSES, Problem, named_problems
from torch_support import functional, torch, torch_passes

NAMED = {**named_problems("torch.txt"), **named_problems("small.txt")}
# PyTorch has no layers without channels.
NAMED = {name: problem for name, problem in NAMED.items() if problem.in_channels and problem.out_channels}
ALGORITHMS = ("auto", "direct", "fft", "winograd")


def torch_tolerance(problem: Problem, which: str) -> float:
    """Error of PyTorch's own sums relative to the scale.

    A sum of L products errs by at most L eps / 2 in any order; long ones err like a random walk, by sqrt(L) eps at most
    (measured here: a tenth of it).
    """
    length = problem.reduction_length(which)
    return min((length + 1) / 2, max(16.0, length**0.5)) * float(np.finfo(problem.dtype).eps)


def allowed(problem: Problem, arrays, algorithm: str = "auto", bias: float = 0) -> dict[str, float]:
    """The largest difference between an element of each pass and PyTorch's: the documented bound and PyTorch's own.

    Both are relative to the largest sum of |x||w|, to which a bias adds its largest element.
    """
    plan, scale = problem.plan(algorithm), scales(problem, *arrays)
    scale["forward"] += bias
    return {
        which: (tolerance(problem, which, chosen_row(plan, which)) + torch_tolerance(problem, which)) * scale[which]
        for which in PASSES
    }


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", NAMED)
def test_three_passes(name: str, dtype: str) -> None:
    problem = NAMED[name].with_dtype(dtype)
    x, w, dy = problem.random_arrays(1)
    expected = torch_passes(problem, x, w, dy)
    for algorithm in ALGORITHMS:
        if algorithm == "winograd" and not problem.winograd:
            continue
        plan = problem.plan(algorithm)
        results = (plan.forward(x, w), plan.input_grad(w, dy), plan.weight_grad(x, dy))
        bounds = allowed(problem, (x, w, dy), algorithm)
        for which, result in zip(PASSES, results, strict=True):
            context = f"{name}: {problem} {which} {getattr(plan.algorithm, which)}"
            assert_within(result.astype(np.float64), expected[which], bounds[which], context)


def test_winograd_does_what_the_networks_use_it_for() -> None:
    """The comparison above passes over what Winograd cannot do; this is not to become everything."""
    assert sum(problem.winograd for problem in NAMED.values()) > 0.6 * len(NAMED)


TORCH_MODES = ("zeros", "reflect", "replicate", "circular")
PADDED = [
    "n2c3k4 i40 r9 p4 f32",
    "n1c1k2 i300 r33 s2 p16 d2 f32",
    "n2c5k6 i13x12 r3x5 p1x2 f32",
    "n1c1k1 i40x37 r9x9 p4 f32",
    "n2c6k4 i14x15 r5x3 s2x1 p4x3 d1x2 g2 f32",
    "n2c18k18 i10x11 r5x5 p2 g18 f32",
    "n1c3k4 i6x7x8 r3x3x3 p1x2x1 f32",
]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("mode", TORCH_MODES)
@pytest.mark.parametrize("text", PADDED)
def test_padding_modes(text: str, mode: str, dtype: str) -> None:
    """By the names of PyTorch, against its own padding; padding as wide as it allows included."""
    problem = Problem.parse(text).with_dtype(dtype)
    boundary = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}[mode]
    problem = replace(problem, boundary=boundary)
    widest = [size - (mode == "reflect") for size in problem.input]
    for padding in (problem.padding, tuple((size // 2, size) for size in widest)):
        padded = replace(problem, padding=padding)
        arrays = padded.random_arrays(5)
        x, w = (torch.from_numpy(a).requires_grad_() for a in arrays[:2])
        ends = [end for axis in reversed(padding) for end in axis]
        wide = functional.pad(x, ends, mode={"zeros": "constant"}.get(mode, mode))
        call = getattr(functional, f"conv{padded.rank}d")
        y = call(wide, w, None, padded.stride, 0, padded.dilation, padded.groups)
        expected = (y, *torch.autograd.grad(y, (x, w), torch.from_numpy(arrays[2])))
        parameters = {**padded.parameters, "padding_mode": mode}
        for algorithm in ALGORITHMS:
            if algorithm == "winograd" and not padded.winograd:
                continue
            bounds = allowed(padded, arrays, algorithm)
            plan = getattr(tc, f"plan_conv{padded.rank}d")(
                padded.input_size, padded.weight_size, **parameters, dtype=padded.dtype, algorithm=algorithm
            )
            results = (
                plan.forward(*arrays[:2]),
                plan.input_grad(*arrays[1:]),
                plan.weight_grad(arrays[0], arrays[2]),
            )
            for which, result, peers in zip(PASSES, results, expected, strict=True):
                assert_like_torch(result, peers, bounds[which], f"{padded} {which} {algorithm}")


@pytest.mark.parametrize("mode", TORCH_MODES)
def test_layers_with_padding_modes(mode: str) -> None:
    layer = tc.nn.Conv2d(3, 4, 5, padding=2, padding_mode=mode, dtype=np.float64, rng=1)
    peer = torch.nn.Conv2d(3, 4, 5, padding=2, padding_mode=mode, dtype=torch.float64)
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(layer.weight))
        peer.bias.copy_(torch.from_numpy(layer.bias))
    x = np.random.default_rng(2).normal(size=(2, 3, 9, 8))
    leaf = torch.from_numpy(x).requires_grad_()
    y, expected = layer(x), peer(leaf)
    expected.backward(torch.ones_like(expected))
    dx = layer.backward(np.ones_like(y))
    # Sums of at most 144 products of normal deviates, in float64.
    for result, peers in ((y, expected), (dx, leaf.grad), (layer.weight_grad, peer.weight.grad)):
        assert_like_torch(result, peers, 1e-12, mode)


# ---- Arguments -------------------------------------------------------------------------------------------------------

LAYER = Problem.parse("n2c6k8 i13x12 r3x5 p1x2 f32")


@pytest.fixture
def arrays() -> tuple[np.ndarray, ...]:
    return LAYER.random_arrays(2)


def assert_like_torch(result: np.ndarray, expected: torch.Tensor, bound: float, problem: object) -> None:
    assert_within(result.astype(np.float64), expected.detach().double().numpy(), bound, problem)


def padding_of(padding: object, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The zeros at both ends of each axis that a padding argument stands for."""
    if padding == "same":
        totals = [d * (r - 1) for r, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    per_axis = {"valid": (0, 0)}.get(padding, (padding, padding) if isinstance(padding, int) else padding)
    return tuple((ends, ends) for ends in per_axis)


# PyTorch pads a copy of its input where "same" is uneven, and says so.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("padding", ["valid", "same", 0, 2, (1, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_padding_by_name_and_number(arrays, padding, dilation) -> None:
    x, w, _ = arrays
    w_even = np.ascontiguousarray(w[:, :, :2, :4])  # "same" is then unlike at the two ends
    for kernel in (w, w_even):
        taps = kernel.shape[2:]
        problem = replace(LAYER, kernel=taps, padding=padding_of(padding, taps, dilation), dilation=dilation)
        dy = np.zeros(problem.output_size)
        expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(kernel), padding=padding, dilation=dilation)
        for algorithm in ALGORITHMS:
            result = tc.conv2d(x, kernel, padding=padding, dilation=dilation, algorithm=algorithm)
            bound = allowed(problem, (x, kernel, dy), algorithm)["forward"]
            assert_like_torch(result, expected, bound, f"{problem} padding={padding!r} {algorithm}")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched_input(rank: int) -> None:
    problem = Problem.parse(
        ["n1c4k6 i50 r5 p2 f32", "n1c4k6 i12x11 r3x5 p2 f32", "n1c3k4 i5x6x7 r3x2x3 p1 f32"][rank - 1]
    )
    x, w, dy = problem.random_arrays(3)
    bias = np.arange(problem.out_channels, dtype=np.float32)
    bounds = allowed(problem, (x, w, dy), bias=float(bias.max()))
    x, dy = x[0], dy[0]
    x_leaf, w_leaf = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    padding = tuple(low for low, _ in problem.padding)
    expected = getattr(functional, f"conv{rank}d")(x_leaf, w_leaf, torch.from_numpy(bias), padding=padding)
    dx, dw = torch.autograd.grad(expected, (x_leaf, w_leaf), torch.from_numpy(dy))
    results = {
        "forward": (getattr(tc, f"conv{rank}d")(x, w, bias, padding=padding), expected),
        "input_grad": (getattr(tc.grad, f"conv{rank}d_input")(x.shape, w, dy, padding=padding), dx),
        "weight_grad": (getattr(tc.grad, f"conv{rank}d_weight")(x, w.shape, dy, padding=padding), dw),
    }
    for which, (result, peers) in results.items():
        assert_like_torch(result, peers, bounds[which], f"{problem} {which}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_tensors_and_memory_formats(arrays, memory_format: torch.memory_format, algorithm: str) -> None:
    x, w, dy = (torch.from_numpy(a).contiguous(memory_format=memory_format) for a in arrays)
    x_leaf, w_leaf = x.clone().requires_grad_(), w.clone().requires_grad_()
    expected = functional.conv2d(x_leaf, w_leaf, padding=(1, 2))
    dx, dw = torch.autograd.grad(expected, (x_leaf, w_leaf), dy)
    context = f"{LAYER} {memory_format} {algorithm}"
    y = LAYER.forward(x, w, algorithm=algorithm)
    results = {
        "forward": (y, expected),
        "input_grad": (LAYER.input_grad(w, dy, algorithm=algorithm), dx),
        "weight_grad": (LAYER.weight_grad(x, dy, algorithm=algorithm), dw),
    }
    bounds = allowed(LAYER, arrays, algorithm)
    for which, (result, peers) in results.items():
        assert_like_torch(result, peers, bounds[which], f"{context} {which}")
    like = torch.from_numpy(y)
    assert like.is_contiguous(memory_format=memory_format), context
    assert like.is_contiguous() == expected.is_contiguous(), f"{context}: PyTorch's output has another memory format"


def test_slices_of_tensors(arrays) -> None:
    x, w, _ = map(torch.from_numpy, arrays)
    x, w = x[:, ::2, 1:, ::2], w[:, ::2, :, 1:]
    problem = replace(
        LAYER, in_channels=3, input=tuple(x.shape[2:]), kernel=tuple(w.shape[2:]), padding=((0, 0), (0, 0))
    )
    bound = allowed(problem, (x.numpy(), w.numpy(), np.zeros(problem.output_size)))["forward"]
    assert_like_torch(tc.conv2d(x, w), functional.conv2d(x, w), bound, f"{problem} sliced")


def test_gradients_of_torch_nn_grad(arrays) -> None:
    """The functions of triconv.grad have the names and the order of arguments of torch.nn.grad."""
    x, w, dy = arrays
    tx, tw, tdy = map(torch.from_numpy, arrays)
    dx = torch.nn.grad.conv2d_input(x.shape, tw, tdy, 1, (1, 2))
    dw = torch.nn.grad.conv2d_weight(tx, w.shape, tdy, 1, (1, 2))
    bounds = allowed(LAYER, arrays)
    assert_like_torch(tc.grad.conv2d_input(x.shape, w, dy, 1, (1, 2)), dx, bounds["input_grad"], LAYER)
    assert_like_torch(tc.grad.conv2d_weight(x, w.shape, dy, 1, (1, 2)), dw, bounds["weight_grad"], LAYER)
