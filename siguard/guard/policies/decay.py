"""`decay`: one run of gradient steps, each shorter than the one before by a public factor.

The gradient is that of `siguard`.  Noise is accepted when the label is kept and |h| does not grow: steps that
shrink end near h = 0, on whichever side, so that no sign has to change.
"""

from __future__ import annotations

from siguard.guard.classifier import Classifier
from siguard.guard.closer import check_closer, closer_answer
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.iteration import first_step, walk
from siguard.guard.lanes import lanes_of
from siguard.guard.plan import Plan
from siguard.guard.schedule_cost import closer_answer_cost, first_step_cost, walk_cost
from siguard.guard.schedule_rounds import Depths
from siguard.guard.shape import Shape
from siguard.guard.start import start, start_cost
from siguard.guard.step_ranges import Reach
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share

_RUN = lanes_of(1)


async def protect(
    party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
) -> Additive:
    """softmax(z + e) where e is accepted, else softmax(z), as `siguard` gives it: E_i = q_i / q_l, (batch, C)."""
    full = config.resolved()
    reach = Reach(full, _RUN)
    classifier = Classifier(defender, plan)
    begun = await start(party.at("start"), logits, plan)
    first = await first_step(party.at("first"), begun, classifier, reach)
    label = begun.label.reshape(begun.label.shape[0], 1, -1)
    x = await walk(party.at("optimise"), label, first, classifier, full, _RUN, reach)
    for name, value in (("x", x), ("start", begun.x), ("label", begun.label)):
        party.observe(name, value)
    return await closer_answer(party.at("answer"), first, x, begun.label, classifier, reach)


def cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of `protect`; raises `InputError` where h could leave the range of its comparison."""
    full = config.resolved()
    check_closer(shape)
    total = (
        start_cost(shape.batch, shape.classes, shape.plan)
        + first_step_cost(shape)
        + walk_cost(shape, full, _RUN)
        + closer_answer_cost(shape, full, _RUN)
    )
    depths = Depths(shape, Reach(full, _RUN))
    first = depths.first_step()
    return total.with_rounds(depths.closer_answer(depths.walk(full, first, 0), first))
