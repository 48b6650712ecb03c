"""How well an attack tells members from non-members: balanced accuracy, AUC, and TPR at a low FPR.

Carlini et al., "Membership Inference Attacks From First Principles" (S&P 2022), is why the last one is here:
an average hides an attack that is certain about a few rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sklearn_metrics

from siguard.errors import InputError


@dataclass(frozen=True)
class AttackScore:
    """Success of one attack, each in 0..1; 0.5, 0.5 and 0.01 are those of a coin.

    balanced_accuracy: mean of the hit rates on members and on non-members, at the attack's own threshold.
    auc: probability that a member scores above a non-member, ties counted half.
    tpr_at_1pct_fpr: share of members found while at most 1 % of the non-members are accused.
    """

    balanced_accuracy: float
    auc: float
    tpr_at_1pct_fpr: float


def balanced_accuracy(said_member: npt.ArrayLike, member: npt.ArrayLike) -> float:
    """Mean of the hit rates on members and non-members.

    said_member: the attack's decisions, shape (n,), member: the truth, shape (n,); 1 or True for a member.
    Raises `InputError` if ``member`` is not 0/1 with both kinds present, or the lengths differ.
    """
    truth = check_member(member, "member")
    decisions = np.asarray(said_member)
    if decisions.shape != truth.shape:
        raise InputError(f"said_member: found shape {decisions.shape}; expected {truth.shape} like member")
    return float(sklearn_metrics.balanced_accuracy_score(truth, decisions.astype(np.int64)))


def auc(scores: npt.ArrayLike, member: npt.ArrayLike) -> float:
    """Area under the ROC curve of ``scores`` (n,), higher for "member"; ties count half.

    Raises `InputError` as `balanced_accuracy` does, and for scores that are not finite.
    """
    values, truth = _scores(scores, member)
    return float(sklearn_metrics.roc_auc_score(truth, values))


def tpr_at_fpr(scores: npt.ArrayLike, member: npt.ArrayLike, fpr: float = 0.01) -> float:
    """Largest true positive rate of any threshold whose false positive rate is at most ``fpr`` (0..1).

    With fewer than ``1 / fpr`` non-members this is the rate at zero false positives, a coarser figure.
    Raises `InputError` as `auc` does, and for ``fpr`` outside 0..1.
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr: found {fpr}; allowed: 0 to 1")
    values, truth = _scores(scores, member)
    # Every threshold is kept: dropping the collinear ones would lose the one nearest to the limit.
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(truth, values, drop_intermediate=False)
    return float(true_rate[false_rate <= fpr].max())


def attack_score(scores: npt.ArrayLike, member: npt.ArrayLike, threshold: float = 0.0) -> AttackScore:
    """All three figures of an attack that says "member" where ``scores`` (n,) is above ``threshold``.

    Raises `InputError` as `auc` does.
    """
    values, _ = _scores(scores, member)
    return AttackScore(
        balanced_accuracy(values > threshold, member), auc(values, member), tpr_at_fpr(values, member)
    )


def check_member(member: npt.ArrayLike, field: str) -> npt.NDArray[np.int64]:
    """Membership as 0/1 integers of shape (n,); `InputError` naming ``field`` unless both occur."""
    array = np.asarray(member)
    if array.ndim != 1:
        raise InputError(f"{field}: found shape {array.shape}; expected one axis, one entry per row")
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise InputError(
            f"{field}: found type {array.dtype} and values other than 0 and 1; "
            "expected 0 for a non-member and 1 for a member"
        )
    truth = array.astype(np.int64)
    if not 0 < truth.sum() < len(truth):
        raise InputError(
            f"{field}: found {truth.sum()} members among {len(truth)} rows; an attack needs members and non-members"
        )
    return truth


def _scores(scores: npt.ArrayLike, member: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    truth = check_member(member, "member")
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != truth.shape:
        raise InputError(f"scores: found shape {values.shape}; expected {truth.shape} like member")
    if not np.isfinite(values).all():
        raise InputError("scores: found NaN or infinite values; an attack's scores must be finite")
    return values, truth
