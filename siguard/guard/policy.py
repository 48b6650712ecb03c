"""What a guard policy owes, and which there are.

A policy is one module in `siguard.guard.policies` with

    async def protect(party, logits, defender, config, plan) -> Additive
    def cost(shape, config) -> Cost

shares in, shares out: logits (batch, C) at `start.LOGIT_BITS`, result (batch, C) at 16 fraction bits, entries
>= 0, rows proportional to the confidences by a factor that is a function of the confidences, label kept.  Its
frames depend on the public `Shape` (batch, sizes of h, plan) and the configuration only, and `cost` declares them
exactly; what it computes does not depend on the plan.  To add one: a module, a line here, its parameters in
`siguard.guard.config`, and its float64 twin in `siguard.guard.reference` (docs/adding-a-policy.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import NamedTuple

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.plan import Plan
from siguard.guard.policies import decay, label, linesearch, none, siguard
from siguard.guard.shape import Shape
from siguard.mpc.gate import Cost, Simulator, composed
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share

ALL_CHOICES = tuple(one.name for one in fields(Plan))


class Policy(NamedTuple):
    """The two functions of a policy's module, and its simulator (`composed` where it sends nothing itself).

    choices: the fields of a plan that it looks at; the target's ReLUs look at ``hidden`` besides.
    """

    protect: Callable[[Party, Share, SharedDefender, GuardConfig, Plan], Awaitable[Additive]]
    cost: Callable[[Shape, GuardConfig], Cost]
    simulator: Simulator
    choices: tuple[str, ...] = ALL_CHOICES


POLICIES: dict[str, Policy] = {
    "siguard": Policy(siguard.protect, siguard.cost, composed),
    "decay": Policy(
        decay.protect, decay.cost, composed, ("hidden", "direct", "beside", "curves", "folded", "joined")
    ),
    "linesearch": Policy(linesearch.protect, linesearch.cost, composed, ("hidden", "direct")),
    "label": Policy(label.protect, label.cost, composed, ("direct",)),
    "none": Policy(none.protect, none.cost, composed, ("direct",)),
}


def policy_cost(shape: Shape, config: GuardConfig) -> Cost:
    """Declared cost of a configuration: rounds before the reveal."""
    return POLICIES[config.policy].cost(shape, config)
