"""Exponential and logarithm in fixed point, from small tables and one polynomial.

Both split their argument into a table index and a remainder.  The index is a truncate-and-reduce of the wire,
so it is the floor or one above it, never a wrap, and the remainder is exact whichever it was.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.mpc.arithmetic import (
    deal_cost,
    exchange_cost,
    multiply,
    open_additive,
    product_cost,
    remask_together,
    truncate,
    view,
)
from siguard.mpc.conversion import bit_product, bit_terms
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Share
from siguard.mpc.tables import (
    MAX_INDEX_BITS,
    bit_terms_cost,
    lookup,
    lookup_bit_terms,
    lookup_cost,
    lookup_terms,
    signed_indices,
    terms_cost,
)
from siguard.ring import Z64, RingArray, ring

#: Fraction bits of values in the guard.
FRACTION_BITS = 16

# exp: a fine index in steps of 1/8 over the window [-11, 5), a coarse one in steps of 1 over [-256, 256).
_FINE_BITS = 7
_FINE_STEP_BITS = 3
_COARSE_BITS = 9
_WINDOW_START = -11
#: Arguments below this may flush to 0, and do one below it.
EXP_FLUSH = -10.0
#: Arguments from this one on saturate.
EXP_SATURATION = 5.0
_SATURATED = round(float(np.exp(EXP_SATURATION)) * 2**FRACTION_BITS)


@lru_cache(maxsize=1)
def _fine_tables() -> RingArray:
    """e^F and F for each fine index, at 16 fraction bits; the index counts from the middle of the window."""
    middle = _WINDOW_START + 2 ** (_FINE_BITS - _FINE_STEP_BITS - 1)
    F = signed_indices(_FINE_BITS) / 2.0**_FINE_STEP_BITS + middle
    return Z64.constant(np.rint(np.stack([np.exp(F), F]) * 2.0**FRACTION_BITS).astype(np.int64))


@lru_cache(maxsize=1)
def _coarse_tables() -> npt.NDArray[np.uint8]:
    """Whether x is inside the window of the fine index, and whether it is above.

    The coarse index is floor(x) or one more, so inside is [-10, 4]: -10 <= index means x >= -11, index <= 4
    means x < 5.
    """
    start = signed_indices(_COARSE_BITS)
    inside = (start > _WINDOW_START) & (start < EXP_SATURATION)
    return np.stack([inside, start >= EXP_SATURATION]).astype(np.uint8)


def exp_cost(elements: int) -> Cost:
    """Two small indices, their unit vectors, then three rounds."""
    indices = deal_cost(elements, 1) + deal_cost(elements, 2)
    tables = terms_cost(elements, _FINE_BITS, 8) + bit_terms_cost(elements, _COARSE_BITS)
    first = Cost(rounds=1, messages=2, payload_bytes=2 * elements * (2 * 8 + 2))
    guarded = deal_cost(2 * elements, 8) + deal_cost(elements, 8)
    second = exchange_cost(2 * elements, 8) + deal_cost(elements, 8) * 2
    return indices + tables + first + guarded + second + product_cost(elements, 8)


@gate(cost=exp_cost, simulator=composed)
async def exp(party: Party, x: Share) -> Share:
    """e^x for x and result at 16 fraction bits.

    x = F + lo with F a multiple of 1/8 and |lo| < 1/8:  e^x = e^F (1 + lo (lo + 2 + 2^-8) / 2), where the factor
    2^-8 spreads the cubic term evenly (Chebyshev), times a bit from the coarse index, plus e^5 where x is large.
    Range: |x| < 255.  For -10 <= x < 4: |error| <= 1.2e-4 e^x + 6e-5, and x = 0 gives exactly 1.  From -11 to -10
    the result may be 0 instead (an error of 4.6e-5), below it is.  From 4 to 5 it is e^x or e^5, above e^5.
    Failure: a wrap of the last two truncations, (e^x + 0.3) 2^-32.
    Cost: 3 rounds; 1,139 bytes dealt and 84 exchanged per element.
    Source: gates.md, 6, with dealt unit vectors in place of point functions.
    """
    f = FRACTION_BITS
    middle = _WINDOW_START + 2 ** (_FINE_BITS - _FINE_STEP_BITS - 1)
    shifted = x - (middle << f)
    fine = await truncate(party.at("fine"), shifted, f - _FINE_STEP_BITS, ring(_FINE_BITS))
    coarse = await truncate(party.at("coarse"), x, f, ring(_COARSE_BITS))
    fine_terms = await lookup_terms(party.at("fine table"), fine, _fine_tables())
    coarse_terms = await lookup_bit_terms(party.at("coarse table"), coarse, _coarse_tables())
    read, bits = await remask_together(party.at("tables"), [fine_terms, coarse_terms])
    power, start, inside, above = read[0], read[1], bits[0], bits[1]

    rest = x - start
    spread = rest + ((2 << f) + (1 << (f - 8)))
    guarded_terms = await bit_product(party.at("inside"), inside, power)
    saturated = await bit_terms(party.at("above"), above, Z64) * _SATURATED
    terms = Additive.concatenate([product(rest, spread)[None], guarded_terms[None]])
    opened = await open_additive(party.at("polynomial"), terms)
    correction = await view(party.at("correction"), opened[0], f + 1)
    guarded = await view(party.at("guarded"), opened[1])
    product_terms = product(guarded, correction + (1 << f)) + saturated * (1 << f)
    return await view(party.at("product"), await open_additive(party.at("product"), product_terms), f)


@lru_cache(maxsize=16)
def _log_tables(domain_bits: int, index_bits: int) -> RingArray:
    """log H, 1 / H and H for each index, at 16 fraction bits; the first cell is read at its middle."""
    step = 2.0**domain_bits / 2**index_bits
    H = np.arange(1 << index_bits) * step
    H[0] = step / 2
    return Z64.constant(np.rint(np.stack([np.log(H), 1 / H, H]) * 2.0**FRACTION_BITS).astype(np.int64))


def log_index_bits(domain_bits: int) -> int:
    """Index bits for steps of 1/32; at least 8, and at most what a table takes."""
    return min(MAX_INDEX_BITS, max(8, domain_bits + 5))


def log_cost(elements: int, domain_bits: int) -> Cost:
    """An index, its unit vector, three rounds."""
    bits = log_index_bits(domain_bits)
    return (
        deal_cost(elements, ring(bits).itemsize) + lookup_cost(elements, bits, 3, 8) + product_cost(elements, 8) * 2
    )


@gate(cost=log_cost, simulator=composed)
async def log(party: Party, u: Share, domain_bits: int) -> Share:
    """Natural logarithm of u in (0, 2^domain_bits (1 - 2^-8)), u and result at 16 fraction bits.

    u = H (1 + r) with H from the table and |r| <= step / H:  log u = log H + r (2 - r) / 2.
    Error: |r|^3 / 3 + 6e-5, with steps of 2^domain_bits / 2^index_bits (1/32 for domains from 8 to 128): 7e-5 at
    u >= 1, 1e-3 at u >= 1/4.  Below one step the result is meaningless but bounded.
    Failure: wraps of its two truncations, about 3 |r| 2^-32.  Cost: 3 rounds.
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
        deal_cost(elements, ring(bits).itemsize) + lookup_cost(elements, bits, 1, 8) + product_cost(elements, 8) * 2
    )


@gate(cost=reciprocal_cost, simulator=composed)
async def reciprocal(party: Party, u: Share, domain_bits: int, numerator: float = 1.0) -> Share:
    """numerator / u for u in [1, 2^domain_bits (1 - 2^-8)), u and result at 16 fraction bits.

    y = 1 / H from the table, then y (2 - u y).  The numerator is rounded to 2^-8.
    |error| <= numerator ((step / u)^2 / u + 6e-5), with steps of 1/32 in domains of 8 and up: the first part is at
    most 1e-3 at u = 1, 1.3e-4 at u = 2.  Failure: a wrap of the last view, numerator 2^-24 / u.  Cost: 3 rounds.
    """
    f, bits = FRACTION_BITS, log_index_bits(domain_bits)
    index = await truncate(party.at("index"), u, f + domain_bits - bits, ring(bits))
    inverse = (await lookup(party.at("table"), index, _reciprocal_table(domain_bits, bits)))[0]
    error = await multiply(party.at("error"), u, inverse, f)
    return await multiply(party.at("newton"), inverse * round(numerator * 256), (2 << f) - error, f + 8)
