"""Comparison, ReLU and counting argmax on the classic adder.

Everything asks `sign_bit` for a sign, so that another comparison (distributed comparison functions) can
take its place behind the same calls.
"""

from __future__ import annotations

import numpy as np

from siguard.mpc.arithmetic import dot, exchange_cost, product_cost, remask, truncate
from siguard.mpc.boolean import invert, sign_bit, sign_cost
from siguard.mpc.conversion import bit_multiply, bit_multiply_cost, bit_terms
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.tables import lookup, lookup_cost
from siguard.ring import Z64, Ring, ring


@gate(cost=sign_cost, simulator=composed)
async def is_positive(party: Party, x: Share) -> Share:
    """The bit [x > 0], valid for x != -2^(k-1).  Exact.  Cost of `sign_bit`."""
    # x > 0 exactly when -x is negative.
    return await sign_bit(party, -x)


@gate(cost=sign_cost, simulator=composed)
async def is_negative(party: Party, x: Share) -> Share:
    """The bit [x < 0].  Exact.  Cost of `sign_bit`."""
    return await sign_bit(party, x)


def relu_cost(elements: int, bits: int, itemsize: int) -> Cost:
    """A sign in the small ring, then a bit product in the large one."""
    return (
        Cost(messages=1, payload_bytes=elements * ring(bits).itemsize)
        + sign_cost(elements, bits)
        + bit_multiply_cost(elements, itemsize)
    )


@gate(cost=relu_cost, simulator=composed)
async def relu(party: Party, x: Share, bits: int = 32, shift: int = 0) -> tuple[Share, Share]:
    """max(x, 0) and its derivative bit [x > 0].

    The sign is taken of x / 2^shift in the ring of ``bits`` bits: exact while |x| < 2^(bits - 1 + shift), up to
    the rounding of the shift (an x within 2^shift of 0 may get the other bit; then |error| <= 2^shift).
    Cost: 2 + ceil(log2(bits - 1)) rounds.
    """
    small = await truncate(party.at("reduce"), x, shift, ring(bits))
    bit = await is_positive(party.at("sign"), small)
    return await bit_multiply(party.at("product"), bit, x), bit


# --- argmax by counting -----------------------------------------------------------------------------------


def _pairs(classes: int) -> tuple[list[int], list[int]]:
    upper = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    return [i for i, _ in upper], [j for _, j in upper]


def count_ring(classes: int) -> Ring:
    """Smallest ring that holds the win counts 0 .. classes - 1."""
    return ring(max(1, (classes - 1).bit_length()))


def wins_cost(batch: int, classes: int, bits: int) -> Cost:
    """All pairs at once, then one exchange of counts."""
    pairs = batch * classes * (classes - 1) // 2
    small = count_ring(classes).itemsize
    return (
        sign_cost(pairs, bits)
        + Cost(messages=1, payload_bytes=pairs * small)
        + exchange_cost(batch * classes, small)
    )


@gate(cost=wins_cost, simulator=composed)
async def win_counts(party: Party, x: Share) -> Share:
    """How many other entries each entry of the last axis beats; (batch, classes) in `count_ring`.

    Entry i beats j > i when x_i >= x_j, and j beats i otherwise: ties go to the lower index, the counts are a
    permutation of 0 .. C - 1, the argmax is the one with C - 1.
    Exact while all differences stay inside the ring.  Cost: rounds of `sign_bit` + 1.
    """
    classes = x.shape[-1]
    counts = count_ring(classes)
    lower, upper = _pairs(classes)
    loses = await sign_bit(party.at("pairs"), x[:, lower] - x[:, upper])
    beats = await bit_terms(party.at("bits"), invert(loses), counts)
    # Entry i gets b for each pair (i, j), and entry j gets 1 - b.
    incidence = np.zeros((len(lower), classes), np.int64)
    incidence[range(len(lower)), lower] = 1
    incidence[range(len(upper)), upper] = -1
    weights = counts.constant(incidence)
    sums = beats.map(lambda value: counts.matmul(value, weights))
    if party.role == 1:
        sums = sums.map(lambda value: counts.add(value, counts.constant(np.arange(classes))))
    return await remask(party.at("counts"), sums)


def one_hot_cost(batch: int, classes: int, bits: int, ranks: int) -> Cost:
    """Counts, then one table of the counts."""
    return wins_cost(batch, classes, bits) + lookup_cost(
        batch * classes, count_ring(classes).bits, ranks, Z64.itemsize
    )


@gate(cost=one_hot_cost, simulator=composed)
async def one_hot_ranks(party: Party, x: Share, ranks: int = 1) -> Share:
    """One-hot vectors of the largest entry, the second, ...: (ranks, batch, classes) of 0 and 1 in Z_2^64.

    Two flat rounds after the comparison: counts, then equality to C - 1, C - 2, ... by a table.
    Exact; ties as in `win_counts`.  Cost: rounds of `win_counts` + 1.  Source: gates.md, 7.
    """
    counts = await win_counts(party.at("counts"), x)
    entries = 1 << counts.ring.bits
    tables = np.zeros((ranks, entries), np.int64)
    for rank in range(ranks):
        tables[rank, x.shape[-1] - 1 - rank] = 1
    return await lookup(party.at("equal"), counts, Z64.constant(tables))


async def one_hot_argmax(party: Party, x: Share) -> Share:
    """One-hot vector of the largest entry, (batch, classes); the lowest index on ties."""
    return (await one_hot_ranks(party, x))[0]


def maximum_cost(batch: int, classes: int, bits: int) -> Cost:
    """The one-hot vector, then one inner product."""
    return one_hot_cost(batch, classes, bits, 1) + product_cost(batch, Z64.itemsize)


@gate(cost=maximum_cost, simulator=composed)
async def maximum(party: Party, x: Share) -> Share:
    """Largest entry of the last axis, (batch, 1).  Exact.  Cost: rounds of `one_hot_ranks` + 1."""
    hot = await one_hot_argmax(party.at("argmax"), x)
    return await dot(party.at("take"), hot, x)
