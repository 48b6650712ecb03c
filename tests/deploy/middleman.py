"""A man in the middle: a TCP proxy before each server that cuts, swallows, holds and changes what passes.

The deployment file names the proxies' ports.  Each direction of a connection is cut into the messages of a TCP
link, their prefix of 4 bytes included, and each goes through ``change``.
"""

from __future__ import annotations

import socket as stdlib
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import trio
from deploy_helpers import Deployed, settled, with_server

from siguard.deploy.loopback import LOOPBACK, Loopback
from siguard.deploy.user import User
from siguard.transport.link import Link
from siguard.transport.secure import SealedLink
from siguard.transport.tcp import TcpLink
from siguard.transport.tcp_wire import PREFIX_BYTES

#: Messages of the handshake on one connection, and the hello each way: initiator, responder.
HANDSHAKE_MESSAGES = (3, 3)


class Passed(NamedTuple):
    """One message of a TCP link, its prefix included, with its number on this connection in this direction."""

    connection: Connection
    to_server: bool
    number: int
    data: bytes

    @property
    def after_hello(self) -> bool:
        """Whether it is a frame, sealed."""
        return self.number >= HANDSHAKE_MESSAGES[not self.to_server]


#: Given a message, the bytes that go on in its place.
Change = Callable[[Passed], Sequence[bytes]]


def unchanged(passed: Passed) -> Sequence[bytes]:
    return [passed.data]


def swallow(passed: Passed) -> Sequence[bytes]:
    return []


@dataclass(eq=False)
class Connection:
    """One connection through a proxy; ``change`` is what happens on it, both ways.

    ports: of the end that called and of the proxy's end towards the server.  counts, octets: what was passed, by
    direction.
    """

    server: str
    near: trio.SocketStream
    far: trio.SocketStream
    change: Change = unchanged
    ports: tuple[int, int] = (0, 0)
    counts: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    octets: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    open: bool = True

    def __post_init__(self) -> None:
        self.ports = self.near.socket.getpeername()[1], self.far.socket.getsockname()[1]

    def reset(self) -> None:
        """Cut both sides hard: RST, no end."""
        if not self.open:
            return
        for stream in (self.near, self.far):
            # Linger for no time: closing sends a reset.
            stream.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
        self.open = False

    def is_closed(self) -> bool:
        return not self.open

    async def carry(self) -> None:
        """Both directions, until both ends are done."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._one_way, self.near, self.far, True)
                nursery.start_soon(self._one_way, self.far, self.near, False)
        finally:
            self.open = False
            for stream in (self.near, self.far):
                stream.socket.close()

    async def _one_way(self, source: trio.SocketStream, sink: trio.SocketStream, to_server: bool) -> None:
        pending = bytearray()
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for chunk in source:
                pending += chunk
                for message in _messages(pending):
                    passed = Passed(self, to_server, self.counts[to_server], message)
                    self.counts[to_server] += 1
                    self.octets[to_server] += len(message)
                    for data in self.change(passed):
                        await sink.send_all(data)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await sink.send_eof()


def _port(link: Link, end: str) -> int:
    while not isinstance(link, TcpLink):
        link = link._inner if isinstance(link, SealedLink) else link.link  # type: ignore[attr-defined]
    assert isinstance(link, TcpLink)
    if link._socket.fileno() < 0:
        return 0
    with suppress(OSError):
        return int(getattr(link._socket, end)()[1])
    return 0


def _messages(pending: bytearray) -> list[bytes]:
    """Take the whole messages off the front."""
    found = []
    while len(pending) >= PREFIX_BYTES:
        length = int.from_bytes(pending[:PREFIX_BYTES], "little")
        # The two greatest lengths are marks without a message.
        end = PREFIX_BYTES + (length if length < 0xFFFF_FFFE else 0)
        if len(pending) < end:
            break
        found.append(bytes(pending[:end]))
        del pending[:end]
    return found


@dataclass
class Middle:
    """A proxy before each server.  ``change`` is what happens on new connections.  Pass `stand` as ``between``.

    refuse: servers whose proxy closes new connections at once.
    """

    connections: list[Connection] = field(default_factory=list)
    change: Change = unchanged
    refuse: set[str] = field(default_factory=set)

    def to(self, server: str) -> list[Connection]:
        """The connections to a server that are open, in the order in which they were made."""
        return [one for one in self.connections if one.server == server and one.open]

    async def link(self, here: Deployed, caller: User | str, server: str) -> Connection:
        """The connection that a party's present link to a server goes through, once both ends use it."""
        actor = here.servers[caller] if isinstance(caller, str) else caller._client
        callee = here.servers[server]
        found: list[Connection] = []

        def same() -> bool:
            if not (actor.has_link(server) and callee.has_link(actor.name)):
                return False
            ports = (_port(actor._links[server], "getsockname"), _port(callee._links[actor.name], "getpeername"))
            found[:] = [one for one in self.to(server) if one.ports == ports]
            return bool(found)

        assert await settled(same), f"no link from {actor.name} to {server}"
        return found[0]

    async def stand(self, loopback: Loopback, nursery: trio.Nursery) -> Loopback:
        """Listen before each server, and change the deployment file."""
        deployment = loopback.deployment
        for server, endpoint in loopback.deployment.servers.items():
            [listener] = await trio.open_tcp_listeners(0, host=LOOPBACK)
            nursery.start_soon(trio.serve_listeners, self._carrier(server, endpoint.port), [listener])
            deployment = with_server(deployment, server, port=listener.socket.getsockname()[1])
        return loopback.changed(servers=deployment.servers)

    def _carrier(self, server: str, port: int) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def carry(near: trio.SocketStream) -> None:
            if server in self.refuse:
                return
            try:
                far = await trio.open_tcp_stream(LOOPBACK, port)
            except OSError:
                return
            connection = Connection(server, near, far, self.change)
            self.connections.append(connection)
            await connection.carry()

        return carry
