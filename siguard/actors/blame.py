"""Who keeps a session waiting, when everybody waits for somebody.

A server that hangs is awaited by one of the others, which is soon awaited by the third: at the deadline each would
name another party.  So, a moment before, whoever waits tells the other servers for whom and for how long, and they
answer with the same.  Whoever follows these notes comes to a party that waits for nobody, or sends none: that is
the one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from siguard.errors import ProtocolError


class Note(NamedTuple):
    """For whom a party waits, "" for nobody, and for how many seconds."""

    awaited: str
    waited: float

    @classmethod
    def from_values(cls, values: object) -> Note:
        """What came in a frame; raises `ProtocolError` for anything else."""
        match values:
            case [str(awaited), float(waited)]:
                return cls(awaited, waited)
        raise ProtocolError("a note of who waits is a name and seconds")


def who_is_missing(me: str, mine: Note, notes: Mapping[str, Note]) -> str:
    """The party to name: the end of the chain of who waits for whom that begins with ``mine``.

    In a circle a frame was lost: whoever waits longest misses it, and names its sender.
    """
    waits = {**notes, me: mine}
    chain, party = [me], mine.awaited
    while party not in chain:
        note = waits.get(party)
        if note is None or not note.awaited:
            return party
        chain.append(party)
        party = note.awaited
    circle = chain[chain.index(party) :]
    return waits[max(circle, key=lambda one: waits[one].waited)].awaited
