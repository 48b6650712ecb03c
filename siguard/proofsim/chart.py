"""Two views side by side as a sequence chart: plain data that a template draws.

A frame whose two ends are both corrupted is in a view twice and in a chart once.  Frames of the real and of the
simulated view are one row when session, round, kind, sender, receiver and step agree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import NamedTuple

import numpy as np

from siguard.actors.session import SERVERS
from siguard.proofsim.view import Message, View
from siguard.ring import RingArray
from siguard.transport.frame import Kind

#: Frames in one collapsible section, at most.
SECTION_ROWS = 128
#: Sections that are shorter together are joined.
_FEW_ROWS = 12
#: Bytes of a payload that are shown.
_SHOWN = 8


class Place(NamedTuple):
    """What makes a frame of one view comparable to one of the other; ``session`` is a number, not an id."""

    session: int
    round: int
    kind: int
    sender: str
    receiver: str
    step: str
    occurrence: int


@dataclass(frozen=True, slots=True)
class Row:
    """One frame: in the real view, in the simulated one, or in both."""

    place: Place
    real: Message | None
    simulated: Message | None

    @property
    def length(self) -> int:
        """Payload bytes, of the real frame where there is one."""
        frame = self.real or self.simulated
        return len(frame.payload) if frame else 0

    @property
    def same_shape(self) -> bool:
        """Whether both views have it, equally large."""
        return self.real is not None and self.simulated is not None and _size(self.real) == _size(self.simulated)

    @property
    def same_bytes(self) -> bool:
        """Whether both views have it with equal bytes."""
        return self.real is not None and self.simulated is not None and self.real.payload == self.simulated.payload

    @property
    def size(self) -> str:
        """Shape and element width; both where they differ."""
        sizes = [_size(frame) for frame in (self.real, self.simulated) if frame]
        return " / ".join(dict.fromkeys(sizes))

    @property
    def note(self) -> str:
        """What is remarkable about it, in words."""
        if self.simulated is None:
            return "only in the real view"
        if self.real is None:
            return "only in the simulated view"
        if not self.same_shape:
            return "sizes differ"
        return "same bytes" if self.same_bytes else ""


@dataclass(frozen=True)
class Section:
    """Rows of one session whose steps begin alike.  hidden: rows that are compared and counted but not drawn."""

    session: int
    title: str
    prefix: str
    rows: Sequence[Row]
    hidden: bool = False

    @property
    def rounds(self) -> tuple[int, int]:
        """First and last round."""
        rounds = [row.place.round for row in self.rows]
        return min(rounds), max(rounds)

    @property
    def length(self) -> int:
        """Payload bytes."""
        return sum(row.length for row in self.rows)

    @property
    def different(self) -> int:
        """Frames that are in one view only, or of different size."""
        return sum(not row.same_shape for row in self.rows)

    @property
    def same_bytes(self) -> int:
        """Frames whose bytes are equal in both views."""
        return sum(row.same_bytes for row in self.rows)

    def tail(self, row: Row) -> str:
        """The step of a row without the section's prefix."""
        return row.place.step.removeprefix(self.prefix).lstrip("/") or row.place.step.rpartition("/")[2]


@dataclass(frozen=True)
class Chart:
    """A real and a simulated view, row by row.

    parties: lifelines from left to right, corrupted ones in the middle.
    """

    parties: Sequence[str]
    corrupted: Sequence[str]
    rows: Sequence[Row]
    sections: Sequence[Section]

    @property
    def different(self) -> int:
        """Frames that are in one view only, or of different size."""
        return sum(not row.same_shape for row in self.rows)

    @property
    def same_bytes(self) -> int:
        """Frames whose bytes are equal in both views."""
        return sum(row.same_bytes for row in self.rows)

    @property
    def links(self) -> list[tuple[int, int]]:
        """Lifelines (from, to) between which some frame passes."""
        found = {(row.place.sender, row.place.receiver) for row in self.rows}
        return sorted((self.parties.index(one), self.parties.index(other)) for one, other in found)

    def agreement(self) -> tuple[int, float, float] | None:
        """Bytes from honest parties, and the share that is equal in both views: at the same place, one element on.

        The second share is what views that have nothing to do with each other give; None where nothing was sent.
        Frames of one element have no other to be compared with, and do not count.
        """
        equal = shifted = total = 0
        for row in self.rows:
            if row.real and row.simulated and row.same_shape and _is_learned(row, self.corrupted):
                real, simulated = row.real.array.ravel(), row.simulated.array.ravel()
                if real.size > 1:
                    equal += _equal_bytes(real, simulated)
                    shifted += _equal_bytes(real, np.roll(simulated, 1))
                    total += real.nbytes
        return (total, equal / total, shifted / total) if total else None

    def profile(self) -> tuple[list[int], list[int]]:
        """Payload bytes in each round of each session: real, simulated."""
        sums: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        for row in self.rows:
            for side, frame in enumerate((row.real, row.simulated)):
                sums[row.place.session, row.place.round][side] += len(frame.payload) if frame else 0
        ordered = [sums[key] for key in sorted(sums)]
        return [real for real, _ in ordered], [simulated for _, simulated in ordered]

    def byte_values(self) -> tuple[list[int], list[int]]:
        """How often each of the 256 byte values came from honest parties: real, simulated."""
        counts = []
        for side in ("real", "simulated"):
            frames = [getattr(row, side) for row in self.rows if _is_learned(row, self.corrupted)]
            data = np.frombuffer(b"".join(frame.payload for frame in frames if frame), np.uint8)
            counts.append([int(count) for count in np.bincount(data, minlength=256)])
        return counts[0], counts[1]


def compare_views(real: View, simulated: View) -> Chart:
    """Put the frames of two views side by side."""
    mine, theirs = _numbers(real, simulated)
    ours, made = _by_place(real, mine), _by_place(simulated, theirs)
    # Parties run side by side, so the order within a round is an accident of scheduling; steps keep theirs.
    steps: dict[tuple[int, str], int] = {}
    for place in (*ours, *made):
        steps.setdefault((place.session, place.step), len(steps))
    places = sorted({*ours, *made}, key=lambda p: (p.session, p.round, steps[p.session, p.step], p))
    rows = [Row(place, ours.get(place), made.get(place)) for place in places]
    corrupted = real.corrupted.parties
    sections: list[Section] = []
    for session in sorted({row.place.session for row in rows}):
        sections += _joined(_split([row for row in rows if row.place.session == session], session))
    return Chart(_lifelines(rows, corrupted), corrupted, rows, sections)


def within(sections: Sequence[Section], budget: int) -> list[Section]:
    """The same sections, some hidden, so that at most ``budget`` rows are drawn: differing ones before others."""
    shown = set()
    for index in sorted(range(len(sections)), key=lambda i: (sections[i].different == 0, i)):
        if len(sections[index].rows) <= budget:
            budget -= len(sections[index].rows)
            shown.add(index)
    return [section if index in shown else replace(section, hidden=True) for index, section in enumerate(sections)]


def bars(values: Sequence[int], highest: int, *, logarithmic: bool = False) -> str:
    """An SVG path of bars, one unit wide, up to 100 units high, upwards from y = 0."""
    scale = (lambda value: log2(1 + value)) if logarithmic else float
    top = scale(highest) or 1.0
    heights = [round(100 * scale(value) / top, 1) for value in values]
    return "".join(f"M{x} 0v-{height:g}h1v{height:g}z" for x, height in enumerate(heights) if height)


def _is_learned(row: Row, corrupted: Iterable[str]) -> bool:
    """Whether an honest party sent it as protocol data."""
    return row.place.kind == Kind.DATA and row.place.sender not in corrupted


def _equal_bytes(one: RingArray, other: RingArray) -> int:
    return int(np.count_nonzero(np.ascontiguousarray(one).view(np.uint8) == other.view(np.uint8)))


def _size(frame: Message) -> str:
    return f"{'x'.join(map(str, frame.shape)) or '1'} u{8 * frame.itemsize}"


def first_bytes(frame: Message) -> str:
    """The beginning of a payload in hexadecimal."""
    return frame.payload[:_SHOWN].hex() + ("…" if len(frame.payload) > _SHOWN else "")


def _numbers(real: View, simulated: View) -> list[dict[bytes, int]]:
    """Session ids of both views as numbers: equal ids get equal numbers, else the order of appearance counts."""
    mine, theirs = (list(dict.fromkeys(message.session for message in view.messages)) for view in (real, simulated))
    if set(mine) == set(theirs):
        theirs = mine
    return [{session: number for number, session in enumerate(ids, 1)} for ids in (mine, theirs)]


def _by_place(view: View, numbers: dict[bytes, int]) -> dict[Place, Message]:
    inside = view.corrupted.parties
    seen: Counter[tuple[object, ...]] = Counter()
    places = {}
    for message in view.messages:
        if message.received and message.sender in inside:
            continue  # its sender has it in the same view
        where = (
            numbers[message.session],
            message.round,
            message.kind,
            message.sender,
            message.receiver,
            message.step,
        )
        places[Place(*where, seen[where])] = message
        seen[where] += 1
    return places


def _lifelines(rows: Iterable[Row], corrupted: Sequence[str]) -> list[str]:
    """Clients that are honest, the corrupted set, honest servers."""
    peers = {name for row in rows for name in (row.place.sender, row.place.receiver)} - set(corrupted)
    servers = peers & {*SERVERS}
    return [*sorted(peers - servers), *sorted(corrupted, reverse=True), *sorted(servers)]


def _split(rows: Sequence[Row], session: int, prefix: str = "") -> Iterator[Section]:
    """Sections by the beginning of the step, the shortest beginning that leaves them short enough."""
    groups: dict[str, list[Row]] = {}
    depth = len(prefix.split("/")) + 1 if prefix else 1
    for row in rows:
        groups.setdefault("/".join(row.place.step.split("/")[:depth]), []).append(row)
    for name, members in groups.items():
        if len(members) <= SECTION_ROWS:
            yield Section(session, name, name, members)
        elif any(row.place.step != name for row in members):
            yield from _split(members, session, name)
        else:
            for start in range(0, len(members), SECTION_ROWS):
                title = f"{name}, from frame {start + 1}"
                yield Section(session, title, name, members[start : start + SECTION_ROWS])


def _joined(sections: Iterable[Section]) -> list[Section]:
    """The same sections, neighbours of a few rows together."""
    joined: list[Section] = []
    for section in sections:
        last = joined[-1] if joined else None
        if last and len(last.rows) + len(section.rows) <= _FEW_ROWS:
            joined[-1] = Section(section.session, f"{last.title}, {section.title}", "", [*last.rows, *section.rows])
        else:
            joined.append(section)
    return joined
