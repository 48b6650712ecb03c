"""Which plan a guard runs with: from public sizes, the links and stored costs of the servers' own work.

The client of a session plans, and every server runs the plan that came with the request.  Nothing secret enters,
and nothing is measured, so the same call has the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from itertools import cycle, product
from typing import Any

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import can_be_folded
from siguard.guard.local_costs import LocalCosts, shipped_costs
from siguard.guard.plan import SWITCHES, WAYS, Plan
from siguard.guard.policy import ALL_CHOICES, POLICIES, policy_cost
from siguard.guard.shape import Shape
from siguard.mpc.gate import Cost
from siguard.mpc.thresholds import Way


@dataclass(frozen=True)
class Conditions:
    """Of the links between servers, as a plan is chosen for them: seconds one way, bytes a second on one link."""

    one_way_seconds: float = 0.0
    bytes_per_second: float = 1e9


@dataclass(frozen=True)
class Planned:
    """A plan with what it is declared to cost: rounds up to the answer, bytes of all links, predicted seconds."""

    plan: Plan
    rounds: int
    bytes: int
    seconds: float


#: Rounds of a call beyond the policy: request, input, reveal.
_OTHER_ROUNDS = 3
_FEW, _BYTES = Plan(), Plan(Way.ADDER, Way.ADDER, Way.ADDER, folded=False, joined=False, sequential=True)

#: What a plan is chosen by: the least is best.
Rank = Callable[[Planned], tuple[float, ...]]


def plan_for(config: GuardConfig, shape: Shape, conditions: Conditions, local: LocalCosts | None = None) -> Planned:
    """The plan that ``config.rounds`` asks for; that of ``shape`` is not looked at.

    ``few``: fewest rounds, then fewest bytes; with ``config.max_bytes`` among plans of at most so many.
    ``bytes``: fewest bytes, then fewest rounds.  ``auto``: fewest predicted seconds, with the ``local`` costs.
    Raises `InputError` when no plan stays within ``max_bytes``.
    """
    local = shipped_costs() if local is None else local
    sizes = (shape.batch, tuple(shape.widths), tuple(shape.magnitude_bits))
    # Equal configurations may differ in these two.
    return _chosen(config, config.rounds, config.max_bytes, *sizes, conditions, local)


def plans_of(policy: str, widths: Sequence[int]) -> list[Plan]:
    """All plans that a policy tells apart, for h of these widths."""
    choices = [_values(policy, name, widths) for name in ALL_CHOICES]
    return list(dict.fromkeys(_settled(policy, Plan(*choice), widths) for choice in product(*choices)))


@lru_cache(maxsize=256)
def _chosen(
    config: GuardConfig,
    mode: str,
    most: int | None,
    batch: int,
    widths: tuple[int, ...],
    magnitude_bits: tuple[int, ...],
    conditions: Conditions,
    local: LocalCosts,
) -> Planned:
    @cache
    def planned(plan: Plan) -> Planned:
        cost = policy_cost(Shape(batch, widths, magnitude_bits, plan), config)
        rounds = cost.rounds + _OTHER_ROUNDS
        return Planned(plan, rounds, cost.bytes, _seconds(cost, rounds, conditions, local))

    names = POLICIES[config.policy].choices

    def search(start: Plan, rank: Rank, names: Sequence[str] = names) -> Planned:
        return _search(config.policy, widths, planned, start, rank, names)

    if most is not None:
        found = [planned(plan) for plan in plans_of(config.policy, widths)]
        within = [one for one in found if one.bytes <= most]
        if not within:
            least = min(one.bytes for one in found)
            raise InputError(
                f"max_bytes: found {most}; policy {config.policy!r} with {batch} row(s) takes at least {least}"
            )
        return min(within, key=_by_rounds)
    if mode == "few":
        return search(_FEW, _by_rounds)
    if mode == "bytes":
        return search(_BYTES, lambda one: (one.bytes, one.rounds))
    # Outer runs side by side and one after another have little in common.
    within_either = [name for name in names if name != "sequential"]
    found = [search(_FEW, _by_seconds, within_either)]
    if "sequential" in names:
        found.append(search(replace(found[0].plan, sequential=True), _by_seconds, within_either))
    return min(found, key=_by_seconds)


def _by_rounds(one: Planned) -> tuple[float, ...]:
    return one.rounds, one.bytes


def _by_seconds(one: Planned) -> tuple[float, ...]:
    return one.seconds, one.rounds, one.bytes


def _search(
    policy: str,
    widths: Sequence[int],
    planned: Callable[[Plan], Planned],
    start: Plan,
    rank: Rank,
    names: Sequence[str],
) -> Planned:
    """A plan that no other value of one of the choices ``names`` makes better, found from ``start`` on.

    Bytes and work are sums over the choices and so have one such plan, the best; rounds are nearly so.  To look at
    all plans takes five to ten times as long.
    """
    best = planned(_settled(policy, start, widths))
    unchanged = 0
    for name in cycle(names):
        others = [replace(best.plan, **{name: value}) for value in _values(policy, name, widths)]
        found = min((planned(_settled(policy, plan, widths)) for plan in others), key=rank)
        unchanged = 0 if rank(found) < rank(best) else unchanged + 1
        best = min(best, found, key=rank)
        if unchanged == len(names):
            break
    return best


def _values(policy: str, name: str, widths: Sequence[int]) -> tuple[Any, ...]:
    if name not in POLICIES[policy].choices:
        return (getattr(_FEW, name),)
    if name in WAYS:
        return tuple(Way)
    return (True, False) if name != "folded" or can_be_folded(widths) else (False,)


def _settled(policy: str, plan: Plan, widths: Sequence[int]) -> Plan:
    """The plan with one value for what the policy does not look at: ways as ``direct``, for the target's ReLUs."""
    used = POLICIES[policy].choices
    ways: dict[str, Any] = {name: getattr(plan, name if name in used else "direct") for name in WAYS}
    switches: dict[str, Any] = {name: getattr(plan, name) and name in used for name in SWITCHES}
    switches["folded"] = switches["folded"] and can_be_folded(widths)
    return Plan(**ways, **switches)


def _seconds(cost: Cost, rounds: int, conditions: Conditions, local: LocalCosts) -> float:
    """Predicted: the chain of rounds, the bytes of the busiest link, and the work of all servers.

    Of four links in use (both ways between roles 0 and 1, dealer to each) the busiest carries less than half.
    """
    network = rounds * conditions.one_way_seconds + cost.bytes / 2 / conditions.bytes_per_second
    return network + local.seconds(cost)
