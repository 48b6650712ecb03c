"""Exact views: run shipped gates on every input and every mask, and count what a corrupted set sees.

Only the outputs of the PRF are replaced: `EnumeratedRandomness` is the shipped `PairwiseRandomness`, keys,
addresses and reuse check included, whose streams go through all values along the batch axis of one ordinary run.  A
stream is known by its key and initial counter, so that an addressing that mixes two streams up shows.

For each value of what a corrupted set holds itself, the histogram of its view (draws and received messages) must be
the same for every value of what it does not hold, and the same as that of the simulated view.  No statistics, no
tolerance.  For passive protocols the first is simulation security already (Haagh, Karbyshev, Oechsner, Spitters,
Strub, CSF 2018); the second shows the simulator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.prf import PairwiseRandomness
from siguard.ring import PACKED, BooleanRing, Ring, RingArray, ring

Values = npt.NDArray[np.int64]
#: What a gate under test returns: outputs are recombined and checked by the instance.
Output = Share | Additive | Opened
GateUnderTest = Callable[[Party, Sequence[Share]], Awaitable[Output | Sequence[Output]]]

#: Cases in the run that only notes what is drawn; no other axis of an instance has this length.
NOTING_CASES = 67


@dataclass(frozen=True)
class Instance:
    """Something small enough to run through all of it.

    name: "family: detail".  gates: which gates of the package it covers, as ``module.name``.
    rings: of the wires it starts from, one scalar each.  run: called at each server with the wires.
    right: the functionality, see `siguard.proofsim.functionalities`: (input values (cases, wires), recombined
    outputs (cases, n), openings of truncations) -> bool per case.
    word_bits: how many bits of a packed word are used, where words are drawn case by case.
    user_ring: the ring of an input that the user shares at the step "input" and of the answer it receives; without
    ``user_shares`` of the answer only.
    values_in: the ring in which gates that name Z_2^64 compute here (`siguard.proofsim.keys.values_in`).
    sessions: (number of the session id, dealer) of each run, one after the other, with the same wires; the second
    run takes them from the second on, so that each computes something else.
    """

    name: str
    gates: tuple[str, ...]
    rings: tuple[Ring, ...]
    run: GateUnderTest
    right: Callable[[Values, Values, Values], npt.NDArray[np.bool_]]
    word_bits: int = 64
    user_ring: Ring | None = None
    user_shares: bool = True
    values_in: Ring | None = None
    sessions: tuple[tuple[int, str], ...] = ((0, "S2"),)


@dataclass
class Digits:
    """The variables of an enumeration, one after the other in the bits of a case number.

    sizes: variable -> (bits of an element, elements).
    """

    sizes: dict[Hashable, tuple[int, int]] = field(default_factory=dict)
    _offsets: dict[Hashable, int] = field(default_factory=dict)

    def note(self, name: Hashable, bits: int, elements: int) -> None:
        """A variable was drawn; of two sizes the larger one counts: a stream has its longer draw as a whole."""
        known_bits, known_elements = self.sizes.get(name, (0, 0))
        self.sizes[name] = (max(bits, known_bits), max(elements, known_elements))

    @property
    def bits(self) -> int:
        """log2 of the number of cases."""
        return sum(bits * elements for bits, elements in self.sizes.values())

    def arrange(self, last: Sequence[Hashable] = ()) -> None:
        """Fix the place of every variable; those in ``last`` change slowest."""
        offset = 0
        for name in [*sorted((n for n in self.sizes if n not in last), key=repr), *last]:
            self._offsets[name] = offset
            bits, elements = self.sizes[name]
            offset += bits * elements

    def values(self, name: Hashable, cases: npt.NDArray[np.int64]) -> Values:
        """All elements of a variable, (cases, elements)."""
        bits, elements = self.sizes[name]
        offset = self._offsets[name]
        mask = (1 << bits) - 1
        return np.stack([(cases >> (offset + bits * i)) & mask for i in range(elements)], axis=1)


class EnumeratedRandomness(PairwiseRandomness):
    """`PairwiseRandomness` whose streams are variables of an enumeration.

    Without ``cases`` it notes sizes and gives zeros.  seen: what this party drew, by variable.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        session: bytes,
        dealer: str,
        party: str,
        *,
        digits: Digits,
        cases: npt.NDArray[np.int64] | None,
        word_bits: int,
    ) -> None:
        super().__init__(keys, session, dealer, party)
        self._digits = digits
        self._cases = cases
        self._word_bits = word_bits
        self.party = party
        self.seen: dict[tuple[str, bytes, bytes], Values] = {}

    @property
    def held(self) -> set[bytes]:
        """The session keys of this party: every stream of theirs is on its tape."""
        return set(self._keys.values())

    def _expand(self, pair: str, start: bytes, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        cases = NOTING_CASES if self._cases is None else len(self._cases)
        layout = layout_of(ring, shape, cases, self._word_bits)
        name = ("stream", self._keys[pair], start)
        if self._cases is None:
            self._digits.note(name, layout.bits, layout.elements)
            return ring.zeros(*shape)
        values = self._digits.values(name, self._cases)
        self.seen[name] = values
        return layout.array(values)


@dataclass(frozen=True)
class Layout:
    """Where the cases of an enumeration are in an array of ring elements.

    axis: the batch axis, or None for packed bits, where each lane of the words on the last axis is a case.  Axis 0
    may hold several rows of each case, one after the other.
    """

    ring: Ring
    shape: tuple[int, ...]
    cases: int
    axis: int | None
    bits: int
    elements: int

    def array(self, values: Values) -> RingArray:
        """(cases, elements) as an array of this layout."""
        if self.axis is None:
            padded = np.zeros((self.elements, 64 * self.shape[-1]), np.uint8)
            padded[:, : self.cases] = values[:, : self.elements].T & 1
            packed = np.packbits(padded, axis=1, bitorder="little").view("<u8")
            return packed.reshape(self.shape)
        rest = (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        chosen = values[:, : self.elements] & ((1 << self.bits) - 1)
        if self.shape[self.axis] != self.cases:
            return chosen.reshape(self.shape).astype(self.ring.dtype)
        return np.moveaxis(chosen.reshape(self.cases, *rest), 0, self.axis).astype(self.ring.dtype)

    def values(self, array: npt.NDArray[Any]) -> Values:
        """The inverse of `array`."""
        if self.axis is None:
            lanes = np.unpackbits(np.ascontiguousarray(array).view(np.uint8), bitorder="little")
            return lanes.reshape(self.elements, -1)[:, : self.cases].T.astype(np.int64)
        return np.moveaxis(array, self.axis, 0).reshape(self.cases, -1).astype(np.int64)


def layout_of(ring: Ring, shape: tuple[int, ...], cases: int, word_bits: int) -> Layout:
    """Find the cases in an array: an axis as long as there are cases, or the lanes of packed words."""
    size = int(np.prod(shape, dtype=np.int64))
    words = -(-cases // 64)
    bits = word_bits if isinstance(ring, BooleanRing) else ring.bits
    if cases in shape:
        return Layout(ring, shape, cases, shape.index(cases), bits, size // cases)
    if isinstance(ring, BooleanRing) and shape[-1] == words:
        return Layout(ring, shape, cases, None, 1, size // words)
    if shape[0] % cases == 0 and len(shape) > 1:
        return Layout(ring, shape, cases, 0, bits, size // cases)
    raise ValueError(f"no axis of {shape} holds the {cases} cases")


def recombine(results: Sequence[Output]) -> Values:
    """The value that three parties' outputs share; checks that replicated parts agree."""
    ring = results[0].ring
    if isinstance(results[0], Opened):
        c, c_again, r = (result.value for result in results if isinstance(result, Opened))
        if not np.array_equal(c, c_again):
            raise AssertionError("roles 0 and 1 hold different openings")
        return ring.sub(c, r).astype(np.int64)
    if isinstance(results[0], Additive):
        values = [result.value for result in results if isinstance(result, Additive)]
        return ring.add(ring.add(values[0], values[1]), values[2]).astype(np.int64)
    shares = [result for result in results if isinstance(result, Share)]
    for one, following in zip(shares, [*shares[1:], shares[0]], strict=True):
        if not np.array_equal(one.second, following.first):
            raise AssertionError("the replicated parts of two parties differ")
    return ring.add(ring.add(shares[0].first, shares[1].first), shares[2].first).astype(np.int64)


@dataclass
class World:
    """One run: components of the corrupted set's view by name, what its simulator is given, and the values."""

    cases: int
    view: dict[Hashable, Values] = field(default_factory=dict)
    given: list[Values] = field(default_factory=list)
    right: Any = None

    def note_message(self, session: bytes, sender: str, receiver: str, step: bytes, payload: RingArray) -> None:
        """A frame that a corrupted party receives; a second frame of a step is another component."""
        names = (("message", session, sender, receiver, step, n) for n in range(1 << 10))
        self.view[next(name for name in names if name not in self.view)] = values_of(payload, self.cases)

    def columns(self, names: Sequence[Hashable]) -> list[Values]:
        """Components of the view."""
        return columns([self.view[name] for name in names], self.cases)


def columns(tables: Iterable[Values], cases: int) -> list[Values]:
    """The columns of several tables (cases, n), at least one."""
    return [np.zeros(cases, np.int64), *(np.ascontiguousarray(column) for table in tables for column in table.T)]


def values_of(array: RingArray, cases: int) -> Values:
    """The elements of a frame or an output, by case."""
    if array.itemsize == 8 and cases not in array.shape:
        return layout_of(PACKED, array.shape, cases, 64).values(array)
    if cases not in array.shape:  # several rows of each case, or several arrays of bytes, one after the other
        array = array.reshape(cases, -1) if array.ndim > 1 else array.reshape(-1, cases)
    return Layout(ring(8 * array.itemsize), array.shape, cases, array.shape.index(cases), 0, 0).values(array)
