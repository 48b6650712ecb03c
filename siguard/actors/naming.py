"""Session ids that are never used twice, and whose turn it is to deal."""

from __future__ import annotations

from collections import Counter

from siguard.actors.session import SERVERS
from siguard.prf import fresh_key
from siguard.transport.frame import SESSION_BYTES


class SessionNames:
    """Names the sessions of one cluster.

    Without a seed, ids come from the operating system, and each call takes the next dealer.
    With one, an id follows from the seed and the call's content (an equal call gets the next occurrence number),
    and the dealer from the calls that were over when this one began: neither depends on the order in which
    concurrent calls happen to run.
    """

    def __init__(self, seed_key: bytes | None) -> None:
        self._seed_key = seed_key
        self._seen: Counter[bytes] = Counter()
        self._begun = 0
        self._over = 0

    def begin_call(self) -> str:
        """The server that deals in a call that begins now."""
        self._begun += 1
        turn = self._begun - 1 if self._seed_key is None else self._over
        return SERVERS[(2 + turn) % 3]

    def end_call(self) -> None:
        """A call is over, however it ended."""
        self._over += 1

    def session(self, *content: str | bytes) -> bytes:
        """A fresh id for a session with this content."""
        if self._seed_key is None:
            return fresh_key(None)[:SESSION_BYTES]
        digest = fresh_key(self._seed_key, "session", *content)
        occurrence = self._seen[digest]
        self._seen[digest] += 1
        return fresh_key(digest, "occurrence", occurrence)[:SESSION_BYTES]
