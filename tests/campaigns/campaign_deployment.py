"""A deployment to torment: tiny networks, fixed questions, and what float64 answers to them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import structlog

from siguard import Defender, GuardConfig, Model, reference
from siguard.actors.cluster import GuardResult
from siguard.deploy.launch import Processes, open_processes
from siguard.deploy.loopback import Loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.user import Service, User, connect
from siguard.nn.model import FloatArray

SERVERS = ("S0", "S1", "S2")
SIGUARD = GuardConfig(outer=3, inner=10)
LINESEARCH, LABEL = GuardConfig("linesearch"), GuardConfig("label")
#: Largest difference between a right answer and float64's: of the questions below, none comes near it.
TOLERANCE = 0.01
#: Features of which every policy's answer is far from where a rounding error would change a decision.
QUESTIONS = 3


def _layers(widths: Sequence[int], seed: int) -> list[tuple[FloatArray, FloatArray]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(m, n)), rng.normal(size=n) / 10) for m, n in pairwise(widths)]


MODEL = Model(_layers((5, 7, 4), 0))
DEFENDER = Defender(_layers((4, 8, 6, 1), 0))


def question(number: int) -> FloatArray:
    """One row of features."""
    return np.random.default_rng(number % QUESTIONS).normal(size=(1, 5))


def wrong_with(result: GuardResult, number: int, config: GuardConfig) -> list[str]:
    """What is not right about an answer."""
    expected = reference.guard(MODEL(question(number)), DEFENDER, config).confidences
    found = result.confidences
    if found.shape != expected.shape:
        return [f"an answer of shape {found.shape}; expected {expected.shape}"]
    wrong = []
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        wrong.append(f"the answer differs from float64 by {difference:.3g}")
    if found.argmax() != expected.argmax():
        wrong.append("the label is another one")
    return wrong


@dataclass
class Fleet:
    """Three server processes that hold the networks, and a user in this process."""

    loopback: Loopback
    processes: Processes
    user: User
    services: dict[str, Service]

    def pids(self) -> dict[str, int]:
        return pids(self.processes)

    async def checked(self, number: int, config: GuardConfig) -> list[str]:
        """Ask a question; returns what is wrong with the answer.  Raises what `User.query` raises."""
        result = await self.user.query(question(number), service=self.services[config.policy])
        return wrong_with(result, number, config)


def pids(processes: Processes) -> dict[str, int]:
    """Of the servers that were started."""
    found = {}
    for server in SERVERS:
        with suppress(KeyError):
            found[server] = processes.pid(server)
    return found


def with_limits(loopback: Loopback, **limits: float) -> Loopback:
    """The same deployment with other limits."""
    return loopback.changed(limits=loopback.deployment.limits.model_copy(update=limits))


def at_ports(loopback: Loopback, ports: dict[str, int]) -> Loopback:
    """The same deployment with every server said to be at another port."""
    servers = loopback.deployment.servers
    return loopback.changed(servers={name: replace(one, port=ports[name]) for name, one in servers.items()})


@asynccontextmanager
async def open_fleet(
    loopback: Loopback, started: Callable[[Processes], None] = lambda _: None
) -> AsyncIterator[Fleet]:
    """Start everything and share the networks; queries were answered when the block begins.

    started: called when the processes exist and have not dialled yet.
    """
    quiet()
    async with open_processes(loopback) as processes:
        started(processes)
        async with connect_owner(loopback.deployment, loopback.identities["owner"]) as owner:
            await owner.share(MODEL, DEFENDER, [LINESEARCH, LABEL, SIGUARD], "tiny")
        async with connect(loopback.deployment, loopback.identities["user"]) as user:
            services = {one.config.policy: one for one in await user.services()}
            fleet = Fleet(loopback, processes, user, services)
            for config in (LABEL, LINESEARCH):  # siguard takes longer, and is asked soon enough
                for number in range(QUESTIONS):
                    wrong = await fleet.checked(number, config)
                    if wrong:
                        raise AssertionError(f"{config.policy}, undisturbed: {', '.join(wrong)}")
            yield fleet


def quiet() -> None:
    """Keep this process's own log out of the campaign's output."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
