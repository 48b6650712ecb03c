"""`siguard`: the published guard, a fixed number of outer runs of gradient steps, validated, chosen obliviously.

Source: SIGuard (Wang, Liu, Lai, Yi, Yuan, NDSS 2025); full gradient, exact softmax.
"""

from __future__ import annotations

from siguard.guard.answer import chosen_answer
from siguard.guard.classifier import Classifier
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.iteration import first_step, walk
from siguard.guard.lanes import lanes_of
from siguard.guard.plan import Plan
from siguard.guard.schedule_cost import chosen_answer_cost, first_step_cost, sequential_cost, walk_cost
from siguard.guard.schedule_rounds import Depths
from siguard.guard.sequential import sequential_answer
from siguard.guard.shape import Shape
from siguard.guard.start import start, start_cost
from siguard.guard.step_ranges import Reach
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share


async def protect(
    party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
) -> Additive:
    """softmax(z + best), unnormalised: E_i = q_i / q_l with 1 + 2^-12 at the label, (batch, C).

    The factor is a function of the answer, so the receiver divides and learns nothing by it.
    """
    full = config.resolved()
    assert full.outer is not None  # noqa: S101 - for the type checker
    lanes = lanes_of(full.outer)
    reach = Reach(full, lanes)
    classifier = Classifier(defender, plan)
    begun = await start(party.at("start"), logits, plan)
    first = await first_step(party.at("first"), begun, classifier, reach)
    party.observe("start", begun.x)
    party.observe("label", begun.label)
    if plan.sequential:
        return await sequential_answer(party.at("runs"), first, begun.label, classifier, full, lanes, reach)
    label = begun.label.reshape(begun.label.shape[0], 1, -1)
    x = await walk(party.at("optimise"), label, first, classifier, full, lanes, reach)
    party.observe("x", x)
    return await chosen_answer(party.at("answer"), first, x, begun.label, classifier, lanes, reach)


def cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of `protect`."""
    full = config.resolved()
    assert full.outer is not None  # noqa: S101 - for the type checker
    lanes = lanes_of(full.outer)
    reach = Reach(full, lanes)
    start = start_cost(shape.batch, shape.classes, shape.plan) + first_step_cost(shape)
    depths = Depths(shape, reach)
    if shape.plan.sequential:
        total = start + sequential_cost(shape, full, lanes)
        return total.with_rounds(depths.sequential(full, depths.first_step(), full.outer))
    first = depths.first_step()
    rounds = depths.chosen_answer(depths.walk(full, first, 0), first, len(lanes), full.outer)
    return (start + walk_cost(shape, full, lanes) + chosen_answer_cost(shape, full, lanes)).with_rounds(rounds)
