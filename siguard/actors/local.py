"""Three servers' protocol code over memory links, without actors around it: for tests, benches and proofs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import trio

from siguard.actors.blas import single_threaded_blas
from siguard.actors.compute import ComputeDoor
from siguard.actors.mailbox import DEFAULT_DEADLINE, Mailbox
from siguard.actors.session import SERVERS, Outbox, Probe, ServerSession, client_pair, pair_name, roles_for
from siguard.mpc.io import mask_input, open_answer
from siguard.mpc.party import Party
from siguard.prf import PairwiseRandomness, RandomnessFactory, RandomnessSource, derive_key
from siguard.ring import Ring, RingArray
from siguard.transport.accountant import Traffic
from siguard.transport.frame import SESSION_BYTES, Kind, decode_frame
from siguard.transport.link import Link, LinkClosedError
from siguard.transport.memory import memory_link_pair

Protocol = Callable[[Party], Awaitable[Any]]

_USER = "user"


@dataclass
class LocalRun:
    """What three parties returned, by role, what the client did, and what all of them sent."""

    results: list[Any] = field(default_factory=lambda: [None, None, None])
    answer: Any = None
    traffic: Traffic = field(default_factory=Traffic)


class LocalUser:
    """The owner of an input and receiver of an answer, beside `run_three`."""

    def __init__(self, mailbox: Mailbox, outbox: Outbox, source: RandomnessSource, roles: tuple[str, ...]) -> None:
        self._mailbox = mailbox
        self._outbox = outbox
        self._source = source
        self._roles = roles

    async def share(self, value: RingArray, ring: Ring, path: str = "input") -> None:
        """Send an input that the servers take with `siguard.mpc.io.receive_input` at this step."""

        def draw(pair: tuple[int, int], ring: Ring, shape: tuple[int, ...]) -> RingArray:
            name = client_pair(_USER, pair_name(self._roles[pair[0]], self._roles[pair[1]]))
            return self._source.draw(name, "input", path, ring, shape)

        masked = mask_input(value, ring, draw)
        for server in self._roles[:2]:
            await self._outbox.send(server, Kind.DATA, path, 1, masked)

    async def answer(self, ring: Ring, path: str = "reveal") -> RingArray:
        """The value that the servers reveal at this step."""
        first, second = [(await self._mailbox.take(server, path)).payload for server in self._roles[:2]]
        return open_answer((first, second), ring)


async def run_three(
    protocol: Protocol,
    *,
    seed: int = 0,
    dealer: str = "S2",
    deadline: float = DEFAULT_DEADLINE,
    randomness: RandomnessFactory = PairwiseRandomness,
    session: bytes | None = None,
    probe: Probe | None = None,
    observe_frame: Callable[[str, str, bytes], None] | None = None,
    user: Callable[[LocalUser], Awaitable[Any]] | None = None,
) -> LocalRun:
    """Run ``protocol(party)`` at three servers, and ``user`` beside them; results come back by role.

    randomness: makes each party's source of masks; exact tests replace it.
    session: the session id; follows from the seed when left out.
    observe_frame: called with (sender, receiver, bytes) of every frame.
    """
    run = LocalRun()
    session = local_session(seed) if session is None else session
    roles = roles_for(dealer)
    parties = SERVERS if user is None else (*SERVERS, _USER)
    links: dict[str, dict[str, Link]] = {name: {} for name in parties}
    for one, other in combinations(parties, 2):
        links[one][other], links[other][one] = memory_link_pair(one, other)
    door = ComputeDoor()
    mailboxes = {name: Mailbox(session, name, deadline) for name in parties}

    def source(name: str) -> RandomnessSource:
        return randomness(local_keys(seed, name), session, dealer, name)

    async def pump(receiver: str, sender: str) -> None:
        with suppress(LinkClosedError):
            while True:
                data = await links[receiver][sender].receive()
                if observe_frame is not None:
                    observe_frame(sender, receiver, bytes(data))
                mailboxes[receiver].deliver(sender, decode_frame(data))

    async def within(name: str, body: Callable[[Outbox], Awaitable[Any]]) -> Any:
        result = None
        with mailboxes[name].scope:
            result = await body(Outbox(mailboxes[name], links[name], run.traffic))
        failure = mailboxes[name].failure
        if failure is not None:
            raise failure
        return result

    async def serve(role: int) -> None:
        name = roles[role]

        async def body(outbox: Outbox) -> Any:
            channel = ServerSession(mailboxes[name], outbox, roles, source(name), door, probe)
            return await protocol(Party(role, channel))

        run.results[role] = await within(name, body)

    async def use(user: Callable[[LocalUser], Awaitable[Any]]) -> None:
        run.answer = await within(
            _USER, lambda outbox: user(LocalUser(mailboxes[_USER], outbox, source(_USER), roles))
        )

    with single_threaded_blas():
        async with trio.open_nursery() as pumps:
            for name in parties:
                for other in links[name]:
                    pumps.start_soon(pump, name, other)
            async with trio.open_nursery() as running:
                for role in range(3):
                    running.start_soon(serve, role)
                if user is not None:
                    running.start_soon(partial(use, user))
            pumps.cancel_scope.cancel()
    return run


def local_session(seed: int) -> bytes:
    """The session id of a run with this seed."""
    return derive_key(seed.to_bytes(32, "little"), "session")[:SESSION_BYTES]


def local_keys(seed: int, name: str) -> dict[str, bytes]:
    """The pair keys that a party holds in a run with this seed, those with the user included."""
    pairs = [pair_name(*pair) for pair in combinations(SERVERS, 2) if name in (*pair, _USER)]
    names = [*(client_pair(_USER, pair) for pair in pairs), *(() if name == _USER else pairs)]
    return {pair: derive_key(seed.to_bytes(32, "little"), "pair", pair) for pair in names}
