"""Where every policy starts: label, relative logits, the runner-up; and the floor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, floats_of, relative, run, share, share_floats, value_of

from siguard.guard.plan import Plan
from siguard.guard.start import FLOOR, LOGIT_BITS, floored, start
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.nn.model import FloatArray

plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
UNIT = 2.0**-ARGUMENT_BITS


def started(logits: FloatArray, plan: Plan = PLANS["keys"], seed: int = 0) -> tuple[Any, FloatArray, FloatArray]:
    shares = share_floats(logits, LOGIT_BITS, seed)
    results = run(lambda party: start(party, shares[party.role], plan), seed).results
    label = value_of([result.label for result in results])
    x, gap = ([getattr(result, name) for result in results] for name in ("x", "gap"))
    return label, floats_of(x, ARGUMENT_BITS), floats_of(gap, ARGUMENT_BITS)


@plans
@pytest.mark.parametrize("classes", [2, 3, 10, 30])
def test_label_relative_logits_and_runner_up(classes: int, plan: Plan) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(40, classes)) * rng.choice([0.01, 1.0, 30.0, 2000.0], size=(40, 1))
    logits = np.rint(logits * 2.0**LOGIT_BITS) / 2.0**LOGIT_BITS
    label, x, gap = started(logits, plan)
    expected, exact = relative(logits)
    assert label.tolist() == np.eye(classes, dtype=int)[expected].tolist()
    assert np.abs(x - exact).max() <= UNIT
    assert np.abs(gap[:, 0] - np.sort(exact, axis=1)[:, -2]).max() <= UNIT


@plans
def test_ties_take_the_lowest_index_and_2_to_the_minus_24_decides(plan: Plan) -> None:
    unit = 2.0**-LOGIT_BITS
    logits = np.array(
        [[1, 1, 1], [0, 5, 5], [3, 3, 1], [7, 7 + unit, 7], [7 + unit, 7, 7 + unit], [-9, -9 - unit, -9]]
    )
    label, x, gap = started(logits, plan)
    assert label.argmax(1).tolist() == [0, 1, 0, 1, 0, 0]
    assert label.sum(1).tolist() == [1] * 6
    assert np.abs(x).max(axis=1).tolist() == pytest.approx([0, 5, 2, 0, 0, 0], abs=UNIT)
    assert np.abs(gap).max() <= UNIT


@plans
def test_the_floor(plan: Plan) -> None:
    x = np.array([0.0, -1, FLOOR + 1, FLOOR + UNIT, FLOOR, FLOOR - UNIT, FLOOR - 1, -1e3, -1e6, -(2.0**20), 40.0])
    shares = share_floats(x, ARGUMENT_BITS)
    found = floats_of(run(lambda party: floored(party, shares[party.role], plan)).results, ARGUMENT_BITS)
    assert found.tolist() == np.maximum(x, FLOOR).tolist(), "exact"


def test_what_is_dealt_for_the_start_serves_one_row_only() -> None:
    """The same row twice in a batch is masked apart."""
    logits = np.rint(np.random.default_rng(1).normal(size=(1, 5)) * 2.0**LOGIT_BITS).astype(np.int64)
    shares = share(np.concatenate([logits, logits]))
    results = run(lambda party: start(party, shares[party.role], Plan())).results
    for part in (results[0].x.first, results[0].x.second, results[1].x.second):
        assert not (part[0] == part[1]).any()
