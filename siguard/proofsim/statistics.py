"""Tests of views against uniform and against each other, each with the smallest effect that it would have seen.

Pure functions on arrays.  A test that has too little data says so in ``lacks`` and has no p-value: `holm` refuses
it, so that it cannot pass for a test that found nothing.

Why these tests.  A mean or a t-test of a message does not see a leak that lies in the *joint* distribution of own
share and message, so messages are compared in joint bins.  The chi-square law of the statistics is an
approximation: in 40,000 pairs of equal samples with 10 expected in each of 400 bins, the log-likelihood form alarms
2.8 times as often as its level of 0.01 says, the form of Cressie and Read 1.1 times.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import GofChisquarePower

from siguard.errors import InputError
from siguard.ring import RingArray, bit_slices

#: Level of one test where the caller names none.
ALPHA = 0.01
#: With which probability an effect of the size called detectable is found.
POWER = 0.9
#: Bins hold at least this many expected observations; see the module's second paragraph.
MIN_EXPECTED = 10
#: More bins than 2^8 would only spread the same evidence over more degrees of freedom.
_MAX_WIDTH = 8


@dataclass(frozen=True)
class Outcome:
    """Result of one test.

    p_value: NaN where data lack.  detectable: smallest effect found with probability `POWER` at the test's level,
    in the unit that the function names; 1.0 where data lack.  n: observations.  what: where the strongest evidence
    lies.  lacks: why there is no result, in words; empty where there is one.
    """

    p_value: float
    detectable: float
    n: int
    what: str
    lacks: str


@dataclass(frozen=True)
class ChiSquare(Outcome):
    """With the statistic, approximately chi-square with ``df`` degrees of freedom if nothing is wrong."""

    statistic: float
    df: int


class Family(NamedTuple):
    """Holm's decision on a family of tests: which are rejected, and adjusted p-values to hold against its level."""

    rejected: npt.NDArray[np.bool_]
    adjusted: npt.NDArray[np.float64]


# Binned tests ----------------------------------------------------------------------------------------------


def top_bits(values: RingArray, bits: int, width: int) -> npt.NDArray[np.int64]:
    """The ``width`` most significant bits of elements of a ring of ``bits`` bits, as bin numbers."""
    return (values >> values.dtype.type(bits - min(bits, width))).astype(np.int64)


def low_bits(values: RingArray, width: int) -> npt.NDArray[np.int64]:
    """The ``width`` (below 64) least significant bits, as bin numbers."""
    return (values.astype(np.uint64) & np.uint64((1 << width) - 1)).astype(np.int64)


def uniformity(values: RingArray, bits: int, *, alpha: float = ALPHA) -> ChiSquare:
    """Whether elements of a ring of ``bits`` bits are uniform: Pearson's test on top bits, low bits, single bits.

    values: unsigned, any shape, below 2^bits.  alpha: level of this test: the family's, divided by its size.
    The p-value is corrected for the (up to three) parts.  detectable: total variation from uniform, of the top
    bits, the low bits, or of each single bit.  Dependence between elements is not tested.
    Raises `InputError` for elements outside the ring.
    """
    elements = unsigned("values", values).ravel()
    n = elements.size
    if n and int(elements.max()) >> bits:
        raise InputError(f"values: found {int(elements.max())}; elements of {bits} bits are below 2^{bits}")
    if n < 2 * MIN_EXPECTED:
        return _lacking(n, f"{n} elements: two bins of {MIN_EXPECTED} expected need {2 * MIN_EXPECTED}")
    width = min(bits, _MAX_WIDTH, int(math.log2(n / MIN_EXPECTED)))
    parts = [(f"top {width} bits", np.bincount(top_bits(elements, bits, width), minlength=1 << width), 0)]
    if width < bits:
        parts.append((f"low {width} bits", np.bincount(low_bits(elements, width), minlength=1 << width), 0))
        # Single bits of a uniform element are independent: their statistics add up, one degree of freedom each.
        ones = np.bitwise_count(bit_slices(elements, bits)).sum(axis=1, dtype=np.int64)
        parts.append(("single bits", np.concatenate([ones, n - ones]), bits - 1))

    level = alpha / len(parts)
    degrees = [len(counts) - 1 - surplus for _, counts, surplus in parts]
    # Cauchy-Schwarz: a total variation of t is an effect w of at least 2t, whatever its form.
    detectable = max(detectable_effect(n, df, level) / 2 for df in degrees)
    if detectable >= 0.5:
        return _lacking(
            n, f"{n} elements: total variation below {detectable:.2f} may go unseen at level {alpha:.1e}"
        )
    results = [stats.chisquare(counts, ddof=surplus) for _, counts, surplus in parts]
    best = min(range(len(parts)), key=lambda part: (results[part].pvalue, -results[part].statistic))
    p_value = min(1.0, len(parts) * float(results[best].pvalue))
    return ChiSquare(p_value, detectable, n, parts[best][0], "", float(results[best].statistic), degrees[best])


def g_test(joint_a: npt.ArrayLike, joint_b: npt.ArrayLike, *, alpha: float = ALPHA) -> ChiSquare:
    """Whether two samples of joint bins have one distribution: G-test in the form of Cressie and Read.

    joint_a, joint_b: whole numbers, shapes (n_a,) or (n_a, k) and (n_b,) or (n_b, k); a row is one observation, for
    example (own share bin, received bin).  Neighbouring bins, in order of the columns, are merged until either
    sample expects `MIN_EXPECTED`.  This looks at both samples together, so it favours neither.
    alpha: level of this test.  detectable: total variation between the two, over the merged bins.
    """
    a, b = _rows("joint_a", joint_a), _rows("joint_b", joint_b)
    kind = np.result_type(a, b)
    if a.shape[1] != b.shape[1] or kind.kind not in "iub":
        raise InputError(f"joint_a, joint_b: found {a.shape[1]} columns of {a.dtype}, {b.shape[1]} of {b.dtype}")
    n, smaller = len(a) + len(b), min(len(a), len(b))
    place = _bins(np.concatenate([a, b]))
    labels = int(place.max()) + 1
    group = _merged(np.bincount(place), MIN_EXPECTED * n / smaller)
    bins = int(group[-1]) + 1
    if bins == 1 and labels > 1:
        return _lacking(n, f"{len(a)} and {len(b)} observations in {labels} bins: too few for two merged bins")
    # Share w of the chi-square effect and total variation t: w >= 2 t sqrt(n_a n_b) / n, by Cauchy-Schwarz.
    effect = detectable_effect(n, max(bins - 1, 1), alpha)
    detectable = effect * n / (2 * math.sqrt(len(a) * len(b)))
    if detectable >= 1:
        return _lacking(
            n, f"{len(a)} and {len(b)} observations: no difference is sure to show at level {alpha:.1e}"
        )
    what = f"{bins} of {labels} joint bins" if bins < labels else f"{bins} joint bins"
    if bins == 1:
        return ChiSquare(1.0, detectable, n, "one constant in both samples", "", 0.0, 0)
    merged = group[place]
    table = [np.bincount(part, minlength=bins) for part in (merged[: len(a)], merged[len(a) :])]
    result = stats.chi2_contingency(table, correction=False, lambda_="cressie-read")
    return ChiSquare(
        float(result.pvalue), detectable, n, what, "", max(0.0, float(result.statistic)), int(result.dof)
    )


def _bins(rows: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The number of each row among the different rows, in order of the columns."""
    bins = np.zeros(len(rows), np.int64)
    for column in rows.T:  # by columns: ten times as fast as sorting rows
        _, value = np.unique(column, return_inverse=True)
        _, bins = np.unique(bins * len(rows) + value, return_inverse=True)
    return bins


def _merged(counts: npt.NDArray[np.int64], least: float) -> npt.NDArray[np.int64]:
    """The group of each bin: runs of neighbours with at least ``least`` observations together."""
    group = np.zeros(len(counts), dtype=np.int64)
    number, held = 0, 0
    for place, count in enumerate(counts.tolist()):
        if held >= least:
            number, held = number + 1, 0
        group[place] = number
        held += count
    if held < least and number:
        group[group == number] = number - 1
    return group


# Families and sample sizes ---------------------------------------------------------------------------------


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> Family:
    """Holm's step-down decision at family level ``alpha``: any dependence between the tests is allowed.

    Raises `InputError` for a p-value that is not in 0..1, such as the NaN of a test that lacks data.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError("p_values: found one outside 0..1 or NaN; a test that lacks data has no p-value")
    if not values.size:
        return Family(np.zeros(0, dtype=np.bool_), values)
    # It collects garbage, 80 ms of it beside scikit-learn; what is frozen is not looked through.
    gc.freeze()
    try:
        rejected, adjusted, _, _ = multipletests(values, alpha, method="holm")
    finally:
        gc.unfreeze()
    return Family(np.asarray(rejected, dtype=np.bool_), np.asarray(adjusted, dtype=np.float64))


@cache
def _noncentrality(df: int, alpha: float, power: float) -> float:
    """n w^2 of the chi-square effect that is found: solved once, as it does not depend on n."""
    reference = 1000
    effect = GofChisquarePower().solve_power(nobs=reference, alpha=alpha, power=power, n_bins=df + 1)
    return reference * float(effect) ** 2


def detectable_effect(n: int, df: int, alpha: float = ALPHA, power: float = POWER) -> float:
    """Smallest effect w (Cohen 1988, chapter 7) that a chi-square test of ``n`` observations finds."""
    return math.sqrt(_noncentrality(df, alpha, power) / n)


def samples_needed(effect: float, df: int, alpha: float = ALPHA, power: float = POWER) -> int:
    """Observations with which a chi-square test finds an effect w with ``power``: inverse of `detectable_effect`.

    A total variation of t is w >= 2t against uniform, and w >= t between two samples of equal size (n counts both).
    """
    return math.ceil(_noncentrality(df, alpha, power) / effect**2)


def binomial_interval(successes: int, n: int, confidence: float = 0.99) -> tuple[float, float]:
    """Clopper and Pearson's exact interval of a probability, from ``successes`` in ``n`` trials."""
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def within_binomial_interval(alarms: int, n: int, rate: float, confidence: float = 0.99) -> bool:
    """Whether ``alarms`` in ``n`` null runs agree with a false-alarm rate of ``rate``: neither more nor fewer."""
    low, high = binomial_interval(alarms, n, confidence)
    return low <= rate <= high


# Arguments -------------------------------------------------------------------------------------------------


def _lacking(n: int, why: str) -> ChiSquare:
    return ChiSquare(math.nan, 1.0, n, "", why, math.nan, 0)


def unsigned(field: str, values: npt.ArrayLike) -> RingArray:
    """An argument as an array of unsigned little-endian numbers; raises `InputError` for any other type."""
    array = np.asarray(values)
    if array.dtype.kind != "u":
        raise InputError(f"{field}: found type {array.dtype}; expected unsigned whole numbers")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _rows(field: str, joint: npt.ArrayLike) -> npt.NDArray[Any]:
    array = np.asarray(joint)
    if array.ndim not in (1, 2) or not array.size:
        raise InputError(f"{field}: found shape {array.shape}; expected (n,) or (n, k) with n and k at least 1")
    return array.reshape(len(array), -1)
