"""A stage on which only the corrupted parties' own actors play; everybody else is a script.

What honest parties send comes from the script (a recorded view, or simulators); what corrupted parties send each
other goes over real links.  A `Recorder` is stacked on links and randomness, so that a run on the stage gives a
view like any other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from nacl.bindings import crypto_sign_PUBLICKEYBYTES
from nacl.signing import VerifyKey

from siguard.actors.actor import Actor
from siguard.actors.blas import single_threaded_blas
from siguard.actors.client import Client
from siguard.actors.ledger import Ledger
from siguard.actors.messages import Abort, Request, error_from
from siguard.actors.server import OWNER, UPSTREAM, USER, Server, client_keys, server_keys
from siguard.actors.session import SERVERS
from siguard.errors import InputError, ProtocolError, SiguardError
from siguard.prf import KEY_BYTES, RandomnessFactory
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import Message, View, digest_of
from siguard.ring import RingArray
from siguard.transport.frame import Kind, decode_frame
from siguard.transport.link import Link, LinkClosedError
from siguard.transport.memory import memory_link_pair
from siguard.transport.wrapped import WrappedLink

#: Seconds after which a party is taken to miss something: everything is local, nothing is slow.
PATIENCE = 10.0

_Key = tuple[str, str, bytes, bytes, int]


class _ScriptedLink:
    """The end of a link to an honest party: brings what the script gives."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self._give, self._take = trio.open_memory_channel[bytes](1 << 20)

    def give(self, data: bytes) -> None:
        self._give.send_nowait(data)

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        try:
            return await self._take.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkClosedError(f"the script of {self.peer} has ended") from None

    async def aclose(self) -> None:
        self._give.close()
        self._take.close()
        await trio.lowlevel.checkpoint()


class _NotedLink(WrappedLink):
    """Tells the stage what its owner sends."""

    def __init__(self, link: Link, owner: str, sent: Callable[[str, str, bytes], None]) -> None:
        super().__init__(link)
        self._owner = owner
        self._sent = sent

    async def send(self, data: bytes) -> None:
        await self.link.send(data)
        self._sent(self._owner, self.peer, data)


@dataclass
class Stage:
    """The corrupted parties at work; made by `open_stage`.

    answers: what the user computed, by session.  errors: sessions of the user that failed.
    failure: why a corrupted party gave a session up, as it told the others.
    """

    recorder: Recorder
    actors: dict[str, Actor] = field(default_factory=dict)
    answers: dict[bytes, list[list[float]]] = field(default_factory=dict)
    errors: list[SiguardError] = field(default_factory=list)
    failure: SiguardError | None = None
    _scripts: dict[tuple[str, str], _ScriptedLink] = field(default_factory=dict)
    _sent: dict[_Key, trio.Event] = field(default_factory=dict)
    _asking: dict[bytes, trio.Event] = field(default_factory=dict)
    _nursery: trio.Nursery | None = None

    def give(self, party: str, sender: str, data: bytes) -> None:
        """Let a corrupted party receive a frame of an honest one."""
        self._scripts[party, sender].give(data)

    async def until_sent(self, message: Message) -> None:
        """Wait until a corrupted party has sent a frame at this place; raises `ProtocolError` when it does not."""
        key = (message.party, message.peer, message.session, digest_of(message.step), message.kind)
        with trio.move_on_after(PATIENCE) as scope:
            await self._sent.setdefault(key, trio.Event()).wait()
        if self.failure is not None:
            raise self.failure
        if scope.cancelled_caught:
            raise ProtocolError(
                f"{message.party}'s own code does not send this frame to {message.peer}",
                party=message.party,
                session=message.session.hex(),
                step=message.step,
            )

    def ask(self, session: bytes, request: Request, value: RingArray | None, shape: tuple[int, ...]) -> None:
        """The user's side of one call, in the background."""
        assert self._nursery is not None  # noqa: S101 - the stage is open
        user = self.actors[USER]
        assert isinstance(user, Client)  # noqa: S101 - it is made so
        done = self._asking[session] = trio.Event()

        async def call() -> None:
            try:
                answer = await user.ask(session, request, value, shape)
                self.answers[session] = answer.confidences.tolist()
            except SiguardError as error:
                self.errors.append(error)
            done.set()

        self._nursery.start_soon(call)

    async def until_answered(self) -> None:
        """Wait for all calls of the user; raises the first error."""
        with trio.move_on_after(PATIENCE):
            for done in self._asking.values():
                await done.wait()
        if self.failure is not None:
            raise self.failure
        if self.errors:
            raise self.errors[0]
        missing = [session for session, done in self._asking.items() if not done.is_set()]
        if missing:
            raise ProtocolError("the user's own code gives no answer", party=USER, session=missing[0].hex())

    def is_asked(self, session: bytes) -> bool:
        """Whether the user has made this call."""
        return session in self._asking

    def note_sent(self, party: str, peer: str, data: bytes) -> None:
        """A corrupted party has sent a frame."""
        frame = decode_frame(data)
        if frame.kind is Kind.ABORT and self.failure is None:
            # What a party gives up with is the reason for all that does not come.
            self.failure = error_from(Abort.decode(frame.payload), frame.session)
            for event in (*self._sent.values(), *self._asking.values()):
                event.set()
        key = (party, peer, frame.session, frame.step, int(frame.kind))
        self._sent.setdefault(key, trio.Event()).set()


@asynccontextmanager
async def open_stage(view: View, randomness: RandomnessFactory) -> AsyncIterator[Stage]:
    """Put the actors of a view's corrupted set on a stage; ``randomness`` gives their tapes.

    Errors inside leave as they are.  Raises `InputError` for a view of a server without the owner's key.
    """
    corrupted = view.corrupted
    if corrupted.server is not None and len(view.owner_key) != crypto_sign_PUBLICKEYBYTES:
        raise InputError("view: it has no owner's key; pass cluster.owner_key to Recorder.view")
    recorder = Recorder(randomness)
    recorder.steps.learn(message.step for message in view.messages if not message.step.startswith("#"))
    stage = Stage(recorder)
    links: dict[str, dict[str, Link]] = {party: {} for party in corrupted.parties}

    def end(link: Link, owner: str) -> Link:
        return _NotedLink(recorder.wrap_link(link, owner), owner, stage.note_sent)

    for party in corrupted.parties:
        peers = [*SERVERS, USER, OWNER, UPSTREAM] if party in SERVERS else [*SERVERS]
        for peer in peers:
            if peer == party or peer in links[party]:
                continue
            if peer in corrupted.parties:
                ends = memory_link_pair(party, peer)
                links[party][peer], links[peer][party] = end(ends[0], party), end(ends[1], peer)
            else:
                stage._scripts[party, peer] = _ScriptedLink(peer)
                links[party][peer] = end(stage._scripts[party, peer], party)
    # Keys are names here: the tapes do not depend on them.
    ledger = Ledger()
    for party in corrupted.parties:
        if party in SERVERS:
            stage.actors[party] = Server(
                party,
                links[party],
                ledger,
                dict.fromkeys(server_keys(party), bytes(KEY_BYTES)),
                VerifyKey(view.owner_key),
                deadline=PATIENCE,
                randomness=recorder.randomness,
            )
        else:
            keys = dict.fromkeys(client_keys(party), bytes(KEY_BYTES))
            stage.actors[party] = Client(party, links[party], ledger, keys, PATIENCE, recorder.randomness)
    failure: Exception | None = None
    with single_threaded_blas():
        async with trio.open_nursery() as nursery:
            stage._nursery = nursery
            for actor in stage.actors.values():
                await nursery.start(actor.run)
            try:
                yield stage
            except Exception as error:
                failure = error  # raised below: the nursery would wrap it in a group
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
