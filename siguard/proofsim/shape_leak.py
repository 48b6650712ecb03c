"""What iteration counts give away: the attack on a guard that stops when its noise is good.

Counts come from the float64 loop, for hundreds of rows; on a few rows the leaky guard runs under MPC, and what a
server sees of it must be the same counts.  Models are small and over-confident, trained on scikit-learn's digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import trio
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import resample

from siguard.actors.blas import single_threaded_blas
from siguard.actors.cluster import open_cluster
from siguard.guard.config import GuardConfig
from siguard.guard.inputs import relative_to_largest
from siguard.guard.reference import _direction, _unit, softmax
from siguard.nn.model import Defender, FloatArray
from siguard.privacy.datasets import digits, digits_split
from siguard.privacy.metrics import auc, balanced_accuracy
from siguard.privacy.training import train_defender, train_target
from siguard.proofsim.leaky import LEARNING_RATE, leaky_guard
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import Message

Integers = npt.NDArray[np.int64]

#: Most iterations of the published loop.
PUBLISHED_LIMIT = 300
#: Members, and non-members, of each target: few, so that it is over-confident.
_ROWS = 60
_DEFENDER_STEPS = 500
#: Bootstrap samples of an interval.
_SAMPLES = 300
#: Confidence of an interval.
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Target:
    """A model's logits on rows of either kind, with the owner's h.

    logits: (n, C).  member: (n,) of 0 and 1.
    """

    logits: FloatArray
    member: Integers
    defender: Defender


@dataclass(frozen=True)
class IterationLeak:
    """What an attacker learns of membership from iteration counts alone, on targets it did not learn from.

    interval: the 95 % bootstrap interval of ``auc``, for these targets.  medians: of the counts of members and of
    non-members.
    compared: (count in float64, count a server saw under MPC) of some rows.
    """

    auc: float
    interval: tuple[float, float]
    balanced_accuracy: float
    medians: tuple[float, float]
    rows: int
    targets: int
    compared: tuple[tuple[int, int], ...]

    @property
    def agreeing(self) -> int:
        """On how many rows both counts are the same."""
        return sum(expected == seen for expected, seen in self.compared)

    def __str__(self) -> str:
        low, high = self.interval
        members, others = self.medians
        return (
            f"an attacker gains AUC {self.auc:.2f} [{low:.2f}, {high:.2f}], balanced accuracy "
            f"{self.balanced_accuracy:.2f}, from the iteration count alone ({self.rows} rows of {self.targets} "
            f"digits models; median {members:.0f} iterations for members, {others:.0f} for non-members); frames "
            f"under MPC show the float64 count on {self.agreeing} of {len(self.compared)} rows"
        )


def iteration_leak(seed: int = 1, *, full: bool = False) -> IterationLeak:
    """Train targets on digits, count iterations, attack the counts, and compare some with the leaky guard's frames.

    Runs its own event loop.  full: more targets, and more and longer runs under MPC.
    """
    rows, longest = (12, 60) if full else (3, 12)
    with single_threaded_blas():  # small products: threads would wait for each other
        targets = [digits_target(seed + number) for number in range(20 if full else 3)]
        return measure(targets, rows=rows, longest=longest, seed=seed)


def digits_target(seed: int) -> Target:
    """A small over-confident target on digits, with its h."""
    dataset = digits()
    split = digits_split(dataset, rows=_ROWS, shadows=1, seed=seed)
    model = train_target(dataset, split, seed=seed)
    defender = train_defender(model, dataset, split, seed=seed, steps=_DEFENDER_STEPS)
    return Target(model(dataset.features[split.evaluation]), split.evaluation_member.astype(np.int64), defender)


def measure(targets: Sequence[Target], *, rows: int, longest: int, seed: int = 0) -> IterationLeak:
    """The leak over targets; rows: how many of the first target's run under MPC, none of over ``longest`` steps."""
    counts = [loop_counts(target.logits, target.defender) for target in targets]
    every, member = np.concatenate(counts), np.concatenate([target.member for target in targets])
    group = np.repeat(np.arange(len(targets)), [len(target.member) for target in targets])
    scores = attack_counts(every, member, group)

    # Different counts first: rows that all stop at once would show little.
    short = np.flatnonzero(counts[0] <= longest)
    _, distinct = np.unique(counts[0][short], return_index=True)
    chosen = short[distinct[np.linspace(0, len(distinct) - 1, min(rows, len(distinct))).round().astype(int)]]
    seen = trio.run(observed_counts, targets[0].logits[chosen], targets[0].defender, longest + 1, seed)
    return IterationLeak(
        auc(scores, member),
        _interval(scores, member, seed),
        balanced_accuracy(scores > 0.5, member),
        (float(np.median(every[member == 1])), float(np.median(every[member == 0]))),
        len(every),
        len(targets),
        tuple(zip(counts[0][chosen].tolist(), seen, strict=True)),
    )


def loop_counts(logits: FloatArray, defender: Defender, limit: int = PUBLISHED_LIMIT) -> Integers:
    """After how many steps the published loop stops, (n,), in float64; ``limit`` where its noise is never good."""
    defaults = GuardConfig()
    z = relative_to_largest(logits)
    label, h0 = z.argmax(axis=1), defender(softmax(z))[:, 0]
    e = np.zeros_like(z)
    counts = np.full(len(z), limit, np.int64)
    rows = np.arange(len(z))
    for step in range(1, limit + 1):
        c3 = np.full(len(rows), defaults.c3)
        gradient = _direction(z[rows], e[rows], label[rows], defender, defaults.c1, defaults.c2, c3)
        e[rows] -= LEARNING_RATE * _unit(gradient)
        moved = z[rows] + e[rows]
        good = (moved.argmax(axis=1) == label[rows]) & (h0[rows] * defender(softmax(moved))[:, 0] <= 0)
        counts[rows[good]] = step
        rows = rows[~good]
    return counts


def attack_counts(counts: Integers, member: Integers, group: Integers) -> FloatArray:
    """Probabilities "member" (n,) from a count alone, for each target by an attacker who knows the other targets.

    The attacker's own models are of the same kind (Shokri et al., S&P 2017).  A tree, since neither few nor many
    iterations say "member" everywhere.
    """
    tree = DecisionTreeClassifier(max_leaf_nodes=6, min_samples_leaf=10, random_state=0)
    probabilities: FloatArray = cross_val_predict(
        tree, counts[:, None], member, groups=group, cv=LeaveOneGroupOut(), method="predict_proba"
    )
    return probabilities[:, 1]


def _interval(scores: FloatArray, member: Integers, seed: int) -> tuple[float, float]:
    samples = [
        auc(*resample(scores, member, stratify=member, random_state=1000 * seed + number))
        for number in range(_SAMPLES)
    ]
    low, high = np.quantile(samples, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return float(low), float(high)


async def observed_counts(logits: FloatArray, defender: Defender, limit: int, seed: int) -> list[int]:
    """Iterations of the leaky guard as S0 sees them on its links: for each row, the conditions that were opened."""
    recorder = Recorder()
    counts = []
    with leaky_guard(limit):
        async with open_cluster(seed, wrap_link=recorder.wrap_link) as cluster:
            for row in logits:
                recorder.clear()
                result = await cluster.guard(row[None], defender)
                recorder.learn_steps(result.traffic.by_step())
                frames = [event for event in recorder.events(("S0",)) if isinstance(event, Message)]
                counts.append(len({frame.step for frame in frames if frame.step.endswith("/stop/open")}))
    return counts
