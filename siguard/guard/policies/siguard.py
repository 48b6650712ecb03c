"""`siguard`: the published guard, a fixed number of outer runs of gradient steps, validated, chosen obliviously.

Source: SIGuard (Wang, Liu, Lai, Yi, Yuan, NDSS 2025); full gradient, exact softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.lanes import lanes_of
from siguard.guard.optimisation import optimise
from siguard.guard.optimisation_cost import optimise_cost
from siguard.guard.relative import relative_cost, relative_logits
from siguard.guard.validation import LABEL_MARGIN, choose, choose_cost, validate, validate_cost
from siguard.mpc.arithmetic import deal_cost, exchange_cost, remask
from siguard.mpc.conversion import bit_product
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share, as_additive
from siguard.mpc.softmax import exp, exp_cost


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """softmax(z + best), unnormalised: E_i = q_i / q_l with 1 + 2^-12 at the label, (batch, C).

    The factor is a function of the answer, so the receiver divides and learns nothing by it.
    """
    full = config.resolved()
    assert full.outer is not None  # noqa: S101 - for the type checker
    relative = await relative_logits(party.at("relative"), logits)
    lanes = lanes_of(full.outer)
    x = await optimise(party.at("optimise"), relative, defender, full, lanes)
    x = Share.concatenate([relative.x[:, None], x], axis=1)
    E = await exp(party.at("candidates"), x)
    ok = await validate(party.at("validate"), E, relative.label, defender)
    chosen = await choose(party.at("choose"), ok, lanes, full.outer)
    gain = await bit_product(party.at("answer"), chosen[:, :, None], E[:, 1:] - E[:, :1])
    answer = await remask(party.at("answer"), gain.sum(1) + as_additive(E[:, 0]))
    party.observe("chosen", chosen)
    party.observe("x", x)
    return answer + relative.label * LABEL_MARGIN


def cost(batch: int, shape: Sequence[int], config: GuardConfig) -> Cost:
    """Declared cost of `protect`; shape: widths of h from C to 1."""
    full = config.resolved()
    assert full.outer is not None  # noqa: S101 - for the type checker
    lanes = lanes_of(full.outer)
    every = batch * len(lanes) * shape[0]
    return (
        relative_cost(batch, shape[0])
        + optimise_cost(batch, shape, full, lanes)
        + exp_cost(every + batch * shape[0])
        + validate_cost(batch, len(lanes), shape)
        + choose_cost(batch, full.outer)
        + deal_cost(2 * every, 8)
        + exchange_cost(batch * shape[0], 8)
    )
