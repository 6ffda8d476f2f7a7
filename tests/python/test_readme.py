"""README.md keeps its promises: its Python blocks run and print what they say, its links lead somewhere.

The programs in C and C++ that it and docs/cpp.md quote are those of examples/cpp, which the C++ tests compile and run.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def marked_block(name: str) -> str:
    """The fenced block right behind ``<!-- ci: name -->``, which .ci/run takes its command from."""
    found = re.search(rf"^<!-- ci: {name} -->\n```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no block marked ci: {name}"
    return found[1].strip()


@pytest.mark.parametrize("snippet", SNIPPETS, ids=[f"block{i}" for i in range(len(SNIPPETS))])
def test_python_block_runs_and_prints_what_it_says(snippet, keep_threads):
    """A line ``print(...)  # text`` must print that text. Each block starts from nothing but its own imports."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, str(README), "exec"), {"__name__": "readme"})
    promised = re.findall(r"^ *print\(.*\)  # (.+)$", snippet, re.MULTILINE)
    output = printed.getvalue().splitlines()
    for text in promised:
        assert text in output


def test_there_are_seven_python_blocks():
    assert len(SNIPPETS) == 7


def test_the_two_commands():
    assert marked_block("example") == 'pip install ".[examples]" && python examples/train_digits.py'
    assert marked_block("test") == 'pip install ".[test]" && pytest tests/python'


def test_quoted_programs_are_the_examples():
    root, quoted = README.parent, set()
    for page in (README, root / "docs/cpp.md"):
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^<!-- (examples/cpp/\S+) -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert len(blocks) == len(re.findall(r"^```c(?:pp)?$", text, re.MULTILINE)), page
        for name, program in blocks:
            assert program == (root / name).read_text(encoding="utf-8"), f"{page} and {name} differ"
            quoted.add(root / name)
    assert quoted == set((root / "examples/cpp").iterdir())


def test_local_links_lead_to_files():
    root = README.parent
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", TEXT)
    assert targets
    for target in targets:
        # The tests also run beside a copy of README.md, docs/, examples/ and bench/ without the sources.
        if target.partition("/")[0] in ("docs", "examples", "bench"):
            assert (root / target).exists(), target
