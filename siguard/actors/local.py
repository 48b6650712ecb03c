"""Three servers' protocol code over memory links, without actors around it: for tests, benches and proofs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio

from siguard.actors.blas import single_threaded_blas
from siguard.actors.compute import ComputeDoor
from siguard.actors.session import (
    DEFAULT_DEADLINE,
    SERVERS,
    Mailbox,
    Outbox,
    Probe,
    ServerSession,
    pair_name,
    roles_for,
)
from siguard.mpc.party import Party
from siguard.prf import PairwiseRandomness, RandomnessSource, derive_key
from siguard.transport.accountant import Traffic
from siguard.transport.frame import decode_frame
from siguard.transport.link import Link, LinkClosedError
from siguard.transport.memory import memory_link_pair

Protocol = Callable[[Party], Awaitable[Any]]


@dataclass
class LocalRun:
    """What three parties returned, by role, and what they sent."""

    results: list[Any] = field(default_factory=lambda: [None, None, None])
    traffic: Traffic = field(default_factory=Traffic)


async def run_three(
    protocol: Protocol,
    *,
    seed: int = 0,
    dealer: str = "S2",
    deadline: float = DEFAULT_DEADLINE,
    randomness: Callable[[str], RandomnessSource] | None = None,
    probe: Probe | None = None,
    observe_frame: Callable[[str, str, bytes], None] | None = None,
) -> LocalRun:
    """Run ``protocol(party)`` at three servers and return their results by role.

    randomness: replaces the pairwise streams, per server name (exact tests).
    observe_frame: called with (sender, receiver, bytes) of every frame.
    """
    run = LocalRun()
    session = derive_key(seed.to_bytes(32, "little"), "session")[:16]
    roles = roles_for(dealer)
    links: dict[str, dict[str, Link]] = {name: {} for name in SERVERS}
    for i, one in enumerate(SERVERS):
        for other in SERVERS[i + 1 :]:
            links[one][other], links[other][one] = memory_link_pair(one, other)
    door = ComputeDoor()
    mailboxes = {name: Mailbox(session, name, deadline) for name in SERVERS}

    def source(name: str) -> RandomnessSource:
        if randomness is not None:
            return randomness(name)
        keys = {
            pair: derive_key(seed.to_bytes(32, "little"), "pair", pair)
            for pair in (pair_name(name, other) for other in SERVERS if other != name)
        }
        return PairwiseRandomness(keys, session, dealer, name)

    async def pump(receiver: str, sender: str) -> None:
        with suppress(LinkClosedError):
            while True:
                data = await links[receiver][sender].receive()
                if observe_frame is not None:
                    observe_frame(sender, receiver, data)
                mailboxes[receiver].deliver(sender, decode_frame(data))

    async def serve(name: str) -> None:
        outbox = Outbox(mailboxes[name], links[name], run.traffic)
        channel = ServerSession(mailboxes[name], outbox, roles, source(name), door, probe)
        role = roles.index(name)
        with mailboxes[name].scope:
            run.results[role] = await protocol(Party(role, channel))
        failure = mailboxes[name].failure
        if failure is not None:
            raise failure

    with single_threaded_blas():
        async with trio.open_nursery() as pumps:
            for name in SERVERS:
                for other in links[name]:
                    pumps.start_soon(pump, name, other)
            async with trio.open_nursery() as servers:
                for name in SERVERS:
                    servers.start_soon(serve, name)
            pumps.cancel_scope.cancel()
    return run
