"""Step functions: exact against `numpy.searchsorted`; the inverse root within its stated error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import run, share, share_opened, signed_of

from siguard.guard.optimisation import _NEWTON
from siguard.mpc.steps import inverse_root_steps, step_function
from siguard.ring import Z64, Ring, ring

FEW = settings(deadline=None, max_examples=8, derandomize=True)
seeds = st.integers(0, 2**32)


def steps(wires: Any, thresholds: Any, values: Any, seed: int = 0) -> Any:
    results = run(lambda party: step_function(party, wires[party.role], thresholds, values), seed=seed).results
    assert results[0].ring == Z64
    return signed_of(results)


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("R", [ring(8), ring(32), Z64], ids=repr)
@FEW
@given(seed=seeds, count=st.integers(1, 30))
def test_steps_are_exact(R: Ring, opened: bool, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # Differences of numbers below a quarter of the ring stay inside it.
    quarter = 1 << (R.bits - 2)
    thresholds = np.unique(rng.integers(-quarter, quarter, count))
    values = rng.integers(-(2**62), 2**62, len(thresholds) + 1)
    x = np.concatenate([rng.integers(-quarter, quarter, 10), thresholds, thresholds - 1])[:, None]
    wires: Any = share_opened(x, R, seed=seed) if opened else share(x, R, seed=seed)
    expected = values[np.searchsorted(thresholds, x, side="right")]
    np.testing.assert_array_equal(steps(wires, thresholds, values, seed), expected, err_msg=f"seed {seed}")


@pytest.mark.parametrize("opened", [False, True])
def test_steps_of_higher_axes(opened: bool) -> None:
    thresholds, values = np.array([-5, 0, 7]), np.array([10, 20, 30, 40])
    x = np.array([-6, -5, -1, 0, 6, 7, 8, 100]).reshape(2, 1, 4, 1)
    wires: Any = share_opened(x) if opened else share(x)
    assert steps(wires, thresholds, values).ravel().tolist() == [10, 20, 20, 30, 30, 40, 40, 40]


ROOTS = [(-14, 36, 26, 24), (-2, 3, 16, 16), (0, 20, 10, 24)]


@pytest.mark.parametrize(("low", "high", "scale", "result"), ROOTS)
def test_the_inverse_root_is_within_its_bound(low: int, high: int, scale: int, result: int) -> None:
    thresholds, values = inverse_root_steps(low, high, scale, result)
    assert (np.diff(thresholds) > 0).all()
    assert (np.diff(values) < 0).all()
    assert len(values) == len(thresholds) + 1
    v = np.rint(2.0 ** (np.linspace(low, high, 4001) + scale)).astype(np.int64)
    root = values[np.searchsorted(thresholds, v, side="right")] / 2.0**result
    true = (v / 2.0**scale) ** -0.5
    # 4.4 %, and the rounding of thresholds and values to whole numbers.
    rounding = 0.5 / (true * 2.0**result) + 0.25 / v
    assert (np.abs(root / true - 1) <= 0.0443 + rounding).all()


def test_one_newton_step_takes_the_inverse_root_to_its_bound() -> None:
    """As `siguard.guard.optimisation` takes it, with its constant."""
    ratio = np.linspace(2.0 ** (-1 / 16), 2.0 ** (1 / 16), 1001)
    refined = ratio * (_NEWTON - 0.5 * ratio**2)
    assert np.abs(refined - 1).max() <= 0.0015


def test_the_inverse_root_saturates_outside_its_range() -> None:
    thresholds, values = inverse_root_steps(-2, 3, 16, 16)
    x = np.array([0, 1, thresholds[0] - 1, thresholds[-1], 2**40, 2**61])[:, None]
    found = steps(share(x), thresholds, values).ravel()
    assert found.tolist() == [values[0]] * 3 + [values[-1]] * 3


def test_the_inverse_root_under_mpc_is_the_table() -> None:
    thresholds, values = inverse_root_steps(-14, 36, 26, 24)
    v = np.rint(2.0 ** np.random.default_rng(2).uniform(12, 61, 20)).astype(np.int64)[:, None]
    expected = values[np.searchsorted(thresholds, v, side="right")]
    np.testing.assert_array_equal(steps(share_opened(v), thresholds, values), expected)
