"""Function keys in the hybrid model: in place of a key, shares of the values that it stands for.

A comparison or point-function key rests on a pseudorandom generator (`siguard.mpc.prg`), of which no enumeration
can say anything.  Here `keyed.comparison` and `keyed.window` are replaced by ideal ones, and all gates made of them
run as shipped.  Whoever holds a key can evaluate it everywhere, so that the honest model of a key are shares of its
*whole truth table*: `whole_tables`, for tiny domains.  `dealt_as_in` is for domains of any size: shares of the
values at the points that a run comes to, which an ideal run has chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isfunction
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.mpc import compare, cubic, curves, keyed, thresholds
from siguard.mpc.arithmetic import deal, deal_cost
from siguard.mpc.gate import composed, gate
from siguard.mpc.keyed import Points, Secrets
from siguard.mpc.party import Party
from siguard.mpc.share import Additive
from siguard.proofsim.ideal import TrustedParty, value_of
from siguard.proofsim.patching import replaced, replaced_all
from siguard.ring import Z64, Ring, RingArray

#: Modules whose gates name the ring of values.
_OF_VALUES = (compare, cubic, curves, thresholds)


def comparison_table(alpha: RingArray, payload: RingArray, bits: int, ring: Ring) -> RingArray:
    """payload * [v < alpha] for every v of the domain, (keys, 2^bits, words)."""
    below = np.arange(1 << bits) < alpha[:, None].astype(np.int64)
    return ring.mul(ring.constant(below)[..., None], payload[:, None])


def window_table(alpha: RingArray, payload: RingArray, bits: int, ring: Ring) -> RingArray:
    """payload * [v = alpha] for every v of the domain, (keys, 2^bits, words)."""
    there = np.arange(1 << bits) == alpha[:, None].astype(np.int64)
    return ring.mul(ring.constant(there)[..., None], payload[:, None])


def window_points(start: RingArray, count: int, bits: int) -> npt.NDArray[np.int64]:
    """start, start + 1, ... mod 2^bits, (keys, count)."""
    return np.asarray((start[:, None].astype(np.int64) + np.arange(count)) % (1 << bits))


@gate(cost=deal_cost, simulator=composed)
async def comparison(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    bits: int,
    secrets: Secrets | None,
    points: Points | None,
    depth: int,
) -> Additive:
    """`keyed.comparison` by a dealt truth table: role 0's share is PRF(0, 2)'s, role 1's the table minus that."""

    def table() -> RingArray:
        assert secrets is not None  # noqa: S101 - as the gate that this stands for
        return comparison_table(*secrets(), bits, ring)

    def at() -> npt.NDArray[np.int64]:
        assert points is not None  # noqa: S101 - as above
        return points().astype(np.int64)

    return await _looked_up(party, ring, shape, bits, table, at, depth)


@gate(cost=deal_cost, simulator=composed)
async def window(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    bits: int,
    secrets: Secrets | None,
    start: Points | None,
    depth: int,
) -> Additive:
    """`keyed.window` by a dealt truth table, as `comparison`."""

    def table() -> RingArray:
        assert secrets is not None  # noqa: S101 - as the gate that this stands for
        return window_table(*secrets(), bits, ring)

    def at() -> npt.NDArray[np.int64]:
        assert start is not None  # noqa: S101 - as above
        return window_points(start(), shape[1], bits)

    return await _looked_up(party, ring, shape, bits, table, at, depth)


async def _looked_up(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    bits: int,
    table: Callable[[], RingArray],
    points: Callable[[], npt.NDArray[np.int64]],
    depth: int,
) -> Additive:
    keys, _, words = shape
    # The purpose is that of a key's root: what is wrong with roots is wrong with tables.
    dealt = await deal(party, ring, (keys, 1 << bits, words), table, depth, "root")
    if party.is_dealer:
        return Additive(2, ring, ring.zeros(*shape), depth, dealer_part=False)
    return dealt.map(lambda value: np.take_along_axis(value, points()[..., None], 1))


@contextmanager
def whole_tables() -> Iterator[None]:
    """While open, every key is shares of its truth table."""
    with replaced_all({keyed.comparison: comparison, keyed.window: window}):
        yield


@contextmanager
def values_in(small: Ring) -> Iterator[None]:
    """While open, gates that compute in Z_2^64 by name compute in a small ring: the same code, few enough cases.

    Win counts are added up in their own ring, not in machine words.
    """
    kept: list[tuple[Any, Any]] = []
    for module in _OF_VALUES:
        module.Z64 = small  # type: ignore[attr-defined]
        for function in vars(module).values():
            if isfunction(function) and function.__module__ == module.__name__ and function.__defaults__:
                kept.append((function, function.__defaults__))
                function.__defaults__ = tuple(small if one is Z64 else one for one in function.__defaults__)
    try:
        with replaced(compare.sums_ring, compare.count_ring):
            yield
    finally:
        for function, defaults in kept:
            function.__defaults__ = defaults
        for module in _OF_VALUES:
            module.Z64 = Z64  # type: ignore[attr-defined]


@contextmanager
def dealt_as_in(trusted: TrustedParty) -> Iterator[None]:
    """While open, what roles 0 and 1 get of a key is dealt to them, with the shares that an ideal run gave them.

    For runs whose masks are chosen to that end (`siguard.proofsim.steering`): no root gives chosen shares.
    """

    def standing_for(name: str) -> Callable[..., Any]:
        async def call(
            party: Party, ring: Ring, shape: tuple[int, ...], bits: int, secrets: Any, points: Any, depth: int
        ) -> Additive:
            outputs = trusted.outputs[name, party.path]
            return await deal(party, ring, shape, lambda: value_of(outputs), depth)

        return gate(cost=deal_cost, simulator=composed)(call)

    names = {keyed.comparison: "keyed.comparison", keyed.window: "keyed.window"}
    with replaced_all({coroutine: standing_for(name) for coroutine, name in names.items()}):
        yield
