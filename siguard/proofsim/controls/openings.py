"""Leaks by what is sent: values, conditions and bookkeeping that servers open to each other on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps

import numpy as np

from siguard.actors.session import ServerSession
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.lanes import Lane
from siguard.guard.optimisation import optimise
from siguard.guard.relative import RelativeLogits
from siguard.guard.validation import choose
from siguard.mpc.arithmetic import view
from siguard.mpc.conversion import bit_multiply, select
from siguard.mpc.party import Party
from siguard.mpc.share import Opened, Share
from siguard.proofsim.patching import replaced, replaced_method
from siguard.ring import Ring, RingArray
from siguard.transport.frame import Kind


async def tell_servers(party: Party, x: Share) -> tuple[RingArray, int]:
    """The value of a wire, told to all three servers, and the depth of that."""
    ring = x.ring
    if party.is_dealer:
        masked, depth = await party.channel.receive(0, party.path, ring, x.shape, x.depth + 2)
        return ring.add(x.mask(), masked), max(x.depth, depth)
    theirs, depth = await party.exchange(x.mask_part(), ring, x.depth)
    if party.role == 0:
        await party.channel.send(2, party.path, x.depth + 1, x.masked())
    return ring.add(ring.add(x.mask_part(), theirs), x.masked()), depth


def _at_depth(share: Share, depth: int) -> Share:
    share.depth = max(share.depth, depth)
    return share


@contextmanager
def condition_opened() -> Iterator[None]:
    """A secret bit is opened to the servers, which then take the branch in the clear."""

    @wraps(bit_multiply)
    async def multiplied(party: Party, bit: Share, y: Share) -> Share:
        taken, depth = await tell_servers(party.at("condition"), bit)
        return _at_depth(y * taken, depth)

    @wraps(select)
    async def selected(party: Party, bit: Share, x: Share, y: Share) -> Share:
        taken, depth = await tell_servers(party.at("condition"), bit)
        return _at_depth(y + (x - y) * taken, depth)

    with replaced(bit_multiply, multiplied), replaced(select, selected):
        yield


@contextmanager
def acceptance_opened() -> Iterator[None]:
    """c3 and the learning rate follow the accept bits in the clear, as in the published loop."""

    @wraps(choose)
    async def leaky(party: Party, ok: Share, lanes: Sequence[Lane], outer: int) -> Share:
        accepted, depth = await tell_servers(party.at("accepted"), ok)
        chosen = np.zeros(accepted.shape, np.uint8)
        index = {(lane.run, lane.accepted): position for position, lane in enumerate(lanes)}
        for row, bits in enumerate(accepted):
            taken: list[int] = []
            for run in range(outer):
                lane = index[run, len(taken)]
                if bits[lane]:
                    taken.append(lane)
            chosen[row, taken[-1:]] = 1
        return _at_depth(ok * 0 + chosen, depth)

    with replaced(choose, leaky):
        yield


@contextmanager
def noise_revealed() -> Iterator[None]:
    """The servers are told the noise of every run."""
    shipped = optimise

    @wraps(shipped)
    async def leaky(
        party: Party, relative: RelativeLogits, defender: SharedDefender, config: GuardConfig, lanes: Sequence[Lane]
    ) -> Share:
        x = await shipped(party, relative, defender, config, lanes)
        await tell_servers(party.at("noise"), x - relative.x[:, None].broadcast(*x.shape))
        return x

    with replaced(optimise, leaky):
        yield


@contextmanager
def wraps_opened() -> Iterator[None]:
    """With a truncated view the dealer sends the top bit of its mask, by which a wrap can be told."""
    shipped = view

    @wraps(shipped)
    async def leaky(party: Party, opened: Opened, shift: int = 0, ring: Ring | None = None) -> Share:
        result = await shipped(party, opened, shift, ring)
        if shift:
            path = party.at("wrap").path
            if party.is_dealer:
                top = opened.ring.shift_right(opened.value, opened.ring.bits - 1)
                for role in (0, 1):
                    await party.channel.send(role, path, opened.depth + 1, top)
            else:
                await party.channel.receive(2, path, opened.ring, opened.shape, opened.depth)
        return result

    with replaced(view, leaky):
        yield


@contextmanager
def answer_sent_to_a_server() -> Iterator[None]:
    """Both parts of the answer go to the dealer too."""
    shipped = ServerSession.send_answer

    async def leaky(self: ServerSession, path: str, depth: int, payload: RingArray) -> None:
        await shipped(self, path, depth, payload)
        await self.outbox.send(self.roles[2], Kind.DATA, path, depth, payload)

    with replaced_method(ServerSession, "send_answer", leaky):
        yield
