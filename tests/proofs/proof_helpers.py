"""Small recorded runs that the tests of views, replays and simulators share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import trio
import trio.testing

import siguard
from siguard import Cluster, Defender, GuardConfig, GuardResult, Model
from siguard.guard.plan import Plan
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.proofsim.queries import Query
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.simulator import Functionality, ideal_answers, simulate
from siguard.proofsim.view import Draw, Event, Message, View
from siguard.transport.frame import Kind

Floats = npt.NDArray[np.float64]

_RNG = np.random.default_rng(20)
#: Three features, three classes; the classifier has one hidden layer of two.
MODEL = Model([(_RNG.normal(size=(3, 3)), _RNG.normal(size=3) / 4)])
DEFENDER = Defender([(_RNG.normal(size=(3, 2)), np.zeros(2)), (_RNG.normal(size=(2, 1)), np.zeros(1))])

#: Each policy, as small as it gets.
CONFIGS = {
    "siguard": GuardConfig(policy="siguard", outer=1, inner=1),
    "decay": GuardConfig(policy="decay", inner=1),
    "linesearch": GuardConfig(policy="linesearch"),
    "label": GuardConfig(policy="label"),
    "none": GuardConfig(policy="none"),
}

#: Features, and logits from upstream; the cheapest policy goes through all dealers.
KINDS = dict.fromkeys(CONFIGS, ("query", "guard")) | {"label": ("query", "query", "query", "guard")}

SETS = [str(one) for one in CORRUPTED_SETS]
#: Every set for two policies; the largest costs most and the smallest does nothing that they do not.
_SOME = {"siguard": ("S0,U", "S1", "U"), "decay": ("S1,U", "S2"), "none": ("S2,U", "S0")}
CASES = [(policy, one) for policy in CONFIGS for one in _SOME.get(policy, SETS)]

#: Real confidences and simulated ones differ by rounding coins alone.
ROUNDING = 2.0**-12


def values(seed: int, batch: int = 1) -> Floats:
    """Features or logits of some rows."""
    return np.random.default_rng([seed, 7]).normal(size=(batch, 3))


@contextmanager
def scheduled(seed: int) -> Iterator[None]:
    """Trio runs tasks that are ready in random order; here the order repeats with the seed."""
    run = trio._core._run
    before = run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


@dataclass
class Recorded:
    """Some calls of one cluster, recorded; sessions are those of the calls, in order."""

    recorder: Recorder
    owner_key: bytes = b""
    sessions: list[bytes] = field(default_factory=list)
    results: dict[bytes, GuardResult] = field(default_factory=dict)
    queries: dict[bytes, Query] = field(default_factory=dict)
    dealers: dict[bytes, str] = field(default_factory=dict)
    _views: dict[str, View] = field(default_factory=dict)

    def view(self, corrupted: str) -> View:
        """The joint view of a set such as ``S0,U``, to be changed at will."""
        if corrupted not in self._views:
            answers = {session: result.confidences for session, result in self.results.items()}
            self._views[corrupted] = self.recorder.view(Corrupted.parse(corrupted), answers, self.owner_key)
        view = self._views[corrupted]
        return replace(view, events=[*view.events], answers={**view.answers})


async def call(cluster: Cluster, kind: str, config: GuardConfig, seed: int, batch: int = 1) -> GuardResult:
    """One call: ``query``, or ``guard`` of logits that upstream shares."""
    if kind == "query":
        return await cluster.query(values(seed, batch), MODEL, DEFENDER, config)
    return await cluster.guard(values(seed, batch), DEFENDER, config)


def as_query(kind: str, config: GuardConfig, seed: int, batch: int = 1, plan: Plan | None = None) -> Query:
    """The same call, as the ideal functionality takes it."""
    if kind == "query":
        return Query.of_features(values(seed, batch), MODEL, DEFENDER, config, plan)
    return Query.of_logits(values(seed, batch), DEFENDER, config, plan)


async def record(
    config: GuardConfig,
    kinds: Sequence[str] = ("query",),
    seeds: Sequence[int] = (0, 1, 2, 3),
    *,
    batch: int = 1,
    cluster_seed: int = 1,
    randomness: RandomnessFactory = PairwiseRandomness,
) -> Recorded:
    """Calls one after the other, in one cluster: dealers S2, S0, S1, S2."""
    made = Recorded(Recorder(randomness))
    recorder = made.recorder
    async with siguard.open_cluster(
        seed=cluster_seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        made.owner_key = cluster.owner_key
        for number, (kind, seed) in enumerate(zip(kinds, seeds, strict=False)):
            result = await call(cluster, kind, config, seed, batch)
            recorder.learn_steps(result.traffic.by_step())
            session = recorder.sessions[-1]
            made.sessions.append(session)
            made.results[session] = result
            assert result.planned is not None
            made.queries[session] = as_query(kind, config, seed, batch, result.planned.plan)
            made.dealers[session] = ("S2", "S0", "S1")[number % 3]
    return made


@cache
def recorded(policy: str = "linesearch", kinds: tuple[str, ...] = ("query",), batch: int = 1) -> Recorded:
    """`record`, once for all tests."""
    made: Recorded = trio.run(partial(record, CONFIGS[policy], kinds, batch=batch))
    return made


def recording_of(policy: str) -> Recorded:
    """The calls in `KINDS`, once for all tests."""
    return recorded(policy, KINDS[policy])


def simulated_from(view: View, made: Recorded, seed: int = 7, functionality: Functionality | None = None) -> View:
    """One simulation of a view."""
    given = functionality or ideal_answers(made.queries, made.dealers, seed)
    result: View = trio.run(simulate, view, given, seed)
    return result


@cache
def simulated(policy: str, corrupted: str, seed: int = 7) -> View:
    """A simulated view of `recording_of`, once for all tests."""
    made = recording_of(policy)
    return simulated_from(made.view(corrupted), made, seed)


def at_once(function: Any, *arguments: Any) -> tuple[Any, float]:
    """What an async function returns, and how long that took on a virtual clock that skips all waiting."""

    async def timed() -> tuple[Any, float]:
        started = trio.current_time()
        result = await function(*arguments)
        return result, trio.current_time() - started

    result: tuple[Any, float] = trio.run(timed, clock=trio.testing.MockClock(autojump_threshold=0))
    return result


# --- tampering --------------------------------------------------------------------------------------------


def without(view: View, event: Event) -> View:
    """The view without one event."""
    return replace(view, events=[one for one in view.events if one is not event])


def with_event(view: View, event: Event, instead: Event) -> View:
    """The view with one event in the place of another."""
    return replace(view, events=[instead if one is event else one for one in view.events])


def flipped(event: Event, bit: int | None = None) -> Event:
    """An event with one bit of its bytes flipped, or all of them."""
    data = event.payload if isinstance(event, Message) else event.values
    number = (1 << 8 * len(data)) - 1 if bit is None else 1 << bit
    changed = (int.from_bytes(data, "little") ^ number).to_bytes(len(data), "little")
    return replace(event, payload=changed) if isinstance(event, Message) else replace(event, values=changed)


def received_data(view: View, session: bytes) -> list[Message]:
    """Protocol data from honest parties in one session."""
    return [m for m in view.received if m.session == session and m.kind == Kind.DATA]


def draws_of(view: View, session: bytes) -> list[Draw]:
    """The tape of one session."""
    return [draw for draw in view.draws if draw.session == session]
