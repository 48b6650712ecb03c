"""The leaky guard: a ``while`` loop on shares that opens its stop condition, as a naive port of the published loop.

It exists as a negative control only.  It is the shipped optimisation and the shipped validation with one message
more after each step: all servers learn whether the noise is good by now, and stop.  Nothing outside the harness
refers to it, no configuration can name it, and it stands in for ``siguard`` only while `leaky_guard` is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from siguard.guard import optimisation
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.lanes import Lane
from siguard.guard.policy import POLICIES
from siguard.guard.relative import RelativeLogits, relative_logits
from siguard.guard.validation import LABEL_MARGIN, validate
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import exp
from siguard.proofsim.patching import replaced

#: The published 0.1, as a learning rate is rounded under MPC.
LEARNING_RATE = round(0.1 * 2**10) / 2**10
#: Most iterations of one loop, unless said otherwise: few, so that the checks of a control end soon.
LIMIT = 25

#: Looks at x after a step and leaves the loop when it is good.
_Look = Callable[[Party, Share], Awaitable[None]]
#: Of the loop that this task is in.
_look: ContextVar[_Look] = ContextVar("_look")


class _Good(Exception):  # noqa: N818 - the way out of a loop, not an error
    """The noise is good; carries the answer."""

    def __init__(self, answer: Share) -> None:
        super().__init__()
        self.answer = answer


@contextmanager
def leaky_guard(limit: int = LIMIT, learning_rate: float = LEARNING_RATE) -> Iterator[None]:
    """While open, policy ``siguard`` of this process is the leaky loop, for every configuration.

    limit, learning_rate: of the loop, in place of the configuration's ``inner`` and ``learning_rate``.
    """
    shipped, step = POLICIES["siguard"], optimisation._newton_step

    async def step_and_look(party: Party, x: Share, gradient: Share, label: Share, rates: Sequence[float]) -> Share:
        moved = await step(party, x, gradient, label, rates)
        await _look.get()(party.at("stop"), moved)
        return moved

    async def protect(party: Party, logits: Share, defender: SharedDefender, config: GuardConfig) -> Share:
        loop = config.with_values(outer=1, inner=limit, learning_rate=learning_rate)
        relative = await relative_logits(party.at("relative"), logits)
        # Each row stops when its own noise is good.
        rows = [
            await _while(party.at("row", row), _row_of(relative, row), defender, loop)
            for row in range(logits.shape[0])
        ]
        return Share.concatenate(rows) + relative.label * LABEL_MARGIN

    with replaced(shipped.protect, protect), replaced(step, step_and_look):
        POLICIES["siguard"] = shipped._replace(protect=protect)
        try:
            yield
        finally:
            POLICIES["siguard"] = shipped


async def _while(party: Party, relative: RelativeLogits, defender: SharedDefender, loop: GuardConfig) -> Share:
    """Step until the noise is good, and answer with it; without noise if it never is.  (1, C) at 16 bits."""

    async def look(here: Party, x: Share) -> None:
        candidates = Share.concatenate([relative.x[:, None], x], axis=1)
        E = await exp(here.at("candidates"), candidates)
        ok = await validate(here.at("validate"), E, relative.label, defender)
        if await open_bit(here.at("open"), ok):
            raise _Good(E[:, 1])

    token = _look.set(look)
    try:
        await optimisation.optimise(party.at("optimise"), relative, defender, loop, [Lane(0, 0)])
    except _Good as good:
        return good.answer
    finally:
        _look.reset(token)
    return await exp(party.at("unguarded"), relative.x)


def _row_of(relative: RelativeLogits, row: int) -> RelativeLogits:
    part = slice(row, row + 1)
    return RelativeLogits(relative.label[part], relative.second[part], relative.x[part])


async def open_bit(party: Party, bit: Share) -> bool:
    """Tell all three servers a secret bit: the message that the shipped guard does not have.

    Role i holds x_i and x_{i+1}, and is sent x_{i+2} by role i + 1.
    """
    before, after = (party.role + 2) % 3, (party.role + 1) % 3
    await party.channel.send(before, party.path, bit.depth + 1, bit.second)
    third, _ = await party.channel.receive(after, party.path, bit.ring, bit.shape, bit.depth + 2)
    return bool(bit.ring.add(bit.ring.add(bit.first, bit.second), third).all())
