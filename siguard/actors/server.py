"""One of the three servers: holds shares of networks, serves guarded sessions, reveals to the user."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio
from nacl.signing import VerifyKey

from siguard.actors.actor import Actor
from siguard.actors.admission import admit
from siguard.actors.compute import ComputeDoor
from siguard.actors.dealt import DealtSessions
from siguard.actors.holdings import Holdings
from siguard.actors.inquiries import reply_to
from siguard.actors.keyring import OWNER as OWNER
from siguard.actors.keyring import UPSTREAM as UPSTREAM
from siguard.actors.keyring import USER as USER
from siguard.actors.keyring import client_keys as client_keys
from siguard.actors.keyring import own_pairs
from siguard.actors.keyring import server_keys as server_keys
from siguard.actors.ledger import Ledger
from siguard.actors.limits import most_prepared
from siguard.actors.mailbox import DEFAULT_DEADLINE
from siguard.actors.messages import Ask, Grant, Load, Request, to_payload
from siguard.actors.naming import client_of
from siguard.actors.networks import receive_network
from siguard.actors.ping import ping_all
from siguard.actors.prepared import READY, PreparedSession, PreparedSessions, opens_ahead
from siguard.actors.session import SERVERS, Probe, ServerSession, client_pair, roles_for
from siguard.errors import PartyFailedError, ProtocolError, SiguardError
from siguard.guard.defender import SharedDefender
from siguard.guard.query import answer_query
from siguard.mpc.party import Party
from siguard.nn.shared import SharedModel
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.ring import Z64
from siguard.transport.frame import Frame, Kind
from siguard.transport.link import Link

#: Of frames that a client sends before their request: so many, each of so many bytes at most, are kept.
_EARLY_FRAMES, _EARLY_BYTES = 16, 1 << 20
#: Sessions that clients gave up before they began here, and that are remembered.
_GIVEN_UP = 1024
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
        self._prepared = PreparedSessions(most_prepared(most_sessions))
        self._dealt = DealtSessions(2 * deadline)
        self._given_up: OrderedDict[bytes, None] = OrderedDict()

    def networks(self, defender: bytes, model: bytes) -> tuple[SharedDefender, SharedModel | None]:
        """This server's shares of networks by name; KeyError where there is none, None for no model."""
        return self._holdings.networks(defender, model)

    def learn_keys(self, keys: Mapping[str, bytes]) -> None:
        """Pair keys of a new epoch, agreed while a link was made: sessions that begin now use them."""
        self._keys.update(keys)

    def forget_client(self, client: str) -> None:
        """Drop the keys shared with a client that has left."""
        for pair in own_pairs(self.name):
            self._keys.pop(client_pair(client, pair), None)

    @property
    def has_clients(self) -> bool:
        """Whether a user's or the owner's process is linked."""
        return any(self._kind_of(peer) is not None for peer in self._links)

    async def drain(self) -> None:
        """Take no more requests, drop what is only prepared, and return when the sessions that run have ended."""
        self._draining = True
        self._prepared.drop_all(f"was dropped: {self.name} is shutting down")
        while self._serving:
            await self._idle.wait()

    # What it tells (`siguard.actors.inquiries`) -------------------------------------------------------------

    def offers(self) -> list[dict[str, Any]]:
        """What a user may ask for."""
        return self._holdings.offers()

    def traffic(self, session: bytes) -> list[Any]:
        """What this server sent in an ended session, told once (`siguard.transport.accountant.Traffic`)."""
        return self.ledger.take(session).to_plain()

    async def status(self) -> dict[str, Any]:
        """Which servers answer it, and in how many seconds; and how busy it is."""
        return {
            "party": self.name,
            "links": await ping_all(self, SERVERS),
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
            self._on_second_request(peer, frame)
        else:
            refusal = self._refusal(peer, frame)
            if not self._serving:
                self._idle = trio.Event()
            # One that is refused counts as little as a question.
            self._serving[frame.session] = frame.kind if refusal is None else Kind.ASK
            tell, prepared = self._members_with(peer), None
            if self._opens_ahead(peer, frame):
                tell = [*self._others(), peer]
                if refusal is None:
                    prepared = self._prepared.open(peer, frame, self.mailbox(frame.session), tell)
            self.nursery.start_soon(self._serve, peer, frame, tell, refusal, prepared)

    def _opens_ahead(self, peer: str, frame: Frame) -> bool:
        return opens_ahead(frame) and self._kind_of(peer) in (USER, UPSTREAM)

    def _on_second_request(self, peer: str, frame: Frame) -> None:
        """The query of a prepared session; anything else ends the session, if it is the peer's own."""
        assert self.nursery is not None  # noqa: S101 - frames arrive only while the actor runs
        session, opener = frame.session, self._prepared.client_of(frame.session)
        if opener not in (None, peer):
            error = ProtocolError(f"{peer} has not prepared this session", party=peer, session=session.hex())
            self.nursery.start_soon(self._tell, session, [peer], error)
            return
        try:
            if opener is None or frame.kind is not Kind.START or opens_ahead(frame):
                raise ProtocolError(f"{peer} opened one session twice", party=peer)
            self._prepared.begin(frame, self._receiver_of(peer))
        except ProtocolError as error:
            error.session = session.hex()
            self.mailbox(session).fail(error)

    def _dispatch(self, peer: str, frame: Frame) -> None:
        # A client's request comes before its other frames; of those without one only a little is kept.
        if frame.session in self._given_up:
            return
        if frame.kind is Kind.DATA and frame.session not in self._serving and self._kind_of(peer) is not None:
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

    def _refusal(self, peer: str, frame: Frame) -> PartyFailedError | None:
        """Why a request is not served, or would wait for its turn without end."""
        if frame.kind is Kind.ASK:
            return None
        reason = ""
        if self._draining:
            reason = f"{self.name} is shutting down and takes no more requests"
        busy = sum(kind is Kind.START for kind in self._serving.values())
        if self._most_sessions is not None and busy >= self._most_sessions and frame.kind is Kind.START:
            reason = f"{self.name} already serves {busy} sessions at once; ask again later"
        if not reason and self._opens_ahead(peer, frame) and self._prepared.full:
            reason = f"{self.name} {self._prepared.full}"
        return PartyFailedError(reason, party=self.name, session=frame.session.hex()) if reason else None

    async def _serve(
        self,
        peer: str,
        frame: Frame,
        tell: list[str],
        refusal: PartyFailedError | None,
        prepared: PreparedSession | None,
    ) -> None:
        serve: Callable[[str, Frame], Awaitable[None]] = partial(self._serve_query, prepared)
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
            self._prepared.forget(frame.session)
            if frame.kind is Kind.ASK:
                # Nobody asks for its traffic, and no mask was drawn in it.
                self.ledger.take(frame.session)
                self._ended.pop(frame.session, None)
            if not self._serving:
                self._idle.set()

    def _members_with(self, client: str) -> list[str]:
        """Whom a session of this client needs beside this server."""
        return [*self._others(), *{client, self._receiver_of(client)}]

    def _others(self) -> list[str]:
        return [name for name in SERVERS if name != self.name]

    def _receiver_of(self, peer: str) -> str:
        """Who is given the answer: the one who asked, or the one user beside upstream."""
        return USER if self._kind_of(peer) == UPSTREAM else peer

    async def _serve_ask(self, peer: str, frame: Frame) -> None:
        reply = await reply_to(Ask.decode(frame.payload), self)
        await self.outbox(frame.session).send(peer, Kind.DATA, "reply", 0, to_payload(reply))

    async def _serve_query(self, prepared: PreparedSession | None, peer: str, frame: Frame) -> None:
        request = Request.decode(frame.payload)
        expected = "query" if self._kind_of(peer) == USER else "guard"
        config, plan, defender, model = admit(self._holdings, peer, expected, request)
        channel = self._channel(frame.session, request.dealer, client=peer)
        party = Party(channel.roles.index(self.name), channel)
        shape = (request.batch, request.width)
        protocol = partial(answer_query, party, shape, model, defender, config, plan, frame.depth)
        if prepared is None:
            await protocol()
        else:
            ready = partial(channel.outbox.send, peer, Kind.DATA, READY, 0, Z64.zeros(1))
            await prepared.serve(protocol, party.is_dealer, ready)
        if party.is_dealer:
            self._note_dealt(frame.session, channel.roles[0], peer)

    def _note_dealt(self, session: bytes, role_0: str, client: str) -> None:
        """Remember whom this server shared a key with in a session that the others may only begin."""
        self._dealt.note(session, role_0, client)

    def _fail_sessions_with(self, peer: str, kind: type[SiguardError], reason: str) -> None:
        """A lost link also ends what this server has dealt already, as keys last no longer than connections.

        Role 0 sends the dealer nothing, so that it could begin with the key of the next connection what was dealt
        with that of the last one.  This is told before there is a next one.
        """
        super()._fail_sessions_with(peer, kind, reason)
        if self.nursery is None:
            return
        for session, dealt in self._dealt.take(peer).items():
            error = kind(reason, party=peer, session=session.hex())
            self.nursery.start_soon(self._give_up, session, self._members_with(dealt.client), error)

    def _channel(self, session: bytes, dealer: str, client: str) -> ServerSession:
        pairs = own_pairs(self.name)
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
        arrays = await receive_network(Party(channel.roles.index(self.name), channel), load.shapes)
        if self._holdings.is_kept:
            await trio.to_thread.run_sync(self._holdings.accept_network, load, arrays)
        else:
            self._holdings.accept_network(load, arrays)
