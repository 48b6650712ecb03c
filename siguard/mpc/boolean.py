"""Boolean shares and the sign by a parallel-prefix adder over small tables.

A bit is a wire over Z_2.  Outside the adder bits are held one to a byte (`siguard.ring.Z2`), inside it 64
to a word (`siguard.ring.PACKED`); both run gate 1 at k = 1, so the dealer never waits.
"""

from __future__ import annotations

from math import prod

import numpy as np

from siguard.mpc.arithmetic import deal_cost, deal_wire, exchange_cost, multiply, product_cost, remask
from siguard.mpc.carry import carry_cost, carry_out
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.ring import PACKED, Z2, RingArray, bit_slices, unpack_bits


def invert(bit: Share) -> Share:
    """1 - bit.  Local."""
    return bit + 1


def xor(x: Share, y: Share) -> Share:
    """x xor y.  Local."""
    return x + y


@gate(cost=lambda elements: product_cost(elements, 1), simulator=composed)
async def and_bits(party: Party, x: Share, y: Share) -> Share:
    """x and y, for bits one to a byte.  Cost: 1 round, 3 messages, 3 n bytes."""
    return await multiply(party, x, y)


def _words(elements: int) -> int:
    return -(-elements // 64)


#: Bits that one table adds up.
_CHUNK = 4


def _chunks(bits: int) -> tuple[int, int]:
    """How many chunks all bits but the top one make, and the width of the lowest; the others are full."""
    count = -(-(bits - 1) // _CHUNK)
    return count, bits - 1 - _CHUNK * (count - 1)


def _table_rows(bits: int) -> int:
    """Dealt bits to an element: one less than its entries for each table, and the top bit of the mask."""
    count, lowest = _chunks(bits)
    return (1 << lowest) - 1 + ((1 << _CHUNK) - 1) * (count - 1) + 1


def sign_cost(elements: int, bits: int) -> Cost:
    """Tables dealt, one exchange for what their entries generate and propagate, then the carry tree."""
    words = _words(elements)
    count, _ = _chunks(bits)
    tables = deal_cost(_table_rows(bits) * words, 8) + exchange_cost((2 * count - 1) * words, 8)
    return tables + carry_cost(count, words)


@gate(cost=sign_cost, simulator=composed)
async def sign_bit(party: Party, x: Share | Opened) -> Share:
    """The most significant bit of x in its ring, 1 for negative, as bits one to a byte.

    x = a + alpha with a known to roles 0 and 1 and alpha to role 2.  The bits below the top one are cut into chunks
    of four, and for each chunk role 2 deals the table [v + alpha = 15] of all 16 values v, one bit set: at the
    public v = a its entry is whether the chunk propagates a carry, and the sum of the entries before it whether it
    generates one.  A tree over the chunks (`siguard.mpc.carry`) gives the last carry, and the result is
    a xor alpha xor carry at the top.

    Exact for every x.  Masks: as in `deal` and `remask`.
    Cost: 1 + ceil(log4(ceil((k - 1) / 4))) rounds; about 6 k / 64 words per element in all (`sign_cost`).
    Source: one-time truth tables, Ishai et al., TCC 2013.
    """
    shape = x.shape
    elements, bits = prod(shape), x.ring.bits
    if bits < 2:
        raise ValueError("a sign needs a ring of at least 2 bits")
    count, lowest = _chunks(bits)
    work = elements * bits // 8

    def tables() -> RingArray:
        planes = bit_slices(x.mask(), bits)
        dealt = [_one_hot(planes[None, :lowest])[:, :-1]]
        if count > 1:
            dealt.append(_one_hot(_full_chunks(planes, lowest))[:, :-1])
        return np.concatenate([*(table.reshape(-1, table.shape[-1]) for table in dealt), planes[-1:]])

    words = _words(elements)
    alpha = await deal_wire(party.at("tables"), PACKED, (_table_rows(bits), words), tables, x.depth, work=work * 4)
    top, terms = alpha[-1:], PACKED.zeros(2 * count - 1, words)
    if not party.is_dealer:

        def looked_up() -> tuple[RingArray, RingArray]:
            planes = bit_slices(x.masked(), bits)
            parts, end = alpha.mask_part(), (1 << lowest) - 1
            generate, _ = _looked_up(party.role, parts[None, :end], planes[None, :lowest])
            if count == 1:
                return generate, planes[-1:]
            full = parts[end:-1].reshape(count - 1, -1, words)
            others = _looked_up(party.role, full, _full_chunks(planes, lowest))
            return np.concatenate([generate, *others]), planes[-1:]

        terms, a_top = await party.compute(looked_up, work * 4)
        top = top.with_masked(a_top)
    both = await remask(party.at("generate"), Additive(x.role, PACKED, terms, alpha.depth, dealer_part=False))
    sign = xor(await carry_out(party, both), top)

    def unpack(part: RingArray) -> RingArray:
        return unpack_bits(part, elements).reshape(shape)

    return Share(x.role, Z2, unpack(sign.first), unpack(sign.second), sign.depth)


def _full_chunks(planes: RingArray, lowest: int) -> RingArray:
    """Planes of all chunks above the lowest: (chunks, 4, words)."""
    return planes[lowest:-1].reshape(-1, _CHUNK, planes.shape[-1])


def _one_hot(planes: RingArray) -> RingArray:
    """[v + alpha = 2^w - 1] for every v: (chunks, 2^w, words); planes of alpha (chunks, w, words), lowest first."""
    chunks, width, words = planes.shape
    table = np.full((chunks, 1, words), ~np.uint64(0))
    for bit in reversed(range(width)):
        plane = planes[:, bit : bit + 1]
        table = np.stack([table & plane, table & ~plane], axis=2).reshape(chunks, -1, words)
    return table


def _looked_up(role: int, entries: RingArray, planes: RingArray) -> tuple[RingArray, RingArray]:
    """Own parts of what each chunk generates and propagates, (chunks, words) each.

    entries: parts of all entries but the last; planes: of the public v.
    """
    # All entries of a table sum to 1.
    last = np.bitwise_xor.reduce(entries, axis=1, keepdims=True)
    sums = np.concatenate([entries, ~last if role == 1 else last], axis=1)
    low, plane = sums[:, ::2], planes[:, :1]
    generate, sums = plane & low, low ^ sums[:, 1::2]
    propagate = low ^ (plane & sums)
    for bit in range(1, planes.shape[1]):
        plane, low = planes[:, bit : bit + 1], sums[:, ::2]
        generate = generate[:, ::2] ^ (plane & (generate[:, ::2] ^ generate[:, 1::2] ^ low))
        propagate = propagate[:, ::2] ^ (plane & (propagate[:, ::2] ^ propagate[:, 1::2]))
        sums = low ^ sums[:, 1::2]
    return generate[:, 0], propagate[:, 0]
