"""Noise optimisation in nine exchanges a step: normalised gradient steps on relative logits, in all lanes at once.

Source: SIGuard (NDSS 2025), section on noise optimisation; the arithmetic is that of docs/numerics.md.

State: x, relative to the label, whose own entry lies so far below that its exponential is 0; and ``lag``, the
log of the sum of the other classes' exponentials, one step old.  E_i = exp(x_i) with E_l = 1 is the softmax times
S = sum E; w_i = exp(x_i - lag), 0 at the label, keeps the gradient's direction where the softmax underflows: the
gradient is multiplied by a positive factor per row, which normalisation removes.  Along the step:

    1 E, w | 2 first layer | 3 its ReLU | 4 second layer | 5 its ReLU | 6 h, its gradient R | 7 U = sign(h) R + H,
    |U|^2 | 8 V = U / |U| by steps | 9 x - lr V (3 - |V|^2) / 2

and beside it H, the two other terms (`siguard.guard.terms`), and the next lag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from siguard.guard.classifier import Classifier, Logit
from siguard.guard.config import GuardConfig
from siguard.guard.lanes import Lane
from siguard.guard.move import step_of
from siguard.guard.plan import Plan
from siguard.guard.start import Start, floored
from siguard.guard.step_ranges import Reach, TermWeights, first_gradient_bits, largest_sum
from siguard.guard.terms import Reference, Softmax, other_terms, reference_log_sum
from siguard.mpc.arithmetic import multiply, open_additive, view
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.curves import exponential, piecewise
from siguard.mpc.party import Party
from siguard.mpc.share import Share, as_opened
from siguard.mpc.splines import ARGUMENT_BITS, EXP_BITS, EXP_WINDOW, LOG_BITS, Pieces, logarithm_pieces
from siguard.mpc.tabled import tabled_exponential
from siguard.mpc.thresholds import Way
from siguard.ring import FRACTION_BITS, ring

Integers = npt.NDArray[np.int64]

#: Fraction bits of a chosen lane's pace.
PACE_BITS = 12
#: Index bits of the exponential before x is floored: any logits.
WIDE_INDEX_BITS = 43
#: Subtracted at the label there: further below than the runner-up of any logits, at `ARGUMENT_BITS`.
FAR_BELOW = 1 << (32 + ARGUMENT_BITS)
#: Logits relative to the label's or the runner-up's are at most 0, but for rounding.
UNDEFENDED_BELOW = 1
#: sum w between 2^-6 and 2^10: log2 of both ends, knots an octave; fraction bits where it is compared; its ring.
_WEIGHTS_RANGE, _WEIGHTS_COMPARED, WEIGHTS_RING = (-6, 10, 4), 10, ring(28)


@dataclass
class FirstStep:
    """The undefended answer and the direction from it, which all lanes share; from it h's term alone is not 0.

    E: its exponentials, (batch, 1, C) at 16 bits, 1 at the label.  logit: its S h.  R: the gradient of h there.
    x, lag: the state for the steps after it, floored.
    """

    E: Share
    logit: Logit
    R: Share
    x: Share
    lag: Share
    log_sum: Share


@dataclass
class ChosenLane:
    """One of several lanes, which one is secret; all have the same c1 and c2.

    weights: with the largest c3.  lane: the one with the longest steps.  c3, pace: this lane's c3, and the length
    of its steps in the longest at `PACE_BITS`; (batch, 1, 1).
    """

    weights: TermWeights
    lane: Lane
    c3: Share
    pace: Share


async def exponentials(party: Party, x: Share, bits: int, by: Way = Way.KEY, below: int = EXP_WINDOW[1]) -> Share:
    """e^x at 16 bits, x < ``below``.  1 round with keys, 3 with tables: by adders, as other curves are."""
    if by is Way.ADDER:
        return await tabled_exponential(party, x, bits)
    opened = await open_additive(party, await exponential(party, x, bits, below))
    return await view(party, opened, EXP_BITS - FRACTION_BITS)


async def first_step(party: Party, start: Start, classifier: Classifier, reach: Reach) -> FirstStep:
    """What comes before the first step is taken.  6 rounds with keys and two hidden layers."""
    batch, classes = start.x.shape
    label = start.label.reshape(batch, 1, classes)
    x = start.x.reshape(batch, 1, classes) - label * FAR_BELOW
    lag = start.gap.reshape(batch, 1, 1)
    bits = first_gradient_bits(classes, classifier.defender.gradient_bits)
    soft = await _softmax(party.at("exp"), [x, x - lag], label, WIDE_INDEX_BITS, Way.KEY, UNDEFENDED_BELOW)
    (logit, R), change, bounded, log_sum = await side_by_side(
        lambda: classifier.with_gradient(party.at("h"), soft.E, soft.S, soft.w, bits),
        lambda: _log_weights(party.at("lag"), soft.w, classifier.plan),
        lambda: floored(party.at("floor"), Share.concatenate([start.x, start.gap], axis=-1), classifier.plan),
        lambda: reference_log_sum(party.at("log"), soft.S, classifier.plan),
    )
    x = bounded[:, :classes].reshape(batch, 1, classes) - label * (reach.offset << ARGUMENT_BITS)
    return FirstStep(soft.E, logit, R, x, bounded[:, classes:].reshape(batch, 1, 1) + change, log_sum)


async def walk(
    party: Party,
    label: Share,
    first: FirstStep,
    classifier: Classifier,
    config: GuardConfig,
    lanes: Sequence[Lane],
    reach: Reach,
    chosen: ChosenLane | None = None,
) -> Share:
    """Final x of every lane, (batch, lanes, C), after the configured number of steps; or of the chosen lane.

    label: (batch, 1, C).  Rounds: 9 for each step with keys and two hidden layers, whatever the number of lanes,
    and 1 more in a chosen lane; the first 6 are those of `first_step`.
    """
    assert config.inner is not None  # noqa: S101 - for the type checker
    weights = TermWeights(config, lanes) if chosen is None else chosen.weights
    walked = list(lanes) if chosen is None else [chosen.lane]
    reference = Reference(first.x, first.log_sum)
    h = classifier.defender

    async def moved(at: Party, x: Share, logit: Logit, R: Share, c1: Integers, H: Share | None, step: int) -> Share:
        lengths = [lane.step_length(config, step) for lane in walked]
        change = await step_of(at, classifier, logit, R, c1, H, lengths)
        if chosen is not None:
            change = await multiply(at.at("pace"), change, chosen.pace, PACE_BITS)
        return x.broadcast(*change.shape) - change

    scale = np.full((1, 1), int(config.c1 > 0))
    x = await moved(party.at("inner", 0), first.x, first.logit, first.R, scale, None, 0)
    lag = first.lag.broadcast(x.shape[0], len(walked), 1)
    for step in range(1, config.inner):
        at = party.at("inner", step)
        soft = await _softmax(at.at("exp"), [x, x - lag, -lag], label, reach.index_bits, classifier.plan.curves)
        largest = largest_sum(config, lanes, step)
        bits = weights.gradient_bits(h.classes, h.gradient_bits, largest)
        (logit, R), H, change = await side_by_side(
            partial(classifier.with_gradient, at.at("h"), soft.E, soft.S, soft.w, bits),
            partial(
                other_terms,
                at.at("terms"),
                x,
                soft,
                reference,
                reach,
                weights,
                bits,
                classifier.plan,
                None if chosen is None else chosen.c3,
            ),
            partial(_log_weights, at.at("lag"), soft.w, classifier.plan),
        )
        x = await moved(at, x, logit, R, weights.c1, H, step)
        lag = lag + change
    return x


async def _softmax(
    party: Party,
    arguments: Sequence[Share],
    label: Share,
    bits: int,
    by: Way,
    below: int = EXP_WINDOW[1],
) -> Softmax:
    """Exponentials of x, x - lag and perhaps -lag in one call.  1 round with keys."""
    classes = label.shape[-1]
    values = await exponentials(party, Share.concatenate(arguments, axis=-1), bits, by, below)
    others = values[..., :classes]
    E = others + label * (1 << FRACTION_BITS)
    return Softmax(E, others, E.sum(-1)[..., None], values[..., classes : 2 * classes], values[..., 2 * classes :])


async def _log_weights(party: Party, w: Share, plan: Plan) -> Share:
    """log sum w at `ARGUMENT_BITS`, (..., 1): the change of the lag.  1 round with keys."""
    total = w.sum(-1)[..., None]
    compared = as_opened(total).reduce(FRACTION_BITS - _WEIGHTS_COMPARED, WEIGHTS_RING)
    terms = await piecewise(party, total, compared, weight_pieces(), plan.curves)
    return await view(party, await open_additive(party, terms), LOG_BITS - ARGUMENT_BITS)


def weight_pieces() -> Pieces:
    """log sum w."""
    return logarithm_pieces(*_WEIGHTS_RANGE, FRACTION_BITS, _WEIGHTS_COMPARED)
