"""Training: what is trained on which rows, that it repeats, and that over-fitting leaves the leak it should."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from siguard.errors import InputError
from siguard.guard.reference import softmax
from siguard.nn.model import Model
from siguard.privacy.datasets import Dataset, MembershipSplit, digits, digits_split
from siguard.privacy.training import (
    fit_defender,
    shadow_logits,
    target_settings,
    train_defender,
    train_shadows,
    train_target,
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return digits()


@pytest.fixture(scope="module")
def split(data: Dataset) -> MembershipSplit:
    return digits_split(data, rows=60, shadows=2)


@pytest.fixture(scope="module")
def target(data: Dataset, split: MembershipSplit) -> Model:
    return train_target(data, split, hidden=(32,))


def test_the_target_fits_its_members_and_knows_all_classes(
    data: Dataset, split: MembershipSplit, target: Model
) -> None:
    assert target.shape == (64, 32, 10)
    fitted = target(data.features[split.members]).argmax(axis=1) == data.labels[split.members]
    others = target(data.features[split.evaluation_out]).argmax(axis=1) == data.labels[split.evaluation_out]
    assert fitted.all()
    assert 0.6 < others.mean() < 1.0


def test_a_class_without_training_rows_still_has_a_logit(data: Dataset) -> None:
    rows = np.flatnonzero(data.labels < 9)
    split = MembershipSplit(rows[:40], rows[40:50], rows[50:60], (rows[60:70],), (rows[70:80],))
    assert train_target(data, split, hidden=(8,)).classes == 10


def test_training_repeats_for_a_seed_and_shadows_differ(
    data: Dataset, split: MembershipSplit, target: Model
) -> None:
    again = train_target(data, split, hidden=(32,))
    other = train_target(data, split, hidden=(32,), seed=1)
    assert all((a == b).all() for (a, _), (b, _) in zip(target.layers, again.layers, strict=True))
    assert (other.layers[0][0] != target.layers[0][0]).any()
    rows = split.shadow_train[0]
    same_rows = replace(split, shadow_train=(rows, rows), shadow_out=(split.shadow_out[0],) * 2)
    first, second = train_shadows(data, same_rows, hidden=(8,))
    assert (first.layers[0][0] != second.layers[0][0]).any()


def test_shadow_logits_belong_to_each_shadow_models_own_rows(data: Dataset, split: MembershipSplit) -> None:
    first, second = train_shadows(data, split, hidden=(32,))
    logits = shadow_logits((first, second), data, split)
    assert logits.logits.shape == (240, 10)
    assert logits.member.tolist() == ([1] * 60 + [0] * 60) * 2
    assert logits.labels is not None
    assert (logits.labels[:60] == data.labels[split.shadow_train[0]]).all()
    assert (logits.labels[180:] == data.labels[split.shadow_out[1]]).all()
    # member means: this shadow model was trained on the row
    fitted = logits.logits.argmax(axis=1) == logits.labels
    assert fitted[logits.member == 1].all()
    assert not fitted[logits.member == 0].all()
    with pytest.raises(InputError, match="shadows: found 1 models; the split has 2 pairs"):
        shadow_logits((first,), data, split)


def test_the_defender_says_member_above_zero(data: Dataset, split: MembershipSplit, target: Model) -> None:
    defender = train_defender(target, data, split, seed=4, steps=300)
    rows = np.concatenate([split.members, split.defender_out])
    same = fit_defender(softmax(target(data.features[rows])), np.arange(120) < 60, seed=4, steps=300)
    assert (defender.layers[0][0] == same.layers[0][0]).all()
    assert defender.shape == (10, 128, 64, 1)
    inside = defender(softmax(target(data.features[split.members])))[:, 0] > 0
    outside = defender(softmax(target(data.features[split.defender_out])))[:, 0] > 0
    assert inside.mean() - outside.mean() > 0.2


def test_the_defender_learns_membership_from_unsorted_confidences() -> None:
    """Members have their mass on class 0, others on class 1: sorted confidences would be all alike."""
    confidences = np.array([[0.8, 0.2], [0.2, 0.8]] * 50)
    member = np.array([1, 0] * 50)
    defender = fit_defender(confidences, member, steps=100)
    assert ((defender(confidences)[:, 0] > 0) == (member == 1)).all()


def test_progress_is_reported_and_nothing_is_printed_or_warned(
    data: Dataset, split: MembershipSplit, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_shadows(data, split, hidden=(4,), progress=lines.append)
    assert not caught
    assert capsys.readouterr() == ("", "")
    epochs = target_settings("digits").epochs
    assert lines[0].startswith(f"training shadow model 1 of 2: epoch {epochs // 5} of {epochs}, loss ")
    assert len(lines) == 10


def test_settings_of_location30_are_memguards_widths() -> None:
    assert target_settings("location30").hidden == (1024, 512, 256, 128)


def test_bad_arguments_are_named(data: Dataset, split: MembershipSplit) -> None:
    two = Dataset(data.features, data.labels % 2, "parity", 2)
    with pytest.raises(InputError, match="dataset parity: 2 classes; training needs at least 3"):
        train_target(two, split)
    with pytest.raises(InputError, match=r"confidences: found shape \(3, 2\); expected \(2, classes\)"):
        fit_defender(np.zeros((3, 2)), [0, 1])
    with pytest.raises(InputError, match="member: found 0 members"):
        fit_defender(np.zeros((2, 2)), [0, 0])
