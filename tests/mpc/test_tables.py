"""Public tables at a secret index: every index under every mask, several tables, every ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import every_pair, run, share, share_from, terms_of, uniform, value_of

from siguard.mpc import tables as gates
from siguard.ring import Z2, Z64, Ring, ring

FEW = settings(deadline=None, max_examples=8, derandomize=True)
seeds = st.integers(0, 2**32)


def random_tables(seed: int, count: int, bits: int, target: Ring) -> Any:
    return uniform(np.random.default_rng(seed), target, (count, 1 << bits))


@pytest.mark.parametrize("target", [Z2, ring(5), ring(8), ring(16), Z64], ids=repr)
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_index_under_every_mask(bits: int, target: Ring) -> None:
    index, alpha = every_pair(ring(bits))
    shares = share_from(ring(bits), index, alpha, ring(bits).zeros(index.size))
    tables = random_tables(bits, 3, bits, target)
    results = run(lambda party: gates.lookup(party, shares[party.role], tables, target)).results
    assert results[0].ring == target
    np.testing.assert_array_equal(value_of(results), tables[:, index])


@pytest.mark.parametrize("bits", [1, 2, 4, 5])
def test_every_bit_under_every_mask(bits: int) -> None:
    index, alpha = every_pair(ring(bits))
    shares = share_from(ring(bits), index, alpha, ring(bits).zeros(index.size))
    tables = random_tables(bits, 3, bits, Z2)
    results = run(lambda party: gates.lookup_bit_terms(party, shares[party.role], tables)).results
    assert results[0].ring == Z2
    np.testing.assert_array_equal(terms_of(results), tables[:, index])


@pytest.mark.parametrize("bits", [5, 6, 7, 8, 9, 12])
@FEW
@given(seed=seeds, count=st.integers(1, 4), shape=st.sampled_from([(1,), (9,), (2, 3), (3, 1, 2)]))
def test_large_tables(bits: int, seed: int, count: int, shape: tuple[int, ...]) -> None:
    index = np.random.default_rng(seed).integers(0, 1 << bits, shape)
    index.flat[0] = (1 << bits) - 1
    shares = share(index, ring(bits), seed=seed)
    words, planes = random_tables(seed, count, bits, Z64), random_tables(seed + 1, count, bits, Z2)

    async def protocol(party: Any) -> tuple[Any, ...]:
        mine = shares[party.role]
        return (
            await gates.lookup(party.at("words"), mine, words),
            await gates.lookup_terms(party.at("terms"), mine, words),
            await gates.lookup_bit_terms(party.at("bits"), mine, planes),
        )

    wires, terms, bit_terms = zip(*run(protocol, seed=seed).results, strict=True)
    assert value_of(wires).shape == (count, *shape)
    np.testing.assert_array_equal(value_of(wires), words[:, index], err_msg=f"seed {seed}")
    np.testing.assert_array_equal(terms_of(terms), words[:, index], err_msg=f"seed {seed}")
    np.testing.assert_array_equal(terms_of(bit_terms), planes[:, index], err_msg=f"seed {seed}")


def test_many_indices_are_read_in_blocks() -> None:
    count = gates._BLOCK_ROWS + 5
    index = np.random.default_rng(1).integers(0, 8, count)
    shares = share(index, ring(3))
    words, planes = random_tables(1, 2, 3, Z64), random_tables(2, 2, 3, Z2)
    wires = run(lambda party: gates.lookup(party, shares[party.role], words)).results
    bits = run(lambda party: gates.lookup_bit_terms(party, shares[party.role], planes)).results
    np.testing.assert_array_equal(value_of(wires), words[:, index])
    np.testing.assert_array_equal(terms_of(bits), planes[:, index])


@pytest.mark.parametrize("gate", [gates.lookup_terms, gates.lookup_bit_terms])
@pytest.mark.parametrize(("bits", "shape"), [(3, (1, 7)), (3, (1, 16)), (3, (8,)), (13, (1, 1 << 13))])
async def test_tables_that_do_not_fit_the_index_are_refused(gate: Any, bits: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"{bits} bits"):
        await gate(None, share([1], ring(bits))[0], np.zeros(shape, np.uint8))


def test_signed_indices_are_twos_complement() -> None:
    assert gates.signed_indices(3).tolist() == [0, 1, 2, 3, -4, -3, -2, -1]
    assert ring(7).signed(ring(7).constant(np.arange(128))).tolist() == gates.signed_indices(7).tolist()
