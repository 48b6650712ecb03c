"""Declared costs against measured ones: every gate of the package, at three sizes, exactly.

Gates are found by walking the package; one that has no entry in `cost_cases.CASES` fails by name.  Rounds are
what a call adds to shares of depth 1 at roles 0 and 1 and 0 at the dealer, which runs ahead.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from math import ceil, log2
from typing import Any

import pytest
from cost_cases import CASES, Size, classifier, wire
from mpc_helpers import User, run

from siguard.guard import relative, validation
from siguard.guard.config import GuardConfig
from siguard.guard.lanes import lanes_of
from siguard.guard.optimisation_cost import optimise_cost
from siguard.guard.policy import POLICIES, policy_cost
from siguard.mpc import arithmetic, compare, gate
from siguard.mpc.gate import Cost, composed, gate_info
from siguard.mpc.party import Party
from siguard.nn import shared
from siguard.proofsim.walk import gates_of_the_package
from siguard.ring import Z2
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
    assert one.beside(other) == Cost(5, 4, 107)
    assert one * 3 == 3 * one == Cost(6, 9, 300)
    assert one.bytes == 100 + 3 * HEADER_BYTES


# --- what is built of gates -------------------------------------------------------------------------------

CONFIGS = [
    GuardConfig("siguard", outer=1, inner=1),
    GuardConfig("siguard", outer=2, inner=3),
    GuardConfig("siguard", outer=4, inner=2, learning_rate=0.5, c3=0.01),
    GuardConfig("linesearch"),
    GuardConfig("label"),
    GuardConfig("none"),
]
SHAPES: list[Size] = [(1, (2, 3, 1)), (2, (5, 9, 4, 1)), (3, (10, 8, 1))]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.policy}-{c.outer}-{c.inner}")
@pytest.mark.parametrize(("batch", "shape"), SHAPES)
def test_policies_cost_what_they_declare(config: GuardConfig, batch: int, shape: Size) -> None:
    protect = POLICIES[config.policy].protect
    found = measured(lambda p: protect(p, wire(p, batch, shape[0]), classifier(p, shape), config))
    assert found == policy_cost(batch, shape, config)


@pytest.mark.parametrize(("batch", "shape"), [*SHAPES, (2, (4, 6))])
def test_inference_costs_what_it_declares(batch: int, shape: Size) -> None:
    def forward(p: Party) -> Awaitable[Any]:
        arrays = [wire(p, *size, depth=0) for n, m in pairwise(shape) for size in ((n, m), (m,))]
        return shared.SharedModel(arrays, 1.0).forward(p, wire(p, batch, shape[0]), 24)

    assert measured(forward) == shared.inference_cost(batch, shape)


@pytest.mark.parametrize(("batch", "shape"), SHAPES)
def test_relative_logits_cost_what_they_declare(batch: int, shape: Size) -> None:
    classes = shape[0]
    found = measured(lambda p: relative.label_one_hot(p, wire(p, batch, classes)))
    assert found == relative.label_cost(batch, classes)
    found = measured(lambda p: relative.relative_logits(p, wire(p, batch, classes)))
    assert found == relative.relative_cost(batch, classes)


@pytest.mark.parametrize("outer", [1, 2, 3, 4, 6])
def test_the_choice_costs_what_it_declares(outer: int) -> None:
    lanes = lanes_of(outer)
    found = measured(lambda p: validation.choose(p, wire(p, 5, len(lanes), R=Z2), lanes, outer))
    assert found == validation.choose_cost(5, outer)


def test_a_cold_start_adds_the_first_dealt_frame_to_the_rounds() -> None:
    """From depth 0 everywhere the dealer is not ahead: a gate that deals first waits one round for it."""
    for call, rounds in (
        (lambda p: arithmetic.multiply(p, wire(p, 3, depth=0), wire(p, 3, depth=0)), 1),
        (lambda p: compare.is_negative(p, wire(p, 3, depth=0)), 7 + 1),
    ):
        assert measured(call, 0).rounds == rounds


@pytest.mark.parametrize("bits", [2, 3, 8, 9, 17, 32, 33, 48, 64])
def test_rounds_are_those_the_docstrings_state(bits: int) -> None:
    sign = 1 + ceil(log2(bits - 1))
    stated = {
        "boolean.sign_bit": (sign, (5, bits)),
        "compare.relu": (1 + sign, (5, bits, 8)),
        "compare.win_counts": (sign + 1, (2, 5, bits)),
        "compare.one_hot_ranks": (sign + 2, (2, 5, bits, 1)),
        "compare.maximum": (sign + 3, (2, 5, bits)),
        "steps.step_function": (sign + 1, (5, 4, bits)),
    }
    for name, (rounds, arguments) in stated.items():
        assert GATES[name][1].cost(*arguments).rounds == rounds, name


def test_rounds_of_the_optimisation_are_39_a_step_whatever_the_lanes() -> None:
    for outer in (1, 3):
        config, lanes = GuardConfig("siguard", outer=outer, inner=7), lanes_of(outer)
        assert optimise_cost(5, (10, 128, 64, 1), config, lanes).rounds == 1 + 39 * 7
