"""A whole deployment in one process, in memory: three servers, a user, a model owner, the test role upstream."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

from siguard.actors.background import background_nursery
from siguard.actors.blas import single_threaded_blas
from siguard.actors.client import Answer
from siguard.actors.debug import DebugProbe, Internals
from siguard.actors.deployment import Deployment, LinkWrapper
from siguard.actors.encoding import Encoding, encoded
from siguard.actors.ledger import Ledger
from siguard.actors.limits import check_memory
from siguard.actors.mailbox import DEFAULT_DEADLINE
from siguard.actors.messages import Load, Request
from siguard.actors.naming import SessionNames
from siguard.actors.server import USER
from siguard.actors.timing import VirtualTime, metered
from siguard.errors import InputError, PolicyError, SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.inputs import check_logits, relative_to_largest
from siguard.guard.relative import LOGIT_BITS
from siguard.mpc.softmax import FRACTION_BITS
from siguard.nn.inputs import check_features
from siguard.nn.model import Defender, DenseNetwork, FloatArray, Model
from siguard.prf import KEY_BYTES, PairwiseRandomness, RandomnessFactory
from siguard.ring import RingArray, encode
from siguard.transport.accountant import Traffic
from siguard.transport.profiles import NetworkProfile, network_profile
from siguard.transport.shape import shaper


@dataclass(frozen=True)
class GuardResult:
    """What one call gave.

    confidences: (batch, C), rows >= 0 with sum 1.  seconds: call to answer, by trio's clock.
    iterations: public number of optimisation steps per query.  traffic: this call, input sharing to reveal.
    internals: only with ``debug_open``, else None.
    """

    confidences: npt.NDArray[np.float64]
    seconds: float
    iterations: int
    traffic: Traffic
    internals: Internals | None = None


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
    ) -> None:
        seed_key = None if seed is None else hashlib.blake2b(f"siguard {seed}".encode()).digest()[:KEY_BYTES]
        self._debug_open = debug_open
        self._allow = allow
        self._ledger = Ledger()
        self._probes: dict[bytes, DebugProbe] = {}
        self._networks: dict[DenseNetwork, bytes] = {}
        self._encodings: dict[DenseNetwork, Encoding] = {}  # of networks that are about to be shared
        self._limits: dict[bytes, float] = {}
        self._granted: set[tuple[bytes, bytes, GuardConfig]] = set()
        self._sharing = trio.Lock()
        #: Sharing of networks, grants: once per object, apart from the calls.
        self.setup_traffic = Traffic()
        self._sessions = SessionNames(seed_key)
        self._deployment = Deployment(seed_key, self._ledger, self._probes, deadline, wrap_link, randomness)
        self._actors = self._deployment.actors
        self._owner = self._deployment.owner
        self.user = self._deployment.user

    # Calls ------------------------------------------------------------------------------------------------

    async def guard(
        self, logits: npt.ArrayLike, defender: Defender, config: GuardConfig | None = None
    ) -> GuardResult:
        """Guard logits (batch, C) that the test role ``upstream`` shares: for experiments.

        Logits are taken relative to each row's largest, to 2^-24, and saturate 2^20 below it.
        Raises `InputError` or `PolicyError` before anything is sent, `ProtocolError` when a party fails.
        """
        config = _checked_config(config)
        values = check_logits(logits, defender)
        self._check(len(values), None, defender, config)
        return await self._call(relative_to_largest(values), None, defender, config)

    async def query(
        self, features: npt.ArrayLike, model: Model, defender: Defender, config: GuardConfig | None = None
    ) -> GuardResult:
        """The real path: the user shares features (batch, in), servers infer, guard, and reveal to the user.

        Features saturate at the limit the owner publishes with the model (at most 2^12).
        Raises as `guard`.
        """
        config = _checked_config(config)
        values = check_features(features, model, defender)
        self._check(len(values), model, defender, config)
        return await self._call(values, model, defender, config)

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
        self, values: FloatArray, model: Model | None, defender: Defender, config: GuardConfig
    ) -> GuardResult:
        turn = self._sessions.next_turn()
        async with self._sharing:
            names = await self._share(defender), (await self._share(model) if model else b"")
            await self._grant(*names, config)
        if model is None:
            value = encode(values, LOGIT_BITS)
        else:
            value = encode(values, FRACTION_BITS, self._limits[names[1]])
        session = self._sessions.session("call", turn, value.tobytes(), *names, repr(config.to_dict()))
        dealer = self._sessions.dealer(turn)
        batch = value.shape[0]
        request = Request(
            "query" if model else "guard", dealer, names[0], names[1], config.to_dict(), batch, value.shape[1]
        )
        shape = (batch, defender.classes)
        if self._debug_open:
            self._probes[session] = DebugProbe()
        started = trio.current_time()
        try:
            if model is not None:
                answer = await self.user.ask(session, request, value, shape)
            else:
                answer = await self._ask_through_upstream(session, request, value, shape)
        finally:
            probe = self._probes.pop(session, None)
            traffic = self._ledger.take(session)
        seconds = trio.current_time() - started
        internals = probe.internals(config) if probe else None
        return GuardResult(answer.confidences, seconds, config.iterations, traffic, internals)

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

    # Set-up, once per object -------------------------------------------------------------------------------

    def _check(self, batch: int, model: Model | None, defender: Defender, config: GuardConfig) -> None:
        """What can be refused before anything is sent; servers check again."""
        if self._allow is not None and config.resolved() not in [one.resolved() for one in self._allow]:
            raise PolicyError(
                f"policy: {config.policy!r} with these parameters is not signed by the model owner; "
                f"signed: {', '.join(repr(one) for one in self._allow) or 'none'}",
                party=USER,
            )
        check_memory(batch, model.shape if model else None, defender.shape, config)
        for network in (defender, model):
            if network is not None and network not in self._networks and network not in self._encodings:
                self._encodings[network] = encoded(network)

    async def _share(self, network: DenseNetwork) -> bytes:
        """Share a network with the servers unless this cluster has; returns its name."""
        if network in self._networks:
            return self._networks[network]
        kind, arrays, public = self._encodings[network]
        session = self._sessions.session(kind, *(array.tobytes() for array in arrays))
        load = Load(kind, session, "", [list(array.shape) for array in arrays], public)
        try:
            await self._owner.share_network(session, load, arrays)
        finally:
            self._add_setup(session)
        self._networks[network] = session
        del self._encodings[network]
        self._limits[session] = public[0]
        return session

    async def _grant(self, defender: bytes, model: bytes, config: GuardConfig) -> None:
        """The owner signs: the configurations of ``allow``, or in experiments what this call passes."""
        for allowed in (config,) if self._allow is None else self._allow:
            key = (defender, model, allowed.resolved())
            if key in self._granted:
                continue
            session = self._sessions.session("grant", defender, model, repr(allowed.to_dict()))
            try:
                await self._owner.grant(session, defender, model, allowed)
            finally:
                self._add_setup(session)
            self._granted.add(key)

    def _add_setup(self, session: bytes) -> None:
        self.setup_traffic.merge(self._ledger.take(session))


def _checked_config(config: GuardConfig | None) -> GuardConfig:
    if config is None:
        return GuardConfig()
    if not isinstance(config, GuardConfig):
        raise InputError(f"config: found {type(config).__name__}; expected a siguard.GuardConfig")
    return config


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
    allow = _checked_options(seed, allow, deadline)
    if debug_open:
        _say_that_nothing_is_secret()
    profile = network_profile(network) if isinstance(network, str) else network
    async with AsyncExitStack() as stack:
        stack.enter_context(single_threaded_blas())
        nursery = await stack.enter_async_context(background_nursery())
        wrap = _shaped_then(shaper(profile, nursery, seed), wrap_link)
        cluster = Cluster(seed, debug_open, allow, deadline, wrap, randomness)
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


def _checked_options(seed: Any, allow: Any, deadline: Any) -> tuple[GuardConfig, ...] | None:
    """The configurations of ``allow``, once; raises `InputError` naming the option."""
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"seed: found {seed!r}; allowed: a whole number or None")
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not deadline > 0:
        raise InputError(f"deadline: found {deadline!r}; allowed: seconds above 0")
    if allow is None:
        return None
    configs = tuple(allow) if isinstance(allow, Iterable) else (None,)
    if not all(isinstance(config, GuardConfig) for config in configs):
        raise InputError(f"allow: found {allow!r}; expected GuardConfig objects in a list, or None")
    return configs
