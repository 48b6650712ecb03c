"""What the actor tests share: tiny networks, links that record or change frames, and how a call failed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import trio

from siguard import Cluster, Defender, GuardConfig, Model, SiguardError, open_cluster
from siguard.actors.actor import Actor
from siguard.actors.client import ModelOwner
from siguard.actors.messages import Request
from siguard.nn.model import FloatArray
from siguard.transport.frame import Frame, Kind, decode_frame
from siguard.transport.link import Link
from siguard.transport.wrapped import WrappedLink

SERVERS = ("S0", "S1", "S2")
#: One step of the published guard: every gate once, few frames.
SHORT = GuardConfig(outer=1, inner=1)
LABEL, NONE, LINESEARCH = GuardConfig("label"), GuardConfig("none"), GuardConfig("linesearch")
#: Virtual seconds that a party waits for a frame in these tests.
DEADLINE = 5.0


def layers(shape: Sequence[int], seed: int = 0) -> list[tuple[FloatArray, FloatArray]]:
    """Random weights of a dense network of these widths."""
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(m, n)), rng.normal(size=n) / 10) for m, n in pairwise(shape)]


def tiny_defender(seed: int = 0) -> Defender:
    return Defender(layers((4, 8, 6, 1), seed))


def tiny_model(seed: int = 0) -> Model:
    return Model(layers((5, 7, 4), seed))


def some_logits(batch: int = 2, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(batch, 4)) * 2


def some_features(batch: int = 2, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(batch, 5))


def seed_scheduler(seed: int) -> None:
    """Trio runs tasks that are ready in random order; with a seed the order repeats."""
    trio._core._run._r.seed(seed)


class Sent(NamedTuple):
    """One message as its sender passed it to its link."""

    sender: str
    receiver: str
    data: bytes

    @property
    def frame(self) -> Frame:
        return decode_frame(self.data)


#: Given a message, what goes on the link in its place.
Change = Callable[[Sent], list[bytes]]


class TappedLink(WrappedLink):
    """One end of a link, seen by a `Wire`."""

    def __init__(self, link: Link, owner: str, wire: Wire) -> None:
        super().__init__(link)
        self.owner = owner
        self.closed = False
        self._wire = wire

    async def send(self, data: bytes) -> None:
        sent = Sent(self.owner, self.peer, bytes(data))
        self._wire.frames.append(sent)
        for message in self._wire.change(sent):
            await self.link.send(message)

    async def aclose(self) -> None:
        self.closed = True
        await self.link.aclose()


class Wire:
    """All links of one cluster; pass it as ``wrap_link``.  ``change`` may be set at any time."""

    def __init__(self) -> None:
        self.frames: list[Sent] = []
        self.ends: dict[tuple[str, str], TappedLink] = {}
        self.change: Change = lambda sent: [sent.data]

    def __call__(self, link: Link, owner: str) -> TappedLink:
        end = self.ends[owner, link.peer] = TappedLink(link, owner, self)
        return end

    def of_session(self, session: bytes) -> list[Sent]:
        return [sent for sent in self.frames if sent.frame.session == session]

    def last_request(self) -> Request:
        """The latest request of the user or upstream."""
        starts = [sent.frame for sent in self.frames if sent.sender in ("user", "upstream")]
        return Request.decode(next(frame.payload for frame in reversed(starts) if frame.kind is Kind.START))

    def sorted_frames(self) -> list[Sent]:
        """The transcript without the order in which links take turns."""
        return sorted(self.frames)

    def nth(self, link: tuple[str, str], n: int, change: Change) -> list[Sent]:
        """Apply ``change`` to the n-th data frame from now on ``link``; the result lists the frame once hit."""
        seen = 0
        hit: list[Sent] = []

        def apply(sent: Sent) -> list[bytes]:
            nonlocal seen
            if (sent.sender, sent.receiver) != link or sent.frame.kind is not Kind.DATA:
                return [sent.data]
            seen += 1
            if seen != n:
                return [sent.data]
            hit.append(sent)
            return change(sent)

        self.change = apply
        return hit

    def count_down(self, n: int, action: Callable[[], None]) -> None:
        """Run ``action`` just before the n-th frame from now, whoever sends it."""
        left = n

        def apply(sent: Sent) -> list[bytes]:
            nonlocal left
            left -= 1
            if left == 0:
                action()
            return [sent.data]

        self.change = apply


@asynccontextmanager
async def glass_cluster(seed: int, wire: Wire | None = None) -> AsyncIterator[Cluster]:
    """A cluster with ``debug_open``."""
    async with open_cluster(seed, debug_open=True, wrap_link=wire) as cluster:
        yield cluster


class Failure(NamedTuple):
    """How a call failed, and how long that took on the test's clock."""

    error: SiguardError
    seconds: float


async def failure_of(call: Awaitable[Any]) -> Failure:
    """The `SiguardError` that a call must end with."""
    started = trio.current_time()
    with pytest.raises(SiguardError) as caught:
        await call
    return Failure(caught.value, trio.current_time() - started)


def parties(cluster: Cluster) -> dict[str, Actor]:
    """The actors themselves; the one place where these tests reach for them."""
    return cluster._actors


def owner_of(cluster: Cluster) -> ModelOwner:
    owner = parties(cluster)["owner"]
    assert isinstance(owner, ModelOwner)
    return owner


def open_sessions(cluster: Cluster) -> dict[str, int]:
    """Mailboxes that are still there, per party."""
    return {name: len(actor._mailboxes) for name, actor in parties(cluster).items() if actor._mailboxes}


def session_tasks(cluster: Cluster) -> dict[str, int]:
    """Tasks beyond one for each link, per party that runs."""
    counts = {}
    for name, actor in parties(cluster).items():
        if actor.nursery is not None and len(actor.nursery.child_tasks) > len(actor._links):
            counts[name] = len(actor.nursery.child_tasks) - len(actor._links)
    return counts
