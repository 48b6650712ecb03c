"""Comparisons with public thresholds, in every way: whole small rings, the edges of wide ones, wires, frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import (
    FEW,
    every_pair,
    opened_of,
    run,
    run_seen,
    seeds,
    share,
    share_opened,
    terms_of,
    uniform,
    value_of,
)

from siguard.mpc import thresholds as gates
from siguard.mpc.arithmetic import remask
from siguard.mpc.boolean import invert
from siguard.mpc.share import Opened, Share, as_opened
from siguard.mpc.thresholds import Way
from siguard.ring import Z2, Z64, Ring, RingArray, ring

WAYS = list(Way)
TARGETS = [Z64, ring(8), Z2]


def opened_with(values: RingArray, mask: RingArray, R: Ring) -> list[Opened]:
    """An opened wire with a chosen mask."""
    masked = R.add(values, mask)
    return [Opened(role, R, part, 0) for role, part in enumerate((masked, masked, mask))]


def compared(
    x: list[Opened], thresholds: Any, wires: Any = None, target: Ring = Z64, seed: int = 0, **options: Any
) -> RingArray:
    def protocol(party: Any) -> Any:
        mine = None if wires is None else wires[party.role]
        return gates.at_least(party, x[party.role], thresholds, mine, target, **options)

    results = run(protocol, seed=seed).results
    assert results[0].ring == target
    assert not results[0].dealer_part
    return terms_of(results)


def difference_inside(x: Any, thresholds: Any, bits: int) -> Any:
    """Where x - t stays inside the ring; (..., thresholds)."""
    difference = x.astype(object)[..., None] - np.array(thresholds, object)
    return (difference >= -(1 << (bits - 1))) & (difference < 1 << (bits - 1))


# --- the definition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_every_value_under_every_mask_against_every_threshold(bits: int, by: Way) -> None:
    R, half = ring(bits), 1 << (bits - 1)
    values, mask = every_pair(R)
    x, thresholds = R.signed(values), list(range(-half, half))
    found = compared(opened_with(values, mask, R), thresholds, by=by)
    assert found.shape == (*x.shape, len(thresholds), 1)
    inside = difference_inside(x, thresholds, bits)
    # As many pairs as there are, less the triangles on either side.
    assert inside.sum() == 2**bits * (4**bits - half * (half - 1) // 2 - half * (half + 1) // 2)
    np.testing.assert_array_equal(found[..., 0][inside], (x[:, None] >= np.array(thresholds))[inside])


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_every_value_under_every_mask_selects_wires(bits: int, target: Ring, by: Way) -> None:
    R = ring(bits)
    values, mask = every_pair(R)
    x, thresholds = R.signed(values), sorted({-1, 0, 1, (1 << (bits - 1)) - 1})
    y = uniform(np.random.default_rng(bits), target, (len(x), 3))
    found = compared(opened_with(values, mask, R), thresholds, share(y, target, seed=bits), target, by=by)
    assert found.shape == (len(x), len(thresholds), 4)
    inside = difference_inside(x, thresholds, bits)
    bit = x[:, None] >= np.array(thresholds)
    expected = np.where(bit[..., None], np.concatenate([np.ones((len(x), 1), y.dtype), y], axis=1)[:, None], 0)
    np.testing.assert_array_equal(found[inside], expected[inside])


@st.composite
def edges(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    """Bits of a ring, thresholds, and values whose differences from one of them are at the edges."""
    bits = draw(st.integers(8, 64))
    half = 1 << (bits - 1)
    near = st.sampled_from([0, 1, -1, half - 1, -half, half // 2, 1 - half // 2])
    thresholds = draw(st.lists(st.one_of(near, st.integers(-half, half - 1)), min_size=1, max_size=5))
    differences = draw(st.lists(st.integers(-half, half - 1), min_size=0, max_size=5))
    # An edge that one threshold cannot have inside the ring, another side has.
    differences += [-half, -1, 0, 1, half - 1]
    values = [t + d for t in [*thresholds, 0] for d in differences if -half <= t + d < half]
    return bits, [*thresholds, 0], values


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("target", TARGETS, ids=repr)
@FEW
@given(case=edges(), seed=seeds, wires=st.integers(0, 3))
def test_differences_at_the_edges_of_wide_rings(
    target: Ring, by: Way, case: tuple[int, list[int], list[int]], seed: int, wires: int
) -> None:
    bits, thresholds, values = case
    R, x = ring(bits), np.array(values)
    y = uniform(np.random.default_rng(seed), target, (len(x), wires))
    found = compared(
        share_opened(x, R, seed=seed),
        thresholds,
        share(y, target, seed=seed) if wires else None,
        target,
        seed,
        by=by,
    )
    inside = difference_inside(x, thresholds, bits)
    assert inside[:, -1].all()
    bit = x[:, None] >= np.array(thresholds)
    words = np.concatenate([np.ones((len(x), 1), y.dtype), y], axis=1)
    expected = np.where(bit[..., None], words[:, None], 0)
    np.testing.assert_array_equal(found[inside], expected[inside], err_msg=f"seed {seed}, {bits} bits")


@pytest.mark.parametrize("by", WAYS)
def test_higher_axes_and_wires_as_their_own_argument(by: Way) -> None:
    x = np.random.default_rng(2).integers(-(2**40), 2**40, (2, 1, 5))
    X = share(x)
    thresholds = [-(2**39), 0, 2**39]
    own = [as_opened(part) for part in X]
    found = Z64.signed(compared(own, thresholds, [part[..., None] for part in X], by=by))
    bit = x[..., None] >= np.array(thresholds)
    np.testing.assert_array_equal(found, np.stack([bit, bit * x[..., None]], axis=-1))


# --- bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [Way.BIT_KEY, Way.ADDER])
@pytest.mark.parametrize("bits", [2, 8, 9, 21, 56, 64])
@FEW
@given(seed=seeds)
def test_bits_found_ahead_serve_several_wires(bits: int, by: Way, seed: int) -> None:
    rng, R, half = np.random.default_rng(seed), ring(bits), 1 << (bits - 1)
    x = np.concatenate([rng.integers(-half, half - 1, (3, 4), endpoint=True), [[-half, half - 1, 0, -1]]])
    thresholds, targets = [0, 1], (Z64, ring(8))
    X = share_opened(x, R, seed=seed)
    y = [uniform(rng, target, (4, 4, 2)) for target in targets]
    Y = [share(values, target, seed=seed + 1) for values, target in zip(y, targets, strict=True)]

    async def protocol(party: Any) -> Any:
        mine = X[party.role]
        found = await gates.bits_at_least(party.at("bits"), mine, thresholds, by)
        return found, *[
            await gates.at_least(
                party.at("wires", j), mine, thresholds, Y[j][party.role], target, by=by, bits=found
            )
            for j, target in enumerate(targets)
        ]

    found, *selected = zip(*run(protocol, seed=seed).results, strict=True)
    assert found[0].ring == Z2
    inside = difference_inside(x, thresholds, bits)
    bit = x[..., None] >= np.array(thresholds)
    np.testing.assert_array_equal(value_of(found)[inside], bit[inside], err_msg=f"seed {seed}")
    for values, terms in zip(y, selected, strict=True):
        expected = np.where(bit[..., None], values[:, :, None], 0)
        np.testing.assert_array_equal(terms_of(terms)[..., 1:][inside], expected[inside], err_msg=f"seed {seed}")
        np.testing.assert_array_equal(terms_of(terms)[..., 0][inside], bit[inside], err_msg=f"seed {seed}")


@pytest.mark.parametrize("by", [Way.BIT_KEY, Way.ADDER])
def test_bits_given_ahead_are_the_ones_that_are_used(by: Way) -> None:
    """With the inverted bits, what is below a threshold is selected; and no comparison is paid for again."""
    x, y = np.array([-3, 0, 4, 9]), np.array([[5], [6], [7], [8]])
    X, Y, bits = share_opened(x, ring(16)), share(y), share((x[:, None] >= 4).astype(int), Z2)

    def protocol(party: Any) -> Any:
        mine = party.role
        return gates.at_least(party, X[mine], [4], Y[mine], by=by, bits=invert(bits[mine]))

    done = run(protocol)
    np.testing.assert_array_equal(terms_of(done.results)[:, 0], [[1, 5], [1, 6], [0, 0], [0, 0]])
    assert (done.traffic.messages, done.traffic.rounds) == (1, 1)


def test_bits_and_wires_come_from_one_exchange() -> None:
    """A ReLU: bit and value in one remask of what a key gives."""
    x = np.array([-(2**50), -1, 0, 1, 2**50])
    X = share(x)

    async def protocol(party: Any) -> Share:
        mine = X[party.role]
        return await remask(party, await gates.at_least(party, as_opened(mine), [1], mine[..., None]))

    done = run(protocol)
    found = Z64.signed(value_of(done.results))[:, 0]
    np.testing.assert_array_equal(found, np.stack([x > 0, np.maximum(x, 0)], axis=1))
    assert done.traffic.rounds == 2  # the dealer's first frame and the exchange


# --- frames -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", WAYS)
def test_seeds_decide_frames_and_values_do_not_change_their_shape(by: Way) -> None:
    def frames(values: list[int], seed: int, masks: int = 0) -> tuple[list[Any], list[bytes], RingArray]:
        X, Y = share_opened(values, ring(24), seed=masks), share(np.array(values)[:, None] * 3, seed=masks)
        headers, content, done = run_seen(
            lambda party: gates.at_least(party, X[party.role], [-5, 0, 5], Y[party.role], by=by), seed
        )
        return headers, content, done.results[0].value

    headers, content, value = frames([1, -2, 3], 7)
    assert len(headers) == len(set(headers)) > 0
    again = frames([1, -2, 3], 7)
    assert again[:2] == (headers, content)
    np.testing.assert_array_equal(again[2], value)
    for values, seed, masks in (([1, -2, 3], 8, 0), ([0, 0, 0], 8, 1), ([-(2**22), 2**22, 5], 7, 2)):
        other_headers, other_content, _ = frames(values, seed, masks)
        assert other_headers == headers
        assert other_content != content


@pytest.mark.parametrize("by", WAYS)
def test_large_batches_are_exact(by: Way) -> None:
    x = np.random.default_rng(1).integers(-(2**18), 2**18, (41, 103))
    thresholds = [-(2**16), 0, 1, 2**16]
    X, Y = share_opened(x, ring(20)), share(x[..., None])
    found = Z64.signed(compared(X, thresholds, Y, by=by))
    bit = x[..., None] >= np.array(thresholds)
    np.testing.assert_array_equal(found, np.stack([bit, bit * x[..., None]], axis=-1))


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", WAYS)
async def test_wires_that_do_not_fit_are_refused(by: Way) -> None:
    x = share_opened(np.zeros((2, 3), int), ring(16))[0]
    for shape, R in (((2, 3), Z64), ((3, 2, 1), Z64), ((1, 3, 1), Z64), ((6, 1), Z64), ((2, 3, 1), ring(8))):
        wires = share(np.zeros(shape, int), R)[0]
        with pytest.raises(ValueError, match=r"wires of shape \(.*\) over .* for \(2, 3\) over Z_2\^64"):
            await gates.at_least(None, x, [0], wires, by=by)  # type: ignore[arg-type]


async def test_bits_that_do_not_fit_are_refused() -> None:
    x = share_opened(np.zeros((2, 3), int), ring(16))[0]
    for shape, R in (((2, 3), Z2), ((2, 3, 1), Z2), ((2, 3, 2), Z64)):
        bits = share(np.zeros(shape, int), R)[0]
        with pytest.raises(ValueError, match=r"bits of shape .*; needed: \(2, 3, 2\) over Z_2\^1"):
            await gates.at_least(None, x, [0, 1], by=Way.ADDER, bits=bits)  # type: ignore[arg-type]


# --- what is compared -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_a_reduction_is_floor_or_one_more_for_every_value_and_mask(bits: int) -> None:
    R = ring(bits)
    values, mask = every_pair(R)
    opened = opened_with(values, mask, R)
    for shift in range(bits):
        low = (1 << shift) - 1
        carries = (values & low).astype(int) + (mask & low) > low
        for target in range(1, bits - shift + 1):
            reduced = [part.reduce(shift, ring(target)) for part in opened]
            found = opened_of(reduced)
            assert reduced[0].ring == ring(target)
            # The signed value's floor, so that a comparison takes it as it is.
            expected = ring(target).constant((R.signed(values) >> shift) + carries)
            np.testing.assert_array_equal(found, expected, err_msg=f"{shift} bits less, into {target}")
            exact = values & low == 0
            assert not carries[exact].any()


@FEW
@given(seed=seeds, bits=st.integers(8, 64), data=st.data())
def test_wide_reductions_never_wrap(seed: int, bits: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, bits - 2))
    target = ring(data.draw(st.integers(2, bits - shift)))
    # What fits the smaller ring with one to spare; the wire's own mask is uniform.
    limit = 1 << (target.bits - 1 + shift)
    unit = 1 << shift
    x = np.random.default_rng(seed).integers(-limit, limit - unit, 50)
    x[:4] = (-limit, limit - unit - 1, 0, -1)
    found = target.signed(
        opened_of([part.reduce(shift, target) for part in share_opened(x, ring(bits), seed=seed)])
    )
    floor = x >> shift
    assert (found >= floor).all(), f"seed {seed}"
    assert (found <= floor + 1).all(), f"seed {seed}"
    exact = x % unit == 0
    np.testing.assert_array_equal(found[exact], floor[exact], err_msg=f"seed {seed}")


def test_both_outcomes_of_a_reduction_come_with_their_probability() -> None:
    x = np.full(20_000, 3 << 6)
    found = opened_of([part.reduce(8, ring(8)) for part in share_opened(x, Z64, seed=5)])
    assert set(found.tolist()) == {0, 1}
    # Three quarters; five standard deviations are 0.0153.
    assert abs(found.mean() - 0.75) < 0.0153


def test_a_ring_that_the_rest_does_not_fill_is_refused() -> None:
    x = share_opened([1, 2], ring(20))[0]
    assert x.reduce(8, ring(12)).ring == ring(12)
    with pytest.raises(ValueError, match=r"Z_2\^20 shifted by 8 has no Z_2\^13"):
        x.reduce(8, ring(13))
