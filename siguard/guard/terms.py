"""The two other terms of the gradient, beside h: keep the label, and stay close to the undefended answer.

Both are multiplied by the row's positive factor S^2 exp(-lag), as the gradient of h is: w_i S = q_i S^2 exp(-lag).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from siguard.guard.plan import Plan
from siguard.guard.step_ranges import LARGEST_SCALE, Reach, TermWeights
from siguard.mpc.arithmetic import multiply, open_additive, remask, view
from siguard.mpc.compare import ranked, win_counts
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.curves import piecewise
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Opened, Share, as_additive, as_opened
from siguard.mpc.splines import ARGUMENT_BITS, LOG_BITS, Pieces, logarithm_pieces
from siguard.mpc.thresholds import at_least
from siguard.ring import FRACTION_BITS, ring

#: Fraction bits at which entries of x are compared with each other, and with 0, inside the optimisation.
X_COMPARED = 9
#: S between 1 and 2^10: log2 of both ends, knots an octave, fraction bits where it is compared, and the ring there.
_SUM_RANGE, _SUM_COMPARED, SUM_RING = (0, 10, 8), 12, ring(32)
#: Ring in which S^2 exp(-lag) is capped.
SCALE_RING = ring(48)


@dataclass
class Softmax:
    """E = q S, 1 at the label, and 0 there in ``others``; S = sum E; w; all at 16 bits.

    inverse: exp(-lag), (batch, lanes, 1), where it is known.
    """

    E: Share
    others: Share
    S: Share
    w: Share
    inverse: Share


@dataclass
class Reference:
    """The undefended x, and log S of it, both at `ARGUMENT_BITS`."""

    x: Share
    log_sum: Share


def sum_pieces() -> Pieces:
    """log S."""
    return logarithm_pieces(*_SUM_RANGE, FRACTION_BITS, _SUM_COMPARED)


async def log_sum(party: Party, S: Share, plan: Plan) -> Additive:
    """log S at `LOG_BITS`, additive, held from S = 2^10 on.  0 rounds with keys."""
    compared = as_opened(S).reduce(FRACTION_BITS - _SUM_COMPARED, SUM_RING)
    return await piecewise(party, S, compared, sum_pieces(), plan.curves)


async def reference_log_sum(party: Party, S: Share, plan: Plan) -> Share:
    """log S of the undefended answer at `ARGUMENT_BITS`.  1 round with keys."""
    opened = await open_additive(party, await log_sum(party, S, plan))
    return await view(party, opened, LOG_BITS - ARGUMENT_BITS)


async def other_terms(
    party: Party,
    x: Share,
    soft: Softmax,
    reference: Reference,
    reach: Reach,
    weights: TermWeights,
    gradient_bits: int,
    plan: Plan,
    c3: Share | None = None,
) -> Share | None:
    """c2 and c3 terms of the other classes, (batch, lanes, C) at ``gradient_bits``; None where both weights are 0.

    c3: a secret weight in place of that of ``weights``, (batch, 1, 1).  5 rounds by keys, 1 more with a secret one.
    """

    async def close() -> Share:
        term = await _stay_close(party.at("close"), x, soft, reference, reach, gradient_bits, plan)
        return term * weights.c3 if c3 is None else await multiply(party.at("c3"), term, c3)

    async def kept() -> Share:
        return await _keep_label(party.at("label"), x, soft, reach, gradient_bits, plan) * weights.c2

    branches = [branch for branch, weight in ((close, weights.c3), (kept, weights.c2)) if weight.any()]
    terms: list[Share] = await side_by_side(*branches)
    if not terms:
        return None
    return terms[0] + terms[1] if len(terms) == 2 else terms[0]


async def _stay_close(
    party: Party,
    x: Share,
    soft: Softmax,
    reference: Reference,
    reach: Reach,
    gradient_bits: int,
    plan: Plan,
) -> Share:
    """w_i (S s_i - sum_k E_k s_k), s = sign(q - p).  q_i >= p_i is asked as x_i - log S >= x0_i - log S0.

    The label's own sign is that of log S0 - log S.
    """
    batch, lanes, classes = x.shape
    shift = LOG_BITS - ARGUMENT_BITS

    async def weigh() -> Share:
        opened = await open_additive(party.at("weights"), product(soft.w, soft.S))
        return await view(party.at("weights"), opened, FRACTION_BITS)

    async def compare() -> Opened:
        logs = await log_sum(party.at("log"), soft.S, plan)
        change = as_additive(reference.log_sum.broadcast(batch, lanes, 1)) * (1 << shift) - logs
        moved = as_additive(x - reference.x) * (1 << shift)
        wide = change.map(lambda value: np.broadcast_to(value, moved.shape))
        return await open_additive(party.at("change"), Additive.concatenate([moved + wide, change], axis=-1))

    wS, opened = await side_by_side(weigh, compare)
    # The entry of the label among the classes is 0 in both products, whatever its sign.
    E = Share.concatenate([soft.others, soft.others[..., :1] * 0 + (1 << FRACTION_BITS)], axis=-1)
    bits = await at_least(
        party.at("sign"),
        opened.reduce(LOG_BITS - X_COMPARED, reach.ring(X_COMPARED)),
        [0],
        E[..., None],
        by=plan.beside,
    )
    signed = (bits[..., 0, 1] * 2).sum(-1) - as_additive(E.sum(-1))
    wires = Additive.concatenate([bits[..., :classes, 0, 0], signed.map(lambda v: v[..., None])], axis=-1)
    both = await remask(party.at("signs"), wires)
    signs = both[..., :classes] * 2 - 1
    terms = product(wS, signs) * (1 << FRACTION_BITS) - product(soft.w, both[..., classes:])
    opened = await open_additive(party.at("product"), terms)
    return await view(party.at("product"), opened, 2 * FRACTION_BITS - gradient_bits)


async def _keep_label(party: Party, x: Share, soft: Softmax, reach: Reach, gradient_bits: int, plan: Plan) -> Share:
    """S^2 exp(-lag) at the largest of the other classes, where it has overtaken the label; else 0.

    The label's own entry is minus the sum and never computed.  The scale is capped at `LARGEST_SCALE`.
    """

    async def lost() -> Share:
        async def ahead() -> Share:
            compared = as_opened(x).reduce(ARGUMENT_BITS - X_COMPARED, reach.ring(X_COMPARED))
            return await remask(
                party.at("ahead"), (await at_least(party.at("ahead"), compared, [1], by=plan.beside))[..., 0, 0]
            )

        counts, bit = await side_by_side(
            lambda: win_counts(
                party.at("rank"), x, reach.ring(X_COMPARED), plan.beside, ARGUMENT_BITS - X_COMPARED
            ),
            ahead,
        )

        top = (await ranked(party.at("top"), counts, 1, bit[..., None]))[..., 0, 1]
        return await remask(party.at("lost"), top)

    async def scale() -> Share:
        part = await multiply(party.at("scale", 0), soft.S, soft.inverse, FRACTION_BITS)
        full = await multiply(party.at("scale", 1), soft.S, part, FRACTION_BITS)
        cap = LARGEST_SCALE << FRACTION_BITS
        above = full - cap
        compared = as_opened(above).reduce(0, SCALE_RING)
        excess = await at_least(party.at("cap"), compared, [0], above[..., None], by=plan.beside)
        return await remask(party.at("cap"), as_additive(full) - excess[..., 0, 1])

    moved, factor = await side_by_side(lost, scale)
    return await multiply(party.at("product"), moved, factor, FRACTION_BITS - gradient_bits)
