"""Links in memory: order, back-pressure, closing and cancelling, as the contract in `link.py` says.

Time is virtual where it matters: no test waits for the wall clock.
"""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, assert_no_checkpoints, wait_all_tasks_blocked

from siguard.transport.link import Link, LinkClosedError, PromptLink
from siguard.transport.memory import DEFAULT_CAPACITY, MemoryLink, memory_link_pair


def pair(capacity: int = DEFAULT_CAPACITY) -> tuple[MemoryLink, MemoryLink]:
    return memory_link_pair("S0", "S1", capacity)


def test_ends_name_their_peers() -> None:
    ends: tuple[Link, Link] = pair()
    assert [end.peer for end in ends] == ["S1", "S0"]


async def test_messages_arrive_whole_and_in_order_both_ways(autojump_clock: MockClock) -> None:
    one, other = pair(capacity=3)
    messages = [bytes([index]) * index for index in range(200)]
    received: dict[str, list[bytes]] = {"S0": [], "S1": []}

    async def send(end: MemoryLink) -> None:
        for message in messages:
            await end.send(message)

    async def receive(end: MemoryLink) -> None:
        for _ in messages:
            received[end.peer].append(await end.receive())

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for end in (one, other):
                nursery.start_soon(send, end)
                nursery.start_soon(receive, end)
    assert received == {"S0": messages, "S1": messages}


@pytest.mark.parametrize("capacity", [1, 5, DEFAULT_CAPACITY])
async def test_a_sender_waits_while_the_other_end_is_behind(capacity: int, autojump_clock: MockClock) -> None:
    one, other = pair(capacity)
    start = trio.current_time()
    for index in range(capacity):
        await one.send(bytes([index]))
    assert trio.current_time() == start

    async def read_late() -> None:
        await trio.sleep(7)
        assert await other.receive() == b"\0"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_late)
        await one.send(b"last")
    assert trio.current_time() == start + 7


async def test_the_two_directions_do_not_block_each_other(autojump_clock: MockClock) -> None:
    one, other = pair(capacity=1)
    await one.send(b"full")
    with trio.fail_after(1):
        await other.send(b"still free")
        assert await one.receive() == b"still free"


async def test_a_cancelled_send_has_sent_nothing(autojump_clock: MockClock) -> None:
    one, other = pair(capacity=1)
    await one.send(b"first")
    with trio.move_on_after(3) as scope:
        await one.send(b"never")
    assert scope.cancelled_caught
    assert await other.receive() == b"first"
    await one.send(b"second")
    assert await other.receive() == b"second"
    with trio.move_on_after(3) as scope:
        await other.receive()
    assert scope.cancelled_caught


async def test_a_prompt_send_takes_what_has_room_and_nothing_else(autojump_clock: MockClock) -> None:
    one, other = pair(capacity=2)
    prompt: PromptLink = one
    with assert_no_checkpoints():
        assert [prompt.send_now(bytes([index])) for index in range(4)] == [True, True, False, False]

    async def waits() -> None:
        await one.send(b"waits")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        assert await other.receive() == b"\0"
        assert not prompt.send_now(b"overtakes"), "whoever waits comes first"
    assert [await other.receive() for _ in range(2)] == [b"\1", b"waits"]
    assert prompt.send_now(b"last")
    assert await other.receive() == b"last"


async def test_a_prompt_receive_gives_what_waits_and_nothing_else() -> None:
    one, other = pair(capacity=2)
    prompt: PromptLink = other
    with assert_no_checkpoints():
        assert prompt.receive_now() is None
        assert one.send_now(b"")
        assert one.send_now(b"second")
        assert [prompt.receive_now() for _ in range(3)] == [b"", b"second", None]
    await one.aclose()
    assert prompt.receive_now() is None, "that it is closed, receive tells"


@pytest.mark.parametrize("closer", [0, 1])
async def test_a_prompt_send_says_that_the_link_is_closed(closer: int) -> None:
    ends = pair(capacity=0)
    await ends[closer].aclose()
    with pytest.raises(LinkClosedError, match="S1"):
        ends[0].send_now(b"too late")


async def test_a_cancelled_receive_loses_nothing(autojump_clock: MockClock) -> None:
    one, other = pair()
    for _ in range(3):
        with trio.move_on_after(1) as scope:
            await other.receive()
        assert scope.cancelled_caught
    await one.send(b"message")
    with trio.move_on_after(0) as scope:
        await other.receive()
    assert scope.cancelled_caught, "a receive in a cancelled scope must not take the message"
    assert await other.receive() == b"message"


async def test_the_other_end_reads_what_was_sent_before_the_close() -> None:
    one, other = pair()
    for index in range(3):
        await one.send(bytes([index]))
    await one.aclose()
    assert [await other.receive() for _ in range(3)] == [b"\0", b"\1", b"\2"]
    for _ in range(2):
        with pytest.raises(LinkClosedError, match="S0"):
            await other.receive()


async def test_both_ends_of_a_closed_link_refuse_to_send() -> None:
    one, other = pair()
    await one.aclose()
    with pytest.raises(LinkClosedError, match="S0"):
        await other.send(b"too late")
    with pytest.raises(LinkClosedError, match="S1"):
        await one.send(b"too late")
    with pytest.raises(LinkClosedError, match="S1"):
        await one.receive()


async def test_closing_twice_is_harmless() -> None:
    one, other = pair()
    await one.aclose()
    await one.aclose()
    await other.aclose()


@pytest.mark.parametrize("closer", [0, 1])
async def test_a_waiting_receive_ends_when_either_end_closes(closer: int, autojump_clock: MockClock) -> None:
    ends = pair()

    async def close_later() -> None:
        await trio.sleep(2)
        await ends[closer].aclose()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_later)
            with pytest.raises(LinkClosedError):
                await ends[0].receive()


@pytest.mark.parametrize("closer", [0, 1])
async def test_a_waiting_send_ends_when_either_end_closes(closer: int, autojump_clock: MockClock) -> None:
    ends = pair(capacity=1)
    await ends[0].send(b"full")

    async def close_later() -> None:
        await trio.sleep(2)
        await ends[closer].aclose()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close_later)
            with pytest.raises(LinkClosedError):
                await ends[0].send(b"waits")


async def test_a_cancelled_close_has_closed() -> None:
    one, other = pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.aclose()
    with pytest.raises(LinkClosedError):
        await other.receive()
