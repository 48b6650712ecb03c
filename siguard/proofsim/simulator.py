"""The simulator of a whole view: from public facts, the set's own inputs and outputs, and coins; nothing else.

It is given: the shape of the view (public), requests and grants (public), the user's own input if the user is
corrupted, and for each query the answer that the ideal functionality F(inputs; coins) gives for the coins.  The
corrupted parties run their own code on fresh tapes, and gate by gate the simulators post what honest parties would
send (`siguard.proofsim.simulation`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import trio
import trio.testing

from siguard.actors.messages import Request
from siguard.actors.server import USER, Server
from siguard.actors.session import ServerSession
from siguard.errors import ProtocolError
from siguard.mpc.gate import CLIENT
from siguard.mpc.io import simulate_answer
from siguard.mpc.party import Party
from siguard.prf import KEY_BYTES, PairwiseRandomness, RandomnessSource, derive_key
from siguard.proofsim import stage as stage_module
from siguard.proofsim.bound import BoundCoins, Coins
from siguard.proofsim.calls import answer_parts, begin_call, refuse_failed_sessions, roles_of
from siguard.proofsim.ideal import FreshParts, OwnParts, RecordedParts
from siguard.proofsim.queries import Networks, Query, run_ideal, share_networks
from siguard.proofsim.simulation import CoinsOnly, Uniform, around_gates, simulators_answer, uniform_at
from siguard.proofsim.stage import Stage, open_stage
from siguard.proofsim.view import Message, View, digest_of
from siguard.proofsim.walk import Gate
from siguard.ring import Z64, Ring, RingArray
from siguard.transport.frame import Frame, Kind, encode_frame

#: Frames that say nothing secret: the simulator is given them.
_PUBLIC = (Kind.START, Kind.GRANT)

#: The ideal functionality: (session, role of the corrupted server, its parts, its networks) -> the answer.
Functionality = Callable[[bytes, int, OwnParts, dict[str, Networks] | None], Awaitable[RingArray]]


class _Simulator:
    def __init__(self, view: View, functionality: Functionality, seed: int, coins: Coins | None) -> None:
        self._view = view
        self._bound = None if coins is None else BoundCoins(view, coins, seed)
        self._functionality = functionality
        self._seed = seed
        self._rounds = {(m.session, m.peer, digest_of(m.step)): m.round for m in view.messages if m.received}
        #: What gates gave the corrupted server, by session: its coins.
        self._results: dict[bytes, dict[tuple[str, str], Any]] = {}
        self._revealed: dict[bytes, trio.Event] = {}
        self._answered: set[bytes] = set()

    async def run(self) -> View:
        view = self._view
        tape = self._tape if self._bound is None else self._bound.tape
        async with open_stage(view, tape) as stage:
            with self._simulators(stage):
                for message in view.messages:
                    await self._next(stage, message)
                await stage.until_answered()
                await trio.testing.wait_all_tasks_blocked()
            seen = stage.recorder.view(view.corrupted, owner_key=view.owner_key)
            seen.answers = stage.answers
        return seen

    def _simulators(self, stage: Stage) -> AbstractContextManager[None]:
        """Post what honest parties would send: for coins of the simulator's own, or for given ones."""

        def deliver(channel: ServerSession, sender: str, frame: Frame) -> None:
            stage.give(channel.mailbox.party, sender, encode_frame(frame))

        def honest(client: str) -> bool:
            return client not in self._view.corrupted.parties

        def round_of(session: bytes, sender: str, path: str) -> int:
            return self._rounds.get((session, sender, digest_of(path)), 0)

        def before(gate: Gate, party: Party, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            channel, bound = party.channel, self._bound
            if bound is None or not isinstance(channel, ServerSession):
                return
            received = bound.before(gate, party, arguments)
            if received is not None and (received[0] != CLIENT or honest(channel.client)):
                sender = channel.client if received[0] == CLIENT else channel.roles[received[0]]
                session = channel.mailbox.session
                depth = round_of(session, sender, party.path)
                deliver(channel, sender, Frame(Kind.DATA, session, digest_of(party.path), depth, received[1]))

        if self._bound is not None:
            return around_gates(before, self._note)
        return simulators_answer(self._coins_at, round_of, after=self._note, deliver=deliver, honest_client=honest)

    async def _next(self, stage: Stage, message: Message) -> None:
        if not message.received:
            begin_call(stage, self._view, message)
            await stage.until_sent(message)
        elif message.peer not in self._view.corrupted.parties:
            begin_call(stage, self._view, message)
            if message.kind in _PUBLIC:
                stage.give(message.party, message.peer, message.encode())
            elif message.party == USER and message.session not in self._answered:
                self._answered.add(message.session)
                await self._give_answer(stage, message)
            # Other protocol data come from the simulators of gates.

    async def _give_answer(self, stage: Stage, message: Message) -> None:
        """The honest servers' parts of the answer, as soon as the coins of this session are known."""
        session, server = message.session, self._view.corrupted.server
        parts: OwnParts = FreshParts(self._seed, session)
        role, networks, own = 0, None, None
        if server is not None:
            with trio.move_on_after(stage_module.PATIENCE) as scope:
                await self._revealed.setdefault(session, trio.Event()).wait()
            if scope.cancelled_caught:
                raise ProtocolError(f"{server} does not come to the reveal", party=server, session=session.hex())
            role, parts = self._own_role(session), RecordedParts(self._results[session])
            networks = self._networks(stage, session)
            own = self._own_part(stage, session)
        answer = await self._functionality(session, role, parts, networks)
        pair = simulate_answer(CoinsOnly(self._coins_at(session, "answer", "")), answer, Z64, own)
        for sender, part in zip(roles_of(self._view, session), pair, strict=False):
            if sender != server:
                depth = self._rounds[session, sender, digest_of("reveal")]
                frame = Frame(Kind.DATA, session, digest_of("reveal"), depth, part)
                stage.give(USER, sender, encode_frame(frame))

    # What the simulator knows ----------------------------------------------------------------------------------

    def _request(self, session: bytes) -> Request:
        start = next((m for m in self._view.messages if m.session == session and m.kind == Kind.START), None)
        if start is None:
            raise ProtocolError("the view has no request for this call", session=session.hex())
        return Request.decode(start.array)

    def _own_role(self, session: bytes) -> int:
        assert self._view.corrupted.server is not None  # noqa: S101 - asked only where there is one
        return roles_of(self._view, session).index(self._view.corrupted.server)

    def _own_part(self, stage: Stage, session: bytes) -> tuple[int, RingArray] | None:
        """What the corrupted server itself sent to the user, which came over their own link."""
        role = self._own_role(session)
        sent = [
            event
            for event in stage.recorder.events([self._view.corrupted.parties[0]])
            if isinstance(event, Message)
            and (event.session, event.peer, event.step, event.received) == (session, USER, "reveal", False)
        ]
        return (role, sent[0].array) if sent else None

    def _networks(self, stage: Stage, session: bytes) -> dict[str, Networks]:
        server = self._view.corrupted.server
        assert server is not None  # noqa: S101 - asked only where there is one
        actor = stage.actors[server]
        assert isinstance(actor, Server)  # noqa: S101 - it is one
        request = self._request(session)
        defender, model = actor.networks(request.defender, request.model)
        return {server: Networks(defender, model)}

    def _coins_at(self, session: bytes, gate: str, path: str) -> Uniform:
        key = derive_key(self._seed.to_bytes(KEY_BYTES, "little"), "coins")
        numbers = count()

        def uniform(ring: Ring, shape: tuple[int, ...]) -> RingArray:
            return uniform_at(key, session, gate, path, next(numbers))(ring, shape)

        return uniform

    def _tape(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        """Fresh tapes; two corrupted parties that share a key share its stream."""
        seed_key = self._seed.to_bytes(KEY_BYTES, "little")
        return PairwiseRandomness({n: derive_key(seed_key, "tape", n) for n in keys}, session, dealer, party)

    def _note(self, gate: Gate, party: Party, arguments: tuple[Any, ...], result: Any) -> None:
        channel = party.channel
        if not isinstance(channel, ServerSession) or channel.mailbox.party != self._view.corrupted.server:
            return
        session = channel.mailbox.session
        self._results.setdefault(session, {})[gate.name, party.path] = result
        if gate.name == "io.reveal":
            self._revealed.setdefault(session, trio.Event()).set()


def ideal_answers(queries: Mapping[bytes, Query], dealers: Mapping[bytes, str], seed: int) -> Functionality:
    """F(inputs; coins) for the queries of a view; dealers: whose turn it was in each session."""

    async def functionality(
        session: bytes, role: int, parts: OwnParts, held: dict[str, Networks] | None
    ) -> RingArray:
        query = queries[session]
        networks = share_networks(query, seed, held)
        trusted = await run_ideal(query, networks, role, parts, dealer=dealers[session])
        return trusted.answers["reveal"]

    return functionality


async def simulate(view: View, functionality: Functionality, seed: int, coins: Coins | None = None) -> View:
    """A simulated view with the shape of ``view``.

    coins: the corrupted server's own parts, as the functionality hands them out; when left out the simulator takes
    its own, and ``functionality`` is given them.  Raises `ProtocolError` where the corrupted code gets stuck.
    """
    refuse_failed_sessions(view)
    return await _Simulator(view, functionality, seed, coins).run()


def same_answers(view: View) -> Functionality:
    """Hands out the answers that a view's user was given, as ring elements, whatever the coins."""

    async def functionality(
        session: bytes, role: int, parts: OwnParts, held: dict[str, Networks] | None
    ) -> RingArray:
        first, second = (part.array for part in answer_parts(view, session) if part.received)
        return Z64.add(first, second)

    return functionality
