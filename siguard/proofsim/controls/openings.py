"""Leaks by what is sent: values, conditions and bookkeeping that servers open to each other on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

from siguard.actors.session import ServerSession
from siguard.guard.answer import _from_table, choice_table
from siguard.guard.iteration import FirstStep, walk
from siguard.guard.lanes import Lane
from siguard.mpc.arithmetic import remask, view
from siguard.mpc.conversion import bit_multiply, select
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_additive
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
    shipped = _from_table

    @wraps(shipped)
    async def leaky(party: Party, ok: Additive, gains: Share, lanes: Sequence[Lane]) -> Additive:
        bits = await remask(party.at("accepted"), ok)
        accepted, depth = await tell_servers(party.at("told"), bits)
        powers = 1 << np.arange(len(lanes))
        party.observe("pattern", (bits * powers).sum(-1))
        chosen = choice_table(tuple(lanes))[(accepted * powers).sum(axis=-1)]
        return as_additive(_at_depth((gains * chosen[:, :, None]).sum(1), depth))

    with replaced(shipped, leaky):
        yield


@contextmanager
def noise_revealed() -> Iterator[None]:
    """The servers are told the noise of every run."""
    shipped = walk

    @wraps(shipped)
    async def leaky(party: Party, label: Share, first: FirstStep, *rest: Any, **options: Any) -> Share:
        x = await shipped(party, label, first, *rest, **options)
        await tell_servers(party.at("noise"), x - first.x.broadcast(*x.shape))
        return x

    with replaced(shipped, leaky):
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
