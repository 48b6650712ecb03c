"""`label`: the one-hot label and nothing else."""

from __future__ import annotations

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.plan import Plan
from siguard.guard.schedule_rounds import Depths
from siguard.guard.shape import Shape
from siguard.mpc.compare import ranked, ranked_cost, win_counts, win_counts_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.ring import FRACTION_BITS, Z64


async def protect(
    party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
) -> Additive:
    """One-hot label, 1.0 at 16 bits, (batch, C); the lowest index on ties at the resolution of the logits."""
    counts = await win_counts(party.at("rank"), logits, Z64, plan.direct)
    return (await ranked(party.at("label"), counts, 1))[..., 0, 0] * (1 << FRACTION_BITS)


def cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of `protect`."""
    counts = win_counts_cost(shape.batch, shape.classes, 64, shape.plan.direct)
    total = counts + ranked_cost(shape.batch, shape.classes, 1, 0)
    return total.with_rounds(Depths(shape).start() - 1)
