"""Links over TCP: the contract, any split of the bytes, what is not a message, and how connections end.

Rules: 127.0.0.1, port 0, an absolute timeout round everything; a raw socket plays the peer that misbehaves.
"""

from __future__ import annotations

import gc
import os
import socket as stdlib
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.transport import tcp, tcp_wire
from siguard.transport.link import Data, Link, LinkBrokenError, LinkClosedError
from siguard.transport.tcp import TcpLink
from siguard.transport.tcp_wire import CLOSED, ENDED, LONGEST, set_options
from siguard.transport.testing import check_transport

SMALL_BUFFER = 1 << 13
BUFFER = 1 << 16
SIZES = [0, 1, 3, 4, 4095, 4096, 4097, *range(BUFFER - 6, BUFFER + 6), 3_000_000, 0, 5_000_001]
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted in /proc")


def prefixed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(message)) + message for message in messages)


def patterned(size: int, seed: int = 0) -> bytes:
    return (bytes((index + seed) % 251 for index in range(251)) * (size // 251 + 1))[:size]


@asynccontextmanager
async def sockets(small: bool = False) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two connected streams; closed in the end, unless a link took them over."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    one = trio.socket.socket()
    if small:
        for socket in (listener.socket, one):
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVBUF, SMALL_BUFFER)
            socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, SMALL_BUFFER)
    await one.connect(listener.socket.getsockname())
    other = await listener.accept()
    await listener.aclose()
    try:
        yield trio.SocketStream(one), other
    finally:
        one.close()
        other.socket.close()


@asynccontextmanager
async def pair(small: bool = False, backlog: int = tcp.DEFAULT_BACKLOG) -> AsyncIterator[tuple[TcpLink, TcpLink]]:
    """Both ends of a link; left when their tasks have ended."""
    with trio.fail_after(20):
        async with sockets(small) as (one, other), trio.open_nursery() as nursery:
            ends = TcpLink(one, "S1", nursery, backlog=backlog), TcpLink(other, "S0", nursery, backlog=backlog)
            yield ends
            for end in ends:
                await end.aclose()


@asynccontextmanager
async def against_raw(
    limit: int = 10_000_000, small: bool = False
) -> AsyncIterator[tuple[TcpLink, trio.SocketStream]]:
    """A link to S1, which is a bare socket."""
    with trio.fail_after(20):
        async with sockets(small) as (mine, raw), trio.open_nursery() as nursery:
            link = TcpLink(mine, "S1", nursery, limit=limit, backlog=1 << 15)
            yield link, raw
            await link.aclose()
            raw.socket.close()


async def receive_all(link: Link, into: list[bytes]) -> None:
    try:
        while True:
            into.append(bytes(await link.receive()))
    except LinkBrokenError:
        raise
    except LinkClosedError:
        return


async def send_all(link: Link, messages: Sequence[bytes]) -> None:
    for message in messages:
        await link.send(message)


async def send_for_ever(link: Link) -> None:
    while True:
        await link.send(patterned(1000))


async def fill(link: Link) -> None:
    """Send until the link takes no more: the peer does not read."""
    with trio.move_on_after(0.1):
        await send_for_ever(link)


def reset(raw: trio.SocketStream) -> None:
    raw.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
    raw.socket.close()


# --- the contract -----------------------------------------------------------------------------------------


async def test_the_contract() -> None:
    def make(small: bool) -> AbstractAsyncContextManager[tuple[Link, Link]]:
        return pair(small, backlog=1 << 15 if small else tcp.DEFAULT_BACKLOG)

    await check_transport(partial(make, False), partial(make, True))


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


# --- how connections end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (b"", "without a word"),
        (b"\x05\x00", "in the middle"),
        (struct.pack("<I", 5) + b"1234", "in the middle"),
        (struct.pack("<I", 100_000) + bytes(70_000), "in the middle"),
    ],
    ids=["between messages", "in a prefix", "in a short message", "in a long message"],
)
async def test_a_connection_that_ends_without_saying_so_is_broken(tail: bytes, words: str) -> None:
    async with against_raw() as (link, raw):
        await raw.send_all(prefixed(b"whole") + tail)
        await raw.send_eof()
        assert await link.receive() == b"whole"
        for _ in range(2):
            with pytest.raises(LinkBrokenError, match=f"S1.*{words}"):
                await link.receive()
        with pytest.raises(LinkBrokenError, match="S1"):
            await link.send(b"data")


async def test_a_killed_process_is_told_from_one_that_closed() -> None:
    program = (
        "import socket, struct, sys, time; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])));"
        "s.sendall(struct.pack('<I', 4) + b'data'); time.sleep(60)"
    )
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(20):
        async with listener, trio.open_nursery() as nursery:
            command = [sys.executable, "-c", program, str(listener.socket.getsockname()[1])]
            with subprocess.Popen(command) as process:  # noqa: ASYNC220 - it starts at once
                link = TcpLink(await listener.accept(), "S1", nursery)
                assert await link.receive() == b"data"
                process.kill()
                with pytest.raises(LinkBrokenError, match=r"S1.*may have died"):
                    await link.receive()
            await link.aclose()


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_reset_connection_is_broken(waiting: bool) -> None:
    async with against_raw() as (link, raw), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(LinkBrokenError, match=r"S1.*reset"):
                await link.receive()

        if waiting:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
        reset(raw)
        if not waiting:
            await receive()


async def test_a_reset_wakes_a_waiting_sender() -> None:
    async with against_raw(small=True) as (link, raw):
        await fill(link)
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(LinkBrokenError, match="S1"):
                    await link.send(b"waits")

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            reset(raw)
        with pytest.raises(LinkBrokenError, match=r"S1.*reset"):
            await link.receive()


@pytest.mark.skipif(not hasattr(stdlib, "TCP_USER_TIMEOUT"), reason="the platform has no TCP_USER_TIMEOUT")
async def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_wire, "SILENCE", 1)
    async with against_raw(small=True) as (link, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(LinkBrokenError, match=r"S1.*silent"):
                await link.receive()

        async def send() -> None:
            with pytest.raises(LinkBrokenError, match=r"S1.*silent"):
                await send_for_ever(link)

        nursery.start_soon(receive)
        nursery.start_soon(send)


def test_options_of_the_socket() -> None:
    with stdlib.socket() as socket:
        set_options(socket)
        assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY)
        assert socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_KEEPALIVE)
        if hasattr(stdlib, "TCP_USER_TIMEOUT"):
            assert socket.getsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT) == 1000 * tcp_wire.SILENCE


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


async def test_waiting_senders_get_their_turns_in_order() -> None:
    async with pair(small=True, backlog=1 << 15) as (one, other):
        await fill(one)
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one.send, b"%d" % number)
                await trio.testing.wait_all_tasks_blocked()
            received = [await other.receive()]
            while received[-1] != b"19":
                received.append(await other.receive())
        assert [data for data in received if len(data) < 1000] == [b"%d" % number for number in range(20)]


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


# --- closing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("both", [False, True])
async def test_a_close_delivers_what_was_sent_although_nothing_was_read(both: bool) -> None:
    sent = [patterned(size, size) for size in (10, 400_000, 10, 600_000)]
    async with pair(small=True) as (one, other):
        await send_all(one, sent)
        if both:
            await send_all(other, sent)
        await one.aclose()
        received: list[bytes] = []
        await receive_all(other, received)
        assert received == sent
        with pytest.raises(LinkClosedError):
            await one.receive()
        with pytest.raises(LinkClosedError):
            await other.send(b"too late")


async def test_a_closed_link_serves_a_slow_reader_as_long_as_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINGER", 0.3)
    async with pair(small=True) as (one, other):
        sent = [patterned(20_000, seed) for seed in range(20)]
        await send_all(one, sent)
        await one.aclose()
        received: list[Data] = []
        start = trio.current_time()
        for _ in sent:
            await trio.sleep(0.05)
            received.append(await other.receive())
        assert trio.current_time() - start > 2 * tcp.LINGER
        assert received == sent


async def test_a_close_waits_a_bounded_time_for_a_peer_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINGER", 0.1)
    with trio.fail_after(20):
        async with sockets(small=True) as (mine, _):
            async with trio.open_nursery() as nursery:
                link = TcpLink(mine, "S1", nursery)
                await link.send(patterned(1_000_000))
                start = trio.current_time()
                await link.aclose()
                assert trio.current_time() - start < 0.1
            assert 0.1 <= trio.current_time() - start < 2


async def test_a_clean_end_stays_clean_for_an_end_that_only_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINGER", 0.05)
    async with pair() as (one, other):
        await send_all(one, [b"data", patterned(100_000)])
        await one.aclose()
        await trio.sleep(0.15)  # longer than the link lingers: what is sent now meets a reset
        with pytest.raises(LinkClosedError) as caught:
            await send_for_ever(other)
        assert caught.type is LinkClosedError
        received: list[bytes] = []
        await receive_all(other, received)
        assert received == [b"data", patterned(100_000)]


async def test_a_close_in_a_cancelled_nursery_still_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINGER", 0.3)
    sent = [patterned(size, size) for size in (10, 300_000, 10)]
    with trio.fail_after(20):
        async with sockets(small=True) as (mine, theirs), trio.open_nursery() as outer:
            other = TcpLink(theirs, "S0", outer)
            received: list[bytes] = []
            outer.start_soon(receive_all, other, received)
            async with trio.open_nursery() as nursery:
                link = TcpLink(mine, "S1", nursery)
                await send_all(link, sent)
                nursery.cancel_scope.cancel()
                await link.aclose()
            await other.aclose()
        assert received == sent


async def test_a_link_whose_nursery_was_cancelled_sends_no_more() -> None:
    with trio.fail_after(20):
        async with sockets(small=True) as (mine, _):
            async with trio.open_nursery() as nursery:
                link = TcpLink(mine, "S1", nursery, backlog=0)
                await link.send(patterned(1_000_000))
                nursery.cancel_scope.cancel()
            with pytest.raises(LinkClosedError, match=r"S1.*cancelled"):
                await link.send(b"data")
            await link.aclose()


async def test_a_link_whose_nursery_has_ended_can_be_closed() -> None:
    with trio.fail_after(20):
        async with sockets(small=True) as (mine, raw):
            async with trio.open_nursery() as nursery:
                link = TcpLink(mine, "S1", nursery)
            await link.send(b"fits")
            with pytest.raises(LinkClosedError, match=r"S1.*nursery"):
                await link.send(patterned(1_000_000))
            await link.aclose()
            assert (await raw.receive_some()).startswith(prefixed(b"fits"))


@needs_proc
async def test_nothing_is_left_behind() -> None:
    async def use(end_badly: bool) -> None:
        async with pair(small=True) as (one, other):
            await fill(one)
            await other.send(b"unread")
            if end_badly:
                await other.receive()
        async with against_raw(limit=10) as (link, raw):
            await raw.send_all(b"\xff" * 3)
            if end_badly:
                reset(raw)
                with pytest.raises(LinkBrokenError):
                    await link.receive()

    await use(True)
    gc.collect()
    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is wanted
    for end_badly in (True, False):
        await use(end_badly)
    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert sorted(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
