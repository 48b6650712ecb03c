"""Exact view tests: run the shipped gate on every input and every mask at once, and count views.

The pairwise streams are replaced by an enumeration: the batch axis of one ordinary run of three parties goes
through all values of all input parts and all drawn elements.  For each corrupt server, each of its own inputs and
every value of what it does not hold, the histogram of its view (draws and received messages) must be the same.
No statistics, no tolerance.  For a passive protocol, equality of views over all inputs that agree on the corrupt
part is simulation security (Haagh, Karbyshev, Oechsner, Spitters, Strub, CSF 2018).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from siguard.actors.local import run_three
from siguard.actors.session import roles_for
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.ring import Ring, RingArray
from siguard.transport.frame import decode_frame

#: What a gate under test returns: its outputs are recombined and checked by the caller.
Output = Share | Additive | Opened
GateUnderTest = Callable[[Party, Sequence[Share]], Awaitable[Output]]

Address = tuple[str, str, str]

#: Runs above this would not fit in memory in one batch.
MAX_CASES = 1 << 24


@dataclass
class _Layout:
    """Which elements are drawn, in an order that does not depend on which party draws first."""

    sizes: dict[Address, tuple[Ring, int]] = field(default_factory=dict)

    def note(self, address: Address, ring: Ring, elements: int) -> None:
        self.sizes[address] = (ring, elements)


class EnumeratingSource:
    """A `RandomnessSource` whose draws go through all values along the first axis.

    zeroed: purposes whose draws are constantly 0 instead: the negative control "no mask".
    Without ``digits`` it only notes what is drawn.
    """

    def __init__(
        self,
        layout: _Layout,
        digits: dict[Address, npt.NDArray[np.int64]] | None,
        zeroed: Collection[str],
    ) -> None:
        self._layout = layout
        self._digits = digits
        self._zeroed = zeroed
        self.seen: list[npt.NDArray[np.int64]] = []

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """All values of the elements at this address, one case per row."""
        if purpose in self._zeroed:
            return ring.zeros(*shape)
        address = (pair, purpose, path)
        if self._digits is None:
            # The noting run has one case, so every element is one of that case.
            self._layout.note(address, ring, math.prod(shape))
            return ring.zeros(*shape)
        values = self._digits[address]
        self.seen.append(values)
        axis = shape.index(len(values))
        rest = (*shape[:axis], *shape[axis + 1 :])
        return np.moveaxis(values.reshape(len(values), *rest), 0, axis).astype(ring.dtype)


@dataclass(frozen=True)
class ViewTest:
    """One gate, one corrupt server: how many cases were run, and how far its views depend on what it does not hold.

    total_variation: the largest distance between two histograms of views that agree on the server's own inputs;
    0.0 exactly when the gate is secure against this server.
    """

    role: int
    cases: int
    total_variation: float


@dataclass(frozen=True)
class Enumeration:
    """All cases of one gate: input parts (cases, inputs, 3), outputs by role, and the view tests by role."""

    parts: npt.NDArray[np.int64]
    results: list[Output]
    tests: tuple[ViewTest, ViewTest, ViewTest]

    def inputs(self, ring: Ring) -> npt.NDArray[np.int64]:
        """The shared values (cases, inputs)."""
        values: npt.NDArray[np.int64] = self.parts.sum(axis=2) % (1 << ring.bits)
        return values


async def enumerate_gate(
    gate: GateUnderTest, rings: Sequence[Ring], *, zeroed: Collection[str] = (), dealer: str = "S2"
) -> Enumeration:
    """Run ``gate`` on one scalar input per ring over all input parts and all randomness.

    Raises ValueError when there are more than `MAX_CASES` cases.
    """
    layout = _Layout()
    await run_three(
        lambda party: gate(party, _inputs(party.role, rings, np.zeros((1, len(rings), 3), np.int64))),
        randomness=lambda name: EnumeratingSource(layout, None, zeroed),
        dealer=dealer,
    )
    radices = [1 << ring.bits for ring in rings for _ in range(3)]
    addresses = sorted(layout.sizes)
    for address in addresses:
        ring, elements = layout.sizes[address]
        radices += [1 << ring.bits] * elements
    cases = int(np.prod([float(radix) for radix in radices]))
    if cases > MAX_CASES:
        raise ValueError(f"{cases:.3g} cases; allowed: {MAX_CASES}")
    digits = _all_digits(radices, cases)
    parts = digits[:, : 3 * len(rings)].reshape(cases, len(rings), 3)
    columns: dict[Address, npt.NDArray[np.int64]] = {}
    start = 3 * len(rings)
    for address in addresses:
        elements = layout.sizes[address][1]
        columns[address] = digits[:, start : start + elements]
        start += elements

    sources: dict[str, EnumeratingSource] = {}
    received: dict[str, list[npt.NDArray[np.int64]]] = {}

    def source(name: str) -> EnumeratingSource:
        sources[name] = EnumeratingSource(layout, columns, zeroed)
        return sources[name]

    def observe(sender: str, receiver: str, data: bytes) -> None:
        payload = decode_frame(data).payload
        if cases not in payload.shape:  # several arrays of bytes, one after the other
            payload = payload.reshape(-1, cases)
        by_case = np.moveaxis(payload, payload.shape.index(cases), 0).reshape(cases, -1)
        received.setdefault(receiver, []).append(by_case.astype(np.int64))

    run = await run_three(
        lambda party: gate(party, _inputs(party.role, rings, parts)),
        randomness=source,
        observe_frame=observe,
        dealer=dealer,
    )
    tests = []
    for role, name in enumerate(roles_for(dealer)):
        view = np.concatenate(
            [np.zeros((cases, 1), np.int64), *sources[name].seen, *received.get(name, [])], axis=1
        )
        own = parts[:, :, [role, (role + 1) % 3]].reshape(cases, -1)
        hidden = parts[:, :, (role + 2) % 3]
        tests.append(ViewTest(role, cases, total_variation(own, hidden, view)))
    return Enumeration(parts, run.results, (tests[0], tests[1], tests[2]))


def total_variation(
    own: npt.NDArray[np.int64], hidden: npt.NDArray[np.int64], view: npt.NDArray[np.int64]
) -> float:
    """Largest distance of the view's distribution between two hidden values, at the same own value.

    Rows are cases, all equally likely; columns are components.  Distances are taken to the first hidden value.
    """
    own_code, hidden_code, view_code = _codes(own), _codes(hidden), _codes(view)
    shape = (int(own_code.max()) + 1, int(hidden_code.max()) + 1, int(view_code.max()) + 1)
    counts = np.bincount(np.ravel_multi_index((own_code, hidden_code, view_code), shape), minlength=np.prod(shape))
    histograms = counts.reshape(shape)
    cases = histograms[0, 0].sum()
    distances = np.abs(histograms - histograms[:, :1]).sum(axis=2) / (2 * cases)
    return float(distances.max())


def _codes(columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A small whole number per distinct row."""
    code = np.zeros(len(columns), np.int64)
    size = 1
    for column in columns.T:
        radix = int(column.max()) + 1
        if size * radix > 1 << 40:
            distinct, code = np.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * radix + column
        size *= radix
    return np.unique(code, return_inverse=True)[1]


def _all_digits(radices: Sequence[int], cases: int) -> npt.NDArray[np.int64]:
    """Every combination of digits, one per row."""
    index = np.arange(cases)
    digits = np.empty((cases, len(radices)), np.int64)
    for column, radix in enumerate(radices):
        index, digits[:, column] = np.divmod(index, radix)
    return digits


def _inputs(role: int, rings: Sequence[Ring], parts: npt.NDArray[np.int64]) -> list[Share]:
    shares = []
    for index, ring in enumerate(rings):
        first = parts[:, index, role].astype(ring.dtype)
        second = parts[:, index, (role + 1) % 3].astype(ring.dtype)
        shares.append(Share(role, ring, first, second, 0))
    return shares


def recombine(results: Sequence[Output]) -> npt.NDArray[np.int64]:
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
