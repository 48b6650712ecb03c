"""The leaky guard: a ``while`` loop on shares that opens its stop condition, as a naive port of the published loop.

It exists as a negative control only.  It is the shipped optimisation and the shipped validation with one message
more after each step: all servers learn whether the noise is good by now, and stop.  Nothing outside the harness
refers to it, no configuration can name it, and it stands in for ``siguard`` only while `leaky_guard` is open.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from siguard.guard import iteration
from siguard.guard.answer import LABEL_MARGIN, validated
from siguard.guard.classifier import Classifier
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.iteration import first_step, walk
from siguard.guard.lanes import Lane
from siguard.guard.plan import Plan
from siguard.guard.policy import POLICIES
from siguard.guard.start import Start, start
from siguard.guard.step_ranges import Reach
from siguard.guard.terms import Softmax
from siguard.mpc.arithmetic import remask
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_additive
from siguard.proofsim.patching import replaced

#: The published one.
LEARNING_RATE = 0.1
#: Most iterations of one loop, unless said otherwise: few, so that the checks of a control end soon.
LIMIT = 25
_LANES = [Lane(0, 0)]

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
    shipped, softmax = POLICIES["siguard"], iteration._softmax

    async def look_first(party: Party, arguments: Sequence[Share], label: Share, *how: Any) -> Softmax:
        # With three arguments it is the softmax of an x that has moved.
        if len(arguments) == 3:
            await _look.get()(party.at("stop"), arguments[0])
        return await softmax(party, arguments, label, *how)

    async def protect(
        party: Party, logits: Share, defender: SharedDefender, config: GuardConfig, plan: Plan
    ) -> Additive:
        loop = config.with_values(outer=1, inner=limit, learning_rate=learning_rate)
        begun = await start(party.at("start"), logits, plan)
        # Each row stops when its own noise is good.
        rows = [
            await _while(party.at("row", row), _row_of(begun, row), Classifier(defender, plan), loop.resolved())
            for row in range(logits.shape[0])
        ]
        return as_additive(Share.concatenate(rows) + begun.label * LABEL_MARGIN)

    with replaced(shipped.protect, protect), replaced(softmax, look_first):
        POLICIES["siguard"] = shipped._replace(protect=protect)
        try:
            yield
        finally:
            POLICIES["siguard"] = shipped


async def _while(party: Party, begun: Start, classifier: Classifier, loop: GuardConfig) -> Share:
    """Step until the noise is good, and answer with it; without noise if it never is.  (1, C) at 16 bits."""
    reach = Reach(loop, _LANES)
    first = await first_step(party.at("first"), begun, classifier, reach)

    async def look(here: Party, x: Share) -> None:
        E, terms = await validated(here, first, x, begun.label, classifier, reach)
        if await open_bit(here.at("open"), await remask(here.at("bit"), terms)):
            raise _Good(E[:, 0])

    token = _look.set(look)
    try:
        label = begun.label[:, None]
        x = await walk(party.at("optimise"), label, first, classifier, loop, _LANES, reach)
        await look(party.at("optimise").at("stop"), x)
    except _Good as good:
        return good.answer
    finally:
        _look.reset(token)
    return first.E[:, 0]


def _row_of(begun: Start, row: int) -> Start:
    part = slice(row, row + 1)
    return Start(begun.label[part], begun.x[part], begun.gap[part])


async def open_bit(party: Party, bit: Share) -> bool:
    """Tell all three servers a secret bit: the message that the shipped guard does not have.

    Role i holds x_i and x_{i+1}, and is sent x_{i+2} by role i + 1.
    """
    before, after = (party.role + 2) % 3, (party.role + 1) % 3
    await party.channel.send(before, party.path, bit.depth + 1, bit.second)
    third, _ = await party.channel.receive(after, party.path, bit.ring, bit.shape, bit.depth + 2)
    return bool(bit.ring.add(bit.ring.add(bit.first, bit.second), third).all())
