"""`none`: the undefended softmax, for comparison.  Servers run it only where the model owner signed it."""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.relative import relative_cost, relative_logits
from siguard.guard.validation import LABEL_MARGIN
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import exp, exp_cost


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """exp(z_i - z_l), 1 + 2^-12 at the label, (batch, C) at 16 bits."""
    relative = await relative_logits(party.at("relative"), logits)
    return await exp(party.at("exp"), relative.x) + relative.label * LABEL_MARGIN


def cost(batch: int, shape: Sequence[int], config: GuardConfig) -> Cost:
    """Declared cost of `protect`; shape: widths of h from C to 1."""
    return relative_cost(batch, shape[0]) + exp_cost(batch * shape[0])
