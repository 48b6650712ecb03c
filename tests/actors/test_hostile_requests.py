"""Requests that no honest client sends: each is refused by the servers, and calls after it are served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
from fault_links import (
    DEADLINE,
    LABEL,
    SERVERS,
    Failure,
    Wire,
    failure_of,
    open_sessions,
    owner_of,
    parties,
    session_tasks,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import Cluster, Defender, Model, PolicyError, ProtocolError, SiguardError, open_cluster
from siguard.actors.messages import Request
from siguard.guard.start import LOGIT_BITS
from siguard.ring import FRACTION_BITS, encode
from siguard.transport.frame import Frame, Kind, encode_frame

SESSION = b"hostile session1"


@dataclass
class World:
    """A cluster that has served both paths, and a request that it would serve again."""

    cluster: Cluster
    wire: Wire
    good: Request

    async def user_sends(self, request: Request, features: bool = True) -> Failure:
        """The request as it is, whatever it says, with an input as for dealer S2."""
        value = encode(some_features(), FRACTION_BITS) if features else encode(some_logits(), LOGIT_BITS)
        user = self.cluster.user

        async def body() -> None:
            await user.send_input(SESSION, "S2", request.encode(), value)
            await user.receive_answer(SESSION, "S2", (2, 4))

        async def ask() -> None:
            error = await user.within_session(SESSION, SERVERS, body)
            if error is not None:
                raise error

        return await failure_of(ask())

    async def upstream_sends(self, request: Request, features: bool) -> Failure:
        value = encode(some_features(), FRACTION_BITS) if features else encode(some_logits(), LOGIT_BITS)
        return await failure_of(self.cluster._ask_through_upstream(SESSION, request, value, (2, 4)))

    def answers_sent(self) -> list[str]:
        frames = self.wire.of_session(SESSION)
        return [sent.sender for sent in frames if sent.receiver == "user" and sent.frame.kind is Kind.DATA]


@asynccontextmanager
async def _world() -> AsyncIterator[World]:
    wire = Wire()
    model, defender = tiny_model(), tiny_defender()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        expected = (await cluster.query(some_features(), model, defender, LABEL)).confidences
        good = wire.last_request()
        await cluster.guard(some_logits(), defender, LABEL)
        yield World(cluster, wire, replace(good, dealer="S2"))
        with trio.fail_after(DEADLINE):
            after = await cluster.query(some_features(), model, defender, LABEL)
        assert (after.confidences == expected).all(), "a call after the refusal is not served rightly"
        assert open_sessions(cluster) == {}
        assert session_tasks(cluster) == {}


async def test_the_request_that_all_others_are_made_from_is_served(autojump_clock: Any) -> None:
    async with _world() as world:
        value = encode(some_features(), FRACTION_BITS)
        answer = await world.cluster.user.ask(SESSION, world.good, value, (2, 4))
        assert answer.confidences.shape == (2, 4)


async def test_the_user_cannot_share_logits(autojump_clock: Any) -> None:
    async with _world() as world:
        failure = await world.user_sends(replace(world.good, kind="guard", model=b"", width=4), features=False)
        assert isinstance(failure.error, ProtocolError)
        assert failure.error.party == "user"
        assert world.answers_sent() == []


async def test_a_query_without_a_model_is_logits_too(autojump_clock: Any) -> None:
    """Where upstream may guard logits, the user may still only query a model."""
    async with _world() as world:
        failure = await world.user_sends(replace(world.good, model=b"", width=4), features=False)
        assert isinstance(failure.error, ProtocolError | PolicyError), repr(failure.error)
        assert world.answers_sent() == []


@pytest.mark.parametrize("kind", ["query", "guard"])
async def test_upstream_cannot_send_features(kind: str, autojump_clock: Any) -> None:
    async with _world() as world:
        failure = await world.upstream_sends(replace(world.good, kind=kind), features=True)
        assert isinstance(failure.error, ProtocolError | PolicyError), f"{kind}: {failure.error!r}"
        assert world.answers_sent() == []


@pytest.mark.parametrize("field", ["defender", "model"])
@pytest.mark.parametrize("granted", [False, True])
async def test_an_unknown_name_is_a_clear_error(field: str, granted: bool, autojump_clock: Any) -> None:
    async with _world() as world:
        request = replace(world.good, **{field: b"nobody has shared this"})  # type: ignore[arg-type]
        if granted:  # the owner signed for something that it then did not share
            await owner_of(world.cluster).grant(b"grant of nothing", request.defender, request.model, LABEL)
        failure = await world.user_sends(request)
        assert "KeyError" not in str(failure.error), str(failure.error)
        assert world.answers_sent() == []


async def test_a_model_of_other_classes_is_refused_before_it_runs(autojump_clock: Any) -> None:
    """The owner signed a pair that does not fit: servers say so, and not by an error in the middle."""
    async with _world() as world:
        cluster = world.cluster
        three = Model([(np.ones((5, 3)), np.zeros(3))])
        await cluster.query(some_features(), three, Defender([(np.ones((3, 2)), np.zeros(2)), ([[1], [1]], [0])]))
        name = world.wire.last_request().model
        await owner_of(cluster).grant(b"grant of misfits", world.good.defender, name, LABEL)
        failure = await world.user_sends(replace(world.good, model=name))
        assert world.answers_sent() == []
        assert "class" in str(failure.error) or "width" in str(failure.error), str(failure.error)


@pytest.mark.parametrize(
    "lie",
    [
        {"batch": 3}, {"batch": 1}, {"batch": 0}, {"batch": -1}, {"batch": True}, {"batch": 2.0}, {"batch": "2"},
        {"width": 4}, {"width": 6}, {"width": 0}, {"width": -5}, {"width": None},
        {"dealer": "S3"}, {"dealer": "user"}, {"dealer": ""}, {"kind": ""}, {"kind": "load"},
        {"config": {}}, {"config": {"policy": "none"}}, {"config": {"policy": ["label"]}}, {"config": {1: 2}},
        {"config": {"policy": "label", "bogus": 1}}, {"config": {"policy": "siguard", "c1": float("nan")}},
        {"config": {"policy": "siguard", "outer": 0}}, {"config": "label"}, {"defender": "text"}, {"model": None},
    ],
    ids=str,
)  # fmt: skip
async def test_a_lie_in_a_request_is_refused(lie: dict[str, Any], autojump_clock: Any) -> None:
    async with _world() as world:
        failure = await world.user_sends(replace(world.good, **lie))
        assert isinstance(failure.error, SiguardError)
        assert failure.seconds <= DEADLINE
        assert failure.error.session == SESSION.hex()
        assert "failed with" not in str(failure.error), f"a server stumbled over {lie}: {failure.error}"
        assert world.answers_sent() == []


@pytest.mark.parametrize("batch", [2**50, 2**62, 2**63])
async def test_a_huge_batch_is_refused_and_not_allocated(batch: int, autojump_clock: Any) -> None:
    async with _world() as world:
        failure = await world.user_sends(replace(world.good, batch=batch))
        message = str(failure.error)
        assert "MemoryError" not in message, f"a server tried to allocate {batch} rows: {message}"
        assert "OverflowError" not in message, message


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xff\xc1", b"\x81\x90\x01", b"\x93\x01\x02", b"\x90", b"\x91" * 3000, bytes(1000),
        msgpack.packb({"kind": 1}), msgpack.packb([1, 2]), msgpack.packb("query"), msgpack.packb(None),
    ],
    ids=lambda payload: payload[:8].hex() or "empty",
)  # fmt: skip
@pytest.mark.parametrize("kind", [Kind.START, Kind.GRANT])
async def test_garbage_in_place_of_a_request(payload: bytes, kind: Kind, autojump_clock: Any) -> None:
    async with _world() as world:
        user = world.cluster.user

        async def body() -> None:
            for server in SERVERS:
                data = np.frombuffer(payload, np.uint8)
                await user.outbox(SESSION).send(server, kind, "start", 1, data)
            await user.mailbox(SESSION).take("S0", "reveal")

        error = await user.within_session(SESSION, SERVERS, body)
        assert isinstance(error, ProtocolError), repr(error)
        assert "failed with" not in str(error), str(error)


async def test_a_session_cannot_be_opened_twice(autojump_clock: Any) -> None:
    async with _world() as world:
        user = world.cluster.user

        async def body() -> None:
            await user.send_input(SESSION, "S2", world.good.encode(), encode(some_features(), FRACTION_BITS))
            await user.outbox(SESSION).send("S0", Kind.START, "start", 1, world.good.encode())
            await user.receive_answer(SESSION, "S2", (2, 4))

        started = trio.current_time()
        error = await user.within_session(SESSION, SERVERS, body)
        assert trio.current_time() - started <= DEADLINE
        assert error is None or error.party in ("user", "S0")


@pytest.mark.parametrize("kind", [Kind.START, Kind.GRANT])
async def test_a_server_that_sends_a_request_harms_nobody_else(kind: Kind, autojump_clock: Any) -> None:
    async with _world() as world:
        frame = Frame(kind, SESSION, b"step 000", 1, world.good.encode())
        await world.wire.ends["S1", "S0"].link.send(encode_frame(frame))
        await trio.sleep(1)


@pytest.mark.parametrize("kind", [Kind.START, Kind.GRANT, Kind.DATA, Kind.ABORT])
async def test_clients_take_no_requests(kind: Kind, autojump_clock: Any) -> None:
    async with _world() as world:
        data = np.frombuffer(b"\xc0", np.uint8)
        for client in ("user", "upstream", "owner"):
            frame = Frame(kind, SESSION, b"step 000", 1, data if kind is not Kind.ABORT else data[:0])
            if kind is not Kind.ABORT:
                await world.wire.ends["S1", client].link.send(encode_frame(frame))
        await trio.sleep(1)
        for client in ("user", "upstream", "owner"):
            parties(world.cluster)[client]._mailboxes.pop(SESSION, None)  # opened by the stray frame
