"""Each test of views: its level on equal samples, its power at the effect it calls detectable, planted leaks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from siguard.errors import InputError
from siguard.proofsim.statistics import (
    POWER,
    _bins,
    binomial_interval,
    detectable_effect,
    g_test,
    holm,
    low_bits,
    samples_needed,
    top_bits,
    uniformity,
    within_binomial_interval,
)
from siguard.ring import Ring, RingArray

RUNS = 125
#: Of each interval here; the seeds are fixed, so a test passes always or never.
CONFIDENCE = 0.999


def uniform(rng: np.random.Generator, shape: int | tuple[int, ...], bits: int = 64) -> RingArray:
    return rng.integers(0, (1 << bits) - 1, shape, dtype=Ring(bits).dtype.type, endpoint=True)


def even_more_often(rng: np.random.Generator, numbers: npt.NDArray[Any], by: float) -> npt.NDArray[Any]:
    """Total variation ``by`` from uniform: the parity of all bits is even with probability 1/2 + by, no more."""
    odd = np.bitwise_count(numbers) & 1
    flips: npt.NDArray[Any] = (odd & (rng.random(numbers.shape) < 2 * by)).astype(numbers.dtype)
    return numbers ^ flips  # type: ignore[no-any-return]


# Uniformity ------------------------------------------------------------------------------------------------


def low_bit_set(rng: np.random.Generator, n: int) -> RingArray:
    return uniform(rng, n) | (rng.random(n) < 0.5).astype(np.uint64)


def one_bit_per_byte(rng: np.random.Generator, n: int) -> RingArray:
    return rng.integers(0, 2, (n, 8), dtype=np.uint8).view(np.uint64)


PLANTED: dict[str, tuple[str, Callable[[np.random.Generator, int], RingArray]]] = {
    "constant": ("", lambda rng, n: np.full(n, uniform(rng, 1)[0])),
    "one random bit per byte": ("", one_bit_per_byte),
    "one random bit per byte, its place secret": ("", lambda rng, n: one_bit_per_byte(rng, n) << np.uint64(5)),
    "small values": ("top", lambda rng, n: uniform(rng, n) >> np.uint64(1)),
    "multiples of two": ("low", lambda rng, n: uniform(rng, n) << np.uint64(1)),
    "low bit set too often": ("", low_bit_set),
    "bit 29 never set": ("single", lambda rng, n: uniform(rng, n) & np.uint64(~(1 << 29) % (1 << 64))),
    "parity of the top byte": (
        "top",
        lambda rng, n: (
            (even_more_often(rng, uniform(rng, n, 8), 0.4).astype(np.uint64) << np.uint64(56))
            | uniform(rng, n) >> np.uint64(8)
        ),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(3))
def test_masks_that_are_not_uniform_are_found(name: str, seed: int) -> None:
    where, make = PLANTED[name]
    outcome = uniformity(make(np.random.default_rng(seed), 5000), 64, alpha=1e-6)
    assert not outcome.lacks
    assert outcome.p_value < 1e-6, f"seed {seed}: {outcome}"
    assert outcome.what.startswith(where), f"seed {seed}: {outcome}"
    assert outcome.df == (64 if outcome.what == "single bits" else 255)


@pytest.mark.parametrize("bits", [1, 2, 3, 9, 63])
def test_every_ring(bits: int) -> None:
    rng = np.random.default_rng(bits)
    assert uniformity(uniform(rng, (40, 50), bits), bits).p_value > 1e-3, f"seed {bits}"
    assert (
        uniformity(uniform(rng, 2000, bits) & Ring(bits).dtype.type(1 << (bits - 1)), bits).p_value < 1e-9
        or bits == 1
    )
    assert uniformity(np.zeros(100, Ring(bits).dtype), bits).p_value < 1e-9


@pytest.mark.parametrize(("bits", "n"), [(1, 1000), (3, 200), (64, 300), (64, 5000)])
def test_uniformity_keeps_its_level(bits: int, n: int) -> None:
    alpha = 0.05
    values = [uniform(np.random.default_rng((n, seed)), n, bits) for seed in range(RUNS)]
    alarms = sum(uniformity(each, bits, alpha=alpha).p_value <= alpha for each in values)
    assert within_binomial_interval(alarms, RUNS, alpha, CONFIDENCE), f"{alarms} alarms, seeds ({n}, 0..{RUNS - 1})"


def test_uniformity_finds_what_it_calls_detectable() -> None:
    n, alpha, found = 4000, 1e-3, 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        size = uniformity(uniform(rng, n), 64, alpha=alpha).detectable
        words = uniform(rng, n) & np.uint64((1 << 56) - 1)
        words |= even_more_often(rng, uniform(rng, n, 8), size).astype(np.uint64) << np.uint64(56)
        found += uniformity(words, 64, alpha=alpha).p_value <= alpha
    assert binomial_interval(found, RUNS, CONFIDENCE)[1] >= POWER, f"{found} of {RUNS}, seeds 0..{RUNS - 1}"
    # And not far too large a figure: the effect was chosen as small as the bound allows.
    assert found < RUNS, "the detectable effect is found always, so a smaller one is detectable"


def test_too_few_elements_are_said() -> None:
    few = uniformity(np.zeros(5, np.uint64), 64)
    assert math.isnan(few.p_value)
    assert few.detectable == 1.0
    assert few.lacks.startswith("5 elements")
    assert "level 1.0e-12" in uniformity(np.zeros(40, np.uint64), 64, alpha=1e-12).lacks
    with pytest.raises(InputError, match="lacks data"):
        holm([0.5, few.p_value])


def test_uniformity_refuses_what_is_no_ring_element() -> None:
    with pytest.raises(InputError, match=r"found 8; elements of 3 bits"):
        uniformity(np.array([8] * 30, np.uint8), 3)
    with pytest.raises(InputError, match="unsigned"):
        uniformity(np.zeros(30, np.int64), 64)


# The joint distribution ------------------------------------------------------------------------------------


def product_view(rng: np.random.Generator, x: int, y: int, n: int, masked: bool) -> npt.NDArray[np.uint8]:
    """Shares of x and y that one role of a replicated product in Z_4 holds, and the summand it is sent."""
    x0, x1, y0, y1, zero = uniform(rng, (5, n), 2)
    x2, y2 = (x - x0 - x1) & 3, (y - y0 - y1) & 3
    sent = x1 * y1 + x1 * y2 + x2 * y1 + (zero if masked else 0)
    return np.stack([x0, x1, y0, y1, sent & 3], axis=1).astype(np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_a_product_without_its_zero_share_shows_in_the_joint_view_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = product_view(rng, 1, 3, 20_000, masked=False), product_view(rng, 3, 1, 20_000, masked=False)
    t = stats.ttest_ind(one[:, 4].astype(float), other[:, 4].astype(float), equal_var=False).statistic
    assert abs(t) < 4.5, f"seed {seed}: t {t:.2f}; a t-test was not supposed to see it"
    assert g_test(one[:, 4], other[:, 4]).p_value > 1e-4, f"seed {seed}: nor is it in the message alone"
    joint = g_test(one, other)
    assert joint.p_value < 1e-300, f"seed {seed}: {joint}"
    assert joint.statistic > 10 * joint.df
    masked = g_test(product_view(rng, 1, 3, 20_000, masked=True), product_view(rng, 3, 1, 20_000, masked=True))
    assert masked.p_value > 1e-4, f"seed {seed}: {masked}"
    assert masked.detectable < 0.1


@pytest.mark.parametrize(
    ("n_a", "n_b", "columns"), [(2000, 2000, 1), (2000, 2000, 4), (300, 300, 4), (3000, 500, 3)]
)
def test_g_test_keeps_its_level(n_a: int, n_b: int, columns: int) -> None:
    alpha, alarms = 0.05, 0
    for seed in range(RUNS):
        rng = np.random.default_rng((n_a, n_b, seed))
        # Not uniform: some bins are rare and must be merged.
        a, b = (rng.binomial(5, 0.4, (n, columns)) for n in (n_a, n_b))
        alarms += g_test(a, b, alpha=alpha).p_value <= alpha
    assert within_binomial_interval(alarms, RUNS, alpha, CONFIDENCE), f"{alarms} alarms, seeds 0..{RUNS - 1}"


@pytest.mark.parametrize(("n_a", "n_b"), [(3000, 3000), (6000, 2000)])
def test_g_test_finds_what_it_calls_detectable(n_a: int, n_b: int) -> None:
    alpha, found = 1e-3, 0
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        a, b = uniform(rng, n_a, 6), uniform(rng, n_b, 6)
        size = g_test(a, b, alpha=alpha).detectable
        # Half of it in each sample: pooled they are uniform, which is the hardest case of the bound.
        one, other = even_more_often(rng, a, size / 2), even_more_often(rng, b, size / 2) ^ np.uint8(1)
        found += g_test(one, other, alpha=alpha).p_value <= alpha
    assert binomial_interval(found, RUNS, CONFIDENCE)[1] >= POWER, f"{found} of {RUNS}, seeds 0..{RUNS - 1}"
    assert found < RUNS, "the detectable effect is found always, so a smaller one is detectable"


def test_rare_bins_are_merged_or_the_lack_is_said() -> None:
    rng = np.random.default_rng(5)
    rare = g_test(uniform(rng, 1000), uniform(rng, 1000))
    assert rare.df == 99, "1,000 + 1,000 different values: 100 runs of neighbours with 10 + 10 in each"
    assert rare.what == "100 of 2000 joint bins"
    constant = g_test(np.full(1000, 7, np.uint64), uniform(rng, 1000))
    assert constant.p_value < 1e-100, "a constant mask is one full bin against many rare ones"
    few = g_test(uniform(rng, 12), uniform(rng, 12))
    assert math.isnan(few.p_value)
    assert "too few" in few.lacks
    assert "no difference is sure to show" in g_test([0] * 12 + [1] * 12, [0] * 12 + [1] * 12, alpha=1e-9).lacks


@pytest.mark.parametrize("seed", range(3))
def test_joint_bins_are_the_different_rows_in_order(seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-3, 4, (200, 3)) * np.array([1, 1 << 40, 1])
    expected = np.unique(rows, axis=0, return_inverse=True)[1].ravel()
    np.testing.assert_array_equal(_bins(rows), expected, err_msg=f"seed {seed}")


def test_the_statistic_by_hand() -> None:
    """Cressie and Read 1984, equation 2.1 with lambda 2/3, without Yates's correction."""
    seen, expected = np.array([40.0, 60.0, 70.0, 30.0]), np.array([55.0, 45.0, 55.0, 45.0])
    outcome = g_test([0] * 40 + [1] * 60, [0] * 70 + [1] * 30)
    assert outcome.statistic == pytest.approx(9 / 5 * (seen * ((seen / expected) ** (2 / 3) - 1)).sum())
    assert outcome.p_value == pytest.approx(stats.chi2.sf(outcome.statistic, 1))


def test_the_same_constant_in_both_samples_is_no_difference() -> None:
    outcome = g_test([3] * 100, [3] * 100)
    assert (outcome.p_value, outcome.df, outcome.lacks) == (1.0, 0, "")


def test_g_test_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(InputError, match="2 columns"):
        g_test(np.zeros((9, 2), int), np.zeros(9, int))
    with pytest.raises(InputError, match="joint_a"):
        g_test([], [1])
    with pytest.raises(InputError, match="float64"):
        g_test([0.5], [0.25])


@given(st.integers(0, 2**64 - 1), st.integers(1, 64), st.integers(1, 16))
def test_bins_are_the_ends_of_an_element(value: int, bits: int, width: int) -> None:
    value %= 1 << bits
    array = np.array([value], Ring(bits).dtype)
    assert top_bits(array, bits, width)[0] == value >> max(0, bits - width)
    assert low_bits(array, width)[0] == value % (1 << width)


# Families and sample sizes ---------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    family = holm([0.01, 0.04, 0.03, 0.005], 0.05)
    np.testing.assert_allclose(family.adjusted, [0.03, 0.06, 0.06, 0.02])
    assert family.rejected.tolist() == [True, False, False, True]
    assert holm([]).rejected.shape == (0,)
    with pytest.raises(InputError, match="0\\.\\.1"):
        holm([1.5])


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 10**6), st.integers(1, 2000), st.sampled_from([0.05, 1e-3, 1e-6, 1e-9]))
def test_effects_and_sample_sizes_are_inverse(n: int, df: int, alpha: float) -> None:
    effect = detectable_effect(n, df, alpha)
    assert samples_needed(effect, df, alpha) in (n, n + 1)
    assert samples_needed(effect / 2, df, alpha) >= 4 * n - 1
    # Not through statsmodels: the noncentral chi-square law, inverted.
    exact = float(special.chndtrinc(stats.chi2.isf(alpha, df), df, 1 - POWER))
    assert n * effect**2 == pytest.approx(exact, rel=1e-3)


def test_binomial_interval_is_exact() -> None:
    low, high = binomial_interval(0, 50, 0.95)
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert within_binomial_interval(10, 1000, 0.01)
    assert not within_binomial_interval(25, 1000, 0.01), "too many alarms"
    assert not within_binomial_interval(0, 1000, 0.01), "a test that never alarms is as wrong"


@pytest.mark.parametrize(("n", "rate"), [(30, 0.1), (300, 0.02)])
def test_the_interval_covers_as_often_as_it_says(n: int, rate: float) -> None:
    inside = [k for k in range(n + 1) if within_binomial_interval(k, n, rate, 0.95)]
    assert 0.95 <= stats.binom.pmf(inside, n, rate).sum() < 0.995
