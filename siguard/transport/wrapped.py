"""What observers, limits and fault injectors have in common: a link that passes everything on."""

from __future__ import annotations

from siguard.transport.link import Data, Link


class WrappedLink:
    """A link over ``link``; subclasses override what they change.

    See `siguard.transport.link.Link` for the contract.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.peer = link.peer

    async def send(self, data: bytes) -> None:
        """As `Link.send`."""
        await self.link.send(data)

    async def send_eof(self) -> None:
        """As `Link.send_eof`."""
        await self.link.send_eof()

    async def receive(self) -> Data:
        """As `Link.receive`."""
        return await self.link.receive()

    async def aclose(self) -> None:
        """As `Link.aclose`."""
        await self.link.aclose()
