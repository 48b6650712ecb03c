"""Prepared sessions: how much, how many, how long, by whom; and that nothing is left of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
    failure_of,
    parties,
    some_features,
    some_logits,
)
from prepared_queries import (
    DEFENDER,
    MODEL,
    SESSION,
    ask,
    assert_nothing_left,
    dealt,
    is_data,
    is_extra,
    model_of,
    transcript,
)

from siguard import (
    InputError,
    PartyFailedError,
    PolicyError,
    ProtocolError,
    open_cluster,
)
from siguard.actors import limits, windows
from siguard.actors.limits import PREPARED_SECONDS, most_prepared
from siguard.actors.messages import Request
from siguard.actors.prepared import PREPARE
from siguard.actors.server import Server
from siguard.guard.plan import Plan
from siguard.ring import FRACTION_BITS, encode
from siguard.transport.frame import Kind

# Bounds -----------------------------------------------------------------------------------------------------------


async def test_the_dealer_waits_for_the_query_when_its_window_is_full(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    expected = await transcript(SHORT, "S2", prepared=False)
    window = 1 << 10
    monkeypatch.setattr(windows, "WINDOW_BYTES", window)
    monkeypatch.setattr(windows, "CREDIT_BYTES", window // 4)
    unprepared = await transcript(SHORT, "S2", prepared=False)
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await ask(cluster, "query")
        request = replace(wire.last_request(), dealer="S2")
        wire.frames.clear()
        await cluster.user.prepare({SESSION: request})
        await trio.sleep(20 * DEADLINE)
        sizes = {
            server: [sent.frame.payload.nbytes for sent in dealt(wire.frames, "S2") if sent.receiver == server]
            for server in ("S0", "S1")
        }
        assert max(map(sum, sizes.values())) >= window
        assert all(sum(some) < window + max(some, default=1) for some in sizes.values())
        assert not any(sent.frame.kind in (Kind.ABORT, Kind.WAIT, Kind.CREDIT) for sent in wire.frames)
        assert cluster.user.take_prepared(request) is not None
        answer = await cluster.user.ask(SESSION, request, encode(some_features(), FRACTION_BITS), (2, 4))
        traffic = cluster._ledger.take(SESSION)
        assert_nothing_left(cluster)
    assert (answer.confidences == expected.answer).all()
    # What room each credit gives back depends on which of two keys beside each other is taken first.
    frames, others = (
        [sent for sent in sorted(some) if not is_extra(sent) and sent.frame.kind is not Kind.CREDIT]
        for some in (wire.frames, unprepared.frames)
    )
    assert frames == others
    assert traffic.prepare == expected.traffic.prepare


async def test_once_the_query_has_come_the_dealer_waits_no_longer_than_ever(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1 << 10)
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, model=MODEL)
        await trio.sleep(20 * DEADLINE)
        wire.change = lambda sent: [] if sent.frame.kind is Kind.CREDIT else [sent.data]
        failure = await failure_of(ask(cluster, "query"))
        assert failure.seconds <= 1.2 * DEADLINE, failure
        wire.change = lambda sent: [sent.data]
        await trio.sleep(1)
        assert_nothing_left(cluster)


@pytest.mark.parametrize("kind", ["query", "guard"])
async def test_unused_ones_are_dropped(kind: str, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        for late in (1.0, DEADLINE + 1.0):
            await cluster.prepare(DEFENDER, SHORT, 2, 2, model=model_of(kind))
            await trio.sleep(PREPARED_SECONDS - 1)
            assert PREPARE in (await ask(cluster, kind)).traffic.by_step()
            await trio.sleep(1 + late)
            if late > DEADLINE:  # nobody calls, and still nothing is kept
                assert_nothing_left(cluster)
            assert PREPARE not in (await ask(cluster, kind)).traffic.by_step()
            await trio.sleep(0.1)
            assert_nothing_left(cluster)


async def test_a_server_keeps_so_many(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    monkeypatch.setattr(limits, "MOST_PREPARED", 4)
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        with pytest.raises(InputError, match="count: found 5; allowed: a whole number from 1 to 4"):
            await cluster.prepare(DEFENDER, LABEL, 2, 5)
        await cluster.prepare(DEFENDER, LABEL, 2, 3)
        failure = await failure_of(cluster.prepare(DEFENDER, LABEL, 2, 2, model=MODEL))
        assert isinstance(failure.error, PartyFailedError)
        assert failure.error.party in SERVERS
        for said in ("4 prepared sessions", "MOST_PREPARED", "limits.sessions", "send the queries", "600 s"):
            assert said in failure.error.message, failure.error
        await trio.sleep(0.1)
        for server in SERVERS:
            assert len(parties(cluster)[server]._mailboxes) == 3
        for _ in range(3):
            assert PREPARE in (await ask(cluster, "guard", LABEL)).traffic.by_step()
        assert PREPARE not in (await ask(cluster, "query", LABEL)).traffic.by_step()
        await cluster.prepare(DEFENDER, LABEL, 2, 4)
    assert [most_prepared(sessions) for sessions in (None, 256, 6, 1)] == [4, 4, 3, 0]


async def test_a_prepared_session_is_a_session(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await ask(cluster, "guard", LABEL)
        for server in SERVERS:
            actor = parties(cluster)[server]
            assert isinstance(actor, Server)
            actor._most_sessions = 2
        await cluster.prepare(DEFENDER, LABEL, 2, 2)
        failure = await failure_of(ask(cluster, "guard", LABEL, batch=1))
        assert "already serves 2 sessions" in failure.error.message
        failure = await failure_of(cluster.prepare(DEFENDER, LABEL, 2))
        assert "already serves 2 sessions" in failure.error.message
        for _ in range(3):
            await ask(cluster, "guard", LABEL)
        await trio.sleep(0.1)
        assert_nothing_left(cluster)


async def test_what_may_not_be_asked_may_not_be_prepared(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, allow=[LABEL], deadline=DEADLINE) as cluster:
        with pytest.raises(PolicyError):
            await cluster.prepare(DEFENDER, NONE, 2)
        await ask(cluster, "query", LABEL)
        for count in (0, -1, True, 1.0, "1", None):
            with pytest.raises(InputError, match="count"):
                await cluster.prepare(DEFENDER, LABEL, 2, count)  # type: ignore[arg-type]
            with pytest.raises(InputError, match="batch"):
                await cluster.prepare(DEFENDER, LABEL, count)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="batch: 1099511627776 rows would need"):
            await cluster.prepare(DEFENDER, LABEL, 1 << 40)
        with pytest.raises(InputError, match="defender"):
            await cluster.prepare("h", LABEL, 2)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="model"):
            await cluster.prepare(DEFENDER, LABEL, 2, model="m")  # type: ignore[arg-type]
        # And the servers see to it, whatever a client does.
        names = cluster._networks.names(DEFENDER, MODEL)
        assert names is not None
        good = Request("query", "S0", names[0], names[1], LABEL.to_dict(), Plan().to_dict(), 2, 5)
        lies: list[dict[str, Any]] = [
            {"config": NONE.to_dict()},
            {"width": 4},
            {"plan": {"hidden": "key"}},
            {"batch": 1 << 40},
            {"kind": "guard"},
        ]
        for number, lie in enumerate(lies):
            failure = await failure_of(cluster.user.prepare({bytes([number]) * 16: replace(good, **lie)}))
            assert failure.error.party in (*SERVERS, "user")
        await trio.sleep(0.1)
        assert_nothing_left(cluster)


async def test_only_its_client_continues_it(autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await ask(cluster, "guard", LABEL)
        wire.frames.clear()
        await cluster.prepare(DEFENDER, LABEL, 2)
        session, request = wire.frames[0].frame.session, wire.last_request()
        user = cluster.user
        value = encode(some_logits(), FRACTION_BITS)
        failure = await failure_of(user.ask(session, request, value, (2, 4)))
        assert isinstance(failure.error, ProtocolError)
        assert "has not prepared this session" in failure.error.message
        assert len(parties(cluster)["S0"]._mailboxes) == 1
        await trio.sleep(0.1)  # all three say so
        user._ended.clear()  # a client forgets in time; this one has just been told
        assert PREPARE in (await ask(cluster, "guard", LABEL)).traffic.by_step()
        assert_nothing_left(cluster)


@pytest.mark.parametrize("lie", [{"batch": 1}, {"dealer": "S0"}, {"config": LINESEARCH.to_dict()}], ids=str)
async def test_only_the_prepared_query_is_answered(lie: dict[str, Any], autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        for config in (LABEL, LINESEARCH):
            await ask(cluster, "query", config)
        request = replace(wire.last_request(), dealer="S1", config=LABEL.to_dict())
        await cluster.user.prepare({SESSION: request})
        assert cluster.user.take_prepared(request) is not None
        wire.frames.clear()
        value = encode(some_features(), FRACTION_BITS)
        failure = await failure_of(cluster.user.ask(SESSION, replace(request, **lie), value, (2, 4)))
        assert "prepared another query than it asks" in failure.error.message
        assert failure.error.party == "user"
        assert not any(sent.receiver == "user" and is_data(sent) for sent in wire.frames)
        await trio.sleep(0.1)
        assert_nothing_left(cluster)


# Ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["query", "guard"])
@pytest.mark.parametrize("at", [1, 2, 4, 9, 60])
async def test_cancelled_while_preparing(kind: str, at: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await ask(cluster, kind)
        with trio.CancelScope() as scope:
            wire.count_down(at, scope.cancel)
            await cluster.prepare(DEFENDER, SHORT, 2, 3, model=model_of(kind))
        assert scope.cancelled_caught
        await trio.sleep(0.1)
        assert_nothing_left(cluster)
        assert PREPARE not in (await ask(cluster, kind)).traffic.by_step()


@pytest.mark.parametrize("kind", ["query", "guard"])
@pytest.mark.parametrize("at", [1, 5, 40])
async def test_a_cancelled_query_ends_its_prepared_session(kind: str, at: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, 2, model=model_of(kind))
        with trio.CancelScope() as scope:
            wire.count_down(at, scope.cancel)
            await ask(cluster, kind)
        assert scope.cancelled_caught
        await trio.sleep(0.1)
        assert PREPARE in (await ask(cluster, kind)).traffic.by_step()
        assert_nothing_left(cluster)


@pytest.mark.parametrize("small", [False, True])
async def test_the_block_ends_with_what_is_prepared(
    small: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    if small:
        monkeypatch.setattr(windows, "WINDOW_BYTES", 1 << 10)
    before = trio.lowlevel.current_statistics().tasks_living
    async with open_cluster(seed=1) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, 2, model=MODEL)
        await cluster.prepare(DEFENDER, SHORT, 2, 2)
    await trio.lowlevel.checkpoint()
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert_nothing_left(cluster)


@pytest.mark.parametrize("lost", [*SERVERS, "user"])
async def test_a_lost_party_ends_what_is_prepared(lost: str, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, 3, model=MODEL)
        cluster.kill(lost)
        await trio.sleep(0.1)
        assert_nothing_left(cluster)


async def test_a_server_that_shuts_down_drops_them(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await cluster.prepare(DEFENDER, SHORT, 2, 3, model=MODEL)
        server = parties(cluster)["S1"]
        assert isinstance(server, Server)
        with trio.fail_after(1):
            await server.drain()
        await trio.sleep(0.1)
        assert_nothing_left(cluster)
        assert "shutting down" in (await failure_of(ask(cluster, "query"))).error.message
