"""Bits and the adder: AND, XOR, and the sign of every value of every small ring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import FEW, every_pair, run, share, share_from, share_opened, uniform, value_of

from siguard.mpc.boolean import and_bits, invert, sign_bit, xor
from siguard.mpc.carry import carry_cost, carry_out
from siguard.mpc.share import Opened
from siguard.ring import PACKED, Z2, Ring, pack_bits, ring


def signs(shares: Any, **options: Any) -> np.ndarray[Any, Any]:
    results = run(lambda party: sign_bit(party, shares[party.role]), **options).results
    assert results[0].ring == Z2
    return value_of(results)


@pytest.mark.parametrize("count", [1, 64, 130])
def test_truth_tables(count: int) -> None:
    x, y = (np.random.default_rng(seed).integers(0, 2, (2, count)) for seed in (1, 2))
    X, Y = share(x, Z2, seed=1), share(y, Z2, seed=2)
    results = run(lambda party: and_bits(party, X[party.role], Y[party.role])).results
    np.testing.assert_array_equal(value_of(results), x & y)
    np.testing.assert_array_equal(value_of([xor(a, b) for a, b in zip(X, Y, strict=True)]), x ^ y)
    np.testing.assert_array_equal(value_of([invert(a) for a in X]), 1 - x)


@pytest.mark.parametrize("half", [0, 2])
@pytest.mark.parametrize("bits", range(2, 9))
def test_the_sign_of_every_value_under_every_mask(bits: int, half: int) -> None:
    """The mask is in x0 or in x2, the other one is random."""
    R = ring(bits)
    z, alpha = every_pair(R)
    other = uniform(np.random.default_rng(bits), R, z.shape)
    masks = (R.sub(alpha, other), other) if half == 0 else (other, R.sub(alpha, other))
    bits_found = signs(share_from(R, z, *masks))
    np.testing.assert_array_equal(bits_found, z >> (bits - 1))


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_sign_of_every_opened_value_under_every_mask(bits: int) -> None:
    R = ring(bits)
    z, r = every_pair(R)
    opened = [Opened(role, R, value, 0) for role, value in enumerate((R.add(z, r), R.add(z, r), r))]
    np.testing.assert_array_equal(signs(opened), z >> (bits - 1))


def extremes(bits: int) -> list[int]:
    half = 1 << (bits - 1)
    near = [0, 1, 2, 3, half - 1, half - 2, half // 2]
    powers = [1 << shift for shift in range(bits - 1)]
    return sorted({sign * value for value in (*near, *powers) for sign in (1, -1)} | {-half, -half + 1})


@pytest.mark.parametrize("bits", [9, 15, 16, 17, 31, 32, 33, 40, 48, 63, 64])
@FEW
@given(seed=st.integers(0, 2**32))
def test_the_sign_in_large_rings(bits: int, seed: int) -> None:
    R = ring(bits)
    half = 1 << (bits - 1)
    sampled = np.random.default_rng(seed).integers(-half, half - 1, 40, endpoint=True)
    x = np.concatenate([np.array(extremes(bits), np.int64), sampled])
    shares = share(x, R, seed=seed)
    np.testing.assert_array_equal(signs(shares, seed=seed), x < 0, err_msg=f"seed {seed}")
    opened = share_opened(x, R, seed=seed)
    np.testing.assert_array_equal(signs(opened, seed=seed), x < 0, err_msg=f"seed {seed}")


@pytest.mark.parametrize("masks", ["zero", "ones", "carry"])
def test_the_sign_at_the_masks_that_carry_furthest(masks: str) -> None:
    R: Ring = ring(64)
    x = R.constant(np.array(extremes(64), np.int64))
    x0 = {"zero": x * 0, "ones": x * 0 - np.uint64(1), "carry": x - np.uint64(1)}[masks]
    np.testing.assert_array_equal(signs(share_from(R, x, x0, x * 0)), x >> np.uint64(63))


@pytest.mark.parametrize("shape", [(1,), (63,), (64,), (65,), (2, 3, 5), (1, 1, 1, 7), (129, 2)])
def test_signs_keep_the_shape(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).integers(-9, 9, shape)
    np.testing.assert_array_equal(signs(share(x, ring(12))), x < 0)


def test_signs_of_a_broadcast_share() -> None:
    x = np.array([[3], [-4]])
    shares = [part.broadcast(2, 70) for part in share(x)]
    np.testing.assert_array_equal(signs(shares), np.broadcast_to(x, (2, 70)) < 0)


async def test_a_single_bit_has_no_sign() -> None:
    with pytest.raises(ValueError, match="at least 2 bits"):
        await sign_bit(None, share([1], Z2)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("blocks", "rounds"), [(1, 0), (2, 1), (4, 1), (5, 2), (8, 2), (16, 2), (17, 3), (64, 3)])
def test_the_carry_tree_has_logarithmic_depth(blocks: int, rounds: int) -> None:
    assert carry_cost(blocks, 3).rounds == rounds


@pytest.mark.parametrize("blocks", range(1, 24))
def test_carries_of_every_number_of_blocks(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    # Seldom generated and mostly passed on, so that carries come from far below.
    g = rng.random((blocks, 640)) < 0.15
    p = ~g & (rng.random((blocks, 640)) < 0.9)
    rows = share(pack_bits(np.concatenate([g, p[1:]]).astype(np.uint8)), PACKED, seed=blocks)
    done = run(lambda party: carry_out(party, rows[party.role]), seed=blocks)
    carry = np.zeros(640, bool)
    for row in range(blocks):
        carry = g[row] | (p[row] & carry)
    np.testing.assert_array_equal(value_of(done.results), pack_bits(carry[None].astype(np.uint8)))
