"""Fixtures that the tests share."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import triconv as tc


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture(scope="session")
def load_example() -> Callable[[str], ModuleType]:
    """The program of this name in examples/, as a module."""

    def load(name: str) -> ModuleType:
        path = Path(__file__).parents[2] / "examples" / f"{name}.py"
        specification = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module  # dataclasses look their module up
        specification.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def keep_threads():
    """Restore the number of threads after a test that sets it."""
    before = tc.get_num_threads()
    yield
    tc.set_num_threads(before)
