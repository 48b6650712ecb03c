"""Links over TCP: each message with its length before it, on a connection that the link owns.

    | length: 4 bytes, little-endian | message |

Two lengths are not lengths: ENDED says that no more messages come, CLOSED that none are read any more either.  A
connection that ends without one of them was cut: the kernel closes the sockets of a killed process quite politely.
"""

from __future__ import annotations

import socket as stdlib
from contextlib import suppress

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from siguard.transport.link import Data
from siguard.transport.tcp_incoming import Incoming
from siguard.transport.tcp_outgoing import Outgoing
from siguard.transport.tcp_wire import CLOSED, ENDED, LONGEST, Over, set_options

#: Longest message taken unless the caller says otherwise, in bytes.
DEFAULT_LIMIT = 1 << 30
#: Bytes that may wait to be sent, besides one message, before senders wait.
DEFAULT_BACKLOG = 1 << 20
#: Seconds that a closed link goes on without progress, and in all, so that the peer gets what was sent before.
LINGER, LINGER_IN_ALL = 1.0, 5.0
#: Reads that found data at once before other tasks get their turn.
_READS = 16


class TcpLink:
    """One end of a link over TCP; see `siguard.transport.link.Link` for the contract.

    Takes the socket over: the stream it came with cannot be used any more.  A task runs in ``nursery`` while there
    is something to send that the kernel would not take, and after `aclose` for at most `LINGER_IN_ALL` seconds,
    cancelled or not.  ``peer`` and ``limit`` (bytes of a received message) may be set at any time.
    ``backlog`` bounds the bytes that wait to be sent, besides one message and the kernel's own buffer.
    """

    def __init__(
        self,
        socket: trio.SocketStream | trio.socket.SocketType,
        peer: str,
        nursery: trio.Nursery,
        *,
        limit: int = DEFAULT_LIMIT,
        backlog: int = DEFAULT_BACKLOG,
    ) -> None:
        self.peer = peer
        self.limit = limit
        #: Whether closing waits until the other end has what was sent; not for whoever has not proved who it is.
        self.linger = True
        self._nursery = nursery
        # The plain socket: trio's would add about a microsecond to each call.
        taken = socket.socket if isinstance(socket, trio.SocketStream) else socket
        self._socket = stdlib.socket(fileno=taken.detach())
        self._socket.setblocking(False)
        set_options(self._socket)
        self._outgoing = Outgoing(self._socket, nursery, backlog)
        self._incoming = Incoming(self._socket)
        self._closed = False

    async def send(self, data: bytes) -> None:
        """Send one message; waits while more than ``backlog`` bytes are unsent."""
        if len(data) > LONGEST:
            raise ValueError(f"a message of {len(data)} bytes; a TCP link carries at most {LONGEST}")
        await checkpoint_if_cancelled()
        outgoing = self._outgoing
        if outgoing.over is None:
            if outgoing.has_room():
                outgoing.put(data)
                if outgoing.over is None:
                    await cancel_shielded_checkpoint()
                    return
            else:
                await outgoing.put_in_turn(data)
        if outgoing.over is not None:
            raise outgoing.over.error(self.peer)

    async def send_eof(self) -> None:
        """No more messages from this end."""
        if self._outgoing.over is None:
            self._outgoing.end(Over("this end has sent its last message"), ENDED)
        await checkpoint()

    async def receive(self) -> Data:
        """The next message; a long one is a `bytearray` of its own, received in place."""
        await checkpoint_if_cancelled()
        incoming = self._incoming
        waited, reads = False, 0
        while True:
            message = incoming.take(self.limit)
            if message is not None:
                if not waited:
                    await cancel_shielded_checkpoint()
                return message
            if incoming.over is not None:
                raise self._note_end(incoming.over).error(self.peer)
            try:
                incoming.read()
            except BlockingIOError:
                waited, reads = True, 0
                with suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(self._socket)
            reads += 1
            if reads == _READS:
                waited, reads = True, 0
                await checkpoint()

    def _note_end(self, over: Over) -> Over:
        """What the end of the incoming side means for the other one; returns why it is over."""
        sending = self._outgoing.over
        if self._closed:
            # What was sent before is still on its way.
            return over
        if over.broken:
            self._drop(over)
            # The kernel says only once what broke a connection: here, or where something was sent.
            return sending if sending is not None and sending.broken else over
        if over.both:
            self._outgoing.give_up(over)
        return over

    def _drop(self, over: Over) -> None:
        self._outgoing.give_up(over)
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Close this end; what was sent goes out in the background."""
        if not self._closed:
            self._closed = True
            self._close()
        await checkpoint()

    def _close(self) -> None:
        over = Over("this end has closed it", both=True)
        self._incoming.over = self._incoming.over or over
        if self._socket.fileno() < 0:
            return
        # Wakes a waiting receive, and the task that was sending.
        trio.lowlevel.notify_closing(self._socket)
        if not self.linger:
            self._drop(over)
            return
        self._outgoing.end(over, CLOSED)
        try:
            self._nursery.start_soon(self._finish, name=f"close link to {self.peer}")
        except RuntimeError:  # the nursery has ended: the kernel does what it can
            self._drop(over)

    async def _finish(self) -> None:
        """Send the rest, say so, and wait until the other end has closed too.

        What arrives meanwhile is read and dropped: the kernel answers unread data with a reset, which destroys what
        is still on its way to the other end; and the other end may have to send before it reads.
        """
        try:
            with trio.move_on_after(LINGER_IN_ALL, shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._incoming.discard)
                    await self._outgoing.drain(LINGER)
                    with suppress(OSError):
                        self._socket.shutdown(stdlib.SHUT_WR)
                    nursery.cancel_scope.deadline = trio.current_time() + LINGER
        finally:
            self._socket.close()
