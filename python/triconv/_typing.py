"""Types that only a type checker reads: nothing imports this module at run time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt


class SupportsDLPack(Protocol):
    """An object that exports its memory by DLPack."""

    def __dlpack__(self, *, stream: None = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


Array: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
AnyArray: TypeAlias = npt.NDArray[Any]
ArrayIn: TypeAlias = npt.ArrayLike | SupportsDLPack
Size: TypeAlias = Sequence[SupportsIndex] | npt.NDArray[np.integer[Any]]
PerAxis: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Ends: TypeAlias = SupportsIndex | Sequence[SupportsIndex | Sequence[SupportsIndex]]
Padding: TypeAlias = Ends | Literal["same", "valid"]
PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
DType: TypeAlias = npt.DTypeLike
