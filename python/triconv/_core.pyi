"""The extension module: what the Python package calls. Arguments are positional and checked here.

`padding_mode` is one of PyTorch's names, within PyTorch's limits; or a pair of a boundary of `scipy.ndimage`
("constant", "nearest", "reflect", "mirror", "wrap") and the fill of a constant one, with padding of any width.
"""

# ruff: noqa: A002 (the argument `input` has the name it has in PyTorch)

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._typing import AnyArray

class Step:
    def backward(self, dy: object, needs_dx: bool, needs_dw: bool, /) -> tuple[Any, Any]: ...
    @property
    def reuses_transforms(self) -> bool: ...

class PreparedWeights:
    def forward(self, x: object, bias: object, out: object, /) -> AnyArray: ...
    def input_grad(self, dy: object, out: object, /) -> AnyArray: ...
    @property
    def problem(self) -> str: ...
    @property
    def nbytes(self) -> int: ...

class Plan:
    def __init__(
        self,
        rank: int,
        input_size: object,
        weight_size: object,
        stride: object,
        padding: object,
        dilation: object,
        groups: object,
        padding_mode: object,
        dtype: object,
        algorithm: object,
        tolerance: object,
        max_workspace: object,
        pass_algorithms: tuple[str, str, str] | None,
        /,
    ) -> None: ...
    def forward(self, x: object, w: object, bias: object, out: object, /) -> AnyArray: ...
    def input_grad(self, w: object, dy: object, out: object, /) -> AnyArray: ...
    def weight_grad(self, x: object, dy: object, out: object, /) -> AnyArray: ...
    def step(self, x: object, w: object, bias: object, /) -> tuple[AnyArray, Step]: ...
    def prepare(self, w: object, which: object, /) -> PreparedWeights: ...
    def tune(self, /) -> tuple[str, str, str]: ...
    @property
    def problem(self) -> str: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def weight_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...
    @property
    def algorithm(self) -> tuple[str, str, str]: ...
    @property
    def workspace_bytes(self) -> tuple[int, int, int]: ...
    @property
    def flops(self) -> tuple[float, float, float]: ...
    @property
    def forward_choice(self) -> tuple[str, float]: ...
    @property
    def candidates(self) -> tuple[tuple[tuple[Any, ...], ...], ...]: ...

def check_layer(
    rank: int,
    in_channels: object,
    out_channels: object,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    dtype: object,
    algorithm: object,
    /,
) -> tuple[int, ...]: ...
def read_array(name: str, value: object, /) -> AnyArray: ...
def empty(shape: Sequence[int], dtype: np.dtype[Any], /) -> AnyArray: ...
def conv(
    rank: int,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...
def conv_input(
    rank: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...
def conv_weight(
    rank: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...
def conv_transpose(
    rank: int,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...
def conv_transpose_input(
    rank: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...
def conv_transpose_weight(
    rank: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    algorithm: object,
    out: object,
    /,
) -> AnyArray: ...

__version__: str

def last_run() -> tuple[str, str, str, int, int] | None: ...
def build_info() -> tuple[str, str, str, tuple[str, ...], str]: ...
def machine() -> tuple[str, int, int, int]: ...
def set_num_threads(n: object, /) -> None: ...
def get_num_threads() -> int: ...
def release_memory() -> int: ...
