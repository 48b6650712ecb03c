"""Function keys in the hybrid model: truth tables and functionalities against the keys that they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest

from siguard.actors.local import LocalRun, run_three
from siguard.mpc import compare, cubic, curves, keyed, thresholds
from siguard.mpc.keyed import comparison, window
from siguard.mpc.party import Party
from siguard.mpc.share import Additive
from siguard.proofsim.enumeration import layout_of, recombine
from siguard.proofsim.ideal import FreshParts, TrustedParty, hybrid
from siguard.proofsim.keys import dealt_as_in, values_in, whole_tables
from siguard.proofsim.queries import NoRandomness
from siguard.ring import Z2, Z64, Ring, RingArray, ring

BITS, KEYS = 4, 6
RNG = np.random.default_rng(8)
ALPHA = ring(BITS).constant(RNG.integers(0, 1 << BITS, KEYS))
POINTS = ring(BITS).constant(RNG.integers(0, 1 << BITS, (KEYS, 3)))
START = ring(BITS).constant([0, 3, 14, 15, 7, 9])
RINGS = [Z64, Z2, ring(8), ring(16)]


def payload(kind: Ring) -> RingArray:
    return kind.constant(np.arange(1, 2 * KEYS + 1).reshape(KEYS, 2))


def called(kind: Ring, gate: str) -> Callable[[Party], Any]:
    """The gate as its callers call it: each role gives what it knows."""

    async def protocol(party: Party) -> Additive:
        secrets = (lambda: (ALPHA, payload(kind))) if party.is_dealer else None
        if gate == "comparison":
            points = None if party.is_dealer else lambda: POINTS
            return await keyed.comparison(party.at("key"), kind, (KEYS, 3, 2), BITS, secrets, points, 0)
        start = None if party.is_dealer else lambda: START
        return await keyed.window(party.at("key"), kind, (KEYS, 3, 2), BITS, secrets, start, 0)

    return protocol


def expected(kind: Ring, gate: str) -> RingArray:
    if gate == "comparison":
        there = ALPHA[:, None] > POINTS
    else:
        there = (START[:, None].astype(int) + np.arange(3)) % (1 << BITS) == ALPHA[:, None]
    return kind.mul(kind.constant(there)[..., None], payload(kind)[:, None])


async def outcome(kind: Ring, gate: str, under: AbstractContextManager[None], **options: Any) -> LocalRun:
    with under:
        return await run_three(called(kind, gate), seed=3, **options)


def check(results: Sequence[Any], kind: Ring, gate: str) -> None:
    np.testing.assert_array_equal(recombine(results), expected(kind, gate).astype(np.int64))
    assert not any(part.dealer_part for part in results)
    assert not results[2].value.any()


@pytest.mark.parametrize("gate", ["comparison", "window"])
@pytest.mark.parametrize("kind", RINGS, ids=repr)
class TestOneFunction:
    async def test_of_the_key_itself(self, kind: Ring, gate: str) -> None:
        check((await outcome(kind, gate, nullcontext())).results, kind, gate)

    async def test_of_its_truth_table(self, kind: Ring, gate: str) -> None:
        ran = await outcome(kind, gate, whole_tables())
        check(ran.results, kind, gate)
        assert ran.traffic.messages == 1, "role 0's share of the table is drawn"

    @pytest.mark.parametrize("role", range(3))
    async def test_of_the_functionality(self, kind: Ring, gate: str, role: int) -> None:
        trusted = TrustedParty(role, FreshParts(1))
        ran = await outcome(kind, gate, hybrid(trusted), randomness=NoRandomness)
        check(ran.results, kind, gate)
        if role < 2:
            own = FreshParts(1).part(f"keyed.{gate}", "key", "value", kind, (KEYS, 3, 2))
            np.testing.assert_array_equal(ran.results[role].value, own)

    async def test_of_what_is_dealt_as_in_an_ideal_run(self, kind: Ring, gate: str) -> None:
        trusted = TrustedParty(0, FreshParts(1))
        await outcome(kind, gate, hybrid(trusted), randomness=NoRandomness)
        check((await outcome(kind, gate, dealt_as_in(trusted))).results, kind, gate)


def test_a_small_ring_stands_for_the_ring_of_values_and_is_gone_afterwards() -> None:
    modules = (compare, cubic, curves, thresholds)
    defaults = thresholds.at_least.__defaults__, curves.at_places.__defaults__
    with values_in(Z2):
        assert all(vars(module)["Z64"] == Z2 for module in modules)
        assert thresholds.at_least.__defaults__ == (None, Z2)
        assert compare.sums_ring(4) == compare.count_ring(4)
    assert all(vars(module)["Z64"] is Z64 for module in modules)
    assert (thresholds.at_least.__defaults__, curves.at_places.__defaults__) == defaults
    assert compare.sums_ring(4) == ring(8)


def test_tables_are_gone_afterwards() -> None:
    with whole_tables():
        assert keyed.comparison is not comparison
    assert (keyed.comparison, keyed.window) == (comparison, window)


def test_several_rows_of_a_case_lie_one_after_the_other() -> None:
    layout = layout_of(ring(2), (200, 4, 2), 100, word_bits=1)
    assert (layout.bits, layout.elements) == (2, 16)
    values = RNG.integers(0, 4, (100, 16))
    array = layout.array(values)
    assert array.shape == (200, 4, 2)
    np.testing.assert_array_equal(array[2:4].reshape(-1), values[1])
    np.testing.assert_array_equal(layout.values(array), values)
