"""The C interface from Python's ctypes: `ctypes_user.py LIBRARY` correlates a signal, and checks the sums."""

import ctypes
import sys

OK, INVALID_ARGUMENT = 0, 1
F32 = 0
Triple = ctypes.c_int64 * 3


class Problem(ctypes.Structure):
    """triconv_problem."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("rank", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        *((name, ctypes.c_int64) for name in ("batch", "in_channels", "out_channels", "groups")),
        *((name, Triple) for name in ("input", "kernel", "stride", "dilation", "pad_lo", "pad_hi")),
        ("fill", ctypes.c_double),
        ("boundary", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


triconv = ctypes.CDLL(sys.argv[1])
triconv.triconv_last_error.restype = ctypes.c_char_p


def check(status: int) -> None:
    if status != OK:
        raise ValueError(triconv.triconv_last_error().decode())


def correlate(signal: list[float], taps: list[float]) -> list[float]:
    problem = Problem()
    check(triconv.triconv_problem_init(ctypes.byref(problem), ctypes.c_size_t(ctypes.sizeof(problem))))
    problem.rank, problem.dtype = 1, F32
    problem.input[0], problem.kernel[0] = len(signal), len(taps)
    extent = Triple()
    check(triconv.triconv_problem_output(ctypes.byref(problem), extent))
    plan = ctypes.c_void_p()
    check(triconv.triconv_plan_create(ctypes.byref(problem), None, ctypes.byref(plan)))
    x, w, y = ((ctypes.c_float * n)(*v) for n, v in ((len(signal), signal), (len(taps), taps), (extent[0], ())))
    no_bias = (None, ctypes.c_int64(0))
    own_workspace = (None, ctypes.c_size_t(0))
    check(triconv.triconv_forward(plan, x, None, w, None, *no_bias, y, None, *own_workspace, None))
    triconv.triconv_plan_destroy(plan)
    return list(y)


result = correlate([1, 2, 4, 8, 16], [1, 0.5])
print(result)
assert result == [2, 4, 8, 16]
try:
    correlate([1], [1, 2])
except ValueError as error:
    print(f"refused, as it should be: {error}")
else:
    raise AssertionError("a kernel larger than the signal was accepted")
