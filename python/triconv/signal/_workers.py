"""The number of threads of one call."""

from __future__ import annotations

import operator
import os
import threading
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, SupportsIndex

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Present:
    """Calls that run with a number of threads of their own: the first keeps what was set before, the last restores it.

    The core's number belongs to the process, so calls at the same time share the latest. Results do not depend on it.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0
        self.before = 1

    def end_others(self) -> None:
        """In a forked child, which has none of the threads that may have held the lock or been within a call."""
        self.lock = threading.Lock()
        if self.calls > 0:
            self.calls = 0
            _core.set_num_threads(self.before)


_present = _Present()
os.register_at_fork(after_in_child=_present.end_others)


def _count(workers: SupportsIndex) -> int:
    try:
        count = operator.index(workers)
    except TypeError:
        raise TypeError(f"workers is {workers!r}, expected an int or None") from None
    cores = os.cpu_count() or 1
    if count < 0:
        count += cores + 1
    if count < 1:
        raise ValueError(f"workers is {workers!r}, expected at least 1, or -1 to -{cores} counted from all cores")
    return count


def threads(workers: SupportsIndex | None) -> AbstractContextManager[None]:
    """Use so many threads inside a ``with`` block; None leaves the number as it is, -1 is all cores."""
    return nullcontext() if workers is None else _own_threads(_count(workers))


@contextmanager
def _own_threads(count: int) -> Iterator[None]:
    with _present.lock:
        if _present.calls == 0:
            _present.before = _core.get_num_threads()
        _present.calls += 1
        _core.set_num_threads(count)
    try:
        yield
    finally:
        with _present.lock:
            if _present.calls <= 1:
                _core.set_num_threads(_present.before)
            _present.calls = max(0, _present.calls - 1)  # none is left in a child forked within the call
