"""What a client has prepared and not yet used: sessions by the query that they are for, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import trio

from siguard.actors import limits
from siguard.actors.messages import Request


class Prepared(NamedTuple):
    """A session that waits for its query: its id, and the request that opened it."""

    session: bytes
    request: Request
    since: float


class Stock:
    """Prepared sessions of one client.  A query takes any session that was prepared for its like."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, Prepared] = {}

    def __len__(self) -> int:
        return len(self._prepared)

    def put(self, session: bytes, request: Request) -> None:
        """Keep a session that is ready."""
        self._prepared[session] = Prepared(session, request, trio.current_time())

    def take(self, request: Request) -> Prepared | None:
        """The oldest session for a request like this one, whoever deals; it is in the stock no longer."""
        for prepared in self._prepared.values():
            if replace(prepared.request, dealer=request.dealer) == request:
                return self._prepared.pop(prepared.session)
        return None

    def remove(self, session: bytes) -> None:
        """Forget a session."""
        self._prepared.pop(session, None)

    def too_old(self) -> Iterator[bytes]:
        """Sessions that must not be used any more."""
        now = trio.current_time()
        return (one.session for one in list(self._prepared.values()) if now - one.since > limits.PREPARED_SECONDS)
