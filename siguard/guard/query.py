"""What the servers of one session compute, from the client's input to the answer: the whole protocol, in order."""

from __future__ import annotations

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.plan import Plan
from siguard.guard.policy import POLICIES
from siguard.guard.start import LOGIT_BITS
from siguard.mpc.io import receive_input, reveal
from siguard.mpc.party import Party
from siguard.nn.shared import SharedModel
from siguard.ring import Z64


async def answer_query(
    party: Party,
    shape: tuple[int, int],
    model: SharedModel | None,
    defender: SharedDefender,
    config: GuardConfig,
    plan: Plan,
    depth: int,
) -> None:
    """Take the client's input, infer if there is a model, guard, reveal to the receiver and to nobody else.

    shape: of the input, (batch, width): features at 16 fraction bits, or without a model logits at `LOGIT_BITS`.
    plan: how it is computed; the answer does not depend on it.  depth: that of the request.
    Shares of both networks are read in this session's roles here.
    Simulator: composed.  Cost: input, inference, policy and reveal, one after the other.
    """
    value = await receive_input(party.at("input"), Z64, shape, depth)
    if model is not None:
        value = await model.for_role(party.role).forward(party.at("model"), value, LOGIT_BITS, plan.hidden)
    protect = POLICIES[config.policy].protect
    answer = await protect(party.at("guard"), value, defender.for_role(party.role), config, plan)
    await reveal(party.at("reveal"), answer)
