"""The exponential from three dealt tables: its error, both sides of every carry, the edges of its window."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpc_helpers import CELL_SHIFT, UNIT, run, run_seen, share, share_from, uniform, value_of

from siguard.mpc.splines import (
    DIGIT_BITS,
    HIGH_BITS,
    LOW_BITS,
    low_digit_table,
    middle_digit_tables,
)
from siguard.mpc.tabled import LARGEST_FACTOR, tabled_exponential
from siguard.ring import FRACTION_BITS, Z64

#: Every 73rd argument from 1 below the window to 1 above, the neighbours of every cell's edge, and far away.
SWEEP = np.unique(
    np.concatenate(
        [
            np.arange(-15 * UNIT, 9 * UNIT, 73),
            (np.arange(-15 * 8, 9 * 8)[:, None] * (UNIT // 8) + np.array([-1, 0, 1])).ravel(),
            np.array([-127, -64, -32, -16, 16, 32, 64, 127]) * UNIT,
        ]
    )
)

Floats = npt.NDArray[np.float64]


def exponential(shares: Any, bits: int = 11, seed: int = 0) -> Floats:
    done = run(lambda party: tabled_exponential(party, shares[party.role], bits), seed=seed)
    return Z64.signed(value_of(done.results)) / 2.0**FRACTION_BITS


def check(x: Floats, found: Floats, what: str) -> None:
    true = np.exp(x)
    right = np.abs(found - true) <= 2.0e-4 * true + 2.5e-5
    none = np.abs(found) <= 2.5e-5
    inside = (x >= -12) & (x < 6)
    either = (x > -14) & (x < 8)
    assert right[inside].all(), what
    assert (right | none)[either].all(), what
    assert none[~either].all(), what


@pytest.mark.parametrize("low", [0, (1 << CELL_SHIFT) - 1])
@pytest.mark.parametrize("digit", [0, 7, 15])
@pytest.mark.parametrize("high", [0, 15, 77, 112, 127])
def test_the_whole_range_under_masks_that_carry_everywhere_and_nowhere(low: int, digit: int, high: int) -> None:
    rng = np.random.default_rng([low, digit, high])
    x0 = uniform(rng, Z64, SWEEP.shape)
    top = uniform(rng, Z64, SWEEP.shape) << np.uint64(CELL_SHIFT + 11)
    r = top | np.uint64((high << DIGIT_BITS | digit) << CELL_SHIFT | low)
    # alpha = -r in the reading of an opened wire.
    shares = share_from(Z64, Z64.constant(SWEEP), x0, Z64.sub(Z64.neg(r), x0))
    check(SWEEP / UNIT, exponential(shares), f"mask {high}, {digit}, {low}")


@pytest.mark.parametrize("bits", [10, 11, 12, 13])
def test_random_masks(bits: int) -> None:
    X = SWEEP[np.abs(SWEEP >> CELL_SHIFT) < (1 << (bits - 1)) - 1]
    check(X / UNIT, exponential(share(X, seed=bits), bits, seed=bits), f"{bits} bits")


def test_any_shape_and_seeds_decide_frames_whose_shape_no_value_changes() -> None:
    def frames(values: Any, seed: int, masks: int) -> tuple[list[Any], list[bytes]]:
        X = share(np.reshape(values, (2, 1, 3)), seed=masks)
        headers, content, done = run_seen(lambda party: tabled_exponential(party, X[party.role], 10), seed)
        assert value_of(done.results).shape == (2, 1, 3)
        return headers, content

    one = frames([1, 70_000, -900, 0, 5, 6], 7, 0)
    assert frames([1, 70_000, -900, 0, 5, 6], 7, 0) == one
    for values, seed, masks in (([1, 70_000, -900, 0, 5, 6], 8, 0), ([0] * 6, 8, 1), ([-(2**18)] * 6, 7, 2)):
        headers, content = frames(values, seed, masks)
        assert headers == one[0]
        assert content != one[1]


async def test_an_index_of_too_few_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="index of 9 bits; at least 10"):
        await tabled_exponential(None, share([1])[0], 9)  # type: ignore[arg-type]


# --- the tables -------------------------------------------------------------------------------------------


def test_middle_digits() -> None:
    table = middle_digit_tables()
    for r1, c1, j in product(range(16), range(16), (-1, 0, 1)):
        m = 16 * j + c1 - r1
        assert table[r1, c1, j + 1] == (round(np.exp(2 * m) * 2**HIGH_BITS) if -6 <= m <= 3 else 0), (r1, c1, j)
    # No other difference of the top digit reaches the window.
    assert all(abs(16 * j + middle) > 6 for j in (-2, 2) for middle in range(-15, 16))


def test_low_digits_at_every_offset() -> None:
    """For every pair of low digits, and all offsets of a cell against the least, a middle and the largest mask."""
    digits = np.repeat(np.arange(16), 3)
    within = np.tile([0, 1000, (1 << CELL_SHIFT) - 1], 16)
    cl = np.arange(0, 1 << CELL_SHIFT, 7)
    table = Z64.signed(low_digit_table(digits, within)).astype(np.float64)
    P0, P1, P2 = (table[:, :, k, None] for k in range(3))
    found = (P0 + cl * (P1 + cl * P2)) / 2.0**LOW_BITS
    lo = np.arange(16) - digits[:, None]
    true = np.exp(lo[..., None] / 8 + (cl - within[:, None, None]) / UNIT)
    error = np.abs(found / true - 1)
    assert error.max() <= 1.8e-4
    assert error.max() > 1.0e-4
    assert found.max() <= LARGEST_FACTOR
