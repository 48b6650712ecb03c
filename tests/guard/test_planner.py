"""Which plan is chosen: what was asked for, from public sizes and the links alone."""

from __future__ import annotations

from itertools import product

import pytest

from siguard import GuardConfig, InputError
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, Planned, plan_for
from siguard.guard.policy import policy_cost
from siguard.guard.shape import Shape
from siguard.mpc.thresholds import Way

POLICIES = ["siguard", "decay", "linesearch", "label", "none"]
policies = pytest.mark.parametrize("policy", POLICIES)
MEMORY = Conditions(one_way_seconds=3e-5, bytes_per_second=5e9)
WAN = Conditions(one_way_seconds=2e-2, bytes_per_second=12.5e6)


def shape(batch: int = 1, widths: tuple[int, ...] = (10, 24, 12, 1)) -> Shape:
    return Shape(batch, widths, [3] * (len(widths) - 1), Plan())


def chosen(policy: str, rounds: str, conditions: Conditions = WAN, batch: int = 1, **more: int) -> Planned:
    return plan_for(GuardConfig(policy, rounds=rounds, **more), shape(batch), conditions)


@policies
def test_few_has_the_fewest_rounds_and_bytes_the_fewest_bytes(policy: str) -> None:
    few, least, auto = (chosen(policy, mode) for mode in ("few", "bytes", "auto"))
    assert few.rounds <= min(least.rounds, auto.rounds)
    assert least.bytes <= min(few.bytes, auto.bytes)
    assert auto.seconds <= min(few.seconds, least.seconds)
    # No plan of one's own is better.
    config = GuardConfig(policy)
    for by, curves, joined in product(Way, Way, (True, False)):
        plan = Plan(by, by, by, curves, folded=joined, joined=joined)
        own = policy_cost(shape()._replace(plan=plan), config)
        assert few.rounds <= own.rounds + 3
        assert least.bytes <= own.bytes


@policies
def test_what_is_planned_is_what_is_declared(policy: str) -> None:
    for mode in ("few", "bytes", "auto"):
        planned = chosen(policy, mode, batch=3)
        cost = policy_cost(shape(3)._replace(plan=planned.plan), GuardConfig(policy))
        assert (planned.rounds, planned.bytes) == (cost.rounds + 3, cost.bytes)


@pytest.mark.parametrize("policy", POLICIES[:3])
def test_fewer_bytes_never_mean_fewer_rounds(policy: str) -> None:
    few, least = chosen(policy, "few"), chosen(policy, "bytes")
    assert few.rounds < least.rounds
    rounds = []
    for part in range(11):
        most = least.bytes + (few.bytes - least.bytes) * part // 10
        planned = chosen(policy, "few", max_bytes=most)
        assert planned.bytes <= most
        rounds.append(planned.rounds)
    assert rounds == sorted(rounds, reverse=True)
    assert (rounds[0], rounds[-1]) == (least.rounds, few.rounds)
    assert len(set(rounds)) > 2, "and there is something between"
    assert chosen(policy, "few", max_bytes=10 * few.bytes) == few


@policies
def test_too_few_bytes_are_refused_with_the_least(policy: str) -> None:
    least = chosen(policy, "bytes", batch=4).bytes
    assert chosen(policy, "few", batch=4, max_bytes=least).bytes == least
    with pytest.raises(InputError, match=rf"^max_bytes: found {least - 1}; policy '{policy}' .* at least {least}$"):
        chosen(policy, "few", batch=4, max_bytes=least - 1)


@policies
@pytest.mark.parametrize("mode", ["few", "bytes"])
def test_the_links_do_not_matter_where_the_caller_decides(policy: str, mode: str) -> None:
    assert chosen(policy, mode, MEMORY).plan == chosen(policy, mode, WAN).plan


@policies
def test_the_same_call_has_the_same_plan(policy: str) -> None:
    assert len({chosen(policy, "auto", WAN, 7).plan for _ in range(3)}) == 1
    named = plan_for(GuardConfig(policy), shape(7)._replace(plan=Plan(Way.ADDER, Way.ADDER, Way.ADDER)), WAN)
    assert named == chosen(policy, "auto", WAN, 7), "the plan of the shape is not looked at"


@pytest.mark.parametrize("policy", POLICIES[:3])
def test_slow_links_get_fewer_rounds(policy: str) -> None:
    """Rounds fall with latency; at the latency of a continent they are the fewest, for one row."""
    found = [
        chosen(policy, "auto", Conditions(one_way_seconds=latency, bytes_per_second=1e9))
        for latency in (0.0, 1e-4, 1e-3, 1e-2, 0.1)
    ]
    rounds = [planned.rounds for planned in found]
    assert rounds == sorted(rounds, reverse=True), rounds
    assert rounds[-1] == chosen(policy, "few").rounds < rounds[0]
    assert found[-1].seconds > found[0].seconds


@pytest.mark.parametrize("policy", POLICIES[:3])
def test_narrow_links_get_fewer_bytes(policy: str) -> None:
    found = [
        chosen(policy, "auto", Conditions(one_way_seconds=1e-3, bytes_per_second=rate), batch=1).bytes
        for rate in (1e10, 1e8, 1e6, 1e4, 1e2)
    ]
    assert found == sorted(found, reverse=True), found
    assert found[-1] == chosen(policy, "bytes", batch=1).bytes < found[0]


def test_one_hidden_layer_and_three_are_not_folded() -> None:
    for widths, folded in (((10, 8, 1), False), ((10, 8, 6, 1), True), ((10, 8, 6, 4, 1), False)):
        planned = plan_for(GuardConfig("decay", rounds="few"), shape(widths=widths), WAN)
        assert planned.plan.folded == folded, widths
