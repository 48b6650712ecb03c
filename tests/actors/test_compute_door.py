"""The one door for heavy work: inline under a virtual clock, in a thread when large otherwise."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import trio
from fault_links import (
    NONE,
    SHORT,
    Sent,
    Wire,
    failure_of,
    open_sessions,
    parties,
    session_tasks,
    some_logits,
    tiny_defender,
)

from siguard import DeadlineError, open_cluster
from siguard.actors.compute import THREAD_THRESHOLD, ComputeDoor
from siguard.actors.mailbox import Mailbox
from siguard.guard.iteration import exponentials
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.transport.frame import Kind


async def test_small_work_is_done_at_once() -> None:
    door = ComputeDoor()
    assert await door.run(threading.get_ident, THREAD_THRESHOLD - 1) == threading.get_ident()


async def test_large_work_is_done_in_a_thread() -> None:
    door = ComputeDoor()
    assert await door.run(threading.get_ident, THREAD_THRESHOLD) != threading.get_ident()
    assert door._limiter.statistics().borrowed_tokens == 0


async def test_under_a_virtual_clock_everything_is_inline(autojump_clock: Any) -> None:
    """Handed to a thread, work would see the clock jump while it runs."""
    door = ComputeDoor()
    started = trio.current_time()
    assert await door.run(threading.get_ident, 1 << 40) == threading.get_ident()
    assert trio.current_time() == started


async def test_errors_of_the_work_come_back() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    door = ComputeDoor()
    for elements in (1, 1 << 30):
        with pytest.raises(ZeroDivisionError):
            await door.run(fail, elements)
    assert door._limiter.statistics().borrowed_tokens == 0


async def test_no_more_threads_than_it_was_given() -> None:
    door = ComputeDoor(threads=2)
    running, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(door.run, work, 1 << 30)
    assert most == 2


async def test_a_wait_keeps_its_deadline_while_another_session_computes() -> None:
    door = ComputeDoor()
    mailbox = Mailbox(b"session 12345678", "S0", deadline=0.1)
    started = time.perf_counter()
    waited = 0.0

    async def wait() -> None:
        nonlocal waited
        with pytest.raises(DeadlineError):
            await mailbox.take("S1", "step")
        waited = time.perf_counter() - started

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await door.run(lambda: time.sleep(1), 1 << 30)
    assert 0 < waited < 0.8, f"the wait of 0.1 s ended after {waited:.2f} s"


async def test_a_cluster_keeps_deadlines_while_one_session_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call is slow in a thread of every server; a call beside it loses a frame and fails in time."""
    slow = trio.Event()

    async def slow_exponentials(party: Party, x: Share, bits: int, **more: Any) -> Share:
        slow.set()
        await party.compute(lambda: time.sleep(1.5), 1 << 30)
        return await exponentials(party, x, bits, **more)

    monkeypatch.setattr("siguard.guard.policies.none.exponentials", slow_exponentials)
    wire, defender, deadline = Wire(), tiny_defender(), 0.4
    ended: dict[str, float] = {}

    def lose(sent: Sent) -> list[bytes]:
        return [] if sent.sender == "S1" and sent.frame.kind is Kind.DATA else [sent.data]

    async with open_cluster(seed=1, deadline=5, wrap_link=wire) as cluster:
        await cluster.guard(some_logits(), defender, SHORT)
        for name in ("S0", "S1", "S2"):
            parties(cluster)[name].deadline = deadline
        started = time.perf_counter()

        async def slow_call() -> None:
            await failure_of(cluster.guard(some_logits(), defender, NONE))
            ended["slow"] = time.perf_counter() - started

        async def losing_call() -> None:
            await slow.wait()
            wire.change = lose
            began = time.perf_counter()
            failure = await failure_of(cluster.guard(some_logits(), defender, SHORT))
            assert isinstance(failure.error, DeadlineError)
            ended["losing"] = time.perf_counter() - began

        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow_call)
            nursery.start_soon(losing_call)
    assert ended["losing"] < deadline + 0.6, (
        f"a deadline of {deadline} s held the caller for {ended['losing']:.2f} s"
    )


@pytest.mark.parametrize("end", ["kill", "cancel"])
async def test_a_session_ends_while_its_servers_compute(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a thread is not interrupted, only waited for; then nothing of the session is left."""
    computing = trio.Event()

    async def slow_exponentials(party: Party, x: Share, bits: int, **more: Any) -> Share:
        computing.set()
        await party.compute(lambda: time.sleep(0.3), 1 << 30)
        return await exponentials(party, x, bits, **more)

    monkeypatch.setattr("siguard.guard.policies.none.exponentials", slow_exponentials)
    async with open_cluster(seed=1, deadline=5) as cluster:
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:

            async def call() -> None:
                if end == "kill":
                    failure = await failure_of(cluster.guard(some_logits(), tiny_defender(), NONE))
                    assert failure.error.party == "S1"
                else:
                    await cluster.guard(some_logits(), tiny_defender(), NONE)

            nursery.start_soon(call)
            await computing.wait()
            if end == "kill":
                cluster.kill("S1")
            else:
                nursery.cancel_scope.cancel()
        assert time.perf_counter() - started < 2
        with trio.fail_after(3):
            while session_tasks(cluster) or open_sessions(cluster):  # noqa: ASYNC110 - nothing signals it
                await trio.sleep(0.01)
