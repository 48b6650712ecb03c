"""Secure noise optimisation: normalised gradient steps on relative logits, all outer runs side by side.

Source: SIGuard (NDSS 2025), section on noise optimisation; the arithmetic is that of docs/numerics.md.

An outer run depends on the runs before it only through (c3, learning rate), that is through how many of them
were accepted: run i with j acceptances before it is a *lane* (i, j), j <= i.  All lanes run at once and
`siguard.guard.validation` chooses among them, so neither acceptance nor iteration count shows anywhere.

State per lane: x, relative to the label; ``norm``, the log of sum exp x, one step old; ``lag``, the same over the
other classes only.  Weights w_i = exp(x_i - lag) keep the gradient's direction where softmax itself underflows:
the gradient is multiplied by a positive factor per row, which normalisation removes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, log2, sqrt
from math import exp as exp_float
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.guard.config import GuardConfig
from siguard.guard.defender import WEIGHT_BITS, SharedDefender
from siguard.guard.lanes import Lane, lane_weights
from siguard.guard.relative import LABEL_OFFSET, RelativeLogits
from siguard.mpc.arithmetic import (
    multiply,
    open_additive,
    remask,
    truncate,
    view,
)
from siguard.mpc.boolean import invert, sign_bit
from siguard.mpc.compare import is_positive, one_hot_argmax
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_product
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product, product
from siguard.mpc.share import Additive, Share
from siguard.mpc.softmax import FRACTION_BITS, exp, log
from siguard.mpc.steps import inverse_root_steps, step_function
from siguard.ring import ring

# Scales, in fraction bits; every product below states the sum it opens at.
_GRADIENT_BITS = 13
_ROOT_BITS = 37
_DIRECTION_BITS = 14
_NORM_BITS = 12
_RATE_BITS = 10
#: log2 of the squared norm, as it is opened, for which the inverse root is right.
_NORM_RANGE = (12, 62)
#: Centres the error of the cubic Newton step on 0.
_NEWTON = 1.50147


@dataclass(frozen=True)
class _Terms:
    """Public whole weights of the three terms, each (lanes, 1), and the scale at which their sum stays in range."""

    c1: npt.NDArray[np.int64]
    c2: npt.NDArray[np.int64]
    c3: npt.NDArray[np.int64]
    gradient_bits: int

    @classmethod
    def of(cls, config: GuardConfig, lanes: Sequence[Lane], classes: int, defender_bits: int) -> _Terms:
        weights = np.array([lane_weights(config.c1, config.c2, lane.c3(config)) for lane in lanes], np.int64)
        c1, c2, c3 = (column[:, None] for column in weights.T)
        # Bounds of |g|^2.  At the start w_i <= 1 and S <= C, so that each entry is at most C G and their sum C G;
        # later w and q S sum to at most ``growth`` each.
        G, C = 2.0**defender_bits, float(classes)
        growth = _growth(max(lane.learning_rate(config) for lane in lanes))
        sums = growth**2 * (c1 * G + c3 * 2) + c2 * 2 * growth**4
        largest = max(G**2 * (C**3 + C**2), 2 * float(sums.max()) ** 2)
        bits = (_NORM_RANGE[1] - ceil(log2(largest))) // 2
        return cls(c1, c2, c3, min(_GRADIENT_BITS, bits))


@dataclass
class _State:
    x: Share
    norm: Share
    lag: Share

    def spread(self, lanes: int) -> _State:
        batch, _, classes = self.x.shape
        return _State(
            self.x.broadcast(batch, lanes, classes),
            self.norm.broadcast(batch, lanes, 1),
            self.lag.broadcast(batch, lanes, 1),
        )


@dataclass
class _Softmax:
    """q S, w and their sums; ``growth`` is exp(norm - lag)."""

    q: Share
    w: Share
    factor: Share
    w_sum: Share
    growth: Share


async def optimise(
    party: Party,
    relative: RelativeLogits,
    defender: SharedDefender,
    config: GuardConfig,
    lanes: Sequence[Lane],
) -> Share:
    """Final x of every lane, (batch, lanes, C) at 16 bits, after the configured number of steps.

    Rounds: 1, and 39 per step with two hidden layers, whatever the number of lanes.
    """
    full = config.resolved()
    assert full.inner is not None  # noqa: S101 - for the type checker
    batch, classes = relative.x.shape
    terms = _Terms.of(full, lanes, classes, defender.gradient_bits)
    rates = [lane.learning_rate(full) for lane in lanes]
    label = relative.label.reshape(batch, 1, classes)
    lag = (await relative.lead(party.at("lead"))).reshape(batch, 1, 1)
    state = _State(relative.x.reshape(batch, 1, classes), lag * 0, lag)
    start: Share | None = None
    for step in range(full.inner):
        party_step = party.at("inner", step)
        # Before the first step all lanes agree: one lane computes its direction.
        first = step == 0
        current = state if first else state.spread(len(lanes))
        soft = await _softmax(party_step.at("softmax"), current, label)
        domain = log_domain(classes, max(rates), first)
        if first:
            towards, logs = await side_by_side(
                partial(_towards_zero, party_step.at("h"), soft, defender, terms),
                partial(_logarithms, party_step.at("log"), soft, domain),
            )
            start = current.x - (current.norm + logs[0])
            gradient = towards * int(full.c1 > 0)  # the other terms are 0, so its weight does not matter
        else:
            assert start is not None  # noqa: S101 - set by the first step
            towards, kept, (close, logs) = await side_by_side(
                partial(_towards_zero, party_step.at("h"), soft, defender, terms),
                partial(_keep_label, party_step.at("label"), current, soft, label, terms),
                partial(_stay_close, party_step.at("close"), current, soft, start, domain, terms),
            )
            gradient = towards * terms.c1 + (kept * terms.c2 + close * terms.c3)
        opened = await remask(party_step.at("gradient"), gradient)
        x = await _newton_step(party_step.at("step"), current.x, opened, label, rates)
        state = _State(x, current.norm + logs[0], current.lag + logs[1])
    return state.x


async def _softmax(party: Party, state: _State, label: Share) -> _Softmax:
    """Exponentials of this step, all in one call.  3 rounds."""
    classes = state.x.shape[-1]
    offset = label * (LABEL_OFFSET << FRACTION_BITS)
    arguments = [state.x - state.norm, state.x - state.lag - offset, state.norm - state.lag]
    values = await exp(party, Share.concatenate(arguments, axis=-1))
    q, w, growth = values[..., :classes], values[..., classes : 2 * classes], values[..., 2 * classes :]
    return _Softmax(q, w, q.sum(-1)[..., None], w.sum(-1)[..., None], growth)


def _growth(largest_rate: float) -> float:
    """By how much one step can change a sum of exponentials."""
    return exp_float(sqrt(2) * 1.02 * largest_rate) * 1.02


def log_domain(classes: int, largest_rate: float, first: bool) -> int:
    """Domain bits for the sums: up to C at the start, then one step's growth."""
    largest = classes + 0.5 if first else _growth(largest_rate)
    return ceil(log2(largest / (1 - 2.0**-8)))


def norm_steps() -> int:
    """Number of thresholds of the inverse root."""
    return len(inverse_root_steps(*_NORM_RANGE, 0, _ROOT_BITS)[0])


async def _logarithms(party: Party, soft: _Softmax, domain: int) -> tuple[Share, Share]:
    """log of both sums, in one call.  3 rounds."""
    both = await log(party, Share.concatenate([soft.factor, soft.w_sum], axis=-1), domain)
    return both[..., :1], both[..., 1:]


async def _towards_zero(party: Party, soft: _Softmax, defender: SharedDefender, terms: _Terms) -> Additive:
    """sign(h) J(q)^T dh/dq, times the row's positive factor, before its exchange.

    J(q)^T v = q (v - <v, q>) becomes w_i (S v_i - <v, q S>).  The backward pass runs beside the logit and its sign.
    """
    hidden = await defender.activations(party.at("hidden"), soft.q, soft.factor)

    async def sign() -> Share:
        return await is_positive(party.at("sign"), await defender.logit(party.at("logit"), hidden, soft.factor))

    async def jacobian() -> Share:
        v = await defender.backward(party.at("backward"), hidden)
        inner = (product(soft.factor, v) - dot_product(soft.q, v)).map(np.ascontiguousarray)
        centred = await view(party.at("centre"), await open_additive(party.at("centre"), inner), FRACTION_BITS)
        opened = await open_additive(party.at("weigh"), product(soft.w, centred))
        return await view(party.at("weigh"), opened, FRACTION_BITS + WEIGHT_BITS - terms.gradient_bits)

    positive, gradient = await side_by_side(sign, jacobian)
    # sign(h) = 2 [h > 0] - 1, as the reference has it: -1 at 0.
    signed: Additive = (await bit_product(party.at("signed"), positive, gradient)) * 2 - gradient
    return signed


async def _keep_label(party: Party, state: _State, soft: _Softmax, label: Share, terms: _Terms) -> Share:
    """The other classes' part of one_hot(argmax(z + e)) - l, times the row's factor S^2 exp(-lag).

    0 while the label is kept.  The label's own entry is minus the sum and never computed.
    """
    batch, lanes, classes = state.x.shape

    async def lost() -> Share:
        flat = state.x.reshape(batch * lanes, classes)
        hot = await one_hot_argmax(party.at("argmax"), flat)
        hot = hot.reshape(batch, lanes, classes)
        return await multiply(party.at("rest"), hot, 1 - label)

    async def scale() -> Share:
        squared = await multiply(party.at("square"), soft.factor, soft.factor, FRACTION_BITS)
        return await multiply(party.at("scale"), squared, soft.growth, 2 * FRACTION_BITS - terms.gradient_bits)

    moved, factor = await side_by_side(lost, scale)
    return await multiply(party.at("product"), moved, factor)


async def _stay_close(
    party: Party, state: _State, soft: _Softmax, start: Share, domain: int, terms: _Terms
) -> tuple[Share, tuple[Share, Share]]:
    """J(q)^T sign(q - p), times the row's factor, and the logarithms it needs.

    q_i >= p_i is asked as x_i - log S >= x0_i - log S0.
    """
    logs = await _logarithms(party.at("log"), soft, domain)
    difference = state.x - (state.norm + logs[0]) - start
    small = await truncate(party.at("reduce"), difference, 0, ring(32))
    larger = invert(await sign_bit(party.at("sign"), small))
    batch, lanes, classes = state.x.shape
    q_signed = await bit_product(party.at("signed q"), larger, soft.q)
    s_signed = await bit_product(party.at("signed S"), larger, soft.factor.broadcast(batch, lanes, classes))
    # sign = 2 bit - 1, so S sign_i - <sign, q S> = 2 (S bit_i - <bit, q S>) - (S - sum q S), and the last is 0.
    centred = await remask(party.at("centre"), (s_signed - q_signed.sum(-1).map(_last_axis)) * 2)
    opened = await open_additive(party.at("weigh"), product(soft.w, centred))
    close = await view(party.at("weigh"), opened, 2 * FRACTION_BITS - terms.gradient_bits)
    return close, logs


def _last_axis(array: Any) -> Any:
    return array[..., None]


async def _newton_step(party: Party, x: Share, gradient: Share, label: Share, rates: Sequence[float]) -> Share:
    """x - lr g / |g| for every lane, from the other classes' entries U of the gradient.

    The label's entry is -sum U, so |g|^2 = sum U^2 + (sum U)^2, and relative to the label the step of entry i is
    U_i + sum U, and 0 at the label.  A step function gives 1 / |g| within 4.4 %, one Newton step in V the rest:
    x - lr V' (3 - |V|^2) / 2.  A gradient of 0 leaves x as it is.
    """
    total = gradient.sum(-1)[..., None]
    squares = dot_product(gradient, gradient) + product(total, total)
    at_label = product(label, total)
    both = await open_additive(party.at("norm"), Additive.concatenate([squares, at_label], axis=-1))
    own = await view(party.at("norm"), both[..., 1:])
    moves = gradient + total - own
    thresholds, values = inverse_root_steps(*_NORM_RANGE, 0, _ROOT_BITS)
    root = await step_function(party.at("root"), both[..., :1], thresholds, values)
    directions = Share.concatenate([gradient, moves], axis=-1)
    opened = await open_additive(party.at("direction"), product(directions, root))
    V = await view(party.at("direction"), opened, _ROOT_BITS - _DIRECTION_BITS)
    classes = gradient.shape[-1]
    rest, step = V[..., :classes], V[..., classes:]
    rest_sum = rest.sum(-1)[..., None]
    length = await open_additive(party.at("length"), dot_product(rest, rest) + product(rest_sum, rest_sum))
    squared = await view(party.at("length"), length, 2 * _DIRECTION_BITS - _NORM_BITS)
    # (3 - n) / 2 at one more bit than n, times the lane's learning rate.
    factor = round(_NEWTON * 2.0 ** (_NORM_BITS + 1)) - squared
    rate = np.array([round(lr * 2.0**_RATE_BITS) for lr in rates])[:, None]
    batch = x.shape[0]
    factor = factor.broadcast(batch, len(rates), 1) * rate
    scale = _DIRECTION_BITS + _NORM_BITS + 1 + _RATE_BITS
    opened = await open_additive(party.at("update"), product(step.broadcast(batch, len(rates), classes), factor))
    return x.broadcast(batch, len(rates), classes) - await view(party.at("update"), opened, scale - FRACTION_BITS)
