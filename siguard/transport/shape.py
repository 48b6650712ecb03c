"""`ShapedLink`: a link that is as slow as a given network, in trio's time.

Each end shapes what it sends.  A message goes on the line when the line is free, occupies it for its bits, and
arrives a latency later, so that messages on their way overlap.  Real seconds on the real clock, virtual ones on a
virtual clock.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import NamedTuple

import numpy as np
import trio

from siguard.transport.link import Data, Link, LinkClosedError
from siguard.transport.profiles import Direction, NetworkProfile

#: Bytes that may wait for the line before a sender does.
DEFAULT_BUFFER_BYTES = 4 << 20
#: On a line without a limit nothing waits for it: this many buffers may be on their way.
IN_FLIGHT_BUFFERS = 16
#: What a waiting message counts at least, so that empty ones cannot pile up for ever.
_MESSAGE_BYTES = 256
#: Seconds after the last message was due in which the other end must have taken everything, once this end closed.
LINGER_SECONDS = 10.0
#: The operating system wakes a sleeper up to a millisecond late: the last stretch is watched, not slept.
_WATCHED_SECONDS = 1.5e-3


class _Mark(Enum):
    """What comes out in order with the messages."""

    EOF = auto()
    CLOSE = auto()


class _Item(NamedTuple):
    due: float
    what: bytes | _Mark


def is_virtual_clock() -> bool:
    """Whether this run's time is virtual; such a clock exists only if its module was imported, here it is not."""
    testing = sys.modules.get("trio.testing")
    return testing is not None and isinstance(trio.lowlevel.current_clock(), testing.MockClock)


class ShapedLink:
    """One end of a link whose sent messages meet ``direction``; see `siguard.transport.link.Link` for the contract.

    A task in ``nursery`` passes messages on when they are due.  It ends when this end has closed and the other end
    has what was sent, at the latest `LINGER_SECONDS` after the last message was due.  If it is cancelled, the link
    below is closed and what was on its way is lost.
    rng: where jitter comes from.  buffer_bytes: may wait for the line, or for an other end that takes nothing.
    """

    def __init__(
        self,
        link: Link,
        direction: Direction,
        nursery: trio.Nursery,
        *,
        rng: np.random.Generator | None = None,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    ) -> None:
        self.peer = link.peer
        self._link = link
        self._direction = direction
        self._rng = rng or np.random.default_rng()
        self._buffer_bytes = buffer_bytes
        self._virtual = is_virtual_clock()
        self._nursery = nursery
        self._turn = trio.Lock()
        self._reading = trio.Lock()
        self._senders: set[trio.CancelScope] = set()
        self._receivers: set[trio.CancelScope] = set()
        self._line_free = self._last_due = -math.inf
        #: Bytes that the link below has not taken, and whether it is being asked to.
        self._queued = 0
        self._passing = False
        self._passed = trio.Event()
        #: No more from this end; this end closed; nothing is passed on any more.
        self._last = self._closed = self._ended = False
        self._delivery = trio.CancelScope()
        self._put, self._items = trio.open_memory_channel[_Item](math.inf)
        nursery.start_soon(self._deliver)

    # The contract -----------------------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Put one message on its way; waits while more than the buffer waits for the line or for the other end.

        That the other end has closed is noticed when a message reaches it.
        """
        with self._until_cancelled(self._senders):
            # In turn: messages leave in the order in which they were sent, and the first to wait is the next.
            async with self._turn:
                await self._room()
                self._check_open()
                # No checkpoint from here: sent whole or not at all.
                self._line_free = max(trio.current_time(), self._line_free)
                self._line_free += self._direction.seconds_on_line(len(data))
                self._enqueue(data)

    async def send_eof(self) -> None:
        """Nothing more comes from this end; the other end learns it after the last message."""
        if not self._last:
            self._last = True
            self._enqueue(_Mark.EOF)
            _cancel(self._senders)
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Data:
        """The next message of the other end, which shaped it."""
        with self._until_cancelled(self._receivers):
            async with self._reading:
                data = await self._link.receive()
        return data

    async def aclose(self) -> None:
        """Close this end at once; what was sent arrives when it is due, and after it the end."""
        if not self._closed:
            self._last = self._closed = True
            self._enqueue(_Mark.CLOSE)
            self._delivery.deadline = self._last_due + LINGER_SECONDS
            _cancel(self._senders)
            _cancel(self._receivers)
            if not self._ended:
                self._nursery.start_soon(self._discard)
        if self._ended:
            await self._link.aclose()
        else:
            await trio.lowlevel.checkpoint()

    # Sending ----------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._last or self._ended:
            raise LinkClosedError(f"link to {self.peer} is closed")

    @contextmanager
    def _until_cancelled(self, scopes: set[trio.CancelScope]) -> Iterator[None]:
        """Turns the end of the link into `LinkClosedError`, whatever the block waits for."""
        if self._closed:
            raise LinkClosedError(f"link to {self.peer} is closed")
        with trio.CancelScope() as scope:
            scopes.add(scope)
            try:
                yield
            finally:
                scopes.discard(scope)
        if scope.cancelled_caught:
            raise LinkClosedError(f"link to {self.peer} is closed")

    async def _room(self) -> None:
        """Wait until the buffer takes another message."""
        rate = self._direction.bits_per_second
        most_queued = math.inf if rate else IN_FLIGHT_BUFFERS * self._buffer_bytes
        while not (self._last or self._ended):
            if self._queued > (self._buffer_bytes if self._passing else most_queued):
                await self._passed.wait()
                continue
            if rate is None:
                return
            buffer_free = self._line_free - 8 * self._buffer_bytes / rate
            if buffer_free <= trio.current_time():
                return
            await trio.sleep_until(buffer_free)

    def _enqueue(self, what: bytes | _Mark) -> None:
        if self._ended:
            return
        arrival = max(trio.current_time(), self._line_free) + self._direction.latency_seconds
        if self._direction.jitter_seconds:
            arrival += self._rng.uniform(0, self._direction.jitter_seconds)
        self._last_due = max(arrival, self._last_due)
        self._queued += _weight(what)
        self._put.send_nowait(_Item(self._last_due, what))

    # Delivery ---------------------------------------------------------------------------------------------

    async def _deliver(self) -> None:
        gone = False
        try:
            with self._delivery:
                async for due, what in self._items:
                    await self._sleep_until(due)
                    if what is _Mark.CLOSE:
                        break
                    await self._pass_on(what)
        except LinkClosedError:
            # The other end takes nothing more, but what it sent before can still be received.
            gone = True
        finally:
            self._ended = True
            self._items.close()
            _cancel(self._senders)
            if not gone or self._closed:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LINGER_SECONDS):
                    await self._link.aclose()

    async def _discard(self) -> None:
        """Read for nobody until the link below is closed: the other end may read only after it could send."""
        with suppress(LinkClosedError):
            async with self._reading:  # when the call that is being woken has left
                while True:
                    await self._link.receive()

    async def _pass_on(self, what: bytes | _Mark) -> None:
        self._passing = True
        if isinstance(what, _Mark):
            await self._link.send_eof()
        else:
            await self._link.send(what)
        self._passing = False
        self._queued -= _weight(what)
        self._passed.set()
        self._passed = trio.Event()

    async def _sleep_until(self, due: float) -> None:
        if self._virtual:
            await trio.sleep_until(due)
            return
        if due - trio.current_time() > _WATCHED_SECONDS:
            await trio.sleep_until(due - _WATCHED_SECONDS)
        while trio.current_time() < due:
            await trio.lowlevel.checkpoint()


def shaper(
    profile: NetworkProfile | None, nursery: trio.Nursery, seed: int | None = None
) -> Callable[[Link, str], Link]:
    """Wraps one end of a link, given its owner, as ``profile`` says; None: leaves it as it is.

    seed: repeats the jitter of every link; None: jitter is different in each run.
    """

    def wrap(link: Link, owner: str) -> Link:
        if profile is None:
            return link
        way = f"{owner}->{link.peer}".encode()
        rng = np.random.default_rng(None if seed is None else [seed, zlib.crc32(way)])
        return ShapedLink(link, profile.direction(owner, link.peer), nursery, rng=rng)

    return wrap


def _cancel(scopes: set[trio.CancelScope]) -> None:
    for scope in list(scopes):
        scope.cancel()


def _weight(what: bytes | _Mark) -> int:
    return _MESSAGE_BYTES if isinstance(what, _Mark) else max(len(what), _MESSAGE_BYTES)
