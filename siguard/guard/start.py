"""Logits relative to the label, in two exchanges: what every policy starts from.

x_i = z_i - z_l is at most 0 at the start.  Softmax only depends on x, and an over-confident row keeps its
structure: nothing underflows that matters (docs/numerics.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siguard.guard.plan import Plan
from siguard.mpc.arithmetic import deal_cost, exchange_cost, remask, view
from siguard.mpc.compare import ranked, ranked_cost, win_counts, win_counts_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_additive, as_opened
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.mpc.thresholds import at_least, at_least_cost
from siguard.ring import Z64, ring

#: Fraction bits of the logits: ties are decided at this resolution.
LOGIT_BITS = 24
#: x saturates from below here: e^-128 is 0 in any answer.
FLOOR = -128
#: Ring in which x is compared with the floor, at `ARGUMENT_BITS`: logits differ by less than 2^31.
FLOOR_RING = ring(48)


@dataclass
class Start:
    """label: one-hot, (batch, C).  x: (batch, C) at `ARGUMENT_BITS`, 0 at the label.  gap: the runner-up's x."""

    label: Share
    x: Share
    gap: Share


async def start(party: Party, logits: Share, plan: Plan) -> Start:
    """Label, relative logits and the runner-up's, of logits (batch, C) at `LOGIT_BITS`.

    One key for each count serves label and runner-up, its payload (1, mask of z) takes their logits beside.
    Ties are decided at 2^-24.  |error of x| < 2^-14.  Failure: a wrap of x, |x| 2^-40 each.
    Cost: 2 rounds with keys.  Source: schedule.md, set-up.
    """
    classes = logits.shape[-1]
    counts = await win_counts(party.at("rank"), logits, Z64, plan.direct)
    hot = await ranked(party.at("places"), counts, 2, logits[..., None])  # (batch, C, rank, [hot, hot z])
    largest = hot[..., 1].sum(1)
    at_label = largest[:, :1]
    relative = as_additive(logits) - _spread(at_label, classes)
    gap = largest[:, 1:] - at_label
    opened = await remask(party.at("relative"), Additive.concatenate([hot[..., 0, 0], relative, gap], axis=1))
    label, rest = opened[:, :classes], opened[:, classes:]
    x = await view(party.at("scale"), as_opened(rest), LOGIT_BITS - ARGUMENT_BITS)
    return Start(label, x[:, :classes], x[:, classes:])


def _spread(column: Additive, classes: int) -> Additive:
    return column.map(lambda value: np.broadcast_to(value, (value.shape[0], classes)))


def start_cost(batch: int, classes: int, plan: Plan) -> Cost:
    """Declared cost of `start`."""
    opened = batch * (2 * classes + 1)
    return (
        win_counts_cost(batch, classes, 64, plan.direct)
        + ranked_cost(batch, classes, 2, 1)
        + exchange_cost(opened, 8)
        + deal_cost(batch * (classes + 1), 8)
    )


async def floored(party: Party, x: Share, plan: Plan) -> Share:
    """max(x, `FLOOR`), at `ARGUMENT_BITS`, so that no index leaves its ring.  1 round with keys."""
    floor = FLOOR << ARGUMENT_BITS
    above = x - floor
    compared = as_opened(above).reduce(0, FLOOR_RING)
    kept = await at_least(party, compared, [0], above[..., None], by=plan.beside)
    return await remask(party, kept[..., 0, 1]) + floor


def floored_cost(elements: int, plan: Plan) -> Cost:
    """Declared cost of `floored`."""
    return at_least_cost(elements, FLOOR_RING.bits, 1, 1, Z64, plan.beside) + exchange_cost(elements, 8)
