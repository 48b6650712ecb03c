"""Clauses: what arrives is what was sent."""

from __future__ import annotations

import trio

from siguard.transport.link import Data, Link
from siguard.transport.testing.tools import PAUSE, require, require_same, send_all, sender_of, stamped, take


async def ends_name_each_other(one: Link, other: Link) -> None:
    """`peer` is the name of the party at the other end."""
    for link in (one, other):
        require(type(link.peer) is str and link.peer != "", f"peer is {link.peer!r}")
    require(one.peer != other.peer, f"both ends say that {one.peer} is at the other end")


async def _exchange(one: Link, other: Link, there: list[bytes], back: list[bytes]) -> None:
    """Both ways at once."""
    received: dict[bool, list[Data]] = {}

    async def receive(link: Link, forward: bool, count: int) -> None:
        received[forward] = await take(link, count)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, there)
        nursery.start_soon(send_all, other, back)
        nursery.start_soon(receive, other, True, len(there))
        nursery.start_soon(receive, one, False, len(back))
    require_same(received[True], there)
    require_same(received[False], back)


async def messages_arrive_once_and_in_order(one: Link, other: Link) -> None:
    """Messages arrive in order, each once, both ways at once."""
    there, back = ([stamped(sender, number, 64) for number in range(300)] for sender in (0, 1))
    await _exchange(one, other, there, back)


async def messages_arrive_whole(one: Link, other: Link) -> None:
    """Messages of any length arrive whole: not cut, not joined."""
    lengths = [8, 9, 255, 256, 257, 1400, 4096, 16_383, 65_535, 65_536, 65_537]
    there, back = ([stamped(sender, number, size) for number, size in enumerate(lengths)] for sender in (0, 1))
    await _exchange(one, other, [*there, b"\0"], [b"\xff", *back])


async def empty_messages_are_messages(one: Link, other: Link) -> None:
    """Messages may be empty."""
    await _exchange(one, other, [b"", b"a", b"", b"", b"b", b""], [b"a", b"", b""])


async def large_messages_arrive_whole(one: Link, other: Link) -> None:
    """Messages of several megabytes arrive whole, with small ones between them."""
    there = [stamped(0, number, size) for number, size in enumerate([300_000, 8, 5_000_000, 8, 700_001])]
    back = [stamped(1, number, size) for number, size in enumerate([3_000_000, 8, 400_000])]
    await _exchange(one, other, there, back)


async def received_messages_are_bytes(one: Link, other: Link) -> None:
    """`receive` returns bytes or a bytearray."""
    sent = [b"", b"a", stamped(0, 0, 100_000)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, sent)
        for data in await take(other, len(sent)):
            require(isinstance(data, bytes | bytearray), f"receive returned a {type(data).__name__}")


async def nobody_writes_to_a_received_message(one: Link, other: Link) -> None:
    """A received message stays as it is while later ones arrive."""
    sent = [stamped(0, number, size) for size in (100, 100_000) for number in range(4)]
    copies: list[bytes] = []
    received: list[Data] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all, one, sent)
        for _ in sent:
            received += await take(other, 1)
            copies.append(bytes(received[-1]))
    await trio.sleep(PAUSE)
    require(received == copies, "a message changed after it was received")


async def senders_do_not_mix(one: Link, other: Link) -> None:
    """Any number of tasks send at once: messages stay whole, and each task's stay in order."""
    sizes = [(number * 7919) % 40_000 + 8 for number in range(20)]
    sent = {sender: [stamped(sender, number, size) for number, size in enumerate(sizes)] for sender in range(8)}
    async with trio.open_nursery() as nursery:
        for messages in sent.values():
            nursery.start_soon(send_all, one, messages)
        received = await take(other, sum(map(len, sent.values())))
    require_from_each(received, sent)


def require_from_each(received: list[Data], sent: dict[int, list[bytes]]) -> None:
    """Raise AssertionError unless these are the messages of all senders, each sender's in order."""
    by_sender: dict[int, list[Data]] = {sender: [] for sender in sent}
    for data in received:
        require(sender_of(data) in by_sender, f"{len(data)} bytes came that no task has sent")
        by_sender[sender_of(data)].append(data)
    for sender, messages in sent.items():
        require_same(by_sender[sender], messages)
