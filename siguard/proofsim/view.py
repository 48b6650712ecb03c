"""`View`: all that a corrupted set sees, as data that can be saved, loaded, compared and printed.

A view is the random tape and every frame that its parties received or sent, in order (Goldreich, Foundations of
Cryptography II, section 7.2).  Frames between two corrupted parties are part of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgpack
import numpy as np
from pydantic import TypeAdapter

from siguard.errors import InputError
from siguard.proofsim.claims import Corrupted
from siguard.ring import RingArray
from siguard.transport.frame import Frame, Kind, encode_frame, step_digest

_FORMAT = "siguard view"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Message:
    """One frame at one end of a link.

    party: whose view it is in; ``peer`` the other end.  received: direction.  step: the path where it is known,
    else the digest in hexadecimal.  payload: little-endian bytes of an array of ``shape``, ``itemsize`` each.
    """

    party: str
    peer: str
    received: bool
    session: bytes
    kind: int
    step: str
    round: int
    itemsize: int
    shape: tuple[int, ...]
    payload: bytes

    @property
    def sender(self) -> str:
        """Who sent it."""
        return self.peer if self.received else self.party

    @property
    def receiver(self) -> str:
        """Who received it."""
        return self.party if self.received else self.peer

    @property
    def array(self) -> RingArray:
        """The payload as unsigned elements."""
        return np.frombuffer(self.payload, f"<u{self.itemsize}").reshape(self.shape)

    def encode(self) -> bytes:
        """The frame as it travels."""
        return encode_frame(Frame(Kind(self.kind), self.session, digest_of(self.step), self.round, self.array))

    def __str__(self) -> str:
        arrow = f"{self.party} <- {self.peer}" if self.received else f"{self.party} -> {self.peer}"
        size = "x".join(map(str, self.shape)) or "1"
        begin = self.payload[:8].hex() + ("..." if len(self.payload) > 8 else "")
        kind = "" if self.kind == Kind.DATA else f" {Kind(self.kind).name}"
        return f"{self.round:4d}  {arrow:14s}{kind} {self.step}  {size} x u{8 * self.itemsize}  {begin}"


@dataclass(frozen=True, slots=True)
class Draw:
    """One use of a random tape: ``values`` are the bytes of elements of ``bits`` bits, drawn at an address."""

    party: str
    session: bytes
    dealer: str
    pair: str
    purpose: str
    step: str
    bits: int
    itemsize: int
    shape: tuple[int, ...]
    values: bytes

    @property
    def array(self) -> RingArray:
        """The elements."""
        return np.frombuffer(self.values, f"<u{self.itemsize}").reshape(self.shape)

    @property
    def address(self) -> tuple[bytes, str, str, str, str]:
        """Session, dealer, pair, purpose, step: used once."""
        return self.session, self.dealer, self.pair, self.purpose, self.step

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape)) or "1"
        begin = self.values[:8].hex() + ("..." if len(self.values) > 8 else "")
        what = f"{self.step} {self.purpose!r} of {self.pair}"
        return f"   .  {self.party} draws    {what}  {size} x {self.bits} bits  {begin}"


Event = Message | Draw


class ShapeLine(NamedTuple):
    """A frame without its bytes: what anybody on the network sees."""

    link: str
    step: str
    round: int
    kind: int
    length: int


@dataclass
class View:
    """The joint view of a corrupted set.

    events: what its parties drew, received and sent, in the order in which it happened.
    answers: by session, the confidences the user computed; only where the user is corrupted.
    owner_key: the model owner's public key, by which servers check what it signed; everybody knows it.
    """

    corrupted: Corrupted
    events: list[Event] = field(default_factory=list)
    answers: dict[bytes, list[list[float]]] = field(default_factory=dict)
    owner_key: bytes = b""

    # Reading -----------------------------------------------------------------------------------------------

    @property
    def draws(self) -> list[Draw]:
        """The random tape."""
        return [event for event in self.events if isinstance(event, Draw)]

    @property
    def messages(self) -> list[Message]:
        """All frames."""
        return [event for event in self.events if isinstance(event, Message)]

    @property
    def received(self) -> list[Message]:
        """Frames from honest parties."""
        inside = self.corrupted.parties
        return [m for m in self.messages if m.received and m.peer not in inside]

    @property
    def sent(self) -> list[Message]:
        """Frames that corrupted parties sent, to whomever."""
        return [m for m in self.messages if not m.received]

    def of_session(self, session: bytes) -> View:
        """The part of one session."""
        return View(
            self.corrupted,
            [event for event in self.events if event.session == session],
            {name: answer for name, answer in self.answers.items() if name == session},
            self.owner_key,
        )

    def shape(self) -> list[ShapeLine]:
        """Every frame, once, without its bytes, in canonical order: by link, then step, round and length."""
        return sorted(
            ShapeLine(f"{m.sender}>{m.receiver}", m.step, m.round, m.kind, len(m.payload))
            for m in self.messages
            if not m.received or m.peer not in self.corrupted.parties
        )

    def diff(self, other: View) -> list[str]:
        """Differences in words, in canonical order; empty when both views are the same but for the order."""
        mine, theirs = _by_place(self.events), _by_place(other.events)
        lines = []
        if self.corrupted != other.corrupted:
            lines.append(f"corrupted: {self.corrupted} here, {other.corrupted} there")
        if self.owner_key != other.owner_key:
            lines.append("the model owner's public key differs")
        for place in sorted({*mine, *theirs}):
            one, another = mine.get(place, []), theirs.get(place, [])
            name = " ".join(_SHORT.sub(r"\1", part) for part in place[1:])
            if len(one) != len(another):
                lines.append(f"{name}: {len(one)} times here, {len(another)} times there")
                continue
            for a, b in zip(one, another, strict=True):
                if a != b:
                    lines.append(f"{name}: {_difference(a, b)}")
        for session in sorted({*self.answers, *other.answers}):
            if self.answers.get(session) != other.answers.get(session):
                lines.append(f"answer of session {session.hex()[:8]} differs")
        return lines

    def text(self, limit: int | None = None) -> str:
        """Readable lines: round, direction, step, shape and the first bytes."""
        sessions = list(dict.fromkeys(event.session for event in self.events))
        lines = [f"view of {{{self.corrupted}}}: {len(self.events)} events in {len(sessions)} sessions"]
        for session in sessions:
            events = [event for event in self.events if event.session == session]
            lines.append(f"session {session.hex()}")
            lines += [str(event) for event in events[:limit]]
            if limit is not None and len(events) > limit:
                lines.append(f"  ... {len(events) - limit} more")
        return "\n".join(lines)

    # Keeping -----------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the view as msgpack: plain values only."""
        packed = {
            "format": _FORMAT,
            "version": _VERSION,
            "corrupted": str(self.corrupted),
            "events": [[isinstance(event, Message), *asdict(event).values()] for event in self.events],
            "answers": self.answers,
            "owner_key": self.owner_key,
        }
        Path(path).write_bytes(msgpack.packb(packed))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; raises `InputError` naming the file and what is wrong with it."""
        try:
            packed = msgpack.unpackb(Path(path).read_bytes(), strict_map_key=False)
            if packed["format"] != _FORMAT or packed["version"] != _VERSION:
                raise ValueError(f"format {packed['format']!r}, version {packed['version']!r}")
            events = [_event(*fields) for fields in packed["events"]]
            kept = (packed["corrupted"], packed["answers"], packed["owner_key"])
            corrupted, answers, owner_key = _REST.validate_python(kept, strict=True)
            return cls(Corrupted.parse(corrupted), events, answers, owner_key)
        except OSError as error:
            raise InputError(f"view file {path}: cannot be read ({error.strerror})") from None
        except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
            raise InputError(f"view file {path}: not a view written by View.save ({error})") from None


def digest_of(step: str) -> bytes:
    """The step digest of a path, or of a digest in hexadecimal that has no known path."""
    return bytes.fromhex(step[1:]) if step.startswith("#") else step_digest(step)


#: Types of a saved message's fields, of a draw's, and of what is kept beside them, in order.
_MESSAGE: TypeAdapter[Any] = TypeAdapter(
    tuple[str, str, bool, bytes, int, str, int, int, tuple[int, ...], bytes],
)
_DRAW: TypeAdapter[Any] = TypeAdapter(tuple[str, bytes, str, str, str, str, int, int, tuple[int, ...], bytes])
_REST: TypeAdapter[Any] = TypeAdapter(tuple[str, dict[bytes, list[list[float]]], bytes])


class StepNames:
    """Paths of step digests, as far as they are known."""

    def __init__(self) -> None:
        self._paths: dict[bytes, str] = {}

    def learn(self, paths: Iterable[str]) -> None:
        """Remember paths."""
        for path in paths:
            self._paths[step_digest(path)] = path

    def name(self, digest: bytes) -> str:
        """The path, or ``#`` and the digest in hexadecimal."""
        return self._paths.get(digest, f"#{digest.hex()}")


def _event(is_message: bool, *given: Any) -> Event:
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in given]
    checked = (_MESSAGE if is_message else _DRAW).validate_python(tuple(values), strict=True)
    event: Event = Message(*checked) if is_message else Draw(*checked)
    data = event.payload if isinstance(event, Message) else event.values
    if isinstance(event, Message) and event.kind not in tuple(Kind):
        raise ValueError(f"frame of kind {event.kind}")
    if min(event.shape, default=0) < 0 or event.itemsize not in (1, 2, 4, 8) or not event.session:
        raise ValueError(f"{event.itemsize}-byte elements of shape {event.shape}")
    if math.prod(event.shape) * event.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for shape {event.shape}")
    return event


#: A session id in words.
_SHORT = re.compile(r"^([0-9a-f]{8})[0-9a-f]{24}$")


def _place(event: Event) -> tuple[str, ...]:
    session = event.session.hex()
    if isinstance(event, Draw):
        return "draw", event.party, session, event.dealer, event.pair, event.purpose, event.step
    direction = "receives from" if event.received else "sends to"
    return "message", event.party, direction, event.peer, session, Kind(event.kind).name, event.step


def _by_place(events: Iterable[Event]) -> Mapping[tuple[str, ...], list[Event]]:
    places: dict[tuple[str, ...], list[Event]] = {}
    for event in events:
        places.setdefault(_place(event), []).append(event)
    return places


def _difference(one: Event, other: Event) -> str:
    if isinstance(one, Message) and isinstance(other, Message) and one.round != other.round:
        return f"round {one.round} here, {other.round} there"
    if (one.itemsize, one.shape) != (other.itemsize, other.shape):
        return f"{one.shape} x u{8 * one.itemsize} here, {other.shape} x u{8 * other.itemsize} there"
    if isinstance(one, Draw) and isinstance(other, Draw) and one.bits != other.bits:
        return f"{one.bits} bits here, {other.bits} bits there"
    different = int(np.count_nonzero(one.array != other.array))
    return f"{different} of {one.array.size} elements differ"
