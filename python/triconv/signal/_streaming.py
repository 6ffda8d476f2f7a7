"""Convolution of a signal that arrives in chunks, block by block.

Blocks lie on a grid that starts with the stream and whose step is fixed when it is made, and a block is computed when
all its samples are there. So the bits of the results do not depend on how the signal was cut into chunks.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from .. import _core
from ._convolve import as_operand, float_dtype, is_computed_by_core, real_dtype
from ._modes import reverse
from ._prepared import PreparedRun, checked_kernel
from ._problem import execute, layer_problem
from ._workers import threads

if TYPE_CHECKING:
    from typing import Any, SupportsIndex

    import numpy.typing as npt
    from typing_extensions import Self

    from .._typing import AnyArray
    from ._problem import LayerProblem

# Results per block: at least this many, for tiles that fill the lanes of a register, and this many times the taps.
_LEAST_BLOCK = 16384
_BLOCK_PER_TAP = 4


class _Form(NamedTuple):
    """What a chunk says of its stream."""

    ndim: int
    axis: int  # of time
    channels: tuple[int, ...]  # the sizes of the other axes
    result_channels: tuple[int, ...]
    samples: np.dtype[Any]
    results: np.dtype[Any]


class _Blocks:
    """The memory of a stream and the problem of one block. All arrays have the time last."""

    def __init__(self, form: _Form, kernel: AnyArray, run: PreparedRun, size: int, history: int, padding: int) -> None:
        taps = kernel.shape[-1]
        self.form = form
        self.kernel = kernel
        self.run = run
        self.history = history  # samples of the block before that this one reads
        self.padding = padding  # zeros at both ends of a block
        self.samples = np.zeros((*form.channels, history + size), form.samples)
        self.results = np.empty((*form.result_channels, history + size + 2 * padding - taps + 1), form.results)
        self.tail = np.zeros((*form.result_channels, padding), form.results)  # what the blocks before add to this one
        self.filled = 0
        self.begun = False
        self.problem = self._problem()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "problem"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.problem = self._problem()  # views of the arrays

    def _problem(self) -> LayerProblem:
        time = self.samples.ndim - 1
        return layer_problem(self.results, self.samples, self.kernel, ((time, (self.padding, self.padding)),))

    @property
    def size(self) -> int:
        return int(self.samples.shape[-1]) - self.history

    def copy(self) -> _Blocks:
        other = object.__new__(_Blocks)
        own = {name: getattr(self, name).copy() for name in ("samples", "results", "tail")}
        other.__setstate__({**self.__getstate__(), **own})
        return other

    def clear(self) -> None:
        self.samples[...] = 0
        self.tail[...] = 0
        self.filled = 0
        self.begun = False

    def store(self, samples: AnyArray) -> int:
        """Take as many samples as the block has room for; return how many."""
        count = min(self.size - self.filled, int(samples.shape[-1]))
        start = self.history + self.filled
        self.samples[..., start : start + count] = samples[..., :count]
        self.filled += count
        self.begun = self.begun or count > 0
        return count

    def complete(self) -> AnyArray:
        """Compute the block, zeros standing for samples that are not there; return its results, `size` of them."""
        size = self.size
        self.samples[..., self.history + self.filled :] = 0
        execute(self.problem, self.run)
        with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs
            self.results[..., : self.padding] += self.tail
        self.tail[...] = self.results[..., size : size + self.padding]
        self.samples[..., : self.history] = self.samples[..., size:]
        self.filled = 0
        return self.results[..., :size]


class _Stream:
    """Chunks in, finished blocks out; `_saves` where a block reads the last samples of the one before again."""

    _saves: ClassVar[bool]

    def __init__(
        self,
        kernel: npt.ArrayLike,
        axis: SupportsIndex = -1,
        *,
        block_size: SupportsIndex | None = None,
        workers: SupportsIndex | None = None,
    ) -> None:
        self._axis = operator.index(axis)
        kernel = checked_kernel(kernel)
        if not is_computed_by_core(float_dtype(kernel.dtype)):
            raise ValueError(f"kernel has dtype {kernel.dtype}, expected at most float64 or complex128")
        time = 0 if kernel.ndim == 1 else _time_axis("kernel", kernel, self._axis)
        self._kernel = np.moveaxis(kernel, time, -1)
        taps = self._kernel.shape[-1]
        default = max(_LEAST_BLOCK, _BLOCK_PER_TAP * taps)
        self._block_size = default if block_size is None else operator.index(block_size)
        if self._block_size < 1:
            raise ValueError(f"block_size is {block_size!r}, expected at least 1")
        threads(workers)  # checks it
        self._workers = workers
        self._form: _Form | None = None  # of the latest chunk while none had samples
        self._blocks: _Blocks | None = None

    @property
    def block_size(self) -> int:
        """Samples that are computed at once: so many results are ready whenever a block is complete."""
        return self._block_size

    def process(self, chunk: npt.ArrayLike) -> AnyArray:
        """Take the next samples and return the results that are ready, a multiple of `block_size` along the axis.

        Parameters
        ----------
        chunk
            Any number of samples along the axis, none included. The first chunk that has some fixes the sizes of the
            other axes and the dtype: that of ``oaconvolve(chunk, kernel)`` with more taps than one.

        Raises
        ------
        TypeError
            If the results of this chunk would need another dtype than those before.
        ValueError
            If the shape does not fit the kernel's or that of the chunks before, or the dtype is not numeric.
        """
        chunk = np.asarray(chunk)
        form = self._form_of(chunk)
        samples = np.moveaxis(chunk, form.axis, -1)
        if self._blocks is None and samples.size > 0:
            self._blocks = self._new_blocks(form)
        blocks = self._blocks
        if blocks is None:
            self._form = form
            return _empty_results(form, 0)[1]
        _check_form(form, blocks.form)
        ready, shown = _empty_results(blocks.form, (blocks.filled + samples.shape[-1]) // blocks.size * blocks.size)
        done = 0
        with threads(self._workers):
            while samples.shape[-1] > 0:
                samples = samples[..., blocks.store(samples) :]
                if blocks.filled == blocks.size:
                    ready[..., done : done + blocks.size] = blocks.complete()
                    done += blocks.size
        return shown

    def flush(self) -> AnyArray:
        """Return the results that are left, as many as the kernel's taps less 1 and samples not yet computed.

        The next chunk then begins another stream, of the same sizes and dtype.
        """
        blocks = self._blocks
        if blocks is None and self._form is not None:
            return _empty_results(self._form, 0)[1]
        if blocks is None:
            return np.empty(0, float_dtype(self._kernel.dtype))
        count = blocks.filled + self._kernel.shape[-1] - 1 if blocks.begun else 0
        left, shown = _empty_results(blocks.form, count)
        with threads(self._workers):
            for done in range(0, count, blocks.size):
                part = left[..., done : done + blocks.size]
                part[...] = blocks.complete()[..., : part.shape[-1]]
        blocks.clear()
        return shown

    def copy(self) -> Self:
        """Return an independent stream in the same state. Both share the kernel's transform."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._blocks = None if self._blocks is None else self._blocks.copy()
        return other

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kernel.shape[-1]} taps, block_size={self._block_size})"

    def _form_of(self, chunk: AnyArray) -> _Form:
        axis = _time_axis("chunk", chunk, self._axis)
        if self._kernel.ndim not in (1, chunk.ndim):
            raise ValueError(f"chunk has {chunk.ndim} axes, expected {self._kernel.ndim}, as many as the kernel")
        channels = chunk.shape[:axis] + chunk.shape[axis + 1 :]
        if 0 in channels:
            raise ValueError(f"chunk has shape {chunk.shape}, expected no empty axis but {axis}, that of time")
        try:
            result_channels = np.broadcast_shapes(channels, self._kernel.shape[:-1])
        except ValueError:
            raise ValueError(
                f"chunk has shape {chunk.shape}, expected one that broadcasts with {self._kernel.shape[:-1]}, "
                f"the kernel's, along all axes but {axis}"
            ) from None
        results = float_dtype(chunk.dtype, self._kernel.dtype)
        if not is_computed_by_core(results):
            raise ValueError(f"chunk has dtype {chunk.dtype}, expected at most float64 or complex128")
        samples = results if chunk.dtype.kind == "c" else real_dtype(results)
        return _Form(chunk.ndim, axis, channels, result_channels, samples, results)

    def _new_blocks(self, form: _Form) -> _Blocks:
        kernel = reverse(as_operand(self._kernel, form.results), [self._kernel.ndim - 1])
        kernel = kernel[(np.newaxis,) * (form.ndim - kernel.ndim)]
        overlap = kernel.shape[-1] - 1
        # Infinite taps would meet the zeros around each block.
        saves = self._saves or not np.isfinite(kernel).all()
        history, padding = (overlap, 0) if saves else (0, overlap)
        return _Blocks(form, kernel, PreparedRun(), self._block_size, history, padding)


class OverlapAdd(_Stream):
    """Convolution of an endless signal with a kernel: the full convolution of each block, overlaps added up.

    The results of all calls, one after the other, are the full convolution of all samples, the same bits however they
    were cut into chunks. Memory does not grow with the stream: one block, its results and the kernel's transform.

    Parameters
    ----------
    kernel
        1-dimensional, or of as many axes as the chunks; along all axes but `axis` kernel and chunks broadcast, as in
        `oaconvolve`. It is copied.
    axis
        The axis of time in the chunks, and in the kernel unless that is 1-dimensional.
    block_size
        Samples to collect before results are ready. None for 16,384 or 4 times the taps, whichever is more: shorter
        blocks have less delay and more work.
    workers
        As for `convolve`.

    Raises
    ------
    TypeError
        If an option is not an int.
    ValueError
        If the kernel is empty or not numeric, `block_size` is less than 1, or `workers` is no number of threads.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> stream = triconv.signal.OverlapAdd([1.0, 10.0], block_size=2)
    >>> stream.process([1.0, 2.0, 3.0])
    array([ 1., 12.])
    >>> stream.process([4.0])
    array([23., 34.])
    >>> stream.flush()
    array([40.])
    """

    _saves = False


class OverlapSave(_Stream):
    """Convolution of an endless signal with a kernel: each block reads the last samples of the one before again.

    Equal to `OverlapAdd` but for rounding, with its parameters and errors. Every result is computed in one piece;
    there, near the ends of a block, in two that are added up.

    Examples
    --------
    >>> import numpy as np, triconv.signal
    >>> stream = triconv.signal.OverlapSave(np.ones(3, dtype=np.float32))
    >>> parts = [stream.process(np.ones((2, n), dtype=np.float32)) for n in (5, 0, 20000)] + [stream.flush()]
    >>> [part.shape for part in parts]
    [(2, 0), (2, 0), (2, 16384), (2, 3623)]
    """

    _saves = True


def _time_axis(name: str, array: AnyArray, axis: int) -> int:
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"axis is {axis}, expected an axis of the {name}, which has {array.ndim}")
    return axis % array.ndim


def _empty_results(form: _Form, count: int) -> tuple[AnyArray, AnyArray]:
    """A new array with the time last, and the view of it that has the chunks' order of axes."""
    results = _core.empty((*form.result_channels, count), form.results)
    return results, np.moveaxis(results, -1, form.axis)


def _check_form(found: _Form, expected: _Form) -> None:
    if found[:3] != expected[:3]:
        raise ValueError(f"chunk has {found.channels} channels, expected {expected.channels}, those of the first chunk")
    if not np.can_cast(found.samples, expected.samples, "safe"):
        raise TypeError(f"chunk needs {found.samples}, expected {expected.samples}, the dtype of the first chunk")
