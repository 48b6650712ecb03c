"""Boolean shares and the parallel-prefix adder.

A bit is a wire over Z_2.  Outside the adder bits are held one to a byte (`siguard.ring.Z2`), inside it 64
to a word (`siguard.ring.PACKED`); both run gate 1 at k = 1, so the dealer never waits.
"""

from __future__ import annotations

from math import prod

from siguard.mpc.arithmetic import deal_cost, deal_wire, exchange_cost, multiply, product_cost, remask
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


def adder_levels(width: int) -> list[int]:
    """Blocks left before each level of the carry tree over ``width`` bits."""
    levels = []
    while width > 1:
        levels.append(width)
        width = -(-width // 2)
    return levels


def sign_cost(elements: int, bits: int) -> Cost:
    """Masks dealt, one exchange for the generate bits, then the levels of the carry tree."""
    words = _words(elements)
    total = deal_cost(bits * words, 8) + exchange_cost((bits - 1) * words, 8)
    for blocks in adder_levels(bits - 1):
        pairs = blocks // 2
        total += product_cost((2 * pairs - 1) * words, 8)
    return total


@gate(cost=sign_cost, simulator=composed)
async def sign_bit(party: Party, x: Share | Opened) -> Share:
    """The most significant bit of x in its ring, 1 for negative, as bits one to a byte.

    x = a + alpha with a known to roles 0 and 1 and alpha to role 2: g = a and alpha, p = a xor alpha, where
    alpha is shared by one dealt word per bit, so that g needs a re-mask only.  A carry tree of ceil(log2(k - 1))
    levels combines (g, p) of neighbouring blocks, G = g_hi xor p_hi g_lo, P = p_hi p_lo (Kogge and Stone 1973;
    only the last carry is wanted, so each level halves the blocks), and the result is p_{k-1} xor carry.

    Exact for every x.  Masks: as in `multiply` at k = 1 over packed words.
    Cost: 1 + ceil(log2(k - 1)) rounds; about 9 k / 64 words per element in all (`sign_cost`).
    """
    shape = x.shape
    elements, bits = prod(shape), x.ring.bits
    if bits < 2:
        raise ValueError("a sign needs a ring of at least 2 bits")
    words = _words(elements)
    rows = (bits, words)
    work = elements * bits // 8

    sliced = None
    if not party.is_dealer:
        sliced = await party.compute(lambda: bit_slices(x.masked(), bits), work)
    alpha = await deal_wire(party.at("mask"), PACKED, rows, lambda: bit_slices(x.mask(), bits), x.depth, work=work)
    # p = a xor alpha, where a is the wire (0, a, 0).
    propagate = alpha if sliced is None else alpha.with_masked(sliced)
    low = propagate[:-1]
    generate_terms = Additive(
        x.role,
        PACKED,
        PACKED.zeros(bits - 1, words) if sliced is None else sliced[:-1] & alpha.mask_part()[:-1],
        low.depth,
        dealer_part=False,
    )
    generate = await remask(party.at("generate"), generate_terms)
    carry = await _carry_tree(party, generate, low)
    top = xor(carry, propagate[-1:])

    def unpack(part: RingArray) -> RingArray:
        return unpack_bits(part, elements).reshape(shape)

    return Share(x.role, Z2, unpack(top.first), unpack(top.second), top.depth)


async def _carry_tree(party: Party, generate: Share, propagate: Share) -> Share:
    """Carry out of all rows (lowest first); (rows, words) to (1, words)."""
    for level, blocks in enumerate(adder_levels(generate.shape[0])):
        paired = blocks - blocks % 2
        g_low, g_high = generate[0:paired:2], generate[1:paired:2]
        p_low, p_high = propagate[0:paired:2], propagate[1:paired:2]
        # The lowest block receives no carry: its propagate bit is never used.
        left = Share.concatenate([p_high, p_high[1:]])
        right = Share.concatenate([g_low, p_low[1:]])
        both = await multiply(party.at("level", level), left, right)
        pairs = paired // 2
        new_generate = xor(g_high, both[:pairs])
        new_propagate = Share.concatenate([p_high[:1], both[pairs:]])  # first row: a place holder
        generate = _with_odd_block(new_generate, generate, paired)
        propagate = _with_odd_block(new_propagate, propagate, paired)
    return generate


def _with_odd_block(pairs: Share, before: Share, paired: int) -> Share:
    return pairs if before.shape[0] == paired else Share.concatenate([pairs, before[paired:]])
