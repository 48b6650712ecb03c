"""Dealt gates on arithmetic shares against exact integers: open, view, re-mask, products, truncation."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import (
    FEW,
    FixedMasks,
    every_pair,
    in_ring,
    opened_of,
    run,
    seeds,
    share,
    share_from,
    share_opened,
    share_terms,
    signed_of,
    terms_of,
    uniform,
    value_of,
)

from siguard.actors.compute import THREAD_THRESHOLD
from siguard.mpc import arithmetic as gates
from siguard.mpc.share import Additive, Share, as_additive, as_opened
from siguard.ring import INNER_LIMIT, PACKED, Z2, Z64, Ring, ring

RINGS = [pytest.param(ring(bits), id=f"k={bits}") for bits in (1, 2, 3, 8, 16, 32, 48, 64)]


def integers(seed: int, *shape: int) -> Any:
    """Any 64-bit values, the extremes among them."""
    values = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape)
    values.flat[:3] = (-(2**63), 2**63 - 1, 0)[: values.size]
    return values


@pytest.mark.parametrize("R", RINGS)
@FEW
@given(seed=seeds)
def test_products_are_exact(R: Ring, seed: int) -> None:
    x, y, w = integers(seed, 3, 5), integers(seed + 1, 3, 5), integers(seed + 2, 5, 4)
    X, Y, W = share(x, R, seed=1), share(y, R, seed=2), share(w, R, seed=3)

    async def protocol(party: Any) -> tuple[Share, Share, Share]:
        mine, other, weights = X[party.role], Y[party.role], W[party.role]
        return (
            await gates.multiply(party.at("multiply"), mine, other),
            await gates.dot(party.at("dot"), mine, other),
            await gates.matmul(party.at("matmul"), mine, weights),
        )

    multiplied, dotted, matrix = zip(*run(protocol, seed=seed).results, strict=True)
    x, y, w = R.constant(x).astype(object), R.constant(y).astype(object), R.constant(w).astype(object)
    size = 1 << R.bits
    assert value_of(multiplied).tolist() == (x * y % size).tolist(), f"seed {seed}"
    assert value_of(dotted).tolist() == ((x * y).sum(1, keepdims=True) % size).tolist(), f"seed {seed}"
    assert value_of(matrix).tolist() == ((x @ w) % size).tolist(), f"seed {seed}"


def test_products_broadcast() -> None:
    x, y = integers(1, 3, 1, 4), integers(2, 5, 1)
    X, Y = share(x, seed=1), share(y, seed=2)
    results = run(lambda party: gates.multiply(party, X[party.role], Y[party.role])).results
    np.testing.assert_array_equal(signed_of(results), x * y)


@pytest.mark.parametrize(("rows", "inner", "outputs"), [(2, 1, 3), (8, INNER_LIMIT + 1, 128)])
def test_matmul_of_higher_axes_and_above_the_inner_limit(rows: int, inner: int, outputs: int) -> None:
    # The second size goes through limbs and, by its work, through a worker thread.
    x, w = integers(1, 2, rows // 2, inner), integers(2, inner, outputs)
    X, W = share(x, seed=1), share(w, seed=2)
    for _ in range(2):  # the second time with the limbs that were kept
        results = run(lambda party: gates.matmul(party, X[party.role], W[party.role])).results
        np.testing.assert_array_equal(signed_of(results), x @ w)


def test_large_gates_in_threads_are_exact() -> None:
    x, y = integers(1, THREAD_THRESHOLD + 3), integers(2, THREAD_THRESHOLD + 3)
    X, Y = share(x, seed=1), share(y, seed=2)
    results = run(lambda party: gates.multiply(party, X[party.role], Y[party.role])).results
    np.testing.assert_array_equal(signed_of(results), x * y)


@pytest.mark.parametrize("dealer", [False, True])
@pytest.mark.parametrize("R", [*RINGS, pytest.param(PACKED, id="packed")])
def test_open_and_resolve(R: Ring, dealer: bool) -> None:
    x = uniform(np.random.default_rng(7), R, (4, 3))
    parts = [uniform(np.random.default_rng(role), R, (4, 3)) for role in (0, 2)]
    third = parts[1] if dealer else R.zeros(4, 3)
    values = (parts[0], R.sub(R.sub(x, parts[0]), third), third)
    terms = [Additive(role, R, value, 0, dealer_part=dealer) for role, value in enumerate(values)]
    opened = run(lambda party: gates.open_additive(party, terms[party.role])).results
    np.testing.assert_array_equal(opened_of(opened), x)
    wires = run(lambda party: gates.resolve(party, terms[party.role])).results
    np.testing.assert_array_equal(value_of(wires), x)


@pytest.mark.parametrize("R", RINGS)
def test_dealt_values_and_views_of_an_opened_one(R: Ring) -> None:
    x = integers(3, 6)

    async def protocol(party: Any) -> tuple[Any, ...]:
        known = partial(R.constant, x) if party.is_dealer else None
        opened = share_opened(x, R)[party.role]
        return (
            await gates.deal(party.at("terms"), R, x.shape, known, 0),
            await gates.deal_wire(party.at("wire"), R, x.shape, known, 0),
            await gates.view(party.at("one"), opened),
            await gates.view(party.at("two"), opened),
            await gates.view(party.at("small"), opened, 0, ring(1)),
        )

    terms, wire, one, two, small = zip(*run(protocol).results, strict=True)
    expected = in_ring(x, R).tolist()
    assert R.signed(terms_of(terms)).tolist() == expected
    for view in (wire, one, two):
        assert signed_of(view).tolist() == expected
    assert one[0].first.tolist() != two[0].first.tolist() or R.bits <= 3, "two views share a mask"
    assert value_of(small).tolist() == (x % 2).tolist()


def test_remask_together_mixes_rings() -> None:
    values = [integers(1, 3), integers(2, 2, 2) % 2, integers(3, 5)]
    terms = [share_terms(v, R, seed=i) for i, (v, R) in enumerate(zip(values, (Z64, Z2, ring(12)), strict=True))]
    done = run(lambda party: gates.remask_together(party, [term[party.role] for term in terms]))
    for index, (value, term) in enumerate(zip(values, terms, strict=True)):
        results = [result[index] for result in done.results]
        np.testing.assert_array_equal(signed_of(results), in_ring(value, term[0].ring))
    assert (done.traffic.rounds, done.traffic.messages) == (1, 2)


def test_local_readings_of_a_wire_keep_its_value() -> None:
    x = integers(5, 4)
    shares = share(x)
    assert Z64.signed(terms_of([as_additive(part) for part in shares])).tolist() == x.tolist()
    assert Z64.signed(opened_of([as_opened(part) for part in shares])).tolist() == x.tolist()
    thresholds = np.array([[1], [-5], [2**62]])
    moved = [as_opened(part).minus_public(thresholds) for part in shares]
    assert Z64.signed(opened_of(moved)).tolist() == (x - thresholds).tolist()


# --- truncation -------------------------------------------------------------------------------------------


def coins(z: Any, shift: int, seed: int) -> Any:
    """e of a truncation at full scale: result - floor(z / 2^shift)."""
    results = run(partial(open_and_view, share_terms(z), shift), seed=seed).results
    return signed_of(results) - (z >> shift)


async def open_and_view(terms: Any, shift: int, party: Any) -> Share:
    return await gates.view(party, await gates.open_additive(party, terms[party.role]), shift)


@pytest.mark.parametrize("z", [1, 3 << 14, -1, -(5 << 13), (1 << 40) + 12345, -(1 << 40) + 7, 1 << 15])
def test_the_error_of_a_view_is_a_coin_with_the_stated_probability(z: int) -> None:
    shift, count = 16, 1 << 16
    e = coins(np.full(count, z), shift, seed=11)
    assert set(np.unique(e)) <= {0, 1}
    p = (z % (1 << shift)) / (1 << shift)
    # Five standard deviations of the mean of independent coins.
    assert abs(float(e.mean()) - p) <= 5 * np.sqrt(p * (1 - p) / count), (z, float(e.mean()), p)


def test_a_view_of_multiples_is_exact() -> None:
    z = np.random.default_rng(1).integers(-(2**20), 2**20, 1000) << 16
    assert not coins(z, 16, seed=3).any()


@FEW
@given(seed=seeds, shift=st.integers(1, 30))
def test_a_truncated_product_is_within_one_unit(seed: int, shift: int) -> None:
    # |x y| < 2^40: a wrap, which is not what is tested here, has a probability of 2^-24 per element.
    x, y = (np.random.default_rng(seed + i).integers(-(2**20), 2**20, 20) for i in range(2))
    X, Y = share(x, seed=1), share(y, seed=2)
    results = run(lambda party: gates.multiply(party, X[party.role], Y[party.role], shift), seed=seed).results
    assert set(np.unique(signed_of(results) - ((x * y) >> shift))) <= {0, 1}, f"seed {seed}"


@pytest.mark.parametrize(("bits", "shift"), [(4, 1), (6, 2), (8, 3), (10, 4), (8, 7)])
def test_wraps_of_a_full_ring_view_are_counted_exactly(bits: int, shift: int) -> None:
    """Every value with every mask: |z| of the 2^k masks wrap, z mod 2^shift in 2^shift of the coins are 1."""
    R = ring(bits)
    size = 1 << bits
    z, r = every_pair(R)
    terms = [Additive(role, R, value, 0, dealer_part=False) for role, value in enumerate((z, z * 0, z * 0))]
    results = run(
        partial(open_and_view, terms, shift), randomness=lambda *_: FixedMasks({("S0S2", "open"): r})
    ).results
    signed = R.signed(z)
    error = R.sub(value_of(results), R.constant(signed >> shift)).astype(np.int64).reshape(size, size)
    jump = size >> shift
    # A negative z (its mask is above -z) comes out 2^(k - shift) too high, a positive one too low.
    wrapped = np.where((signed < 0).reshape(size, size), (error - jump) % size, (error + jump) % size)
    right = error <= 1
    assert (right | (wrapped <= 1)).all()
    assert (~right).sum(1).tolist() == np.abs(signed.reshape(size, size)[:, 0]).tolist()
    e = np.where(right, error, wrapped)
    remainder = signed.reshape(size, size)[:, 0] % (1 << shift)
    assert e.sum(1).tolist() == (remainder * jump).tolist()


@pytest.mark.parametrize(("bits", "shift"), [(4, 1), (6, 0), (6, 5), (8, 3), (8, 4)])
@pytest.mark.parametrize("fewer", [0, 1])
def test_truncate_and_reduce_never_wraps(bits: int, shift: int, fewer: int) -> None:
    """Every value with every mask: floor or one more, in every ring that is small enough."""
    R, small = ring(bits), ring(max(1, bits - shift - fewer))
    z, alpha = every_pair(R)
    shares = share_from(R, z, alpha, R.zeros(*z.shape))
    results = run(lambda party: gates.truncate(party, shares[party.role], shift, small)).results
    error = small.sub(value_of(results), small.constant(R.signed(z) >> shift))
    assert set(np.unique(error)) <= {0, 1}
    exact = R.signed(z) % (1 << shift) == 0
    assert not error[exact].any()
    if small.bits > 1:
        remainders = R.signed(z).reshape(1 << bits, -1)[:, 0] % (1 << shift)
        assert (
            error.reshape(1 << bits, -1).sum(1, dtype=int).tolist() == (remainders * (1 << bits - shift)).tolist()
        )


async def test_a_truncation_into_a_ring_that_is_too_large_is_refused() -> None:
    x = share([1])[0]
    with pytest.raises(ValueError, match="at most 48 bits"):
        await gates.truncate(None, x, 16, ring(49))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="larger ring"):
        await gates.view(None, share_opened([1], ring(8))[0], 0, ring(9))  # type: ignore[arg-type]
