"""Links between parties in one process, over trio memory channels."""

from __future__ import annotations

import trio

from siguard.transport.link import LinkClosedError

#: Messages that may wait on a link before the sender does.
DEFAULT_CAPACITY = 64


class MemoryLink:
    """One end of an in-process link; see `siguard.transport.link.Link` for the contract."""

    def __init__(
        self,
        peer: str,
        outgoing: trio.MemorySendChannel[bytes],
        incoming: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        self.peer = peer
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, data: bytes) -> None:
        """Send one message; waits while `DEFAULT_CAPACITY` messages are unread."""
        try:
            await self._outgoing.send(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkClosedError(f"link to {self.peer} is closed") from None

    def send_now(self, data: bytes) -> bool:
        """Send one message if fewer than `DEFAULT_CAPACITY` are unread, and say whether it was."""
        try:
            self._outgoing.send_nowait(data)
        except trio.WouldBlock:
            return False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise LinkClosedError(f"link to {self.peer} is closed") from None
        return True

    async def send_eof(self) -> None:
        """No more messages from this end."""
        self._outgoing.close()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        """The next message."""
        try:
            return await self._incoming.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkClosedError(f"link to {self.peer} is closed") from None

    def receive_now(self) -> bytes | None:
        """The next message, if one waits."""
        try:
            return self._incoming.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            return None

    async def aclose(self) -> None:
        """Close this end for sending and receiving."""
        self._outgoing.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()


def memory_link_pair(one: str, other: str, capacity: int = DEFAULT_CAPACITY) -> tuple[MemoryLink, MemoryLink]:
    """Two ends of a link: the first for party ``one``, the second for party ``other``."""
    to_other, from_one = trio.open_memory_channel[bytes](capacity)
    to_one, from_other = trio.open_memory_channel[bytes](capacity)
    return MemoryLink(other, to_other, from_other), MemoryLink(one, to_one, from_one)
