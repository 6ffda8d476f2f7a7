"""The public interface: its names and signatures, its documentation, and that each function computes what it says."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
import triconv as tc
from oracle import assert_within, chosen_row, direct_tolerance, scales, tolerance
from shapes import PASSES, Problem
from triconv import _core
from triconv import reference as ref

MODULES = [f"triconv.{name}" for name in ("explanation", "functional", "grad", "library", "nn", "plan", "runtime")]
# Where the public names of packages are defined: doctest leaves out what is imported.
PARTS = [f"triconv.signal._{name}" for name in ("functions", "images", "prepared", "streaming")]
PARTS += ["triconv.ndimage._filters"]
PARTS += [f"triconv.reference._{name}" for name in ("fourier", "layer", "matrices", "multiplications", "one_channel")]

NAMES = [
    "Backward",
    "BuildInfo",
    "Candidate",
    "Explanation",
    "PassAlgorithms",
    "PassBytes",
    "PassFlops",
    "Plan",
    "PreparedWeights",
    "RunInfo",
    "__version__",
    "build_info",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "explain",
    "get_cmake_dir",
    "get_include",
    "get_num_threads",
    "grad",
    "last_run",
    "ndimage",
    "nn",
    "num_threads",
    "plan_conv1d",
    "plan_conv2d",
    "plan_conv3d",
    "register_threadpoolctl",
    "release_memory",
    "set_num_threads",
    "signal",
]

CONV = (
    "input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, padding_mode='zeros', algorithm='auto', "
    "out=None"
)
TRANSPOSE = (
    "input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, "
    "algorithm='auto', out=None"
)
PARAMETERS = "stride=1, padding=0, dilation=1, groups=1, *, padding_mode='zeros', algorithm='auto', out=None"
TRANSPOSE_PARAMETERS = "stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, algorithm='auto', out=None"
PLAN = (
    "input_size, weight_size, stride=1, padding=0, dilation=1, groups=1, *, padding_mode='zeros', dtype=float32, "
    "algorithm='auto', tolerance=None, max_workspace=None"
)
TUNED_PLAN = f"{PLAN}, tune=False"
LAYER = (
    "in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, *, "
    "padding_mode='zeros', dtype=float32, rng=None, algorithm='auto'"
)

SIGNATURES = {
    **{f"conv{rank}d": CONV for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": TRANSPOSE for rank in (1, 2, 3)},
    **{f"grad.conv{rank}d_input": f"input_size, weight, grad_output, {PARAMETERS}" for rank in (1, 2, 3)},
    **{f"grad.conv{rank}d_weight": f"input, weight_size, grad_output, {PARAMETERS}" for rank in (1, 2, 3)},
    **{
        f"grad.conv_transpose{rank}d_input": f"input_size, weight, grad_output, {TRANSPOSE_PARAMETERS}"
        for rank in (1, 2, 3)
    },
    **{
        f"grad.conv_transpose{rank}d_weight": f"input, weight_size, grad_output, {TRANSPOSE_PARAMETERS}"
        for rank in (1, 2, 3)
    },
    **{f"plan_conv{rank}d": TUNED_PLAN for rank in (1, 2, 3)},
    **{f"nn.Conv{rank}d": LAYER for rank in (1, 2, 3)},
    "explain": PLAN,
    "Plan.forward": "self, x, w, bias=None, *, out=None",
    "Plan.input_grad": "self, w, dy, *, out=None",
    "Plan.weight_grad": "self, x, dy, *, out=None",
    "Plan.step": "self, x, w, bias=None",
    "Plan.prepare": "self, w, *, which='forward'",
    "Plan.explain": "self",
    "PreparedWeights.forward": "self, x, bias=None, *, out=None",
    "PreparedWeights.input_grad": "self, dy, *, out=None",
    "Backward.__call__": "self, dy, *, needs_dx=True, needs_dw=True",
    "nn.Conv2d.forward": "self, input",
    "nn.Conv2d.backward": "self, grad_output, *, needs_input_grad=True",
    "nn.Conv2d.parameters": "self",
    "nn.Conv2d.gradients": "self",
    "build_info": "",
    "get_cmake_dir": "",
    "get_include": "",
    "last_run": "",
    "register_threadpoolctl": "",
    "release_memory": "",
    "set_num_threads": "n",
    "get_num_threads": "",
    "num_threads": "n",
}

FIELDS = {
    "BuildInfo": ("version", "compiler", "flags", "isas", "isa"),
    "RunInfo": ("problem", "algorithm", "isa", "tiles", "recomputed_tiles"),
    "PassAlgorithms": ("forward", "input_grad", "weight_grad"),
    "PassBytes": ("forward", "input_grad", "weight_grad"),
    "PassFlops": ("forward", "input_grad", "weight_grad"),
    "Explanation": ("problem", "forward", "input_grad", "weight_grad"),
}


def lookup(path: str):
    value = tc
    for name in path.split("."):
        value = getattr(value, name)
    return value


def plain_signature(function) -> str:
    """The signature without annotations, dtypes by their name."""
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        default = parameter.default
        if default is parameter.empty:
            parameters.append(parameter.name)
        else:
            parameters.append(f"{parameter.name}={default.__name__ if isinstance(default, type) else repr(default)}")
    return ", ".join(parameters)


def test_public_names():
    assert tc.__all__ == NAMES
    assert tc.nn.__all__ == ["Conv1d", "Conv2d", "Conv3d"]
    functions = [
        f"conv{kind}{rank}d_{of}" for kind in ("", "_transpose") for rank in (1, 2, 3) for of in ("input", "weight")
    ]
    assert sorted(tc.grad.__all__) == sorted(functions)


def test_version_is_the_librarys():
    assert tc.__version__ == tc.build_info().version


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name):
    assert plain_signature(lookup(name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", FIELDS)
def test_fields(name):
    assert lookup(name)._fields == FIELDS[name]


@pytest.mark.parametrize("module", [*MODULES, *PARTS])
def test_docstring_examples(module):
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("module", [*MODULES, "triconv.signal", "triconv.ndimage", "triconv.reference"])
def test_every_public_name_is_documented_with_an_example(module):
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        assert "Examples\n" in inspect.getdoc(getattr(loaded, name)), name


def stub_members() -> dict[str, int]:
    """Functions and methods of _core.pyi with the number of their arguments; -1 for a property."""
    members = {}
    for node in ast.parse(Path(_core.__file__).with_name("_core.pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef):
            members[node.name] = len(node.args.posonlyargs)
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)
                members[f"{node.name}.{method.name}"] = -1 if is_property else len(method.args.posonlyargs)
    return members


def test_stub_matches_the_extension_module():
    members = stub_members()
    present = {name for name in vars(_core) if not name.startswith("_")}
    assert present == {name.split(".")[0] for name in members}
    for name, arguments in members.items():
        value = _core
        for part in name.split("."):
            value = getattr(value, part)
        if arguments < 0:
            assert isinstance(value, property), name
        else:
            assert value.__doc__.splitlines()[0].split("->")[0].count(": ") == arguments, name
    for class_name in ("Plan", "PreparedWeights", "Step"):
        methods = {name for name in vars(getattr(_core, class_name)) if not name.startswith("_")}
        assert methods == {name.split(".")[1] for name in members if name.startswith(class_name + ".")} - {"__init__"}


def test_signal_is_imported_on_first_use():
    program = (
        "import sys, triconv; assert 'triconv.signal' not in sys.modules and 'signal' in dir(triconv); "
        "assert 'triconv.ndimage' not in sys.modules and 'ndimage' in dir(triconv); "
        "print(triconv.signal.convolve([1, 2], [1, 1]), hasattr(triconv, 'bogus'))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[1 3 2] False"


def test_import_is_light():
    """No module of size beyond NumPy's own, and under 60 ms (best of 5, so that a busy machine does not fail it)."""
    program = (
        "import sys, time, numpy; before = set(sys.modules); t = time.perf_counter(); import triconv; "
        "print(time.perf_counter() - t, *sorted(set(sys.modules) - before))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", program], text=True).split() for _ in range(5)]
    foreign = [name for name in runs[0][1:] if name.split(".")[0] != "triconv"]
    assert set(foreign) <= {"__future__"}
    assert min(float(run[0]) for run in runs) < 0.060


# ---- What the functions compute --------------------------------------------------------------------------------------

PROBLEMS = [
    (1, (3, 4, 11), (6, 4, 3), {"padding": 1}),
    (1, (2, 4, 10), (6, 2, 4), {"stride": 3, "padding": ((2, 1),), "dilation": 2, "groups": 2}),
    (2, (2, 3, 9, 7), (4, 3, 3, 2), {"padding": "same"}),
    (2, (2, 4, 8, 9), (8, 1, 3, 5), {"stride": (1, 2), "padding": ((0, 2), (3, 1)), "groups": 4}),
    (2, (1, 2, 6, 6), (2, 2, 5, 5), {"padding": 4, "dilation": 2}),
    (2, (0, 2, 6, 6), (3, 2, 3, 3), {"padding": "valid"}),
    (2, (2, 0, 6, 6), (3, 0, 3, 3), {}),
    (3, (2, 2, 5, 4, 6), (3, 2, 2, 3, 3), {"padding": (0, 1, 2), "stride": (2, 1, 1)}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rank", "input_size", "weight_size", "parameters"), PROBLEMS)
def test_three_passes(rng, rank, input_size, weight_size, parameters, dtype):
    plan = getattr(tc, f"plan_conv{rank}d")(input_size, weight_size, **parameters, dtype=dtype)
    x, w, dy = (rng.normal(size=size).astype(dtype) for size in (input_size, weight_size, plan.output_size))
    bias = rng.normal(size=weight_size[0]).astype(dtype)
    results = (
        getattr(tc, f"conv{rank}d")(x, w, bias, **parameters),
        getattr(tc.grad, f"conv{rank}d_input")(input_size, w, dy, **parameters),
        getattr(tc.grad, f"conv{rank}d_weight")(x, weight_size, dy, **parameters),
    )
    expected = (
        ref.conv_reference(x, w, bias, **parameters),
        ref.conv_input_reference(input_size, w, dy, **parameters),
        ref.conv_weight_reference(x, weight_size, dy, **parameters),
    )
    problem = Problem.parse(plan.problem)
    scale = scales(problem, x, w, dy)
    scale["forward"] += float(np.abs(bias).max())
    for which, result, reference in zip(PASSES, results, expected, strict=True):
        assert result.dtype == dtype
        bound = tolerance(problem, which, chosen_row(plan, which)) * scale[which]
        assert_within(result, reference, bound, f"{plan.problem} {which}")


TRANSPOSED = [
    (1, (2, 4, 5), (4, 3, 4), {"stride": 3, "padding": 1, "output_padding": 2, "groups": 2}),
    (1, (1, 1, 3), (1, 1, 1), {"dilation": 4, "output_padding": 3}),
    (1, (1, 1, 1), (1, 1, 1), {"stride": 5, "padding": ((3, 0),), "output_padding": 4, "dilation": 5}),
    (2, (2, 3, 4, 5), (3, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    (2, (2, 3, 4, 5), (3, 2, 3, 2), {"dilation": (2, 3), "output_padding": (1, 2)}),
    (3, (1, 2, 3, 2, 2), (2, 2, 2, 2, 2), {"stride": 2}),
]


def transposed_reference(x, w, bias, parameters):
    """conv_transpose_reference, which pads both ends alike, cropped to unlike ends."""
    padding = parameters.get("padding", 0)
    if isinstance(padding, int):
        return ref.conv_transpose_reference(x, w, bias, **parameters)
    ((low, high),) = padding
    full = ref.conv_transpose_reference(x, w, bias, **{**parameters, "padding": 0})
    return full[..., low : full.shape[-1] - high]


@pytest.mark.parametrize(("rank", "input_size", "weight_size", "parameters"), TRANSPOSED)
def test_transposed_convolution_and_its_gradients(rng, rank, input_size, weight_size, parameters):
    """The gradients by linearity: the adjoint identity with the reference forward on random directions.

    By direct summation in float64: 32 eps of the largest sum of absolute values, half for the library (as documented),
    half for the expected gradients, which are sums of at most 200 terms in float64.
    """
    x, w = rng.normal(size=input_size), rng.normal(size=weight_size)
    bias = rng.normal(size=weight_size[1] * parameters.get("groups", 1))
    relative = 32 * np.finfo(np.float64).eps
    case = f"conv_transpose{rank}d {input_size} {weight_size} {parameters}"
    options = {**parameters, "algorithm": "direct"}
    y = getattr(tc, f"conv_transpose{rank}d")(x, w, bias, **options)
    scale = transposed_reference(np.abs(x), np.abs(w), np.abs(bias), parameters).max()
    assert_within(y, transposed_reference(x, w, bias, parameters), relative * scale, case)

    dy = rng.normal(size=y.shape)
    dx = getattr(tc.grad, f"conv_transpose{rank}d_input")(input_size, w, dy, **options)
    dw = getattr(tc.grad, f"conv_transpose{rank}d_weight")(x, weight_size, dy, **options)
    for gradient, of, call in (
        (dx, x, lambda unit, a, b: transposed_reference(unit, b, None, parameters)),
        (dw, w, lambda unit, a, b: transposed_reference(a, unit, None, parameters)),
    ):
        units = np.eye(of.size).reshape(of.size, *of.shape)
        expected = np.array([np.vdot(dy, call(unit, x, w)) for unit in units])
        scale = max(float(np.vdot(np.abs(dy), call(unit, np.abs(x), np.abs(w)))) for unit in units)
        assert_within(gradient, expected.reshape(of.shape), relative * scale, case)


def test_transposed_convolution_is_pytorchs(rng):
    """By direct summation in float32; PyTorch computes in float64."""
    from torch_support import functional, torch

    x, w, bias = (rng.normal(size=s).astype("f") for s in ((2, 4, 7, 6), (4, 3, 5, 4), (6,)))
    parameters = {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2), "groups": 2, "dilation": (1, 2)}

    def expected(*operands):
        return functional.conv_transpose2d(*(torch.from_numpy(a).double() for a in operands), **parameters).numpy()

    y = tc.conv_transpose2d(x, w, bias, **parameters, algorithm="direct")
    scale = expected(*map(np.abs, (x, w, bias))).max()
    problem = Problem.parse("n2c6k4 i16x20 r5x4 s2x3 p1x2 d1x2 g2 f32")  # the convolution that is transposed
    assert_within(y, expected(x, w, bias), direct_tolerance(problem, "input_grad") * scale, problem)


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
def test_the_algorithm_asked_for_runs_and_recomputes_nothing(rng, algorithm):
    x, w = rng.normal(size=(2, 8, 20, 20)), rng.normal(size=(8, 8, 3, 3))
    y = tc.conv2d(x, w, algorithm=algorithm)
    passes = {
        "fwd": lambda: tc.conv2d(x, w, algorithm=algorithm),
        "bwd_input": lambda: tc.grad.conv2d_input(x.shape, w, y, algorithm=algorithm),
        "bwd_weight": lambda: tc.grad.conv2d_weight(x, w.shape, y, algorithm=algorithm),
    }
    for name, run in passes.items():
        run()
        info = tc.last_run()
        assert info.problem == f"n2c8k8 i20x20 r3x3 f64 {name}"
        assert info.algorithm.split(":")[0] == algorithm, info
        assert info.isa == tc.build_info().isa, info
        assert info.recomputed_tiles == 0, info
        assert (info.tiles > 0) == (algorithm != "direct"), info


def test_last_run_is_each_threads_own():
    tc.conv1d(np.ones((1, 1, 4)), np.ones((1, 1, 2)))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(tc.last_run()))
    thread.start()
    thread.join()
    assert seen == [None]
    assert tc.last_run().problem == "n1c1k1 i4 r2 f64 fwd"


def test_calls_from_many_threads_agree(rng):
    x, w = rng.normal(size=(4, 8, 24, 24)), rng.normal(size=(8, 8, 5, 5))
    expected = tc.conv2d(x, w)
    results = [None] * 8

    def run(index):
        results[index] = tc.conv2d(x, w)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(results))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_the_gil_is_released_while_computing(rng):
    """The main thread gets to run during a call; with the GIL held it would get at most a slice before and after."""
    x, w = rng.normal(size=(8, 32, 96, 96)), rng.normal(size=(32, 32, 7, 7))
    tc.conv2d(x, w, algorithm="direct")
    thread = threading.Thread(target=tc.conv2d, args=(x, w), kwargs={"algorithm": "direct"})
    thread.start()
    steps = 0
    while thread.is_alive():
        time.sleep(0.0005)
        steps += 1
    assert steps >= 5


def test_fast_call_has_little_overhead():
    """Under 50 us for a call with next to nothing to compute (typically 5): no planning, no copies."""
    x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 3, 3), np.float32)
    tc.conv2d(x, w)
    best = np.inf
    for _ in range(50):
        start = time.perf_counter()
        for _ in range(20):
            tc.conv2d(x, w)
        best = min(best, (time.perf_counter() - start) / 20)
    assert best < 50e-6


# ---- Threads and build -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("keep_threads")
def test_number_of_threads():
    tc.set_num_threads(3)
    assert tc.get_num_threads() == 3
    with tc.num_threads(1):
        assert tc.get_num_threads() == 1
    assert tc.get_num_threads() == 3
    with pytest.raises(RuntimeError, match="inside"), tc.num_threads(2):
        raise RuntimeError("inside")
    assert tc.get_num_threads() == 3


@pytest.mark.usefixtures("keep_threads")
def test_threadpoolctl_limits_the_threads():
    for _ in range(2):
        tc.register_threadpoolctl()
    tc.set_num_threads(3)
    (info,) = (pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "triconv")
    assert info["num_threads"] == 3
    assert info["version"] == tc.build_info().version
    with threadpoolctl.threadpool_limits(2, user_api="triconv"):
        assert tc.get_num_threads() == 2
        with threadpoolctl.threadpool_limits({"blas": 1}):
            assert tc.get_num_threads() == 2
        with threadpoolctl.threadpool_limits(1):
            assert tc.get_num_threads() == 1
    assert tc.get_num_threads() == 3
    with pytest.raises(ValueError, match="0"):
        threadpoolctl.threadpool_limits(0, user_api="triconv")


@pytest.mark.usefixtures("keep_threads")
def test_results_do_not_depend_on_the_number_of_threads(rng):
    x, w = rng.normal(size=(3, 5, 40, 33)).astype("f"), rng.normal(size=(7, 5, 5, 5)).astype("f")
    for algorithm in ("direct", "fft", "winograd"):
        results = []
        for count in (1, 2, 5):
            tc.set_num_threads(count)
            y = tc.conv2d(x, w, padding=2, algorithm=algorithm)
            dx = tc.grad.conv2d_input(x.shape, w, y, padding=2, algorithm=algorithm)
            dw = tc.grad.conv2d_weight(x, w.shape, y, padding=2, algorithm=algorithm)
            results.append((y, dx, dw))
        for result in results[1:]:
            for array, first in zip(result, results[0], strict=True):
                np.testing.assert_array_equal(array, first, err_msg=f"n3c5k7 i40x33 r5x5 p2 f32 {algorithm}")


@pytest.mark.skipif("TRICONV_MAX_ISA" not in os.environ, reason="TRICONV_MAX_ISA is not set")
def test_the_environment_sets_the_isa():
    """So that a run of these tests for one instruction set is one for that, not for a lesser one."""
    assert tc.build_info().isa == os.environ["TRICONV_MAX_ISA"]


def test_build_info():
    info = tc.build_info()
    assert info.isa in info.isas
    assert info.isas[0] == "baseline"
    assert all(info[:3])
