"""What the tests of prepared sessions share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import trio
import trio.testing
from fault_links import (
    SERVERS,
    SHORT,
    Sent,
    Wire,
    open_sessions,
    parties,
    session_tasks,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import (
    Cluster,
    GuardConfig,
    GuardResult,
    Model,
    open_cluster,
)
from siguard.actors.client import Client
from siguard.actors.prepared import PREPARE, READY
from siguard.actors.server import Server
from siguard.actors.stock import Stock
from siguard.ring import FRACTION_BITS, encode
from siguard.transport.accountant import Traffic
from siguard.transport.frame import Kind, step_digest

MODEL, DEFENDER = tiny_model(), tiny_defender()
SESSION = b"prepared session"
EXTRA = (step_digest(PREPARE), step_digest(READY))


async def ask(cluster: Cluster, kind: str, config: GuardConfig = SHORT, batch: int = 2) -> GuardResult:
    if kind == "query":
        return await cluster.query(some_features(batch), MODEL, DEFENDER, config)
    return await cluster.guard(some_logits(batch), DEFENDER, config)


def model_of(kind: str) -> Model | None:
    return MODEL if kind == "query" else None


def dealt(frames: list[Sent], dealer: str) -> list[Sent]:
    """What the dealer sent to servers."""
    return [one for one in frames if one.sender == dealer and one.receiver in SERVERS and is_data(one)]


def is_data(sent: Sent) -> bool:
    return sent.frame.kind is Kind.DATA


def is_extra(sent: Sent) -> bool:
    return sent.frame.step in EXTRA


def assert_nothing_left(cluster: Cluster) -> None:
    assert open_sessions(cluster) == {}
    assert session_tasks(cluster) == {}
    for actor in parties(cluster).values():
        if isinstance(actor, Server):
            assert actor._serving == {}
            assert len(actor._prepared._sessions) == 0
        elif isinstance(actor, Client):
            assert len(actor._stock) == 0


def stock_of(cluster: Cluster, kind: str) -> Stock:
    client = parties(cluster)["user" if kind == "query" else "upstream"]
    assert isinstance(client, Client)
    return client._stock


class Transcript(NamedTuple):
    answer: np.ndarray[Any, Any]
    frames: list[Sent]
    traffic: Traffic


async def transcript(config: GuardConfig, dealer: str, *, prepared: bool, seconds: float = 0.0) -> Transcript:
    """The same session of the same seed, prepared or not, and the query ``seconds`` later."""
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        await cluster.query(some_features(), MODEL, DEFENDER, config)  # shares and signs
        request = replace(wire.last_request(), dealer=dealer)
        value = encode(some_features(), FRACTION_BITS)
        if prepared:
            await cluster.user.prepare({SESSION: request})
            taken = cluster.user.take_prepared(request)
            assert taken is not None
            assert taken.session == SESSION
            await trio.sleep(seconds)
        answer = await cluster.user.ask(SESSION, request, value, (2, 4))
        traffic = cluster._ledger.take(SESSION)
        assert_nothing_left(cluster)
    return Transcript(answer.confidences, sorted(wire.of_session(SESSION)), traffic)
