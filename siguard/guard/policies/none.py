"""`none`: the undefended softmax, for comparison.  Servers run it only where the model owner signed it."""

from __future__ import annotations

from siguard.guard.answer import LABEL_MARGIN
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.iteration import FAR_BELOW, UNDEFENDED_BELOW, WIDE_INDEX_BITS, exponentials
from siguard.guard.plan import Plan
from siguard.guard.schedule_cost import exponentials_cost
from siguard.guard.schedule_rounds import Depths
from siguard.guard.shape import Shape
from siguard.guard.start import start, start_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_additive
from siguard.ring import FRACTION_BITS


async def protect(
    party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
) -> Additive:
    """exp(z_i - z_l), 1 + 2^-12 at the label, (batch, C) at 16 bits."""
    begun = await start(party.at("start"), logits, plan)
    arguments = begun.x - begun.label * FAR_BELOW
    others = await exponentials(party.at("exp"), arguments, WIDE_INDEX_BITS, below=UNDEFENDED_BELOW)
    return as_additive(others + begun.label * ((1 << FRACTION_BITS) + LABEL_MARGIN))


def cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of `protect`."""
    total = start_cost(shape.batch, shape.classes, shape.plan) + exponentials_cost(
        shape.batch * shape.classes, WIDE_INDEX_BITS, below=UNDEFENDED_BELOW
    )
    return total.with_rounds(Depths(shape).start() + 1)
