"""`label`: the one-hot label and nothing else."""

from __future__ import annotations

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.relative import label_one_hot
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """One-hot label, 1.0 at 16 bits, (batch, C)."""
    return await label_one_hot(party.at("label"), logits) * (1 << FRACTION_BITS)
