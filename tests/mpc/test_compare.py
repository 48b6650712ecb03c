"""Signs, ReLU and the counting argmax against exact integers."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import run, share, signed_of, value_of

from siguard.mpc import compare as gates
from siguard.mpc.share import Share
from siguard.ring import Z2, Z64, Ring, ring

FEW = settings(deadline=None, max_examples=8, derandomize=True)
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16, 32, 64])
@FEW
@given(seed=seeds)
def test_positive_and_negative(bits: int, seed: int) -> None:
    R, half = ring(bits), 1 << (bits - 1)
    # [x > 0] is promised for every x but the lowest.
    edges = [value for value in (0, 1, -1, half - 1, -half + 1) if -half < value < half]
    x = np.array([*edges, *np.random.default_rng(seed).integers(-half + 1, half - 1, 20, endpoint=True)])
    X = share(x, R, seed=seed)

    async def protocol(party: Any) -> tuple[Share, Share]:
        mine = X[party.role]
        return await gates.is_positive(party.at("positive"), mine), await gates.is_negative(
            party.at("negative"), mine
        )

    positive, negative = zip(*run(protocol, seed=seed).results, strict=True)
    assert positive[0].ring == Z2
    np.testing.assert_array_equal(value_of(positive), x > 0, err_msg=f"seed {seed}")
    np.testing.assert_array_equal(value_of(negative), x < 0, err_msg=f"seed {seed}")


def relu(x: Any, R: Ring = Z64, seed: int = 0, **options: int) -> tuple[Any, Any]:
    X = share(x, R, seed=seed)
    results = run(lambda party: gates.relu(party, X[party.role], **options), seed=seed).results
    values, bits = zip(*results, strict=True)
    return signed_of(values), value_of(bits)


@pytest.mark.parametrize(("R", "bits"), [(Z64, 8), (Z64, 32), (Z64, 48), (Z64, 64), (ring(32), 16), (ring(8), 8)])
@FEW
@given(seed=seeds)
def test_relu_is_exact_inside_its_range(R: Ring, bits: int, seed: int) -> None:
    half = 1 << (bits - 1)
    x = np.random.default_rng(seed).integers(-half + 1, half - 1, (3, 7), endpoint=True)
    x.flat[:5] = (0, 1, -1, half - 1, -half + 1)
    values, derivative = relu(x, R, seed, bits=bits)
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
    values, derivative = relu(x, seed=seed, bits=bits, shift=shift)
    outside = np.abs(x) >= unit
    np.testing.assert_array_equal(values[outside], np.maximum(x, 0)[outside], err_msg=f"seed {seed}")
    np.testing.assert_array_equal(derivative[outside], (x > 0)[outside], err_msg=f"seed {seed}")
    assert (np.abs(values - np.maximum(x, 0)) <= unit).all(), f"seed {seed}"
    np.testing.assert_array_equal(values, x * derivative, err_msg="value and derivative bit disagree")


# --- argmax by counting -----------------------------------------------------------------------------------


def counts_by_hand(x: Any) -> Any:
    """How many other entries each entry beats; the lower index wins a tie."""
    order = np.lexsort((-np.arange(x.shape[1])[None].repeat(len(x), 0), x), axis=1)
    counts = np.empty_like(order)
    np.put_along_axis(counts, order, np.arange(x.shape[1])[None], axis=1)
    return counts


def win_counts(x: Any, R: Ring = Z64, seed: int = 0) -> Any:
    X = share(x, R, seed=seed)
    results = run(lambda party: gates.win_counts(party, X[party.role]), seed=seed).results
    assert results[0].ring == gates.count_ring(x.shape[1])
    return value_of(results)


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
def test_all_orders_with_all_ties_are_counted(classes: int) -> None:
    x = np.array(list(product(range(-1, min(classes, 4) - 1), repeat=classes)))
    counts = win_counts(x, ring(8))
    np.testing.assert_array_equal(counts, counts_by_hand(x))
    np.testing.assert_array_equal(np.sort(counts, axis=1), np.arange(classes)[None].repeat(len(x), 0))
    np.testing.assert_array_equal(counts.argmax(1), x.argmax(1))


@pytest.mark.parametrize("classes", [2, 8, 9, 30, 100])
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


@pytest.mark.parametrize(("classes", "ranks"), [(2, 1), (2, 2), (10, 2), (10, 10), (17, 3)])
def test_one_hot_vectors_of_all_ranks(classes: int, ranks: int) -> None:
    x = np.random.default_rng(classes).integers(-3, 4, (6, classes))
    X = share(x)
    results = run(lambda party: gates.one_hot_ranks(party, X[party.role], ranks)).results
    counts = counts_by_hand(x)
    expected = np.stack([(counts == classes - 1 - rank).astype(int) for rank in range(ranks)])
    assert results[0].ring == Z64
    np.testing.assert_array_equal(value_of(results), expected)


@pytest.mark.parametrize("x", [[[5, 5, 5]], [[0, 7, 7]], [[-1, -1, -2]], [[2**40, -(2**40), 2**40]]])
def test_the_lowest_index_wins_a_tie(x: list[list[int]]) -> None:
    X = share(x)
    hot = value_of(run(lambda party: gates.one_hot_argmax(party, X[party.role])).results)
    assert hot.tolist() == np.eye(3, dtype=int)[np.argmax(x, 1)].tolist()


@FEW
@given(seed=seeds, classes=st.integers(2, 12))
def test_maximum(seed: int, classes: int) -> None:
    x = np.random.default_rng(seed).integers(-(2**62), 2**62, (4, classes))
    X = share(x, seed=seed)
    results = run(lambda party: gates.maximum(party, X[party.role]), seed=seed).results
    np.testing.assert_array_equal(signed_of(results), x.max(1, keepdims=True), err_msg=f"seed {seed}")
