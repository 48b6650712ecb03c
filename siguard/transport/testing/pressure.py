"""Clauses on a link that is soon full: a sender waits, and nothing else does."""

from __future__ import annotations

import trio

from siguard.transport.link import Link
from siguard.transport.testing.messages import require_from_each
from siguard.transport.testing.tools import PAUSE, require, require_same, send_all, stamped, take

#: Bytes of a message that is sent to fill a link.
FILL_BYTES = 1 << 14
#: A link that takes so many of them, with nobody reading, has no back-pressure.
FILL_LIMIT = 256


class Flow:
    """Sends without end, and counts what was sent and what was read."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.sent = 0
        self.read = 0

    def message(self, number: int) -> bytes:
        """One of the messages that are sent."""
        return stamped(3, number, FILL_BYTES)

    async def run(self) -> None:
        """Send until it raises; AssertionError when too much has been sent that nobody read."""
        while True:
            await self._link.send(self.message(self.sent))
            self.sent += 1
            require(
                self.sent - self.read < FILL_LIMIT,
                f"{FILL_LIMIT} messages of {FILL_BYTES} bytes were taken while nobody read",
            )

    async def stands_still(self) -> None:
        """Return when no more is sent."""
        seen = -1
        while seen != self.sent:
            seen = self.sent
            await trio.sleep(PAUSE)

    async def arrives(self, other: Link, count: int) -> None:
        """Read the next messages at the other end."""
        for _ in range(count):
            require_same(await take(other, 1), [self.message(self.read)])
            self.read += 1


async def a_sender_waits_while_nobody_reads(one: Link, other: Link) -> None:
    """`send` waits while the other end is too far behind, and goes on when it reads."""
    flow = Flow(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.run)
        for _ in range(2):
            await flow.stands_still()
            await flow.arrives(other, flow.sent + 3)
        nursery.cancel_scope.cancel()


async def a_full_direction_does_not_block_the_other(one: Link, other: Link) -> None:
    """While one direction is full, messages go on arriving in the other."""
    flow = Flow(one)
    back = [stamped(1, number, size) for number, size in enumerate([8, 100, FILL_BYTES, 10 * FILL_BYTES])]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.run)
        await flow.stands_still()
        nursery.start_soon(send_all, other, back)
        require_same(await take(one, len(back)), back)
        nursery.cancel_scope.cancel()


async def both_directions_drain_when_both_were_full(one: Link, other: Link) -> None:
    """When both directions were full and both ends read, all messages arrive."""
    there, back = Flow(one), Flow(other)
    async with trio.open_nursery() as nursery:
        for flow in (there, back):
            nursery.start_soon(flow.run)
        for flow in (there, back):
            await flow.stands_still()
        async with trio.open_nursery() as reading:
            reading.start_soon(there.arrives, other, there.sent + 3)
            reading.start_soon(back.arrives, one, back.sent + 3)
        nursery.cancel_scope.cancel()


async def waiting_senders_do_not_mix(one: Link, other: Link) -> None:
    """Tasks that wait in `send` at once: messages stay whole, and each task's stay in order."""
    sent = {sender: [stamped(sender, number, FILL_BYTES) for number in range(12)] for sender in range(4)}
    async with trio.open_nursery() as nursery:
        for messages in sent.values():
            nursery.start_soon(send_all, one, messages)
        await trio.sleep(PAUSE)
        received = await take(other, sum(map(len, sent.values())))
    require_from_each(received, sent)
