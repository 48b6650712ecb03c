"""A whole deployment in one process, in memory: three servers, a user, a model owner, the test role upstream."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import trio
from nacl.signing import SigningKey

from siguard.actors.actor import Actor, Ledger
from siguard.actors.blas import single_threaded_blas
from siguard.actors.client import Answer, Client, ModelOwner
from siguard.actors.debug import DebugProbe, Internals
from siguard.actors.limits import check_memory
from siguard.actors.messages import Load, Request
from siguard.actors.server import OWNER, UPSTREAM, USER, Server, client_keys, server_keys
from siguard.actors.session import DEFAULT_DEADLINE, SERVERS
from siguard.errors import InputError, PolicyError, SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import encode_defender
from siguard.guard.inputs import check_logits
from siguard.guard.relative import LOGIT_BITS, LOGIT_LIMIT
from siguard.mpc.softmax import FRACTION_BITS
from siguard.nn.inputs import check_features
from siguard.nn.model import Defender, DenseNetwork, Model
from siguard.nn.shared import encode_model
from siguard.prf import fresh_key
from siguard.ring import RingArray, encode
from siguard.transport.accountant import Traffic
from siguard.transport.link import Link
from siguard.transport.memory import memory_link_pair

#: Wraps one end of a link: (link, owner of this end) -> link.  Recorders and fault injectors stack here.
LinkWrapper = Callable[[Link, str], Link]


class DebugOpenWarning(UserWarning):
    """A cluster recombines secrets that the servers hold: experiments in one process only."""


@dataclass(frozen=True)
class GuardResult:
    """What one call gave.

    confidences: (batch, C), rows >= 0 with sum 1.  seconds: call to answer, wall clock.
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
        allow: Iterable[GuardConfig] | None,
        deadline: float,
        wrap_link: LinkWrapper | None,
    ) -> None:
        self._seed_key = None if seed is None else hashlib.blake2b(f"siguard {seed}".encode()).digest()[:32]
        self._debug_open = debug_open
        self._allow = None if allow is None else tuple(allow)
        self._ledger = Ledger()
        self._probes: dict[bytes, DebugProbe] = {}
        self._names: dict[DenseNetwork, bytes] = {}
        self._limits: dict[bytes, float] = {}
        self._granted: set[tuple[bytes, bytes, GuardConfig]] = set()
        self._sharing = trio.Lock()
        self._seen: Counter[bytes] = Counter()
        self._begun = 0
        self._over = 0
        #: Sharing of networks, grants: once per object, apart from the calls.
        self.setup_traffic = Traffic()
        self._actors = self._make_actors(deadline, wrap_link or (lambda link, owner: link))
        self.user: Client = self._actors[USER]  # type: ignore[assignment]
        self._upstream: Client = self._actors[UPSTREAM]  # type: ignore[assignment]
        self._owner: ModelOwner = self._actors[OWNER]  # type: ignore[assignment]

    def _make_actors(self, deadline: float, wrap: LinkWrapper) -> dict[str, Actor]:
        names = (*SERVERS, USER, OWNER, UPSTREAM)
        links: dict[str, dict[str, Link]] = {name: {} for name in names}
        for i, one in enumerate(SERVERS):
            for other in (*SERVERS[i + 1 :], USER, OWNER, UPSTREAM):
                ends = memory_link_pair(one, other)
                links[one][other], links[other][one] = wrap(ends[0], one), wrap(ends[1], other)
        keys = {
            name: fresh_key(self._seed_key, "pair key", name)
            for name in {key for server in SERVERS for key in server_keys(server)}
        }
        signing_key = SigningKey(fresh_key(self._seed_key, "owner's signing key"))

        def held(wanted: list[str]) -> dict[str, bytes]:
            return {name: keys[name] for name in wanted}

        actors: dict[str, Actor] = {
            name: Server(
                name,
                links[name],
                self._ledger,
                held(server_keys(name)),
                signing_key.verify_key,
                deadline=deadline,
                probes=self._probes,
            )
            for name in SERVERS
        }
        for name in (USER, UPSTREAM):
            actors[name] = Client(name, links[name], self._ledger, held(client_keys(name)), deadline)
        actors[OWNER] = ModelOwner(links[OWNER], self._ledger, held(client_keys(OWNER)), signing_key, deadline)
        return actors

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
        with np.errstate(over="ignore"):
            relative = np.maximum(values - values.max(axis=1, keepdims=True), -LOGIT_LIMIT)
        return await self._call(UPSTREAM, encode(relative, LOGIT_BITS), None, defender, config)

    async def query(
        self, features: npt.ArrayLike, model: Model, defender: Defender, config: GuardConfig | None = None
    ) -> GuardResult:
        """The real path: the user shares features (batch, in), servers infer, guard, and reveal to the user.

        Features saturate at the limit the owner publishes with the model (at most 2^12).
        Raises as `guard`.
        """
        config = _checked_config(config)
        values = check_features(features, model, defender)
        async with self._sharing:
            name = await self._share(model)
        return await self._call(USER, encode(values, FRACTION_BITS, self._limits[name]), model, defender, config)

    def kill(self, party: str) -> None:
        """Stop one party at once, as a crash would: for experiments and tests."""
        if party not in self._actors:
            raise InputError(f"party: found {party!r}; there are {', '.join(self._actors)}")
        self._actors[party].stop()

    async def _call(
        self, client: str, value: RingArray, model: Model | None, defender: Defender, config: GuardConfig
    ) -> GuardResult:
        self._check_allowed(config)
        turn = self._next_turn()
        batch = value.shape[0]
        check_memory(batch, model, defender, config)
        async with self._sharing:
            names = await self._share(defender), (await self._share(model) if model else b"")
            await self._grant(*names, config)
        session, dealer = self._new_session(turn, value, *names, config)
        request = Request(
            "query" if model else "guard", dealer, names[0], names[1], config.to_dict(), batch, value.shape[1]
        )
        shape = (batch, defender.classes)
        if self._debug_open:
            self._probes[session] = DebugProbe()
        started = trio.current_time()
        try:
            if client == USER:
                answer = await self.user.ask(session, request, value, shape)
            else:
                answer = await self._ask_through_upstream(session, request, value, shape)
        finally:
            probe = self._probes.pop(session, None)
            traffic = self._ledger.take(session)
            self._over += 1
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
                await self._upstream.submit(session, request, value)
            except SiguardError as error:
                errors.insert(0, error)
                nursery.cancel_scope.cancel()
        if errors:
            raise errors[0]
        return answers[0]

    # Set-up, once per object -------------------------------------------------------------------------------

    def _check_allowed(self, config: GuardConfig) -> None:
        if self._allow is not None and config.resolved() not in [one.resolved() for one in self._allow]:
            raise PolicyError(
                f"policy: {config.policy!r} with these parameters is not signed by the model owner; "
                f"signed: {', '.join(repr(one) for one in self._allow) or 'none'}",
                party=USER,
            )

    async def _share(self, network: DenseNetwork) -> bytes:
        """Share a network with the servers unless this cluster has; returns its name."""
        if network in self._names:
            return self._names[network]
        public: list[float]
        if isinstance(network, Defender):
            kind, encoded = "defender", encode_defender(network)
            arrays, public = encoded.matrices, [float(bits) for bits in encoded.magnitude_bits]
        else:
            assert isinstance(network, Model)  # noqa: S101 - callers checked
            kind, weights = "model", encode_model(network)
            arrays, public = weights.arrays, [weights.feature_limit]
        session = self._setup_session(kind, *(array.tobytes() for array in arrays))
        load = Load(kind, session, [list(array.shape) for array in arrays], public)
        try:
            await self._owner.share_network(session, load, arrays)
        finally:
            self._add_setup(session)
        self._names[network] = session
        self._limits[session] = public[0]
        return session

    async def _grant(self, defender: bytes, model: bytes, config: GuardConfig) -> None:
        """The owner signs: the configurations of ``allow``, or in experiments what this call passes."""
        for allowed in (config,) if self._allow is None else self._allow:
            key = (defender, model, allowed.resolved())
            if key in self._granted:
                continue
            session = self._setup_session("grant", defender, model, repr(allowed.to_dict()))
            try:
                await self._owner.grant(session, defender, model, allowed)
            finally:
                self._add_setup(session)
            self._granted.add(key)

    def _add_setup(self, session: bytes) -> None:
        self.setup_traffic.merge(self._ledger.take(session))

    # Sessions ---------------------------------------------------------------------------------------------

    def _setup_session(self, *context: str | bytes) -> bytes:
        return self._session_id("setup", *context)[0]

    def _new_session(
        self, turn: int, value: RingArray, defender: bytes, model: bytes, config: GuardConfig
    ) -> tuple[bytes, str]:
        """A session id that was never used, and the server that deals: the next one in turn.

        With a seed the id follows from the seed and the call's content (an equal call gets the next occurrence
        number), and the turn from the calls that were over when this one began: neither depends on the order
        in which concurrent calls happen to run.
        """
        session, _ = self._session_id("call", value.tobytes(), defender, model, repr(config.to_dict()))
        return session, SERVERS[(2 + turn) % 3]

    def _next_turn(self) -> int:
        self._begun += 1
        return self._begun - 1 if self._seed_key is None else self._over

    def _session_id(self, *context: str | bytes) -> tuple[bytes, int]:
        if self._seed_key is None:
            return fresh_key(None)[:16], 0
        content = fresh_key(self._seed_key, "session", *context)
        occurrence = self._seen[content]
        self._seen[content] += 1
        return fresh_key(content, "occurrence", occurrence)[:16], occurrence


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
) -> AsyncIterator[Cluster]:
    """Three servers, a user and a model owner in this process, over in-memory links.

    seed: repeatable keys, sessions and answers, for experiments; None takes keys from the operating system.
    debug_open: results carry ``internals``, recombined from shares held in this process; sends nothing.
    allow: the configurations the owner signs; None (experiments) signs what each call passes, "none" included.
    deadline: seconds a party waits for one frame.  wrap_link: wraps each end of each link (observers, faults).
    Leaving the block ends every party, task and link; an error inside leaves as it is.  While it is open, BLAS runs
    on one thread in this process: the parties compute side by side.
    """
    _check_options(seed, allow, deadline)
    if debug_open:
        warnings.warn(
            "debug_open recombines what the servers hold: nothing in this cluster is secret",
            DebugOpenWarning,
            stacklevel=3,
        )
    cluster = Cluster(seed, debug_open, allow, deadline, wrap_link)
    failure: Exception | None = None
    with single_threaded_blas():
        async with trio.open_nursery() as nursery:
            for actor in cluster._actors.values():
                await nursery.start(actor.run)
            try:
                yield cluster
            except Exception as error:  # leaves below, outside the nursery, which would wrap it in a group
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _check_options(seed: Any, allow: Any, deadline: Any) -> None:
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise InputError(f"seed: found {seed!r}; allowed: a whole number or None")
    if allow is not None and not all(isinstance(config, GuardConfig) for config in allow):
        raise InputError("allow: expected GuardConfig objects, or None")
    if not isinstance(deadline, (int, float)) or not deadline > 0:
        raise InputError(f"deadline: found {deadline!r}; allowed: seconds above 0")
