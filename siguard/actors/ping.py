"""Is there somebody at the other end of a link, and how far away?"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from siguard.errors import SiguardError
from siguard.prf import fresh_key
from siguard.ring import Z64
from siguard.transport.frame import SESSION_BYTES, Frame, Kind, encode_frame, step_digest

if TYPE_CHECKING:
    from siguard.actors.actor import Actor

#: Seconds that a peer has to answer when somebody asks how the links are.
_SOON_SECONDS = 2.0


async def ping(actor: Actor, peer: str) -> float:
    """Seconds until a peer's answer; raises `DeadlineError`, or `PartyFailedError` without a link to it."""
    session = fresh_key(None)[:SESSION_BYTES]
    mailbox = actor.mailbox(session)
    mailbox.members = frozenset({peer})
    started = trio.current_time()
    try:
        await actor.outbox(session).send(peer, Kind.PING, "ping", 0, Z64.zeros(1))
        await mailbox.take(peer, "pong")
    finally:
        actor.drop(session)
    return trio.current_time() - started


async def ping_all(actor: Actor, peers: Iterable[str]) -> dict[str, float]:
    """Seconds until the answer of each linked peer that answers soon."""
    seconds: dict[str, float] = {}

    async def probe(peer: str) -> None:
        with suppress(SiguardError), trio.move_on_after(_SOON_SECONDS):
            seconds[peer] = await ping(actor, peer)

    async with trio.open_nursery() as nursery:
        for peer in peers:
            if actor.has_link(peer):
                nursery.start_soon(probe, peer)
    return seconds


def pong(session: bytes) -> bytes:
    """What a party answers a `Kind.PING` with."""
    return encode_frame(Frame(Kind.DATA, session, step_digest("pong"), 0, Z64.zeros(1)))
