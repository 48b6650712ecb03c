"""Prepared sessions: the frames of an unprepared query, the dealer's ahead of it; each is used once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from fault_links import (
    DEADLINE,
    LABEL,
    LINESEARCH,
    NONE,
    SERVERS,
    SHORT,
    Wire,
    some_features,
    tiny_defender,
    tiny_model,
)
from prepared_queries import (
    DEFENDER,
    MODEL,
    ask,
    assert_nothing_left,
    dealt,
    is_extra,
    model_of,
    stock_of,
    transcript,
)

from siguard import (
    Direction,
    GuardConfig,
    GuardResult,
    NetworkProfile,
    VirtualTime,
    open_cluster,
)
from siguard.actors.messages import Request
from siguard.actors.prepared import PREPARE, READY
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.shapes import by_role
from siguard.proofsim.view import Message, ShapeLine
from siguard.transport.accountant import Traffic
from siguard.transport.frame import HEADER_BYTES, Kind

# The same query ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SHORT, LINESEARCH], ids=["siguard", "linesearch"])
@pytest.mark.parametrize("dealer", SERVERS)
async def test_a_prepared_query_is_the_same_query(config: GuardConfig, dealer: str, autojump_clock: Any) -> None:
    """Every frame to the byte, the answer to the bit; beside it three requests ahead, and three replies."""
    expected = await transcript(config, dealer, prepared=False)
    found = await transcript(config, dealer, prepared=True, seconds=10 * DEADLINE)
    assert (found.answer == expected.answer).all()
    extra = [sent for sent in found.frames if is_extra(sent)]
    assert [sent for sent in found.frames if not is_extra(sent)] == expected.frames
    assert len(extra) == 2 * len(SERVERS)
    assert found.traffic.rounds == expected.traffic.rounds
    assert found.traffic.prepare == expected.traffic.prepare
    assert found.traffic.online == expected.traffic.online + sum(len(sent.data) for sent in extra)
    # The requests ahead are as long as those of the query; a reply is one element.
    requests = [len(sent.data) for sent in expected.frames if sent.frame.kind is Kind.START]
    assert sum(len(sent.data) for sent in extra) == sum(requests) + len(SERVERS) * (HEADER_BYTES + 8)


@pytest.mark.parametrize("kind", ["query", "guard"])
@pytest.mark.parametrize("prepared", [False, True])
async def test_prepare_and_online_sum_to_all_bytes(kind: str, prepared: bool, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=2, wrap_link=wire) as cluster:
        await ask(cluster, kind)
        wire.frames.clear()
        if prepared:
            await cluster.prepare(DEFENDER, SHORT, 2, model=model_of(kind))
        traffic = (await ask(cluster, kind)).traffic
        sent = dealt(wire.frames, wire.last_request().dealer)
        assert traffic.prepare == sum(len(one.data) for one in sent) > 0
        assert traffic.bytes_total == sum(len(one.data) for one in wire.frames)
        assert traffic.prepare + traffic.online == traffic.bytes_total


def test_what_was_dealt_is_merged_and_told() -> None:
    one, other = Traffic(), Traffic()
    one.record("S2", "S0", "guard", 100, 2, dealt=True)
    other.record("S2", "S1", "guard", 120, 2, dealt=True)
    other.record("S0", "S1", "guard", 80, 3)
    one.merge(Traffic.from_plain(other.to_plain()))
    assert (one.prepare, one.online, one.bytes_total) == (220, 80, 300)
    steps, links, _ = other.to_plain()
    for wrong in (-1, 201, "all", None):
        with pytest.raises(ValueError, match=r"int|traffic"):
            Traffic.from_plain([steps, links, wrong])


@pytest.mark.parametrize("kind", ["query", "guard"])
async def test_views_have_the_same_shape(kind: str, autojump_clock: Any) -> None:
    """What anybody on the network sees of a prepared query, but for the request ahead and its replies."""
    shapes: list[list[ShapeLine]] = []
    for prepared in (False, True):
        recorder = Recorder()
        async with open_cluster(seed=3, wrap_link=recorder.wrap_link, randomness=recorder.randomness) as cluster:
            await ask(cluster, kind)
            recorder.clear()
            if prepared:
                await cluster.prepare(DEFENDER, SHORT, 2, model=model_of(kind))
            recorder.learn_steps((await ask(cluster, kind)).traffic.by_step())
            sent = [event for event in recorder.events() if isinstance(event, Message) and not event.received]
        shapes.append(by_role(sent)[0])
    client = "user" if kind == "query" else "upstream"
    extra = [line for line in shapes[1] if line.step in (PREPARE, READY)]
    assert sorted((line.link, line.step, line.kind) for line in extra) == sorted(
        line
        for role in range(3)
        for line in (
            (f"{client}>role {role}", PREPARE, int(Kind.START)),
            (f"role {role}>{client}", READY, int(Kind.DATA)),
        )
    )
    assert [line for line in shapes[1] if line not in extra] == shapes[0]


# Which query uses which session -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "guard"])
async def test_first_in_first_out_each_once_and_dealers_in_turn(kind: str, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(wrap_link=wire, debug_open=True) as cluster:
        await ask(cluster, kind)
        wire.frames.clear()
        await cluster.prepare(DEFENDER, SHORT, 2, 3, model=model_of(kind))
        stock = list(stock_of(cluster, kind)._prepared.values())
        sessions, dealers = [one.session for one in stock], [one.request.dealer for one in stock]
        assert sorted(dealers) == list(SERVERS)
        # Everything that is dealt has been, and nobody else has begun.
        ahead = {session: wire.of_session(session) for session in sessions}
        assert all(sent.sender == dealer or is_extra(sent) for s, dealer in zip(sessions, dealers, strict=True)
                   for sent in ahead[s])  # fmt: skip
        used = []
        for number in range(4):
            wire.frames.clear()
            result = await ask(cluster, kind)
            starts = [sent.frame for sent in wire.frames if sent.frame.kind is Kind.START]
            used.append(starts[0].session)
            assert result.internals is not None
            assert result.internals.accepted is not None
            if number < 3:
                assert Request.decode(starts[0].payload).dealer == dealers[number]
                assert (
                    sum(len(sent.data) for sent in dealt(ahead[used[-1]], dealers[number]))
                    == result.traffic.prepare
                )
                assert not dealt(wire.frames, dealers[number])
        assert used[:3] == sessions
        assert used[3] not in sessions
        assert_nothing_left(cluster)
        assert cluster._probes == {}


async def test_only_the_same_query_uses_it(autojump_clock: Any) -> None:
    async with open_cluster() as cluster:
        await cluster.prepare(DEFENDER, LABEL, 2, model=MODEL)
        await cluster.prepare(DEFENDER, LABEL, 2)
        others: list[Callable[[], Awaitable[GuardResult]]] = [
            lambda: ask(cluster, "query", LABEL, batch=3),
            lambda: ask(cluster, "query", NONE),
            lambda: cluster.query(some_features(), MODEL, tiny_defender(7), LABEL),
            lambda: cluster.query(some_features(), tiny_model(7), DEFENDER, LABEL),
            lambda: ask(cluster, "guard", NONE),
        ]
        for other in others:
            assert PREPARE not in (await other()).traffic.by_step()
        # The same configuration, said otherwise.
        for kind in ("query", "guard"):
            assert PREPARE in (await ask(cluster, kind, GuardConfig("label"))).traffic.by_step()
            assert PREPARE not in (await ask(cluster, kind, LABEL)).traffic.by_step()
        assert_nothing_left(cluster)


async def test_queries_at_once_use_one_each(autojump_clock: Any) -> None:
    results: list[GuardResult] = []
    async with open_cluster(seed=1) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, 3, model=MODEL)

        async def one() -> None:
            results.append(await ask(cluster, "query"))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert_nothing_left(cluster)
    assert sum(PREPARE in result.traffic.by_step() for result in results) == 3
    for result in results:
        assert np.abs(result.confidences - results[0].confidences).max() < 1e-3


async def seconds_of_a_query(network: NetworkProfile | str, *, prepared: bool) -> float:
    async with open_cluster(seed=1, network=network, time=VirtualTime()) as cluster:
        await ask(cluster, "query")
        if prepared:
            await cluster.prepare(DEFENDER, SHORT, 2, model=MODEL)
            await trio.sleep(10)
        return (await ask(cluster, "query")).seconds


async def test_preparing_takes_nothing_from_the_latency(autojump_clock: Any) -> None:
    """Over a wide-area network rounds decide, and what runs ahead anyway; over a narrow one, what must be sent."""
    expected, found = [await seconds_of_a_query("wan", prepared=prepared) for prepared in (False, True)]
    assert found <= expected + 1e-9
    narrow = NetworkProfile("narrow", Direction(latency_seconds=0.001, bits_per_second=1e5))
    expected, found = [await seconds_of_a_query(narrow, prepared=prepared) for prepared in (False, True)]
    assert found < 0.7 * expected, (found, expected)
