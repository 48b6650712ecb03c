"""One of the three servers: holds shares of networks, serves guarded sessions, reveals to the user."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import trio
from nacl.signing import VerifyKey

from siguard.actors.actor import Actor
from siguard.actors.compute import ComputeDoor
from siguard.actors.holdings import Holdings
from siguard.actors.inquiries import reply_to
from siguard.actors.ledger import Ledger
from siguard.actors.limits import check_memory
from siguard.actors.mailbox import DEFAULT_DEADLINE
from siguard.actors.messages import Ask, Grant, Load, Request, to_payload
from siguard.actors.naming import client_of
from siguard.actors.ping import ping
from siguard.actors.session import SERVERS, Probe, ServerSession, client_pair, pair_name, roles_for
from siguard.errors import InputError, PartyFailedError, PolicyError, ProtocolError, SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.query import answer_query
from siguard.mpc.io import receive_input
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.nn.shared import SharedModel
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.ring import Z64
from siguard.transport.frame import Frame, Kind
from siguard.transport.link import Link

OWNER, USER, UPSTREAM = "owner", "user", "upstream"
#: Of frames that a client sends before their request: so many, each of so many bytes at most, are kept.
_EARLY_FRAMES, _EARLY_BYTES = 16, 1 << 20
#: Ended sessions in which this server dealt, and that are remembered for as long as the others may run.
_DEALT = 4096
#: Sessions that clients gave up before they began here, and that are remembered.
_GIVEN_UP = 1024
#: Seconds that another server has to answer when somebody asks how the links are.
_PING_SECONDS = 2.0
#: The dealer of a session in which a network is shared; the sharing is symmetric, so it matters to nobody.
LOAD_DEALER = "S2"


class Server(Actor):
    """Holds pair keys with the other servers and with each client, and shares; never a secret in the clear."""

    def __init__(
        self,
        name: str,
        links: Mapping[str, Link],
        ledger: Ledger,
        keys: Mapping[str, bytes],
        owner_key: VerifyKey,
        *,
        deadline: float = DEFAULT_DEADLINE,
        probes: Mapping[bytes, Probe] | None = None,
        randomness: RandomnessFactory = PairwiseRandomness,
        users: Iterable[str] = (USER,),
        most_sessions: int | None = None,
        state: Path | None = None,
    ) -> None:
        super().__init__(name, links, ledger, deadline)
        self._keys = dict(keys)
        self._users = frozenset(users)
        self._most_sessions = most_sessions
        #: Why there is no link to another server, where somebody knows (`siguard.deploy`).
        self.problems: Mapping[str, str] = {}
        self._draining = False
        self._idle = trio.Event()
        self._holdings = Holdings(name, owner_key, state)
        self._randomness = randomness
        self._door = ComputeDoor()
        self._probes = probes if probes is not None else {}
        self._serving: dict[bytes, Kind] = {}
        self._dealt: dict[bytes, tuple[str, str, float]] = {}
        self._given_up: OrderedDict[bytes, None] = OrderedDict()

    def networks(self, defender: bytes, model: bytes) -> tuple[SharedDefender, SharedModel | None]:
        """This server's shares of networks by name; KeyError where there is none, None for no model."""
        return self._holdings.networks(defender, model)

    def learn_keys(self, keys: Mapping[str, bytes]) -> None:
        """Pair keys of a new epoch, agreed while a link was made: sessions that begin now use them."""
        self._keys.update(keys)

    def forget_client(self, client: str) -> None:
        """Drop the keys shared with a client that has left."""
        for pair in _own_pairs(self.name):
            self._keys.pop(client_pair(client, pair), None)

    @property
    def has_clients(self) -> bool:
        """Whether a user's or the owner's process is linked."""
        return any(self._kind_of(peer) is not None for peer in self._links)

    async def drain(self) -> None:
        """Take no more requests, and return when those that run have ended."""
        self._draining = True
        while self._serving:
            await self._idle.wait()

    # What it tells (`siguard.actors.inquiries`) -------------------------------------------------------------

    def offers(self) -> list[dict[str, Any]]:
        """What a user may ask for."""
        return self._holdings.offers()

    def traffic(self, session: bytes) -> list[list[list[Any]]]:
        """What this server sent in an ended session, told once (`siguard.transport.accountant.Traffic`)."""
        return self.ledger.take(session).to_plain()

    async def status(self) -> dict[str, Any]:
        """Which servers answer it, and in how many seconds; and how busy it is."""
        pings: dict[str, float] = {}

        async def probe(server: str) -> None:
            with suppress(SiguardError), trio.move_on_after(_PING_SECONDS):
                pings[server] = await ping(self, server)

        async with trio.open_nursery() as nursery:
            for server in SERVERS:
                if server in self._links:
                    nursery.start_soon(probe, server)
        return {
            "party": self.name,
            "links": pings,
            "problems": dict(self.problems),
            "sessions": sum(kind is not Kind.ASK for kind in self._serving.values()),
            "draining": self._draining,
            "networks": len(self._holdings),
        }

    # Requests ---------------------------------------------------------------------------------------------

    def _kind_of(self, peer: str) -> str | None:
        """`OWNER`, `USER` or `UPSTREAM`; None for a server."""
        client = client_of(peer)
        if client in self._users:
            return USER
        return client if client in (OWNER, UPSTREAM) else None

    def _on_start(self, peer: str, frame: Frame) -> None:
        assert self.nursery is not None  # noqa: S101 - frames arrive only while the actor runs
        if self._kind_of(peer) is None:
            # Nothing waits for it, and an answer would only feed a confused peer.
            self._log.warning("a server sent a request", peer=peer)
        elif frame.session in self._serving:
            error: SiguardError = ProtocolError(
                f"{peer} opened one session twice", party=peer, session=frame.session.hex()
            )
            self.mailbox(frame.session).fail(error)
        else:
            refusal = self._refusal(frame)
            if not self._serving:
                self._idle = trio.Event()
            # One that is refused counts as little as a question.
            self._serving[frame.session] = frame.kind if refusal is None else Kind.ASK
            self.nursery.start_soon(self._serve, peer, frame, refusal)

    def _dispatch(self, peer: str, frame: Frame) -> None:
        # A client's request comes before its other frames; of those without one only a little is kept.
        if frame.session in self._given_up:
            return
        if self._kind_of(peer) is not None and frame.kind is Kind.DATA and frame.session not in self._serving:
            early = sum(mailbox.members is None and mailbox.needs(peer) for mailbox in self._mailboxes.values())
            if early >= _EARLY_FRAMES or frame.size > _EARLY_BYTES:
                return
        super()._dispatch(peer, frame)

    def _on_abort(self, peer: str, session: bytes, error: SiguardError) -> None:
        is_client = self._kind_of(peer) is not None
        if session in self._serving:
            if not is_client or self.mailbox(session).needs(peer):
                super()._on_abort(peer, session, error)
        elif not is_client:
            # Its request is not here yet, or never comes: either way it will not be served.
            self._forget(session)
        else:
            # The same; but apart, so that a client cannot make this server forget which sessions it has served.
            self._mailboxes.pop(session, None)
            self._given_up[session] = None
            while len(self._given_up) > _GIVEN_UP:
                self._given_up.popitem(last=False)

    def _refusal(self, frame: Frame) -> PartyFailedError | None:
        """Why a request is not served, or would wait for its turn without end."""
        if frame.kind is Kind.ASK:
            return None
        reason = ""
        if self._draining:
            reason = f"{self.name} is shutting down and takes no more requests"
        busy = sum(kind is Kind.START for kind in self._serving.values())
        if self._most_sessions is not None and busy >= self._most_sessions and frame.kind is Kind.START:
            reason = f"{self.name} already serves {busy} sessions at once; ask again later"
        return PartyFailedError(reason, party=self.name, session=frame.session.hex()) if reason else None

    async def _serve(self, peer: str, frame: Frame, refusal: PartyFailedError | None) -> None:
        serve, tell = self._serve_query, self._members_with(peer)
        if frame.kind is Kind.ASK:
            serve, tell = self._serve_ask, [peer]
        elif self._kind_of(peer) == OWNER:
            serve = self._serve_owner
        try:
            if refusal is not None:
                await self._give_up(frame.session, tell, refusal)
            else:
                await self.within_session(frame.session, tell, partial(serve, peer, frame))
        finally:
            del self._serving[frame.session]
            if frame.kind is Kind.ASK:
                # Nobody asks for its traffic, and no mask was drawn in it.
                self.ledger.take(frame.session)
                self._ended.pop(frame.session, None)
            if not self._serving:
                self._idle.set()

    def _members_with(self, client: str) -> list[str]:
        """Whom a session of this client needs beside this server."""
        others = [name for name in SERVERS if name != self.name]
        return [*others, *{client, self._receiver_of(client)}]

    def _receiver_of(self, peer: str) -> str:
        """Who is given the answer: the one who asked, or the one user beside upstream."""
        return USER if self._kind_of(peer) == UPSTREAM else peer

    async def _serve_ask(self, peer: str, frame: Frame) -> None:
        reply = await reply_to(Ask.decode(frame.payload), self)
        await self.outbox(frame.session).send(peer, Kind.DATA, "reply", 0, to_payload(reply))

    async def _serve_query(self, peer: str, frame: Frame) -> None:
        request = Request.decode(frame.payload)
        config, defender, model = self._admit(peer, request)
        channel = self._channel(frame.session, request.dealer, client=peer)
        party = Party(channel.roles.index(self.name), channel)
        await answer_query(party, (request.batch, request.width), model, defender, config, frame.depth)
        if party.is_dealer:
            self._note_dealt(frame.session, channel.roles[0], peer)

    def _note_dealt(self, session: bytes, role_0: str, client: str) -> None:
        """Remember whom this server shared a key with in a session that the others may only begin."""
        self._dealt[session] = (role_0, client, trio.current_time())
        oldest = next(iter(self._dealt))
        if len(self._dealt) > _DEALT or trio.current_time() - self._dealt[oldest][2] > 2 * self.deadline:
            del self._dealt[oldest]

    def _fail_sessions_with(self, peer: str, kind: type[SiguardError], reason: str) -> None:
        """A lost link also ends what this server has dealt already, as keys last no longer than connections.

        The dealer and role 0 send each other nothing, so that role 0 could begin with the key of the next
        connection what was dealt with that of the last one.  This is told before there is a next one.
        """
        super()._fail_sessions_with(peer, kind, reason)
        for session, (role_0, client, ended) in list(self._dealt.items()):
            if role_0 == peer and self.nursery is not None:
                del self._dealt[session]
                if trio.current_time() - ended <= 2 * self.deadline:
                    error = kind(reason, party=peer, session=session.hex())
                    self.nursery.start_soon(self._give_up, session, self._members_with(client), error)

    async def _give_up(self, session: bytes, tell: Iterable[str], error: SiguardError) -> None:
        """End at the others a session that does not run here."""
        await self._tell(session, tell, error)
        self._forget(session)

    def _admit(self, peer: str, request: Request) -> tuple[GuardConfig, SharedDefender, SharedModel | None]:
        """Check a request against what the owner shared and signed; raises before anything is computed."""
        try:
            config = GuardConfig(**request.config)
        except (TypeError, InputError) as error:
            raise InputError(f"the request's configuration is not valid: {error}") from None
        expected = "query" if self._kind_of(peer) == USER else "guard"
        # Only upstream may share logits: a user without a model would choose them.
        if request.kind != expected or bool(request.model) != (expected == "query"):
            raise ProtocolError(f"{peer} sent a {request.kind!r} request that it may not send", party=peer)
        if request.dealer not in SERVERS or request.batch < 1:
            raise ProtocolError(f"{peer} asked for dealer {request.dealer!r}, batch {request.batch}", party=peer)
        if not self._holdings.allows(request.defender, request.model, config):
            raise PolicyError(
                f"the model owner has not signed policy {config.policy!r} with these parameters; "
                "ask for one of the signed configurations"
            )
        try:
            defender, model = self._holdings.networks(request.defender, request.model)
        except KeyError:
            raise InputError(
                "the request names a network that the model owner has not shared", party=peer
            ) from None
        if model is not None and model.shape[-1] != defender.classes:
            raise InputError(f"the model gives {model.shape[-1]} classes, the classifier takes {defender.classes}")
        width = model.shape[0] if model is not None else defender.classes
        if request.width != width:
            raise InputError(f"the request has {request.width} columns; expected {width}", party=peer)
        check_memory(request.batch, model.shape if model else None, defender.shape, config)
        return config, defender, model

    def _channel(self, session: bytes, dealer: str, client: str) -> ServerSession:
        pairs = _own_pairs(self.name)
        names = [*pairs, *(client_pair(client, pair) for pair in pairs)]
        randomness = self._randomness({name: self._keys[name] for name in names}, session, dealer, self.name)
        return ServerSession(
            self.mailbox(session),
            self.outbox(session),
            roles_for(dealer),
            randomness,
            self._door,
            self._probes.get(session),
            client=client,
            receiver=self._receiver_of(client),
        )

    # The owner --------------------------------------------------------------------------------------------

    async def _serve_owner(self, peer: str, frame: Frame) -> None:
        if frame.kind is Kind.GRANT:
            self._holdings.accept_grant(Grant.decode(frame.payload))
        else:
            await self._accept_network(peer, frame)
        await self.outbox(frame.session).send(peer, Kind.DATA, "done", frame.depth, Z64.zeros(1))

    async def _accept_network(self, peer: str, frame: Frame) -> None:
        load = Load.decode(frame.payload)
        channel = self._channel(frame.session, LOAD_DEALER, client=peer)
        role = channel.roles.index(self.name)
        sizes = [math.prod(shape) for shape in load.shapes]
        weights = await receive_input(Party(role, channel).at("input"), Z64, (sum(sizes),), 0)
        arrays: list[Share] = []
        start = 0
        for size, shape in zip(sizes, load.shapes, strict=True):
            arrays.append(_as_long_lived(weights[start : start + size].reshape(*shape)))
            start += size
        if self._holdings.is_kept:
            await trio.to_thread.run_sync(self._holdings.accept_network, load, arrays)
        else:
            self._holdings.accept_network(load, arrays)


def _as_long_lived(share: Share) -> Share:
    """A copy with depth 0: sharing a network is set-up, not part of a call."""
    copy = share.map(np.ascontiguousarray)
    copy.depth = 0
    return copy


def server_keys(name: str) -> list[str]:
    """The names of the pair keys that a server holds: with each server, and with each client and one server."""
    pairs = _own_pairs(name)
    return pairs + [client_pair(client, pair) for client in (OWNER, USER, UPSTREAM) for pair in pairs]


def client_keys(client: str) -> list[str]:
    """The names of the pair keys that a client holds: one with each pair of servers."""
    pairs = [pair_name(one, other) for i, one in enumerate(SERVERS) for other in SERVERS[i + 1 :]]
    return [client_pair(client, pair) for pair in pairs]


def _own_pairs(name: str) -> list[str]:
    """The pairs of servers that a server belongs to."""
    return [pair_name(name, other) for other in SERVERS if other != name]
