"""A TCP proxy in front of every server, which knows which two parties a connection is between.

All parties dial one address per server, so a connection's caller is told by the process that owns its socket.
"""

from __future__ import annotations

import socket as stdlib
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
import trio.testing

#: What becomes of each piece of bytes on its way; b"" drops it.
Change = Callable[[bytes], bytes]
_RESET = struct.pack("ii", 1, 0)


def owner_of_port(port: int, pids: Mapping[str, int]) -> str:
    """Whose process dials from a local port; "?" when none of them does."""
    wanted = f":{port:04X}"
    sockets = {
        f"socket:[{fields[9]}]"
        for fields in map(str.split, Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:])
        if fields[1].endswith(wanted)
    }
    for name, pid in pids.items():
        with suppress(FileNotFoundError, ProcessLookupError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(entry.readlink()) in sockets:
                        return name
    return "?"


@dataclass(eq=False)
class Connection:
    """A connection between two parties.  ``flows``: set while bytes are forwarded."""

    pair: frozenset[str]
    ends: tuple[trio.SocketStream, trio.SocketStream]
    flows: trio.Event
    change: Change | None = None

    def reset(self) -> None:
        """Cut it, so that both ends see a reset."""
        for end in self.ends:
            with suppress(OSError):
                end.socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, _RESET)
            end.socket.close()


@dataclass
class Proxy:
    """All connections there are now, in front of servers at ``targets``; ``pids`` tells callers apart."""

    targets: dict[str, int]
    nursery: trio.Nursery
    pids: Callable[[], dict[str, int]] = dict
    connections: list[Connection] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    _listening: dict[str, trio.CancelScope] = field(default_factory=dict)

    async def listen(self, server: str) -> None:
        """Take connections for a server, at the same port as before if there was one."""
        listeners = await trio.open_tcp_listeners(self.ports.get(server, 0), host="127.0.0.1")
        self.ports[server] = listeners[0].socket.getsockname()[1]
        scope = self._listening[server] = trio.CancelScope()

        async def serve() -> None:
            with scope:
                await trio.serve_listeners(partial(self._serve, server), listeners, handler_nursery=self.nursery)

        self.nursery.start_soon(serve)

    async def refuse(self, server: str) -> None:
        """Take no more connections for a server."""
        self._listening.pop(server).cancel()
        await trio.testing.wait_all_tasks_blocked()

    def between(self, one: str, other: str) -> list[Connection]:
        return [link for link in self.connections if link.pair == {one, other}]

    async def _serve(self, server: str, stream: trio.SocketStream) -> None:
        """Forward one accepted connection until it ends."""
        caller = owner_of_port(stream.socket.getpeername()[1], self.pids())
        try:
            target = await trio.open_tcp_stream("127.0.0.1", self.targets[server])
        except OSError:
            stream.socket.close()
            return
        flowing = trio.Event()
        flowing.set()
        link = Connection(frozenset((caller, server)), (stream, target), flowing)
        self.connections.append(link)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_forward, link, stream, target)
                nursery.start_soon(_forward, link, target, stream)
        finally:
            self.connections.remove(link)
            for end in link.ends:
                end.socket.close()


async def _forward(link: Connection, source: trio.SocketStream, target: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await link.flows.wait()
            passed = data if link.change is None else link.change(bytes(data))
            if passed:
                await target.send_all(passed)
        await target.send_eof()
        return
    # One direction broke: so does the other.
    link.reset()


@asynccontextmanager
async def open_proxy(targets: dict[str, int]) -> AsyncIterator[Proxy]:
    """Listen in front of each server inside the block; leaving it resets every connection."""
    async with trio.open_nursery() as nursery:
        proxy = Proxy(targets, nursery)
        for server in targets:
            await proxy.listen(server)
        yield proxy
        nursery.cancel_scope.cancel()
