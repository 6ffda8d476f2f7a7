"""What the tests share: comparison within the error bound that the algorithm documents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import triconv as tc


def _fails(actual: np.ndarray, expected: np.ndarray, bound: float) -> np.ndarray:
    """Where the two differ by more than `bound`; a NaN in either fails."""
    return ~(np.abs(actual.astype(np.float64) - expected) <= bound)


@pytest.fixture
def assert_close() -> Callable[..., None]:
    """Compare a result with the oracle's: ``assert_close(actual, expected, scale, problem)``.

    `scale` is the largest sum of |x||w| behind any element (the same convolution of the absolute values); `tolerance`
    is relative to it, by default 1e-5 for float32 and 1e-12 for float64, above what every algorithm documents for the
    small problems compared here (about eps times the condition of a Winograd transform, at most some 100).
    """

    def check(
        actual: np.ndarray,
        expected: np.ndarray,
        scale: float,
        problem: str,
        tolerance: float | None = None,
    ) -> None:
        assert actual.shape == expected.shape, f"{problem}: shape {actual.shape}, expected {expected.shape}"
        if tolerance is None:
            tolerance = 1e-5 if actual.dtype == np.float32 else 1e-12
        wrong = _fails(actual, expected, tolerance * scale)
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            error = np.nanmax(np.abs(actual - expected)) / scale if scale else np.inf
            pytest.fail(
                f"{problem}: {int(wrong.sum())} of {wrong.size} differ, first at {where}: {actual[where]!r}, expected "
                f"{expected[where]!r}; largest error {error:.2g} of the scale, allowed {tolerance:.2g}"
            )

    return check


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def keep_threads():
    """Restore the number of threads after a test that sets it."""
    before = tc.get_num_threads()
    yield
    tc.set_num_threads(before)
