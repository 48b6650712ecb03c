"""Public splines: the errors that their docstrings state over whole ranges, in exact integers and under MPC."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpc_helpers import FEW, UNIT, run, seeds, share, terms_of

from siguard.mpc import curves as gates
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, as_opened
from siguard.mpc.splines import (
    ARGUMENT_BITS,
    CELL_BITS,
    EXP_BITS,
    EXP_WINDOW,
    LOG_BITS,
    Pieces,
    exponential_cells,
    inverse_root_steps,
    logarithm_pieces,
)
from siguard.mpc.thresholds import Way
from siguard.ring import Z64, ring

CELL = UNIT >> CELL_BITS

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


# --- exponential ------------------------------------------------------------------------------------------


def quadratic(X: Integers, index: Integers) -> Integers:
    """The cell's value at `EXP_BITS`, with wrap as in the ring."""
    first, cells = exponential_cells()
    T0, T1, T2 = cells[index - first].T
    x = Z64.constant(X)
    return Z64.signed(Z64.add(T0, Z64.mul(x, Z64.add(T1, Z64.mul(T2, x)))))


@pytest.mark.parametrize("more", [0, 1])
def test_the_exponential_is_within_its_error_at_every_argument_of_the_window(more: int) -> None:
    low, high = EXP_WINDOW
    X = np.arange(low * UNIT, high * UNIT)
    found = quadratic(X, (X >> (ARGUMENT_BITS - CELL_BITS)) + more) / 2.0**EXP_BITS
    true = np.exp(X / UNIT)
    assert (np.abs(found - true) <= 1.0e-4 * true + 1.0e-5).all()
    assert (found > 0).all()
    # The stated figures are not far from what they bound.
    assert (np.abs(found - true) > 0.8e-4 * true).any()


def test_the_exponential_at_the_edges_of_the_window() -> None:
    low, high = EXP_WINDOW
    first, cells = exponential_cells()
    assert (first, first + len(cells) - 1) == (low << CELL_BITS, high << CELL_BITS)
    assert cells.shape == (145, 3)
    for X, index in (
        (np.arange(low * UNIT - CELL, low * UNIT), first),
        (np.arange(high * UNIT, high * UNIT + CELL), first + len(cells) - 1),
    ):
        true = np.exp(X / UNIT)
        found = quadratic(X, np.full(len(X), index)) / 2.0**EXP_BITS
        assert (np.abs(found - true) <= 1.0e-4 * true + 1.0e-5).all()


def test_the_exponential_of_0_is_1() -> None:
    assert quadratic(np.array([0]), np.array([0])) == 1 << EXP_BITS


def test_cells_are_the_same_quadratic_in_the_whole_argument() -> None:
    """Against Python integers: T0 + T1 X + T2 X^2 = S0 + S1 (X - F) + S2 (X - F)^2 with S of 64 bits to spare."""
    first, cells = exponential_cells()
    for place, (T0, T1, T2) in enumerate(cells.tolist()):
        F, half = (first + place) * CELL, CELL
        values = [(T0 + T1 * (F + d) + T2 * (F + d) ** 2) % 2**64 for d in (-half, 0, half)]
        left, middle, right = ((v + 2**63) % 2**64 - 2**63 for v in values)
        # Second and first differences of a quadratic about F.
        assert right + left - 2 * middle == 2 * T2 * half**2
        assert (right - left) % (2 * half) == 0
        power = np.exp(F / UNIT)
        # The square is rounded at 9 bits; the constant makes up for half of what that loses at the cell's edge.
        assert abs(T2 - power / 2 * 2 ** (EXP_BITS - 2 * ARGUMENT_BITS)) <= 0.5
        assert abs(middle / 2**EXP_BITS - power) <= 2**-10 * 2**-6 / 2 + 2**-EXP_BITS


# --- logarithm --------------------------------------------------------------------------------------------


def value_at(pieces: Pieces, X: Integers, compared: Integers) -> Integers:
    place = np.searchsorted(np.array(pieces.thresholds), compared, side="right")
    return Z64.signed(Z64.constant(pieces.constants[place] + pieces.slopes[place] * X))


#: Range, knots an octave, value bits, compared bits, error as stated.
LOGARITHMS = [(0, 10, 8, 16, 12, 6.0e-4), (-6, 10, 4, 16, 10, 2.7e-3)]
#: Others, where rounding adds less.
MORE = [(0, 4, 8, 16, 16, 5.5e-4), (-3, 3, 2, 16, 14, 7.6e-3), (0, 2, 1, 12, 8, 3.1e-2)]


@pytest.mark.parametrize(("low", "high", "knots", "value_bits", "compare_bits", "error"), LOGARITHMS + MORE)
def test_the_logarithm_is_within_its_error_and_never_falls(
    low: int, high: int, knots: int, value_bits: int, compare_bits: int, error: float
) -> None:
    pieces = logarithm_pieces(low, high, knots, value_bits, compare_bits)
    assert len(pieces.constants) == len(pieces.slopes) == len(pieces.thresholds) + 1
    assert len(pieces.thresholds) == (high - low) * knots + 1
    start, end = (round(2.0 ** (edge + value_bits)) for edge in (low, high))
    X = np.unique(
        np.concatenate(
            [
                np.arange(1, min(end + end // 4, 150_000)),
                np.geomspace(start, end * 2, 100_000).astype(np.int64),
                # Both sides of each threshold.
                np.array([(t << value_bits - compare_bits) - d for t in pieces.thresholds for d in (0, 1)]),
            ]
        )
    )
    found = value_at(pieces, X, X >> (value_bits - compare_bits))
    true = np.log(np.clip(X, start, end) / 2.0**value_bits)
    assert (np.abs(found / 2.0**LOG_BITS - true) <= error).all()
    assert (np.abs(found / 2.0**LOG_BITS - true) > 0.8 * error).any()
    assert (np.diff(found) >= 0).all()
    inside = slice(*np.searchsorted(X, [start, end]))
    assert (np.diff(found[inside]) > 0).all()


@pytest.mark.parametrize(("low", "high", "knots", "value_bits", "compare_bits", "error"), LOGARITHMS + MORE)
def test_the_logarithm_is_continuous_in_exact_integers_and_held_beyond_its_ends(
    low: int, high: int, knots: int, value_bits: int, compare_bits: int, error: float
) -> None:
    pieces = logarithm_pieces(low, high, knots, value_bits, compare_bits)
    at = np.array(pieces.thresholds) << (value_bits - compare_bits)
    left, right = (pieces.constants[part] + pieces.slopes[part] * at for part in (slice(None, -1), slice(1, None)))
    np.testing.assert_array_equal(left, right)
    assert pieces.slopes[0] == pieces.slopes[-1] == 0
    beyond = value_at(pieces, np.array([0, 1 << 60]), np.array([-(1 << 40), 1 << 60]))
    np.testing.assert_array_equal(beyond, [left[0], right[-1]])
    shift = (np.log(2) / knots) ** 2 / 16
    # At the first end rounded to `LOG_BITS`, at the last with half a unit of the last slope over its piece.
    assert abs(left[0] / 2.0**LOG_BITS - low * np.log(2) - shift) <= 2.0**-LOG_BITS
    assert abs(right[-1] / 2.0**LOG_BITS - high * np.log(2) - shift) <= 0.5 * (at[-1] - at[-2]) * 2.0**-LOG_BITS


def test_one_comparison_off_by_one_moves_a_logarithm_by_the_change_of_slope() -> None:
    pieces = logarithm_pieces(0, 10, 8, 16, 12)
    X = np.arange((1 << 16) - 16, 1 << 18)
    exact, other = (value_at(pieces, X, (X >> 4) + more) for more in (0, 1))
    jump = np.abs(np.diff(pieces.slopes)).max() << 4
    assert 0 < np.abs(exact - other).max() <= jump


def test_knots_closer_than_what_is_compared_are_one() -> None:
    pieces = logarithm_pieces(0, 3, 8, 12, 2)
    assert (np.diff(pieces.thresholds) > 0).all()
    X = np.arange(1, 1 << 16)
    assert (np.diff(value_at(pieces, X, X >> 10)) >= 0).all()


# --- piecewise linear, by three parties -------------------------------------------------------------------


def piecewise(X: Any, compared: Any, pieces: Pieces, seed: int = 0, by: Way = Way.KEY) -> Integers:
    wires = share(X, seed=seed)

    def protocol(party: Party) -> Awaitable[Additive]:
        mine = wires[party.role]
        return gates.piecewise(party, mine, compared(as_opened(mine)), pieces, by)

    return Z64.signed(terms_of(run(protocol, seed=seed).results))


@pytest.mark.parametrize("by", Way)
@pytest.mark.parametrize("bits", [16, 40, 64])
@FEW
@given(seed=seeds, count=st.integers(1, 12))
def test_pieces_with_jumps_and_kinks_are_exact(bits: int, by: Way, seed: int, count: int) -> None:
    rng, quarter = np.random.default_rng(seed), 1 << (bits - 2)
    thresholds = np.unique(rng.integers(-quarter, quarter, count))
    pieces = Pieces(
        tuple(thresholds.tolist()),
        rng.integers(-(2**62), 2**62, len(thresholds) + 1),
        rng.integers(-(2**62), 2**62, len(thresholds) + 1) * rng.integers(0, 2, len(thresholds) + 1),
    )
    pieces.slopes[0] = 0
    X = np.concatenate([rng.integers(-quarter, quarter, 6), thresholds, thresholds - 1])[:, None]
    found = piecewise(X, lambda opened: opened.reduce(0, ring(bits)), pieces, seed, by)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(found, value_at(pieces, X, X), err_msg=f"seed {seed}")


@pytest.mark.parametrize(
    ("low", "knots", "compared", "bits", "error"), [(0, 8, 12, 32, 6e-4), (-6, 4, 10, 28, 2.7e-3)]
)
def test_the_logarithm_over_its_range_and_beyond(
    low: int, knots: int, compared: int, bits: int, error: float
) -> None:
    pieces = logarithm_pieces(low, 10, knots, 16, compared)
    start, end = round(2.0 ** (low + 16)), 1 << 26
    X = np.concatenate(
        [
            np.geomspace(start, end - 1, 1500).astype(np.int64),
            # At and below each threshold; beyond both ends.
            np.array([(t << 16 - compared) - d for t in pieces.thresholds for d in (0, 1)]),
            [0, 1, start // 2, end, end + 1, 4 * end],
        ]
    )
    found = piecewise(X, lambda opened: opened.reduce(16 - compared, ring(bits)), pieces)
    floor = X >> (16 - compared)
    either = [value_at(pieces, X, floor + more) for more in (0, 1)]
    assert ((found == either[0]) | (found == either[1])).all()
    exact = X % (1 << 16 - compared) == 0
    np.testing.assert_array_equal(found[exact], either[0][exact])
    true = np.log(np.clip(X, start, end) / 2.0**16)
    # An index one above takes the next chord over less than a unit of what is compared.
    kink = np.abs(np.diff(pieces.slopes)).max() * 2.0 ** (16 - compared - LOG_BITS)
    assert (np.abs(found / 2.0**LOG_BITS - true) <= error + np.where(exact, 0, kink)).all()
    assert (found[-6:-3] == pieces.constants[0]).all()
    assert (found[-3:] == pieces.constants[-1]).all()


# --- inverse root -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high", "knots"), [(0, 20, 4), (12, 62, 4), (0, 12, 1), (3, 12, 8)])
def test_inverse_roots_are_within_their_error_at_every_integer(low: int, high: int, knots: int) -> None:
    thresholds, values = inverse_root_steps(low, high, knots)
    assert len(values) == len(thresholds) + 1 == (high - low) * knots
    v = np.unique(
        np.concatenate(
            [
                np.arange(1 << low, min(1 << high, (1 << low) + 200_000)),
                np.geomspace(1 << low, (1 << high) - 1, 100_000).astype(np.int64),
                thresholds,
                thresholds - 1,
            ]
        )
    )
    v = v[v >= 1 << low]
    error = np.abs(values[np.searchsorted(thresholds, v, side="right")] * np.sqrt(v) - 1)
    stated = 2.0 ** (1 / (4 * knots)) - 1
    assert error.max() <= stated * (1 + 1e-9)
    assert error.max() > 0.99 * stated
    assert knots != 4 or stated < 0.0443


def test_inverse_roots_are_held_outside_their_range() -> None:
    thresholds, values = inverse_root_steps(4, 10, 4)
    places = np.searchsorted(thresholds, [-(2**62), 0, 15, 1 << 10, 2**62], side="right")
    np.testing.assert_array_equal(values[places], [values[0]] * 3 + [values[-1]] * 2)
    assert (np.diff(values) < 0).all()


@FEW
@given(v=st.integers(1 << 12, (1 << 62) - 1))
def test_the_step_of_an_inverse_root_holds_its_argument(v: int) -> None:
    """In exact integers: v^8 lies between the eighth powers of the step's ends."""
    thresholds, values = inverse_root_steps(12, 62, 4)
    place = int(np.searchsorted(thresholds, v, side="right"))
    assert 1 << (12 * 4 + place) <= v**4 < 1 << (12 * 4 + place + 1), f"{v}"
    assert values[place] == pytest.approx(2.0 ** -((12 + (place + 0.5) / 4) / 2), rel=1e-15)


def test_cached_tables_are_the_same_object_and_not_changed_by_use() -> None:
    first: Any = exponential_cells()
    kept = first[1].copy()
    quadratic(np.arange(5), np.zeros(5, np.int64))
    assert exponential_cells() is first
    np.testing.assert_array_equal(first[1], kept)
    assert logarithm_pieces(0, 4, 8, 16, 16) is logarithm_pieces(0, 4, 8, 16, 16)
