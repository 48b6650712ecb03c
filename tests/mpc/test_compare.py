"""ReLU with its bit, win counts and what is ranked by them, against exact integers and in every way."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from mpc_helpers import FEW, opened_of, run, seeds, share, share_opened, signed_of, terms_of, value_of

from siguard.mpc import compare as gates
from siguard.mpc.arithmetic import remask
from siguard.mpc.thresholds import Way
from siguard.ring import Z64, Ring, ring

WAYS = list(Way)


def relu(x: Any, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    X = share(x, seed=seed)
    results = run(lambda party: gates.relu(party, X[party.role], **options), seed=seed).results
    values, bits = zip(*results, strict=True)
    return signed_of(values), value_of(bits)


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("bits", [2, 8, 31, 32, 48, 64])
@FEW
@given(seed=seeds)
def test_relu_is_exact_inside_its_range(bits: int, by: Way, seed: int) -> None:
    half = 1 << (bits - 1)
    x = np.random.default_rng(seed).integers(-half + 1, half - 1, (3, 7), endpoint=True)
    x.flat[:5] = (0, 1, -1, half - 1, -half + 1)
    values, derivative = relu(x, seed, bits=bits, by=by)
    np.testing.assert_array_equal(values, np.maximum(x, 0), err_msg=f"seed {seed}")
    np.testing.assert_array_equal(derivative, x > 0, err_msg=f"seed {seed}")


@pytest.mark.parametrize(("bits", "shift"), [(32, 5), (32, 32), (8, 16), (16, 1)])
@FEW
@given(seed=seeds)
def test_relu_with_a_shift_errs_only_next_to_zero(bits: int, shift: int, seed: int) -> None:
    limit, unit = 1 << (bits - 1 + shift), 1 << shift
    rng = np.random.default_rng(seed)
    far = rng.integers(-limit + unit, limit - unit, 200)
    near = rng.integers(-2 * unit, 2 * unit, 200)
    x = np.concatenate([far, near, [0, unit, -unit, unit - 1, 1 - unit, limit - 2 * unit, 2 * unit - limit]])
    values, derivative = relu(x, seed, bits=bits, shift=shift)
    outside = np.abs(x) >= unit
    np.testing.assert_array_equal(values[outside], np.maximum(x, 0)[outside], err_msg=f"seed {seed}")
    np.testing.assert_array_equal(derivative[outside], (x > 0)[outside], err_msg=f"seed {seed}")
    assert (np.abs(values - np.maximum(x, 0)) <= unit).all(), f"seed {seed}"
    np.testing.assert_array_equal(values, x * derivative.astype(np.int64), err_msg="value and bit disagree")


async def test_a_ring_that_the_shift_does_not_leave_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shifted by 33 has no Z_2\^32"):
        await gates.relu(None, share([1])[0], 32, 33)  # type: ignore[arg-type]


# --- argmax by counting -----------------------------------------------------------------------------------


def counts_by_hand(x: Any) -> Any:
    """How many other entries each entry beats; the lower index wins a tie."""
    order = np.lexsort((-np.arange(x.shape[1])[None].repeat(len(x), 0), x), axis=1)
    counts = np.empty_like(order)
    np.put_along_axis(counts, order, np.arange(x.shape[1])[None], axis=1)
    return counts


def win_counts(x: Any, compare: Ring = Z64, seed: int = 0, R: Ring = Z64, **options: Any) -> Any:
    X = share(x, R, seed=seed)
    results = run(lambda party: gates.win_counts(party, X[party.role], compare, **options), seed=seed).results
    assert results[0].ring == gates.count_ring(x.shape[-1])
    return opened_of(results)


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6])
def test_all_orders_with_all_ties_are_counted(classes: int) -> None:
    x = np.array(list(product(range(-1, min(classes, 4) - 1), repeat=classes)))
    counts = win_counts(x, ring(3), R=ring(8))
    np.testing.assert_array_equal(counts, counts_by_hand(x))
    np.testing.assert_array_equal(np.sort(counts, axis=1), np.arange(classes)[None].repeat(len(x), 0))
    np.testing.assert_array_equal(counts.argmax(1), x.argmax(1))


@pytest.mark.parametrize("by", [Way.BIT_KEY, Way.ADDER])
@pytest.mark.parametrize("classes", [2, 3, 4])
def test_the_other_ways_count_the_same(classes: int, by: Way) -> None:
    x = np.array(list(product(range(-1, classes - 1), repeat=classes)))
    np.testing.assert_array_equal(win_counts(x, ring(8), by=by), counts_by_hand(x))


@pytest.mark.parametrize("classes", [2, 8, 9, 30])
@FEW
@given(seed=seeds)
def test_counts_are_a_permutation(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Differences of values below 2^62 stay inside the ring; the second row has many ties.
    x = np.stack(
        [rng.integers(-(2**62), 2**62, classes), rng.integers(-2, 3, classes), np.zeros(classes, np.int64)]
    )
    counts = win_counts(x, seed=seed)
    np.testing.assert_array_equal(counts, counts_by_hand(x), err_msg=f"seed {seed}")


def test_more_counts_than_a_byte_holds() -> None:
    x = np.random.default_rng(8).integers(-(2**62), 2**62, (1, 257))
    np.testing.assert_array_equal(win_counts(x, by=Way.ADDER), counts_by_hand(x))


def test_counts_compare_without_the_lowest_bits() -> None:
    """Entries further apart than 2^shift are in order."""
    x = np.random.default_rng(4).permutation(200)[:120].reshape(20, 6) << 7
    close = x + np.random.default_rng(5).integers(0, 64, x.shape)
    for values in (x, close):
        np.testing.assert_array_equal(win_counts(values, ring(12), shift=5), counts_by_hand(x))


def test_counts_of_higher_axes() -> None:
    x = np.random.default_rng(7).integers(-9, 9, (2, 3, 5))
    expected = counts_by_hand(x.reshape(6, 5)).reshape(2, 3, 5)
    np.testing.assert_array_equal(win_counts(x), expected)


# --- ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wires", [0, 1, 3])
@pytest.mark.parametrize(("classes", "ranks"), [(2, 1), (2, 2), (3, 1), (8, 2), (10, 2), (10, 10), (17, 3)])
def test_one_hot_vectors_of_ranks_and_times_wires(classes: int, ranks: int, wires: int) -> None:
    rng = np.random.default_rng([classes, wires])
    counts = rng.permuted(np.arange(classes)[None].repeat(6, 0), axis=1)
    y = rng.integers(-(2**62), 2**62, (6, classes, wires))
    opened, Y = share_opened(counts, gates.count_ring(classes), seed=1), share(y, seed=2)
    done = run(lambda p: gates.ranked(p, opened[p.role], ranks, Y[p.role] if wires else None))
    assert done.traffic.rounds == 1, "a dealt frame and no exchange"
    hot = counts[..., None] == classes - 1 - np.arange(ranks)
    expected = np.concatenate([hot[..., None], hot[..., None] * y[:, :, None]], axis=-1)
    np.testing.assert_array_equal(Z64.signed(terms_of(done.results)), expected)


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("x", [[[5, 5, 5]], [[0, 7, 7]], [[-1, -1, -2]], [[2**40, -(2**40), 2**40]]])
def test_the_lowest_index_wins_a_tie(x: list[list[int]], by: Way) -> None:
    """Label and runner-up, with their values, in two exchanges with keys."""
    X = share(x)

    async def protocol(party: Any) -> Any:
        counts = await gates.win_counts(party.at("rank"), X[party.role], Z64, by)
        return await remask(
            party.at("hot"), await gates.ranked(party.at("hot"), counts, 2, X[party.role][..., None])
        )

    done = run(protocol)
    hot = signed_of(done.results)
    order = np.argsort(-np.array(x), axis=1, kind="stable")[:, :2]
    assert hot[..., 0].swapaxes(1, 2).tolist() == np.eye(3, dtype=int)[order].tolist()
    assert hot[..., 1].sum(1).tolist() == np.take_along_axis(np.array(x), order, axis=1).tolist()
    # The first dealt frames have depth 1, then the two exchanges.
    assert by is not Way.KEY or done.traffic.rounds == 3
