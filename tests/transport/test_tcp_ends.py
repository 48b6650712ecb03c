"""How links over TCP end: cut, reset, silent, closed by either end, and that nothing is left behind.

Rules: 127.0.0.1, port 0, an absolute timeout round everything; a raw socket plays the peer that misbehaves.
"""

from __future__ import annotations

import gc
import os
import socket as stdlib
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing
from tcp_helpers import (
    against_raw,
    fill,
    pair,
    patterned,
    prefixed,
    receive_all,
    reset,
    send_all,
    send_for_ever,
    sockets,
)

from siguard.transport import tcp, tcp_wire
from siguard.transport.link import Data, LinkBrokenError, LinkClosedError
from siguard.transport.tcp import TcpLink
from siguard.transport.tcp_wire import set_options

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted in /proc")


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


async def test_a_closed_link_takes_what_the_other_end_has_to_send_first() -> None:
    sent = [patterned(size, size) for size in (10, 400_000)]
    async with pair(small=True, backlog=1 << 15) as (one, other):
        await send_all(one, sent)
        await one.aclose()
        await send_all(other, [patterned(500_000)] * 4)
        received: list[bytes] = []
        await receive_all(other, received)
        assert received == sent


async def test_two_ends_that_close_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINGER", 5.0)
    start = trio.current_time()
    async with pair() as (one, other):
        await one.send(b"data")
        assert await other.receive() == b"data"
    assert trio.current_time() - start < 2


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
