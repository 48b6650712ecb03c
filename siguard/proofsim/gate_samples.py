"""What is sampled at the rings in use: every primitive gate, and the gates that are made of them, on many elements.

Elements of one call are independent, so a call on n of them gives n views of the gate.  Hidden values are small and
far from uniform: what of them gets through shows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.mpc.arithmetic import (
    deal_wire,
    multiply,
    open_additive,
    remask,
    remask_together,
    view,
)
from siguard.mpc.boolean import sign_bit
from siguard.mpc.conversion import bit_product, bit_terms
from siguard.mpc.curves import at_places
from siguard.mpc.io import receive_input, reveal
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Share, as_additive, as_opened
from siguard.mpc.thresholds import Way, at_least, bits_at_least
from siguard.proofsim.enumeration import Output
from siguard.ring import Z2, Z64, Ring, RingArray, ring

Wires = Sequence[Share]
#: Signed values of the wires, and of a user's input after them.
Values = Sequence[npt.NDArray[np.int64]]

Z16, Z32, INDEX = ring(16), ring(32), ring(8)
#: First and number of the places that an index is looked for at.
WINDOW = (-3, 8)
#: Hidden values have so many bits; a truncation at double scale then wraps with probability below 2^-40.
VALUE_BITS = 20
SHIFT = 8


@dataclass(frozen=True)
class GateSample:
    """A protocol on wires of n elements each.

    run: called at each server with the wires.  right: (values, recombined outputs) -> bool for each element.
    user_ring: of an input that a user shares at the step "input" and of the answer it receives at "reveal"; then
    ``right`` sees the answer as the only output, and ``answer`` computes it from the values.
    scale: elements of a call, as a multiple of those asked for: messages should have several hundred.
    reused: the gate uses a share more than once, so that what is held beside a message are not independent draws.
    """

    name: str
    rings: tuple[Ring, ...]
    run: Callable[[Party, Wires], Awaitable[Sequence[Output]]]
    right: Callable[[Values, Sequence[RingArray]], npt.NDArray[np.bool_]]
    user_ring: Ring | None = None
    answer: Callable[[Values], RingArray] | None = None
    scale: float = 1.0
    reused: bool = False


def hidden_values(rng: np.random.Generator, element_ring: Ring, n: int) -> RingArray:
    """Small values of both signs; of a small ring, elements with more zeros than ones."""
    bits = min(VALUE_BITS, max(8, element_ring.bits - 4))
    low, high = -1 << bits, 1 << bits
    values = rng.integers(low, high, n)
    if element_ring.bits <= 8:
        values &= rng.integers(low, high, n)
    return element_ring.constant(values)


def share(rng: np.random.Generator, values: RingArray, element_ring: Ring) -> list[Share]:
    """Fresh replicated shares, by role."""
    x0, x2 = (element_ring.from_bytes(rng.bytes(values.nbytes), values.shape) for _ in range(2))
    x1 = element_ring.sub(element_ring.sub(values, x0), x2)
    return [
        Share(0, element_ring, x0, x1, 0),
        Share(1, element_ring, x1, x2, 0),
        Share(2, element_ring, x2, x0, 0),
    ]


# Protocols --------------------------------------------------------------------------------------------------


async def _deal_bit(party: Party, x: Wires) -> list[Output]:
    return [await bit_terms(party.at("terms"), x[0], Z64)]


async def _deal_wire(party: Party, x: Wires) -> list[Output]:
    dealt = await deal_wire(party.at("wire"), x[0].ring, x[0].shape, lambda: x[0].mask(), 0)
    return [dealt if party.is_dealer else dealt.with_masked(x[0].masked())]


async def _open_product(party: Party, x: Wires) -> list[Output]:
    return [await open_additive(party.at("open"), product(x[0], x[1]))]


async def _remask(party: Party, x: Wires) -> list[Output]:
    return [await remask(party.at("remask"), as_additive(x[0]))]


async def _together(party: Party, x: Wires) -> list[Output]:
    return [*await remask_together(party.at("together"), [as_additive(wire) for wire in x])]


async def _views(party: Party, x: Wires) -> list[Output]:
    opened = await open_additive(party.at("open"), as_additive(x[0]))
    return [
        await view(party.at("full"), opened),
        await view(party.at("truncated"), opened, SHIFT),
        await view(party.at("small"), opened, SHIFT, Z32),
    ]


async def _sign(party: Party, x: Wires) -> list[Output]:
    return [await sign_bit(party.at("sign"), x[0])]


async def _bit_multiply(party: Party, x: Wires) -> list[Output]:
    step = party.at("product")
    return [await remask(step, await bit_product(step, x[0], x[1]))]


async def _at_least(party: Party, x: Wires) -> list[Output]:
    step = party.at("compare")
    terms = await at_least(step, as_opened(x[0]), [1], x[1][:, None])
    return [await remask(step, terms[:, 0])]


async def _bit(party: Party, x: Wires) -> list[Output]:
    return [(await bits_at_least(party.at("compare"), as_opened(x[0]), [1], Way.BIT_KEY))[:, 0]]


async def _places(party: Party, x: Wires) -> list[Output]:
    step = party.at("places")
    return [await remask(step, (await at_places(step, as_opened(x[0]), *WINDOW))[..., 0])]


async def _query(party: Party, x: Wires) -> list[Output]:
    value = await receive_input(party.at("input"), Z64, x[0].shape, 0)
    step = party.at("reveal")
    result = await remask(step, as_additive(await multiply(party.at("product"), value, x[0])))
    await reveal(step, as_additive(result))
    return []


# What must come out -----------------------------------------------------------------------------------------


def _equal(expected: Callable[..., npt.NDArray[Any]], element_ring: Ring) -> Callable[..., npt.NDArray[np.bool_]]:
    def right(values: Values, outputs: Sequence[RingArray]) -> npt.NDArray[np.bool_]:
        return np.asarray(outputs[0] == element_ring.constant(expected(*values)))

    return right


def _right_views(values: Values, outputs: Sequence[RingArray]) -> npt.NDArray[np.bool_]:
    """The value; its floor or one more, twice, rounded by one coin."""
    full, truncated, small = outputs
    excess = Z64.signed(truncated) - (values[0] >> SHIFT)
    rounded = (excess == 0) | ((excess == 1) & (values[0] % (1 << SHIFT) != 0))
    return np.asarray((full == Z64.constant(values[0])) & rounded & (small == Z32.convert(truncated)))


def _right_together(values: Values, outputs: Sequence[RingArray]) -> npt.NDArray[np.bool_]:
    return np.asarray((outputs[0] == Z2.constant(values[0])) & (outputs[1] == Z64.constant(values[1])))


def _right_at_least(values: Values, outputs: Sequence[RingArray]) -> npt.NDArray[np.bool_]:
    taken = (values[0] >= 1).astype(np.int64)
    expected = Z64.constant(np.stack([taken, taken * values[1]], axis=1))
    return np.asarray((outputs[0] == expected).all(axis=1))


def _right_places(values: Values, outputs: Sequence[RingArray]) -> npt.NDArray[np.bool_]:
    first, count = WINDOW
    expected = values[0][:, None] == first + np.arange(count)
    return np.asarray((outputs[0] == expected).all(axis=1))


def _times(x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return x * y


def samples() -> tuple[GateSample, ...]:
    """In the order of the gates' modules; wires of the ring in use, and the smaller ones that policies use."""
    same = _equal(lambda x: x, Z64)
    return (
        GateSample("deal of a bit, 2^64", (Z2,), _deal_bit, _equal(lambda b: b & 1, Z64)),
        GateSample("deal_wire, 2^64", (Z64,), _deal_wire, same),
        GateSample("open_additive of a product, 2^64", (Z64, Z64), _open_product, _equal(_times, Z64)),
        GateSample("remask, 2^64", (Z64,), _remask, same),
        GateSample("remask_together, 2 and 2^64", (Z2, Z64), _together, _right_together),
        GateSample("view in full, truncated and into 2^32, 2^64", (Z64,), _views, _right_views),
        GateSample(
            "sign_bit, 2^64 in packed words", (Z64,), _sign, _equal(lambda x: x < 0, Z2), scale=4, reused=True
        ),
        GateSample(
            "sign_bit, 2^16 in packed words", (Z16,), _sign, _equal(lambda x: x < 0, Z2), scale=4, reused=True
        ),
        GateSample("bit_product and remask, 2^64", (Z2, Z64), _bit_multiply, _equal(lambda b, x: (b & 1) * x, Z64)),
        GateSample("comparison by key with a wire, 2^32", (Z32, Z64), _at_least, _right_at_least, scale=0.5),
        GateSample("comparison by key of a bit, 2^32", (Z32,), _bit, _equal(lambda x: x >= 1, Z2), scale=0.5),
        GateSample("places by key, 2^8 to 2^64", (INDEX,), _places, _right_places, scale=0.5),
        GateSample(
            "input, product and reveal, 2^64",
            (Z64,),
            _query,
            _equal(_times, Z64),
            user_ring=Z64,
            answer=lambda values: Z64.constant(_times(*values)),
        ),
    )
