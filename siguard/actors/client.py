"""Parties outside the servers: the model owner, the user, and the test role upstream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import trio
from nacl.signing import SigningKey

from siguard.actors.actor import Actor
from siguard.actors.keyring import OWNER
from siguard.actors.ledger import Ledger
from siguard.actors.mailbox import DEFAULT_DEADLINE
from siguard.actors.messages import Ask, Grant, Load, Request, from_payload, grant_bytes
from siguard.actors.prepared import PREPARE, READY
from siguard.actors.server import LOAD_DEALER
from siguard.actors.session import SERVERS, check_payload, client_pair, pair_name, roles_for
from siguard.actors.stock import Prepared, Stock
from siguard.errors import DeadlineError, PartyFailedError, ProtocolError, without_groups
from siguard.guard.config import GuardConfig
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.io import mask_input, open_answer
from siguard.prf import PairwiseRandomness, RandomnessFactory, fresh_key
from siguard.ring import FRACTION_BITS, Z64, Ring, RingArray, decode
from siguard.transport.frame import SESSION_BYTES, Frame, Kind
from siguard.transport.link import Link

#: A user waits this many times a server's deadline for the first part of an answer: a computation may be long, and
#: servers notice a failure and tell within theirs.
_ANSWER_PATIENCE = 20


class Answer(NamedTuple):
    """What the user is sent: confidences up to a factor per row that is a function of them."""

    confidences: npt.NDArray[np.float64]
    depth: int


def confidences_of(answer: RingArray) -> npt.NDArray[np.float64]:
    """The confidences in an opened answer, whose rows carry a factor each: rows sum to 1."""
    scaled = decode(answer, FRACTION_BITS)
    normalised: npt.NDArray[np.float64] = scaled / scaled.sum(axis=1, keepdims=True)
    return normalised


class Client(Actor):
    """A party that shares inputs with the servers, with mask keys of its own with each pair of them."""

    def __init__(
        self,
        name: str,
        links: Mapping[str, Link],
        ledger: Ledger,
        keys: Mapping[str, bytes],
        deadline: float = DEFAULT_DEADLINE,
        randomness: RandomnessFactory = PairwiseRandomness,
    ) -> None:
        super().__init__(name, links, ledger, deadline * _ANSWER_PATIENCE)
        self._keys = dict(keys)
        self._randomness = randomness
        self._stock = Stock()
        #: Told of a prepared session that will not be used.
        self.on_dropped: Callable[[bytes], None] = lambda session: None

    async def send_input(self, session: bytes, dealer: str, opening: RingArray, value: RingArray) -> None:
        """Open the session at every server, and send x1 of a fresh sharing to roles 0 and 1."""
        roles = roles_for(dealer)
        randomness = self._randomness(self._keys, session, dealer, self.name)

        def draw(pair: tuple[int, int], ring: Ring, shape: tuple[int, ...]) -> RingArray:
            name = client_pair(self.name, pair_name(roles[pair[0]], roles[pair[1]]))
            return randomness.draw(name, "input", "input", ring, shape)

        masked = mask_input(value, Z64, draw)
        await self._open(session, "start", opening)
        for server in roles[:2]:
            await self.outbox(session).send(server, Kind.DATA, "input", 1, masked)

    async def _open(self, session: bytes, step: str, opening: RingArray) -> None:
        for server in SERVERS:
            await self.outbox(session).send(server, Kind.START, step, 1, opening)

    async def receive_answer(self, session: bytes, dealer: str, shape: tuple[int, ...]) -> Answer:
        """Both parts of the answer, added and normalised: rows sum to 1 within 1e-12."""
        frames = await self._both_parts(session, roles_for(dealer)[:2])
        for server, frame in frames.items():
            check_payload(frame, Z64, shape, server, "reveal")
        parts = [frame.payload for frame in frames.values()]
        depth = max(frame.depth for frame in frames.values())
        answer = open_answer((parts[0], parts[1]), Z64)
        scaled = decode(answer, FRACTION_BITS)
        if (scaled < 0).any() or not (scaled.sum(axis=1) > 0).all():
            raise ProtocolError(
                "the two parts of the answer do not add up to confidences: one was changed on its way, or a server "
                "deviates",
                party=self.name,
                session=session.hex(),
                step="reveal",
            )
        return Answer(confidences_of(answer), depth)

    async def _both_parts(self, session: bytes, servers: Sequence[str]) -> dict[str, Frame]:
        """The frames of `reveal` by server; when one is here, the other has a server's deadline, and a fifth.

        So that a server that waits for another one at its last step says so before it is blamed itself.
        """
        mailbox = self.mailbox(session)
        frames: dict[str, Frame] = {}

        async def take(server: str) -> None:
            frames[server] = await mailbox.take(server, "reveal")
            nursery.cancel_scope.deadline = trio.current_time() + 1.2 * self.deadline / _ANSWER_PATIENCE

        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(take, server)
        missing = [server for server in servers if server not in frames]
        if missing:
            raise DeadlineError(
                f"{self.name} has one part of the answer, and the other did not come",
                party=missing[0],
                session=session.hex(),
                step="reveal",
            )
        return frames

    async def ask(
        self, session: bytes, request: Request, value: RingArray | None, shape: tuple[int, ...]
    ) -> Answer:
        """The user's side of one call: share the input (None where upstream does), wait for the answer."""
        answer: Answer | None = None

        async def body() -> None:
            nonlocal answer
            if value is not None:
                await self.send_input(session, request.dealer, request.encode(), value)
            answer = await self.receive_answer(session, request.dealer, shape)

        error = await self.within_session(session, SERVERS, body)
        if error is not None:
            raise error
        assert answer is not None  # noqa: S101 - a session without error has one
        return answer

    # Ahead of a query --------------------------------------------------------------------------------------

    async def prepare(self, requests: Mapping[bytes, Request]) -> None:
        """Open sessions whose queries come later, all or none; returns when every server is ready for them.

        requests: by fresh session ids; their order is the order of use.
        """
        try:
            with without_groups():
                await side_by_side(*(partial(self._prepare, *item) for item in requests.items()))
        except BaseException:
            for session in requests:
                self.drop_prepared(session)
            raise
        for session, request in requests.items():
            if session in self._mailboxes:
                self._stock.put(session, request)

    async def _prepare(self, session: bytes, request: Request) -> None:
        *others, dealer = roles_for(request.dealer)

        async def body() -> None:
            await self._open(session, PREPARE, request.encode())
            mailbox = self.mailbox(session)
            for server in others:
                mailbox.deadline = self.deadline / _ANSWER_PATIENCE
                await mailbox.take(server, READY)
            mailbox.deadline = self.deadline
            await mailbox.take(dealer, READY)

        error = await self.within_session(session, SERVERS, body, keep=True)
        if error is not None:
            raise error
        self.mailbox(session).unattended = partial(self._dropped, session)

    def take_prepared(self, request: Request) -> Prepared | None:
        """The session to use for a request like this one, whoever deals, or None; the caller asks in it at once."""
        for session in self._stock.too_old():
            self.drop_prepared(session)
        prepared = self._stock.take(request)
        if prepared is not None:
            self.mailbox(prepared.session).unattended = None
        return prepared

    def drop_prepared(self, session: bytes) -> None:
        """End a prepared session at all servers; harmless for one that has ended."""
        if session in self._mailboxes:
            left = PartyFailedError(f"{self.name} dropped a prepared session", party=self.name)
            self._mailboxes[session].fail(left)

    def _dropped(self, session: bytes) -> None:
        """A prepared session has failed; unless somebody said so, the servers are told."""
        mailbox = self._mailboxes[session]
        mailbox.unattended = None
        self._stock.remove(session)
        self.on_dropped(session)
        if mailbox.told or self.nursery is None or mailbox.failure is None:
            self._forget(session)
        else:
            self.nursery.start_soon(self._give_up, session, SERVERS, mailbox.failure)

    async def inquire(self, server: str, what: str, about: bytes = b"") -> Any:
        """A server's answer to a public question (`siguard.actors.inquiries`), as plain values."""
        session = fresh_key(None)[:SESSION_BYTES]
        self._expect_no_computation(session)
        reply: Any = None

        async def body() -> None:
            nonlocal reply
            await self.outbox(session).send(server, Kind.ASK, "ask", 0, Ask(what, about).encode())
            reply = from_payload((await self.mailbox(session).take(server, "reply")).payload)

        error = await self.within_session(session, [server], body)
        self.ledger.take(session)
        if error is not None:
            raise error
        return reply

    def _expect_no_computation(self, session: bytes) -> None:
        """Wait no longer than a server does: nobody computes in this session, and no server tells of another."""
        self.mailbox(session).deadline = self.deadline / _ANSWER_PATIENCE

    async def submit(self, session: bytes, request: Request, value: RingArray) -> None:
        """The test role upstream: share logits for a session whose answer goes to the user."""
        error = await self.within_session(
            session, SERVERS, partial(self.send_input, session, request.dealer, request.encode(), value)
        )
        if error is not None:
            raise error


class ModelOwner(Client):
    """Shares the target model and the membership classifier, and signs what servers may run with them."""

    def __init__(
        self,
        links: Mapping[str, Link],
        ledger: Ledger,
        keys: Mapping[str, bytes],
        signing_key: SigningKey,
        deadline: float = DEFAULT_DEADLINE,
        randomness: RandomnessFactory = PairwiseRandomness,
        name: str = OWNER,
    ) -> None:
        super().__init__(name, links, ledger, keys, deadline, randomness)
        self._signing_key = signing_key

    @property
    def public_key(self) -> bytes:
        """What its signatures are checked with (Ed25519)."""
        return bytes(self._signing_key.verify_key)

    async def grant(self, session: bytes, defender: bytes, model: bytes, config: GuardConfig) -> None:
        """Sign a configuration for a classifier and a model (empty: logits from upstream), and tell the servers."""
        statement = grant_bytes(defender, model, config)
        signed = Grant(statement, self._signing_key.sign(statement).signature)

        async def body() -> None:
            outbox = self.outbox(session)
            for server in SERVERS:
                await outbox.send(server, Kind.GRANT, "grant", 0, signed.encode())
            await self._all_done(session)

        await self._raise(session, body)

    async def share_network(self, session: bytes, load: Load, arrays: tuple[RingArray, ...]) -> None:
        """Share fixed-point weights with the servers; returns when all three hold them."""
        flat = np.concatenate([array.reshape(-1) for array in arrays])

        async def body() -> None:
            await self.send_input(session, LOAD_DEALER, load.encode(), flat)
            await self._all_done(session)

        await self._raise(session, body)

    async def _all_done(self, session: bytes) -> None:
        for server in SERVERS:
            await self.mailbox(session).take(server, "done")

    async def _raise(self, session: bytes, body: Callable[[], Awaitable[None]]) -> None:
        self._expect_no_computation(session)
        error = await self.within_session(session, SERVERS, body)
        if error is not None:
            raise error
