"""Calls under attack beside the same calls with an honest network: same keys, sessions, inputs and answers.

Time is virtual: deadlines cost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import trio
import trio.testing

from siguard.actors.cluster import Cluster, open_cluster
from siguard.actors.server import USER
from siguard.actors.session import SERVERS
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.nn.model import Defender, Model
from siguard.proofsim.capture import captured
from siguard.proofsim.faults import LATE, Arrival, Fault, Network, Passing, honest
from siguard.proofsim.view import StepNames
from siguard.transport.frame import Kind

#: Virtual seconds that a server waits for a frame; more than the late frames of one wait add up to.
_DEADLINE = 30.0
BATCH, CLASSES = 2, 3


class Attack(NamedTuple):
    """What is done to one call.

    fault: to one frame of it.  all_late: each frame is late by a time of its own.  place: which frame, of `PLACES`.
    """

    name: str
    fault: Fault | None = None
    all_late: bool = False
    place: str = "between servers"


class Call(NamedTuple):
    """What a call gave: the answer or an error, and the frames that the parties themselves sent for it."""

    answer: npt.NDArray[np.float64] | None
    error: SiguardError | None
    steps: Sequence[str]
    sent: Sequence[Passing] = ()
    overtakes: int = 0

    def lines(self, receivers: Iterable[str] | None = None) -> Counter[tuple[str, str, str, int]]:
        """Sender, receiver, step and length of each frame but the news of a failure and of who waits, counted."""
        return Counter(
            (one.sender, one.receiver, one.frame.step.hex(), len(one.data))
            for one in self.sent
            if (receivers is None or one.receiver in receivers) and one.frame.kind not in (Kind.ABORT, Kind.WAIT)
        )


class Case(NamedTuple):
    """A call under attack: the frame that was met (None: not one, or it was never sent), and both calls."""

    attack: Attack
    met: Passing | None
    expected: Call
    found: Call

    def __str__(self) -> str:
        if self.met is None:
            return self.attack.name
        names = StepNames()
        names.learn(self.expected.steps)
        step = names.name(self.met.frame.step)
        return f"{self.met.sender} > {self.met.receiver} at {step}: {self.attack.name}"


#: Where the frames of a query travel.
PLACES: dict[str, Callable[[Passing], bool]] = {
    "between servers": lambda passing: passing.sender in SERVERS and passing.receiver in SERVERS,
    "request": lambda passing: passing.sender == USER and passing.frame.kind is Kind.START,
    "input": lambda passing: passing.sender == USER and passing.frame.kind is Kind.DATA,
    "answer": lambda passing: passing.receiver == USER,
}


def attacked(config: GuardConfig, seed: int, attacks: Sequence[Attack]) -> list[Case]:
    """A query under each attack, one after the other in one cluster.  Runs its own event loop."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    # Parties log what is not a frame; and a wrong answer may be all zeros, which the user divides by.
    with captured(), np.errstate(divide="ignore", invalid="ignore"):
        return trio.run(_attacked, config, seed, attacks, clock=clock)


async def _attacked(config: GuardConfig, seed: int, attacks: Sequence[Attack]) -> list[Case]:
    rng = np.random.default_rng([seed, 8])
    features = rng.normal(size=(len(attacks), BATCH, CLASSES))
    networks = small_networks(rng)
    expected, cases = [], []
    network = Network()
    async with open_cluster(seed, deadline=_DEADLINE, wrap_link=network.wrap_link) as cluster:
        await warm_up(cluster, networks, config)
        for rows in features:
            expected.append(await _call(cluster, network, rows, networks, config))
    network = Network()
    async with open_cluster(seed, deadline=_DEADLINE, wrap_link=network.wrap_link) as cluster:
        await warm_up(cluster, networks, config)
        for attack, rows, call in zip(attacks, features, expected, strict=True):
            there = [passing for passing in call.sent if PLACES[attack.place](passing)]
            target = there[rng.integers(len(there))] if there else None
            network.tamper = tamper = _Tamper(attack, target, network.passed.copy(), rng)
            found = await _call(cluster, network, rows, networks, config)
            network.tamper = honest
            cases.append(Case(attack, tamper.met, call, found))
    return cases


async def warm_up(cluster: Cluster, networks: tuple[Model, Defender], config: GuardConfig) -> None:
    """A call with each dealer, so that there are earlier sessions on every link."""
    for _ in SERVERS:
        await cluster.query(np.zeros((BATCH, CLASSES)), *networks, config)


async def _call(
    cluster: Cluster,
    network: Network,
    rows: npt.NDArray[np.float64],
    networks: tuple[Model, Defender],
    config: GuardConfig,
) -> Call:
    before, overtakes = len(network.passed), network.overtakes
    try:
        result = await cluster.query(rows, *networks, config)
    except SiguardError as error:
        call = Call(None, error, [])
    else:
        call = Call(result.confidences, None, list(result.traffic.by_step()))
    # Until every party has given up what it waits for, and what is late has come.
    await trio.sleep(3 * _DEADLINE)
    return call._replace(sent=network.passed[before:], overtakes=network.overtakes - overtakes)


class _Tamper:
    """Meets one frame, found by link, session, kind and step, wherever in the order it comes."""

    def __init__(
        self, attack: Attack, target: Passing | None, past: Sequence[Passing], rng: np.random.Generator
    ) -> None:
        self.met: Passing | None = None
        self._attack = attack
        self._target = target
        self._past = past
        self._rng = rng

    def __call__(self, passing: Passing) -> list[Arrival]:
        after = float(self._rng.uniform(0, LATE)) if self._attack.all_late else 0.0
        arrivals = honest(passing)
        if self._attack.fault and self.met is None and self._target and _place(passing) == _place(self._target):
            self.met = passing
            link = passing.sender, passing.receiver
            past = [old for old in self._past if (old.sender, old.receiver) == link]
            arrivals = self._attack.fault(passing, self._rng, past)
        return [Arrival(data, after + more, link) for data, more, link in arrivals]


def _place(passing: Passing) -> tuple[str, str, bytes, Kind, bytes]:
    frame = passing.frame
    return passing.sender, passing.receiver, frame.session, frame.kind, frame.step


def small_networks(rng: np.random.Generator) -> tuple[Model, Defender]:
    """A model and a classifier for calls that cost little."""

    def layer(rows: int, columns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        return rng.normal(size=(rows, columns)), rng.normal(size=columns) / 10

    return Model([layer(CLASSES, CLASSES)]), Defender([layer(CLASSES, 4), layer(4, 1)])
