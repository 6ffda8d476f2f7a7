"""Convolutions that train, on the CPU: forward and both gradients by tiled FFT, Winograd or direct summation.

The layer functions (`conv2d`, `conv_transpose2d`, ...), their gradients (`triconv.grad`) and the layers
(`triconv.nn`) have PyTorch's names, order and meaning; arrays are NumPy's. `plan_conv2d` fixes the shapes once and
lets a training step share its transforms; `explain` tells what each algorithm would cost. `triconv.signal` and
`triconv.ndimage` have the convolutions of `scipy.signal` and `scipy.ndimage`.
`triconv.reference` holds the definitions in plain NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import grad, nn
from ._core import __version__
from .explanation import Candidate, Explanation, PassAlgorithms, PassBytes, PassFlops
from .functional import conv1d, conv2d, conv3d, conv_transpose1d, conv_transpose2d, conv_transpose3d
from .library import get_cmake_dir, get_include
from .plan import (
    Backward,
    Plan,
    PreparedWeights,
    explain,
    plan_conv1d,
    plan_conv2d,
    plan_conv3d,
)
from .runtime import (
    BuildInfo,
    RunInfo,
    build_info,
    get_num_threads,
    last_run,
    num_threads,
    register_threadpoolctl,
    release_memory,
    set_num_threads,
)

if TYPE_CHECKING:
    from types import ModuleType

    from . import ndimage, signal

__all__ = [
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

_ON_FIRST_USE = ("ndimage", "signal")


def __getattr__(name: str) -> ModuleType:
    """Import what many programs do not need when it is first used."""
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'triconv' has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"triconv.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})
