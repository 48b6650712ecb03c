"""The null control: holds on the tests as shipped, fails when one of them alarms too often or never."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from siguard.proofsim import gate_tests
from siguard.proofsim.claims import Claim
from siguard.proofsim.rungs import null
from siguard.proofsim.rungs.null import CONFIDENCE, LEVEL, Alarms, experiments
from siguard.proofsim.statistics import POWER, Outcome, holm

PAIRS = 2


def by_test(claims: list[Claim]) -> dict[str, Claim]:
    return {claim.claim.partition("says: ")[2]: claim for claim in claims}


def scaled(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, factor: float) -> None:
    """Let a test report ``factor`` times its p-value."""
    shipped = getattr(module, name)

    def wrong(*arguments: Any, **options: Any) -> Outcome:
        outcome: Outcome = shipped(*arguments, **options)
        return replace(outcome, p_value=min(1.0, outcome.p_value * factor))

    monkeypatch.setattr(module, name, wrong)


def never_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the classifiers out where they are not what is tested: they take nine tenths of the time."""
    never = Outcome(1.0, 0.1, 100, "", "")
    monkeypatch.setattr(null, "distinguish", lambda *arguments, **options: never)


def test_tests_as_shipped_alarm_as_often_as_they_say() -> None:
    claims = list(experiments(1, PAIRS))
    assert len(claims) == 5
    for claim in claims:
        assert claim.holds, claim
        assert (claim.rung, claim.corrupted, claim.cases) == ("null", "S0", 25 * PAIRS)
        assert 0.1 < claim.detectable < 0.5


def test_another_seed_gives_other_views() -> None:
    one, other = (null._world(seed, 0) for seed in (1, 2))
    place = next(iter(one.real(0).received))
    streams = [one.real(0), one.real(1), other.real(0)]
    assert len({bytes(view.received[place][:4].tobytes()) for view in streams}) == 3
    assert np.array_equal(one.real(0).received[place], one.real(0).received[place])


def test_tests_that_alarm_too_often_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled(monkeypatch, gate_tests, "uniformity", 0.1)
    scaled(monkeypatch, gate_tests, "g_test", 0.1)
    scaled(monkeypatch, null, "distinguish", 0.1)
    claims = list(experiments(1, PAIRS))
    assert not any(claim.holds for claim in claims), [claim for claim in claims if claim.holds]
    assert all("alarms in 50 null experiments" in claim.problem for claim in claims)


def test_a_family_at_another_level_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(null, "holm", lambda p_values, alpha: holm(p_values, 5 * alpha))
    never_trained(monkeypatch)
    claims = by_test(list(experiments(1, 3)))
    (family,) = (claim for test, claim in claims.items() if test.startswith("Holm"))
    assert not family.holds
    assert [claim.holds for claim in claims.values()].count(False) == 1


def test_tests_that_never_alarm_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled(monkeypatch, gate_tests, "uniformity", 1e9)
    scaled(monkeypatch, gate_tests, "g_test", 1e9)
    never_trained(monkeypatch)
    claims = by_test(list(experiments(1, 6)))
    silent = {test for test, claim in claims.items() if not claim.holds}
    assert silent == {
        "uniformity of a simulated message",
        "joint bins of two simulated views",
        "joint bins of two real views of one input",
    }
    assert all(claims[test].problem == "0 alarms in 150 null experiments" for test in silent)


@pytest.mark.parametrize("runs", [150, 200, 1000])
def test_the_interval_and_the_detectable_excess_by_hand(runs: int) -> None:
    alarms, tail = Alarms("", exact=True, runs=runs), (1 - CONFIDENCE) / 2
    low, high = int(stats.binom.ppf(tail, runs, LEVEL)), int(stats.binom.isf(tail, runs, LEVEL))
    assert [alarms.holds(count) for count in (low - 1, low, high, high + 1)] == [False, True, True, False]
    assert stats.binom.sf(high, runs, LEVEL + alarms.detectable) == pytest.approx(POWER)
    bound = Alarms("", exact=False, runs=runs)
    assert [bound.holds(count) for count in (0, low - 1, high, high + 1, runs)] == [True, True, True, False, False]


def test_nothing_counted_is_nothing_shown() -> None:
    assert not Alarms("", exact=False).claim().holds
