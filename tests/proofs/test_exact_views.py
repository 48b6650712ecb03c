"""Exact view tests of the shipped gates on tiny rings, for each corrupt server; and a control that is caught."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from siguard.mpc.arithmetic import (
    multiply,
    open_additive,
    product,
    remask,
    remask_together,
    truncate,
    view,
)
from siguard.mpc.conversion import bit_multiply
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_additive
from siguard.mpc.tables import lookup, lookup_bit_terms
from siguard.proofsim.enumeration import Enumeration, enumerate_gate, recombine, total_variation
from siguard.ring import Z2, ring


async def product_gate(party: Party, x: Sequence[Share]) -> Share:
    return await multiply(party, x[0], x[1])


async def lazy_product_gate(party: Party, x: Sequence[Share]) -> Opened:
    return await open_additive(party, product(x[0], x[1]))


async def reshare_gate(party: Party, x: Sequence[Share]) -> Share:
    return await remask(party, as_additive(x[0]))


def assert_secure(enumeration: Enumeration) -> None:
    for test in enumeration.tests:
        assert test.total_variation == 0.0, f"role {test.role} sees what it does not hold ({test.cases} cases)"


@pytest.mark.parametrize("bits", [1, 2])
async def test_product_hides_the_inputs_from_every_server(bits: int) -> None:
    """Gate 1; at one bit it is AND.  Z_2: 512 cases, Z_4: 262,144 cases."""
    enumeration = await enumerate_gate(product_gate, [ring(bits)] * 2)
    assert enumeration.tests[0].cases == 2 ** (9 * bits)
    inputs = enumeration.inputs(ring(bits))
    assert np.array_equal(recombine(enumeration.results), inputs[:, 0] * inputs[:, 1] % 2**bits)
    assert_secure(enumeration)


@pytest.mark.parametrize("bits", [1, 2])
async def test_lazy_product_hides_the_inputs(bits: int) -> None:
    """An opening alone, without a view: nothing is dealt."""
    enumeration = await enumerate_gate(lazy_product_gate, [ring(bits)] * 2)
    inputs = enumeration.inputs(ring(bits))
    assert np.array_equal(recombine(enumeration.results), inputs[:, 0] * inputs[:, 1] % 2**bits)
    assert_secure(enumeration)


@pytest.mark.parametrize("bits", [1, 2, 3])
async def test_reshare_hides_the_parts(bits: int) -> None:
    """Gate 3, for every distribution of the additive parts."""
    enumeration = await enumerate_gate(reshare_gate, [ring(bits)])
    assert np.array_equal(recombine(enumeration.results), enumeration.inputs(ring(bits))[:, 0])
    assert_secure(enumeration)


@pytest.mark.parametrize("position", [0, 1])
async def test_reshare_of_two_rings_in_one_frame(position: int) -> None:
    async def gate(party: Party, x: Sequence[Share]) -> Share:
        return (await remask_together(party, [as_additive(x[0]), as_additive(x[1])]))[position]

    enumeration = await enumerate_gate(gate, [Z2, ring(2)])
    shared = enumeration.parts.sum(axis=2)[:, position]
    assert np.array_equal(recombine(enumeration.results), shared % [2, 4][position])
    assert_secure(enumeration)


@pytest.mark.parametrize("dealer", ["S0", "S1"])
async def test_rotation_changes_nothing(dealer: str) -> None:
    assert_secure(await enumerate_gate(product_gate, [Z2, Z2], dealer=dealer))


@pytest.mark.parametrize("bits", [1, 2])
async def test_control_product_without_its_masks_is_caught(bits: int) -> None:
    """r0 = r2 = 0: roles 0 and 1 then see each other's terms.  The same test passes on the gate as shipped."""
    enumeration = await enumerate_gate(product_gate, [ring(bits)] * 2, zeroed={"open"})
    distances = [test.total_variation for test in enumeration.tests]
    assert distances[0] >= 0.5
    assert distances[1] >= 0.5
    assert distances[2] == 0.0, "the dealer receives nothing, with or without masks"


async def test_control_reshare_without_masks_is_caught() -> None:
    enumeration = await enumerate_gate(reshare_gate, [ring(2)], zeroed={"remask"})
    assert enumeration.tests[0].total_variation == 1.0


async def test_control_view_without_its_mask_is_caught() -> None:
    """The dealer's element in the clear tells role 1 the mask of the wire."""
    enumeration = await enumerate_gate(product_gate, [ring(2)] * 2, zeroed={"view"})
    assert enumeration.tests[1].total_variation > 0.0


@pytest.mark.parametrize(("bits", "shift"), [(2, 1), (3, 1), (3, 2)])
async def test_truncated_view_is_floor_or_one_more(bits: int, shift: int) -> None:
    """Gate 2 (b): into the small ring there is no wrap, whatever z and whatever the mask."""
    small = ring(bits - shift)

    async def gate(party: Party, x: Sequence[Share]) -> Share:
        opened = await open_additive(party, as_additive(x[0]))
        return await view(party, opened, shift, small)

    enumeration = await enumerate_gate(gate, [ring(bits)])
    z = enumeration.inputs(ring(bits))[:, 0]
    excess = (recombine(enumeration.results) - (z >> shift)) % 2**small.bits
    assert set(np.unique(excess)) <= {0, 1}
    rate = [float(excess[z == value].mean()) for value in range(2**bits)]
    assert rate == pytest.approx([(value % 2**shift) / 2**shift for value in range(2**bits)], abs=0)
    assert_secure(enumeration)


@pytest.mark.parametrize(("bits", "shift"), [(3, 1), (3, 2)])
async def test_full_ring_view_wraps_exactly_as_often_as_stated(bits: int, shift: int) -> None:
    """Gate 2 (a): P[wrap] = |z| / 2^k."""

    async def gate(party: Party, x: Sequence[Share]) -> Share:
        return await view(party, await open_additive(party, as_additive(x[0])), shift)

    enumeration = await enumerate_gate(gate, [ring(bits)])
    value = ring(bits).signed(enumeration.inputs(ring(bits))[:, 0].astype(np.uint8))
    result = ring(bits).signed(recombine(enumeration.results).astype(np.uint8))
    wrapped = ~np.isin(result - (value >> shift), [0, 1])
    for z in range(-(2 ** (bits - 1)), 2 ** (bits - 1)):
        assert wrapped[value == z].mean() == abs(z) / 2**bits, f"z = {z}"
    assert_secure(enumeration)


async def test_truncate_of_any_wire_hides_it() -> None:
    async def gate(party: Party, x: Sequence[Share]) -> Share:
        return await truncate(party, x[0], 1, ring(2))

    assert_secure(await enumerate_gate(gate, [ring(3)]))


@pytest.mark.parametrize("bits", [1, 2])
async def test_bit_product_hides_bit_and_value(bits: int) -> None:
    """Gate 5c: a shared bit times a shared value, one exchange."""

    async def gate(party: Party, x: Sequence[Share]) -> Share:
        return await bit_multiply(party, x[0], x[1])

    enumeration = await enumerate_gate(gate, [Z2, ring(bits)])
    inputs = enumeration.parts.sum(axis=2)
    expected = (inputs[:, 0] % 2) * inputs[:, 1] % 2**bits
    assert np.array_equal(recombine(enumeration.results), expected)
    assert_secure(enumeration)


@pytest.mark.parametrize(("index_bits", "out_bits"), [(1, 1), (1, 2), (2, 1)])
async def test_table_hides_the_index(index_bits: int, out_bits: int) -> None:
    """A dealt unit vector read at a public rotation: every table of this size is served by the same frames."""
    table = (np.arange(2**index_bits) * 3 + 1) % 2**out_bits

    async def gate(party: Party, x: Sequence[Share]) -> Share:
        target = ring(out_bits)
        return (await lookup(party, x[0], target.constant(table[None]), target))[0]

    enumeration = await enumerate_gate(gate, [ring(index_bits)])
    index = enumeration.inputs(ring(index_bits))[:, 0]
    assert np.array_equal(recombine(enumeration.results), table[index])
    assert_secure(enumeration)


async def test_bit_table_is_right_for_every_index_and_mask() -> None:
    """The packed form draws whole words, so only its values are enumerated: all input parts, 2 index bits."""
    table = np.array([[1, 0, 0, 1]], np.uint8)

    async def gate(party: Party, x: Sequence[Share]) -> Additive:
        return (await lookup_bit_terms(party, x[0], table))[0]

    enumeration = await enumerate_gate(gate, [ring(2)], zeroed={"dealt"})
    index = enumeration.inputs(ring(2))[:, 0]
    assert np.array_equal(recombine(enumeration.results), table[0][index])


def test_total_variation_of_known_distributions() -> None:
    hidden = np.repeat([0, 1], 4)[:, None]
    own = np.zeros((8, 1), np.int64)
    assert total_variation(own, hidden, np.tile([0, 1, 2, 3], 2)[:, None]) == 0.0
    assert total_variation(own, hidden, np.array([0, 0, 1, 1, 0, 0, 0, 1])[:, None]) == 0.25
    assert total_variation(own, hidden, np.array([0, 0, 0, 0, 1, 1, 1, 1])[:, None]) == 1.0


async def test_too_many_cases_are_refused() -> None:
    with pytest.raises(ValueError, match="cases"):
        await enumerate_gate(product_gate, [ring(4)] * 2)
