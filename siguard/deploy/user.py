"""The user of a deployment: features in, guarded confidences out, from any program that runs trio.

deployment = load_deployment("deployment.toml")
async with connect(deployment, deployment.identity("user")) as user:
    result = await user.query(features)
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy.typing as npt
import structlog
import trio
from nacl.exceptions import BadSignatureError

from siguard.actors.client import Client
from siguard.actors.deployment import LinkWrapper
from siguard.actors.inquiries import OFFERS, TRAFFIC
from siguard.actors.ledger import Ledger
from siguard.actors.limits import check_memory, check_prepare
from siguard.actors.messages import Offer, Request, read_grant
from siguard.actors.naming import SessionNames
from siguard.actors.planning import UNKNOWN, conditions_of
from siguard.actors.result import GuardResult
from siguard.actors.session import SERVERS
from siguard.deploy.client import linked_client
from siguard.deploy.connections import Connections
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import ClientKeys
from siguard.errors import InputError, PolicyError, ProtocolError, without_groups
from siguard.guard.config import GuardConfig
from siguard.guard.failures import failure_probabilities
from siguard.guard.plan import Plan
from siguard.guard.planner import Planned, plan_for
from siguard.guard.shape import Shape
from siguard.mpc.concurrency import side_by_side
from siguard.nn.inputs import check_feature_array
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.ring import FRACTION_BITS, encode
from siguard.transport.accountant import Traffic
from siguard.transport.secure import Identity

#: Seconds that an answer waits for the servers to say what they sent for it.
_TRAFFIC_SECONDS = 2.0


@dataclass(frozen=True)
class Service:
    """One guard that the owner signed for one model; all three servers offer it.

    label, model: what the owner calls the model, and its name among the servers.  widths: features, ..., classes.
    """

    label: str
    model: bytes
    defender: bytes
    config: GuardConfig
    widths: tuple[int, ...]
    defender_widths: tuple[int, ...]
    defender_bounds: tuple[int, ...]
    feature_limit: float


class User:
    """A process of a user; made by `connect`.  Calls may run at the same time."""

    def __init__(self, client: Client, connections: Connections, deployment: DeploymentFile) -> None:
        self._client = client
        self._deployment = deployment
        self._ledger = client.ledger
        self._conditions = conditions_of(deployment.network.as_profile(), UNKNOWN)
        self._sessions = SessionNames(None)
        self._first_turn = secrets.randbelow(len(SERVERS))
        self._log = structlog.get_logger("siguard").bind(party=client.name)
        #: Why there is no link to a server, by server.
        self.problems = connections.problems

    async def services(self) -> list[Service]:
        """What all three servers offer and the owner signed, in the order of labels and policies.

        Raises `PartyFailedError` naming a server that cannot be reached, and why.
        """
        told = await self._ask_all(OFFERS)
        common: set[Service] | None = None
        for server, offers in zip(SERVERS, told, strict=True):
            found = {self._checked(server, offer) for offer in offers}
            common = found if common is None else common & found
        return sorted(common or (), key=lambda one: (one.label, one.model, repr(one.config)))

    async def service(self, config: GuardConfig | str | None = None, model: str | None = None) -> Service:
        """The one service that is meant: see `query`."""
        return _choose(await self.services(), config, model)

    async def query(
        self,
        features: npt.ArrayLike,
        config: GuardConfig | str | None = None,
        *,
        model: str | None = None,
        service: Service | None = None,
    ) -> GuardResult:
        """Share features (batch, in) with the servers; the guarded confidences (batch, C) come back to this
        process.

        config: a signed configuration or the name of its policy; may be left out where one policy is signed.
        model: the owner's label, or the name that it was given; may be left out where there is one model.
        service: instead of both, from `services`.  After the answer the servers are asked what they sent, so that
        ``result.traffic`` is that of all parties, but for a server that does not tell soon.
        A session that `prepare` left for such a query is used, the oldest first.
        Raises `InputError`, `PolicyError` before anything is shared, `ProtocolError` when a party fails.
        """
        if service is None:
            service = await self.service(config, model)
        values = check_feature_array(features, service.widths[0])
        planned = self._plan(service, len(values), config)
        value = encode(values, FRACTION_BITS, service.feature_limit)
        prepared = self._client.take_prepared(_request(service, planned, len(values), ""))
        if prepared is not None:
            session, request = prepared.session, prepared.request
        else:
            session, request = (
                self._sessions.session(),
                _request(service, planned, len(values), self._next_dealer()),
            )
        started = trio.current_time()
        try:
            answer = await self._client.ask(session, request, value, (len(values), service.widths[-1]))
        finally:
            traffic = self._ledger.take(session)
        seconds = trio.current_time() - started
        for told in await side_by_side(*(partial(self._traffic, server, session) for server in SERVERS)):
            traffic.merge(told)
        shape = _shape(service, len(values))._replace(plan=planned.plan)
        failures = failure_probabilities(shape, service.config)
        return GuardResult(answer.confidences, seconds, service.config.iterations, traffic, None, planned, failures)

    async def prepare(
        self,
        batch: int,
        config: GuardConfig | str | None = None,
        count: int = 1,
        *,
        model: str | None = None,
        service: Service | None = None,
    ) -> None:
        """Let the dealing servers send their part of ``count`` later queries now, each of ``batch`` rows.

        config, model, service: as in `query`.  Each of the next such queries of this process uses one.  Returns
        when the servers are ready.  What is not used within `siguard.actors.limits.PREPARED_SECONDS`, or whose
        link is lost, is dropped: then a query runs unprepared.  Raises as `query`, and `PartyFailedError` when a
        server keeps as many as it may; then none of these is prepared.
        """
        check_prepare(batch, count)
        if service is None:
            service = await self.service(config, model)
        planned = self._plan(service, int(batch), config)
        await self._client.prepare(
            {
                self._sessions.session(): _request(service, planned, int(batch), self._next_dealer())
                for _ in range(count)
            }
        )

    def _plan(self, service: Service, batch: int, config: GuardConfig | str | None) -> Planned:
        """How a call is computed; raises `InputError` for one that no server could hold.

        The signed configuration says nothing of it; that of the call may (``rounds``, ``max_bytes``).
        """
        wanted = config if isinstance(config, GuardConfig) else service.config
        shape = _shape(service, batch)

        def planned(rows: int) -> Planned:
            return plan_for(wanted, shape._replace(batch=rows), self._conditions)

        check_memory(shape, service.widths, wanted, lambda rows: planned(rows).plan)
        return planned(batch)

    def _next_dealer(self) -> str:
        return self._sessions.dealer(self._sessions.next_turn() + self._first_turn)

    async def _traffic(self, server: str, session: bytes) -> Traffic:
        """What a server sent in an ended session; nothing where it cannot tell soon: the answer is here already."""
        with suppress(ProtocolError, ValueError), trio.move_on_after(_TRAFFIC_SECONDS):
            if self._client.has_link(server):
                return Traffic.from_plain(await self._client.inquire(server, TRAFFIC, session))
        self._log.warning("traffic not known", peer=server, session=session.hex())
        return Traffic()

    async def _ask_all(self, what: str) -> list[Any]:
        with without_groups():
            return await side_by_side(*(partial(self._client.inquire, server, what) for server in SERVERS))

    def _checked(self, server: str, values: Any) -> Service:
        """An offer that the owner signed, as a service; raises `ProtocolError` for any other."""
        offer = Offer.from_values(values)
        try:
            self._deployment.owner_key.verify(offer.grant, offer.signature)
        except (BadSignatureError, ValueError):
            raise ProtocolError(f"{server} offers a guard that the owner has not signed", party=server) from None
        defender, model, config = read_grant(offer.grant)
        return Service(
            offer.label,
            model,
            defender,
            config,
            tuple(offer.widths),
            tuple(offer.defender),
            tuple(offer.bounds),
            offer.limit,
        )


def _shape(service: Service, batch: int) -> Shape:
    return Shape(batch, service.defender_widths, service.defender_bounds, Plan())


def _request(service: Service, planned: Planned, batch: int, dealer: str) -> Request:
    return Request(
        "query",
        dealer,
        service.defender,
        service.model,
        service.config.to_dict(),
        planned.plan.to_dict(),
        batch,
        service.widths[0],
    )


def _choose(services: list[Service], config: GuardConfig | str | None, model: str | None) -> Service:
    """The one service that is meant; raises `PolicyError` or `InputError` with what there is."""
    services = [one for one in services if one.model]
    if not services:
        raise PolicyError("the servers offer nothing yet: the model owner has shared no model; siguard share-model")
    held = ", ".join(sorted({f"{one.label!r} ({one.model.hex()})" for one in services}))
    named = [one for one in services if model in (None, one.label, one.model.hex())]
    if not named:
        raise InputError(f"model: found {model!r}; the servers hold {held}")
    if len({one.model for one in named}) > 1:
        raise InputError(f"model: several are held: {held}; say which one, by its label or by its name in brackets")
    resolved = config.resolved() if isinstance(config, GuardConfig) else config
    wanted = [one for one in named if resolved in (None, one.config.resolved(), one.config.policy)]
    if len(wanted) == 1:
        return wanted[0]
    signed = ", ".join(one.config.described() for one in named)
    if not wanted:
        asked = config.described() if isinstance(config, GuardConfig) else repr(config)
        raise PolicyError(f"policy: {asked} is not signed by the model owner for this model; signed: {signed}")
    raise InputError(f"policy: several are signed for this model ({signed}); say which one")


@asynccontextmanager
async def connect(
    deployment: DeploymentFile,
    identity: Identity,
    *,
    wrap_link: LinkWrapper | None = None,
    randomness: RandomnessFactory = PairwiseRandomness,
) -> AsyncIterator[User]:
    """Run one process of a user inside the block; links are made in the background, and again when lost.

    A call waits ``limits.connect`` seconds for servers that are not there yet.  Raises `InputError` when the
    identity is no user of the deployment.
    """
    if identity.name not in deployment.users:
        users = ", ".join(deployment.users)
        raise InputError(f"{identity.name} is no user of {deployment.file}; there are {users}")
    keys = ClientKeys(identity.name)
    client = Client(keys.name, {}, Ledger(), keys.held, deployment.limits.deadline, randomness)
    async with linked_client(client, keys, deployment, identity, wrap_link) as connections:
        yield User(client, connections, deployment)
