"""Membership inference attacks on released confidences, all trained on the attacker's own (shadow) data.

| attack | trained on | knows the true label | source |
|---|---|---|---|
| ``nn`` | undefended shadow outputs: unaware of the guard | no | Shokri et al., S&P 2017; MemGuard; SIGuard |
| ``gb`` | shadow outputs behind the same guard: adaptive | no | gradient boosting instead of a network |
| ``confidence`` | guarded outputs, one threshold | yes | Song and Mittal, USENIX Security 2021 |
| ``modified_entropy`` | guarded outputs, one threshold | yes | the same |
| ``correctness`` | nothing | yes | the same; Yeom et al., CSF 2018 |

``nn`` alone is what SIGuard and MemGuard report.  It says little by itself: a guard that over-corrects drives
it below one half, and an attacker who retrains turns that around.  ``correctness`` is a floor for every guard
that keeps the label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier

from siguard.errors import InputError
from siguard.nn.model import FloatArray
from siguard.privacy.datasets import IndexArray
from siguard.privacy.metrics import AttackScore, attack_score, check_member
from siguard.privacy.training import Progress, TrainingSettings, fit_network

#: One hidden layer of 64, as in Shokri et al.
NN_SETTINGS = TrainingSettings(hidden=(64,), epochs=100)
#: A threshold per class needs this many members and as many non-members of that class in the shadow data.
#: With fewer, the threshold that looks best is mostly noise: on Location30 (about 33 + 33 rows a class) own
#: thresholds lower the accuracy of both attacks by 0.01 to 0.02, on digits (60 + 60) they make no difference.
ROWS_FOR_OWN_THRESHOLD = 50
#: Keeps logarithms of confidences finite: float64 cannot tell a confidence from 1 more closely than this.
_TINY = 1e-16


@dataclass(frozen=True, eq=False)
class AttackerData:
    """What the attacker learns from: outputs of shadow models, before and behind the guard.

    undefended, guarded: confidences of the same rows, shape (n, classes), the latter through the very guard
    (and h) under attack, the strongest position an attacker can have.  member: (n,) 0/1.
    labels: (n,) true classes, or None.
    """

    undefended: FloatArray
    guarded: FloatArray
    member: IndexArray
    labels: IndexArray | None


def evaluate_attacks(
    attacker: AttackerData,
    released: npt.ArrayLike,
    member: npt.ArrayLike,
    labels: npt.ArrayLike | None,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, AttackScore]:
    """Score every attack that can be run on the released confidences.

    released: (n, classes) confidences that users got; member: (n,) 0/1; labels: (n,) true classes, or None.
    ``correctness`` needs ``labels``, ``confidence`` and ``modified_entropy`` also those of the attacker;
    attacks without what they need are left out.  Returns attack name -> `AttackScore`, in the order of the
    module's table.  ``nn`` and ``gb`` decide at probability 0.5, the threshold attacks at the threshold they
    learned; the AUC of ``correctness`` is that of its yes or no.
    Deterministic for a seed.  Raises `InputError` naming the argument that does not fit.
    """
    outputs, truth = _checked("released", released, "member", member)
    classes = outputs.shape[1]
    undefended, known = _checked("attacker.undefended", attacker.undefended, "attacker.member", attacker.member)
    guarded, _ = _checked("attacker.guarded", attacker.guarded, "attacker.member", attacker.member)
    for name, rows in (("undefended", undefended), ("guarded", guarded)):
        if rows.shape[1] != classes:
            raise InputError(f"attacker.{name}: found {rows.shape[1]} classes; released has {classes}")
    true_labels = None if labels is None else _labels("labels", labels, len(outputs), classes)
    shadow_labels = None
    if attacker.labels is not None:
        shadow_labels = _labels("attacker.labels", attacker.labels, len(guarded), classes)

    scores: dict[str, AttackScore] = {}
    network = fit_network(_features(undefended), known, 2, NN_SETTINGS, seed, "attack nn", progress)
    scores["nn"] = attack_score(network.predict_proba(_features(outputs))[:, 1] - 0.5, truth)
    trees = HistGradientBoostingClassifier(random_state=seed, early_stopping=False)
    trees.fit(_features(guarded), known)
    scores["gb"] = attack_score(trees.predict_proba(_features(outputs))[:, 1] - 0.5, truth)
    if progress is not None:
        progress("attack gb: trained and scored")
    if true_labels is None:
        return scores

    if shadow_labels is not None:
        measures: dict[str, Callable[[FloatArray, IndexArray], FloatArray]] = {
            "confidence": log_odds_of_label,
            "modified_entropy": negative_modified_entropy,
        }
        for name, measure in measures.items():
            thresholds = class_thresholds(measure(guarded, shadow_labels), known, shadow_labels, classes)
            scores[name] = attack_score(measure(outputs, true_labels) - thresholds[true_labels], truth)
    correct = (outputs.argmax(axis=1) == true_labels).astype(np.float64)
    scores["correctness"] = attack_score(correct, truth, threshold=0.5)
    return scores


def log_odds_of_label(confidences: FloatArray, labels: IndexArray) -> FloatArray:
    """log(p_y / (1 - p_y)) of the true label y, shape (n,): monotone in p_y, and spread out near 1."""
    p = np.clip(confidences[np.arange(len(labels)), labels], _TINY, 1.0)
    return np.asarray(np.log(p) - np.log(np.maximum(1.0 - p, _TINY)), dtype=np.float64)


def negative_modified_entropy(confidences: FloatArray, labels: IndexArray) -> FloatArray:
    """Minus the logarithm of Song and Mittal's Mentr, shape (n,), higher for "member".

    Mentr = -(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i), at least 0: unlike the entropy it is
    large for a confident wrong answer.  The logarithm keeps the order and spreads out values near 0.
    """
    rows = np.arange(len(labels))
    towards_one = -np.log(np.maximum(1.0 - confidences, _TINY))
    terms = confidences * towards_one
    p = confidences[rows, labels]
    terms[rows, labels] = -(1.0 - p) * np.log(np.maximum(p, _TINY))
    return np.asarray(-np.log(np.maximum(terms.sum(axis=1), _TINY)), dtype=np.float64)


def class_thresholds(
    values: FloatArray, member: npt.NDArray[np.int64], labels: IndexArray, classes: int
) -> FloatArray:
    """For each class, the threshold (classes,) of "value > threshold" that finds its shadow members best.

    Models are surer of some classes than of others, so a class with enough rows (`ROWS_FOR_OWN_THRESHOLD`)
    gets its own threshold; the others share the one of all rows.
    """
    thresholds = np.full(classes, best_threshold(values, member))
    for label in range(classes):
        mine = labels == label
        inside = int(member[mine].sum())
        if min(inside, int(mine.sum()) - inside) >= ROWS_FOR_OWN_THRESHOLD:
            thresholds[label] = best_threshold(values[mine], member[mine])
    return thresholds


def best_threshold(values: FloatArray, member: npt.NDArray[np.int64]) -> float:
    """The threshold with the best balanced accuracy of "value > threshold"; half way between two values.

    values: (n,) finite; member: (n,) 0/1 with both kinds.  Of equally good thresholds the lowest.
    """
    distinct, position = np.unique(values, return_inverse=True)
    inside = np.bincount(position, weights=member, minlength=len(distinct))
    outside = np.bincount(position, weights=1 - member, minlength=len(distinct))
    # Threshold number k lies just below distinct[k]: everything from there on is called a member.
    gain = (inside / inside.sum() - outside / outside.sum())[::-1].cumsum()[::-1]
    best = int(gain.argmax())
    return float(distinct[0] - 1.0 if best == 0 else (distinct[best - 1] + distinct[best]) / 2)


def _features(confidences: FloatArray) -> FloatArray:
    """What the learned attacks see: the confidences as they are, then sorted (MemGuard's attack sorts)."""
    return np.concatenate([confidences, np.sort(confidences, axis=1)], axis=1)


def _checked(
    field: str, confidences: npt.ArrayLike, member_field: str, member: npt.ArrayLike
) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    truth = check_member(member, member_field)
    rows = np.asarray(confidences, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(truth) or rows.shape[1] < 2:
        raise InputError(f"{field}: found shape {rows.shape}; expected ({len(truth)}, classes) like {member_field}")
    if not np.isfinite(rows).all():
        raise InputError(f"{field}: holds NaN or infinite values; confidences lie in 0..1")
    return rows, truth


def _labels(field: str, labels: npt.ArrayLike, rows: int, classes: int) -> IndexArray:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.shape != (rows,):
        raise InputError(f"{field}: found type {array.dtype}, shape {array.shape}; expected integers ({rows},)")
    if array.min() < 0 or array.max() >= classes:
        raise InputError(f"{field}: found {array.min()} to {array.max()}; allowed: 0 to {classes - 1}")
    return array.astype(np.int64)
