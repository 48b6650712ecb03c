"""Traffic of the latest sessions of one process."""

from __future__ import annotations

from siguard.transport.accountant import Traffic

#: Sessions whose traffic is kept until somebody takes it.
_ACCOUNTS = 4096


class Ledger:
    """Traffic of the latest sessions of this process, filled by the senders' codecs."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, Traffic] = {}

    def traffic(self, session: bytes) -> Traffic:
        """The counts of a session."""
        while len(self._sessions) >= _ACCOUNTS and session not in self._sessions:
            del self._sessions[next(iter(self._sessions))]
        return self._sessions.setdefault(session, Traffic())

    def take(self, session: bytes) -> Traffic:
        """The counts of an ended session, which is then forgotten."""
        return self._sessions.pop(session, Traffic())
