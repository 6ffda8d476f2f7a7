"""Plans: their passes, the step that shares transforms, what they know beforehand, and explain."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import triconv as tc
from oracle import assert_within, chosen_row, scales, tolerance
from shapes import PASSES, Problem
from triconv import reference as ref

CASES = [
    (1, (3, 2, 40), (5, 2, 9), {"padding": 4}),
    (1, (4, 30), (6, 2, 5), {"groups": 2, "stride": 2}),
    (2, (2, 3, 17, 14), (4, 3, 5, 3), {"padding": "same"}),
    (2, (2, 4, 9, 9), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    (2, (4, 12, 11), (2, 4, 3, 3), {"dilation": 2, "padding": ((0, 2), (1, 0))}),
    (3, (2, 2, 6, 7, 5), (3, 2, 3, 3, 3), {"padding": 1}),
]


def arrays(rng, plan):
    return (
        rng.normal(size=size).astype(plan.dtype)
        for size in (plan.input_size, plan.weight_size, plan.weight_size[:1], plan.output_size)
    )


def reference_passes(plan, x, w, bias, dy, parameters):
    """The three passes by the definition, for batched and unbatched arrays."""
    batch = x.reshape(-1, *x.shape[-w.ndim + 1 :]), dy.reshape(-1, *dy.shape[-w.ndim + 1 :])
    y = ref.conv_reference(batch[0], w, bias, **parameters)
    dx = ref.conv_input_reference(batch[0].shape, w, batch[1], **parameters)
    dw = ref.conv_weight_reference(batch[0], w.shape, batch[1], **parameters)
    return y.reshape(plan.output_size), dx.reshape(plan.input_size), dw


def assert_passes(plan, results, expected, operands, bias, context, one_bound=False):
    """Within the documented error; with `one_bound`, the widest of the passes, as a step may take the tiles of one."""
    problem = Problem.parse(plan.problem)
    x, w, dy = operands
    scale = scales(problem, x.reshape(problem.input_size), w, dy.reshape(problem.output_size))
    scale["forward"] += float(np.abs(bias).max())
    relative = {which: tolerance(problem, which, chosen_row(plan, which)) for which in PASSES}
    if one_bound:
        relative = dict.fromkeys(PASSES, max(relative.values()))
    for which, result, reference in zip(PASSES, results, expected, strict=True):
        assert result.dtype == plan.dtype
        assert_within(result, reference, relative[which] * scale[which], f"{plan.problem} {which} {context}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft"])
@pytest.mark.parametrize(("rank", "input_size", "weight_size", "parameters"), CASES)
def test_passes_and_step(rng, rank, input_size, weight_size, parameters, algorithm, dtype):
    make = getattr(tc, f"plan_conv{rank}d")
    plan = make(input_size, weight_size, **parameters, dtype=dtype, algorithm=algorithm)
    x, w, bias, dy = arrays(rng, plan)
    expected = reference_passes(plan, x, w, bias, dy, parameters)

    results = plan.forward(x, w, bias), plan.input_grad(w, dy), plan.weight_grad(x, dy)
    assert_passes(plan, results, expected, (x, w, dy), bias, algorithm)
    for into, call in zip(
        results,
        (
            lambda out: plan.forward(x, w, bias, out=out),
            lambda out: plan.input_grad(w, dy, out=out),
            lambda out: plan.weight_grad(x, dy, out=out),
        ),
        strict=True,
    ):
        out = np.empty_like(into)
        assert call(out) is out
        np.testing.assert_array_equal(out, into, err_msg=plan.problem)

    y, backward = plan.step(x, w, bias)
    assert_passes(plan, (y, *backward(dy)), expected, (x, w, dy), bias, f"{algorithm} step", one_bound=True)


@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft", "winograd"])
def test_step_computes_only_what_is_needed(rng, algorithm):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), algorithm=algorithm, dtype="float64")
    x, w, bias, dy = arrays(rng, plan)
    y, backward = plan.step(x, w)
    np.testing.assert_allclose(y, plan.forward(x, w), rtol=0, atol=1e-12)
    dx, dw = backward(dy)
    for needs_dx, needs_dw in ((True, False), (False, True), (False, False)):
        only_dx, only_dw = plan.step(x, w, bias)[1](dy, needs_dx=needs_dx, needs_dw=needs_dw)
        assert (only_dx is not None, only_dw is not None) == (needs_dx, needs_dw)
        if needs_dx:
            np.testing.assert_allclose(only_dx, dx, rtol=0, atol=1e-12, err_msg=plan.problem)
        if needs_dw:
            np.testing.assert_allclose(only_dw, dw, rtol=0, atol=1e-12, err_msg=plan.problem)


def test_fft_step_reuses_its_transforms(rng):
    plan = tc.plan_conv2d((1, 8, 40, 40), (24, 8, 15, 15), padding=7, algorithm="fft")
    x, w, _, dy = arrays(rng, plan)
    _, backward = plan.step(x, w)
    assert backward.reuses_transforms, plan.problem
    backward(dy)
    info = tc.last_run()
    assert info.problem == plan.problem
    assert info.recomputed_tiles == 0
    assert info.tiles > 0


def test_step_within_a_workspace_limit_runs_the_separate_passes(rng):
    plan = tc.plan_conv2d((1, 8, 40, 40), (24, 8, 15, 15), padding=7, algorithm="fft", max_workspace=1 << 30)
    x, w, _, dy = arrays(rng, plan)
    y, backward = plan.step(x, w)
    assert not backward.reuses_transforms, plan.problem
    dx, dw = backward(dy)
    np.testing.assert_array_equal(y, plan.forward(x, w))
    np.testing.assert_array_equal(dx, plan.input_grad(w, dy))
    np.testing.assert_array_equal(dw, plan.weight_grad(x, dy))


def test_step_holds_its_arrays(rng):
    """backward may be called after the caller has let go of x and w, converted copies included."""
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), dtype="float64", algorithm="direct")
    x, w, _, dy = arrays(rng, plan)
    expected = plan.input_grad(w, dy), plan.weight_grad(x, dy)
    _, backward = plan.step(x.astype(">f8"), w.astype(">f8"))
    del _
    junk = [np.full(x.shape, np.nan) for _ in range(10)]
    for result, reference in zip(backward(dy), expected, strict=True):
        np.testing.assert_array_equal(result, reference)
    assert len(junk) == 10


def test_steps_and_plans_of_many_threads(rng):
    plan = tc.plan_conv2d((2, 8, 20, 20), (8, 8, 5, 5), dtype="float64", algorithm="fft")
    x, w, _, dy = arrays(rng, plan)
    y, backward = plan.step(x, w)
    expected = y, *backward(dy)

    def run(_):
        for _ in range(5):
            y, backward = plan.step(x, w)
            for result, reference in zip((y, *backward(dy)), expected, strict=True):
                np.testing.assert_array_equal(result, reference)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ["auto", "direct", "fft"])
@pytest.mark.parametrize(("rank", "input_size", "weight_size", "parameters"), CASES)
def test_prepared_weights_give_the_same_bits(rng, rank, input_size, weight_size, parameters, algorithm, dtype):
    plan = getattr(tc, f"plan_conv{rank}d")(input_size, weight_size, **parameters, dtype=dtype, algorithm=algorithm)
    x, w, bias, dy = arrays(rng, plan)
    y, dx = plan.forward(x, w, bias), plan.input_grad(w, dy)
    forward, backward = plan.prepare(w), plan.prepare(w[::-1][::-1], which="input_grad")
    w[:] = np.nan
    np.testing.assert_array_equal(forward.forward(x, bias), y, err_msg=plan.problem)
    np.testing.assert_array_equal(backward.input_grad(dy), dx, err_msg=plan.problem)
    out = np.empty_like(y)
    assert forward.forward(x, bias, out=out) is out
    np.testing.assert_array_equal(out, y, err_msg=plan.problem)
    assert tc.last_run().problem == forward.problem == f"{plan.problem} fwd"
    assert forward.nbytes >= w.nbytes


def test_prepared_weights_of_any_layout_and_dtype(rng):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), dtype="float64", algorithm="fft")
    x, w, _, _ = arrays(rng, plan)
    y = plan.forward(x, w)
    foreign = np.asfortranarray(w).astype(">f8")
    np.testing.assert_array_equal(plan.prepare(foreign).forward(x), y)


def test_prepared_weights_and_nan(rng):
    """Outputs that are not finite are computed from the weights as they were."""
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), algorithm="fft")
    x, w, _, _ = arrays(rng, plan)
    x[0, 1, 4, 4] = np.inf
    y = plan.forward(x, w)
    prepared = plan.prepare(w)
    w[:] = 0
    np.testing.assert_array_equal(prepared.forward(x), y)
    assert tc.last_run().recomputed_tiles > 0


def test_prepared_weights_of_many_threads(rng):
    plan = tc.plan_conv2d((2, 8, 20, 20), (8, 8, 5, 5), algorithm="fft")
    x, w, _, _ = arrays(rng, plan)
    y, prepared = plan.forward(x, w), plan.prepare(w)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: prepared.forward(x), range(40)):
            np.testing.assert_array_equal(result, y)


def test_prepared_weights_refuse_other_arrays_and_passes(rng):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3))
    x, w, bias, dy = arrays(rng, plan)
    prepared = plan.prepare(w)
    assert repr(prepared) == "PreparedWeights('n2c3k4 i10x9 r3x3 f32 fwd')"
    with pytest.raises(ValueError, match=r"w has shape .*expected \(4, 3, 3, 3\), the weight_size of the plan"):
        plan.prepare(w[:2])
    with pytest.raises(ValueError, match=r"x has shape .*expected \(2, 3, 10, 9\), the input_size of the plan"):
        prepared.forward(x[0])
    with pytest.raises(ValueError, match=r"bias has shape .*expected \(4,\)"):
        prepared.forward(x, bias[:1])
    with pytest.raises(TypeError, match="x has dtype float64, expected float32"):
        prepared.forward(x.astype("d"))
    in_place = tc.plan_conv2d((2, 3, 10, 9), (3, 3, 1, 1)).prepare(w[:3, :, :1, :1])
    with pytest.raises(ValueError, match="out overlaps x in memory"):
        in_place.forward(x, out=x)
    with pytest.raises(ValueError, match=r"for forward, expected input_grad: prepare\(w, which='input_grad'\)"):
        prepared.input_grad(dy)
    for which in ("weight_grad", "", None, 3):
        with pytest.raises(ValueError, match=r"which is .*expected 'forward' or 'input_grad'"):
            plan.prepare(w, which=which)


def test_sizes_and_problem():
    plan = tc.plan_conv2d(np.array([2, 4, 9, 8]), [6, 2, 3, 3], stride=(2, 1), padding=((0, 1), 2), groups=2)
    assert plan.problem == "n2c4k6 i9x8 r3x3 s2x1 p0:1x2 g2 f32"
    assert plan.input_size == (2, 4, 9, 8)
    assert plan.weight_size == (6, 2, 3, 3)
    assert plan.output_size == (2, 6, 4, 10)
    assert plan.dtype == np.float32
    assert repr(plan) == "Plan('n2c4k6 i9x8 r3x3 s2x1 p0:1x2 g2 f32')"


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
def test_a_plan_knows_its_algorithm_and_costs(algorithm):
    plan = tc.plan_conv2d((2, 8, 20, 20), (8, 8, 3, 3), algorithm=algorithm)
    assert {name.split(":")[0] for name in plan.algorithm} == {algorithm}
    assert all(count > 0 for count in plan.flops)
    assert all(count >= 0 for count in plan.workspace_bytes)
    lines = str(plan).splitlines()
    assert lines[0] == plan.problem
    for line, name, used in zip(lines[1:], plan.algorithm._fields, plan.algorithm, strict=True):
        assert line.split()[:2] == [name, used]


def test_a_tile_can_be_fixed():
    plan = tc.plan_conv2d((2, 8, 20, 20), (8, 8, 3, 3), algorithm="fft:16")
    assert plan.algorithm.forward == "fft:16x16"
    plan = tc.plan_conv2d((2, 8, 20, 20), (8, 8, 3, 3), algorithm="winograd:4x2")
    assert plan.algorithm.forward == "winograd:4x2"


def test_a_plan_refuses_other_arrays(rng):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3))
    x, w, bias, dy = arrays(rng, plan)
    with pytest.raises(
        ValueError, match=r"x has shape \(3, 10, 9\), expected \(2, 3, 10, 9\), the input_size of the plan"
    ):
        plan.forward(x[0], w)
    with pytest.raises(ValueError, match=r"w has shape .*expected \(4, 3, 3, 3\), the weight_size of the plan"):
        plan.input_grad(w[:2], dy)
    with pytest.raises(ValueError, match=r"dy has shape .*expected \(2, 4, 8, 7\), the output shape of the plan"):
        plan.weight_grad(x, x)
    with pytest.raises(ValueError, match=r"bias has shape .*expected \(4,\)"):
        plan.step(x, w, bias[:1])
    with pytest.raises(TypeError, match="x has dtype float64, expected float32, the dtype of the plan"):
        plan.forward(x.astype("d"), w)
    _, backward = plan.step(x, w)
    with pytest.raises(ValueError, match=r"dy has shape .*expected \(2, 4, 8, 7\)"):
        backward(x)
    with pytest.raises(TypeError, match="dy has dtype int64, expected float32"):
        backward(np.ones(plan.output_size, np.int64))


def test_a_plan_widens_narrower_arrays(rng):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), dtype=np.float64)
    x, w, _, _ = arrays(rng, plan)
    y = plan.forward(x.astype("f"), (w * 8).astype("i4"))
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, plan.forward(x.astype("f").astype("d"), (w * 8).astype("i4").astype("d")))


def test_a_float32_plan_takes_what_converts_without_loss(rng):
    plan = tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3))
    x, w, _, _ = arrays(rng, plan)
    for dtype in ("float16", "int8", "uint16", "bool"):
        narrow = (x * 8).clip(0, 100).astype(dtype)
        np.testing.assert_array_equal(plan.forward(narrow, w), plan.forward(narrow.astype("f"), w), err_msg=dtype)


def test_no_dtype_is_float32():
    assert tc.plan_conv2d((2, 3, 10, 9), (4, 3, 3, 3), dtype=None).dtype == np.float32


def test_tolerance_restricts_the_choice():
    """A bound that direct summation in float32 meets and Winograd with large tiles does not."""
    sizes = (2, 64, 56, 56), (64, 64, 3, 3)
    for bound in (1e-3, 1e-5, 2e-6):
        plan = tc.plan_conv2d(*sizes, padding=1, tolerance=bound)
        for candidates in plan.explain()[1:]:
            (chosen,) = (row for row in candidates if row.chosen)
            assert chosen.error_bound <= bound, f"{plan.problem} {chosen}"


def test_several_algorithms_may_be_named(rng, tmp_path):
    """The fastest of these, in functions, plans, tables and timings."""
    shapes = (2, 3, 20, 20), (4, 3, 3, 3)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    expected = tc.conv2d(x, w, algorithm="direct")
    np.testing.assert_allclose(tc.conv2d(x, w, algorithm="direct,fft"), expected, atol=1e-4)
    for tune in (False, tmp_path / "answers", tmp_path / "answers"):
        plan = tc.plan_conv2d(*shapes, algorithm="winograd,fft", tune=tune)
        assert plan.algorithm.forward.startswith(("winograd", "fft"))
        np.testing.assert_allclose(plan.forward(x, w), expected, atol=1e-3)
    table = str(tc.explain(*shapes, algorithm="direct,fft"))
    assert "direct" in table
    assert "fft:" in table
    assert "winograd" not in table


def test_workspace_cap_restricts_the_choice():
    sizes = (8, 64, 56, 56), (64, 64, 7, 7)
    free = tc.plan_conv2d(*sizes, padding=3, algorithm="fft")
    cap = min(free.workspace_bytes) // 4
    plan = tc.plan_conv2d(*sizes, padding=3, max_workspace=cap)
    assert max(plan.workspace_bytes) <= cap, plan.problem


def test_explain_lists_every_algorithm_and_marks_the_choice():
    explanation = tc.explain((8, 64, 56, 56), (64, 64, 7, 7), padding=3)
    plan = tc.plan_conv2d((8, 64, 56, 56), (64, 64, 7, 7), padding=3)
    for candidates, used in zip(explanation[1:], plan.algorithm, strict=True):
        assert {row.algorithm.split(":")[0] for row in candidates} == {"direct", "fft", "winograd"}
        assert [row.algorithm for row in candidates if row.chosen] == [used]
        for row in candidates:
            assert row.chosen or row.reason, f"{explanation.problem} {row}"
            if row.possible:
                assert row.predicted_seconds > 0, f"{explanation.problem} {row}"
                assert 0 < row.error_bound < 1, f"{explanation.problem} {row}"
    text = str(explanation).splitlines()
    assert text[0] == "n8c64k64 i56x56 r7x7 p3 f32"
    for name in ("forward", "input_grad", "weight_grad"):
        assert name in text
    assert sum(line.startswith("*") for line in text) == 3
    assert sum(line.split()[0].startswith("fft") for line in text if line.startswith("   ")) <= 9, "the table is short"


@pytest.mark.parametrize(
    ("x", "w"),
    [
        ((0, 512, 20, 20), (512, 512, 3, 3)),
        ((0, 1, 50, 50), (1, 1, 31, 31)),
        ((2, 0, 9, 9), (4, 0, 3, 3)),
        ((2, 4, 9, 9), (0, 4, 3, 3)),
        ((2, 0, 9, 9), (0, 0, 3, 3)),
    ],
)
def test_explain_of_empty_layers_is_finite(x, w):
    for row in (row for candidates in tc.explain(x, w)[1:] for row in candidates if row.possible):
        numbers = (row.multiplications, row.transform_flops, row.bytes, row.predicted_seconds, row.error_bound)
        assert all(math.isfinite(number) for number in numbers), row


def test_explain_says_what_is_impossible():
    text = str(tc.explain((1, 1, 64), (1, 1, 40)))
    rows = [line.split(maxsplit=7) for line in text.splitlines() if line.startswith("   winograd")]
    assert [row[:7] for row in rows] == [["winograd", *"------"]] * 3
    assert all(row[7].startswith("winograd has no transform for 40 taps") for row in rows)


def test_explain_takes_every_rank():
    assert tc.explain((1, 2, 9), (3, 2, 4)).problem == "n1c2k3 i9 r4 f32"
    assert tc.explain((1, 2, 5, 5, 5), (3, 2, 3, 3, 3), dtype="float64").problem == "n1c2k3 i5x5x5 r3x3x3 f64"


def test_more_plans_than_the_cache_holds(rng):
    """Shapes come and go beyond the 256 that are kept; results stay right."""
    w = np.ones((1, 1, 2))
    for n in [*range(2, 400), *range(2, 400, 7)]:
        np.testing.assert_array_equal(tc.conv1d(np.ones((1, 1, n)), w, algorithm="direct"), np.full((1, 1, n - 1), 2.0))
