"""PyTorch as a peer: a layer's passes by autograd. Without it tests skip, or fail if TRICONV_REQUIRE_TORCH is 1."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from shapes import Problem

if importlib.util.find_spec("torch") is None and os.environ.get("TRICONV_REQUIRE_TORCH") != "1":
    pytest.skip("PyTorch is not installed", allow_module_level=True)

import torch  # a missing one that is required fails the collection, and with it the run
from torch.nn import functional

torch.set_num_threads(2)


def padded(problem: Problem, x: torch.Tensor) -> torch.Tensor:
    """x with its padding: PyTorch's own is the same at both ends, and some boundaries it does not know."""
    if problem.boundary == "constant":
        return functional.pad(x, [end for ends in reversed(problem.padding) for end in ends], value=problem.fill)
    for axis in range(problem.rank):
        x = x.index_select(axis + 2, torch.from_numpy(problem.samples_along(axis)))
    return x


def torch_passes(problem: Problem, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> dict[str, np.ndarray]:
    """The three passes in the arrays' dtype, the gradients by autograd."""
    x_leaf, w_leaf = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    call = getattr(functional, f"conv{problem.rank}d")
    y = call(padded(problem, x_leaf), w_leaf, None, problem.stride, 0, problem.dilation, problem.groups)
    dx, dw = torch.autograd.grad(y, (x_leaf, w_leaf), torch.from_numpy(dy))
    return {"forward": y.detach().numpy(), "input_grad": dx.numpy(), "weight_grad": dw.numpy()}
