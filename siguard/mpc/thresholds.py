"""Comparison with public thresholds, and what is selected by it: [x >= t] y for wires y, before any exchange.

One gate under every sign, ReLU, step function and spline of the guard, with several ways to the same result, which
differ in rounds and bytes (`Way`).  The choice is public (`siguard.guard.plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache
from math import prod

import numpy as np

from siguard.mpc.arithmetic import deal, deal_cost, deal_wire, exchange_cost, remask
from siguard.mpc.boolean import invert, sign_bit, sign_cost
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.keyed import comparison, comparison_cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.ring import Z2, Z64, Ring, RingArray


class Way(StrEnum):
    """How a comparison is made."""

    #: One key for all thresholds and wires: no exchange, some hundred bytes.
    KEY = "key"
    #: A shorter key for a bit, then one exchange of bits.
    BIT_KEY = "bit key"
    #: A parallel-prefix adder: 1 + ceil(log4(ceil((k - 1) / 4))) exchanges, some ten bytes.
    ADDER = "adder"


@lru_cache(maxsize=4096)
def bits_cost(elements: int, bits: int, thresholds: int, by: Way) -> Cost:
    """Declared cost of `bits_at_least`, in a ring of so many bits."""
    pairs = elements * thresholds
    if by is Way.ADDER:
        return sign_cost(pairs, bits)
    return comparison_cost(elements, bits - 1, 1, Z2, thresholds) + deal_cost(elements, 1) + exchange_cost(pairs, 1)


@lru_cache(maxsize=4096)
def at_least_cost(elements: int, bits: int, thresholds: int, wires: int, target: Ring, by: Way = Way.KEY) -> Cost:
    """A key and 1 + wires constants; or the bits, and as many constants for each threshold."""
    words = 1 + wires
    if by is Way.KEY:
        constants = deal_cost(elements * words, target.itemsize)
        return comparison_cost(elements, bits - 1, words, target, thresholds) + constants
    constants = deal_cost(elements * thresholds * words, target.itemsize)
    return bits_cost(elements, bits, thresholds, by) + constants


@gate(cost=at_least_cost, simulator=composed)
async def at_least(
    party: Party,
    x: Opened,
    thresholds: Sequence[int],
    wires: Share | None = None,
    target: Ring = Z64,
    *,
    by: Way = Way.KEY,
    bits: Share | None = None,
) -> Additive:
    """[x >= t] and [x >= t] y_j for every public threshold t and wire y_j: (*x.shape, thresholds, 1 + wires).

    x: signed values of a ring of k bits, any shape.  wires: (*x.shape, wires) of the ring ``target``.
    With a key, x - t < 0 is the sign bit of a + alpha, a = c - t: ma xor u, where ma is the bit k - 1 of a, and
    u = mal xor carry = mal + (1 - 2 mal) [2^(k-1) - 1 - a_low < alpha_low], the comparison key's function.  Its
    payload is (1 - 2 mal) (1, masks of y), so that one key serves all thresholds and all wires; mal (1, masks) is
    dealt beside.  In the two other ways the bit is a wire t xor beta, and beta (1, masks) is dealt.
    bits: those of `bits_at_least`, where they were computed ahead of the wires.
    Exact while every x - t stays inside the ring.
    Cost: no round with a key, that of `bits_at_least` else; resolve with one exchange.
    Source: Boyle et al., EUROCRYPT 2021; gates.md, 4 and 5.
    """
    if wires is not None and (wires.shape[:-1] != x.shape or wires.ring != target):
        raise ValueError(f"wires of shape {wires.shape} over {wires.ring} for {x.shape} over {target}")
    if bits is not None and (bits.shape != (*x.shape, len(thresholds)) or bits.ring != Z2):
        wanted = (*x.shape, len(thresholds))
        raise ValueError(f"bits of shape {bits.shape} over {bits.ring}; needed: {wanted} over {Z2}")
    if by is Way.KEY:
        return await _with_key(party, x, thresholds, wires, target)
    if bits is None:
        bits = await bits_at_least(party, x, thresholds, by)
    return await _with_bits(party, bits, x.shape, wires, target)


@gate(cost=bits_cost, simulator=composed)
async def bits_at_least(party: Party, x: Opened, thresholds: Sequence[int], by: Way) -> Share:
    """[x >= t] as bits one to a byte, (*x.shape, thresholds), by adders or by keys of one bit.

    Exact while every x - t stays inside the ring.  Cost: that of `sign_bit` with adders, 1 round with keys.
    """
    if by is Way.ADDER:
        difference = x.reshape(*x.shape, 1).minus_public(np.array(thresholds))
        return invert(await sign_bit(party.at("adder"), difference))
    terms = await _with_key(party, x, thresholds, None, Z2)
    return await remask(party.at("bits"), terms[..., 0])


async def selected_form(
    party: Party,
    x: Opened,
    form: Callable[[RingArray, RingArray], RingArray],
    y: Share,
    z: Share,
    by: Way = Way.KEY,
    bits: Share | None = None,
) -> tuple[Additive, Additive, Additive]:
    """b y, b z and b form(y, z) for b = [x > 0], additive, from one comparison.

    y, z: (*x.shape, n) of Z_2^64.  form: bilinear over the last axis, which it leaves with length 1.
    With y = a + mu and z = e + nu, b form(y, z) = form(a, b z) + form(b y, e) - b form(a, e) + b form(mu, nu), of
    which the dealer knows and deals the last.
    Cost: `at_least` with 2 n + 1 wires, and an element dealt for each x.
    """
    n = y.shape[-1]
    known = await deal_wire(
        party.at("masks"), Z64, (*x.shape, 1), lambda: form(y.mask(), z.mask()), max(y.depth, z.depth)
    )
    terms = await at_least(party, x, [1], Share.concatenate([y, z, known], axis=-1), by=by, bits=bits)
    parts = (slice(1), slice(1, 1 + n), slice(1 + n, 1 + 2 * n), slice(-1, None))
    bit, by_y, by_z, crossed = (terms[..., 0, part] for part in parts)
    if not party.is_dealer:
        a, e = y.masked(), z.masked()
        mixed = Z64.add(form(a, by_z.value), form(by_y.value, e))
        value = Z64.add(Z64.sub(mixed, Z64.mul(form(a, e), bit.value)), crossed.value)
        crossed = Additive(party.role, Z64, value, crossed.depth, dealer_part=False)
    return by_y, by_z, crossed


def _masks(wires: Share | None, target: Ring, shape: tuple[int, ...]) -> RingArray:
    """(1, masks of the wires) at the dealer, (*shape, 1 + wires)."""
    one = np.broadcast_to(target.constant(1), (*shape, 1))
    return one if wires is None else np.concatenate([one, wires.mask()], axis=-1)


def _mask_parts(role: int, wires: Share | None, target: Ring, shape: tuple[int, ...]) -> RingArray:
    """The same, additive between roles 0 and 1; the public 1 is role 1's."""
    one = np.broadcast_to(target.constant(role), (*shape, 1))
    return one if wires is None else np.concatenate([one, wires.mask_part()], axis=-1)


def _with_public_parts(selected: RingArray, wires: Share | None, target: Ring) -> RingArray:
    """[b y] = y_a [b] + [b mask of y], in place of the second; selected: (*shape, thresholds, 1 + wires)."""
    if wires is not None:
        public = wires.masked()[..., None, :]
        selected[..., 1:] = target.add(selected[..., 1:], target.mul(public, selected[..., :1]))
    return selected


async def _with_key(
    party: Party, x: Opened, thresholds: Sequence[int], wires: Share | None, target: Ring
) -> Additive:
    ring, shape = x.ring, x.shape
    low = ring.constant((1 << (ring.bits - 1)) - 1)
    words = 1 if wires is None else 1 + wires.shape[-1]
    elements = prod(shape)
    depth = x.depth if wires is None else max(x.depth, wires.depth)

    def top(values: RingArray) -> RingArray:
        return ring.shift_right(values, ring.bits - 1)

    def constants() -> RingArray:
        return target.mul(target.constant(top(x.mask()))[..., None], _masks(wires, target, shape))

    def secrets() -> tuple[RingArray, RingArray]:
        alpha = x.mask().reshape(-1)
        sign = target.sub(target.constant(1), target.constant(2 * top(alpha)))
        return alpha & low, target.mul(sign[:, None], _masks(wires, target, shape).reshape(elements, words))

    def differences() -> RingArray:
        return ring.sub(x.masked()[..., None], ring.constant(np.array(thresholds)))

    def points() -> RingArray:
        return (low - (differences() & low)).reshape(elements, len(thresholds))

    dealt = await deal(party.at("constants"), target, (*shape, words), constants, depth)
    key_shape = (elements, len(thresholds), words)
    carries = await comparison(party.at("key"), target, key_shape, ring.bits - 1, secrets, points, depth)
    result_shape = (*shape, len(thresholds), words)
    if party.is_dealer:
        return Additive(2, target, target.zeros(*result_shape), depth, dealer_part=False)

    def combine() -> RingArray:
        u = target.add(dealt.value[..., None, :], carries.value.reshape(result_shape))
        parts = _mask_parts(party.role, wires, target, shape)[..., None, :]
        # x - t >= 0 is 1 - (ma xor u).
        selected = np.where(top(differences())[..., None] == 1, u, target.sub(parts, u))
        return _with_public_parts(selected, wires, target)

    value = await party.compute(combine, prod(result_shape))
    return Additive(party.role, target, value, max(dealt.depth, carries.depth), dealer_part=False)


async def _with_bits(
    party: Party, bit: Share, own_shape: tuple[int, ...], wires: Share | None, target: Ring
) -> Additive:
    shape = bit.shape
    words = 1 if wires is None else 1 + wires.shape[-1]
    depth = bit.depth if wires is None else max(bit.depth, wires.depth)

    def constants() -> RingArray:
        masks = _masks(wires, target, own_shape)[..., None, :]
        return target.mul(target.constant(bit.mask())[..., None], masks)

    dealt = await deal(party.at("selected"), target, (*shape, words), constants, depth)
    if party.is_dealer:
        return Additive(2, target, target.zeros(*shape, words), depth, dealer_part=False)

    def combine() -> RingArray:
        parts = _mask_parts(party.role, wires, target, own_shape)[..., None, :]
        # t xor beta = beta where t = 0, 1 - beta where t = 1.
        flipped = target.constant(bit.masked())[..., None] == 1
        selected = np.where(flipped, target.sub(parts, dealt.value), dealt.value)
        return _with_public_parts(selected, wires, target)

    value = await party.compute(combine, prod(shape) * words)
    return Additive(party.role, target, value, max(depth, dealt.depth), dealer_part=False)
