"""Attack metrics against values worked out by hand."""

from typing import Any

import numpy as np
import pytest

from siguard.errors import InputError
from siguard.privacy.metrics import AttackScore, attack_score, auc, balanced_accuracy, tpr_at_fpr


def test_balanced_accuracy_weighs_both_kinds_alike() -> None:
    # 1 of 2 members found, 3 of 4 non-members cleared
    assert balanced_accuracy([1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0]) == pytest.approx((1 / 2 + 3 / 4) / 2)


def test_auc_counts_pairs_and_halves_ties() -> None:
    # pairs (2 > 1), (2 > 2: tie), (3 > 1), (3 > 2)
    assert auc([2.0, 3.0, 1.0, 2.0], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)


def test_tpr_at_fpr_takes_the_best_threshold_within_the_limit() -> None:
    # non-members at 0..99; one of 100 may be accused, so the threshold lies above 98
    members = [98.5, 99.5, 50.0, 120.0]
    scores = [*members, *range(100)]
    member = [1] * 4 + [0] * 100
    assert tpr_at_fpr(scores, member) == pytest.approx(3 / 4)
    assert tpr_at_fpr(scores, member, fpr=0.0) == pytest.approx(2 / 4)
    assert tpr_at_fpr(scores, member, fpr=1.0) == 1.0


def test_attack_score_uses_the_threshold_strictly() -> None:
    scores, member = [0.0, 1.0, 0.0, 0.0], [1, 1, 0, 0]
    expected = AttackScore(balanced_accuracy=0.75, auc=3 / 4, tpr_at_1pct_fpr=0.5)
    assert attack_score(scores, member) == expected
    assert attack_score(scores, member, threshold=-0.5).balanced_accuracy == 0.5


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ([1, 1, 1], "member: found 3 members among 3 rows"),
        ([0, 0, 0], "member: found 0 members"),
        ([0, 1, 2], "member: .*0 for a non-member and 1 for a member"),
        ([["x"], ["y"], ["z"]], "member: found shape"),
        (["a", "b", "c"], "member: found type"),
    ],
)
def test_membership_must_be_zero_and_one(member: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        auc([0.0, 1.0, 2.0], member)


def test_bad_scores_are_named() -> None:
    with pytest.raises(InputError, match=r"scores: found shape \(3,\); expected \(2,\)"):
        auc([0.0, 1.0, 2.0], [0, 1])
    with pytest.raises(InputError, match="scores: found NaN"):
        auc([0.0, np.nan], [0, 1])
    with pytest.raises(InputError, match="said_member: found shape"):
        balanced_accuracy([1], [0, 1])
    with pytest.raises(InputError, match="fpr: found 2"):
        tpr_at_fpr([0.0, 1.0], [0, 1], fpr=2)
