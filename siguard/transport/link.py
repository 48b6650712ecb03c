"""The contract of a link: one end of an ordered, reliable, private channel between two parties."""

from __future__ import annotations

from typing import Protocol


class LinkClosedError(Exception):
    """The link cannot carry more: this end closed it, or the other end did."""


class Link(Protocol):
    """One end of a channel to ``peer``.  Messages arrive whole, in order, at most once.

    A cancelled `send` has sent the message whole or not at all; a cancelled `receive` loses nothing.
    """

    peer: str

    async def send(self, data: bytes) -> None:
        """Send one message; waits while the other end is too far behind.  Raises `LinkClosedError`."""
        ...

    async def receive(self) -> bytes:
        """The next message.  Raises `LinkClosedError` after the last one."""
        ...

    async def aclose(self) -> None:
        """Close this end; the other end sees `LinkClosedError` after what was already sent."""
        ...
