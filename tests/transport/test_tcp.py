"""Links over TCP: any split of the bytes, what is not a message, and slow readers.

Rules: 127.0.0.1, port 0, an absolute timeout round everything; a raw socket plays the peer that misbehaves.
`test_contract.py` checks the contract.
"""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress
from itertools import pairwise

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_helpers import (
    against_raw,
    fill,
    pair,
    patterned,
    prefixed,
    receive_all,
    send_all,
)

from siguard.transport.link import LinkBrokenError
from siguard.transport.tcp import TcpLink
from siguard.transport.tcp_incoming import Incoming
from siguard.transport.tcp_wire import CLOSED, ENDED, LONGEST

BUFFER = 1 << 16
SIZES = [0, 1, 3, 4, 4095, 4096, 4097, *range(BUFFER - 6, BUFFER + 6), 3_000_000, 0, 5_000_001]


# --- messages -------------------------------------------------------------------------------------------


async def test_messages_of_every_size_both_ways() -> None:
    sent = [patterned(size, seed) for seed, size in enumerate(SIZES)]
    async with pair() as (one, other):
        received: dict[str, list[bytes]] = {"S0": [], "S1": []}

        async def send(end: TcpLink) -> None:
            await send_all(end, sent)
            await end.send_eof()

        async with trio.open_nursery() as nursery:
            for end in (one, other):
                nursery.start_soon(send, end)
                nursery.start_soon(receive_all, end, received[end.peer])
    assert received["S0"] == sent
    assert received["S1"] == sent


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    sizes=st.lists(st.one_of(st.integers(0, 40), st.sampled_from(SIZES[:-3])), max_size=8),
    cuts=st.lists(st.floats(0, 1), max_size=8),
    near=st.lists(st.integers(-5, 5), min_size=1, max_size=4),
    ended=st.booleans(),
)
async def test_any_split_of_the_bytes_gives_the_same_messages(
    sizes: list[int], cuts: list[float], near: list[int], ended: bool
) -> None:
    sent = [patterned(size, seed) for seed, size in enumerate(sizes)]
    stream = prefixed(*sent) + struct.pack("<I", ENDED if ended else CLOSED)
    starts = [len(prefixed(*sent[:count])) for count in range(len(sent) + 1)]
    places = {int(cut * len(stream)) for cut in cuts} | {start + off for start in starts for off in near}
    received: list[bytes] = []
    async with against_raw() as (link, raw), trio.open_nursery() as nursery:
        nursery.start_soon(receive_all, link, received)
        bounds = [0, *sorted(place for place in places if 0 < place < len(stream)), len(stream)]
        for start, end in pairwise(bounds):
            await raw.send_all(stream[start:end])
            await trio.testing.wait_all_tasks_blocked()
    assert received == sent


async def test_long_messages_are_received_in_place_and_short_ones_are_bytes() -> None:
    async with pair() as (one, other):
        await one.send(patterned(100))
        await one.send(patterned(100_000))
        assert type(await other.receive()) is bytes
        assert type(await other.receive()) is bytearray


async def test_a_message_that_no_prefix_can_announce_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return LONGEST + 1

    async with pair() as (one, _):
        with pytest.raises(ValueError, match=str(LONGEST)):
            await one.send(Huge())


# --- what is not a message --------------------------------------------------------------------------------


async def test_a_length_over_the_limit_breaks_the_link_and_nothing_is_allocated() -> None:
    async with against_raw(limit=1000) as (link, raw):
        await raw.send_all(prefixed(patterned(1000)) + struct.pack("<I", 1_000_000_000) + b"beginning")
        assert await link.receive() == patterned(1000)
        tracemalloc.start()
        try:
            for _ in range(2):
                with pytest.raises(LinkBrokenError, match=r"S1.* 1000000000 bytes.* 1000 allowed"):
                    await link.receive()
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()
        with pytest.raises(LinkBrokenError, match="S1"):
            await link.send(b"data")
        # The connection is closed, politely or, as there may be more to read, by a reset.
        with suppress(trio.BrokenResourceError):
            assert await raw.receive_some() == b""


async def test_the_limit_and_the_peer_are_settable() -> None:
    async with against_raw(limit=10) as (link, raw):
        await raw.send_all(prefixed(bytes(10), bytes(70_000), bytes(70_001)))
        assert await link.receive() == bytes(10)
        link.limit, link.peer = 70_000, "S2"
        assert await link.receive() == bytes(70_000)
        with pytest.raises(LinkBrokenError, match=r"S2.* 70001 bytes"):
            await link.receive()


async def test_the_lengths_with_a_meaning_stay_so_under_any_limit() -> None:
    async with against_raw(limit=1 << 40) as (link, raw):
        await raw.send_all(prefixed(b"last") + struct.pack("<I", ENDED))
        received: list[bytes] = []
        await receive_all(link, received)
        assert received == [b"last"]


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-scan\r\n", b"\x16\x03\x01\x00\xa5\x01\x00", b"\x00", bytes(7)],
    ids=["HTTP", "SSH", "TLS", "a byte", "zeros"],
)
async def test_a_port_scanner_breaks_only_its_own_link(garbage: bytes) -> None:
    async with against_raw(limit=4096) as (link, raw):
        await raw.send_all(garbage)
        await raw.send_eof()
        received: list[bytes] = []
        with pytest.raises(LinkBrokenError, match="S1"):
            await receive_all(link, received)
        assert not any(received)


# --- sending to a slow reader -----------------------------------------------------------------------------


async def test_a_cancelled_send_of_a_large_message_leaves_the_stream_whole() -> None:
    async with pair(small=True, backlog=1 << 15) as (one, other):
        sent: list[bytes] = []
        for number in range(30):
            message = patterned(300_000 if number % 3 == 0 else 20, number)
            with trio.move_on_after(0.02) as scope:
                await one.send(message)
            if not scope.cancelled_caught:
                sent.append(message)
        assert 0 < len(sent) < 30
        received: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_all, other, received)
            await one.send(b"last")
            await one.send_eof()
        assert received == [*sent, b"last"]


async def test_no_more_than_the_backlog_waits_in_memory() -> None:
    async with pair(small=True, backlog=1 << 18) as (one, other):
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(fill, one)
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        # The tasks that waited were cancelled: what is held now is the queue, 1004 bytes a message.
        assert 1 << 18 < held < 1.5 * (1 << 18)
        received: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive_all, other, received)
            await one.send_eof()
        assert set(received) == {patterned(1000)}


async def test_senders_are_served_in_the_order_in_which_they_came() -> None:
    async with pair(small=True, backlog=1 << 15) as (one, other):
        sent = [b"%d" % number + patterned(2000) for number in range(1000)]
        received: list[bytes] = []
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as senders:
                for number, message in enumerate(sent):
                    # From then on some wait and some come while there is room again.
                    if number == 100:
                        nursery.start_soon(receive_all, other, received)
                    senders.start_soon(one.send, message)
                    await trio.lowlevel.checkpoint()
            await one.send_eof()
    assert received == sent


async def test_others_get_their_turn_while_messages_stream_in() -> None:
    async with pair() as (one, other):
        await send_all(one, [b"x"] * 500)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            for _ in range(500):
                await other.receive()
            nursery.cancel_scope.cancel()
        assert turns >= 400


async def test_others_get_their_turn_within_a_message_that_never_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    def more(self: Incoming) -> None:  # as when the peer is faster than this end reads
        self._filled += 1000

    async with against_raw() as (link, raw):
        await raw.send_all(prefixed(bytes(100_000))[:1000])
        with trio.move_on_after(0.02):
            await link.receive()
        monkeypatch.setattr(Incoming, "read", more)
        with trio.move_on_after(0) as scope:
            await link.receive()
        assert scope.cancelled_caught
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            await link.receive()
            nursery.cancel_scope.cancel()
        monkeypatch.undo()
        assert turns >= 4
