"""The protocols that are enumerated: single gates, gates in sequence, whole queries, on the wires they are given.

A function without a docstring calls the gate it is named after.
"""

from __future__ import annotations

from collections.abc import Sequence

from siguard.mpc.arithmetic import (
    deal,
    deal_wire,
    dot,
    multiply,
    open_additive,
    remask,
    remask_together,
    truncate,
    view,
)
from siguard.mpc.boolean import and_bits, sign_bit
from siguard.mpc.conversion import bit_multiply, bit_product, bit_terms, bit_to_arithmetic, select
from siguard.mpc.io import receive_input, reveal
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Opened, Share, as_additive, as_opened
from siguard.mpc.thresholds import at_least
from siguard.proofsim.enumeration import GateUnderTest, Output
from siguard.ring import Z2, Ring, ring

Wires = Sequence[Share]
Z4 = ring(2)


def column(wires: Wires) -> Share:
    """Scalars side by side: (cases, wires)."""
    return Share.concatenate([wire[:, None] for wire in wires], axis=1)


# --- single gates -----------------------------------------------------------------------------------------


async def dealt(party: Party, x: Wires) -> Additive:
    """The mask of a wire, dealt, plus its public part: the value again."""
    terms = await deal(party, x[0].ring, x[0].shape, lambda: x[0].mask(), 0)
    return terms.map(lambda part: x[0].ring.add(part, x[0].masked())) if party.role == 0 else terms


async def dealt_wire(party: Party, x: Wires) -> Share:
    """The mask of a wire, dealt as a wire, with the public part put back."""
    wire = await deal_wire(party, x[0].ring, x[0].shape, lambda: x[0].mask(), 0)
    return wire if party.is_dealer else wire.with_masked(x[0].masked())


async def opened(party: Party, x: Wires) -> Opened:
    return await open_additive(party, as_additive(x[0]))


async def open_product(party: Party, x: Wires) -> Opened:
    return await open_additive(party, product(x[0], x[1]))


async def viewed(party: Party, x: Wires, shift: int, target: Ring) -> Share:
    return await view(party, await open_additive(party, as_additive(x[0])), shift, target)


async def two_views(party: Party, x: Wires) -> list[Output]:
    """Two views of one opening, at full scale and truncated."""
    opened = await open_additive(party, as_additive(x[0]))
    return [await view(party.at("full"), opened), await view(party.at("truncated"), opened, 1, Z2)]


async def truncated(party: Party, x: Wires, shift: int, target: Ring) -> Share:
    return await truncate(party, x[0], shift, target)


async def remasked(party: Party, x: Wires) -> Share:
    return await remask(party, as_additive(x[0]))


async def together(party: Party, x: Wires) -> Sequence[Output]:
    return await remask_together(party, [as_additive(x[0]), as_additive(x[1])])


async def multiplied(party: Party, x: Wires, shift: int = 0) -> Share:
    return await multiply(party, x[0], x[1], shift)


async def dot_of(party: Party, x: Wires) -> Share:
    return await dot(party, column(x[:2]), column(x[2:]))


async def conjunction(party: Party, x: Wires) -> Share:
    return await and_bits(party, x[0], x[1])


async def sign(party: Party, x: Wires) -> Share:
    return await sign_bit(party, x[0])


async def terms_of_bit(party: Party, x: Wires, target: Ring) -> Additive:
    return await bit_terms(party, x[0], target)


async def bit_as_number(party: Party, x: Wires, target: Ring) -> Share:
    return await bit_to_arithmetic(party, x[0], target)


async def product_with_bit(party: Party, x: Wires) -> Additive:
    return await bit_product(party, x[0], x[1])


async def multiplied_by_bit(party: Party, x: Wires) -> Share:
    return await bit_multiply(party, x[0], x[1])


async def selected(party: Party, x: Wires) -> Share:
    return await select(party, x[0], x[1], x[2])


# --- gates in sequence ------------------------------------------------------------------------------------


async def then(party: Party, x: Wires, gates: Sequence[GateUnderTest]) -> Share:
    """Each gate takes the last result and the next wire."""
    value, rest = x[0], list(x[1:])
    for number, gate in enumerate(gates):
        result = await gate(party.at("step", number), [value, rest[number % len(rest)] if rest else value])
        assert isinstance(result, Share)  # noqa: S101 - only such gates are chained
        value = result
    return value


async def remask_value(party: Party, x: Wires) -> Share:
    return await remask(party, as_additive(x[0]))


async def double_bit(party: Party, x: Wires) -> Share:
    """A sign, then the product of the bit with another value: two uses of one comparison."""
    return await bit_multiply(party.at("product"), await sign_bit(party.at("sign"), x[0]), x[1])


# --- with the user ----------------------------------------------------------------------------------------


async def query(party: Party, x: Wires, shift: int = 0, ring_of_input: Ring = Z2) -> list[Output]:
    """A query in small: the user's input times a weight, perhaps truncated, revealed to the user."""
    value = await receive_input(party.at("input"), ring_of_input, x[0].shape, 0)
    result = await multiply(party.at("product"), value, x[0], shift)
    await reveal(party.at("reveal"), as_additive(result))
    return []


async def answer(party: Party, x: Wires, shift: int) -> list[Output]:
    """A secret of the servers, truncated and revealed: what the coins of truncation say is all there is to see."""
    opened = await open_additive(party.at("open"), as_additive(x[0]))
    await reveal(party.at("reveal"), as_additive(await view(party.at("open"), opened, shift)))
    return []


async def query_sign(party: Party, x: Wires) -> list[Output]:
    """The sign of the user's input plus a secret, revealed as the number 0 or 1."""
    value = await receive_input(party.at("input"), Z4, x[0].shape, 0)
    bit = await sign_bit(party.at("sign"), value + x[0])
    await reveal(party.at("reveal"), as_additive(await bit_to_arithmetic(party.at("convert"), bit, Z4)))
    return []


async def query_key(party: Party, x: Wires) -> list[Output]:
    """The sign of the user's input plus a secret by a key, revealed before any exchange."""
    value = await receive_input(party.at("input"), Z4, x[0].shape, 0)
    terms = await at_least(party.at("sign"), as_opened(value + x[0]), [0], target=Z4)
    await reveal(party.at("reveal"), terms[..., 0, 0])
    return []
