"""The distinguisher: its level on equal samples, its power with the views it asks for, leaks that are planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from siguard.errors import InputError
from siguard.proofsim.distinguisher import distinguish, features_of_words, views_needed
from siguard.proofsim.statistics import POWER, binomial_interval
from siguard.ring import Ring, RingArray

#: Of each interval here; the seeds are fixed, so a test passes always or never.
CONFIDENCE = 0.999


def uniform(rng: np.random.Generator, shape: int | tuple[int, ...], bits: int = 64) -> RingArray:
    return rng.integers(0, (1 << bits) - 1, shape, dtype=Ring(bits).dtype.type, endpoint=True)


def leaky_words(rng: np.random.Generator, n: int, words: int, shift: float) -> tuple[RingArray, RingArray]:
    """Two samples of 64-bit words; bit 3 of the last word is set with probabilities that differ by ``shift``."""
    samples = uniform(rng, (2, n, words))
    ones = rng.random((2, n)) < 0.5 + shift / 2 * np.array([[-1], [1]])
    samples[:, :, -1] = samples[:, :, -1] & np.uint64(~8 % (1 << 64)) | ones.astype(np.uint64) << np.uint64(3)
    return samples[0], samples[1]


@pytest.mark.parametrize(("words", "shift", "runs"), [(1, 0.2, 16), (32, 0.4, 12)])
def test_a_planted_bit_is_found_with_the_views_that_are_needed(words: int, shift: float, runs: int) -> None:
    alpha, found = 0.01, 0
    n = views_needed(shift / 2, 64 * words, alpha)
    for seed in range(runs):
        a, b = leaky_words(np.random.default_rng(seed), n, words, shift)
        outcome = distinguish(features_of_words([a]), features_of_words([b]), seed, alpha=alpha)
        assert outcome.detectable < shift / 2
        found += outcome.p_value <= alpha
    assert binomial_interval(found, runs, CONFIDENCE)[1] >= POWER, f"{found} of {runs} with {n} views, seeds 0.."


def test_the_figures_of_a_distinguisher_by_hand() -> None:
    a, b = leaky_words(np.random.default_rng(2), 151, 1, 0.3)
    outcome = distinguish(features_of_words([a]), features_of_words([b]), 2, alpha=0.01)
    assert outcome.n == 152, "the larger half of both"
    hits = round(outcome.accuracy * outcome.n)
    assert outcome.p_value == pytest.approx(min(1.0, 3 * stats.binom.sf(hits - 1, 152, 0.5)))
    fewest = next(k for k in range(153) if 3 * stats.binom.sf(k - 1, 152, 0.5) <= 0.01)
    assert stats.binom.sf(fewest - 1, 152, 0.5 + outcome.detectable) == pytest.approx(POWER)
    assert views_needed(0.1, 2000) > views_needed(0.1, 64) > views_needed(0.1, 1), "one feature among more"


def test_no_false_alarm_beyond_the_level() -> None:
    alpha, runs, alarms = 0.1, 50, 0
    for seed in range(runs):
        a, b = uniform(np.random.default_rng(seed), (2, 60, 1), 8)
        alarms += distinguish(features_of_words([a]), features_of_words([b]), seed, alpha=alpha).p_value <= alpha
    # One-sided: an exact test of a count keeps below its level.
    assert binomial_interval(alarms, runs, CONFIDENCE)[0] <= alpha, f"{alarms} of {runs}, seeds 0..{runs - 1}"
    assert alarms, "an alarm must be possible"


def test_each_classifier_has_a_leak_that_is_its_own() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 1000, 40))
    assert distinguish(a + 0.08, b - 0.08, 1).what == "logistic regression", "weak in each of 40 features"
    a, b = rng.normal(size=(2, 1000, 40))
    a[:, 7] *= 4
    assert distinguish(a, b, 1).what == "boosted trees", "no difference of means"
    a, b = rng.normal(size=(2, 1000, 400))
    a[:, 7] += 1
    assert distinguish(a, b, 1).what == "best single feature"


@pytest.mark.parametrize("seed", range(3))
def test_a_joint_leak_needs_the_directed_word(seed: int) -> None:
    own = uniform(np.random.default_rng(seed), (2, 60, 8))
    received = np.array([17, 99], np.uint64).reshape(2, 1, 1) - own  # the secret is own + received
    blind = [features_of_words([own[c], received[c]]) for c in (0, 1)]
    directed = [features_of_words([own[c], received[c], own[c] + received[c]]) for c in (0, 1)]
    assert distinguish(blind[0], blind[1], seed).p_value > 1e-3, f"seed {seed}"
    assert distinguish(directed[0], directed[1], seed).accuracy == 1.0


def test_pairs_stay_together() -> None:
    """The same rows in both: a classifier that saw one of a pair would be wrong about the other, below 1/2."""
    rows = np.random.default_rng(6).normal(size=(60, 5))
    assert distinguish(rows, rows, 6).accuracy == 0.5


def test_a_seed_repeats() -> None:
    a, b = np.random.default_rng(7).normal(size=(2, 80, 30))
    assert distinguish(a, b, 7) == distinguish(a, b, 7)
    assert len({distinguish(a, b, seed).accuracy for seed in range(5)}) > 1


def test_too_few_rows_are_said_and_constants_are_no_leak() -> None:
    few = distinguish(np.zeros((5, 2)), np.ones((5, 2)), 0)
    assert math.isnan(few.p_value)
    assert few.detectable == 1.0
    assert few.lacks.startswith("5 rows of each class")
    constant = distinguish(np.zeros((50, 2)), np.zeros((50, 2)), 0)
    assert (constant.p_value, constant.accuracy) == (1.0, 0.5)
    for a, b in (((9, 2), (8, 2)), ((9,), (9,))):
        with pytest.raises(InputError, match="found shapes"):
            distinguish(np.zeros(a), np.zeros(b), 0)
    with pytest.raises(InputError, match="finite"):
        distinguish(np.full((9, 2), np.nan), np.zeros((9, 2)), 0)


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6),
    st.lists(st.integers(0, 255), min_size=2, max_size=2),
)
def test_features_are_the_bits(words: list[int], last: list[int]) -> None:
    arrays: list[RingArray] = [np.array(words, np.uint64).reshape(2, 3), np.array(last, np.uint8)]
    features = features_of_words(arrays)
    assert features.shape == (2, 3 * 64 + 8)
    for row in range(2):
        for word in range(3):
            bits = features[row, 64 * word : 64 * word + 64]
            assert sum(int(bit) << place for place, bit in enumerate(bits)) == words[3 * row + word]
        assert sum(int(bit) << place for place, bit in enumerate(features[row, 192:])) == last[row]


def test_features_of_odd_arrays() -> None:
    big = np.array([1, 2], ">u2")
    np.testing.assert_array_equal(features_of_words([big]), features_of_words([big.astype("<u2")]))
    np.testing.assert_array_equal(
        features_of_words([np.arange(6, dtype=np.uint8).reshape(2, 3).T]),
        features_of_words([np.array([[0, 3], [1, 4], [2, 5]], np.uint8)]),
    )
    for wrong, message in (([], "none"), ([big, big[:1]], "rows"), ([big.astype(float)], "unsigned")):
        with pytest.raises(InputError, match=message):
            features_of_words(wrong)
