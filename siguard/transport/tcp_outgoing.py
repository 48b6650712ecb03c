"""The sending direction of a TCP link: straight to the kernel, and a bounded queue for what it does not take."""

from __future__ import annotations

import errno
import socket as stdlib
from collections import deque
from itertools import islice

import trio

from siguard.transport.tcp_wire import Over, broken, prefix

#: Up to this size one copy costs less than a second buffer for the kernel to look at.
_JOINED = 1 << 12
#: Buffers in one call of the kernel, which takes 1024 at most.
_BUFFERS = 256


class Outgoing:
    """Messages on their way out.  ``over`` says why no more are taken, once that is so."""

    def __init__(self, socket: stdlib.socket, nursery: trio.Nursery, backlog: int) -> None:
        self.over: Over | None = None
        self._socket = socket
        self._nursery = nursery
        self._backlog = backlog
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._flushing = False
        self._closing = False
        self._room = trio.Event()
        self._turn = trio.StrictFIFOLock()

    def has_room(self) -> bool:
        """Whether a message can be put now, and nobody waits to do so."""
        return self._queued <= self._backlog and not self._turn.locked()

    def put(self, data: bytes) -> None:
        """Send one message or queue it; `over` says whether that was in vain."""
        if len(data) <= _JOINED:
            self._write(prefix(len(data)) + data)
        else:
            self._write(prefix(len(data)), data)

    async def put_in_turn(self, data: bytes) -> None:
        """Wait for room behind those who came before, then put; returns without when `over` is set."""
        async with self._turn:
            while self.over is None and self._queued > self._backlog:
                await self._room.wait()
            if self.over is None:
                self.put(data)

    def end(self, over: Over, mark: int) -> None:
        """Take no more messages, and send ``mark`` after those that were taken."""
        self._closing = self._closing or over.both
        self.over = over
        self._write(prefix(mark))
        self._wake()

    def give_up(self, over: Over) -> None:
        """Take no more messages, and drop those that wait."""
        self.over = self.over or over
        self._closing = True
        self._queue.clear()
        self._queued = 0
        self._wake()

    async def drain(self, patience: float) -> None:
        """Send what waits, as long as something of it goes out every ``patience`` seconds."""
        while self._is_unsent():
            with trio.move_on_after(patience) as scope:
                await trio.lowlevel.wait_writable(self._socket)
            if scope.cancelled_caught:
                return

    def _write(self, *parts: bytes) -> None:
        self._queue.extend(parts)
        for part in parts:
            self._queued += len(part)
        if self._flushing or not self._is_unsent() or self._closing:
            return
        try:
            self._nursery.start_soon(self._flush, name="flush TCP link")
            self._flushing = True
        except RuntimeError:
            self.over = self.over or Over("the nursery of its tasks has ended")

    def _is_unsent(self) -> bool:
        """Whether something is left after all was written that goes without waiting."""
        while self._queue:
            batch = list(islice(self._queue, _BUFFERS))
            try:
                sent = self._socket.send(batch[0]) if len(batch) == 1 else self._socket.sendmsg(batch)
            except BlockingIOError:
                return True
            except OSError as error:
                # A pipe breaks, other than by a reset, when the other end had said before that it is done.
                done = error.errno == errno.EPIPE
                self.give_up(Over("the other end takes no more") if done else broken(error))
                return False
            self._queued -= sent
            while self._queue and sent >= len(self._queue[0]):
                sent -= len(self._queue.popleft())
            if sent:
                self._queue[0] = memoryview(self._queue[0])[sent:]
        return False

    async def _flush(self) -> None:
        """The background task, while there is something to send."""
        try:
            while not self._closing and self._is_unsent():
                if self._queued <= self._backlog:
                    self._wake()
                await trio.lowlevel.wait_writable(self._socket)
        except trio.ClosedResourceError:
            pass
        except trio.Cancelled:
            # What waits is kept for a link that is closed yet.
            self.over = self.over or Over("its tasks were cancelled")
            raise
        finally:
            self._flushing = False
            self._wake()

    def _wake(self) -> None:
        self._room.set()
        self._room = trio.Event()
