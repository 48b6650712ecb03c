"""From bits to values: a shared bit times a shared value, bit to arithmetic, select.

A bit is the wire b = t xor beta with t known to roles 0 and 1 and beta to role 2, so over the integers
b = t + (1 - 2t) beta: linear in what the dealer knows, and one dealt element makes it arithmetic.
Source: ABY2.0 (USENIX Security 2021), section 3; gates.md, 5c.
"""

from __future__ import annotations

from math import prod

import numpy as np

from siguard.mpc.arithmetic import deal, deal_cost, exchange_cost, remask
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.ring import Ring, RingArray


def _public_part(bit: Share, ring: Ring) -> tuple[RingArray, RingArray]:
    """t and 1 - 2t in the target ring, at roles 0 and 1."""
    t = ring.constant(bit.masked())
    return t, ring.sub(ring.constant(1), ring.add(t, t))


@gate(cost=deal_cost, simulator=composed)
async def bit_terms(party: Party, bit: Share, ring: Ring) -> Additive:
    """A bit as an additive sharing of 0 or 1 in ``ring``, before any exchange.

    [b] = t + (1 - 2t) [beta], beta dealt.  Exact.  Cost: 0 rounds, n elements.
    """
    dealt = await deal(party, ring, bit.shape, lambda: ring.constant(bit.mask()), bit.depth)
    if party.is_dealer:
        return dealt
    t, sign = _public_part(bit, ring)
    value = ring.mul(sign, dealt.value)
    if party.role == 1:
        value = ring.add(value, t)
    return Additive(party.role, ring, value, max(bit.depth, dealt.depth), dealer_part=False)


@gate(
    cost=lambda elements, itemsize: deal_cost(elements, itemsize) + exchange_cost(elements, itemsize),
    simulator=composed,
)
async def bit_to_arithmetic(party: Party, bit: Share, ring: Ring) -> Share:
    """The same 0 or 1 as a wire of ``ring``.  Exact.  Cost: 1 round, 3 n elements."""
    return await remask(party, await bit_terms(party, bit, ring))


@gate(cost=lambda elements, itemsize: deal_cost(2 * elements, itemsize), simulator=composed)
async def bit_product(party: Party, bit: Share, y: Share) -> Additive:
    """bit * y as an additive sharing, for a bit and a value whose shapes broadcast.

    b y = t y + (1 - 2t) (y_b [beta] + [beta y_beta]) with y = y_b + y_beta; beta and beta y_beta dealt.
    Exact.  Cost: 0 rounds, 2 n elements dealt; resolve it with `remask` (1 round, 2 n elements).
    """
    ring = y.ring
    shape = np.broadcast_shapes(bit.shape, y.shape)

    def known() -> RingArray:
        beta = np.broadcast_to(ring.constant(bit.mask()), shape)
        return np.stack([beta, ring.mul(beta, y.mask())])

    dealt = await deal(party, ring, (2, *shape), known, max(bit.depth, y.depth))
    if party.is_dealer:
        return Additive(2, ring, ring.zeros(*shape), dealt.depth, dealer_part=False)

    def combine() -> RingArray:
        t, sign = _public_part(bit, ring)
        linear = ring.add(ring.mul(y.masked(), dealt.value[0]), dealt.value[1])
        own = y.mask_part() if party.role == 0 else ring.add(y.first, y.second)
        return ring.add(ring.mul(sign, linear), ring.mul(t, own))

    value = await party.compute(combine, 4 * prod(shape))
    return Additive(party.role, ring, value, max(bit.depth, y.depth, dealt.depth), dealer_part=False)


def bit_multiply_cost(elements: int, itemsize: int) -> Cost:
    """Two dealt elements and one exchange."""
    return deal_cost(2 * elements, itemsize) + exchange_cost(elements, itemsize)


@gate(cost=bit_multiply_cost, simulator=composed)
async def bit_multiply(party: Party, bit: Share, y: Share) -> Share:
    """bit * y as a wire.  Exact.  Cost: 1 round, 3 messages, 4 n elements."""
    return await remask(party, await bit_product(party, bit, y))


@gate(cost=bit_multiply_cost, simulator=composed)
async def select(party: Party, bit: Share, x: Share, y: Share) -> Share:
    """x where bit is 1, else y: y + bit (x - y).  Exact.  Cost as `bit_multiply`."""
    return await remask(party, await bit_product(party, bit, x - y) + y)
