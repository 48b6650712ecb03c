"""Small deployments that answer a few queries under the recorder: what the content rung and the report look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from siguard.actors.cluster import GuardResult, open_cluster
from siguard.actors.naming import SessionNames
from siguard.guard.config import GuardConfig
from siguard.guard.plan import Plan
from siguard.nn.model import Defender, FloatArray, Model
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.queries import Query
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import View

#: Every gate once, few frames; with keys, with adders, and with what is planned in memory: tables for `decay`.
QUICK = {
    "siguard": GuardConfig("siguard", outer=2, inner=1, rounds="few"),
    "decay": GuardConfig("decay", inner=2),
    "linesearch": GuardConfig("linesearch", rounds="bytes"),
    "label": GuardConfig("label", rounds="bytes"),
    "none": GuardConfig("none", rounds="few"),
}
#: As published.
FULL = {
    **QUICK,
    "siguard": GuardConfig("siguard", rounds="few"),
    "decay": GuardConfig("decay"),
}


@dataclass
class Recording:
    """Calls of one deployment: three queries, so that every server deals once, and one of the test role upstream.

    queries, dealers, answers: by session, in the order of the calls.
    """

    recorder: Recorder
    queries: dict[bytes, Query] = field(default_factory=dict)
    dealers: dict[bytes, str] = field(default_factory=dict)
    answers: dict[bytes, FloatArray] = field(default_factory=dict)
    owner_key: bytes = b""

    def view(self, corrupted: Corrupted) -> View:
        """The joint view of a corrupted set over all calls, set-up included."""
        return self.recorder.view(corrupted, self.answers, self.owner_key)


def small_networks(seed: int, classes: int = 4) -> tuple[Model, Defender]:
    """A model on five features and a classifier h with two hidden layers, with random weights."""
    rng = np.random.default_rng([seed, 0x4E])

    def layers(*widths: int) -> list[tuple[FloatArray, FloatArray]]:
        return [(rng.normal(size=(m, n)), rng.normal(size=n) / 10) for m, n in pairwise(widths)]

    return Model(layers(5, 6, classes)), Defender(layers(classes, 8, 6, 1))


def _plan_of(result: GuardResult) -> Plan | None:
    return None if result.planned is None else result.planned.plan


async def record(config: GuardConfig, seed: int, batch: int = 2, queries: int = 3) -> Recording:
    """Run the calls on a cluster with this seed."""
    model, defender = small_networks(seed)
    rng = np.random.default_rng([seed, 0x51])
    recorder = Recorder()
    recording = Recording(recorder)
    async with open_cluster(seed=seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness) as cluster:
        recording.owner_key = cluster.owner_key
        for turn in range(queries + 1):
            if turn < queries:
                features = rng.normal(size=(batch, model.shape[0]))
                result = await cluster.query(features, model, defender, config)
                query = Query.of_features(features, model, defender, config, _plan_of(result))
            else:
                logits = rng.normal(size=(batch, defender.classes)) * 2
                result = await cluster.guard(logits, defender, config)
                query = Query.of_logits(logits, defender, config, _plan_of(result))
            recorder.learn_steps(result.traffic.by_step())
            session = recorder.sessions[-1]
            recording.queries[session] = query
            recording.dealers[session] = SessionNames.dealer(turn)
            recording.answers[session] = result.confidences
    return recording
