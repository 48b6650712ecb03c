"""One of the three servers: holds shares of networks, serves guarded sessions, reveals to the user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from siguard.actors.actor import Actor, Ledger
from siguard.actors.compute import ComputeDoor
from siguard.actors.limits import check_memory
from siguard.actors.messages import Grant, Load, Request, grant_bytes
from siguard.actors.session import (
    DEFAULT_DEADLINE,
    SERVERS,
    Probe,
    ServerSession,
    client_pair,
    pair_name,
    roles_for,
)
from siguard.errors import InputError, PolicyError, ProtocolError, SiguardError
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
    ) -> None:
        super().__init__(name, links, ledger, deadline)
        self._keys = dict(keys)
        self._owner_key = owner_key
        self._randomness = randomness
        self._door = ComputeDoor()
        self._probes = probes if probes is not None else {}
        self._defenders: dict[bytes, SharedDefender] = {}
        self._models: dict[bytes, SharedModel] = {}
        self._granted: set[bytes] = set()
        self._serving: set[bytes] = set()

    def networks(self, defender: bytes, model: bytes) -> tuple[SharedDefender, SharedModel | None]:
        """This server's shares of networks by name; KeyError where there is none, None for no model."""
        return self._defenders[defender], self._models[model] if model else None

    # Requests ---------------------------------------------------------------------------------------------

    def _on_start(self, peer: str, frame: Frame) -> None:
        assert self.nursery is not None  # noqa: S101 - frames arrive only while the actor runs
        if peer not in (OWNER, USER, UPSTREAM):
            # Nothing waits for it, and an answer would only feed a confused peer.
            self._log.warning("a server sent a request", peer=peer)
        elif frame.session in self._serving:
            error = ProtocolError(f"{peer} opened one session twice", party=peer, session=frame.session.hex())
            self.mailbox(frame.session).fail(error)
        else:
            self._serving.add(frame.session)
            self.nursery.start_soon(self._serve, peer, frame)

    def _on_abort(self, session: bytes, error: SiguardError) -> None:
        if session in self._serving:
            super()._on_abort(session, error)
        else:
            # Its request is not here yet, or never comes: either way it will not be served.
            self._forget(session)

    async def _serve(self, peer: str, frame: Frame) -> None:
        handlers = {OWNER: self._serve_owner, USER: self._serve_query, UPSTREAM: self._serve_query}
        others = [name for name in SERVERS if name != self.name]
        clients = {OWNER: [OWNER], USER: [USER], UPSTREAM: [UPSTREAM, USER]}
        tell = [*others, *clients[peer]]
        try:
            await self.within_session(frame.session, tell, partial(handlers[peer], peer, frame))
        finally:
            self._serving.discard(frame.session)

    async def _serve_query(self, peer: str, frame: Frame) -> None:
        request = Request.decode(frame.payload)
        config, defender, model = self._admit(peer, request)
        channel = self._channel(frame.session, request.dealer, client=peer)
        party = Party(channel.roles.index(self.name), channel)
        await answer_query(party, (request.batch, request.width), model, defender, config, frame.depth)

    def _admit(self, peer: str, request: Request) -> tuple[GuardConfig, SharedDefender, SharedModel | None]:
        """Check a request against what the owner shared and signed; raises before anything is computed."""
        try:
            config = GuardConfig(**request.config)
        except (TypeError, InputError) as error:
            raise InputError(f"the request's configuration is not valid: {error}") from None
        expected = {USER: "query", UPSTREAM: "guard"}[peer]
        # Only upstream may share logits: a user without a model would choose them.
        if request.kind != expected or bool(request.model) != (expected == "query"):
            raise ProtocolError(f"{peer} sent a {request.kind!r} request that it may not send", party=peer)
        if request.dealer not in SERVERS or request.batch < 1:
            raise ProtocolError(f"{peer} asked for dealer {request.dealer!r}, batch {request.batch}", party=peer)
        if grant_bytes(request.defender, request.model, config) not in self._granted:
            raise PolicyError(
                f"the model owner has not signed policy {config.policy!r} with these parameters; "
                "ask for one of the signed configurations"
            )
        defender = self._defenders.get(request.defender)
        model = self._models.get(request.model)
        if defender is None or (request.model and model is None):
            raise InputError("the request names a network that the model owner has not shared", party=peer)
        if model is not None and model.shape[-1] != defender.classes:
            raise InputError(f"the model gives {model.shape[-1]} classes, the classifier takes {defender.classes}")
        width = model.shape[0] if model is not None else defender.classes
        if request.width != width:
            raise InputError(f"the request has {request.width} columns; expected {width}", party=peer)
        check_memory(request.batch, model.shape if model else None, defender.shape, config)
        return config, defender, model

    def _channel(self, session: bytes, dealer: str, client: str) -> ServerSession:
        randomness = self._randomness(self._keys, session, dealer, self.name)
        return ServerSession(
            self.mailbox(session),
            self.outbox(session),
            roles_for(dealer),
            randomness,
            self._door,
            self._probes.get(session),
            client=client,
            receiver=USER,
        )

    # The owner --------------------------------------------------------------------------------------------

    async def _serve_owner(self, peer: str, frame: Frame) -> None:
        if frame.kind is Kind.GRANT:
            self._accept_grant(Grant.decode(frame.payload))
        else:
            await self._accept_network(frame)
        await self.outbox(frame.session).send(OWNER, Kind.DATA, "done", frame.depth, Z64.zeros(1))

    def _accept_grant(self, grant: Grant) -> None:
        try:
            self._owner_key.verify(grant.grant, grant.signature)
        except (BadSignatureError, ValueError):  # the second: not as long as a signature
            raise PolicyError("a grant is not signed by the model owner's key", party=OWNER) from None
        self._granted.add(grant.grant)

    async def _accept_network(self, frame: Frame) -> None:
        load = Load.decode(frame.payload)
        channel = self._channel(frame.session, LOAD_DEALER, client=OWNER)
        role = channel.roles.index(self.name)
        sizes = [math.prod(shape) for shape in load.shapes]
        weights = await receive_input(Party(role, channel).at("input"), Z64, (sum(sizes),), 0)
        arrays: list[Share] = []
        start = 0
        for size, shape in zip(sizes, load.shapes, strict=True):
            arrays.append(_as_long_lived(weights[start : start + size].reshape(*shape)))
            start += size
        if load.kind == "defender":
            *layers, gradient = (int(bits) for bits in load.public)
            self._defenders[load.name] = SharedDefender(arrays, layers, gradient)
        elif load.kind == "model":
            self._models[load.name] = SharedModel(arrays, load.public[0])
        else:
            raise ProtocolError(f"unknown network kind {load.kind!r}", party=OWNER)


def _as_long_lived(share: Share) -> Share:
    """A copy with depth 0: sharing a network is set-up, not part of a call."""
    copy = share.map(np.ascontiguousarray)
    copy.depth = 0
    return copy


def server_keys(name: str) -> list[str]:
    """The names of the pair keys that a server holds: with each server, and with each client and one server."""
    pairs = [pair_name(name, other) for other in SERVERS if other != name]
    return pairs + [client_pair(client, pair) for client in (OWNER, USER, UPSTREAM) for pair in pairs]


def client_keys(client: str) -> list[str]:
    """The names of the pair keys that a client holds: one with each pair of servers."""
    pairs = [pair_name(one, other) for i, one in enumerate(SERVERS) for other in SERVERS[i + 1 :]]
    return [client_pair(client, pair) for pair in pairs]
