"""Attacks on synthetic outputs whose leak is known, on real over-fitted digits, and with nothing to find."""

import numpy as np
import numpy.typing as npt
import pytest

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.reference import guard, one_hot, softmax
from siguard.privacy.attacks import (
    ROWS_FOR_OWN_THRESHOLD,
    AttackerData,
    best_threshold,
    class_thresholds,
    evaluate_attacks,
    log_odds_of_label,
    negative_modified_entropy,
)
from siguard.privacy.datasets import digits, digits_split
from siguard.privacy.training import shadow_logits, train_defender, train_shadows, train_target

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
ALL = ["nn", "gb", "confidence", "modified_entropy", "correctness"]


def outputs(rows: int, seed: int, leak: float, classes: int = 4) -> tuple[Floats, Integers, Integers]:
    """Confidences, labels and membership; members are ``leak`` more confident, and always right."""
    generator = np.random.default_rng(seed)
    member = (np.arange(rows) % 2).astype(np.int64)
    labels = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes))
    logits += (2.0 + leak * member)[:, None] * one_hot(labels, classes)
    return softmax(logits), labels, member


def attacker(seed: int, leak: float, guarded_leak: float | None = None) -> AttackerData:
    undefended, labels, member = outputs(400, seed, leak)
    guarded = undefended if guarded_leak is None else outputs(400, seed, guarded_leak)[0]
    return AttackerData(undefended, guarded, member, labels)


def test_all_attacks_find_a_leak_and_none_where_there_is_none() -> None:
    for leak, low, high in ((4.0, 0.85, 1.0), (0.0, 0.4, 0.6)):
        released, labels, member = outputs(600, 1, leak)
        scores = evaluate_attacks(attacker(2, leak), released, member, labels)
        assert list(scores) == ALL
        for name in ("nn", "gb", "confidence", "modified_entropy"):
            assert low < scores[name].auc <= high, (leak, name)
            assert low - 0.1 < scores[name].balanced_accuracy <= high, (leak, name)


def test_correctness_is_the_gap_of_the_accuracies() -> None:
    released, labels, member = outputs(600, 1, 4.0)
    right = released.argmax(axis=1) == labels
    expected = (right[member == 1].mean() + (~right)[member == 0].mean()) / 2
    score = evaluate_attacks(attacker(2, 4.0), released, member, labels)["correctness"]
    assert expected > 0.52
    assert score.balanced_accuracy == pytest.approx(expected)
    assert score.auc == pytest.approx(expected)  # the AUC of a yes or no is its balanced accuracy


def test_the_unaware_attack_learns_undefended_and_the_adaptive_one_guarded_outputs() -> None:
    """The guard of this test turns the leak around: non-members come out more confident."""
    known = attacker(2, leak=4.0, guarded_leak=-1.5)
    released, labels, member = outputs(600, 1, -1.5)
    scores = evaluate_attacks(known, released, member, labels)
    assert scores["nn"].auc < 0.4
    assert scores["gb"].auc > 0.6
    # A threshold attack cannot be turned around, so it falls back to a coin rather than below.
    assert scores["confidence"].auc < 0.4
    assert scores["confidence"].balanced_accuracy == pytest.approx(0.5, abs=0.05)


def test_the_threshold_attacks_learn_from_guarded_outputs() -> None:
    """A guard that only flattens confidences hides nothing from thresholds learned behind it."""

    def flattened(confidences: Floats) -> Floats:
        return softmax(np.log(confidences) / 8)

    plain = attacker(2, 4.0)
    known = AttackerData(plain.undefended, flattened(plain.undefended), plain.member, plain.labels)
    released, labels, member = outputs(600, 1, 4.0)
    scores = evaluate_attacks(known, flattened(released), member, labels)
    assert scores["confidence"].balanced_accuracy > 0.75
    assert scores["modified_entropy"].balanced_accuracy > 0.75


def test_attacks_that_need_labels_are_left_out_without_them() -> None:
    released, labels, member = outputs(200, 1, 2.0)
    known = attacker(2, 2.0)
    assert list(evaluate_attacks(known, released, member, None)) == ["nn", "gb"]
    unlabelled = AttackerData(known.undefended, known.guarded, known.member, None)
    assert list(evaluate_attacks(unlabelled, released, member, labels)) == ["nn", "gb", "correctness"]


def test_same_seed_same_scores_and_the_input_stays_as_it_is() -> None:
    released, labels, member = outputs(200, 1, 2.0)
    known = attacker(2, 2.0)
    before = released.copy()
    lines: list[str] = []
    first = evaluate_attacks(known, released, member, labels, seed=5, progress=lines.append)
    assert evaluate_attacks(known, released, member, labels, seed=5) == first
    assert evaluate_attacks(known, released, member, labels, seed=6)["nn"] != first["nn"]
    assert (released == before).all()
    assert lines[-1] == "attack gb: trained and scored"


def test_measures_by_hand() -> None:
    confidences = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    labels = np.array([0, 0])
    assert log_odds_of_label(confidences, labels)[0] == pytest.approx(np.log(0.7 / 0.3))
    mentr = -(0.3 * np.log(0.7) + 0.2 * np.log(0.8) + 0.1 * np.log(0.9))
    assert negative_modified_entropy(confidences, labels)[0] == pytest.approx(-np.log(mentr))
    # confidently wrong: finite, and far below anything else
    for measure in (log_odds_of_label, negative_modified_entropy):
        values = measure(confidences, labels)
        assert np.isfinite(values).all()
        assert values[1] < values[0] - 2
    # confidently right: the opposite
    assert negative_modified_entropy(confidences, np.array([0, 1]))[1] > 30


def test_best_threshold_by_hand() -> None:
    member = np.array([0, 0, 1, 0, 1, 1])
    assert best_threshold(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), member) == 2.5  # of 2.5 and 4.5 the lowest
    assert best_threshold(np.array([1.0, 2.0, 3.0, 2.5, 5.0, 6.0]), member) == 2.75
    # all alike: everything is called a member, which is as good as anything
    assert best_threshold(np.zeros(6), member) < 0


def test_a_class_gets_its_own_threshold_only_with_enough_rows() -> None:
    count = ROWS_FOR_OWN_THRESHOLD
    # members and others: at 10 and 8 in class 0; at 1 and 0, at 1 and 0.4 in the next two, one row too few
    labels = np.repeat([0, 1, 2], [2 * count, 2 * count - 1, 2 * count - 1])
    member = np.concatenate([np.arange(n) % 2 for n in (2 * count, 2 * count - 1, 2 * count - 1)])
    values = np.choose(labels, [8.0 + 2 * member, 1.0 * member, 0.4 + 0.6 * member])
    shared = best_threshold(values, member)
    assert shared == pytest.approx(0.7)
    assert class_thresholds(values, member, labels, classes=4).tolist() == [9.0, shared, shared, shared]


def test_arguments_that_do_not_fit_are_named() -> None:
    released, labels, member = outputs(100, 1, 1.0)
    known = attacker(2, 1.0)
    with pytest.raises(InputError, match=r"released: found shape \(99, 4\); expected \(100, classes\)"):
        evaluate_attacks(known, released[:99], member, labels)
    with pytest.raises(InputError, match="released: holds NaN"):
        evaluate_attacks(known, released * np.nan, member, labels)
    with pytest.raises(InputError, match="member: found 100 members"):
        evaluate_attacks(known, released, np.ones(100), labels)
    with pytest.raises(InputError, match="labels: found 0 to 4; allowed: 0 to 3"):
        evaluate_attacks(known, released, member, np.arange(100) % 5)
    with pytest.raises(InputError, match="labels: found type float64"):
        evaluate_attacks(known, released, member, labels.astype(float))
    wide = AttackerData(known.undefended, np.ones((400, 5)), known.member, known.labels)
    with pytest.raises(InputError, match=r"attacker.guarded: found 5 classes; released has 4"):
        evaluate_attacks(wide, released, member, labels)
    short = AttackerData(known.undefended[:9], known.guarded, known.member, known.labels)
    with pytest.raises(InputError, match=r"attacker.undefended: found shape \(9, 4\)"):
        evaluate_attacks(short, released, member, labels)


def test_undefended_digits_leak_and_linesearch_reduces_it() -> None:
    """End to end with clean labels: the adaptive attack has power before the guard, and loses it behind."""
    data = digits()
    split = digits_split(data, shadows=2)
    target = train_target(data, split, hidden=(48,))
    shadows = shadow_logits(train_shadows(data, split, seed=100, hidden=(48,)), data, split)
    defender = train_defender(target, data, split)
    logits, labels = target(data.features[split.evaluation]), data.labels[split.evaluation]
    score = {}
    for policy in ("none", "linesearch"):
        config = GuardConfig(policy)
        known = AttackerData(
            softmax(shadows.logits),
            guard(shadows.logits, defender, config).confidences,
            shadows.member,
            shadows.labels,
        )
        released = guard(logits, defender, config).confidences
        score[policy] = evaluate_attacks(known, released, split.evaluation_member, labels)
    assert score["none"]["gb"].auc > 0.6
    assert score["none"]["nn"].auc > 0.6
    assert score["linesearch"]["gb"].auc < score["none"]["gb"].auc - 0.05
    assert score["none"]["correctness"] == score["linesearch"]["correctness"]  # the label is kept
