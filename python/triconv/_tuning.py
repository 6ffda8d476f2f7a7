"""The file in which plans made with ``tune=`` remember what was fastest.

A JSON object: ``format``, and ``answers`` from a key to the algorithm of each pass. The key says all that a timing
depends on: problem, options, version and instruction set of triconv, CPU and cache sizes. So one file may serve many
machines, and what was measured elsewhere is never used.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

    Algorithms = tuple[str, str, str]

_FORMAT = "triconv tuning 1"
_PASSES = ("forward", "input_grad", "weight_grad")


def key_of(plan: _core.Plan, algorithm: object, tolerance: object, max_workspace: object) -> str:
    """All that the answer depends on, in one readable line."""
    version, _, _, _, isa = _core.build_info()
    cpu, l1d, l2, l3 = _core.machine()
    options = f"algorithm={algorithm} tolerance={tolerance} max_workspace={max_workspace}"
    return f"{plan.problem}; {options}; triconv {version} {isa}; {cpu}; caches {l1d} {l2} {l3}"


def recall(path: str, key: str) -> Algorithms | None:
    """Return the answer that the file has for the key; None if it has none or there is no file."""
    return _read(path).get(key)


def remember(path: str, key: str, algorithms: Algorithms) -> Algorithms:
    """Add an answer and return it; if another process was first, keep and return its answer."""
    with _locked(path):
        answers = _read(path)
        if key in answers:
            return answers[key]
        answers[key] = algorithms
        _replace(path, answers)
    return algorithms


def check_writable(path: str) -> None:
    """Raise the OSError that `remember` would, before time is spent on measuring."""
    with _locked(path), tempfile.TemporaryFile(dir=_directory(path)):
        pass


def damaged(path: str, reason: str) -> ValueError:
    """The error for a file that is not what this module wrote."""
    return ValueError(f"tuning file {path!r} {reason}; correct or delete it")


def _directory(path: str) -> str:
    return os.path.dirname(os.path.abspath(path))


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """One writer at a time. The directory is what is locked: the file itself is replaced."""
    directory = os.open(_directory(path), os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _read(path: str) -> dict[str, Algorithms]:
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise damaged(path, "is not text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"is not JSON: {error}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise damaged(path, "was not written by triconv: it has no 'format'")
    if content["format"] != _FORMAT:
        raise damaged(path, f"has format {content['format']!r}, expected {_FORMAT!r}")
    answers = content.get("answers")
    if not isinstance(answers, dict):
        raise damaged(path, "has no object 'answers'")
    return {key: _read_answer(path, key, answer) for key, answer in answers.items()}


def _read_answer(path: str, key: str, answer: object) -> Algorithms:
    names = [answer.get(name) for name in _PASSES] if isinstance(answer, dict) and len(answer) == 3 else []
    texts = [name for name in names if isinstance(name, str) and name]
    if len(texts) != len(_PASSES):
        raise damaged(path, f"has {answer!r} for {key!r}, expected an algorithm for each of {', '.join(_PASSES)}")
    return (texts[0], texts[1], texts[2])


def _replace(path: str, answers: dict[str, Algorithms]) -> None:
    """Write a new file and put it in the old one's place: readers see one or the other. Called by one at a time."""
    content = {
        "format": _FORMAT,
        "answers": {key: dict(zip(_PASSES, names, strict=True)) for key, names in sorted(answers.items())},
    }
    new = f"{path}.new"  # what a writer that died has left is written over
    with open(new, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    if os.path.exists(path):
        os.chmod(new, os.stat(path).st_mode & 0o777)
    os.replace(new, path)
