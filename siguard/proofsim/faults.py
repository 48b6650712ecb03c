"""A network in the hands of an adversary: what arrives in place of a frame, when, and as whose.

    network = Network()
    async with siguard.open_cluster(wrap_link=network.wrap_link) as cluster:
        network.tamper = lambda passing: []  # from now on nothing arrives

The faults at the end of the file are its moves.  It has no key and no share; it sees every frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

import numpy as np
import trio

from siguard.actors.server import USER
from siguard.actors.session import SERVERS
from siguard.errors import FrameError
from siguard.transport.frame import HEADER_BYTES, SESSION_BYTES, STEP_BYTES, Frame, Kind, decode_frame, encode_frame
from siguard.transport.link import Link, LinkClosedError
from siguard.transport.wrapped import WrappedLink


@dataclass(frozen=True, slots=True)
class Passing:
    """A frame on its way, as its sender gave it to the link."""

    sender: str
    receiver: str
    data: bytes

    @property
    def frame(self) -> Frame:
        """The frame."""
        return decode_frame(self.data)


class Arrival(NamedTuple):
    """Bytes that come out of a link ``after`` so many seconds; ``link``: (sender, receiver) where it is another."""

    data: bytes
    after: float = 0.0
    link: tuple[str, str] | None = None


#: What arrives in place of a frame.
Tamper = Callable[[Passing], Iterable[Arrival]]


def honest(passing: Passing) -> list[Arrival]:
    """The frame, at once."""
    return [Arrival(passing.data)]


class Network:
    """All links of one cluster.  ``tamper`` may be set at any time.

    passed: every frame as it was sent, in order.  overtakes: frames that came out of a link before an earlier one.
    """

    def __init__(self) -> None:
        self.tamper: Tamper = honest
        self.passed: list[Passing] = []
        self.overtakes = 0
        self._ends: dict[tuple[str, str], _End] = {}
        self._numbers = count()

    def wrap_link(self, link: Link, owner: str) -> Link:
        """An end of a link under the adversary's control; pass it to `siguard.open_cluster`."""
        end = self._ends[link.peer, owner] = _End(link, owner, self)
        return end

    def _meddle(self, passing: Passing) -> None:
        for data, after, link in self.tamper(passing):
            end = self._ends[link or (passing.sender, passing.receiver)]
            end.put(data, trio.current_time() + after, next(self._numbers))


class _End(WrappedLink):
    """What was sent is held here, at the receiver's end, until it is due."""

    def __init__(self, link: Link, owner: str, network: Network) -> None:
        super().__init__(link)
        self._owner = owner
        self._network = network
        self._due: list[tuple[float, int, bytes]] = []
        self._latest = -1
        self._idle: trio.CancelScope | None = None

    def put(self, data: bytes, due: float, number: int) -> None:
        heappush(self._due, (due, number, data))
        if self._idle is not None:
            self._idle.cancel()

    async def send(self, data: bytes) -> None:
        self._network.passed.append(Passing(self._owner, self.peer, bytes(data)))
        await self.link.send(data)

    async def receive(self) -> bytes:
        while True:
            until = self._due[0][0] if self._due else math.inf
            if until <= trio.current_time():
                _, number, data = heappop(self._due)
                self._network.overtakes += number < self._latest
                self._latest = max(self._latest, number)
                return data
            sent: bytes | None = None
            try:
                with trio.CancelScope(deadline=until) as self._idle:
                    sent = bytes(await self.link.receive())
            except LinkClosedError:
                if not self._due:
                    raise
                await trio.sleep_until(until)
            finally:
                self._idle = None
            if sent is not None:
                self._network._meddle(Passing(self.peer, self._owner, sent))


# Moves -------------------------------------------------------------------------------------------------------

#: What the adversary makes of one frame: (the frame, random choices, what passed this link in ended sessions).
Fault = Callable[[Passing, np.random.Generator, Sequence[Passing]], list[Arrival]]

#: Seconds by which a frame is late at most.
LATE = 1.0


def _late(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(passing.data, float(rng.uniform(0, LATE)))]


def _cut(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(passing.data[: rng.integers(len(passing.data))])]


def _header_bit(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    """Any bit of the header that its receiver reads."""
    frame = passing.frame
    while True:
        data = _flipped(passing.data, int(rng.integers(8 * HEADER_BYTES)))
        try:
            bent = decode_frame(data)
        except FrameError:
            return [Arrival(data)]
        if bent.depth == frame.depth and (bent.step == frame.step or frame.kind is Kind.DATA):
            return [Arrival(data)]


def _unread(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    """A bit of the header that only statistics and deadlines depend on, or, in a request, nothing."""
    frame = passing.frame
    if frame.kind is Kind.DATA or rng.integers(2):
        # Below 2^7 in any case, so that one bit of the encoding changes.
        return [Arrival(encode_frame(replace(frame, depth=frame.depth ^ 1 << int(rng.integers(7)))))]
    return [Arrival(encode_frame(replace(frame, step=_flipped(frame.step, int(rng.integers(8 * STEP_BYTES))))))]


def _payload_bit(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(_flipped(passing.data, int(rng.integers(8 * HEADER_BYTES, 8 * len(passing.data)))))]


def _old_in_place(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(_twin(passing, past).data)]


def _old_beside(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(_twin(passing, past).data), Arrival(passing.data)]


def _elsewhere(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    """Out of another link: to a party that its sender did not mean, or from one that did not send it."""
    links = [(one, other) for one in SERVERS for other in (*SERVERS, USER) if one != other]
    links = [link for link in links + [(USER, server) for server in SERVERS] if _is_other(link, passing)]
    return [Arrival(passing.data, link=links[rng.integers(len(links))])]


def _is_other(link: tuple[str, str], passing: Passing) -> bool:
    # Back to its sender is a move of its own, `_reflected`: an honest frame of that form may be awaited there.
    return link not in ((passing.sender, passing.receiver), (passing.receiver, passing.sender))


def _unknown_session(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(encode_frame(replace(passing.frame, session=rng.bytes(SESSION_BYTES)))), Arrival(passing.data)]


def _unknown_step(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    frame = Frame(Kind.DATA, passing.frame.session, rng.bytes(STEP_BYTES), 1, passing.frame.payload)
    return [Arrival(encode_frame(frame)), Arrival(passing.data)]


def _noise(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(rng.bytes(len(passing.data)))]


def _forged(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(passing.data[:HEADER_BYTES] + rng.bytes(len(passing.data) - HEADER_BYTES))]


def _reflected(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(passing.data, link=(passing.receiver, passing.sender)), Arrival(passing.data)]


def _twin(passing: Passing, past: Sequence[Passing]) -> Passing:
    """The latest frame of this link from an ended session, at the same step where there is one."""
    frame = passing.frame
    return next((old for old in reversed(past) if old.frame.step == frame.step), past[-1])


def _flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


#: Structure or routing is not what the receiver expects.
STRUCTURE: dict[str, Fault] = {
    "lost": lambda passing, rng, past: [],
    "a byte short": lambda passing, rng, past: [Arrival(passing.data[:-1])],
    "a byte long": lambda passing, rng, past: [Arrival(passing.data + b"\0")],
    "cut": _cut,
    "a header bit flipped": _header_bit,
    "replaced by one of an earlier session": _old_in_place,
    "sent elsewhere": _elsewhere,
    "replaced by noise": _noise,
}
#: The frame itself arrives whole, in its place, before it is given up.
HARMLESS: dict[str, Fault] = {
    "late": _late,
    "a header bit flipped that is not read": _unread,
    "one of an earlier session before it": _old_beside,
    "one of an unknown session before it": _unknown_session,
    "one of an unknown step before it": _unknown_step,
}
#: Two copies in one read, and a second copy before or after the first is used.
COPIES: dict[str, Fault] = {
    "twice at once": lambda passing, rng, past: [*honest(passing), *honest(passing)],
    "a copy later": lambda passing, rng, past: [*honest(passing), *_late(passing, rng, past)],
}
#: The form is right, the content is not: links that authenticate nothing cannot tell.
CONTENT: dict[str, Fault] = {
    "a payload bit flipped": _payload_bit,
    "another payload": _forged,
    "forged, itself late": lambda passing, rng, past: [*_forged(passing, rng, past), *_late(passing, rng, past)],
    "reflected to its sender": _reflected,
}


# Records of sealed links -----------------------------------------------------------------------------------------


def _record_bit(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> list[Arrival]:
    return [Arrival(_flipped(passing.data, int(rng.integers(8 * len(passing.data)))))]


def _old_record(passing: Passing, rng: np.random.Generator, past: Sequence[Passing]) -> Arrival:
    return Arrival(past[int(rng.integers(len(past)))].data)


#: A record does not come as it was sent.
CHANGED_RECORDS: dict[str, Fault] = {
    "lost": lambda passing, rng, past: [],
    "a byte short": lambda passing, rng, past: [Arrival(passing.data[:-1])],
    "a byte long": lambda passing, rng, past: [Arrival(passing.data + b"\0")],
    "cut": _cut,
    "a bit flipped": _record_bit,
    "replaced by noise": _noise,
    "replaced by an earlier record": lambda passing, rng, past: [_old_record(passing, rng, past)],
    "reflected instead of delivered": lambda passing, rng, past: _reflected(passing, rng, past)[:1],
    "out of another link": _elsewhere,
}
#: It comes as it was sent, and something beside it, or later than the next one.
OTHER_RECORDS: dict[str, Fault] = {
    "an earlier record before it": lambda passing, rng, past: [_old_record(passing, rng, past), *honest(passing)],
    "twice at once": COPIES["twice at once"],
    "a copy later": COPIES["a copy later"],
    "late, so that others overtake it": _late,
    "reflected as well": _reflected,
}
RECORD_FAULTS = {**CHANGED_RECORDS, **OTHER_RECORDS}
