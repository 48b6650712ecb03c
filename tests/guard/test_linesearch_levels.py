"""The levels of `linesearch`: the label's confidences that are tried, raised so that it stays the largest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, floats_of, run, share_floats

from siguard.guard.config import LINESEARCH_CANDIDATES, LINESEARCH_MARGIN
from siguard.guard.plan import Plan
from siguard.guard.policies.linesearch import K, level_pieces, levels
from siguard.ring import FRACTION_BITS


def exact(W: Any) -> Any:
    """c'_k and c'_k W."""
    raised = np.maximum(np.array(LINESEARCH_CANDIDATES), LINESEARCH_MARGIN / (1 + W)[:, None])
    return np.concatenate([raised, raised * W[:, None]], axis=1)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_levels_are_near_and_never_below(plan: Plan) -> None:
    """W from 1, all of the rest in one class, to 2^12; a candidate that is not raised is exact."""
    W = np.unique(np.concatenate([np.linspace(1, 4, 300), np.geomspace(4, 4096, 100)]))
    W = np.rint(W * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS
    shares = share_floats(W[:, None], FRACTION_BITS)
    found = floats_of(run(lambda party: levels(party, shares[party.role], plan)).results, FRACTION_BITS)
    expected = exact(W)
    c, cW = found[:, :K], found[:, K:]
    assert np.abs(c - expected[:, :K]).max() < 1e-4, "chords of 1 / (1 + W) lie above it"
    assert (c - expected[:, :K]).min() > -(2.0**-FRACTION_BITS) * 2
    free = np.array(LINESEARCH_CANDIDATES) > LINESEARCH_MARGIN / (1 + W)[:, None] + 1e-9
    assert np.abs(c - expected[:, :K])[free].max() < 2.0 ** (1 - FRACTION_BITS)
    # Between neighbouring knots c' W is a chord of its own; beyond the last it has slope c.
    assert (np.abs(cW - expected[:, K:]) / (1 + W[:, None])).max() < 1e-3
    assert (cW >= LINESEARCH_MARGIN * W[:, None] / (1 + W[:, None]) - 1e-3).all(), "the label stays"


def test_thresholds_hold_every_kink() -> None:
    thresholds, constants, slopes = level_pieces()
    assert (np.diff(thresholds) > 0).all()
    assert constants.shape == slopes.shape == (len(thresholds) + 1, 2 * K)
    kinks = [LINESEARCH_MARGIN / c - 1 for c in LINESEARCH_CANDIDATES if c < LINESEARCH_MARGIN / 2]
    for kink in kinks:
        assert np.abs(thresholds / 2**12 - kink).min() <= 2.0**-12
