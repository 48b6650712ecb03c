"""Two ends of a TCP link, or one end and a bare socket, and what to do with them."""

from __future__ import annotations

import socket as stdlib
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from siguard.transport import tcp
from siguard.transport.link import Link, LinkBrokenError, LinkClosedError
from siguard.transport.tcp import TcpLink

SMALL_BUFFER = 1 << 13


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


async def close(*ends: TcpLink) -> None:
    with trio.CancelScope(shield=True):
        for end in ends:
            await end.aclose()


@asynccontextmanager
async def pair(small: bool = False, backlog: int = tcp.DEFAULT_BACKLOG) -> AsyncIterator[tuple[TcpLink, TcpLink]]:
    """Both ends of a link; left when their tasks have ended."""
    with trio.fail_after(20):
        async with sockets(small) as (one, other), trio.open_nursery() as nursery:
            ends = TcpLink(one, "S1", nursery, backlog=backlog), TcpLink(other, "S0", nursery, backlog=backlog)
            try:
                yield ends
            finally:
                await close(*ends)


@asynccontextmanager
async def against_raw(
    limit: int = 10_000_000, small: bool = False
) -> AsyncIterator[tuple[TcpLink, trio.SocketStream]]:
    """A link to S1, which is a bare socket."""
    with trio.fail_after(20):
        async with sockets(small) as (mine, raw), trio.open_nursery() as nursery:
            link = TcpLink(mine, "S1", nursery, limit=limit, backlog=1 << 15)
            try:
                yield link, raw
            finally:
                await close(link)
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
