"""Frames of a deployment as they pass its links, above the seal: recorded, and changed at will."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from siguard.transport.frame import Frame, Kind, decode_frame
from siguard.transport.link import Link
from siguard.transport.wrapped import WrappedLink


class Sent(NamedTuple):
    """One frame as its sender passed it to its link."""

    sender: str
    receiver: str
    data: bytes

    @property
    def frame(self) -> Frame:
        return decode_frame(self.data)


#: Given a frame, what goes on the link in its place.
Change = Callable[[Sent], Awaitable[list[bytes]]]


class _Tapped(WrappedLink):
    def __init__(self, link: Link, owner: str, tap: Tap) -> None:
        super().__init__(link)
        self._owner = owner.partition("/")[0]
        self._tap = tap

    async def send(self, data: bytes) -> None:
        sent = Sent(self._owner, self.peer.partition("/")[0], bytes(data))
        self._tap.frames.append(sent)
        for message in await self._tap.change(sent):
            await self.link.send(message)


async def _unchanged(sent: Sent) -> list[bytes]:
    return [sent.data]


class Tap:
    """All links of a deployment; pass it as ``wrap_link``.  ``change`` may be set at any time."""

    def __init__(self) -> None:
        self.frames: list[Sent] = []
        self.change: Change = _unchanged

    def __call__(self, link: Link, owner: str) -> Link:
        return _Tapped(link, owner, self)

    def at(self, sender: str, receiver: str, n: int, change: Change) -> list[Sent]:
        """Apply ``change`` to the n-th data frame from now between two parties; the result lists it once hit."""
        seen = 0
        hit: list[Sent] = []

        async def apply(sent: Sent) -> list[bytes]:
            nonlocal seen
            if (sent.sender, sent.receiver) == (sender, receiver) and sent.frame.kind is Kind.DATA:
                seen += 1
                if seen == n:
                    hit.append(sent)
                    return await change(sent)
            return [sent.data]

        self.change = apply
        return hit
