"""The exponential from three dealt tables, for large batches: less work than a key, and more bytes."""

from __future__ import annotations

from math import exp, prod

import numpy as np

from siguard.mpc.arithmetic import deal, deal_cost, dot, exchange_cost, multiply, product_cost, remask, view
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_opened
from siguard.mpc.splines import (
    ARGUMENT_BITS,
    CELL_BITS,
    DIGIT_BITS,
    HIGH_BITS,
    LOW_BITS,
    TOP_DIFFERENCES,
    low_digit_table,
    middle_digit_tables,
)
from siguard.ring import FRACTION_BITS, Z64, RingArray, ring

_CELL_SHIFT = ARGUMENT_BITS - CELL_BITS
_DIGIT = (1 << DIGIT_BITS) - 1
#: Fraction bits of the factor of the low digit in the product, and the most it can be: 15 cells and one more.
FACTOR_BITS = 18
LARGEST_FACTOR = exp((_DIGIT + 1) / (1 << CELL_BITS))


def tabled_exponential_cost(elements: int, index_bits: int) -> Cost:
    """All tables, an exchange of seven factors and a view of one, two products."""
    entries = (1 << (index_bits - 2 * DIGIT_BITS)) + 2 * (1 << DIGIT_BITS)
    factors = exchange_cost(7 * elements, 8) + deal_cost(elements, 8)
    return deal_cost(elements * entries * 3, 8) + factors + product_cost(elements, 8) * 2


@gate(cost=tabled_exponential_cost, simulator=composed)
async def tabled_exponential(party: Party, x: Share, index_bits: int) -> Share:
    """e^x at `FRACTION_BITS`, x at `ARGUMENT_BITS`.

    x = c - r, of which roles 0 and 1 know c and role 2 knows r.  Cells of 1/8 are numbered in Z_2^index_bits, by
    three digits, 16 to a digit: with c = (c2 c1 c0 cl) and r likewise, x = 2 (16 m2 + m1) + m0 / 8 + D, m = c - r
    digit by digit and D = cl - rl; no carry passes from one to the next, as each difference has its sign.  e^x is
    sum_j [m2 = j] f_j(m1) times a quadratic in cl, with f_j(m1) = e^(2 (16 j + m1)), 0 outside the window, so that
    j = -1, 0, 1 are enough.  The three factors are dealt for every c2, c1 and c0, three elements each; roles 0 and
    1 take the entries at their own digits, which are uniform.
    Range: |8 x| < 2^(index_bits - 1), 10 <= index_bits.  |error| <= 2.0e-4 e^x + 2.5e-5 for -12 <= x < 6; from -14
    to -12 and from 6 to 8 it is e^x or 0, by r; 0 elsewhere.
    Failure: wraps of the two views, e^2 2^-30 and e^x 2^-26.
    Cost: 3 rounds, 3 (2^(index_bits - 8) + 32) dealt elements for each argument.
    Source: one-time truth tables, Ishai et al., TCC 2013.
    """
    shape, top_bits = x.shape, index_bits - 2 * DIGIT_BITS
    if top_bits < 2:
        raise ValueError(f"an index of {index_bits} bits; at least {2 * DIGIT_BITS + 2} are needed")
    elements, tops, size = prod(shape), 1 << top_bits, _DIGIT + 1
    opened = as_opened(x)
    index = opened.reduce(_CELL_SHIFT, ring(index_bits)).value.astype(np.int64).reshape(-1)
    within = (opened.value & np.uint64((1 << _CELL_SHIFT) - 1)).astype(np.int64).reshape(-1)
    top, middle, low = index >> 2 * DIGIT_BITS, index >> DIGIT_BITS & _DIGIT, index & _DIGIT
    ends = (elements * tops * 3, elements * (tops + size) * 3, elements * (tops + 2 * size) * 3)

    def tables() -> RingArray:
        # c2 = r2 + j is where the difference is j.
        there = (top[:, None] + np.array(TOP_DIFFERENCES)) % tops
        hot = Z64.zeros(elements, tops, len(TOP_DIFFERENCES))
        hot[np.arange(elements)[:, None], there, np.arange(len(TOP_DIFFERENCES))] = 1
        parts = (hot, middle_digit_tables()[middle], low_digit_table(low, within))
        return np.concatenate([part.reshape(-1) for part in parts])

    dealt = await deal(party.at("tables"), Z64, ends[2:], tables, x.depth)

    def looked_up() -> RingArray:
        rows = np.arange(elements)
        hot = dealt.value[: ends[0]].reshape(elements, tops, 3)[rows, top]
        factors = dealt.value[ends[0] : ends[1]].reshape(elements, size, 3)[rows, middle]
        P0, P1, P2 = dealt.value[ends[1] :].reshape(elements, size, 3)[rows, low].T
        offset = Z64.constant(within)
        quadratic = P0 + offset * (P1 + offset * P2)
        return np.concatenate([hot, factors, quadratic[:, None]], axis=1).reshape(*shape, 7)

    value = Z64.zeros(*shape, 7) if party.is_dealer else await party.compute(looked_up, elements * 32)
    terms = Additive(party.role, Z64, value, max(x.depth, dealt.depth), dealer_part=False)
    parts = await remask(party.at("factors"), terms)
    # The mask of a wire that has just been made is fresh, as that of an opened value.
    factor = await view(party.at("factors"), as_opened(parts[..., 6]), LOW_BITS - FACTOR_BITS)
    high = (await dot(party.at("high"), parts[..., :3], parts[..., 3:6]))[..., 0]
    return await multiply(party.at("product"), high, factor, HIGH_BITS + FACTOR_BITS - FRACTION_BITS)
