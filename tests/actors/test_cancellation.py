"""Cancelled calls, many calls at once, and what is left after the block: nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from fault_links import (
    DEADLINE,
    LABEL,
    LINESEARCH,
    NONE,
    SHORT,
    Sent,
    Wire,
    failure_of,
    open_sessions,
    parties,
    session_tasks,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import Cluster, InputError, open_cluster
from siguard.actors.server import Server
from siguard.transport.frame import Kind

MODEL, DEFENDER = tiny_model(), tiny_defender()


class BodyError(Exception):
    """Raised by the test inside the block."""


async def _cancelled_call(cluster: Cluster, wire: Wire, path: str, at: int) -> bool:
    """A call whose scope is cancelled at its n-th frame; False when it was over before."""
    with trio.CancelScope() as scope:
        wire.count_down(at, scope.cancel)
        if path == "guard":
            await cluster.guard(some_logits(seed=99), DEFENDER, SHORT)
        else:
            await cluster.query(some_features(seed=99), MODEL, DEFENDER, SHORT)
    return scope.cancelled_caught


@pytest.mark.parametrize("path", ["guard", "query"])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 17, 60, 120])
async def test_a_cancelled_call_ends_everywhere(path: str, at: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        expected = await cluster.guard(some_logits(), DEFENDER, SHORT)
        await cluster.query(some_features(), MODEL, DEFENDER, SHORT)
        started = trio.current_time()
        assert await _cancelled_call(cluster, wire, path, at)
        assert trio.current_time() - started <= 2, "the cancelled caller was held up"
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}, f"cancelled at frame {at}"
        assert open_sessions(cluster) == {}, f"cancelled at frame {at}: a session that never began is kept"
        again = await cluster.guard(some_logits(), DEFENDER, SHORT)
        assert np.abs(again.confidences - expected.confidences).max() < 1e-3


@pytest.mark.parametrize("at", [5, 100, 300])
async def test_five_sessions_beside_a_cancelled_one_finish(at: int, autojump_clock: Any) -> None:
    wire = Wire()
    answers: dict[int, Any] = {}

    async def one(index: int) -> None:
        answers[index] = (await cluster.guard(some_logits(seed=index), DEFENDER, SHORT)).confidences

    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        expected = [(await cluster.guard(some_logits(seed=i), DEFENDER, SHORT)).confidences for i in range(5)]
        async with trio.open_nursery() as nursery:
            for index in range(5):
                nursery.start_soon(one, index)
            assert await _cancelled_call(cluster, wire, "guard", at)
        assert sorted(answers) == [0, 1, 2, 3, 4]
        for index in range(5):
            assert np.abs(answers[index] - expected[index]).max() < 1e-3, f"session {index} beside a cancelled one"
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}


@pytest.mark.parametrize("at", [1, 4, 6, 9, 13])
async def test_cancelled_while_a_network_is_shared(at: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        with trio.CancelScope() as scope:
            wire.count_down(at, scope.cancel)
            await cluster.guard(some_logits(), DEFENDER, LABEL)
        assert scope.cancelled_caught
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}
        result = await cluster.guard(some_logits(), DEFENDER, LABEL)
        assert (result.confidences.argmax(axis=1) == some_logits().argmax(axis=1)).all()


async def test_a_callers_own_deadline(autojump_clock: Any) -> None:
    """`move_on_after` around a call that hangs: the caller goes on, the servers end the session."""
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await cluster.guard(some_logits(), DEFENDER, SHORT)
        wire.nth(("S1", "S0"), 3, lambda sent: [])
        wire.nth(("S0", "S1"), 3, lambda sent: [])

        def drop_all_data(sent: Sent) -> list[bytes]:
            return [] if sent.sender == "S1" and sent.frame.kind is Kind.DATA else [sent.data]

        wire.change = drop_all_data
        with trio.move_on_after(1) as scope:
            await cluster.guard(some_logits(), DEFENDER, SHORT)
        assert scope.cancelled_caught
        await trio.sleep(0.1)
        assert session_tasks(cluster) == {}


async def test_twenty_sessions_at_once(autojump_clock: Any) -> None:
    configs = [LABEL, NONE, LINESEARCH, SHORT]
    answers: dict[int, Any] = {}

    async def one(index: int) -> None:
        config = configs[index % 4]
        if index % 2:
            result = await cluster.guard(some_logits(3, seed=index), DEFENDER, config)
        else:
            result = await cluster.query(some_features(3, seed=index), MODEL, DEFENDER, config)
        answers[index] = result

    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        async with trio.open_nursery() as nursery:
            for index in range(20):
                nursery.start_soon(one, index)
        assert open_sessions(cluster) == {}
        assert session_tasks(cluster) == {}
    assert len(answers) == 20
    for index, result in answers.items():
        inputs = some_logits(3, seed=index) if index % 2 else MODEL(some_features(3, seed=index))
        assert (result.confidences.argmax(axis=1) == inputs.argmax(axis=1)).all(), f"call {index}"
    for first in range(4):
        alike = [answers[index].traffic for index in range(first, 20, 4)]
        assert len({(one.rounds, one.bytes_total, one.messages) for one in alike}) == 1, "traffic of calls mixed"


async def _use(cluster: Cluster, wire: Wire, story: str) -> None:
    await cluster.guard(some_logits(), DEFENDER, LABEL)
    if story == "a party killed":
        cluster.kill("S2")
        await failure_of(cluster.guard(some_logits(), DEFENDER, LABEL))
    elif story == "garbage on a link":
        await wire.ends["S1", "S0"].link.send(b"garbage")
        await trio.sleep(1)
    elif story == "left in the middle":
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.guard, some_logits(), DEFENDER, SHORT)
            wire.count_down(40, nursery.cancel_scope.cancel)
            await trio.sleep(1)
    elif story == "an error in the body":
        raise BodyError


@pytest.mark.parametrize(
    "story", ["all went well", "a party killed", "garbage on a link", "left in the middle", "an error in the body"]
)
async def test_nothing_is_left_after_the_block(story: str, autojump_clock: Any) -> None:
    wire = Wire()
    before = trio.lowlevel.current_statistics().tasks_living
    try:
        async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
            await _use(cluster, wire, story)
    except BodyError:
        pass
    await trio.lowlevel.checkpoint()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert all(actor.nursery is None for actor in parties(cluster).values())
    for server in parties(cluster).values():
        if isinstance(server, Server):
            assert server._door._limiter.statistics().borrowed_tokens == 0
    still_open = [name for name, end in wire.ends.items() if not end.closed]
    assert still_open == [], f"{story}: links not closed"


async def test_errors_in_the_body_leave_as_they_are(autojump_clock: Any) -> None:
    async def leave_by(error: Exception) -> None:
        async with open_cluster(seed=1) as cluster:
            await cluster.guard(some_logits(), DEFENDER, LABEL)
            raise error

    for error in (BodyError(), InputError("config"), ExceptionGroup("of the caller's own", [BodyError()])):
        with pytest.raises(type(error)) as caught:
            await leave_by(error)
        assert caught.value is error
        assert caught.value.__cause__ is None


async def test_a_keyboard_interrupt_leaves_as_it_is(autojump_clock: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        async with open_cluster(seed=1):
            raise KeyboardInterrupt


async def test_a_cancelled_block_is_just_cancelled(autojump_clock: Any) -> None:
    wire = Wire()
    with trio.CancelScope() as scope:
        wire.count_down(60, scope.cancel)
        async with open_cluster(seed=1, wrap_link=wire) as cluster:
            await cluster.guard(some_logits(), DEFENDER, SHORT)
    assert scope.cancelled_caught
