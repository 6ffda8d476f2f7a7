"""Fixtures that the tests share."""

from __future__ import annotations

import numpy as np
import pytest
import triconv as tc


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def keep_threads():
    """Restore the number of threads after a test that sets it."""
    before = tc.get_num_threads()
    yield
    tc.set_num_threads(before)
