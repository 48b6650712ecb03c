"""Functions of a secret from one key each: places, exponential, piecewise linear, scaled steps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import (
    CELL_SHIFT,
    FEW,
    UNIT,
    every_pair,
    run,
    run_seen,
    seeds,
    share,
    share_from,
    share_opened,
    terms_of,
    uniform,
)

from siguard.mpc import curves as gates
from siguard.mpc import fss_layout
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_opened
from siguard.mpc.splines import (
    EXP_BITS,
    exponential_cells,
    inverse_root_steps,
    logarithm_pieces,
)
from siguard.mpc.thresholds import Way
from siguard.ring import Z2, Z64, Ring, RingArray, ring

Integers = npt.NDArray[np.int64]


def opened_with(values: RingArray, mask: RingArray, R: Ring) -> list[Opened]:
    """An opened wire with a chosen mask."""
    masked = R.add(values, mask)
    return [Opened(role, R, part, 0) for role, part in enumerate((masked, masked, mask))]


def terms_from(protocol: Callable[[Party], Awaitable[Additive]], **options: Any) -> RingArray:
    results = run(protocol, **options).results
    assert not results[0].dealer_part
    return terms_of(results)


# --- places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_every_index_under_every_mask_in_every_window(bits: int) -> None:
    R, size = ring(bits), 1 << bits
    index, mask = every_pair(R)
    opened = opened_with(index, mask, R)
    for first in range(-size // 2, size):
        for count in sorted({1, size // 2, size - 1, size}):
            # Windows that go round, and those that begin below 0.
            found = terms_from(
                lambda party, first=first, count=count: gates.at_places(  # type: ignore[misc]
                    party, opened[party.role], first, count, target=ring(8)
                )
            )
            places = (first + np.arange(count)) % size
            np.testing.assert_array_equal(found[..., 0], index[:, None] == places, err_msg=f"{first}, {count}")


@pytest.mark.parametrize("target", [Z2, ring(8), Z64], ids=repr)
@pytest.mark.parametrize("bits", [4, 7, 12, 43])
@FEW
@given(seed=seeds, words=st.integers(1, 5), first=st.integers(-3, 3), count=st.integers(1, 9))
def test_payloads_at_signed_and_unsigned_indices(
    bits: int, target: Ring, seed: int, words: int, first: int, count: int
) -> None:
    rng, R = np.random.default_rng(seed), ring(bits)
    index = rng.integers(-5, 12, (3, 2)) if bits > 4 else rng.integers(0, 16, (3, 2))
    payload = uniform(rng, target, (3, 2, words))
    opened = share_opened(index, R, seed=seed)

    def protocol(party: Party) -> Awaitable[Additive]:
        known = (lambda: payload) if party.is_dealer else None
        # Roles 0 and 1 have no payload; the default, 1, is the dealer's too.
        return gates.at_places(party, opened[party.role], first, count, words, known, target)

    found = terms_from(protocol, seed=seed)
    assert found.shape == (3, 2, count, words)
    places = R.constant(first + np.arange(count))
    here = R.constant(index)[..., None] == places
    np.testing.assert_array_equal(found, np.where(here[..., None], payload[:, :, None], 0), err_msg=f"seed {seed}")


def test_without_a_payload_each_word_is_1() -> None:
    opened = share_opened([0, 3, 5], ring(4))
    found = terms_from(lambda party: gates.at_places(party, opened[party.role], 0, 4, 3))
    np.testing.assert_array_equal(found, np.repeat(np.eye(6, dtype=int)[[0, 3, 5], :4, None], 3, axis=2))


# --- exponential ------------------------------------------------------------------------------------------


def exponential(x: list[Share] | Any, bits: int = 12, seed: int = 0) -> Integers:
    """e^x at `EXP_BITS`, signed."""
    return Z64.signed(terms_from(lambda party: gates.exponential(party, x[party.role], bits), seed=seed))


def share_with_low_bits(X: Integers, low: int, seed: int = 0) -> Any:
    """A sharing whose mask has these low bits, so that the carry into the index is known; else random."""
    rng = np.random.default_rng([seed, 0xE])
    r = (uniform(rng, Z64, X.shape) >> np.uint64(CELL_SHIFT) << np.uint64(CELL_SHIFT)) | np.uint64(low)
    x0 = uniform(rng, Z64, X.shape)
    # alpha = -r in the reading of an opened wire.
    return share_from(Z64, Z64.constant(X), x0, Z64.sub(Z64.neg(r), x0))


def in_plain(X: Integers, index: Integers) -> Integers:
    """What the cell of an index gives, or 0 outside the window, in exact integers."""
    first, cells = exponential_cells()
    inside = (index >= first) & (index < first + len(cells))
    T0, T1, T2 = np.moveaxis(cells[np.where(inside, index - first, 0)], -1, 0)
    x = Z64.constant(X)
    return np.where(inside, Z64.signed(Z64.add(T0, Z64.mul(x, Z64.add(T1, Z64.mul(T2, x))))), 0)


#: Every 73rd argument of the window and of a cell on either side, all multiples of a cell, and their neighbours.
SWEEP = np.unique(
    np.concatenate(
        [
            np.arange(-12 * UNIT - UNIT // 8, 6 * UNIT + UNIT // 8, 73),
            (np.arange(-98, 51)[:, None] * (UNIT // 8) + np.array([-1, 0, 1])).ravel(),
        ]
    )
)


@pytest.mark.parametrize(("low", "more"), [(0, 0), ((1 << CELL_SHIFT) - 1, 1)])
def test_the_whole_window_with_either_index(low: int, more: int) -> None:
    found = exponential(share_with_low_bits(SWEEP, low))
    floor = SWEEP >> CELL_SHIFT
    index = floor + np.where(SWEEP % (1 << CELL_SHIFT) == 0, 0, more)
    np.testing.assert_array_equal(found, in_plain(SWEEP, index))
    x = SWEEP / UNIT
    error = np.abs(found / 2.0**EXP_BITS - np.exp(x))
    bound = 1.0e-4 * np.exp(x) + 1.0e-5
    inside = (x >= -12) & (x < 6)
    assert (error <= bound)[inside].all()
    # One cell on either side: e^x or 0, and 0 beyond.
    either = ((x >= -12.125) & (x < -12)) | ((x >= 6) & (x < 6.125))
    assert ((error <= bound) | (found == 0))[either].all()
    assert (found[~inside & ~either] == 0).all()
    if more:
        assert (found[(x > 6) & (x < 6.125)] == 0).all()
        assert (found[(x > -12.125) & (x < -12)] > 0).all()
    else:
        assert (found[(x >= 6) & (x < 6.125)] > 0).all()
        assert (found[x < -12] == 0).all()


@FEW
@given(seed=seeds)
def test_with_random_masks_it_is_one_of_the_two(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(-12 * UNIT, 6 * UNIT, (5, 4))
    found = exponential(share(X, seed=seed), seed=seed)
    floor = X >> CELL_SHIFT
    assert ((found == in_plain(X, floor)) | (found == in_plain(X, floor + 1))).all(), f"seed {seed}"


def test_a_window_that_ends_earlier_is_the_same_below_its_end() -> None:
    shared = share_with_low_bits(SWEEP, (1 << CELL_SHIFT) - 1)
    whole = exponential(shared)
    found = Z64.signed(terms_from(lambda party: gates.exponential(party, shared[party.role], 12, below=1)))
    x = SWEEP / UNIT
    np.testing.assert_array_equal(found[x < 1], whole[x < 1])
    assert not found[x >= 1.125].any()
    assert gates.exponential_cost(7, 12, below=1).bytes == gates.exponential_cost(7, 12).bytes


@pytest.mark.parametrize("bits", [9, 12, 14, 43])
def test_0_is_exactly_1_and_all_below_the_window_is_0(bits: int) -> None:
    # |8 x| < 2^(bits - 1), less one for the index above.
    limit = ((1 << (bits - 1)) - 2) << CELL_SHIFT
    X = np.array([0, 0, 0, -limit, -limit + 1, limit, -13 * UNIT, -12 * UNIT - UNIT // 8 - 1, 7 * UNIT])
    found = exponential(share(X, seed=bits), bits)
    assert found[:3].tolist() == [1 << EXP_BITS] * 3
    assert not found[3:].any()


def test_the_order_of_masks_does_not_move_a_value_beyond_the_error() -> None:
    """One argument under many masks has at most two values, both within the error."""
    X = np.full(300, 12345)
    found = exponential(share(X, seed=3))
    assert len(set(found.tolist())) == 2
    true = np.exp(12345 / UNIT)
    assert (np.abs(found / 2.0**EXP_BITS - true) <= 1.0e-4 * true + 1.0e-5).all()


def test_public_constants_are_one_role_s() -> None:
    terms = [Additive(role, ring(8), ring(8).zeros(2, 3), 4, dealer_part=False) for role in range(3)]
    added = [gates.plus_public(part, [[1], [-2]]) for part in terms]
    np.testing.assert_array_equal(ring(8).signed(terms_of(added)), [[1] * 3, [-2] * 3])
    assert [part.value.any() for part in added] == [False, True, False]
    assert {part.depth for part in added} == {4}


# --- steps that scale -------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", Way)
@pytest.mark.parametrize(("own", "lanes"), [(1, 1), (1, 4), (4, 4)])
@FEW
@given(seed=seeds, count=st.integers(1, 9), n=st.integers(1, 5))
def test_scaled_steps_are_exact(own: int, lanes: int, by: Way, seed: int, count: int, n: int) -> None:
    """One argument for all lanes, or one for each, and a step function for each."""
    rng, R = np.random.default_rng(seed), ring(40)
    thresholds = np.unique(rng.integers(-(2**38), 2**38, count))
    values = rng.integers(-(2**62), 2**62, (lanes, len(thresholds) + 1))
    x = rng.integers(-(2**38), 2**38, (2, 3, own))
    x.flat[:2] = thresholds[0], thresholds[0] - 1
    y = rng.integers(-(2**63), 2**63 - 1, (2, 3, own, n))
    X, Y = share_opened(x, R, seed=seed), share(y, seed=seed)
    found = terms_from(
        lambda party: gates.scaled_steps(party, X[party.role], thresholds, values, Y[party.role], by), seed=seed
    )
    assert found.shape == (2, 3, lanes, n)
    place = np.broadcast_to(np.searchsorted(thresholds, x, side="right"), (2, 3, lanes))
    s = values[np.arange(lanes), place]
    expected = Z64.mul(Z64.constant(s)[..., None], Z64.constant(y))
    np.testing.assert_array_equal(found, expected, err_msg=f"seed {seed}")


async def test_wires_for_other_lanes_than_the_argument_are_refused() -> None:
    x, wires = share_opened([[1]], ring(40))[0], share(np.ones((1, 3, 2), int))[0]
    with pytest.raises(ValueError, match="wires of shape"):
        await gates.scaled_steps(None, x, np.array([0]), np.ones((3, 2), int), wires)  # type: ignore[arg-type]


def test_a_direction_by_its_inverse_length() -> None:
    """As the guard uses it: U / |U| within the step's 4.4 %, from |U|^2 without its lowest bits."""
    rng = np.random.default_rng(4)
    U = np.rint(rng.normal(size=(40, 1, 6)) * 2.0 ** rng.uniform(8, 27, (40, 1, 1))).astype(np.int64)
    squared = (U * U).sum(-1)
    thresholds, roots = inverse_root_steps(12, 62, 4)
    values = np.rint(roots[None] * 2.0**37).astype(np.int64)
    X, Y = share_opened(squared), share(U)
    found = terms_from(
        lambda party: gates.scaled_steps(
            party, X[party.role].reduce(8, ring(56)), thresholds >> 8, values, Y[party.role]
        )
    )
    length = np.linalg.norm(Z64.signed(found) / 2.0**37, axis=-1)
    # What is compared is off by at most 2^8, and each threshold by as much.
    bound = 2.0 ** (1 / 16) * np.sqrt(1 + 512 / squared) - 1
    assert (np.abs(length - 1) <= bound + 2.0**-6).all()


# --- frames and batches -----------------------------------------------------------------------------------

PIECES = logarithm_pieces(0, 10, 2, 16, 12)


async def a_curve(party: Party, name: str, X: Any) -> Additive:
    mine = X[party.role]
    if name == "exponential":
        return await gates.exponential(party, mine, 12)
    if name == "piecewise":
        return await gates.piecewise(party, mine, as_opened(mine).reduce(4, ring(32)), PIECES)
    if name == "scaled_steps":
        thresholds, values = np.array([5, 1000]), np.array([[1, 2, 3], [-7, 0, 7]])
        return await gates.scaled_steps(
            party, as_opened(mine)[..., None], thresholds, values, mine[..., None, None]
        )
    return await gates.at_places(party, as_opened(mine).reduce(8, ring(12)), -2, 30, 2)


CURVES = ["exponential", "piecewise", "scaled_steps", "at_places"]


@pytest.mark.parametrize("name", CURVES)
def test_seeds_decide_frames_and_values_do_not_change_their_shape(name: str) -> None:
    def frames(values: Any, seed: int, masks: int) -> tuple[list[Any], list[bytes], RingArray]:
        X = share(values, seed=masks)
        headers, content, done = run_seen(partial(a_curve, name=name, X=X), seed)
        return headers, content, done.results[0].value

    headers, content, value = frames([1, 70_000, -900], 7, 0)
    # All from the dealer: nothing is exchanged.
    assert {header[0] for header in headers} == {"S2"}
    again = frames([1, 70_000, -900], 7, 0)
    assert again[:2] == (headers, content)
    np.testing.assert_array_equal(again[2], value)
    for values, seed, masks in (([1, 70_000, -900], 8, 0), ([0, 0, 0], 8, 1), ([-(2**18), 2**18, 5], 7, 2)):
        other_headers, other_content, _ = frames(values, seed, masks)
        assert other_headers == headers
        assert other_content != content


@pytest.mark.parametrize("name", CURVES)
def test_chunks_and_threads_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X = share(np.random.default_rng(9).integers(0, 5 * UNIT, 700), seed=2)
    values = []
    for nodes in (fss_layout._NODES, 97):
        monkeypatch.setattr(fss_layout, "_NODES", nodes)
        values.append([part.value for part in run(partial(a_curve, name=name, X=X)).results])
    for one, other in zip(*values, strict=True):
        np.testing.assert_array_equal(one, other)
    few = run(partial(a_curve, name=name, X=[part[:9] for part in X])).results
    np.testing.assert_array_equal(terms_of(few), Z64.add(*(part[:9] for part in values[0][:2])))
