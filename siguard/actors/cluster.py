"""A whole deployment in one process, in memory: three servers, a user, a model owner, the test role upstream."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy.typing as npt
import trio

from siguard.actors.background import background_nursery
from siguard.actors.blas import single_threaded_blas
from siguard.actors.client import Answer, Client
from siguard.actors.debug import DebugProbe
from siguard.actors.deployment import Deployment, LinkWrapper
from siguard.actors.keyring import USER
from siguard.actors.ledger import Ledger
from siguard.actors.limits import check_memory, check_prepare
from siguard.actors.mailbox import DEFAULT_DEADLINE
from siguard.actors.messages import Request
from siguard.actors.naming import SessionNames
from siguard.actors.options import check_networks, checked_config, checked_options
from siguard.actors.planning import IN_MEMORY, conditions_of
from siguard.actors.result import GuardResult as GuardResult
from siguard.actors.setup import SharedNetworks
from siguard.actors.timing import VirtualTime, metered
from siguard.errors import InputError, PolicyError, SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.failures import failure_probabilities
from siguard.guard.inputs import check_logits, relative_to_largest
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, Planned, plan_for
from siguard.guard.shape import Shape
from siguard.guard.start import LOGIT_BITS
from siguard.nn.inputs import check_features
from siguard.nn.model import Defender, FloatArray, Model
from siguard.prf import KEY_BYTES, PairwiseRandomness, RandomnessFactory
from siguard.ring import FRACTION_BITS, RingArray, encode
from siguard.transport.accountant import Traffic
from siguard.transport.profiles import NetworkProfile, network_profile
from siguard.transport.shape import shaper


class Cluster:
    """The parties of one deployment; made by `open_cluster`.  Calls may run at the same time."""

    def __init__(
        self,
        seed: int | None,
        debug_open: bool,
        allow: tuple[GuardConfig, ...] | None,
        deadline: float,
        wrap_link: LinkWrapper | None,
        randomness: RandomnessFactory,
        conditions: Conditions,
    ) -> None:
        seed_key = None if seed is None else hashlib.blake2b(f"siguard {seed}".encode()).digest()[:KEY_BYTES]
        self._debug_open = debug_open
        self._conditions = conditions
        self._allow = allow
        self._ledger = Ledger()
        self._probes: dict[bytes, DebugProbe] = {}
        self._sessions = SessionNames(seed_key)
        self._deployment = Deployment(seed_key, self._ledger, self._probes, deadline, wrap_link, randomness)
        self._actors = self._deployment.actors
        self._owner = self._deployment.owner
        self._networks = SharedNetworks(self._owner, self._sessions, self._ledger, allow)
        self.user = self._deployment.user
        for client in (self.user, self._deployment.upstream):
            client.on_dropped = self._forget_call

    # Calls ------------------------------------------------------------------------------------------------

    async def guard(
        self, logits: npt.ArrayLike, defender: Defender, config: GuardConfig | None = None
    ) -> GuardResult:
        """Guard logits (batch, C) that the test role ``upstream`` shares: for experiments.

        Logits are taken relative to each row's largest, to 2^-24, and saturate 2^20 below it.
        Raises `InputError` or `PolicyError` before anything is sent, `ProtocolError` when a party fails.
        """
        config = checked_config(config)
        values = check_logits(logits, defender)
        planned = self._check(len(values), None, defender, config)
        return await self._call(relative_to_largest(values), None, defender, config, planned)

    async def query(
        self, features: npt.ArrayLike, model: Model, defender: Defender, config: GuardConfig | None = None
    ) -> GuardResult:
        """The real path: the user shares features (batch, in), servers infer, guard, and reveal to the user.

        Features saturate at the limit the owner publishes with the model (at most 2^12).
        Raises as `guard`.
        """
        config = checked_config(config)
        values = check_features(features, model, defender)
        planned = self._check(len(values), model, defender, config)
        return await self._call(values, model, defender, config, planned)

    async def prepare(
        self,
        defender: Defender,
        config: GuardConfig | None,
        batch: int,
        count: int = 1,
        *,
        model: Model | None = None,
    ) -> None:
        """Let the dealing servers send their part of ``count`` later calls now, each for ``batch`` rows.

        The next calls of `guard`, or with ``model`` of `query`, that have these networks, this configuration and as
        many rows use one each, the oldest first; others run as ever.  Returns when the servers are ready.  What is
        not used within `siguard.actors.limits.PREPARED_SECONDS`, or whose server is lost, is dropped: then a call
        runs unprepared.  Calls at once with a seed: which one takes which session depends on their order.
        Raises as `guard`, `PartyFailedError` when a server keeps as many as it may; then none of these is prepared.
        """
        config = checked_config(config)
        check_prepare(batch, count)
        check_networks(defender, model)
        batch = int(batch)
        plan = self._check(batch, model, defender, config).plan
        turns = [self._sessions.next_turn() for _ in range(count)]
        names = await self._networks.ensure(defender, model, config)
        requests = {}
        for turn in turns:
            request = _request(names, model, defender, config, plan, batch, self._sessions.dealer(turn))
            session = self._sessions.session("prepared", turn, *names, repr(config.to_dict()), batch)
            requests[session] = request
            self._expect_call(session)
        try:
            await self._client(model).prepare(requests)
        except BaseException:
            for session in requests:
                self._forget_call(session)
            raise

    @property
    def setup_traffic(self) -> Traffic:
        """Sharing of networks, grants: once per object, apart from the calls."""
        return self._networks.traffic

    @property
    def owner_key(self) -> bytes:
        """The model owner's public key (Ed25519), which the servers hold to check what it signed."""
        return self._owner.public_key

    def kill(self, party: str) -> None:
        """Stop one party at once, as a crash would: for experiments and tests."""
        if party not in self._actors:
            raise InputError(f"party: found {party!r}; there are {', '.join(self._actors)}")
        self._actors[party].stop()

    async def _call(
        self, values: FloatArray, model: Model | None, defender: Defender, config: GuardConfig, planned: Planned
    ) -> GuardResult:
        batch = len(values)
        prepared, names = None, self._networks.names(defender, model)
        if names is not None:
            prepared = self._client(model).take_prepared(
                _request(names, model, defender, config, planned.plan, batch)
            )
        if prepared is not None and names is not None:
            value = self._encode(values, model, names)
            session, request = prepared.session, prepared.request
        else:
            turn = self._sessions.next_turn()
            names = await self._networks.ensure(defender, model, config)
            value = self._encode(values, model, names)
            session = self._sessions.session("call", turn, value.tobytes(), *names, repr(config.to_dict()))
            dealer = self._sessions.dealer(turn)
            request = _request(names, model, defender, config, planned.plan, batch, dealer)
            self._expect_call(session)
        shape = (batch, defender.classes)
        started = trio.current_time()
        try:
            if model is not None:
                answer = await self.user.ask(session, request, value, shape)
            else:
                answer = await self._ask_through_upstream(session, request, value, shape)
        finally:
            probe, traffic = self._probes.pop(session, None), self._ledger.take(session)
        seconds = trio.current_time() - started
        internals = probe.internals(config) if probe else None
        guarded = self._shape(defender, batch)._replace(plan=planned.plan)
        failures = failure_probabilities(guarded, config)
        return GuardResult(answer.confidences, seconds, config.iterations, traffic, internals, planned, failures)

    def _client(self, model: Model | None) -> Client:
        """Who opens a call's session."""
        return self._deployment.upstream if model is None else self.user

    def _encode(self, values: FloatArray, model: Model | None, names: tuple[bytes, bytes]) -> RingArray:
        if model is None:
            return encode(values, LOGIT_BITS)
        return encode(values, FRACTION_BITS, self._networks.limit(names[1]))

    def _expect_call(self, session: bytes) -> None:
        if self._debug_open:
            self._probes[session] = DebugProbe()

    def _forget_call(self, session: bytes) -> None:
        """A prepared session was dropped."""
        self._probes.pop(session, None)
        self._ledger.take(session)

    async def _ask_through_upstream(
        self, session: bytes, request: Request, value: RingArray, shape: tuple[int, ...]
    ) -> Answer:
        answers: list[Answer] = []
        errors: list[SiguardError] = []

        async def wait() -> None:
            try:
                answers.append(await self.user.ask(session, request, None, shape))
            except SiguardError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            try:
                await self._deployment.upstream.submit(session, request, value)
            except SiguardError as error:
                errors.insert(0, error)
                nursery.cancel_scope.cancel()
        if errors:
            raise errors[0]
        return answers[0]

    def _shape(self, defender: Defender, batch: int) -> Shape:
        return Shape(batch, defender.shape, self._networks.magnitude_bits(defender), Plan())

    def _check(self, batch: int, model: Model | None, defender: Defender, config: GuardConfig) -> Planned:
        """Refuse what can be refused before anything is sent, and plan the rest; servers check again."""
        if self._allow is not None and config.resolved() not in [one.resolved() for one in self._allow]:
            raise PolicyError(
                f"policy: {config.policy!r} with these parameters is not signed by the model owner; "
                f"signed: {', '.join(repr(one) for one in self._allow) or 'none'}",
                party=USER,
            )
        for network in (defender, model):
            if network is not None:
                self._networks.encode(network)
        shape = self._shape(defender, batch)

        def planned(rows: int) -> Planned:
            return plan_for(config, shape._replace(batch=rows), self._conditions)

        check_memory(shape, model.shape if model else None, config, lambda rows: planned(rows).plan)
        return planned(batch)


def _request(
    names: tuple[bytes, bytes],
    model: Model | None,
    defender: Defender,
    config: GuardConfig,
    plan: Plan,
    batch: int,
    dealer: str = "",
) -> Request:
    kind, width = ("guard", defender.classes) if model is None else ("query", model.shape[0])
    return Request(kind, dealer, *names, config.to_dict(), plan.to_dict(), batch, width)


@asynccontextmanager
async def open_cluster(
    seed: int | None = None,
    debug_open: bool = False,
    allow: Iterable[GuardConfig] | None = None,
    *,
    deadline: float = DEFAULT_DEADLINE,
    wrap_link: LinkWrapper | None = None,
    randomness: RandomnessFactory = PairwiseRandomness,
    network: NetworkProfile | str | None = None,
    time: VirtualTime | None = None,
) -> AsyncIterator[Cluster]:
    """Three servers, a user and a model owner in this process, over in-memory links.

    seed: repeatable keys, sessions and answers, for experiments; None takes keys from the operating system.
    debug_open: results carry ``internals``, recombined from shares held in this process; sends nothing.
    allow: the configurations the owner signs; None (experiments) signs what each call passes, "none" included.
    deadline: seconds a server waits for one frame; the user waits 20 times as long for the first part of an answer.
    wrap_link: wraps each end of each link (observers, faults).
    randomness: makes each party's source of masks in each session (observers); replace it in experiments only.
    network: every link is as slow as this profile says, "lan", "wan" or your own; in real seconds on the real
    clock, in virtual ones under ``trio.run(main, clock=siguard.virtual_clock())``.
    time: on the virtual clock, how long the parties' own work takes; None for no time at all.
    Leaving the block ends every party, task and link; an error inside leaves as it is.  While it is open, BLAS runs
    on one thread in this process: the parties compute side by side.
    """
    allow = checked_options(seed, allow, deadline)
    if debug_open:
        _say_that_nothing_is_secret()
    profile = network_profile(network) if isinstance(network, str) else network
    async with AsyncExitStack() as stack:
        stack.enter_context(single_threaded_blas())
        nursery = await stack.enter_async_context(background_nursery())
        wrap = _shaped_then(shaper(profile, nursery, seed), wrap_link)
        cluster = Cluster(seed, debug_open, allow, deadline, wrap, randomness, conditions_of(profile, IN_MEMORY))
        if time is not None:
            await stack.enter_async_context(metered(cluster._actors.values(), time))
        for actor in cluster._actors.values():
            await nursery.start(actor.run)
        yield cluster


def _shaped_then(shape: LinkWrapper, wrap: LinkWrapper | None) -> LinkWrapper:
    """Observers see what the parties send, above the network."""
    return lambda link, owner: shape(link, owner) if wrap is None else wrap(shape(link, owner), owner)


def _say_that_nothing_is_secret() -> None:
    import structlog  # as in `Actor`: not needed before a cluster is open

    structlog.get_logger("siguard").warning(
        "debug_open recombines what the servers hold: nothing in this cluster is secret"
    )
