"""What the filters are called with, as SciPy reads it. Kinds of errors are SciPy's."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .. import _core

if TYPE_CHECKING:
    from typing import Any

    from .._typing import AnyArray
    from ..signal._boundary import Boundary

    AnyDType = np.dtype[Any]

_AXIS_ERROR = getattr(np, "exceptions", np).AxisError  # NumPy 1.25 has moved it

_BOUNDARIES = {
    "nearest": "nearest",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "reflect": "reflect",
    "grid-mirror": "reflect",
    "mirror": "mirror",
    "constant": "constant",
    "grid-constant": "constant",
}


def boundary_of(mode: object, cval: complex, image: AnyArray) -> Boundary:
    """What is outside of the image, by the core's names. A mode that is not known is a RuntimeError."""
    if not isinstance(mode, str) or mode not in _BOUNDARIES:
        raise RuntimeError(f"mode is {mode!r}, expected 'reflect', 'constant', 'nearest', 'mirror' or 'wrap'")
    name, complex_image = _BOUNDARIES[mode], np.iscomplexobj(image)
    if isinstance(cval, str | bytes) or (not complex_image and isinstance(cval, complex | np.complexfloating)):
        raise TypeError(f"cval is {cval!r}, expected a{'' if complex_image else ' real'} number")
    value = complex(cval) if complex_image else float(cval)
    if name != "constant":
        return name, 0.0
    return name, value.real if value.imag == 0 else value


def sequence(name: str, value: Any, length: int) -> list[Any]:
    """One value for each axis."""
    if isinstance(value, str) or not np.iterable(value):
        return [value] * length
    values = list(value)
    if len(values) != length:
        raise RuntimeError(f"{name} has {len(values)} entries, expected {length}, one for each axis")
    return values


def normalized_axis(axis: Any, rank: int) -> int:
    """An axis counted from the first."""
    index = operator.index(axis)
    if not -rank <= index < rank:
        raise _AXIS_ERROR(index, rank)
    return index % rank


def normalized_axes(axes: Any, rank: int) -> tuple[int, ...]:
    """Different axes counted from the first; None for all."""
    if axes is None:
        return tuple(range(rank))
    if np.ndim(axes) == 0 and not isinstance(axes, Iterable):
        if not np.isscalar(axes):
            raise ValueError(f"axes is {axes!r}, expected an int, ints or None")
        axes = (normalized_axis(axes, rank),)
    given = tuple(operator.index(axis) for axis in axes)
    if not all(-rank <= axis < rank for axis in given):
        raise ValueError(f"axes is {given!r}, expected axes of an array with {rank}")
    if len({axis % rank for axis in given}) != len(given):
        raise ValueError(f"axes is {given!r}, expected different ones")
    return tuple(axis % rank for axis in given)


def ends_of(origin: Any, taps: int) -> tuple[int, int]:
    """Samples before and behind the one in the middle of a kernel."""
    if not -(taps // 2) <= origin <= (taps - 1) // 2:
        raise ValueError(f"origin is {origin!r}, expected {-(taps // 2)} to {(taps - 1) // 2} for {taps} weights")
    low = taps // 2 + operator.index(origin)
    return low, taps - 1 - low


def output_of(output: Any, image: AnyArray, complex_output: bool = False) -> AnyArray:
    """The array that `output` asks for, or is: None for the image's dtype, a dtype, or an array."""
    promoted = np.promote_types(image.dtype, np.complex64) if complex_output else np.dtype(image.dtype.name)
    if output is None:
        return _core.empty(image.shape, promoted)
    if isinstance(output, type | np.dtype):
        dtype = np.dtype(output)
        if complex_output and dtype.kind != "c":
            warnings.warn(f"output is {dtype}, promoted to a complex dtype", stacklevel=4)
            dtype = np.promote_types(dtype, np.complex64)
        return _core.empty(image.shape, dtype)
    if isinstance(output, str):
        dtype = np.dtype(output)
        if not issubclass(dtype.type, np.number):
            raise RuntimeError(f"output is {output!r}, expected a numeric dtype")
    else:
        array = np.asarray(output)
        if array.shape != image.shape:
            raise RuntimeError(f"output has shape {array.shape}, expected {image.shape}, that of the image")
        dtype = array.dtype
    if complex_output and dtype.kind != "c":
        raise RuntimeError(f"output has dtype {dtype}, expected a complex one")
    return _core.empty(image.shape, dtype) if isinstance(output, str) else array


def check_dtypes(image: AnyArray, out: AnyArray, complex_result: bool) -> None:
    """RuntimeError for dtypes that are not filtered, ValueError for an output that cannot be written."""
    for name, dtype in (("input", image.dtype), ("output", out.dtype)):
        if dtype.kind not in "biufc" or (dtype.kind in "fc" and dtype.char not in "fdFD"):
            raise RuntimeError(f"{name} has dtype {dtype}, expected integers, float32, float64 or their complex ones")
    if (out.dtype.kind == "c") != complex_result:
        raise RuntimeError(f"output has dtype {out.dtype}, expected a {'complex' if complex_result else 'real'} one")
    if not out.flags.writeable:
        raise ValueError("output is read-only, expected an array that can be written")
