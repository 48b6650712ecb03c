"""Is there somebody at the other end of a link, and how far away?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from siguard.prf import fresh_key
from siguard.ring import Z64
from siguard.transport.frame import SESSION_BYTES, Frame, Kind, encode_frame, step_digest

if TYPE_CHECKING:
    from siguard.actors.actor import Actor


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


def pong(session: bytes) -> bytes:
    """What a party answers a `Kind.PING` with."""
    return encode_frame(Frame(Kind.DATA, session, step_digest("pong"), 0, Z64.zeros(1)))
