"""The simulation rung: holds on the code as shipped, and fails when a mask, a simulator or an address is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio

from siguard.mpc.gate import composed
from siguard.proofsim.claims import CORRUPTED_SETS, Claim, Corrupted, Scope
from siguard.proofsim.controls import CONTROLS
from siguard.proofsim.gate_samples import GateSample, samples
from siguard.proofsim.gate_tests import Comparison, compare, decide
from siguard.proofsim.gate_views import GateView, Place
from siguard.proofsim.gate_worlds import GateWorld
from siguard.proofsim.rungs import simulation
from siguard.proofsim.schedules import run_branches, schedule_claims, task_order
from siguard.proofsim.simulation import around_gates
from siguard.proofsim.statistics import Outcome
from siguard.proofsim.walk import gates_of_the_package
from siguard.ring import Z64

BY_NAME = {one.name: one for one in CONTROLS}
SAMPLES = {one.name.partition(",")[0]: one for one in samples()}


def failed(claims: list[Claim]) -> list[Claim]:
    return [claim for claim in claims if not claim.holds]


def compared(world: GateWorld, corrupted: str, level: float = 1e-7) -> list[Claim]:
    return list(decide(list(compare(world, [Corrupted.parse(corrupted)])), level))


# As shipped -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_the_battery_holds(seed: int) -> None:
    claims = list(simulation.battery(seed))
    assert failed(claims) == [], f"seed {seed}"
    assert all(claim.rung == "simulation" and claim.cases > 0 for claim in claims)
    assert len({(claim.claim, claim.corrupted) for claim in claims}) == len(claims)
    silent = {(claim.claim, claim.corrupted) for claim in claims if "alike" in claim.claim and not claim.detectable}
    # That a role receives nothing is exact: the dealer never does, and what it deals goes to role 1 only.
    without_user = [one.name for one in samples() if one.user_ring is None]
    dealt = [one for one in without_user if one.startswith("deal")]
    assert silent == {
        (f"real and simulated messages alike: {name}", server)
        for server, names in (("S2", without_user), ("S0", dealt))
        for name in names
    }
    assert max(claim.detectable for claim in claims) < 0.3


def test_every_gate_with_messages_of_its_own_is_sampled() -> None:
    seen: set[str] = set()
    with around_gates(after=lambda gate, party, arguments, result: seen.add(gate.name)):
        for sample in samples():
            assert GateWorld(sample, 64, 1).real().right.all(), sample.name
    assert seen >= {gate.name for gate in gates_of_the_package() if gate.info.simulator is not composed}


def test_a_check_has_the_sets_of_its_scope_and_every_dealer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "samples", lambda: (SAMPLES["remask"], SAMPLES["input"]))
    monkeypatch.setattr(simulation, "schedule_claims", lambda seed, orders: [])
    scope = Scope(("label",), tuple(map(Corrupted.parse, ("S1,U", "U"))), full=True, seed=4)
    claims = list(simulation.check(scope))
    assert failed(claims) == []
    alike = {(claim.claim.partition(": ")[2], claim.corrupted) for claim in claims if "alike" in claim.claim}
    dealers = ("", ", dealer S0", ", dealer S1")
    assert alike == {
        (f"{what}, 2^64{dealer}", one)
        for dealer in dealers
        for what, one in (
            ("remask", "S1"),
            ("input, product and reveal", "S1,U"),
            ("input, product and reveal", "U"),
        )
    }


# Broken on purpose ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "claim", "problem"),
    [
        ("masks shorter than the ring", "alike: deal", "top 7 bits"),
        ("masks from floating point", "alike: deal of a bit", "low 7 bits"),
        ("reveal without its mask", "alike: input, product and reveal", "> user at reveal: joint with S2's"),
        ("randomness addressed by call order", "order of tasks", "must draw alike"),
    ],
)
def test_a_control_of_this_rung_is_caught(name: str, claim: str, problem: str) -> None:
    assert BY_NAME[name].expected_rung == "simulation"
    with BY_NAME[name].patch():
        found = failed(list(simulation.battery(1)))
    assert any(claim in one.claim and problem in one.problem for one in found), found


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("constant mask", "remask"),
        ("product without its zero share", "open_additive of a product"),
        ("dealt value without its mask", "deal_wire"),
        ("mask with one random bit per byte", "view in full"),
    ],
)
def test_a_missing_mask_shows_at_its_gate(name: str, sample: str) -> None:
    world = GateWorld(SAMPLES[sample], 2048, 1)
    assert failed(compared(world, "S1")) == []
    with BY_NAME[name].patch():
        assert "S1" in [one.corrupted for one in failed(compared(world, "S1"))]


class Tampered(GateWorld):
    """Another simulator: what it makes is changed afterwards."""

    def __init__(self, sample: GateSample, change: Callable[[GateView, Place], Any]) -> None:
        super().__init__(sample, 2048, 1)
        self._change = change

    def simulated(self, corrupted: Corrupted, number: int = 0) -> GateView:
        view = super().simulated(corrupted, number)
        for place in list(view.received):
            self._change(view, place)
        return view


def _copies_what_is_held(view: GateView, place: Place) -> None:
    view.received[place] = view.beside(place, ["S0"])[0].array


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda view, place: view.received.pop(place), "no simulator makes S1 > S0 at remask"),
        (
            lambda view, place: view.received.update({("S2", "S0", place[2]): view.received[place]}),
            "only the simulator makes S2 > S0 at remask",
        ),
        (
            lambda view, place: view.layouts.update({place: [(Z64, (7,))]}),
            "16384 bytes where the simulator made 56",
        ),
        (_copies_what_is_held, "joint with S0's wire0.first"),
        (lambda view, place: view.own.clear(), "what is held beside it differs"),
    ],
)
def test_a_simulator_that_is_wrong_shows(change: Callable[[GateView, Place], Any], problem: str) -> None:
    (claim,) = failed(compared(Tampered(SAMPLES["remask"], change), "S0"))
    assert problem in claim.problem


def test_a_message_that_nobody_simulates_ends_the_simulated_run() -> None:
    with BY_NAME["wraps of a truncation opened"].patch():
        (claim,) = failed(compared(GateWorld(SAMPLES["view in full"], 2048, 1), "S0"))
    assert "the simulated run ends with DeadlineError" in claim.problem


def test_wrong_values_show() -> None:
    sample = replace(SAMPLES["remask"], right=lambda values, outputs: outputs[0] == Z64.constant(values[0] | 1))
    (claim,) = failed(compared(GateWorld(sample, 512, 1), "S2"))
    assert claim.claim == "right values: remask, 2^64"
    assert claim.problem.endswith("of 512 values are wrong")


# The family -------------------------------------------------------------------------------------------------


def test_too_little_data_fails() -> None:
    found = failed(compared(GateWorld(SAMPLES["remask"], 64, 1), "S0"))
    assert "64 elements: total variation below" in found[0].problem


def test_all_tests_are_one_family() -> None:
    levels: list[float] = []

    def test(p_value: float) -> tuple[str, Callable[[float], Outcome]]:
        def run(alpha: float) -> Outcome:
            levels.append(alpha)
            return Outcome(p_value, 0.2 * p_value, 10, "top bits", "")

        return f"of {p_value}", run

    comparisons = [Comparison("one", "S0", 3, tests=[test(0.004)] * 5), Comparison("none", "S1", 3)]
    assert [claim.holds for claim in decide(comparisons, 0.01)] == [True, True]
    assert levels == [0.002] * 5
    comparisons.append(Comparison("two", "S2", 3, tests=[test(0.001), test(0.9)]))
    claims = list(decide(comparisons, 0.01))
    assert [(claim.holds, claim.detectable) for claim in claims] == [
        (True, pytest.approx(0.0008)),
        (True, 0.0),
        (False, pytest.approx(0.18)),
    ]
    assert claims[2].problem == "of 0.001: p 1.0e-03, top bits"


# Schedules --------------------------------------------------------------------------------------------------


def test_task_order_is_a_seed_and_is_put_back() -> None:
    scheduler = trio._core._run
    before = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    with pytest.raises(ZeroDivisionError), task_order(3):
        raise ZeroDivisionError
    assert (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before
    orders = [tuple(run_branches(1, order).draws) for order in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_orders_that_do_not_differ_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    same = run_branches(1, 0)
    monkeypatch.setattr("siguard.proofsim.schedules.run_branches", lambda *arguments: same)
    order, streams = schedule_claims(1, 3)
    assert order.problem == "the orders of draws do not differ: this shows nothing"
    assert streams.holds


@pytest.mark.parametrize(
    "name",
    [
        "mask used in two steps",
        "two purposes at one address",
        "loop index not part of the address",
        "one address in two sessions",
        "role-free addresses after the dealer rotates",
        "one key for all pairs",
    ],
)
def test_a_stream_at_two_addresses_shows(name: str) -> None:
    with BY_NAME[name].patch():
        *_, streams = schedule_claims(1, 1)
    assert not streams.holds
    assert " draws what " in streams.problem


def test_every_set_has_a_simulated_view_of_a_query() -> None:
    world = GateWorld(SAMPLES["input"], 2048, 3)
    real = world.real()
    for corrupted in CORRUPTED_SETS:
        made = world.simulated(corrupted)
        for (sender, receiver, _), message in made.received.items():
            assert receiver in corrupted.parties
            assert message.shape == (2048,)
            assert sender == "user" or not np.array_equal(message, real.received[sender, receiver, _])
