"""A trained distinguisher: whether classifiers tell two samples of views apart, and how many views that takes.

As the tests of `siguard.proofsim.statistics` it says in ``lacks`` when it has too little data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_effectsize
from threadpoolctl import ThreadpoolController

from siguard.errors import InputError
from siguard.proofsim.statistics import ALPHA, POWER, Outcome, unsigned
from siguard.ring import RingArray

FloatArray = npt.NDArray[np.floating[Any]]

#: Boosting sees as many features as a word has bits, those whose means differ most in the training half: on all of
#: 2,000 it takes 15 times as long and finds no more.
_SCREENED = 64
#: Number of classifiers in `distinguish`; its p-value is corrected for them.
CLASSIFIERS = 3


@dataclass(frozen=True)
class Distinguished(Outcome):
    """With the accuracy (0..1) of the best classifier on the rows it was not trained on."""

    accuracy: float


def views_needed(advantage: float, features: int, alpha: float = ALPHA, power: float = POWER) -> int:
    """Rows *of each class* with which `distinguish` finds a leak in one of ``features`` features.

    advantage: accuracy minus 1/2 (0..1/2, exclusive) of guessing the class from that feature alone.  Two things
    have to succeed: the leaking feature is told from the others while training, and the hits pass the test.
    """
    effect = proportion_effectsize(0.5 + advantage, 0.5)
    each = (1 + power) / 2
    levels = ((1 - each) / (2 * features), alpha / CLASSIFIERS)
    # Each half of the data holds as many rows as there are of each class.
    rows: list[float] = [
        NormalIndPower().solve_power(effect, alpha=level, power=each, ratio=0, alternative="larger")
        for level in levels
    ]
    return math.ceil(max(rows))


def features_of_words(arrays: Sequence[RingArray]) -> npt.NDArray[np.float32]:
    """All single bits of unsigned arrays of shape (n, ...), as 0.0 and 1.0: shape (n, bits of a row).

    A linear classifier sees a low bit only if it is a feature.  Bit b of word j of the first array, whose words
    have w bits, is column ``w j + b``; the other arrays follow.  A leak in a joint distribution may have no trace
    in the bits of either word: add what an attacker would compute from both, such as the array of their sums.
    """
    if not arrays:
        raise InputError("arrays: found none")
    words = [unsigned("arrays", array) for array in arrays]
    rows = len(words[0])
    if any(len(array) != rows for array in words):
        raise InputError(f"arrays: found {[len(array) for array in words]} rows; expected as many in each")
    packed = [np.ascontiguousarray(array.reshape(rows, -1)).view(np.uint8) for array in words]
    return np.unpackbits(np.concatenate(packed, axis=1), axis=1, bitorder="little").astype(np.float32)


def distinguish(
    features_a: FloatArray, features_b: FloatArray, seed: int, *, alpha: float = ALPHA
) -> Distinguished:
    """Train classifiers to tell two samples apart, and count their hits on rows they were not trained on.

    features_a, features_b: (n, d) finite, as many rows in both.  Row i of both goes to the same half: members and
    non-members of a pair may share randomness, and a classifier that had seen one would know the other.
    The best single feature, logistic regression on all of them, boosted trees on the best ones; the exact binomial
    p-value of the best classifier against 1/2, one-sided, is corrected for their number.
    alpha: level of this test.  detectable: the advantage (accuracy minus 1/2) of a trained classifier.
    """
    a, b = np.asarray(features_a), np.asarray(features_b)
    if a.ndim != 2 or a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError(f"features: found shapes {a.shape} and {b.shape}; expected twice (n, d), all finite")
    order = np.random.default_rng(seed).permutation(len(a))
    half = len(a) // 2
    train, test = (
        np.concatenate([a[order[:half]], b[order[:half]]]),
        np.concatenate([a[order[half:]], b[order[half:]]]),
    )
    rows = len(test)
    needed = int(stats.binom.isf(alpha / CLASSIFIERS, rows, 0.5)) + 1  # hits: the fewest that are an alarm
    if needed > rows or half < 2:
        lacks = f"{len(a)} rows of each class: {rows} hits out of {rows} would be no alarm at level {alpha:.1e}"
        return Distinguished(math.nan, 1.0, rows, "", lacks, math.nan)
    # The accuracy with which `needed` hits come with probability POWER: the binomial tail is a beta function.
    detectable = float(stats.beta.ppf(POWER, needed, rows - needed + 1)) - 0.5
    varies = train.min(axis=0) != train.max(axis=0)
    if not varies.any():
        return Distinguished(1.0, detectable, rows, "nothing varies in the training half", "", 0.5)
    train, test = train[:, varies], test[:, varies]
    train_class, test_class = np.arange(2 * half) >= half, np.arange(rows) >= rows // 2
    hits = {}
    with _threads().limit(limits=1):  # one thread: a seed repeats on any machine
        for name, classifier in _classifiers(train.shape[1], seed).items():
            hits[name] = int((classifier.fit(train, train_class).predict(test) == test_class).sum())
    best = max(hits, key=lambda name: hits[name])
    p_value = min(1.0, len(hits) * float(stats.binomtest(hits[best], rows, alternative="greater").pvalue))
    return Distinguished(p_value, detectable, rows, best, "", hits[best] / rows)


@cache
def _threads() -> ThreadpoolController:
    """Kept: to look for the libraries that use threads takes a fifth of the time of a small test."""
    return ThreadpoolController()


def _classifiers(features: int, seed: int) -> dict[str, Any]:
    """One for a leak in a single feature, one for many weak ones, one for leaks that depend on each other."""
    return {
        "best single feature": DecisionTreeClassifier(max_depth=1, random_state=seed),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)),
        "boosted trees": make_pipeline(
            SelectKBest(f_regression, k=min(_SCREENED, features)),
            HistGradientBoostingClassifier(max_iter=40, max_depth=3, early_stopping=False, random_state=seed),
        ),
    }
