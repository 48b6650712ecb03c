"""Sessions in which a server dealt, and is done, while the others may only begin."""

from __future__ import annotations

from typing import NamedTuple

import trio

#: Sessions that are remembered, for as long as the others may run.
_MOST = 4096


class Dealt(NamedTuple):
    """Whom the dealer shared a key with, for whom it dealt, and when it was done."""

    role_0: str
    client: str
    ended: float


class DealtSessions:
    """What one server dealt lately.  seconds: for which a session is remembered."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._sessions: dict[bytes, Dealt] = {}

    def note(self, session: bytes, role_0: str, client: str) -> None:
        """Remember a session that has just been dealt."""
        self._sessions[session] = Dealt(role_0, client, trio.current_time())
        oldest = next(iter(self._sessions))
        if len(self._sessions) > _MOST or self._is_over(self._sessions[oldest]):
            del self._sessions[oldest]

    def take(self, role_0: str) -> dict[bytes, Dealt]:
        """The sessions dealt for this server that may still run; they are forgotten."""
        found = {session: dealt for session, dealt in self._sessions.items() if dealt.role_0 == role_0}
        for session in found:
            del self._sessions[session]
        return {session: dealt for session, dealt in found.items() if not self._is_over(dealt)}

    def _is_over(self, dealt: Dealt) -> bool:
        return trio.current_time() - dealt.ended > self._seconds
