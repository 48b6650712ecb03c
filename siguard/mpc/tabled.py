"""The exponential from two dealt tables, for large batches: less work than a key, and more bytes."""

from __future__ import annotations

from math import exp, prod

import numpy as np

from siguard.mpc.arithmetic import deal, deal_cost, exchange_cost, multiply, product_cost, remask, view
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_opened
from siguard.mpc.splines import (
    ARGUMENT_BITS,
    CELL_BITS,
    DIGIT_BITS,
    HIGH_BITS,
    LOW_BITS,
    high_digit_table,
    low_digit_table,
)
from siguard.ring import FRACTION_BITS, Z64, RingArray, ring

_CELL_SHIFT = ARGUMENT_BITS - CELL_BITS
_DIGIT = (1 << DIGIT_BITS) - 1
#: Fraction bits of the factor of the low digit in the product, and the most it can be: 15 cells and one more.
FACTOR_BITS = 18
LARGEST_FACTOR = exp((_DIGIT + 1) / (1 << CELL_BITS))


def tabled_exponential_cost(elements: int, index_bits: int) -> Cost:
    """Both tables, an exchange of both factors and a view of one, a product."""
    words = (1 << (index_bits - DIGIT_BITS)) + 3 * (1 << DIGIT_BITS)
    factors = exchange_cost(2 * elements, 8) + deal_cost(elements, 8)
    return deal_cost(elements * words, 8) + factors + product_cost(elements, 8)


@gate(cost=tabled_exponential_cost, simulator=composed)
async def tabled_exponential(party: Party, x: Share, index_bits: int) -> Share:
    """e^x at `FRACTION_BITS`, x at `ARGUMENT_BITS`.

    x = c - r, of which roles 0 and 1 know c and role 2 knows r.  Cells of 1/8 are numbered in Z_2^index_bits, by
    two digits: with c = (c1 c0 cl), r = (r1 r0 rl), x = 2 (c1 - r1) + (c0 - r0) / 8 + (cl - rl), and no carry
    passes from one to the next, as each difference is taken with its sign.  e^x is the product of two factors:
    e^(2 (c1 - r1)), 0 outside the window, which is dealt for every c1; and a quadratic in cl, whose coefficients
    are dealt for every c0.  Roles 0 and 1 take the entries at their c1 and c0, which are uniform.
    Range: |8 x| < 2^(index_bits - 1), 4 < index_bits.  |error| <= 2.0e-4 e^x + 2.5e-5 for -12 <= x < 6; from -14
    to -12 and from 6 to 8 it is e^x or 0, by r; 0 elsewhere.
    Failure: wraps of the two views, e^2 2^-30 and e^x 2^-26.
    Cost: 2 rounds, 2^(index_bits - 4) + 48 dealt elements for each argument.
    """
    shape, index_ring = x.shape, ring(index_bits)
    high_entries = 1 << (index_bits - DIGIT_BITS)
    elements = prod(shape)
    opened = as_opened(x)
    index = opened.reduce(_CELL_SHIFT, index_ring).value.astype(np.int64).reshape(-1)
    within = (opened.value & np.uint64((1 << _CELL_SHIFT) - 1)).astype(np.int64).reshape(-1)

    def tables() -> RingArray:
        # Each rotation of the table is a slice of it twice over.
        twice = np.concatenate([high_digit_table(index_bits - DIGIT_BITS)] * 2)
        rotations = np.lib.stride_tricks.sliding_window_view(twice, high_entries)
        high = rotations[-(index >> DIGIT_BITS) & (high_entries - 1)]
        return np.concatenate([high.reshape(-1), low_digit_table(index & _DIGIT, within).reshape(-1)])

    high_end = elements * high_entries
    dealt = await deal(party.at("tables"), Z64, (high_end + elements * 3 * (_DIGIT + 1),), tables, x.depth)

    def looked_up() -> RingArray:
        rows = np.arange(elements)
        high = dealt.value[:high_end].reshape(elements, high_entries)[rows, index >> DIGIT_BITS]
        P0, P1, P2 = dealt.value[high_end:].reshape(elements, _DIGIT + 1, 3)[rows, index & _DIGIT].T
        offset = Z64.constant(within)
        return np.stack([high, P0 + offset * (P1 + offset * P2)]).reshape(2, *shape)

    value = Z64.zeros(2, *shape) if party.is_dealer else await party.compute(looked_up, elements * 16)
    depth = x.depth if party.is_dealer else max(x.depth, dealt.depth)
    factors = await remask(party.at("factors"), Additive(party.role, Z64, value, depth, dealer_part=False))
    # The mask of a wire that has just been made is fresh, as that of an opened value.
    low = await view(party.at("factors"), as_opened(factors[1]), LOW_BITS - FACTOR_BITS)
    return await multiply(party.at("product"), factors[0], low, HIGH_BITS + FACTOR_BITS - FRACTION_BITS)
