"""Dealt gates on arithmetic shares: open, view, re-mask, product, dot, matmul, truncation.

Sources: ABY3 (Mohassel, Rindal, CCS 2018) for the sharing; ASTRA and ABY2.0 for masks known to one party;
Dalskov, Escudero, Keller for probabilistic truncation.  The primitive gates are enumerated exactly on tiny
rings by `siguard prove`.

One mental model serves all of them.  A product first *opens* c = z + r to roles 0 and 1, where role 2 knows
r; a *view* then turns c into a wire again, at full scale or truncated, with one dealt element.  Where the
dealer's part is zero the wire needs no dealing (*re-mask*).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from siguard.mpc.gate import Cost, Simulation, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product, matrix_product, product
from siguard.mpc.share import Additive, Opened, Share, as_opened
from siguard.ring import BYTES, Ring, RingArray

# --- primitive gates --------------------------------------------------------------------------------------


def exchange_cost(elements: int, itemsize: int) -> Cost:
    """Roles 0 and 1 swap ``elements`` each."""
    return Cost(rounds=1, messages=2, payload_bytes=2 * elements * itemsize)


def deal_cost(elements: int, itemsize: int) -> Cost:
    """The dealer sends ``elements`` to role 1; it runs ahead, so no round."""
    return Cost(messages=1, payload_bytes=elements * itemsize)


def simulate_exchange(simulation: Simulation, party: Party, x: Additive) -> None:
    """Roles 0 and 1: the other's summand under a mask that it shares with the dealer alone, so uniform."""
    if not party.is_dealer:
        simulation.receives(1 - party.role, party.path, simulation.uniform(x.ring, x.shape))


def simulate_deal(
    simulation: Simulation, party: Party, ring: Ring, shape: tuple[int, ...], *arguments: object, **options: object
) -> None:
    """Role 1: d2 = v - d0, where roles 0 and 2 alone know d0, so uniform."""
    if party.role == 1:
        simulation.receives(2, party.path, simulation.uniform(ring, shape))


@gate(cost=deal_cost, simulator=simulate_deal)
async def deal(
    party: Party,
    ring: Ring,
    shape: tuple[int, ...],
    value: Callable[[], RingArray] | None,
    depth: int,
    purpose: str = "dealt",
) -> Additive:
    """Share between roles 0 and 1 an array that only the dealer knows: v = d0 + d2, d0 from PRF(0, 2).

    value: computed at role 2 only; other roles may pass None.  depth: that of what the dealer computes from.
    Masks: d0 fresh from roles 0 and 2.  Cost: 0 rounds, n elements from role 2 to role 1.
    Used by views, bit products and tables; d2 = v - d0 is uniform to role 1, role 0 sees nothing.
    """
    part, _, depth = await _deal(party, ring, shape, value, depth, purpose)
    if party.is_dealer:
        part = ring.zeros(*shape)
    return Additive(party.role, ring, part, depth, dealer_part=False)


@gate(cost=deal_cost, simulator=simulate_deal)
async def deal_wire(
    party: Party,
    ring: Ring,
    shape: tuple[int, ...],
    value: Callable[[], RingArray] | None,
    depth: int,
    work: int = 0,
) -> Share:
    """The same as `deal`, as the wire (d0, 0, d2) of an array that only the dealer knows.  Cost as `deal`.

    work: elements that ``value`` touches, where that is more than the shape says.
    """
    first, second, depth = await _deal(party, ring, shape, value, depth, "dealt", work)
    if party.role == 0:
        second = ring.zeros(*shape)
    elif party.role == 1:
        first, second = ring.zeros(*shape), first
    return Share(party.role, ring, first, second, depth)


async def _deal(
    party: Party,
    ring: Ring,
    shape: tuple[int, ...],
    value: Callable[[], RingArray] | None,
    depth: int,
    purpose: str,
    work: int = 0,
) -> tuple[RingArray, RingArray, int]:
    """(d0, d0) at role 0, (d2, d2) at role 1, (d2, d0) at role 2; and the depth."""
    elements = prod(shape)
    if party.role == 0:
        part = await party.compute(lambda: party.draw(2, purpose, ring, shape), elements)
        return part, part, depth
    if party.role == 1:
        part, dealt_depth = await party.channel.receive(2, party.path, ring, shape, depth)
        return part, part, max(depth, dealt_depth)
    assert value is not None  # noqa: S101 - a programming error of a gate, not an input
    known = value

    def masked() -> tuple[RingArray, RingArray]:
        d0 = party.draw(0, purpose, ring, shape)
        return ring.sub(known(), d0), d0

    d2, d0 = await party.compute(masked, max(elements, work))
    await party.channel.send(1, party.path, depth + 1, d2)
    return d2, d0, depth


@gate(cost=exchange_cost, simulator=simulate_exchange)
async def open_additive(party: Party, x: Additive) -> Opened:
    """Open c = x + r to roles 0 and 1; role 2 knows r.

    m0 = v0 + r0, m1 = v1 + r2, c = m0 + m1, r = r0 + r2 - v2, with r0 from PRF(0, 2) and r2 from PRF(1, 2).
    Any ring, any shape.  Cost: 1 round, 2 messages, 2 n elements.  Source: ABY3, section 5.2; gates.md, 1.
    """
    ring = x.ring
    elements = prod(x.shape)
    if party.is_dealer:

        def known_mask() -> RingArray:
            mask = ring.add(party.draw(0, "open", ring, x.shape), party.draw(1, "open", ring, x.shape))
            return ring.sub(mask, x.value) if x.dealer_part else mask

        return Opened(party.role, ring, await party.compute(known_mask, elements), x.depth)
    mine = await party.compute(lambda: ring.add(x.value, party.draw(2, "open", ring, x.shape)), elements)
    theirs, depth = await party.exchange(mine, ring, x.depth)
    return Opened(party.role, ring, ring.add(mine, theirs), depth)


@gate(cost=exchange_cost, simulator=simulate_exchange)
async def remask(party: Party, x: Additive) -> Share:
    """Turn an additive sharing of roles 0 and 1 into a wire whose mask the dealer knows.

    y0 = PRF(0, 2), y2 = PRF(1, 2); role 0 sends v0 - y0, role 1 sends v1 - y2; y1 is their sum.
    Needs ``x.dealer_part`` False (the dealer holds nothing of x).  Any ring.
    Cost: 1 round, 2 messages, 2 n elements, nothing dealt.  Source: gates.md, 3.
    """
    assert not x.dealer_part, "re-mask takes sharings without a dealer part; use resolve"  # noqa: S101
    ring = x.ring
    elements = prod(x.shape)
    if party.is_dealer:
        y2, y0 = await party.compute(
            lambda: (party.draw(1, "remask", ring, x.shape), party.draw(0, "remask", ring, x.shape)), elements
        )
        return Share(2, ring, y2, y0, x.depth)
    mask, mine = await party.compute(lambda: _masked(party, x), elements)
    theirs, depth = await party.exchange(mine, ring, x.depth)
    return _wire(party, ring, mask, ring.add(mine, theirs), depth)


def together_cost(*parts: tuple[int, int]) -> Cost:
    """One exchange for all (elements, itemsize)."""
    return exchange_cost(sum(elements * itemsize for elements, itemsize in parts), 1)


def simulate_together(simulation: Simulation, party: Party, terms: Sequence[Additive]) -> None:
    """As `simulate_exchange`, one part after the other in one frame."""
    if not party.is_dealer:
        message = bytes_of([simulation.uniform(x.ring, x.shape) for x in terms])
        simulation.receives(1 - party.role, party.path, message)


@gate(cost=together_cost, simulator=simulate_together)
async def remask_together(party: Party, terms: Sequence[Additive]) -> list[Share]:
    """`remask` of several sharings, of any rings, in one exchange.

    Masks as in `remask`, at a step of its own for each.  Cost: 1 round, 2 messages, 2 n elements of each.
    """
    steps = [party.at("part", index) for index in range(len(terms))]
    depth = max(x.depth for x in terms)
    if party.is_dealer:
        return [await remask(step, x) for step, x in zip(steps, terms, strict=True)]
    masked = [_masked(step, x) for step, x in zip(steps, terms, strict=True)]
    mine = bytes_of([part for _, part in masked])
    theirs, depth = await party.exchange(mine, BYTES, depth)
    results, start = [], 0
    for x, (mask, part) in zip(terms, masked, strict=True):
        piece = x.ring.from_bytes(theirs[start : start + part.nbytes].data, part.shape)
        start += part.nbytes
        results.append(_wire(party, x.ring, mask, x.ring.add(part, piece), depth))
    return results


def bytes_of(arrays: Sequence[RingArray]) -> RingArray:
    """Several arrays as the payload of one frame."""
    return np.concatenate([np.ascontiguousarray(array).view(np.uint8).reshape(-1) for array in arrays])


def _masked(party: Party, x: Additive) -> tuple[RingArray, RingArray]:
    mask = party.draw(2, "remask", x.ring, x.shape)
    return mask, x.ring.sub(x.value, mask)


def _wire(party: Party, ring: Ring, mask_part: RingArray, masked: RingArray, depth: int) -> Share:
    """The wire with x1 = ``masked``, at role 0 with x0 and at role 1 with x2 as ``mask_part``."""
    parts = (mask_part, masked) if party.role == 0 else (masked, mask_part)
    return Share(party.role, ring, *parts, depth)


def simulate_view(
    simulation: Simulation, party: Party, opened: Opened, shift: int = 0, ring: Ring | None = None
) -> None:
    """Role 1: the dealer's part of -(r >> shift) under t0, which roles 0 and 2 alone know, so uniform."""
    simulate_deal(simulation, party, opened.ring if ring is None else ring, opened.shape)


@gate(cost=deal_cost, simulator=simulate_view)
async def view(party: Party, opened: Opened, shift: int = 0, ring: Ring | None = None) -> Share:
    """A wire of the opened value, divided by 2^shift, in the same ring or a smaller one.

    t0 = PRF(0, 2), t2 = -(r >> shift) - t0 dealt to role 1, wire (t0, c >> shift, t2); logical shifts.
    Result: floor(z / 2^shift) + e, e in {0, 1}, P[e = 1] = (z mod 2^shift) / 2^shift, exact if 2^shift | z.
    Failure: into a ring of at most k - shift bits (*truncate and reduce*): none, for every z.  Into the full
    ring: an error of 2^(k - shift) with probability |z| / 2^k, where z is at double scale; use it only on
    a freshly opened value, whose mask is uniform.  Several views of one opening are fine.
    Cost: 0 rounds, 1 message, n elements of the target ring.
    Source: Dalskov, Escudero, Keller (USENIX Security 2021); gates.md, 2.
    """
    source = opened.ring
    target = source if ring is None else ring
    if target.bits > source.bits:
        raise ValueError(f"a view of {source} cannot have the larger ring {target}")
    if source.bits - shift < target.bits < source.bits:
        raise ValueError(f"a view of {source} shifted by {shift} would wrap in {target}")

    def shifted() -> RingArray:
        return target.convert(source.shift_right(opened.value, shift))

    first, second, depth = await _deal(
        party, target, opened.shape, lambda: target.neg(shifted()), opened.depth, "view"
    )
    if party.is_dealer:
        return Share(2, target, first, second, depth)
    masked = await party.compute(shifted, prod(opened.shape))
    return _wire(party, target, first, masked, max(opened.depth, depth))


# --- composed gates ---------------------------------------------------------------------------------------


async def resolve(party: Party, x: Additive, shift: int = 0) -> Share:
    """A wire of an additive sharing, truncated by ``shift``: re-mask where that is enough, else open and view."""
    if shift == 0 and not x.dealer_part:
        return await remask(party, x)
    return await view(party, await open_additive(party, x), shift)


def product_cost(elements: int, itemsize: int) -> Cost:
    """Open and one view: a round, three elements per output."""
    return exchange_cost(elements, itemsize) + deal_cost(elements, itemsize)


@gate(cost=product_cost, simulator=composed)
async def multiply(party: Party, x: Share, y: Share, shift: int = 0) -> Share:
    """Elementwise x * y / 2^shift; shapes broadcast.

    Open of `product`, then a `view`.  Exact for shift 0; else the error and failure of `view`.
    Cost: 1 round, 3 messages, 3 n elements of the broadcast shape.  At k = 1 this is AND.
    """
    return await view(party, await open_additive(party, product(x, y)), shift)


@gate(cost=product_cost, simulator=composed)
async def dot(party: Party, x: Share, y: Share, shift: int = 0) -> Share:
    """Inner products over the last axis, which stays with length 1.  Cost as `multiply`, per output."""
    return await view(party, await open_additive(party, dot_product(x, y)), shift)


@gate(cost=product_cost, simulator=composed)
async def matmul(party: Party, x: Share, weights: Share, shift: int = 0) -> Share:
    """x @ weights / 2^shift for x (..., n), weights (n, p); exact in the ring before the shift.

    Cost: 1 round, 3 messages, 3 elements per output, whatever n.
    """
    return await view(party, await open_matmul(party, x, weights), shift)


@gate(cost=exchange_cost, simulator=composed)
async def open_matmul(party: Party, x: Share, weights: Share) -> Opened:
    """x @ weights, opened; for consumers that take a view of their own.  Cost: 1 round, 2 per output."""
    outputs = prod(x.shape[:-1]) * weights.shape[1]
    # Six limb products of float64 per multiply-add; the door counts elements touched once.
    work = outputs * max(1, weights.shape[0] // 8)
    terms = await party.compute(lambda: matrix_product(x, weights), work)
    return await open_additive(party, terms)


@gate(cost=deal_cost, simulator=composed)
async def truncate(party: Party, x: Share | Opened, shift: int, ring: Ring) -> Share:
    """x / 2^shift reduced into a ring of at most k - shift bits: floor or floor + 1, never a wrap.

    Works on every wire.  Cost: 0 rounds, n elements of the small ring.  Source: gates.md, 2 (b).
    """
    if ring.bits > x.ring.bits - shift:
        raise ValueError(f"truncate by {shift} from {x.ring} needs a ring of at most {x.ring.bits - shift} bits")
    return await view(party, as_opened(x), shift, ring)
