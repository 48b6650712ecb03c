"""The outer runs one after another, for large batches: half the work of all lanes at once, three times the rounds.

A run's c3 and step length follow from how many runs before it were accepted.  Here that number is a secret
one-hot vector, so that each run is computed once, in a lane that nobody knows; the result is that of
`siguard.guard.answer`, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siguard.guard.answer import LABEL_MARGIN, validated
from siguard.guard.classifier import Classifier
from siguard.guard.config import GuardConfig
from siguard.guard.iteration import PACE_BITS, ChosenLane, FirstStep, walk
from siguard.guard.lanes import Lane
from siguard.guard.step_ranges import Reach, TermWeights
from siguard.mpc.arithmetic import remask
from siguard.mpc.compare import into
from siguard.mpc.conversion import bit_product
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_additive
from siguard.ring import Z2, Z64


def lanes_of_run(lanes: Sequence[Lane], run: int) -> list[Lane]:
    """The lanes of one outer run, by how many runs before it were accepted."""
    return [lane for lane in lanes if lane.run == run]


def chosen_lane(config: GuardConfig, lanes: Sequence[Lane], hot: Share) -> ChosenLane:
    """The lane of one run that ``hot`` says, (batch, lanes of the run).  Local."""
    batch = hot.shape[0]
    weights = TermWeights.together(config, lanes)
    longest = max(lanes, key=lambda lane: lane.learning_rate(config))
    paces = [lane.learning_rate(config) / longest.learning_rate(config) for lane in lanes]

    def secret(values: Sequence[float]) -> Share:
        whole = np.rint(np.array(values)).astype(np.int64)
        weighted: Share = hot * whole
        return weighted.sum(-1).reshape(batch, 1, 1)

    c3 = secret([float(value) for value in weights.c3[:, 0]])
    return ChosenLane(weights, longest, c3, secret([pace * 2.0**PACE_BITS for pace in paces]))


async def sequential_answer(
    party: Party,
    first: FirstStep,
    label: Share,
    classifier: Classifier,
    config: GuardConfig,
    lanes: Sequence[Lane],
    reach: Reach,
) -> Additive:
    """E of the last accepted run, or the undefended one: (batch, C) at 16 bits, additive, 1 + 2^-12 at the label.

    Rounds: those of the runs, one after another, 10 for each step after the first and 9 to its end.
    """
    batch, _, classes = first.x.shape
    wide = label.reshape(batch, 1, classes)
    hot = Share.public(party.role, Z64, np.ones((batch, 1), np.int64))
    gain: Share | None = None
    accepted: list[Share] = []
    for run in range(max(lane.run for lane in lanes) + 1):
        at = party.at("run", run)
        chosen = chosen_lane(config, lanes_of_run(lanes, run), hot)
        x = await walk(at, wide, first, classifier, config, lanes, reach, chosen)
        E, terms = await validated(at, first, x, label, classifier, reach)
        ok = await remask(at.at("accepted"), into(terms, Z2))
        accepted.append(ok)
        party.observe(f"x{run}", x)
        own = (E - first.E)[:, 0]
        # An accepted run takes the place of the one before, and moves the count on by one.
        change = await bit_product(at.at("gain"), ok, own if gain is None else own - gain)
        moved = await bit_product(at.at("count"), ok, hot)
        both = await remask(at.at("next"), Additive.concatenate([change, moved], axis=1))
        gain = both[:, :classes] if gain is None else gain + both[:, :classes]
        on = both[:, classes:]
        none = hot[:, :1] * 0
        hot = Share.concatenate([hot - on, none], axis=1) + Share.concatenate([none, on], axis=1)
    assert gain is not None  # noqa: S101 - there is at least one run
    party.observe("runs", Share.concatenate(accepted, axis=1))
    return as_additive(gain + (first.E[:, 0] + label * LABEL_MARGIN))
