"""The view of one call of a gate on many elements, as arrays.

What parties received, and what they held at each step: parts of the gate's arguments, and the random tape.  The
simulator itself says of which rings a message is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from siguard.mpc.share import Additive, Opened, Share
from siguard.ring import BooleanRing, Ring, RingArray
from siguard.transport.frame import step_digest

#: Sender, receiver, step digest.
Place = tuple[str, str, bytes]
#: What a message is made of, one after the other.
Layout = Sequence[tuple[Ring, tuple[int, ...]]]
_BEGINNING = step_digest("")


class Held(NamedTuple):
    """Something that a party has at a step."""

    name: str
    ring: Ring
    array: RingArray


@dataclass
class GateView:
    """One call, as some parties saw it.

    received: every message by its place.  own: by (party, step digest), what the party held and drew there.
    layouts: of what rings and shapes the simulator made a message.  steps: paths of digests.
    right: in the real world, for each element of the outputs whether it is right.
    """

    received: dict[Place, RingArray] = field(default_factory=dict)
    own: dict[tuple[str, bytes], list[Held]] = field(default_factory=dict)
    layouts: dict[Place, Layout] = field(default_factory=dict)
    steps: dict[bytes, str] = field(default_factory=dict)
    right: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def hold(self, party: str, path: str, held: Held) -> None:
        """Note that a party has something at a step."""
        self.steps[step_digest(path)] = path
        self.own.setdefault((party, step_digest(path)), []).append(held)

    def hold_shares(self, party: str, path: str, shares: Sequence[Any], name: str = "x") -> None:
        """The party's own parts of shares, of a gate's arguments for example; other arguments are public."""
        self.steps[step_digest(path)] = path
        for number, one in enumerate(shares):
            if isinstance(one, (list, tuple)):
                self.hold_shares(party, path, one, f"{name}{number}")
            parts = ("first", "second") if isinstance(one, Share) else ("value",)
            if isinstance(one, (Share, Additive, Opened)):
                for part in parts:
                    self.hold(party, path, Held(f"{name}{number}.{part}", one.ring, getattr(one, part)))

    def block(self, start: int, stop: int) -> GateView:
        """The view of some of the elements of a call whose messages have one axis."""
        part = slice(start, stop)
        return GateView(
            {place: payload[part] for place, payload in self.received.items()},
            {at: [one._replace(array=one.array[part]) for one in held] for at, held in self.own.items()},
            {place: [(ring, (stop - start,)) for ring, _ in layout] for place, layout in self.layouts.items()},
            self.steps,
        )

    def beside(self, place: Place, parties: Sequence[str]) -> list[Held]:
        """What ``parties`` had at the step of a message, and from the beginning."""
        found: dict[tuple[int, tuple[int, ...]], Held] = {}
        for party in parties:
            for step in (_BEGINNING, place[2]):
                for one in self.own.get((party, step), []):
                    # What a gate and the gates inside it are given is one thing.
                    data = one.array.__array_interface__["data"][0]
                    found.setdefault((data, one.array.shape), one._replace(name=f"{party}'s {one.name}"))
        return list(found.values())


class Coins:
    """A simulator's coins, which note of what parts each message is made.

    layouts: by place, the rings and shapes of the parts, in the order in which they were drawn.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._drawn: list[tuple[Ring, tuple[int, ...]]] = []
        self.received: dict[Place, RingArray] = {}
        self.layouts: dict[Place, Layout] = {}

    def uniform(self, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh uniform elements."""
        self._drawn.append((ring, shape))
        return ring.from_bytes(self._rng.bytes(prod(shape) * ring.itemsize), shape)

    def posted(self, receiver: str, sender: str, step: bytes, payload: RingArray) -> None:
        """A simulated message: what was drawn since the last one is what it is made of."""
        self.received[sender, receiver, step] = payload
        self.layouts[sender, receiver, step] = self._drawn
        self._drawn = []


# Messages in parts ------------------------------------------------------------------------------------------


def parts_of(payload: RingArray, layout: Layout) -> list[Held]:
    """The arrays of a message, each with its ring; raises ValueError where the sizes do not agree."""
    data, start, parts = np.ascontiguousarray(payload).view(np.uint8).reshape(-1), 0, []
    for number, (element_ring, shape) in enumerate(layout):
        size = prod(shape) * element_ring.itemsize
        words = data[start : start + size]
        start += size
        parts.append(Held(f"part {number}", element_ring, element_ring.from_bytes(words.data, shape)))
    if start != data.size:
        raise ValueError(f"{data.size} bytes where the simulator made {start}")
    return parts


def elements_of(held: Held) -> tuple[RingArray, int]:
    """Flat elements and their bits; packed words by byte, since there are few of them and lanes are independent."""
    flat = np.ascontiguousarray(held.array).reshape(-1)
    return (flat.view(np.uint8), 8) if isinstance(held.ring, BooleanRing) else (flat, held.ring.bits)
