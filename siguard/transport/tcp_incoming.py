"""The receiving direction of a TCP link: short messages are cut out of one buffer, long ones received in place."""

from __future__ import annotations

import socket as stdlib

import trio

from siguard.transport.link import Data
from siguard.transport.tcp_wire import CLOSED, ENDED, LONGEST, PREFIX_BYTES, Over, broken

_BUFFER_BYTES = 1 << 16
_SHORT = _BUFFER_BYTES - PREFIX_BYTES


class Incoming:
    """Messages on their way in.  ``over`` says why no more come, once all before were taken.

    The state between two calls is all there is, so a cancelled wait loses nothing.
    """

    def __init__(self, socket: stdlib.socket) -> None:
        self.over: Over | None = None
        self._socket = socket
        # Read and not yet taken is _buffer[_start:_end], behind the _filled bytes of the long message _body.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._start = self._end = 0
        self._body: bytearray | None = None
        self._filled = 0

    def take(self, limit: int) -> Data | None:
        """The next message if it is there; else sets `over`, or `read` has to be called."""
        if self.over is not None:
            return None
        if self._body is not None:
            return self._take_body(self._body)
        start = self._start + PREFIX_BYTES
        if self._end < start:
            self._make_room()
            return None
        length = int.from_bytes(self._buffer[self._start : start], "little")
        if length > limit or length > LONGEST:
            self.over = _end_for(length, limit)
            return None
        end = start + length
        if end <= self._end:
            self._start = end
            return bytes(self._buffer[start:end])
        if length <= _SHORT:
            self._make_room()
            return None
        self._body = bytearray(length)
        self._filled = self._end - start
        self._body[: self._filled] = self._buffer[start : self._end]
        self._start = self._end = 0
        return None

    def _take_body(self, body: bytearray) -> Data | None:
        if self._filled < len(body):
            return None
        self._body = None
        return body

    def _make_room(self) -> None:
        """Move the beginning of a message to the front."""
        count = self._end - self._start
        self._buffer[:count] = self._buffer[self._start : self._end]
        self._start, self._end = 0, count

    def read(self) -> None:
        """Read once, or set `over`.  Raises `BlockingIOError` when nothing is there."""
        try:
            if self._body is None:
                count = self._socket.recv_into(self._buffer[self._end :])
                self._end += count
            else:
                count = self._read_body(self._body)
        except BlockingIOError:
            raise
        except OSError as error:
            self.over = broken(error)
            return
        if count == 0:
            inside = self._body is not None or self._end > self._start
            where = "in the middle of a message" if inside else "without a word"
            self.over = Over(f"the other end stopped {where}; its process may have died", broken=True, both=True)

    def _read_body(self, body: bytearray) -> int:
        """Read the rest of a long message, and in the same call what follows it."""
        missing = len(body) - self._filled
        with memoryview(body)[self._filled :] as rest:
            count = self._socket.recvmsg_into([rest, self._buffer])[0]
        self._filled += min(count, missing)
        self._end = max(count - missing, 0)
        return count

    async def discard(self) -> None:
        """Read and drop what comes, until the end."""
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                if self._socket.recv_into(self._buffer) == 0:
                    return
            except BlockingIOError:
                continue
            except OSError:
                return


def _end_for(length: int, limit: int) -> Over:
    if length == ENDED:
        return Over("the other end has sent its last message")
    if length == CLOSED:
        return Over("the other end has closed it", both=True)
    return Over(
        f"it announced a message of {length} bytes, more than the {limit} allowed; "
        "either it is not a party, or the limit is too low",
        broken=True,
        both=True,
    )
