"""Shared bits times shared values: bit to arithmetic, bit product, select, against exact integers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import FEW, in_ring, run, seeds, share, share_from, signed_of, terms_of, value_of

from siguard.mpc import conversion as gates
from siguard.mpc.share import Additive
from siguard.ring import Z2, Ring, ring

RINGS = [pytest.param(ring(bits), id=f"k={bits}") for bits in (1, 2, 5, 8, 16, 32, 64)]


@pytest.mark.parametrize("R", RINGS)
def test_a_bit_becomes_an_integer_under_every_mask(R: Ring) -> None:
    # All values and both masks of a bit.
    bit, x0, x2 = (Z2.constant(column) for column in np.array(list(product([0, 1], repeat=3))).T)
    B = share_from(Z2, bit, x0, x2)
    terms: list[Additive] = run(lambda party: gates.bit_terms(party, B[party.role], R)).results
    assert not terms[0].dealer_part
    assert terms_of(terms).tolist() == bit.tolist()
    wires = run(lambda party: gates.bit_to_arithmetic(party, B[party.role], R)).results
    assert wires[0].ring == R
    assert value_of(wires).tolist() == bit.tolist()


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_a_bit_times_every_value_under_every_mask(bits: int) -> None:
    R, size = ring(bits), 1 << bits
    columns = np.array(list(product([0, 1], [0, 1], range(size), range(size)))).T
    bit, beta, y, mask = columns
    B = share_from(Z2, Z2.constant(bit), Z2.constant(beta), Z2.zeros(bit.size))
    Y = share_from(R, R.constant(y), R.constant(mask), R.zeros(y.size))
    results = run(lambda party: gates.bit_multiply(party, B[party.role], Y[party.role])).results
    assert value_of(results).tolist() == (bit * y).tolist()


@pytest.mark.parametrize("R", RINGS)
@pytest.mark.parametrize(
    ("bit_shape", "shape"), [((7,), (7,)), ((3, 1), (3, 5)), ((3, 5), (1, 5)), ((2, 3, 1), (3, 4)), ((1,), (4,))]
)
def test_products_and_select_broadcast(R: Ring, bit_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(9)
    bit = rng.integers(0, 2, bit_shape)
    x, y = (rng.integers(-(2**63), 2**63 - 1, shape) for _ in range(2))
    B, X, Y = share(bit, Z2, seed=1), share(x, R, seed=2), share(y, R, seed=3)

    async def protocol(party: Any) -> tuple[Any, ...]:
        b, mine = B[party.role], X[party.role]
        return (
            await gates.bit_product(party.at("terms"), b, mine),
            await gates.bit_multiply(party.at("product"), b, mine),
        )

    terms, products = zip(*run(protocol).results, strict=True)
    expected = in_ring(bit * x, R).tolist()
    assert R.signed(terms_of(terms)).tolist() == expected
    assert signed_of(products).tolist() == expected
    chosen = run(lambda party: gates.select(party, B[party.role], X[party.role], Y[party.role])).results
    assert signed_of(chosen).tolist() == in_ring(np.where(bit, x, y), R).tolist()


@FEW
@given(seed=seeds, count=st.integers(1, 40))
def test_select_takes_every_64_bit_value(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    bit = rng.integers(0, 2, count)
    x, y = (rng.integers(-(2**63), 2**63 - 1, count) for _ in range(2))
    B, X, Y = share(bit, Z2, seed=seed), share(x, seed=seed + 1), share(y, seed=seed + 2)
    chosen = run(lambda party: gates.select(party, B[party.role], X[party.role], Y[party.role]), seed=seed).results
    np.testing.assert_array_equal(signed_of(chosen), np.where(bit, x, y), err_msg=f"seed {seed}")
