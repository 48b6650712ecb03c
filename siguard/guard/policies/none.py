"""`none`: the undefended softmax, for comparison.  Servers run it only where the model owner signed it."""

from __future__ import annotations

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.relative import relative_logits
from siguard.guard.validation import LABEL_MARGIN
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import exp


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """exp(z_i - z_l), 1 + 2^-12 at the label, (batch, C) at 16 bits."""
    relative = await relative_logits(party.at("relative"), logits)
    return await exp(party.at("exp"), relative.x) + relative.label * LABEL_MARGIN
