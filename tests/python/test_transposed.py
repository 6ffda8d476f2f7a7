"""Transposed convolution: PyTorch's values and gradients, and the adjoint of convolution whatever the problem."""

from __future__ import annotations

import numpy as np
import pytest
import triconv as tc
from hypothesis import given
from hypothesis import strategies as st
from oracle import assert_same_bits, assert_within, chosen_row, expected_passes, scales, tolerance
from shapes import Problem
from strategies import algorithms, examples, problems, seeds

# A transposed convolution is the input gradient of a convolution: its input is dy, its output dx, and its weight w.


def parameters(problem: Problem) -> dict[str, object]:
    """The arguments of the layer that is the transpose of `problem`, its output as large as the problem's input."""
    axes = zip(
        problem.input, problem.kernel, problem.stride, problem.padding, problem.dilation, problem.output, strict=True
    )
    extra = tuple(i + low + high - (d * (r - 1) + 1) - s * (o - 1) for i, r, s, (low, high), d, o in axes)
    return {**problem.parameters, "output_padding": extra}


def transpose(problem: Problem, dy: np.ndarray, w: np.ndarray, bias=None, **options) -> np.ndarray:
    return getattr(tc, f"conv_transpose{problem.rank}d")(dy, w, bias, **parameters(problem), **options)


def transpose_input(problem: Problem, w: np.ndarray, x: np.ndarray, **options) -> np.ndarray:
    call = getattr(tc.grad, f"conv_transpose{problem.rank}d_input")
    return call(problem.output_size, w, x, **parameters(problem), **options)


def transpose_weight(problem: Problem, dy: np.ndarray, x: np.ndarray, **options) -> np.ndarray:
    call = getattr(tc.grad, f"conv_transpose{problem.rank}d_weight")
    return call(dy, problem.weight_size, x, **parameters(problem), **options)


def doable(problem: Problem, algorithm: str) -> str:
    """The algorithm, or "auto" where it is Winograd and cannot do the problem."""
    return "auto" if algorithm == "winograd" and not problem.winograd else algorithm


def transposable(problem: Problem) -> bool:
    """Whether the transpose is a layer: as in PyTorch, output_padding is below the stride or the dilation."""
    extra = parameters(problem)["output_padding"]
    return all(e < max(s, d) for e, s, d in zip(extra, problem.stride, problem.dilation, strict=True))


transposable_problems = problems().map(lambda problem: problem.zero_padded).filter(transposable)


@examples(200)
@given(problem=transposable_problems, algorithm=algorithms, seed=seeds)
def test_it_is_the_adjoint_of_convolution(problem: Problem, algorithm: str, seed: int) -> None:
    """<conv_transpose(dy, w), x> = <dy, conv(x, w)>, and the same elements as the oracle's gradient."""
    x, w, dy = problem.random_arrays(seed)
    algorithm = doable(problem, algorithm)
    plan = problem.plan(algorithm)
    scale, expected = scales(problem, x, w, dy), expected_passes(problem, x, w, dy)
    result = transpose(problem, dy, w, algorithm=algorithm)
    error = tolerance(problem, "input_grad", chosen_row(plan, "input_grad")) * scale["input_grad"]
    assert_within(result, expected["input_grad"], error, f"{problem} conv_transpose {algorithm}")

    y = problem.forward(x, w, algorithm=algorithm)
    forward_error = tolerance(problem, "forward", chosen_row(plan, "forward")) * scale["forward"]
    wide = np.longdouble
    left = np.sum(result.astype(wide) * x.astype(wide))
    right = np.sum(y.astype(wide) * dy.astype(wide))
    # An error of e in every element moves the product by e times the sum of the other operand's sizes.
    allowed = error * np.abs(x).sum() + forward_error * np.abs(dy).sum()
    assert abs(left - right) <= allowed, f"{problem} {algorithm}: {left} and {right}, allowed {allowed}"


@examples(100)
@given(problem=transposable_problems, algorithm=algorithms, seed=seeds)
def test_it_and_its_gradients_are_the_passes_of_convolution(problem: Problem, algorithm: str, seed: int) -> None:
    """The very bits: one engine computes both."""
    x, w, dy = problem.random_arrays(seed)
    algorithm = doable(problem, algorithm)
    pairs = {
        "conv_transpose": (
            transpose(problem, dy, w, algorithm=algorithm),
            problem.input_grad(w, dy, algorithm=algorithm),
        ),
        "its input gradient": (
            transpose_input(problem, w, x, algorithm=algorithm),
            problem.forward(x, w, algorithm=algorithm),
        ),
        "its weight gradient": (
            transpose_weight(problem, dy, x, algorithm=algorithm),
            problem.weight_grad(x, dy, algorithm=algorithm),
        ),
    }
    for name, (result, expected) in pairs.items():
        assert_same_bits(result, expected, f"{problem} {name} {algorithm}")


@examples(100)
@given(problem=transposable_problems, algorithm=algorithms, seed=seeds, threads=st.integers(2, 4))
def test_bias_is_added_once(problem: Problem, algorithm: str, seed: int, threads: int) -> None:
    _, w, dy = problem.random_arrays(seed)
    algorithm = doable(problem, algorithm)
    bias = np.random.default_rng(seed).normal(size=problem.in_channels).astype(problem.dtype)
    plain = transpose(problem, dy, w, algorithm=algorithm).astype(np.longdouble)
    with tc.num_threads(threads):
        result = transpose(problem, dy, w, bias, algorithm=algorithm)
    expected = plain + bias.reshape(-1, *(1,) * problem.rank)
    # Both are rounded within the engine, at most twice each.
    bound = (
        4 * float(np.finfo(problem.dtype).eps) * float(np.abs(expected).max(initial=0) + np.abs(plain).max(initial=0))
    )
    assert_within(result, expected, bound, f"{problem} conv_transpose {algorithm} with bias")


# ---- PyTorch ---------------------------------------------------------------------------------------------------------

# Text form: of the convolution that is transposed, so i is the size of the transposed layer's output.
GENERATORS = {
    "dcgan_first": "n2c24k32 i4x4 r4x4",
    "dcgan_up": "n2c16k24 i16x16 r4x4 s2 p1",
    "unet_up": "n1c8k16 i20x20 r2x2 s2",
    "fcn_up_32": "n1c3k3 i96x96 r64x64 s32",
    "vae_odd": "n3c5k7 i14x15 r3x3 s2 p1",
    "grouped": "n2c12k8 i13x11 r5x5 s2 p2 g4",
    "depthwise": "n2c10k10 i13x11 r4x4 s2 p1 g10",
    "dilated": "n1c4k6 i17x16 r3x3 p2 d2",
    "stride_and_dilation": "n1c4k6 i17x16 r3x2 s3x2 p2x0 d2x3",
    "large_kernel": "n1c3k4 i30x29 r15x13 p7x6",
    "pointwise": "n2c6k9 i7x8 r1x1",
    "wavegan_up_25": "n1c6k12 i128 r25 s4 p11",
    "hifigan_up_16": "n1c8k16 i256 r16 s8 p4",
    "audio_long": "n1c1k4 i900 r101 s2 p50",
    "voxel_up": "n1c4k8 i8x8x8 r4x4x4 s2 p1",
    "voxel_odd": "n1c3k2 i5x6x7 r3x2x3 s1x2x3 p1x0x1",
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("name", GENERATORS)
def test_it_and_its_gradients_are_pytorchs(name: str, dtype: str) -> None:
    from torch_support import functional, torch

    problem = Problem.parse(GENERATORS[name]).with_dtype(dtype)
    assert transposable(problem), name
    x, w, dy = problem.random_arrays(4)
    bias = np.linspace(-1, 1, problem.in_channels).astype(problem.dtype)
    leaves = [torch.from_numpy(a).double().requires_grad_() for a in (dy, w)]
    layer = parameters(problem)
    torch_layer = {**layer, "padding": tuple(low for low, _ in problem.padding)}
    expected = getattr(functional, f"conv_transpose{problem.rank}d")(
        *leaves, torch.from_numpy(bias).double(), **torch_layer
    )
    gradients = torch.autograd.grad(expected, leaves, torch.from_numpy(x).double())
    scale = scales(problem, x, w, dy)
    for algorithm in ("auto", "direct", "fft", "winograd"):
        if doable(problem, algorithm) != algorithm:
            continue
        plan = problem.plan(algorithm)
        results = {
            "input_grad": (transpose(problem, dy, w, bias, algorithm=algorithm), expected),
            "forward": (transpose_input(problem, w, x, algorithm=algorithm), gradients[0]),
            "weight_grad": (transpose_weight(problem, dy, x, algorithm=algorithm), gradients[1]),
        }
        # PyTorch sums in float64: sums of at most 10^4 terms err by less than 1e-13 of the scale.
        peer = 0 if dtype == "f32" else 1e-13
        for which, (result, reference) in results.items():
            bound = (tolerance(problem, which, chosen_row(plan, which)) + peer) * (scale[which] + 1)  # 1: the bias
            context = f"{name}: {problem} transposed, {which}, {algorithm}"
            assert_within(result, reference.detach().numpy(), bound, context)
