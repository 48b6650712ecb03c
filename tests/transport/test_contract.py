"""Every transport, and wrappers stacked on them, keep the contract.

A new transport or stack is a new line in `ON_ANY_CLOCK` or `ON_SOCKETS`: what makes its links, and what makes links
of the same kind that are soon full.
"""

from __future__ import annotations

import socket as stdlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
import trio
from nacl.signing import SigningKey
from trio.testing import MockClock

from siguard.proofsim.faults import Network
from siguard.proofsim.recorder import Recorder
from siguard.transport.link import Link
from siguard.transport.memory import DEFAULT_CAPACITY, memory_link_pair
from siguard.transport.profiles import Direction
from siguard.transport.secure import Identity, seal
from siguard.transport.shape import DEFAULT_BUFFER_BYTES, ShapedLink
from siguard.transport.tcp import DEFAULT_BACKLOG, TcpLink
from siguard.transport.testing import LinkMaker, check_transport

#: Both ends of a link, S0's first.
Ends: TypeAlias = tuple[Link, Link]
#: Wraps both ends; the nursery is for the wrappers' tasks.
Wrapper: TypeAlias = Callable[[Link, Link, trio.Nursery], Awaitable[Ends]]
#: What makes links, and what makes links that are soon full.
Makers: TypeAlias = tuple[LinkMaker, LinkMaker]

#: Bytes that may wait in one direction of a TCP connection that is soon full, in the kernel and in the link.
LITTLE = 4096
IDENTITIES = {name: Identity(name, SigningKey.generate()) for name in ("S0", "S1")}


def memory(capacity: int = DEFAULT_CAPACITY) -> LinkMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[Ends]:
        yield memory_link_pair("S0", "S1", capacity)

    return make


def connected(buffer_bytes: int | None) -> tuple[stdlib.socket, stdlib.socket]:
    """Two ends of a connection on 127.0.0.1.  buffer_bytes: of the kernel, for each end and direction."""
    with stdlib.socket() as listener:
        dialler = stdlib.socket()
        for one in (listener, dialler):
            for option in (stdlib.SO_RCVBUF, stdlib.SO_SNDBUF):
                if buffer_bytes is not None:
                    one.setsockopt(stdlib.SOL_SOCKET, option, buffer_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        dialler.connect(listener.getsockname())
        return dialler, listener.accept()[0]


def tcp(backlog: int = DEFAULT_BACKLOG, buffer_bytes: int | None = None) -> LinkMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[Ends]:
        dialler, accepted = map(trio.socket.from_stdlib_socket, connected(buffer_bytes))
        async with trio.open_nursery() as nursery:
            yield (
                TcpLink(dialler, "S1", nursery, backlog=backlog),
                TcpLink(accepted, "S0", nursery, backlog=backlog),
            )
            nursery.cancel_scope.cancel()

    return make


def stacked(below: LinkMaker, *wrappers: Wrapper) -> LinkMaker:
    """The links of ``below`` in wrappers, the first one innermost."""

    @asynccontextmanager
    async def make() -> AsyncIterator[Ends]:
        async with below() as ends, trio.open_nursery() as nursery:
            for wrap in wrappers:
                ends = await wrap(*ends, nursery)
            yield ends
            nursery.cancel_scope.cancel()

    return make


async def sealed(one: Link, other: Link, nursery: trio.Nursery) -> Ends:
    ends: dict[str, Link] = {}
    known = {name: identity.signing_key.verify_key for name, identity in IDENTITIES.items()}

    async def shake(link: Link, name: str, expect: str | None) -> None:
        # Few records for a key, so that keys change in the middle of every clause.
        ends[name] = await seal(
            link, IDENTITIES[name], known, initiator=expect is not None, expect=expect, rekey_records=5
        )

    async with trio.open_nursery() as shaking:
        shaking.start_soon(shake, one, "S0", "S1")
        shaking.start_soon(shake, other, "S1", None)
    return ends["S0"], ends["S1"]


def shaped(there: Direction, back: Direction, buffer_bytes: int = DEFAULT_BUFFER_BYTES) -> Wrapper:
    async def wrap(one: Link, other: Link, nursery: trio.Nursery) -> Ends:
        return (
            ShapedLink(one, there, nursery, buffer_bytes=buffer_bytes),
            ShapedLink(other, back, nursery, buffer_bytes=buffer_bytes),
        )

    return wrap


async def recorded(one: Link, other: Link, nursery: trio.Nursery) -> Ends:
    recorder = Recorder()
    return recorder.wrap_link(one, "S0"), recorder.wrap_link(other, "S1")


async def tapped(one: Link, other: Link, nursery: trio.Nursery) -> Ends:
    network = Network()
    return network.wrap_link(one, "S0"), network.wrap_link(other, "S1")


#: 50 ms one way with jitter, 2 ms the other way.
FAR = shaped(Direction(0.05, 1e8, 0.01), Direction(0.002, 1e9))
FAR_AND_LITTLE = shaped(Direction(0.05, 1e8, 0.01), Direction(0.002, 1e9), LITTLE)
#: Short enough for the real clock.
NEAR = shaped(Direction(0.002, 1e9), Direction(0.001))
NEAR_AND_LITTLE = shaped(Direction(0.002, 1e9), Direction(0.001), LITTLE)


ON_ANY_CLOCK: dict[str, Makers] = {
    "memory": (memory(), memory(1)),
    "memory, one at a time": (memory(1), memory(0)),
    "recorded": (stacked(memory(), recorded), stacked(memory(1), recorded)),
    "tapped": (stacked(memory(), tapped), stacked(memory(1), tapped)),
    "sealed": (stacked(memory(), sealed), stacked(memory(1), sealed)),
    "shaped": (stacked(memory(), FAR), stacked(memory(1), FAR_AND_LITTLE)),
    "shaped over sealed": (stacked(memory(), sealed, FAR), stacked(memory(1), sealed, FAR_AND_LITTLE)),
    "sealed over shaped": (stacked(memory(), FAR, sealed), stacked(memory(1), FAR_AND_LITTLE, sealed)),
    "recorded over sealed over tapped": (
        stacked(memory(), tapped, sealed, recorded),
        stacked(memory(1), tapped, sealed, recorded),
    ),
}
ON_SOCKETS: dict[str, Makers] = {
    "tcp": (tcp(), tcp(LITTLE, LITTLE)),
    "sealed over tcp": (stacked(tcp(), sealed), stacked(tcp(LITTLE, LITTLE), sealed)),
    "shaped over sealed over tcp": (
        stacked(tcp(), sealed, NEAR),
        stacked(tcp(LITTLE, LITTLE), sealed, NEAR_AND_LITTLE),
    ),
}


@pytest.mark.parametrize("makers", ON_ANY_CLOCK.values(), ids=ON_ANY_CLOCK)
async def test_the_contract_in_virtual_time(makers: Makers, autojump_clock: MockClock) -> None:
    await check_transport(*makers)


@pytest.mark.parametrize("makers", ON_SOCKETS.values(), ids=ON_SOCKETS)
async def test_the_contract_on_sockets(makers: Makers) -> None:
    with trio.fail_after(120):
        await check_transport(*makers)


async def test_the_contract_in_real_time() -> None:
    with trio.fail_after(60):
        await check_transport(*ON_ANY_CLOCK["memory"])
