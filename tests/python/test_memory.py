"""Large results come from a pool: they behave as NumPy's own arrays, and what the pool keeps is bounded."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import triconv as tc

MIB = 1 << 20


def large(value=1.0, mib=4):
    """A result of some mebibytes, computed by the identity kernel."""
    x = np.full((1, 1, mib, MIB // 4), value, np.float32)
    return tc.conv2d(x, np.ones((1, 1, 1, 1), np.float32))


def handler_name(array):
    core = getattr(np, "_core", None) or np.core
    return core.multiarray.get_handler_name(array)


def run_python(program, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_large_results_are_pooled_and_others_are_not():
    assert handler_name(large()) == "triconv"
    assert handler_name(tc.conv2d(np.ones((1, 1, 8, 8)), np.ones((1, 1, 1, 1)))) == "default_allocator"
    assert handler_name(np.empty(8 * MIB)) == "default_allocator", "arrays of others are left alone"
    image = np.ones((1024, 512), np.float32)
    assert handler_name(tc.signal.oaconvolve(image, image[:3, :3])) == "triconv"
    assert handler_name(tc.ndimage.uniform_filter(image)) == "triconv"
    assert handler_name(tc.ndimage.gaussian_filter(image, 1, output=np.float64)) == "triconv"
    assert handler_name(tc.ndimage.uniform_filter(image[:64])) == "default_allocator"


def test_results_behave_as_numpys_own():
    y = large(2.0)
    assert y.flags.owndata
    assert y.flags.writeable
    assert y.flags.c_contiguous
    assert y.base is None
    assert y.ctypes.data % 64 == 0
    y[0, 0, 0, :3] = 7
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(y)), y)
    np.testing.assert_array_equal(y.copy(), y)
    view = y[0, 0, 0]
    expected = view.copy()
    del y
    gc.collect()
    others = [large(9.0) for _ in range(3)]
    np.testing.assert_array_equal(view, expected, err_msg="a view keeps the memory")
    assert len(others) == 3


def test_results_can_be_resized():
    y = large(3.0)
    y.resize((2, 4, MIB // 4), refcheck=False)
    np.testing.assert_array_equal(y, np.stack([np.full((4, MIB // 4), 3.0), np.zeros((4, MIB // 4))]))
    y.resize((1000,), refcheck=False)
    np.testing.assert_array_equal(y, np.full(1000, 3.0))
    y.resize((0,), refcheck=False)
    y.resize((5,), refcheck=False)
    np.testing.assert_array_equal(y, np.zeros(5))


def test_torch_shares_a_result():
    torch = pytest.importorskip("torch")
    y = large(1.0)
    tensor = torch.from_numpy(y)
    tensor += 1
    assert y[0, 0, 0, 0] == 2
    del y
    gc.collect()
    assert large(9.0)[0, 0, 0, 0] == 9
    assert bool((tensor == 2).all())


def test_memory_is_reused_and_released():
    tc.release_memory()
    y = large()
    address = y.ctypes.data
    del y
    assert large().ctypes.data == address
    assert tc.release_memory() >= 4 * MIB
    assert tc.release_memory() == 0


def test_memory_in_use_is_never_shared():
    results = [large(float(i)) for i in range(6)]
    tc.release_memory()
    results += [large(float(i)) for i in range(6, 9)]
    for i, y in enumerate(results):
        assert (y == i).all()


def test_results_of_many_threads():
    failures = []

    def run(first):
        for i in range(20):
            y = large(first + i, mib=2)
            if not (y == first + i).all():
                failures.append(i)

    threads = [threading.Thread(target=run, args=(100.0 * t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_array_that_dies_in_a_cycle_or_at_exit():
    class Holder:
        pass

    holder = Holder()
    holder.array, holder.self = large(), holder
    gone = weakref.ref(holder)
    del holder
    gc.collect()
    assert gone() is None
    program = (
        "import sys, numpy as np, triconv as tc\n"
        "x = np.ones((1, 1, 1024, 1024), np.float32)\n"
        "sys.kept = tc.conv2d(x, x[:, :, :1, :1])\n"
        "tc.kept = [tc.conv2d(x, x[:, :, :1, :1]) for _ in range(3)]\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_forked_child_can_make_and_free_results():
    program = (
        "import os, numpy as np, triconv as tc\n"
        "x = np.ones((1, 1, 1024, 1024), np.float32)\n"
        "y = tc.conv2d(x, x[:, :, :1, :1])\n"
        "child = os.fork()\n"
        "z = tc.conv2d(2 * x, x[:, :, :1, :1])\n"
        "ok = (y == 1).all() and (z == 2).all()\n"
        "del y, z\n"
        "if child == 0:\n"
        "    os._exit(0 if ok and tc.release_memory() > 0 else 1)\n"
        "assert ok and os.waitpid(child, 0)[1] == 0\n"
    )
    done = run_python(program)
    assert (done.returncode, done.stderr) == (0, "")


PASS_OF_AN_IMAGE = """
import sys, numpy as np, triconv as tc
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
which, mode, algorithm = sys.argv[1:]
tc.set_num_threads(1)
size, w = (1, 1, 4096, 4096), np.ones((1, 1, 9, 9), np.float32)
x, out = np.ones(size, np.float32), np.ones(size, np.float32)
parameters = {"padding": 4, "padding_mode": mode, "algorithm": algorithm}
before = peak()
if which == "forward":
    tc.conv2d(x, w, **parameters, out=out)
elif which == "input_grad":
    tc.grad.conv2d_input(size, w, x, **parameters, out=out)
else:
    tc.grad.conv2d_weight(x, w.shape, out, **parameters)
print(peak() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize("which", ["forward", "input_grad", "weight_grad"])
@pytest.mark.parametrize("mode", ["reflect", "circular"])
@pytest.mark.parametrize("algorithm", ["direct", "fft"])
def test_there_is_no_padded_copy(which, mode, algorithm):
    done = subprocess.run(
        [sys.executable, "-c", PASS_OF_AN_IMAGE, which, mode, algorithm],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # The image has 64 MiB; spectra of a block of tiles, the library's pages and, of input_grad, a slab of padding less.
    assert int(done.stdout) < 12 * MIB


@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
def test_workspace_of_padding_modes_does_not_grow_with_the_image(algorithm):
    def workspace(size, mode):
        plan = tc.plan_conv2d((1, 4, size, size), (4, 4, 3, 3), padding=1, padding_mode=mode, algorithm=algorithm)
        return plan.workspace_bytes

    for mode in ("reflect", "replicate", "circular"):
        plain, padded = workspace(4096, "zeros"), workspace(4096, mode)
        assert padded.forward == plain.forward
        assert padded.weight_grad == plain.weight_grad
        slab = 4 * 4 * (4096 + 2)  # one row of all channels
        assert padded.input_grad <= 2 * plain.input_grad + slab


FIRST_CALL = """
import sys, numpy as np, triconv as tc
from triconv import signal
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
samples, taps, dtype = eval(sys.argv[1]), eval(sys.argv[2]), sys.argv[3]
tc.set_num_threads(2)
signal.oaconvolve(np.ones(9000, dtype), np.ones(900, dtype))
x, w = np.ones(samples, dtype), np.ones(taps, dtype)
before = peak()
y = signal.oaconvolve(x, w)
print(peak() - before - y.nbytes)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize(
    ("dtype", "taps"),
    [
        ("float32", 100_000),
        ("float32", 500_000),
        ("float32", 1_000_000),
        ("float64", 900_000),
        ("complex64", 100_000),
        ("complex64", 300_000),
        ("complex64", 500_000),
        ("complex128", 1_000_000),
    ],
)
def test_first_call_takes_three_padded_spectra_at_most(dtype, taps):
    """Of a long kernel, for which the tables of the transforms count, too: those of the forward pass only."""
    samples = 1_000_000
    done = run_python(FIRST_CALL, str(samples), str(taps), dtype)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 * np.dtype(dtype).itemsize * (samples + taps - 1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
@pytest.mark.parametrize(
    ("samples", "taps", "dtype"),
    [
        ((20_000_000,), (1000,), "float32"),
        ((20_000_000,), (60_000,), "float32"),
        ((10_000_000,), (1000,), "float64"),
        ((10_000_000,), (1000,), "complex64"),
        ((4096, 4096), (31, 31), "float32"),
        ((4096, 4096), (101, 101), "float32"),
        ((300, 300, 300), (9, 9, 9), "float32"),
        ((256, 256, 260), (15, 15, 15), "float32"),
    ],
)
def test_first_call_beside_a_large_input_takes_a_twentieth_of_it(samples, taps, dtype):
    """Of inputs of 67 MB and more: beside less, what a process takes whatever the input, 1 to 2 MB, is too much."""
    done = run_python(FIRST_CALL, str(samples), str(taps), dtype)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.05 * np.prod(samples) * np.dtype(dtype).itemsize


RESIDENT = """
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
"""

SHAPES = """
import numpy as np, triconv as tc
w = np.ones((1, 1, 1, 1), np.float32)
x = np.ones((1, 1, 1, 8 << 20), np.float32)
tc.conv2d(x, w)
tc.release_memory()
before = resident()
for n in range(1, 33):
    tc.conv2d(x[..., : n << 18], w)
grown = resident() - before
tc.release_memory()
print(grown, resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
@pytest.mark.parametrize(("limit", "bound"), [("32", 48 * MIB), ("0", 16 * MIB)])
def test_many_shapes_do_not_grow_the_process(limit, bound):
    done = run_python(RESIDENT + SHAPES, TRICONV_MAX_IDLE_MIB=limit)
    assert done.returncode == 0, done.stderr
    grown, left = (int(count) for count in done.stdout.split())
    assert grown < bound
    assert left < 16 * MIB


SIGNALS = """
import numpy as np, triconv as tc
from triconv import signal
x = np.ones(1 << 20, np.float32)
before = resident()
for i in range(40):
    signal.correlate(x[i << 12 :], x[i << 12 :], method="fft")
tc.release_memory()
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_many_lengths_of_signals_do_not_grow_the_process():
    done = run_python(RESIDENT + SIGNALS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 160 * MIB  # 40 plans hold 480


PLANS = """
import triconv as tc
def plan(count):
    for n in range(count):
        tc.plan_conv1d((1, 1, 1 << 20), (1, 1, 1000 + n), algorithm="fft:%d" % (2 * (1 << 15) + 64 * n))
plan(10)
before = resident()
plan(100)
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_plans_of_many_lengths_are_forgotten():
    done = run_python(RESIDENT + PLANS)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * MIB


def test_no_pool_means_numpys_allocator():
    program = (
        "import numpy as np, triconv as tc\n"
        "y = tc.conv2d(np.ones((1, 1, 1024, 1024)), np.ones((1, 1, 1, 1)))\n"
        "core = getattr(np, '_core', None) or np.core\n"
        "assert core.multiarray.get_handler_name(y) == 'default_allocator'\n"
        "assert tc.release_memory() == 0\n"
    )
    done = run_python(program, TRICONV_MAX_IDLE_MIB="0")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("value", ["", "many", "-1", "1.5", "99999999999999999999"])
def test_pool_limit_that_is_no_number(value):
    program = "import numpy as np, triconv as tc; tc.conv2d(np.ones((1, 1, 8, 8)), np.ones((1, 1, 3, 3)))"
    done = run_python(program, TRICONV_MAX_IDLE_MIB=value)
    assert f'ValueError: TRICONV_MAX_IDLE_MIB is "{value}", expected a number of mebibytes, 0 or more' in done.stderr
