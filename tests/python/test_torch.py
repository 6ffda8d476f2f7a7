"""Forward and both gradients against PyTorch by every algorithm, on layers of real networks (shapes/torch.txt)."""

from __future__ import annotations

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


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", NAMED)
def test_three_passes(name: str, dtype: str) -> None:
    problem = NAMED[name].with_dtype(dtype)
    x, w, dy = problem.random_arrays(1)
    expected, scale = torch_passes(problem, x, w, dy), scales(problem, x, w, dy)
    for algorithm in ALGORITHMS:
        if algorithm == "winograd" and not problem.winograd:
            continue
        plan = problem.plan(algorithm)
        results = (plan.forward(x, w), plan.input_grad(w, dy), plan.weight_grad(x, dy))
        for which, result in zip(PASSES, results, strict=True):
            bound = tolerance(problem, which, chosen_row(plan, which)) + torch_tolerance(problem, which)
            context = f"{name}: {problem} {which} {getattr(plan.algorithm, which)}"
            assert_within(result.astype(np.float64), expected[which], bound * scale[which], context)


def test_winograd_does_what_the_networks_use_it_for() -> None:
    """The comparison above passes over what Winograd cannot do; this is not to become everything."""
    assert sum(problem.winograd for problem in NAMED.values()) > 0.6 * len(NAMED)


# ---- Arguments -------------------------------------------------------------------------------------------------------

LAYER = Problem.parse("n2c6k8 i13x12 r3x5 p1x2 f32")
EPSILON = float(np.finfo(np.float32).eps)


@pytest.fixture
def arrays() -> tuple[np.ndarray, ...]:
    return LAYER.random_arrays(2)


def assert_like_torch(result: np.ndarray, expected: torch.Tensor, problem: object) -> None:
    """For float32 sums of at most 600 products of normal deviates, thus of some 20 each at most.

    Both err by at most 16 eps of the sum of absolute values (direct, PyTorch) or the Winograd bound, some 100 eps.
    """
    assert_within(result.astype(np.float64), expected.detach().double().numpy(), 200 * EPSILON * 100, problem)


# PyTorch pads a copy of its input where "same" is uneven, and says so.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("padding", ["valid", "same", 0, 2, (1, 3)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
def test_padding_by_name_and_number(arrays, padding, dilation) -> None:
    x, w, _ = arrays
    w_even = np.ascontiguousarray(w[:, :, :2, :4])  # "same" is then unlike at the two ends
    for kernel in (w, w_even):
        expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(kernel), padding=padding, dilation=dilation)
        for algorithm in ALGORITHMS:
            result = tc.conv2d(x, kernel, padding=padding, dilation=dilation, algorithm=algorithm)
            assert_like_torch(result, expected, f"{x.shape} {kernel.shape} p{padding} d{dilation} {algorithm}")


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unbatched_input(rank: int) -> None:
    problem = Problem.parse(
        ["n1c4k6 i50 r5 p2 f32", "n1c4k6 i12x11 r3x5 p2 f32", "n1c3k4 i5x6x7 r3x2x3 p1 f32"][rank - 1]
    )
    x, w, dy = problem.random_arrays(3)
    x, dy = x[0], dy[0]
    x_leaf, w_leaf = torch.from_numpy(x).requires_grad_(), torch.from_numpy(w).requires_grad_()
    bias = np.arange(problem.out_channels, dtype=np.float32)
    padding = tuple(low for low, _ in problem.padding)
    expected = getattr(functional, f"conv{rank}d")(x_leaf, w_leaf, torch.from_numpy(bias), padding=padding)
    dx, dw = torch.autograd.grad(expected, (x_leaf, w_leaf), torch.from_numpy(dy))
    assert_like_torch(getattr(tc, f"conv{rank}d")(x, w, bias, padding=padding), expected, problem)
    assert_like_torch(getattr(tc.grad, f"conv{rank}d_input")(x.shape, w, dy, padding=padding), dx, problem)
    assert_like_torch(getattr(tc.grad, f"conv{rank}d_weight")(x, w.shape, dy, padding=padding), dw, problem)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_tensors_and_memory_formats(arrays, memory_format: torch.memory_format, algorithm: str) -> None:
    x, w, dy = (torch.from_numpy(a).contiguous(memory_format=memory_format) for a in arrays)
    x_leaf, w_leaf = x.clone().requires_grad_(), w.clone().requires_grad_()
    expected = functional.conv2d(x_leaf, w_leaf, padding=(1, 2))
    dx, dw = torch.autograd.grad(expected, (x_leaf, w_leaf), dy)
    context = f"{LAYER} {memory_format} {algorithm}"
    y = LAYER.forward(x, w, algorithm=algorithm)
    assert_like_torch(y, expected, f"{context} forward")
    assert_like_torch(LAYER.input_grad(w, dy, algorithm=algorithm), dx, f"{context} input_grad")
    assert_like_torch(LAYER.weight_grad(x, dy, algorithm=algorithm), dw, f"{context} weight_grad")
    like = torch.from_numpy(y)
    assert like.is_contiguous(memory_format=memory_format), context
    assert like.is_contiguous() == expected.is_contiguous(), f"{context}: PyTorch's output has another memory format"


def test_slices_of_tensors(arrays) -> None:
    x, w, _ = map(torch.from_numpy, arrays)
    x, w = x[:, ::2, 1:, ::2], w[:, ::2, :, 1:]
    assert_like_torch(tc.conv2d(x, w), functional.conv2d(x, w), f"{LAYER} sliced")


def test_gradients_of_torch_nn_grad(arrays) -> None:
    """The functions of triconv.grad have the names and the order of arguments of torch.nn.grad."""
    x, w, dy = arrays
    tx, tw, tdy = map(torch.from_numpy, arrays)
    dx = torch.nn.grad.conv2d_input(x.shape, tw, tdy, 1, (1, 2))
    dw = torch.nn.grad.conv2d_weight(tx, w.shape, tdy, 1, (1, 2))
    assert_like_torch(tc.grad.conv2d_input(x.shape, w, dy, 1, (1, 2)), dx, LAYER)
    assert_like_torch(tc.grad.conv2d_weight(x, w.shape, dy, 1, (1, 2)), dw, LAYER)
