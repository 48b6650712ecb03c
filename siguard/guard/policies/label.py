"""`label`: the one-hot label and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.relative import label_cost, label_one_hot
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS


async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
    """One-hot label, 1.0 at 16 bits, (batch, C)."""
    return await label_one_hot(party.at("label"), logits) * (1 << FRACTION_BITS)


def cost(batch: int, shape: Sequence[int], config: GuardConfig) -> Cost:
    """Declared cost of `protect`; shape: widths of h from C to 1."""
    return label_cost(batch, shape[0])
