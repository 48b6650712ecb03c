"""Runs of a policy in which every share is watched, and every word kept, to be looked for in what the run says."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import trio
import trio.testing

from siguard.actors.cluster import GuardResult, open_cluster
from siguard.actors.session import SERVERS
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.start import LOGIT_BITS
from siguard.mpc.secret import Secret
from siguard.nn.model import Defender, Model
from siguard.prf import PairwiseRandomness, RandomnessSource
from siguard.proofsim.capture import Secrets, captured
from siguard.proofsim.faults import Arrival, Network, Passing, honest
from siguard.proofsim.patching import replaced_method
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import Message
from siguard.ring import FRACTION_BITS, RingArray
from siguard.transport.frame import Kind

_CLASSES = 4


def secret_types() -> list[type[Secret]]:
    """Every type of the package that holds a secret."""
    found, todo = [], [Secret]
    while todo:
        kinds = [kind for kind in todo.pop().__subclasses__() if kind.__module__.startswith("siguard.")]
        found += kinds
        todo += kinds
    return found


@dataclass
class WatchedRun:
    """What one policy did to its secrets and what it said.

    refused: each use that a share refused.  watched: shares made.  broke: why an honest call gave no answer.
    """

    name: str
    refused: list[str] = field(default_factory=list)
    watched: int = 0
    broke: str = ""
    said: io.BytesIO = field(default_factory=io.BytesIO)
    errors: list[SiguardError] = field(default_factory=list)
    secrets: Secrets = field(default_factory=lambda: Secrets([]))


@dataclass
class _Material:
    """What a run must not say, as it comes up."""

    arrays: list[RingArray] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)

    def plant(self, values: npt.NDArray[np.float64]) -> None:
        """Numbers of an input or an answer, one by one, and its rows as fixed-point integers."""
        self.texts += [repr(value) for value in values.reshape(-1).tolist()]
        for bits in (FRACTION_BITS, LOGIT_BITS):
            rows = np.rint(values * 2.0**bits).astype(np.int64)
            self.texts += [str(row)[1:-1] for row in rows.reshape(-1, rows.shape[-1]).tolist()]


def watched_run(config: GuardConfig, seed: int) -> WatchedRun:
    """Run a policy: an honest call, one that meets a broken frame, one in which a server is killed.

    Runs its own event loop.
    """
    run, material = WatchedRun(f"{config.policy}, seed {seed}"), _Material()

    def source(keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        material.keys.update(keys.values())
        return PairwiseRandomness(keys, session, dealer, party)

    recorder = Recorder(source)
    clock = trio.testing.MockClock(autojump_threshold=0)
    with captured() as run.said, _watched(run, material):
        trio.run(_sessions, config, seed, run, material, recorder, clock=clock)
    for event in recorder.events():
        if not isinstance(event, Message) or event.kind == Kind.DATA:  # requests and grants are public
            material.arrays.append(event.array)
    run.secrets = Secrets(material.arrays, material.texts, material.keys)
    return run


@contextmanager
def _watched(run: WatchedRun, material: _Material) -> Iterator[None]:
    """Count refusals, and keep the arrays of every share that is made."""
    refuse = Secret._refuse

    def counted(self: Secret, action: str) -> NoReturn:
        run.refused.append(f"{action} a secret {type(self).__name__}")
        refuse(self, action)

    def noting(kind: type[Secret]) -> Callable[..., None]:
        make: Callable[..., None] = kind.__dict__["__init__"]
        parts = [name for name in ("first", "second", "value") if name in kind.__dict__]

        def noted(self: Secret, *args: Any, **more: Any) -> None:
            make(self, *args, **more)
            run.watched += 1
            material.arrays.extend(getattr(self, name) for name in parts)

        return noted

    with ExitStack() as patches:
        patches.enter_context(replaced_method(Secret, "_refuse", counted))
        for kind in secret_types():
            if "__init__" in kind.__dict__:
                patches.enter_context(replaced_method(kind, "__init__", noting(kind)))
        yield


async def _sessions(
    config: GuardConfig, seed: int, run: WatchedRun, material: _Material, recorder: Recorder
) -> None:
    rng = np.random.default_rng([seed, 7])
    network = Network()
    model, defender = _networks(rng)
    for matrix, bias in defender.layers:
        material.plant(matrix)
        material.plant(bias[None])
    async with open_cluster(
        seed,
        wrap_link=lambda link, owner: network.wrap_link(recorder.wrap_link(link, owner), owner),
        randomness=recorder.randomness,
    ) as cluster:

        async def call() -> GuardResult:
            # Multiples of 2^-16: the network below passes them on as logits, and both print alike.
            features = np.rint(rng.normal(size=(2, _CLASSES)) * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS
            material.plant(features)
            return await cluster.query(features, model, defender, config)

        try:
            result = await call()
        except SiguardError as error:
            run.broke, frames = f"an honest call ends with {type(error).__name__}", 30
            run.errors.append(error)
        else:
            material.plant(result.confidences)
            frames = result.traffic.messages

        def broken(passing: Passing) -> list[Arrival]:
            return [Arrival(passing.data[:-1])]

        def killed(passing: Passing) -> list[Arrival]:
            cluster.kill(SERVERS[seed % 3])
            return honest(passing)

        for meet in (broken, killed):
            network.tamper = _at(frames // 2, meet)
            try:
                await call()
            except SiguardError as error:
                run.errors.append(error)
            else:
                run.broke = f"a call survives that a frame or a server is {meet.__name__}"


def _at(number: int, meet: Callable[[Passing], list[Arrival]]) -> Callable[[Passing], list[Arrival]]:
    """Meet one frame, by its number from now on."""
    left = number

    def tamper(passing: Passing) -> list[Arrival]:
        nonlocal left
        left -= 1
        return meet(passing) if left == 0 else honest(passing)

    return tamper


def _networks(rng: np.random.Generator) -> tuple[Model, Defender]:
    """A model whose logits are its features, through a hidden layer; and any classifier."""
    same, far = np.eye(_CLASSES), np.full(_CLASSES, 8.0)
    hidden = rng.normal(size=(_CLASSES, 5)), rng.normal(size=5)
    return Model([(same, far), (same, -far)]), Defender([hidden, (rng.normal(size=(5, 1)), rng.normal(size=1))])
