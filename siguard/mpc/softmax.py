"""Exponential and logarithm in fixed point, from small tables and one polynomial.

Both split their argument into a table index and a remainder.  The index is a truncate-and-reduce of the wire,
so it is the floor or one above it, never a wrap, and the remainder is exact whichever it was.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from siguard.mpc.arithmetic import (
    deal_cost,
    exchange_cost,
    multiply,
    open_additive,
    product,
    product_cost,
    remask,
    truncate,
    view,
)
from siguard.mpc.gate import Cost, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.mpc.tables import lookup, lookup_cost, lookup_terms, signed_indices, terms_cost
from siguard.ring import Z64, RingArray, ring

#: Fraction bits of values in the guard.
FRACTION_BITS = 16

# exp: a fine index in steps of 1/8 over [-16, 16) and a coarse one in steps of 4 over [-256, 256).
_FINE_BITS = 8
_FINE_STEP_BITS = 3
_COARSE_BITS = 7
_COARSE_STEP_BITS = 2
#: Arguments below this flush to 0; e^-12 is below the resolution of 16 bits.
EXP_FLUSH = -12.0
#: Arguments from this one on saturate: the result lies between e^8 and e^12.
EXP_SATURATION = 8.0


@lru_cache(maxsize=1)
def _fine_tables() -> RingArray:
    """e^F and F for each fine index, at 16 fraction bits."""
    F = signed_indices(_FINE_BITS) / 2.0**_FINE_STEP_BITS
    return Z64.constant(np.rint(np.stack([np.exp(F), F]) * 2.0**FRACTION_BITS).astype(np.int64))


@lru_cache(maxsize=1)
def _coarse_tables() -> RingArray:
    """Whether the fine index can be believed, and what to add where the argument is too large."""
    start = signed_indices(_COARSE_BITS) * 2.0**_COARSE_STEP_BITS
    inside = (start >= EXP_FLUSH) & (start <= EXP_SATURATION)
    above = start > EXP_SATURATION
    saturated = np.rint(np.exp(EXP_SATURATION) * 2.0**FRACTION_BITS).astype(np.int64)
    return Z64.constant(np.stack([inside.astype(np.int64), above * saturated]))


def exp_cost(elements: int) -> Cost:
    """Two small indices, their unit vectors, then three rounds."""
    indices = deal_cost(elements, 1) + deal_cost(elements, 1)
    tables = terms_cost(elements, _FINE_BITS, 8) + terms_cost(elements, _COARSE_BITS, 8)
    middle = exchange_cost(2 * elements, 8) + deal_cost(elements, 8) + deal_cost(elements, 8)
    return indices + tables + exchange_cost(4 * elements, 8) + middle + product_cost(elements, 8)


@gate(cost=exp_cost)
async def exp(party: Party, x: Share) -> Share:
    """e^x for x and result at 16 fraction bits.

    x = F + lo with F a multiple of 1/8 and |lo| < 1/8:  e^x = e^F (1 + lo (lo + 2 + 2^-8) / 2), where the factor
    2^-8 spreads the cubic term evenly (Chebyshev), times a flag from the coarse index.
    Range: |x| < 240.  For x < 8: |error| <= 1.2e-4 e^x + 6e-5, and results below e^-12 may be 0; x < -16 gives
    exactly 0 and x = 0 exactly 1.  From 8 to 12 the result is e^x or larger than e^8, above 12 it is e^8:
    saturation, never garbage.  Failure: a wrap of the last truncation, e^x 2^-32.
    Cost: 3 rounds; 3,138 bytes dealt and 128 exchanged per element.
    Source: gates.md, 6, with dealt unit vectors in place of point functions.
    """
    f, shape = FRACTION_BITS, x.shape
    fine = await truncate(party.at("fine"), x, f - _FINE_STEP_BITS, ring(_FINE_BITS))
    coarse = await truncate(party.at("coarse"), x, f + _COARSE_STEP_BITS, ring(_COARSE_BITS))
    fine_terms = await lookup_terms(party.at("fine table"), fine, _fine_tables())
    coarse_terms = await lookup_terms(party.at("coarse table"), coarse, _coarse_tables())
    read = await remask(party.at("tables"), Additive.concatenate([fine_terms, coarse_terms]))
    power, start, inside, saturated = (read[i] for i in range(4))

    rest = x - start
    spread = rest + ((2 << f) + (1 << (f - 8)))
    terms = Additive.concatenate([product(rest, spread).reshape(1, *shape), product(power, inside).reshape(1, *shape)])
    opened = await open_additive(party.at("polynomial"), terms)
    correction = await view(party.at("correction"), opened[0], f + 1)
    guarded = await view(party.at("guarded"), opened[1])
    return await multiply(party.at("product"), guarded, correction + (1 << f), f) + saturated


@lru_cache(maxsize=16)
def _log_tables(domain_bits: int, index_bits: int) -> RingArray:
    """log H, 1 / H and H for each index, at 16 fraction bits; the first cell is read at its middle."""
    step = 2.0**domain_bits / 2**index_bits
    H = np.arange(1 << index_bits) * step
    H[0] = step / 2
    return Z64.constant(np.rint(np.stack([np.log(H), 1 / H, H]) * 2.0**FRACTION_BITS).astype(np.int64))


def log_index_bits(domain_bits: int) -> int:
    """Index bits for steps of 1/32 and at least 8 of them."""
    return max(8, domain_bits + 5)


def log_cost(elements: int, domain_bits: int) -> Cost:
    """An index, its unit vector, three rounds."""
    bits = log_index_bits(domain_bits)
    return (
        deal_cost(elements, ring(bits).itemsize)
        + lookup_cost(elements, bits, 3, 8)
        + product_cost(elements, 8) * 2
    )


@gate(cost=log_cost)
async def log(party: Party, u: Share, domain_bits: int) -> Share:
    """Natural logarithm of u in (0, 2^domain_bits (1 - 2^-8)), u and result at 16 fraction bits.

    u = H (1 + r) with H from the table and |r| <= step / H:  log u = log H + r (2 - r) / 2.
    Error: |r|^3 / 3 + 6e-5, with steps of 2^domain_bits / 2^index_bits (1/32 for domains from 8 up): 7e-5 at
    u >= 1, 1e-3 at u >= 1/4.  Below one step the result is meaningless but bounded.
    Cost: 3 rounds.
    """
    f, bits = FRACTION_BITS, log_index_bits(domain_bits)
    index = await truncate(party.at("index"), u, f + domain_bits - bits, ring(bits))
    read = await lookup(party.at("table"), index, _log_tables(domain_bits, bits))
    logarithm, inverse, start = (read[i] for i in range(3))
    ratio = await multiply(party.at("ratio"), u - start, inverse, f)
    return logarithm + await multiply(party.at("series"), ratio, (2 << f) - ratio, f + 1)




@lru_cache(maxsize=16)
def _reciprocal_table(domain_bits: int, index_bits: int) -> RingArray:
    """1 / H for each index, at 16 fraction bits; the first cell is read at its middle."""
    step = 2.0**domain_bits / 2**index_bits
    H = np.arange(1 << index_bits) * step
    H[0] = step / 2
    return Z64.constant(np.rint(2.0**FRACTION_BITS / H[None]).astype(np.int64))


def reciprocal_cost(elements: int, domain_bits: int) -> Cost:
    """An index, its unit vector, a table and one Newton step."""
    bits = log_index_bits(domain_bits)
    return (
        deal_cost(elements, ring(bits).itemsize)
        + lookup_cost(elements, bits, 1, 8)
        + product_cost(elements, 8) * 2
    )


@gate(cost=reciprocal_cost)
async def reciprocal(party: Party, u: Share, domain_bits: int, numerator: float = 1.0) -> Share:
    """numerator / u for u in [1, 2^domain_bits (1 - 2^-8)), u and result at 16 fraction bits.

    y = 1 / H from the table, then y (2 - u y).  Relative error: (step / H)^2 + 4e-5, below 1.1e-3 at u >= 1 and
    3e-4 at u >= 2 with steps of 1/32.  Cost: 3 rounds.
    """
    f, bits = FRACTION_BITS, log_index_bits(domain_bits)
    index = await truncate(party.at("index"), u, f + domain_bits - bits, ring(bits))
    inverse = (await lookup(party.at("table"), index, _reciprocal_table(domain_bits, bits)))[0]
    error = await multiply(party.at("error"), u, inverse, f)
    return await multiply(party.at("newton"), inverse * round(numerator * 256), (2 << f) - error, f + 8)
