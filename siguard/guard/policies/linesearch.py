"""`linesearch` in twelve exchanges: eight public confidences of the label, the one where |h| is least.

No gradient, one sequential pass.  The candidates are c l + (1 - c) rest for the label's one-hot l and the softmax
``rest`` of the other classes' logits, with c raised to 1.02 m / (1 + m), m = max rest, so that the label is kept.
Everything is multiplied by W = sum exp(x_i - runner-up) = 1 / m, which is a function of the answer: then the
largest weight is exp(0) = 1, m / (1 + m) is 1 / (1 + W), and there is neither a maximum nor a division.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.guard.classifier import OPENED_BITS, Classifier
from siguard.guard.config import LINESEARCH_CANDIDATES, LINESEARCH_MARGIN, GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.iteration import FAR_BELOW, UNDEFENDED_BELOW, WIDE_INDEX_BITS, exponentials
from siguard.guard.plan import Plan
from siguard.guard.schedule_cost import exponentials_cost
from siguard.guard.schedule_rounds import LEAST_RING, Depths
from siguard.guard.shape import Shape
from siguard.guard.start import start, start_cost
from siguard.guard.terms import SUM_RING
from siguard.mpc.arithmetic import (
    deal_cost,
    exchange_cost,
    open_additive,
    open_matmul,
    product_cost,
    remask,
    view,
)
from siguard.mpc.compare import ranked, ranked_cost, win_counts, win_counts_cost
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Share, as_additive, as_opened
from siguard.mpc.thresholds import at_least, at_least_cost
from siguard.ring import FRACTION_BITS, Z64, RingArray

K = len(LINESEARCH_CANDIDATES)
_KNOTS = 32
_LEVEL_BITS = 32
_SUM_COMPARED = 12


@lru_cache(maxsize=1)
def level_pieces() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Thresholds for W at 12 bits, and constants and slopes, (pieces, 2 K), of c'_k and c'_k W, at 32 bits.

    c' = max(c, 1.02 / (1 + W)): chords between knots that hold each kink, so that a candidate that is not raised is
    exact.
    """
    kinks = [LINESEARCH_MARGIN / c - 1 for c in LINESEARCH_CANDIDATES if c < LINESEARCH_MARGIN / 2]
    top = max(kinks, default=1.0)
    knots = np.unique(np.rint(np.concatenate([np.linspace(1, top, _KNOTS), kinks]) * 2.0**_SUM_COMPARED))
    W = knots / 2.0**_SUM_COMPARED
    levels = np.maximum(np.array(LINESEARCH_CANDIDATES), LINESEARCH_MARGIN / (1 + W)[:, None])
    values = np.concatenate([levels, levels * W[:, None]], axis=1)
    slopes = np.diff(values, axis=0) / np.diff(W)[:, None]
    # Beyond the last kink nothing is raised: c' is constant and c' W has slope c.
    last = np.array([[0.0] * K + list(LINESEARCH_CANDIDATES)])
    slopes = np.rint(np.concatenate([slopes, last]) * 2.0 ** (_LEVEL_BITS - FRACTION_BITS)).astype(np.int64)
    starts = np.rint(values * 2.0**_LEVEL_BITS).astype(np.int64)
    constants = starts - slopes * np.rint(W * 2.0**FRACTION_BITS).astype(np.int64)[:, None]
    return knots[1:].astype(np.int64), np.asarray(constants, np.int64), np.asarray(slopes, np.int64)


async def levels(party: Party, W: Share, plan: Plan) -> Share:
    """c'_k and c'_k W at 16 bits, (batch, 2 K), from W (batch, 1).  1 round with keys."""
    thresholds, constants, slopes = level_pieces()
    compared = as_opened(W[:, 0]).reduce(FRACTION_BITS - _SUM_COMPARED, SUM_RING)
    bits = await at_least(party, compared, [int(t) for t in thresholds], W)
    jumps = np.stack([np.diff(constants, axis=0), np.diff(slopes, axis=0)], axis=1)  # (thresholds, 2, 2 K)

    def combine(value: RingArray) -> RingArray:
        return value.reshape(len(value), -1) @ Z64.constant(jumps).reshape(-1, 2 * K)

    own = as_additive(W.broadcast(W.shape[0], 2 * K)) * slopes[0]
    total = bits.map(combine) + own
    if party.role == 1:
        total = total.map(lambda value: Z64.add(value, Z64.constant(constants[0])))
    return await view(party, await open_additive(party, total), _LEVEL_BITS - FRACTION_BITS)


async def protect(
    party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
) -> Additive:
    """W times the chosen candidate, (batch, C) at 16 bits, additive; rows sum to W up to 2^-15 per entry.

    Rounds: 11 with keys and two hidden layers; the reveal is the twelfth.
    """
    classifier = Classifier(defender, plan)
    begun = await start(party.at("start"), logits, plan)
    batch = begun.x.shape[0]
    label = begun.label
    arguments = begun.x - begun.gap - label * FAR_BELOW
    w = await exponentials(party.at("rest"), arguments, WIDE_INDEX_BITS, below=UNDEFENDED_BELOW)
    W = w.sum(-1)[:, None]
    rows = classifier.defender.matrices[0]

    async def first_layer() -> Share:
        # W1' w and W1'[l], both at 16 bits.
        both = Share.concatenate([w, label * (1 << FRACTION_BITS)], axis=0)
        opened = await open_matmul(party.at("rows"), both, rows)
        return await view(party.at("rows"), opened, OPENED_BITS - FRACTION_BITS)

    c, layer = await side_by_side(lambda: levels(party.at("levels"), W, plan), first_layer)
    own = c[:, :K].reshape(batch, K, 1)
    raised = c[:, K:].reshape(batch, K, 1)
    rest = own * -1 + (1 << FRACTION_BITS)

    def mixed(of_rest: Share, of_label: Share) -> Additive:
        width = of_rest.shape[-1]
        return product(rest, of_rest.reshape(batch, 1, width)) + product(raised, of_label.reshape(batch, 1, width))

    async def candidates() -> Share:
        opened = await open_additive(party.at("mix"), mixed(w, label * (1 << FRACTION_BITS)))
        return await view(party.at("mix"), opened, FRACTION_BITS)

    opened, p = await side_by_side(
        lambda: open_additive(party.at("h", 0), mixed(layer[:batch], layer[batch:])), candidates
    )
    S = W.reshape(batch, 1, 1).broadcast(batch, K, 1)
    logit = await classifier.logit_after(party.at("h"), opened, S, FRACTION_BITS)
    h = await view(party.at("value"), logit, OPENED_BITS - FRACTION_BITS)
    positive = await at_least(party.at("sign"), classifier.sign_of(logit), [1], h[..., None], by=plan.direct)
    magnitude = await remask(party.at("magnitude"), positive[..., 0, 1] * 2 - as_additive(h))
    counts = await win_counts(party.at("least"), -magnitude, LEAST_RING, plan.direct)

    best = await ranked(party.at("best"), counts, 1, p)
    return best[..., 0, 1:].sum(1)


def cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of `protect`."""
    batch, classes, by = shape.batch, shape.classes, shape.plan.direct
    n, rows = batch * classes, batch * K
    width = shape.widths[1]
    levels_of = at_least_cost(batch, SUM_RING.bits, len(level_pieces()[0]), 1, Z64) + product_cost(2 * rows, 8)
    # The first layer of the candidates is opened without a matrix, as long as with one.
    total = (
        start_cost(batch, classes, shape.plan)
        + exponentials_cost(n, WIDE_INDEX_BITS, below=UNDEFENDED_BELOW)
        + levels_of
        + product_cost(2 * batch * width, 8)
        + product_cost(rows * classes, 8)
        + shape.logit(rows)
        + deal_cost(rows, 8)
        + at_least_cost(rows, shape.sign_bits, 1, 1, Z64, by)
        + exchange_cost(rows, 8)
        + win_counts_cost(batch, K, LEAST_RING.bits, by)
        + ranked_cost(batch, K, 1, classes)
    )
    return total.with_rounds(Depths(shape).linesearch())
