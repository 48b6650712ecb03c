"""Declared costs against measured ones: every gate of the package, at three sizes, exactly.

Gates are found by walking the package; one that has no entry in `cost_cases.CASES` fails by name.  Rounds are
what a call adds to shares of depth 1 at roles 0 and 1 and 0 at the dealer, which runs ahead.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from math import ceil, log
from typing import Any

import pytest
from cost_cases import CASES, Size, wire
from mpc_helpers import User, run

from siguard.guard import choice, start
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender, can_be_folded
from siguard.guard.lanes import lanes_of
from siguard.guard.plan import Plan
from siguard.guard.policy import POLICIES, policy_cost
from siguard.guard.shape import Shape
from siguard.mpc import arithmetic, compare, gate
from siguard.mpc.gate import Cost, composed, gate_info
from siguard.mpc.party import Party
from siguard.mpc.thresholds import Way
from siguard.nn import shared
from siguard.proofsim.walk import gates_of_the_package
from siguard.ring import Z2, Z64
from siguard.transport.frame import HEADER_BYTES

GATES = {gate.name: (gate.coroutine, gate.info) for gate in gates_of_the_package()}


def measured(protocol: Callable[[Party], Awaitable[Any]], start: int = 1, **options: Any) -> Cost:
    traffic = run(protocol, **options).traffic
    return Cost(
        max(0, traffic.rounds - start), traffic.messages, traffic.bytes_total - traffic.messages * HEADER_BYTES
    )


@pytest.mark.parametrize("name", GATES)
def test_declared_cost_is_the_measured_cost(name: str) -> None:
    assert name in CASES, f"gate {name} has no entry in the table of cost cases"
    (coroutine, info), case = GATES[name], CASES[name]
    assert len(case.sizes) >= 3
    for size in case.sizes:
        # Keys of a user are there for gates that have one.
        found = measured(
            lambda p, size=size: case.call(coroutine, p, *size),  # type: ignore[misc]
            case.start,
            randomness=User().randomness,
        )
        assert found == info.cost(*case.arguments(*size)), f"{name} at size {size}"


def test_the_table_has_no_gates_that_are_gone() -> None:
    assert sorted(CASES) == sorted(GATES)


@pytest.mark.parametrize("name", GATES)
def test_every_gate_states_its_cost(name: str) -> None:
    assert re.search(r"\b[Cc]ost\b", GATES[name][0].__doc__ or ""), (
        f"the docstring of {name} does not state its cost"
    )


@pytest.mark.parametrize("name", GATES)
def test_gates_are_coroutines_under_their_own_names(name: str) -> None:
    coroutine, info = GATES[name]
    assert inspect.iscoroutinefunction(coroutine)
    assert name.endswith(f".{coroutine.__qualname__}")
    assert info.name == coroutine.__qualname__


def test_a_declaration_is_metadata_on_the_coroutine_and_nothing_else() -> None:
    def state() -> dict[str, str]:
        return {name: repr(value) for name, value in vars(gate).items() if isinstance(value, dict | list | set)}

    before = state()

    async def mine() -> None: ...

    declared = gate.gate(cost=lambda: Cost(1), simulator=composed)(mine)
    assert declared is mine
    info = gate_info(mine)
    assert info is not None
    assert info.cost() == Cost(1)
    assert gate_info(gate_info) is None
    assert info.simulator is composed
    assert "mine" not in {found.info.name for found in gates_of_the_package()}
    assert state() == before


def test_costs_add_up() -> None:
    one, other = Cost(2, 3, 100), Cost(5, 1, 7)
    assert one + other == Cost(7, 4, 107)
    assert one * 3 == 3 * one == Cost(6, 9, 300)
    assert one.bytes == 100 + 3 * HEADER_BYTES


# --- what is built of gates -------------------------------------------------------------------------------

CONFIGS = [
    GuardConfig("siguard", outer=1, inner=1),
    GuardConfig("siguard", outer=2, inner=3),
    GuardConfig("siguard", outer=4, inner=2, learning_rate=0.5, c3=0.01),
    GuardConfig("decay", inner=1),
    GuardConfig("decay", inner=4, learning_rate=0.7),
    GuardConfig("linesearch"),
    GuardConfig("label"),
    GuardConfig("none"),
]
SHAPES: list[Size] = [(1, (2, 3, 1)), (2, (5, 9, 4, 1)), (3, (10, 8, 1)), (2, (4, 3, 2, 3, 1))]


def classifier(p: Party, widths: Size) -> SharedDefender:
    """A membership classifier of these widths with weights of 0."""
    shapes = [(n + (layer > 0), m) for layer, (n, m) in enumerate(pairwise(widths))]
    if can_be_folded(widths):
        shapes += [(widths[1], widths[0] * widths[2]), widths[1:3]]
    return SharedDefender([wire(p, *size, depth=0) for size in shapes], [3] * (len(widths) - 1), gradient_bits=5)


PLANS = {
    "keys": Plan(),
    "bit keys": Plan(Way.BIT_KEY, Way.KEY, Way.BIT_KEY),
    "adders": Plan(Way.ADDER, Way.ADDER, Way.ADDER, Way.ADDER, folded=False, joined=False),
    "in turn": Plan(sequential=True),
}
plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)


@plans
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.policy}-{c.outer}-{c.inner}")
@pytest.mark.parametrize(("batch", "shape"), SHAPES)
def test_policies_cost_what_they_declare(config: GuardConfig, batch: int, shape: Size, plan: Plan) -> None:
    protect = POLICIES[config.policy].protect

    def policy(p: Party) -> Awaitable[Any]:
        return protect(p, wire(p, batch, shape[0]), classifier(p, shape), config, plan)

    declared = Shape(batch, shape, [3] * (len(shape) - 1), plan)
    assert measured(policy) == policy_cost(declared, config)


@pytest.mark.parametrize("by", Way)
@pytest.mark.parametrize(("batch", "shape"), [*SHAPES, (2, (4, 6))])
def test_inference_costs_what_it_declares(batch: int, shape: Size, by: Way) -> None:
    def forward(p: Party) -> Awaitable[Any]:
        arrays = [wire(p, *size, depth=0) for n, m in pairwise(shape) for size in ((n, m), (m,))]
        return shared.SharedModel(arrays, 1.0).forward(p, wire(p, batch, shape[0]), 24, by)

    assert measured(forward) == shared.inference_cost(batch, shape, by)


@plans
@pytest.mark.parametrize(("batch", "shape"), SHAPES)
def test_the_start_costs_what_it_declares(batch: int, shape: Size, plan: Plan) -> None:
    classes = shape[0]
    found = measured(lambda p: start.start(p, wire(p, batch, classes), plan))
    assert found == start.start_cost(batch, classes, plan)
    found = measured(lambda p: start.floored(p, wire(p, batch, classes), plan))
    assert found == start.floored_cost(batch * classes, plan)


@pytest.mark.parametrize("outer", [1, 2, 3, 4, 6])
def test_the_choice_costs_what_it_declares(outer: int) -> None:
    lanes = lanes_of(outer)
    found = measured(lambda p: choice.choose(p, wire(p, 5, len(lanes), R=Z2), lanes, outer))
    assert found == choice.choose_cost(5, outer)


def test_a_cold_start_adds_the_first_dealt_frame_to_the_rounds() -> None:
    """From depth 0 everywhere the dealer is not ahead: a gate that deals first waits one round for it."""
    for call, rounds in (
        (lambda p: arithmetic.multiply(p, wire(p, 3, depth=0), wire(p, 3, depth=0)), 1),
        (lambda p: compare.relu(p, wire(p, 3, depth=0)), 1 + 1),
    ):
        assert measured(call, 0).rounds == rounds


@pytest.mark.parametrize("bits", [2, 3, 8, 9, 17, 32, 33, 48, 64])
def test_rounds_are_those_the_docstrings_state(bits: int) -> None:
    adder = 1 + ceil(log(ceil((bits - 1) / 4), 4) - 1e-9)
    cost = {name: info.cost for name, (_, info) in GATES.items()}
    assert cost["boolean.sign_bit"](5, bits).rounds == adder
    for by, rounds in ((Way.KEY, 0), (Way.BIT_KEY, 1), (Way.ADDER, adder)):
        assert cost["thresholds.at_least"](5, bits, 3, 2, Z64, by).rounds == rounds
        assert cost["compare.relu"](5, bits, by).rounds == rounds + 1
        assert cost["compare.win_counts"](2, 5, bits, by).rounds == rounds + 1
        if by is not Way.KEY:
            assert cost["thresholds.bits_at_least"](5, bits, 3, by).rounds == rounds


@pytest.mark.parametrize("outer", [1, 3])
@pytest.mark.parametrize(("widths", "step"), [((10, 16, 1), 9), ((10, 128, 64, 1), 9), ((10, 9, 8, 7, 1), 17)])
def test_a_step_takes_nine_rounds_whatever_the_lanes(widths: Size, step: int, outer: int) -> None:
    """With one hidden layer or two; a third is two rounds forth and, with what is not folded, six back."""
    shape = Shape(5, widths, [3] * (len(widths) - 1), Plan())
    rounds = [policy_cost(shape, GuardConfig(outer=outer, inner=inner)).rounds for inner in (6, 7, 8)]
    assert rounds[2] - rounds[1] == rounds[1] - rounds[0] == step, rounds


def test_an_h_too_wide_to_be_folded_is_not_declared_as_folded() -> None:
    wide = Shape(2, (10, 512, 512, 1), [3, 3, 3], Plan())
    assert not can_be_folded(wide.widths)
    config = GuardConfig(outer=1, inner=2)
    assert policy_cost(wide, config) == policy_cost(wide._replace(plan=Plan(folded=False)), config)
