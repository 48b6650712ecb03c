"""Clauses: what a cancelled call leaves behind."""

from __future__ import annotations

import math
from functools import partial

import trio

from siguard.transport.link import Data, Link
from siguard.transport.testing.pressure import FILL_BYTES
from siguard.transport.testing.tools import (
    DELAYS,
    PAUSE,
    cancelled_after,
    in_cancelled_scope,
    read_to_end,
    require,
    require_same,
    send_all,
    sender_of,
    stamped,
    take,
)


async def _try_to_receive(link: Link, delay: tuple[int, float]) -> list[Data]:
    received: list[Data] = []

    async def receive() -> None:
        received.append(await link.receive())

    await cancelled_after(delay, receive)
    return received


async def calls_notice_a_cancelled_scope(one: Link, other: Link) -> None:
    """`send` and `receive` are checkpoints: in a cancelled scope they raise Cancelled, and lose nothing."""
    require(
        await in_cancelled_scope(other.receive), "receive returned in a cancelled scope, with nothing to receive"
    )
    messages = [stamped(0, number, 100) for number in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, messages)
        await trio.sleep(PAUSE)
        require(await in_cancelled_scope(other.receive), "receive took a message in a cancelled scope")
        require_same(await take(other, 3), messages)
    tried = stamped(0, 3, 100)
    require(await in_cancelled_scope(partial(one.send, tried)), "send returned in a cancelled scope")
    last = stamped(0, 4, 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, last)
        received = await take(other, 1)
        if received != [last]:
            received += await take(other, 1)
            require_same(received, [tried, last])


async def a_cancelled_receive_loses_nothing(one: Link, other: Link) -> None:
    """A cancelled `receive` loses nothing, also when a message arrives at that very moment."""
    for delay in DELAYS[::6]:
        require(not await _try_to_receive(other, delay), "a message came that nobody sent")
    # Whether a cancellation meets a certain checkpoint is the scheduler's choice: each delay has several chances.
    delays = DELAYS * 5
    sent = [stamped(0, number, 50) for number in range(len(delays) + 1)]
    received: list[Data] = []
    # Whoever sends may have to wait for whoever receives.
    give, given = trio.open_memory_channel[bytes](math.inf)

    async def send() -> None:
        async for message in given:
            await one.send(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for message, delay in zip(sent, delays, strict=False):
            give.send_nowait(message)
            received += await _try_to_receive(other, delay)
        give.send_nowait(sent[-1])
        give.close()
        while received[-1:] != sent[-1:]:
            received += await take(other, 1)
    require_same(received, sent)


async def a_receive_cancelled_within_a_message_loses_nothing(one: Link, other: Link) -> None:
    """A `receive` that is cancelled while a large message is on its way loses nothing of it."""
    sent = [stamped(0, number, size) for number, size in enumerate([2_000_000, 8] * 3)]
    received: list[Data] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, sent)
        for delay in DELAYS:
            if len(received) < len(sent):
                received += await _try_to_receive(other, delay)
        received += await take(other, len(sent) - len(received))
    require_same(received, sent)


async def a_cancelled_send_sends_all_or_nothing(one: Link, other: Link) -> None:
    """A cancelled `send` has sent its message whole or not at all, and later ones arrive in order."""
    sizes = [FILL_BYTES, 8, 40 * FILL_BYTES, 1000]
    tried: list[tuple[bytes, bool]] = []
    steady = [stamped(1, number, FILL_BYTES) for number in range(8)]
    received: list[Data] = []

    async def send_and_cancel() -> None:
        for delay in DELAYS:
            message = stamped(0, len(tried), sizes[len(tried) % len(sizes)])
            outcome = await cancelled_after(delay, partial(one.send, message))
            tried.append((message, not outcome.cancelled))

    async def read() -> None:
        received.extend(await read_to_end(other))

    await send_and_cancel()  # nobody reads
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async with trio.open_nursery() as sending:
            sending.start_soon(send_and_cancel)
            sending.start_soon(send_all, one, steady)
        last = stamped(0, len(tried), 100)
        await one.send(last)
        tried.append((last, True))
        await one.send_eof()
    require_same([data for data in received if sender_of(data) == 1], steady)
    _require_tried([data for data in received if sender_of(data) != 1], tried)


def _require_tried(received: list[Data], tried: list[tuple[bytes, bool]]) -> None:
    """Raise AssertionError unless these are, in order, all messages that were sent and some that were cancelled."""
    attempts = iter(enumerate(tried))
    for data in received:
        for number, (message, sent) in attempts:
            if data == message:
                break
            require(
                not sent, f"message {number} was sent, and {len(data)} other bytes came after the one before it"
            )
        else:
            raise AssertionError(f"{len(data)} bytes came that were not sent, or not there, or twice")
    require(not any(sent for _, (_, sent) in attempts), "the last messages that were sent did not come")
