"""The contract of a link: one end of an ordered, reliable channel between two parties.

`siguard.transport.testing.check_transport` is this contract as something that runs; every transport and every
wrapper (seal, shaper, recorder, fault injector) passes it, so that they stack in any order.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

#: A received message.  Nobody writes to it any more, whatever its type.
Data: TypeAlias = bytes | bytearray


class LinkClosedError(Exception):
    """The link cannot carry more: this end closed it, or the other end did, after its last message."""


class LinkBrokenError(LinkClosedError):
    """The link ended, and the other end did not say so: it was cut, or what came is not what was sent.

    The text says what happened, without the content of a message.
    """


class Link(Protocol):
    """One end of a channel to ``peer``.  Messages arrive whole, in order, at most once; they may be empty.

    Any number of tasks may send at once; one task receives.
    A cancelled `send` has sent the message whole or not at all; a cancelled `receive` loses nothing.
    """

    peer: str

    async def send(self, data: bytes) -> None:
        """Send one message; waits while the other end is too far behind.

        Raises `LinkClosedError` when this end has closed or sent its last message, or the other end has closed.
        """
        ...

    async def send_eof(self) -> None:
        """Nothing more comes from this end, which goes on receiving; harmless the second time."""
        ...

    async def receive(self) -> Data:
        """The next message.

        Raises `LinkClosedError` after the last one, or when this end has closed; `LinkBrokenError` when the link
        ended without a last one.
        """
        ...

    async def aclose(self) -> None:
        """Close this end at once, harmless the second time; wakes this end's own waiting calls.

        The other end receives what was already sent, then `LinkClosedError`.
        """
        ...


class PromptLink(Link, Protocol):
    """A link that says what needs no wait: only the rest needs a sender's deadline, a reader's checkpoint."""

    def send_now(self, data: bytes) -> bool:
        """As `Link.send`, without a checkpoint, where that needs no wait; elsewhere False, and nothing is sent."""
        ...

    def receive_now(self) -> Data | None:
        """As `Link.receive`, without a checkpoint, where a message waits; elsewhere None."""
        ...
