"""Properties of the three passes over layers of every kind: Hypothesis draws problem, algorithm and layouts.

Results are compared with a wider oracle (oracle.py, itself checked here against `triconv.reference`) within the bound
that the algorithm documents, relative to the largest sum of |first operand| |second operand|. Every failure tells the
problem in one line.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import triconv as tc
from hypothesis import example, given, note
from hypothesis import strategies as st
from oracle import (
    assert_same_bits,
    assert_within,
    chosen_row,
    expected_passes,
    reference_passes,
    scales,
    tolerance,
)
from shapes import PASSES, Problem, named_problems
from strategies import algorithms, biases, examples, layouts, linear_problems, output_layouts, problems, seeds


def plan_of(problem: Problem, algorithm: str) -> tc.Plan:
    """The plan; where Winograd cannot do the problem, after seeing that it says so, that of "auto"."""
    if algorithm != "winograd" or problem.winograd:
        return problem.plan(algorithm)
    if problem.has_idle_taps:
        with contextlib.suppress(ValueError):
            return problem.plan(algorithm)
    with pytest.raises(ValueError, match="winograd has no transform for"):
        problem.plan(algorithm)
    return problem.plan("auto")


def assert_ran(plan: tc.Plan, which: str, reads_anything: bool) -> None:
    """The last run was this pass by the plan's algorithm, on the kernels in use, and no tile was recomputed."""
    run = tc.last_run()
    context = f"{plan.problem} {which}: {run}"
    assert run is not None, context
    assert run.algorithm == getattr(plan.algorithm, which), context
    assert run.isa == tc.build_info().isa, context
    assert run.recomputed_tiles == 0, context
    if run.algorithm == "direct":
        assert run.tiles == 0, context
    else:
        assert run.tiles > 0 or not reads_anything, context


def inner(a: np.ndarray, b: np.ndarray) -> np.longdouble:
    return np.sum(a.astype(np.longdouble) * b.astype(np.longdouble))


# ---- The tools of this file ------------------------------------------------------------------------------------------


@examples(60)
@given(problem=problems(), seed=seeds)
def test_the_oracle_is_the_reference(problem: Problem, seed: int) -> None:
    x, w, dy = problem.with_dtype("f64").random_arrays(seed)
    expected = reference_passes(problem, x, w, dy)
    actual, scale = expected_passes(problem, x, w, dy), scales(problem, x, w, dy)
    for which in PASSES:
        # float64 sums of L terms, L / 2 roundings of 2.2e-16: 1e-12 for the longest drawn here, some 4000.
        assert_within(actual[which], expected[which], 1e-12 * scale[which], f"{problem} {which}")


@examples(100)
@given(problem=problems())
def test_problems_have_one_text_form(problem: Problem) -> None:
    plan = problem.plan("direct")
    assert plan.problem == str(problem)
    assert Problem.parse(str(problem)) == problem
    assert plan.output_size == problem.output_size, str(problem)


@pytest.mark.parametrize("file", ["small.txt", "torch.txt"])
def test_named_problems_have_the_text_form_of_the_core(file: str) -> None:
    for name, problem in named_problems(file).items():
        parts = problem.plan("direct").problem
        assert Problem.parse(parts) == problem, name


# ---- Values ----------------------------------------------------------------------------------------------------------


@examples(350)
@example(problem=Problem.parse("n1c0k0 i5 r3 f32"), algorithm="auto", has_bias=False, seed=0)
@example(problem=Problem.parse("n0c0k0 i5x4 r3x3 f64"), algorithm="direct", has_bias=True, seed=0)
@example(problem=Problem.parse("n1c1k1 i1x1 r1x1 s1x2 p0x1:0 f32"), algorithm="fft", has_bias=False, seed=0)
@example(problem=Problem.parse("n1c1k1 i1x1 r1x1 s2x1 p1:0x0 b=nearest f32"), algorithm="fft", has_bias=False, seed=0)
@given(problem=problems(), algorithm=algorithms, has_bias=biases, seed=seeds)
def test_passes_are_the_oracles(problem: Problem, algorithm: str, has_bias: bool, seed: int) -> None:
    x, w, dy = problem.random_arrays(seed)
    plan = plan_of(problem, algorithm)
    note(f"{problem} by {plan.algorithm}")
    expected, scale = expected_passes(problem, x, w, dy), scales(problem, x, w, dy)
    reads_anything = {which: values.any() for which, values in expected.items()}
    if (
        problem.boundary != "constant"
    ):  # the gradient of padding may be direct: the plan's algorithm is of the array's own
        own = expected_passes(problem.zero_padded, x, w, dy)
        reads_anything["input_grad"] = own["input_grad"].any()
    bias = np.random.default_rng(seed).normal(size=problem.out_channels).astype(problem.dtype) if has_bias else None
    if bias is not None:
        expected["forward"] += bias.reshape(-1, *(1,) * problem.rank)
        # Adding the bias rounds once more: half an eps of |y| + |bias|, below the tolerance of the sum grown by |bias|.
        scale["forward"] += float(np.abs(bias).max(initial=0))
    passes = {
        "forward": lambda: plan.forward(x, w, bias),
        "input_grad": lambda: plan.input_grad(w, dy),
        "weight_grad": lambda: plan.weight_grad(x, dy),
    }
    for which in PASSES:
        result = passes[which]()
        assert result.dtype == problem.dtype, str(problem)
        bound = tolerance(problem, which, chosen_row(plan, which)) * scale[which]
        assert_within(result, expected[which], bound, f"{problem} {which} {getattr(plan.algorithm, which)}")
        assert_ran(plan, which, reads_anything[which])


@examples(250)
@given(problem=problems(), which=st.sampled_from(PASSES), seed=seeds, data=st.data())
def test_every_tile_of_every_algorithm(problem: Problem, which: str, seed: int, data: st.DataObject) -> None:
    """Candidates that "auto" lists but did not choose, too, by the names it gives them."""
    possible = [row for row in getattr(problem.plan("auto").explain(), which) if row.possible]
    row = data.draw(st.sampled_from(possible), label="candidate")
    x, w, dy = problem.random_arrays(seed)
    result = problem.run(which, x, w, dy, algorithm=row.algorithm)
    assert tc.last_run().algorithm == row.algorithm, f"{problem} {which}"
    assert tc.last_run().recomputed_tiles == 0, f"{problem} {which} {row.algorithm}"
    bound = tolerance(problem, which, row) * scales(problem, x, w, dy)[which]
    expected = expected_passes(problem, x, w, dy)[which]
    assert_within(result, expected, bound, f"{problem} {which} {row.algorithm}")


@examples(150)
@given(problem=problems(), algorithm=algorithms, seed=seeds)
def test_step_is_the_separate_passes(problem: Problem, algorithm: str, seed: int) -> None:
    x, w, dy = problem.random_arrays(seed)
    plan = plan_of(problem, algorithm)
    y, backward = plan.step(x, w)
    dx, dw = backward(dy)
    scale = scales(problem, x, w, dy)
    # A step may take the tiles of one pass for the others, so the widest bound, for it and for the separate pass.
    bound = 2 * max(tolerance(problem, which, chosen_row(plan, which)) for which in PASSES)
    separate = (plan.forward(x, w), plan.input_grad(w, dy), plan.weight_grad(x, dy))
    for which, stepped, alone in zip(PASSES, (y, dx, dw), separate, strict=True):
        context = f"{problem} {which} {algorithm} of a step"
        assert_within(stepped.astype(np.float64), alone.astype(np.float64), bound * scale[which], context)


# ---- The structure of a linear layer ---------------------------------------------------------------------------------


@examples(150)
@given(problem=linear_problems, algorithm=algorithms, seed=seeds)
def test_passes_are_adjoint(problem: Problem, algorithm: str, seed: int) -> None:
    """<dy, conv(x, w)> = <conv_input(dy, w), x> = <conv_weight(x, dy), w>."""
    x, w, dy = problem.random_arrays(seed)
    plan = plan_of(problem, algorithm)
    scale = scales(problem, x, w, dy)
    pairs = {
        "forward": (plan.forward(x, w), dy),
        "input_grad": (plan.input_grad(w, dy), x),
        "weight_grad": (plan.weight_grad(x, dy), w),
    }
    products = {which: inner(*pair) for which, pair in pairs.items()}
    # An error of e in every element of a pass moves its product by e times the sum of the other operand's sizes.
    errors = {
        which: tolerance(problem, which, chosen_row(plan, which)) * scale[which] * float(np.abs(pairs[which][1]).sum())
        for which in PASSES
    }
    for which in ("input_grad", "weight_grad"):
        difference = abs(products["forward"] - products[which])
        context = f"{problem} {algorithm}: {products}, allowed {errors}"
        assert difference <= errors["forward"] + errors[which], context


@examples(150)
@given(problem=linear_problems, algorithm=algorithms, which=st.sampled_from(PASSES), seed=seeds)
def test_passes_are_linear_in_both_operands(problem: Problem, algorithm: str, which: str, seed: int) -> None:
    plan = plan_of(problem, algorithm)
    rng = np.random.default_rng(seed)
    # Small integers, so that their combination is exact in any dtype.
    first, second = ([rng.integers(-8, 9, a.shape) for a in problem.random_arrays(seed)] for _ in range(2))

    def run(x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> np.ndarray:
        x, w, dy = (a.astype(problem.dtype) for a in (x, w, dy))
        result = {
            "forward": lambda: plan.forward(x, w),
            "input_grad": lambda: plan.input_grad(w, dy),
            "weight_grad": lambda: plan.weight_grad(x, dy),
        }
        return result[which]().astype(np.float64)

    relative = tolerance(problem, which, chosen_row(plan, which))
    operands = {"forward": (0, 1), "input_grad": (1, 2), "weight_grad": (0, 2)}[which]
    for varied in operands:
        others = [second[i] if i == varied else first[i] for i in range(3)]
        combined = [2 * first[i] - 3 * second[i] if i == varied else first[i] for i in range(3)]
        result, parts = run(*combined), (run(*first), run(*others))
        sums = [scales(problem, *operands)[which] for operands in (combined, first, others)]
        bound = relative * (sums[0] + 2 * sums[1] + 3 * sums[2])
        context = f"{problem} {which} {algorithm} in operand {varied}"
        assert_within(result, 2 * parts[0] - 3 * parts[1], bound, context)


@examples(80)
@given(problem=problems(), which=st.sampled_from(PASSES), seed=seeds)
def test_direct_sums_of_integers_are_exact(problem: Problem, which: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-8, 9, a.shape).astype(problem.dtype) for a in problem.random_arrays(seed)]
    result = problem.run(which, *arrays, algorithm="direct")
    expected = expected_passes(problem, *arrays)[which]
    # Sums of fewer than 2^18 products of at most 64 stay below 2^24, where float32 counts one by one.
    assert problem.reduction_length(which) < 2**18
    assert_within(result, expected, 0, f"{problem} {which} direct")


@examples(80)
@given(
    problem=linear_problems,
    algorithm=algorithms,
    which=st.sampled_from(PASSES),
    exponent=st.integers(-9, 9),
    seed=seeds,
)
def test_powers_of_two_scale_the_bits(problem: Problem, algorithm: str, which: str, exponent: int, seed: int) -> None:
    x, w, dy = problem.random_arrays(seed)
    algorithm = getattr(plan_of(problem, algorithm).algorithm, which)
    factor = problem.dtype.type(2.0**exponent)
    result = problem.run(which, x, w, dy, algorithm=algorithm)
    scaled = {"forward": (factor * x, w, dy), "input_grad": (x, w, factor * dy), "weight_grad": (x, w, factor * dy)}
    context = f"{problem} {which} {algorithm} times {factor}"
    assert_same_bits(problem.run(which, *scaled[which], algorithm=algorithm), factor * result, context)


# ---- Bits ------------------------------------------------------------------------------------------------------------


@examples(250)
@given(
    problem=problems(),
    algorithm=algorithms,
    which=st.sampled_from(PASSES),
    operands=st.tuples(layouts, layouts, layouts),
    output=st.none() | output_layouts,
    seed=seeds,
)
def test_layout_does_not_change_the_bits(problem: Problem, algorithm: str, which, operands, output, seed: int) -> None:
    arrays = problem.random_arrays(seed)
    plain = [layout.values(array) for layout, array in zip(operands, arrays, strict=True)]
    viewed = [layout.of(array) for layout, array in zip(operands, plain, strict=True)]
    algorithm = getattr(plan_of(problem, algorithm).algorithm, which)
    out = None if output is None else output.empty(problem.result_size(which), problem.dtype)
    expected = problem.run(which, *plain, algorithm=algorithm)
    result = problem.run(which, *viewed, algorithm=algorithm, out=out)
    context = f"{problem} {which} {algorithm}"
    assert tc.last_run().algorithm == algorithm, context
    assert out is None or result is out, context
    assert_same_bits(result, expected, context)
    for array, view in zip(plain, viewed, strict=True):
        np.testing.assert_array_equal(view, array, err_msg=f"{context}: an operand was written to")


@examples(120)
@given(problem=problems(), algorithm=algorithms, seed=seeds)
def test_runs_and_threads_do_not_change_the_bits(problem: Problem, algorithm: str, seed: int) -> None:
    x, w, dy = problem.random_arrays(seed)
    plan = plan_of(problem, algorithm)

    def passes() -> tuple[np.ndarray, ...]:
        y, backward = plan.step(x, w)
        return plan.forward(x, w), plan.input_grad(w, dy), plan.weight_grad(x, dy), y, *backward(dy)

    with tc.num_threads(1):
        expected = passes()
    for threads in (1, 2, 3, 4):
        with tc.num_threads(threads):
            for name, result, first in zip((*PASSES, "y", "dx", "dw"), passes(), expected, strict=True):
                assert_same_bits(result, first, f"{problem} {name} {algorithm} on {threads} threads")


# ---- Values that are not finite --------------------------------------------------------------------------------------

NON_FINITE = (np.nan, np.inf, -np.inf)


def classes(values: np.ndarray) -> np.ndarray:
    """0 for finite, 1 for NaN, 2 and 3 for the infinities."""
    return np.select([np.isnan(values), values == np.inf, values == -np.inf], [1, 2, 3], 0)


@examples(200)
@given(problem=problems(20_000), algorithm=algorithms, which=st.sampled_from(PASSES), seed=seeds, data=st.data())
def test_non_finite_class_is_the_references(problem: Problem, algorithm: str, which, seed: int, data) -> None:
    arrays = problem.random_arrays(seed)
    for name, array in zip(("x", "w", "dy"), arrays, strict=True):
        if array.size:
            places = st.lists(st.tuples(st.integers(0, array.size - 1), st.sampled_from(NON_FINITE)), max_size=3)
            for place, value in data.draw(places, label=f"non-finite in {name}"):
                array.flat[place] = value
    x, w, dy = arrays
    algorithm = getattr(plan_of(problem, algorithm).algorithm, which)
    result = problem.run(which, x, w, dy, algorithm=algorithm)
    with np.errstate(invalid="ignore"):
        expected = reference_passes(problem, x, w, dy)[which]
    context = f"{problem} {which} {algorithm}"
    np.testing.assert_array_equal(classes(result), classes(expected), err_msg=context)
    # What stayed finite has seen none of the others, so its sums are those of the arrays without them.
    finite = classes(expected) == 0
    cleared = [np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) for array in arrays]
    row = next(row for row in getattr(problem.plan(algorithm).explain(), which) if row.chosen)
    bound = tolerance(problem, which, row) * scales(problem, *cleared)[which]
    assert_within(np.where(finite, result, 0), np.where(finite, expected, 0), bound, context)
