"""Sending one frame: prompt where there is room, within the deadline where there is none, and past no wrapper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from siguard import DeadlineError, PartyFailedError
from siguard.actors import windows
from siguard.actors.mailbox import Mailbox
from siguard.actors.session import Outbox
from siguard.ring import Z64
from siguard.transport.accountant import Traffic
from siguard.transport.frame import HEADER_BYTES, Kind, decode_frame, step_digest
from siguard.transport.link import Link
from siguard.transport.memory import MemoryLink, memory_link_pair
from siguard.transport.wrapped import WrappedLink

SESSION, DEADLINE = bytes(range(16)), 7.0
PAYLOAD = Z64.constant([1, 2, 3])


@dataclass
class World:
    """An outbox of S0 with a link to S1, and that link's other end."""

    box: Mailbox
    outbox: Outbox
    other: MemoryLink
    traffic: Traffic
    links: dict[str, Link] = field(default_factory=dict)

    async def send(self, step: str, *, dealt: bool = False) -> None:
        await self.outbox.send("S1", Kind.DATA, step, 1, PAYLOAD, dealt=dealt)


def world(capacity: int) -> World:
    here, there = memory_link_pair("S0", "S1", capacity)
    box, traffic, links = Mailbox(SESSION, "S0", DEADLINE), Traffic(), dict[str, Link]({"S1": here})
    return World(box, Outbox(box, links, traffic), there, traffic, links)


class Seen(WrappedLink):
    """Notes what is sent over it."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.steps: list[bytes] = []

    async def send(self, data: bytes) -> None:
        self.steps.append(decode_frame(data).step)
        await super().send(data)


async def test_a_frame_with_room_is_sent_and_counted_at_once(autojump_clock: Any) -> None:
    start, here = trio.current_time(), world(capacity=2)
    for step in ("one", "two"):
        await here.send(step)
    assert trio.current_time() == start
    assert [decode_frame(await here.other.receive()).step for _ in range(2)] == [*map(step_digest, ("one", "two"))]
    assert (here.traffic.messages, here.traffic.bytes_total) == (2, 2 * (HEADER_BYTES + PAYLOAD.nbytes))
    assert here.box.last_step == "two"


@pytest.mark.parametrize("dealt", [False, True])
async def test_other_tasks_have_their_turn_while_much_is_sent(dealt: bool) -> None:
    here, turns = world(capacity=100), 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for number in range(80):
            await here.send(str(number), dealt=dealt)
        assert turns >= 80 // 16
        nursery.cancel_scope.cancel()
    assert here.traffic.messages == 80


async def test_what_is_dealt_takes_room_at_once_or_waits_for_it(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", 2 * PAYLOAD.nbytes)
    start, here = trio.current_time(), world(capacity=10)
    for step in ("one", "two"):
        await here.send(step, dealt=True)
    await here.send("not dealt")
    assert trio.current_time() == start

    async def give_back() -> None:
        await trio.sleep(DEADLINE - 1)
        here.box.windows.give_back("S1", PAYLOAD.nbytes)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_back)
        await here.send("three", dealt=True)
    assert trio.current_time() == start + DEADLINE - 1
    with pytest.raises(DeadlineError, match=r"S1 took no frame for 7 s"):
        await here.send("four", dealt=True)


@pytest.mark.parametrize("dealt", [False, True])
async def test_a_peer_that_takes_nothing_is_named_at_the_deadline(dealt: bool, autojump_clock: Any) -> None:
    start, here = trio.current_time(), world(capacity=1)
    await here.send("fits", dealt=dealt)
    assert trio.current_time() == start
    with pytest.raises(DeadlineError, match=r"S1 took no frame for 7 s") as caught:
        await here.send("does not", dealt=dealt)
    assert trio.current_time() == start + DEADLINE
    error = caught.value
    assert (error.party, error.session, error.step) == ("S1", SESSION.hex(), "does not")
    assert decode_frame(await here.other.receive()).step == step_digest("fits")


async def test_a_frame_that_waits_is_sent_when_there_is_room(autojump_clock: Any) -> None:
    start, here = trio.current_time(), world(capacity=1)
    received: list[bytes] = []

    async def read_late() -> None:
        await trio.sleep(DEADLINE - 1)
        for _ in range(3):
            received.append(decode_frame(await here.other.receive()).step)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        for step in ("one", "two", "three"):
            await here.send(step)
    assert trio.current_time() == start + DEADLINE - 1
    assert received == [*map(step_digest, ("one", "two", "three"))]


async def test_a_cancelled_sender_sends_nothing() -> None:
    here = world(capacity=2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await here.send("never")
    assert scope.cancelled_caught
    await here.send("first")
    assert decode_frame(await here.other.receive()).step == step_digest("first")


async def test_no_frame_goes_past_a_wrapped_link() -> None:
    here = world(capacity=4)
    seen = here.links["S1"] = Seen(here.links["S1"])
    for step in ("one", "two"):
        await here.send(step)
    assert seen.steps == [*map(step_digest, ("one", "two"))]


@pytest.mark.parametrize("closed", [False, True], ids=["gone", "closed"])
async def test_a_link_that_is_gone_is_named(closed: bool) -> None:
    here = world(capacity=1)
    if closed:
        await here.other.aclose()
    else:
        del here.links["S1"]
    why = ": link to S1 is closed" if closed else ""
    with pytest.raises(PartyFailedError, match=f"S0 has no link to S1 any more{why}") as caught:
        await here.send("step")
    error = caught.value
    assert (error.party, error.session, error.step) == ("S1", SESSION.hex(), "step")
    told = PartyFailedError("S1 hung", party="S1")
    here.box.fail(told)
    with pytest.raises(PartyFailedError, match="hung") as again:
        await here.send("later")
    assert again.value is told
