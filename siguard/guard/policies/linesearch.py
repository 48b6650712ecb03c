"""`linesearch`: of eight public confidences of the label, the one where |h| is least.

No gradient, one sequential pass.  The candidates are c l + (1 - c) rest for the label's one-hot l and the softmax
``rest`` of the other classes' logits, with c raised to 1.02 m / (1 + m), m = max rest, so that the label is kept.
Everything is multiplied by W = sum exp(x_i - runner-up) = 1 / m, which is a function of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siguard.guard.config import LINESEARCH_CANDIDATES, LINESEARCH_MARGIN, GuardConfig
from siguard.guard.defender import SIGN_BITS, SharedDefender, activations_cost, logit_cost
from siguard.guard.relative import LABEL_OFFSET, lead_cost, relative_cost, relative_logits
from siguard.mpc.arithmetic import multiply, open_additive, product_cost, view
from siguard.mpc.boolean import sign_bit, sign_cost
from siguard.mpc.compare import one_hot_argmax, one_hot_cost, relu, relu_cost
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_multiply, bit_multiply_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS, exp, exp_cost, reciprocal, reciprocal_cost
from siguard.ring import ring


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """W times the chosen candidate, (batch, C) at 16 bits; rows sum to W up to 2^-16 per entry."""
    relative = await relative_logits(party.at("relative"), logits)
    batch, classes = relative.x.shape
    candidates = len(LINESEARCH_CANDIDATES)
    label = relative.label
    offset = label * (LABEL_OFFSET << FRACTION_BITS)
    lead = await relative.lead(party.at("lead"))
    w = await exp(party.at("rest"), relative.x - lead - offset)
    W = w.sum(-1)[:, None]

    async def clamped() -> Share:
        domain = classes.bit_length()
        least = await reciprocal(party.at("least"), W + (1 << FRACTION_BITS), domain, LINESEARCH_MARGIN)
        levels = np.rint(np.array(LINESEARCH_CANDIDATES) * 2.0**FRACTION_BITS).astype(np.int64)
        excess, _ = await relu(party.at("clamp"), least.broadcast(batch, candidates) - levels)
        return excess + levels

    c, peak = await side_by_side(clamped, lambda: multiply(party.at("peak"), label, W))
    spread = (peak - w).reshape(batch, 1, classes)
    terms = product(c.reshape(batch, candidates, 1), spread)
    moved = await view(party.at("mix"), await open_additive(party.at("mix"), terms), FRACTION_BITS)
    p = w.reshape(batch, 1, classes) + moved

    factor = W.reshape(batch, 1, 1).broadcast(batch, candidates, 1)
    hidden = await defender.activations(party.at("hidden"), p, factor)
    h = (await defender.logit(party.at("logit"), hidden, factor))[..., 0]
    negative = await sign_bit(party.at("sign"), h)
    magnitude = h - 2 * await bit_multiply(party.at("magnitude"), negative, h)
    best = await one_hot_argmax(party.at("least |h|"), -magnitude)
    chosen = product(best.reshape(batch, candidates, 1), p).sum(1)
    return await view(party.at("answer"), await open_additive(party.at("answer"), chosen))


def cost(batch: int, shape: Sequence[int], config: GuardConfig) -> Cost:
    """Declared cost of `protect`; shape: widths of h from C to 1."""
    classes, candidates = shape[0], len(LINESEARCH_CANDIDATES)
    n, rows = batch * classes, batch * candidates
    clamp = reciprocal_cost(batch, classes.bit_length()) + relu_cost(rows, 32, 8)
    return (
        relative_cost(batch, classes)
        + lead_cost(batch)
        + exp_cost(n)
        + clamp.beside(product_cost(n, 8))
        + product_cost(rows * classes, 8)
        + activations_cost(rows, shape)
        + logit_cost(rows, shape)
        + sign_cost(rows, SIGN_BITS)
        + bit_multiply_cost(rows, ring(SIGN_BITS).itemsize)
        + one_hot_cost(batch, candidates, SIGN_BITS, 1)
        + product_cost(n, 8)
    )
