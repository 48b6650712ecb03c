"""Comparison and point-function keys between roles: role 2 deals a key to each of roles 0 and 1, who evaluate it.

The two primitives of every gate with few rounds.  Role 2 knows alpha and a payload; roles 0 and 1 know points, and
get additive shares of payload * [point < alpha], or of payload at alpha's place in a window of points, without any
exchange.  Roots come from PRF(0, 2) and PRF(1, 2); what is dealt are corrections, the same for both keys and
pseudorandom to each (`siguard.mpc.fss`).  In exact proofs both are replaced by shares of the whole truth table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from siguard.mpc import fss
from siguard.mpc.fss_layout import KeyLayout, key_layout
from siguard.mpc.gate import Cost, Simulation, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive
from siguard.ring import BYTES, Ring, RingArray

#: What the dealer knows: alpha (n,), and the payload (n, words).
Secrets = Callable[[], tuple[RingArray, RingArray]]
#: Where roles 0 and 1 evaluate, from what they know.
Points = Callable[[], RingArray]

#: Calls of numpy, in blocks that take as long, measured: of a level of any number of keys; of all else, in levels.
LEVEL_BLOCKS, OTHER_LEVELS = 800, 15
#: How long a block takes at one of several points of a key, in tenths of others, measured: corrections are shared.
TENTHS_AT_MANY = 7


def keys_cost(keys: int, key_bytes: int, blocks: int) -> Cost:
    """Corrections to both roles; the dealer runs ahead, so no round.  blocks: the work of all three, in blocks."""
    return Cost(messages=2, payload_bytes=2 * keys * key_bytes, blocks=blocks)


def comparison_cost(keys: int, bits: int, words: int, ring: Ring, points: int = 1) -> Cost:
    """`keys_cost` of comparison keys that are evaluated at so many points."""
    layout = key_layout(bits, words, ring, values=True)
    paths = comparison_blocks(layout, points) - comparison_blocks(layout, 0)
    spared = 0 if points == 1 else keys * paths * (10 - TENTHS_AT_MANY) // 10
    return keys_cost(keys, layout.key_bytes, keys * comparison_blocks(layout, points) - spared + _walks(layout))


def window_cost(keys: int, bits: int, words: int, ring: Ring, count: int = 1) -> Cost:
    """`keys_cost` of point-function keys that are evaluated at so many neighbours."""
    layout = key_layout(bits, words, ring, values=False)
    return keys_cost(keys, layout.key_bytes, keys * window_blocks(layout, count) + _walks(layout))


def comparison_blocks(layout: KeyLayout, points: int) -> int:
    """Blocks of one key that all three expand: four children a level and the leaves, at each point a path."""
    values = 0 if layout.packed else layout.payload_blocks
    path = layout.levels * (1 + values) + layout.payload_blocks
    return 4 * layout.levels * (1 + values) + 2 * layout.leaf_blocks + 2 * points * path


def window_blocks(layout: KeyLayout, count: int) -> int:
    """Blocks of one key that all three expand: as `comparison_blocks`, with all nodes above a window."""

    def width(level: int) -> int:
        return min(1 << level, 1 - (1 - count >> layout.bits - level))

    paths = sum(width(level + 1) for level in range(layout.levels)) + width(layout.levels) * layout.leaf_blocks
    return 4 * layout.levels + 2 * layout.leaf_blocks + 2 * paths


def _walks(layout: KeyLayout) -> int:
    """What a call takes however few its keys are, in blocks: a walk at each of three."""
    return 3 * (layout.levels + OTHER_LEVELS) * LEVEL_BLOCKS


def _simulate_corrections(simulation: Simulation, party: Party, keys: int, key_bytes: int) -> None:
    if not party.is_dealer:
        simulation.receives(2, party.path, simulation.uniform(BYTES, (keys, key_bytes)))


def simulate_comparison(
    simulation: Simulation, party: Party, ring: Ring, shape: tuple[int, int, int], bits: int, *rest: object
) -> None:
    """Roles 0 and 1: corrections that are pseudorandom to the holder of one root."""
    keys, _, words = shape
    _simulate_corrections(simulation, party, keys, fss.comparison_key_bytes(bits, words, ring))


def simulate_window(
    simulation: Simulation, party: Party, ring: Ring, shape: tuple[int, int, int], bits: int, *rest: object
) -> None:
    """As `simulate_comparison`."""
    keys, _, words = shape
    _simulate_corrections(simulation, party, keys, fss.point_key_bytes(bits, words, ring))


@gate(cost=comparison_cost, simulator=simulate_comparison)
async def comparison(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    bits: int,
    secrets: Secrets | None,
    points: Points | None,
    depth: int,
) -> Additive:
    """payload * [point < alpha] for every point, (keys, points, words) of ``ring``, additive without a dealer part.

    shape: (keys, points of each key, words of a payload).  bits: points and alphas lie in 0 .. 2^bits - 1.
    secrets: at role 2; points: at roles 0 and 1, an array (keys, points).  depth: that of what the caller computes
    from.  Exact.  Roots: PRF(0, 2) and PRF(1, 2).  Cost: 0 rounds, a key's corrections to each of roles 0 and 1.
    Source: Boyle et al., EUROCRYPT 2021.
    """
    words = shape[2]

    def generate(roots: tuple[RingArray, RingArray]) -> RingArray:
        assert secrets is not None  # noqa: S101 - a programming error of a gate, not an input
        return fss.comparison_keys(roots, *secrets(), bits, ring)

    def evaluate(roots: RingArray, corrections: RingArray) -> RingArray:
        assert points is not None  # noqa: S101 - a programming error of a gate, not an input
        return fss.evaluate_comparison(party.role, roots, corrections, points(), bits, words, ring)

    key_bytes = fss.comparison_key_bytes(bits, words, ring)
    work = prod(shape) * bits * 8
    return await _keyed(party, ring, shape, key_bytes, work, generate, evaluate, depth)


@gate(cost=window_cost, simulator=simulate_window)
async def window(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    bits: int,
    secrets: Secrets | None,
    start: Points | None,
    depth: int,
) -> Additive:
    """payload * [start + m = alpha mod 2^bits], m = 0 .. window - 1: (keys, window, words), additive.

    shape: (keys, window, words).  start: at roles 0 and 1, an array (keys,).  The rest as in `comparison`.
    Exact.  Cost: 0 rounds, a key's corrections to each of roles 0 and 1.
    Source: Boyle, Gilboa, Ishai, CCS 2016.
    """
    _, count, words = shape

    def generate(roots: tuple[RingArray, RingArray]) -> RingArray:
        assert secrets is not None  # noqa: S101 - a programming error of a gate, not an input
        return fss.point_keys(roots, *secrets(), bits, ring)

    def evaluate(roots: RingArray, corrections: RingArray) -> RingArray:
        assert start is not None  # noqa: S101 - a programming error of a gate, not an input
        return fss.evaluate_window(party.role, roots, corrections, start(), count, bits, words, ring)

    key_bytes = fss.point_key_bytes(bits, words, ring)
    return await _keyed(party, ring, shape, key_bytes, prod(shape) * 4, generate, evaluate, depth)


async def _keyed(
    party: Party,
    ring: Ring,
    shape: tuple[int, int, int],
    key_bytes: int,
    work: int,
    generate: Callable[[tuple[RingArray, RingArray]], RingArray],
    evaluate: Callable[[RingArray, RingArray], RingArray],
    depth: int,
) -> Additive:
    """Deal the corrections and evaluate the keys."""
    roots_shape = (shape[0], fss.ROOT_BYTES)
    if party.is_dealer:

        def deal() -> RingArray:
            roots = (party.draw(0, "root", BYTES, roots_shape), party.draw(1, "root", BYTES, roots_shape))
            return generate(roots)

        corrections = await party.compute(deal, shape[0] * key_bytes)
        for role in (0, 1):
            await party.channel.send(role, party.path, depth + 1, corrections)
        return Additive(2, ring, ring.zeros(*shape), depth, dealer_part=False)
    roots = party.draw(2, "root", BYTES, roots_shape)
    corrections, dealt_depth = await party.channel.receive(2, party.path, BYTES, (shape[0], key_bytes), depth)
    value = await party.compute(lambda: evaluate(roots, corrections), work)
    return Additive(party.role, ring, value, max(depth, dealt_depth), dealer_part=False)


def signed_window(ring: Ring, first: int, masked: RingArray) -> RingArray:
    """Where a window of values from ``first`` on starts among the points of an index i = a + alpha: first - a."""
    return ring.sub(np.broadcast_to(ring.constant(first), masked.shape), masked)
