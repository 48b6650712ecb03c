"""Training in the clear: over-fitted target models, shadow models, and the membership classifier h.

Targets are trained to zero training error for a fixed number of epochs, on purpose: over-fitting is what
membership inference feeds on (Shokri et al., S&P 2017), and a guard has to be measured where there is a leak.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.neural_network import MLPClassifier

from siguard.errors import InputError
from siguard.guard.reference import softmax
from siguard.nn.model import Defender, FloatArray, Model
from siguard.privacy.datasets import Dataset, IndexArray, MembershipSplit
from siguard.privacy.logits_file import ShadowLogits
from siguard.privacy.metrics import check_member

#: Called now and then with one line of text about how far the work has come.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained with Adam: widths of its ReLU layers, passes over the rows, L2 penalty."""

    hidden: tuple[int, ...]
    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


def target_settings(name: str) -> TrainingSettings:
    """How the target (and each shadow model) of the data set ``name`` is trained.

    ``location30``: 446-1024-512-256-128-30, which trains in about 10 s on two cores; 15 epochs and this
    weight decay make it right on every member, on about 0.55 of the other rows, and not yet over-confident.
    Anything else: a modest network as for ``digits``, trained far beyond zero error, which makes it so.
    """
    if name == "location30":
        return TrainingSettings(hidden=(1024, 512, 256, 128), epochs=15, weight_decay=0.2)
    return TrainingSettings(hidden=(64, 64), epochs=400, batch_size=32)


#: Hidden layers of h.
DEFENDER_HIDDEN = (128, 64)
#: Steps of Adam for h, whatever the number of rows: the same effort on a few hundred rows as on thousands.
DEFENDER_STEPS = 1250


def train_target(
    dataset: Dataset,
    split: MembershipSplit,
    *,
    seed: int = 0,
    hidden: tuple[int, ...] | None = None,
    progress: Progress | None = None,
) -> Model:
    """The target model, trained on the member rows only.

    hidden: widths of the hidden layers; None takes those of `target_settings`.
    Same seed, same machine: same weights.  Raises `InputError` for a data set of fewer than 3 classes.
    """
    return _train_classifier(dataset, split.members, "target", seed, hidden, progress)


def train_shadows(
    dataset: Dataset,
    split: MembershipSplit,
    *,
    seed: int = 1,
    hidden: tuple[int, ...] | None = None,
    progress: Progress | None = None,
) -> tuple[Model, ...]:
    """The attacker's shadow models, one per pair of shadow rows, trained like the target on their "in" rows.

    Model number i is trained from ``seed + i``; choose seeds so that none equals the target's.
    """
    count = len(split.shadow_train)
    return tuple(
        _train_classifier(dataset, rows, f"shadow model {index + 1} of {count}", seed + index, hidden, progress)
        for index, rows in enumerate(split.shadow_train)
    )


def train_defender(
    model: Model,
    dataset: Dataset,
    split: MembershipSplit,
    *,
    seed: int = 0,
    steps: int = DEFENDER_STEPS,
    progress: Progress | None = None,
) -> Defender:
    """h for ``model``, from its confidences on the members and on the non-members set aside for h.

    The remaining arguments are those of `fit_defender`.
    """
    rows = np.concatenate([split.members, split.defender_out])
    member = np.repeat([1, 0], [len(split.members), len(split.defender_out)])
    confidences = softmax(model(dataset.features[rows]))
    return fit_defender(confidences, member, seed=seed, steps=steps, progress=progress)


def fit_defender(
    confidences: npt.ArrayLike,
    member: npt.ArrayLike,
    *,
    seed: int = 0,
    steps: int = DEFENDER_STEPS,
    progress: Progress | None = None,
) -> Defender:
    """h, a classes-128-64-1 network, from *unsorted* confidences (n, classes) and membership (n,) of 0 and 1.

    Unsorted, since that guides the noise better and needs no oblivious sort under MPC.  The output is a
    logit, above 0 for "member".  steps: about how many steps of Adam, at least one pass over the rows.
    Raises `InputError` naming ``confidences`` or ``member``.
    """
    truth = check_member(member, "member")
    rows = np.asarray(confidences, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(truth):
        raise InputError(f"confidences: found shape {rows.shape}; expected ({len(truth)}, classes) like member")
    batch_size = 64
    epochs = max(1, round(steps / math.ceil(len(rows) / batch_size)))
    settings = TrainingSettings(DEFENDER_HIDDEN, epochs, batch_size, weight_decay=1e-4)
    # The MLP has one logistic output for two classes, and its positive class is the larger label, "member".
    return Defender.from_sklearn(fit_network(rows, truth, 2, settings, seed, "h", progress))


def shadow_logits(shadows: tuple[Model, ...], dataset: Dataset, split: MembershipSplit) -> ShadowLogits:
    """Logits of every shadow model on its own "in" and "out" rows, one after another.

    Raises `InputError` if ``shadows`` are not the models of this split, one per pair of shadow rows.
    """
    if len(shadows) != len(split.shadow_train):
        raise InputError(f"shadows: found {len(shadows)} models; the split has {len(split.shadow_train)} pairs")
    logits, labels, member = [], [], []
    for model, rows_in, rows_out in zip(shadows, split.shadow_train, split.shadow_out, strict=True):
        rows = np.concatenate([rows_in, rows_out])
        logits.append(model(dataset.features[rows]))
        labels.append(dataset.labels[rows])
        member.append(np.repeat([1, 0], [len(rows_in), len(rows_out)]))
    return ShadowLogits(np.concatenate(logits), np.concatenate(member), np.concatenate(labels))


def fit_network(
    rows: FloatArray,
    classes_of_rows: npt.NDArray[np.int64],
    classes: int,
    settings: TrainingSettings,
    seed: int,
    what: str,
    progress: Progress | None,
) -> Any:
    """A scikit-learn MLPClassifier trained for exactly ``settings.epochs`` epochs of Adam.

    It is trained one epoch a call: ``fit`` would stop early, or warn that it did not converge, which is not a
    finding when the number of epochs is chosen.  It also knows all classes, even one without a row here.
    """
    mlp = MLPClassifier(
        hidden_layer_sizes=settings.hidden,
        alpha=settings.weight_decay,
        batch_size=min(settings.batch_size, len(rows)),
        learning_rate_init=settings.learning_rate,
        # A generator object, not the number: a number would restart the shuffling with every call.
        random_state=np.random.RandomState(seed),
    )
    labels = np.arange(classes)
    for epoch in range(settings.epochs):
        mlp.partial_fit(rows, classes_of_rows, classes=labels)
        if progress is not None and (epoch + 1) % max(1, settings.epochs // 5) == 0:
            progress(f"training {what}: epoch {epoch + 1} of {settings.epochs}, loss {mlp.loss_:.4g}")
    return mlp


def _train_classifier(
    dataset: Dataset,
    rows: IndexArray,
    what: str,
    seed: int,
    hidden: tuple[int, ...] | None,
    progress: Progress | None,
) -> Model:
    if dataset.classes < 3:
        raise InputError(
            f"dataset {dataset.name}: {dataset.classes} classes; training needs at least 3 "
            "(a two-class network has a single logit; give its logits as two columns, 0 and z)"
        )
    settings = target_settings(dataset.name)
    if hidden is not None:
        settings = replace(settings, hidden=tuple(hidden))
    features, labels = dataset.features[rows], dataset.labels[rows]
    return Model.from_sklearn(fit_network(features, labels, dataset.classes, settings, seed, what, progress))
