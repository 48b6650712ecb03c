"""What a server tells a client who asks, outside the protocol: public things only, nothing that a share is behind.

offers    the networks it holds, by name and widths, and the guards that the owner signed for them
traffic   what it sent in an ended session, by step; told once
status    its links, how busy it is, and what it takes the deployment to be
"""

from __future__ import annotations

from typing import Any, Protocol

from siguard.actors.messages import Ask
from siguard.errors import ProtocolError

OFFERS, TRAFFIC, STATUS = "offers", "traffic", "status"


class Informant(Protocol):
    """A server, as far as it answers questions."""

    def offers(self) -> list[dict[str, Any]]:
        """What may be asked for."""
        ...

    def traffic(self, session: bytes) -> list[Any]:
        """Counts per step and per link, and what was dealt."""
        ...

    async def status(self) -> dict[str, Any]:
        """Links to servers, and load."""
        ...


async def reply_to(ask: Ask, server: Informant) -> Any:
    """Plain values that answer a question; raises `ProtocolError` for one that is not known."""
    if ask.what == OFFERS:
        return server.offers()
    if ask.what == TRAFFIC:
        return server.traffic(ask.about)
    if ask.what == STATUS:
        return await server.status()
    raise ProtocolError(f"asked for {ask.what!r}; there are {OFFERS}, {TRAFFIC}, {STATUS}")
