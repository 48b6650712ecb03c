"""Session ids that are never used twice, and whose turn it is to deal."""

from __future__ import annotations

from collections import Counter
from weakref import WeakKeyDictionary

import trio

from siguard.actors.session import SERVERS
from siguard.prf import fresh_key
from siguard.transport.frame import SESSION_BYTES


class SessionNames:
    """Names the sessions of one cluster.

    Without a seed, ids come from the operating system, and each call takes the next dealer.
    With one, an id follows from the seed and the call's content (an equal call gets the next occurrence number),
    and each task's calls take the dealers in turn: neither depends on the order in which concurrent tasks run.
    Equal calls that run at the same time cannot be told apart: as a whole they get the same answers again.
    """

    def __init__(self, seed_key: bytes | None) -> None:
        self._seed_key = seed_key
        self._seen: Counter[bytes] = Counter()
        self._calls = 0
        self._calls_of_task: WeakKeyDictionary[trio.lowlevel.Task, int] = WeakKeyDictionary()

    def next_turn(self) -> int:
        """The number of a call that begins now, among those whose turns it shares."""
        if self._seed_key is None:
            self._calls += 1
            return self._calls - 1
        task = trio.lowlevel.current_task()
        turn = self._calls_of_task.get(task, 0)
        self._calls_of_task[task] = turn + 1
        return turn

    @staticmethod
    def dealer(turn: int) -> str:
        """The server that deals in this turn."""
        return SERVERS[(2 + turn) % 3]

    def session(self, *content: str | bytes | int) -> bytes:
        """A fresh id for a session with this content."""
        if self._seed_key is None:
            return fresh_key(None)[:SESSION_BYTES]
        digest = fresh_key(self._seed_key, "session", *content)
        occurrence = self._seen[digest]
        self._seen[digest] += 1
        return fresh_key(digest, "occurrence", occurrence)[:SESSION_BYTES]


def instance_name(client: str, instance: str) -> str:
    """One process of a client among several at once: links, keys and errors go by this name."""
    return f"{client}/{instance}"


def client_of(name: str) -> str:
    """The client whose process this is."""
    return name.partition("/")[0]
