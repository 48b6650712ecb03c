"""Flow control of one session: how far the dealer may run ahead of a server that is slower.

Only the dealer runs ahead.  The two other servers keep step with each other, since each exchange needs both, and a
client sends its input and waits.  So the dealer alone counts: it may have `WINDOW_BYTES` on their way or unread at
each of the two others, and they give room back as their protocol takes what was dealt.  Links are read at once
whatever a session does, so that a slow session stalls nobody else.

Waiting for room cannot block two sessions, or two branches of one, against each other: all servers run the same
program, the dealer sends in its order, and what came before a frame it waits with has been sent to both.

In a session that is prepared ahead of its query (`siguard.actors.prepared`) nobody takes anything yet: a dealer
that has filled its window waits for the query, however long that takes, and only then for room.
"""

from __future__ import annotations

import math
from collections import defaultdict

import trio

#: Bytes that may be unread at one server; one frame may go beyond it.
WINDOW_BYTES = 1 << 24
#: Room is given back in pieces of this many bytes, so that small sessions never have to.
CREDIT_BYTES = 1 << 22


class SendWindows:
    """The dealer's side: room at each peer.

    most: bytes that may be unread at one peer; `WINDOW_BYTES` when left out.
    """

    def __init__(self, most: float | None = None) -> None:
        self._most = most
        self._unread: defaultdict[str, int] = defaultdict(int)
        self._given_back: dict[str, trio.Event] = {}
        self._query: trio.Event | None = None
        self._filled: trio.Event | None = None

    def expect_query(self, query: trio.Event, filled: trio.Event) -> None:
        """Nothing is taken before ``query`` is set; set ``filled`` when the dealer waits for that."""
        self._query, self._filled = query, filled

    def room_now(self, peer: str, size: int) -> bool:
        """Whether a frame of ``size`` bytes may go to ``peer`` at once; if so, count it."""
        if self._unread[peer] >= (WINDOW_BYTES if self._most is None else self._most):
            return False
        self._unread[peer] += size
        return True

    async def room(self, peer: str, size: int, within: trio.CancelScope | None = None) -> None:
        """Wait until a frame of ``size`` bytes may go to ``peer``, and count it.

        within: the scope whose deadline bounds the wait; it stands still while the query has not come.
        """
        while not self.room_now(peer, size):
            if self._query is not None and not self._query.is_set():
                await self._until_query(self._query, within)
                continue
            event = self._given_back.setdefault(peer, trio.Event())
            await event.wait()

    async def _until_query(self, query: trio.Event, within: trio.CancelScope | None) -> None:
        if self._filled is not None:
            self._filled.set()
        patience = math.inf
        if within is not None:
            patience, within.deadline = within.deadline - trio.current_time(), math.inf
        await query.wait()
        if within is not None:
            within.deadline = trio.current_time() + patience

    def give_back(self, peer: str, size: int) -> None:
        """``peer`` has taken ``size`` bytes more."""
        self._unread[peer] = max(0, self._unread[peer] - size)
        waiting = self._given_back.pop(peer, None)
        if waiting is not None:
            waiting.set()


class TakenBytes:
    """The other side: what was taken of each peer's frames and not yet given back."""

    def __init__(self) -> None:
        self._taken: defaultdict[str, int] = defaultdict(int)

    def take(self, peer: str, size: int) -> int:
        """Count a frame that was taken; the bytes to give back now, 0 for not yet.

        In whole pieces: how many there are does not depend on the order in which frames are taken.
        """
        self._taken[peer] += size
        due = self._taken[peer] // CREDIT_BYTES * CREDIT_BYTES
        self._taken[peer] -= due
        return due
