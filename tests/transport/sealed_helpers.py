"""Sealed links in one process, over a wire that a test can tamper with."""

from __future__ import annotations

from collections.abc import Callable

import trio
from handshake_helpers import KNOWN, identity

from siguard.transport.link import Data, Link
from siguard.transport.memory import DEFAULT_CAPACITY, memory_link_pair
from siguard.transport.records import REKEY_RECORDS
from siguard.transport.secure import SealedLink, seal

Tamper = Callable[[bytes], list[bytes]]


class Wire:
    """A link whose outgoing messages pass ``tamper`` once that is set; keeps what was sent."""

    def __init__(self, inner: Link) -> None:
        self.peer = inner.peer
        self.inner = inner
        self.sent: list[bytes] = []
        self.tamper: Tamper | None = None
        self.cancel_next: bool | None = None  # True: after the message has left; False: before
        self.closed = False

    async def send(self, data: bytes) -> None:
        left, self.cancel_next = self.cancel_next, None
        if left is False:
            await trio.sleep_forever()
        self.sent.append(data)
        for piece in [data] if self.tamper is None else self.tamper(data):
            await self.inner.send(piece)
        if left:
            await trio.sleep_forever()

    async def send_eof(self) -> None:
        await self.inner.send_eof()

    async def receive(self) -> Data:
        return await self.inner.receive()

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()


async def sealed_pair(
    capacity: int = DEFAULT_CAPACITY, rekey_records: int = REKEY_RECORDS
) -> tuple[SealedLink, SealedLink, Wire, Wire]:
    """S0's end, which called, S1's end, and the wires below them."""
    one, other = (Wire(end) for end in memory_link_pair("S0", "S1", capacity))
    ends: dict[bool, SealedLink] = {}

    async def run(link: Link, name: str, initiator: bool) -> None:
        expect = "S1" if initiator else None
        ends[initiator] = await seal(
            link, identity(name), KNOWN, initiator=initiator, expect=expect, rekey_records=rekey_records
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, one, "S0", True)
        nursery.start_soon(run, other, "S1", False)
    one.sent.clear()
    other.sent.clear()
    return ends[True], ends[False], one, other
