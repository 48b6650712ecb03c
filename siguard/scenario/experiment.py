"""What a scenario guards and attacks: rows, target, membership classifier h, the attacker's shadow rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from siguard.errors import ScenarioError
from siguard.guard.reference import softmax
from siguard.nn.model import Defender, FloatArray, Model
from siguard.scenario.load import Scenario
from siguard.scenario.progress import Progress, counted

if TYPE_CHECKING:
    from siguard.privacy.datasets import Dataset, IndexArray, MembershipSplit
    from siguard.privacy.logits_file import ShadowLogits

_LOCATION30_DEFAULT = Path("..") / "shared" / "data" / "location30"
_NETWORK_STEPS = 5  # how often the training of one network reports


@dataclass(frozen=True, eq=False)
class Experiment:
    """Everything that is guarded and attacked.

    features: (n, d), with the ``model`` they are for; both None where the data are logits.
    logits: (n, classes), the model's in float64.  member: (n,) 0/1, members and non-members in turn, so that
    any first rows are as balanced as all of them.  labels: (n,) true classes, or None.
    accuracy: shares that describe the target and h, None where they cannot be known.
    notes: how the rows were obtained, where a reader has to know.
    """

    features: FloatArray | None
    model: Model | None
    logits: FloatArray
    labels: IndexArray | None
    member: IndexArray
    defender: Defender
    shadow: ShadowLogits
    accuracy: dict[str, float | None]
    notes: tuple[str, ...] = ()


def prepare(scenario: Scenario, progress: Progress) -> Experiment:
    """Load the data and train what the scenario needs; deterministic for its seed.

    Raises `ScenarioError` and, for the content of data files, `InputError`.
    """
    return (_from_logits if scenario.data.kind == "npz" else _from_features)(scenario, progress)


def _from_features(scenario: Scenario, progress: Progress) -> Experiment:
    from siguard.privacy import training

    dataset, split = _load(scenario)
    rows = _balanced_rows(scenario, split.members, split.evaluation_out)
    hidden = None if scenario.target.hidden is None else tuple(scenario.target.hidden)
    seed = scenario.seed

    with counted(progress, "training the target", _NETWORK_STEPS) as step:
        model = training.train_target(dataset, split, seed=seed, hidden=hidden, progress=step)
    with counted(progress, "training the defender", _NETWORK_STEPS) as step:
        defender = training.train_defender(model, dataset, split, seed=seed, progress=step)
    shadows = _NETWORK_STEPS * len(split.shadow_train)
    with counted(progress, "training the attacker's shadow models", shadows) as step:
        attackers = training.train_shadows(dataset, split, seed=seed + 1, hidden=hidden, progress=step)
    logits = model(dataset.features[rows])
    labels = dataset.labels[rows]
    member = np.tile(np.array([1, 0], dtype=np.int64), len(rows) // 2)
    correct = logits.argmax(axis=1) == labels
    return Experiment(
        features=dataset.features[rows],
        model=model,
        logits=logits,
        labels=labels,
        member=member,
        defender=defender,
        shadow=training.shadow_logits(attackers, dataset, split),
        accuracy={
            "target_members": float(correct[member == 1].mean()),
            "target_non_members": float(correct[member == 0].mean()),
            "defender": _balanced_accuracy(defender, logits, member),
        },
    )


def _from_logits(scenario: Scenario, progress: Progress) -> Experiment:
    from siguard.privacy.logits_file import load_logits
    from siguard.privacy.training import fit_defender

    path = scenario.data_path()
    assert path is not None  # noqa: S101 - load_scenario checked it
    data = load_logits(path)
    notes = ["h was trained on the attacker's rows: a file of logits has no others for it."]
    if data.shadow is None:
        notes.append("The file has no shadow rows: the attacker was given a random half of its rows.")
    data = data.with_attacker_rows(seed=scenario.seed)
    assert data.member is not None  # noqa: S101 - with_attacker_rows and load_logits checked them
    assert data.shadow is not None  # noqa: S101
    with counted(progress, "training the defender", _NETWORK_STEPS) as step:
        known = softmax(data.shadow.logits)
        defender = fit_defender(known, data.shadow.member, seed=scenario.seed, progress=step)
    rows = _balanced_rows(scenario, np.flatnonzero(data.member == 1), np.flatnonzero(data.member == 0))
    logits, member = data.logits[rows], data.member[rows]
    return Experiment(
        features=None,
        model=None,
        logits=logits,
        labels=None if data.labels is None else data.labels[rows],
        member=member,
        defender=defender,
        shadow=data.shadow,
        accuracy={
            "target_members": None,
            "target_non_members": None,
            "defender": _balanced_accuracy(defender, logits, member),
        },
        notes=tuple(notes),
    )


def _load(scenario: Scenario) -> tuple[Dataset, MembershipSplit]:
    from siguard.privacy import datasets

    if scenario.data.kind == "digits":
        digits = datasets.digits()
        options = {"rows": scenario.data.rows, "shadows": scenario.attacks.shadows}
        return digits, datasets.digits_split(digits, seed=scenario.seed, **options)
    location = datasets.location30(scenario.data_path() or _find_location30(scenario.file))
    return location, datasets.location30_split(location)


def _find_location30(file: Path) -> Path:
    """The default place, seen from the working directory or from the project that the scenario lies in."""
    places = [Path.cwd() / _LOCATION30_DEFAULT, file.absolute().parent.parent / _LOCATION30_DEFAULT]
    for place in places:
        if place.exists():
            return place
    raise ScenarioError(
        f"{file}: data.path: not given, and no {_LOCATION30_DEFAULT} seen from the working directory or the "
        "project; fetch dataset_location.tgz from github.com/privacytrustlab/datasets and pass "
        "--set data.path=FILE_OR_FOLDER"
    )


def _balanced_rows(scenario: Scenario, members: IndexArray, others: IndexArray) -> IndexArray:
    """Row numbers, a member and a non-member in turn, as many as the scenario asks for."""
    most = 2 * min(len(members), len(others))
    samples = most if scenario.samples is None else scenario.samples
    if samples > most:
        cure = " (2 x data.rows)" if scenario.data.kind == "digits" else ""
        raise ScenarioError(
            f"{scenario.file}: samples: found {samples}; allowed: at most {most}{cure}, half of them members"
        )
    half = samples // 2
    return np.stack([members[:half], others[:half]], axis=1).ravel()


def _balanced_accuracy(defender: Defender, logits: FloatArray, member: IndexArray) -> float:
    from siguard.privacy.metrics import balanced_accuracy

    return balanced_accuracy(defender(softmax(logits))[:, 0] > 0, member)
