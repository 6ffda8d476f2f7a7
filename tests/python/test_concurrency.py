"""Threads, forks, exits and interrupts in the middle of the work: the right bits, and nothing hangs.

What could hang, or ends the interpreter, runs in a process of its own with a time limit.
"""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import triconv as tc

TIME_LIMIT = 120  # seconds; the slowest takes a few


def run_python(tmp_path, program: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a program that has `x`, `w`, `convolve` and `expected` at hand."""
    # From a file: processes that `multiprocessing` spawns import it again.
    path = tmp_path / "program.py"
    path.write_text(PREAMBLE + program)
    return subprocess.run(
        [sys.executable, str(path), *arguments], capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )


PREAMBLE = """
import atexit, multiprocessing, os, signal, sys, threading, time
import numpy as np
import triconv as tc

signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have had it ignored
tc.set_num_threads(4)
rng = np.random.default_rng(5)
x, w = rng.normal(size=(4, 8, 33, 31)).astype("f"), rng.normal(size=(8, 8, 5, 5)).astype("f")

def convolve(algorithm="fft"):
    return tc.conv2d(x, w, padding=2, algorithm=algorithm)

expected = convolve()

def is_right(_=None):
    return bool((convolve() == expected).all())
"""


def assert_succeeded(done: subprocess.CompletedProcess) -> None:
    assert (done.returncode, done.stderr) == (0, "")


# ---- Threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize("algorithm", ["direct", "fft", "winograd"])
@pytest.mark.parametrize("shared", [True, False], ids=["one plan", "a plan each"])
def test_eight_threads_and_a_changing_number_of_threads(rng, algorithm, shared):
    input_size, weight_size = (2, 6, 21, 20), (9, 6, 3, 3)
    x, w = rng.normal(size=input_size).astype("f"), rng.normal(size=weight_size).astype("f")

    def make_plan():
        return tc.plan_conv2d(input_size, weight_size, padding=1, algorithm=algorithm)

    def all_results(plan):
        y, backward = plan.step(x, w)
        return y, *backward(y), plan.forward(x, w), plan.prepare(w).forward(x), plan.weight_grad(x, y)

    expected = all_results(make_plan())
    plan, failures, start = make_plan(), [], threading.Barrier(9)

    def run():
        start.wait()
        own = plan if shared else make_plan()
        for _ in range(10):
            for result, first in zip(all_results(own), expected, strict=True):
                if not np.array_equal(result, first):
                    failures.append("other bits")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    count = 0
    while any(thread.is_alive() for thread in threads):
        count += 1
        tc.set_num_threads(1 + count % 5)
        threads[count % 8].join(0.001)
    assert failures == []


# ---- Processes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_multiprocessing_convolve(tmp_path, method):
    program = """
if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        result = pool.map_async(is_right, range(12))
        assert all(is_right() for _ in range(12))
        assert result.get(100) == [True] * 12
"""
    assert_succeeded(run_python(tmp_path, program, method))


def test_fork_while_the_pool_is_busy(tmp_path):
    """Other threads plan, run and free results meanwhile; a child does all of that, with threads of its own."""
    program = """
stop = False

def work(seed):
    size = 20
    while not stop:
        size = 20 + (size + seed) % 40
        y = tc.conv2d(x[:, :, :size, :], w, padding=2)
        tc.conv2d(np.ones((1, 1, 600, 1000), "f"), w[:1, :1])

threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in (1, 7)]
for thread in threads:
    thread.start()
for attempt in range(30):
    time.sleep(0.003)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        right = is_right() and bool((convolve("direct") - expected < 1e-3).all())
        tc.conv2d(np.ones((1, 1, 600, 1000), "f"), w[:1, :1])
        tc.release_memory()
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0, attempt
    assert is_right()
stop = True
for thread in threads:
    thread.join()
"""
    assert_succeeded(run_python(tmp_path, program))


def test_fork_while_other_threads_plan(tmp_path):
    """So many shapes that every call plans, and the plan used least recently is forgotten."""
    program = """
stop = False

def run(number):
    height, width = 3 + number % 30, 3 + number // 30 % 28
    return tc.conv2d(x[:1, :1, :height, :width], w[:1, :1, :3, :3], algorithm="direct")

def work(number):
    while not stop:
        run(number)
        number += 1

threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in (0, 400)]
for thread in threads:
    thread.start()
for attempt in range(300):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        run(attempt)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, attempt
stop = True
for thread in threads:
    thread.join()
"""
    assert_succeeded(run_python(tmp_path, program))


def test_children_of_children(tmp_path):
    program = """
child = os.fork()
if child == 0:
    signal.alarm(60)
    assert is_right()
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if is_right() else 1)
    os._exit(os.waitpid(grandchild, 0)[1])
assert os.waitpid(child, 0)[1] == 0
assert is_right()
"""
    assert_succeeded(run_python(tmp_path, program))


# ---- Exits and interrupts --------------------------------------------------------------------------------------------

LONG = """
big = np.ones((8, 32, 128, 128), "f")
big_w = np.ones((32, 32, 7, 7), "f")

def work():
    while True:
        tc.conv2d(big, big_w, algorithm="direct")
        tc.conv2d(x, w)
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "atexit.register(is_right)"])
def test_exit_with_work_in_flight(tmp_path, end):
    program = f"""
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
assert is_right()
{end}
"""
    assert_succeeded(run_python(tmp_path, LONG + program))


def test_interrupt_of_a_long_call(tmp_path):
    """Raised once the call ends, in the thread that called; the next calls work."""
    program = """
def interrupt(begun):
    begun.wait()
    time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)

for _ in range(5):
    begun = threading.Event()
    interrupter = threading.Thread(target=interrupt, args=(begun,))
    interrupter.start()
    try:
        begun.set()
        while True:
            tc.conv2d(big, big_w, algorithm="direct")
    except KeyboardInterrupt:
        pass
    interrupter.join()
    assert is_right()
assert tc.get_num_threads() == 4
"""
    assert_succeeded(run_python(tmp_path, LONG + program))


def test_interrupt_ends_the_program(tmp_path):
    program = """
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
work()
"""
    done = run_python(tmp_path, LONG + program)
    assert done.returncode == -2
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
