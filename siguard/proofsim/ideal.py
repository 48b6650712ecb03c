"""Ideal functionalities as code: what each primitive gate must compute, done by a trusted party.

The trusted party takes all inputs, computes on values in the clear, and hands out shares: the corrupted server's
parts come from outside (fresh, or as they were in a recorded run), the rest goes to the honest servers.  These are
the *coins* of F(inputs; coins): uniform, independent of every input, and known to the adversary.  A truncation
rounds by them (`ideal_view`); nothing else in a value depends on them.

Under `hybrid` every primitive gate of the package is replaced by its functionality, so that a gate, a policy or a
whole query made of them runs in the hybrid model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Protocol

import numpy as np
import trio

from siguard.errors import ProtocolError
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.prf import KEY_BYTES, PairwiseRandomness, derive_key
from siguard.proofsim.patching import replaced_all
from siguard.proofsim.walk import gates_of_the_package
from siguard.ring import Ring, RingArray

#: Seconds until all three servers must have called a functionality: they run in one process.
_PATIENCE = 20.0

Result = Share | Additive | Opened


class OwnParts(Protocol):
    """Where the corrupted server's parts of a functionality's outputs come from."""

    def part(self, gate: str, path: str, name: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """The part ``first``, ``second`` or ``value`` of the output of a gate at a path."""
        ...


class FreshParts:
    """Uniform parts, by address: the same seed gives the same parts to every run, whatever its inputs."""

    def __init__(self, seed: int, session: bytes = b"") -> None:
        key = derive_key(seed.to_bytes(KEY_BYTES, "little"), "fresh parts", session)
        self._source = PairwiseRandomness({"own": key}, bytes(16), "", "")

    def part(self, gate: str, path: str, name: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Uniform elements, once per address."""
        return self._source.draw("own", f"{gate} {name}", path, ring, shape)


class RecordedParts:
    """The parts that a server held in another run, real or simulated: results of its gates, by (gate, path)."""

    def __init__(self, results: Mapping[tuple[str, str], Any]) -> None:
        self._results = results

    def part(self, gate: str, path: str, name: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """As it was; raises `ProtocolError` when the other run has no such gate or another shape."""
        step, _, index = path.partition("#")
        result = self._results.get((gate, step))
        if result is not None and index:
            result = result[int(index)]
        found = getattr(result, name, None)
        if result is None or found is None or found.shape != shape or result.ring != ring:
            raise ProtocolError(f"the recorded run has no {gate} with a part of shape {shape} here", step=path)
        return found  # type: ignore[no-any-return]


@dataclass
class TrustedParty:
    """Computes functionalities for three servers of which one is corrupted.

    role: the corrupted server's; 0 where none is, which then only says whose parts are chosen first.
    inputs: the client's inputs by path.  answers: what was revealed to the receiver, by path.
    handed_out: (gate, path, the corrupted server's output) of every call.
    outputs: by (gate, path) what all roles got; dealer_parts: the dealer's summand of each opened value, by path.
    """

    role: int
    own: OwnParts
    inputs: Mapping[str, RingArray] = field(default_factory=dict)
    answers: dict[str, RingArray] = field(default_factory=dict)
    handed_out: list[tuple[str, str, Any]] = field(default_factory=list)
    outputs: dict[tuple[str, str], Sequence[Any]] = field(default_factory=dict)
    dealer_parts: dict[str, RingArray] = field(default_factory=dict)
    _calls: dict[tuple[str, str], _Call] = field(default_factory=dict)

    async def call(self, gate: str, party: Party, arguments: Sequence[Any], ideal: Ideal) -> Any:
        """One server's call; returns its output when all three have called."""
        key = (gate, party.path)
        call = self._calls.setdefault(key, _Call())
        if party.role in call.arguments:
            raise ProtocolError(
                f"{gate} is called twice here; give the second use a step of its own", step=party.path
            )
        call.arguments[party.role] = arguments
        if len(call.arguments) == 3:
            call.outputs = ideal(self, party.path, [call.arguments[role] for role in range(3)])
            self.handed_out.append((gate, party.path, call.outputs[self.role]))
            self.outputs[gate, party.path] = call.outputs
            call.done.set()
        with trio.move_on_after(_PATIENCE):
            await call.done.wait()
        if not call.outputs:
            raise ProtocolError(f"only roles {sorted(call.arguments)} called {gate}", step=party.path)
        return call.outputs[party.role]

    # How outputs are shared ----------------------------------------------------------------------------------

    def wire(self, gate: str, path: str, value: RingArray, ring: Ring) -> list[Share]:
        """Fresh replicated shares of a value."""
        first, second = (self.own.part(gate, path, name, ring, value.shape) for name in ("first", "second"))
        return shared_with(value, ring, self.role, first, second)

    def terms(self, gate: str, path: str, value: RingArray, ring: Ring) -> list[Additive]:
        """A fresh additive sharing between roles 0 and 1."""
        if self.role == 2:
            first = ring.zeros(*value.shape)
        elif self.role == 0:
            first = self.own.part(gate, path, "value", ring, value.shape)
        else:
            first = ring.sub(value, self.own.part(gate, path, "value", ring, value.shape))
        parts = (first, ring.sub(value, first), ring.zeros(*value.shape))
        return [Additive(role, ring, part, 0, dealer_part=False) for role, part in enumerate(parts)]

    def split_mask(self, gate: str, path: str, mask: RingArray, ring: Ring) -> tuple[RingArray, RingArray]:
        """A mask known to role 2, freshly split into x0 (roles 0, 2) and x2 (roles 1, 2)."""
        name = "first" if self.role == 0 else "second"
        own = self.own.part(gate, path, name, ring, mask.shape)
        return (ring.sub(mask, own), own) if self.role == 1 else (own, ring.sub(mask, own))


@dataclass
class _Call:
    arguments: dict[int, Sequence[Any]] = field(default_factory=dict)
    outputs: Sequence[Any] = ()
    done: trio.Event = field(default_factory=trio.Event)


#: (trusted party, path, arguments by role) -> outputs by role.
Ideal = Callable[[TrustedParty, str, list[Sequence[Any]]], Sequence[Any]]


def shared_with(value: RingArray, ring: Ring, role: int, first: RingArray, second: RingArray) -> list[Share]:
    """The sharing of a value in which this role holds ``first`` and ``second``."""
    parts = [first] * 3
    parts[(role + 1) % 3] = second
    parts[(role + 2) % 3] = ring.sub(value, ring.add(first, second))
    return [Share(i, ring, parts[i], parts[(i + 1) % 3], 0) for i in range(3)]


# --- values in the clear ----------------------------------------------------------------------------------


def value_of(parts: Sequence[Result]) -> RingArray:
    """What three outputs share."""
    ring = parts[0].ring
    if isinstance(parts[0], Opened):
        return ring.sub(parts[0].value, parts[2].value)  # type: ignore[union-attr]
    names = "first" if isinstance(parts[0], Share) else "value"
    arrays = [getattr(part, names) for part in parts]
    return ring.add(ring.add(arrays[0], arrays[1]), arrays[2])


# --- the functionalities ----------------------------------------------------------------------------------


def ideal_deal(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """v, which the dealer knows, additively shared between roles 0 and 1."""
    ring, _, known = arguments[2][:3]
    return trusted.terms("arithmetic.deal", path, known(), ring)


def ideal_deal_wire(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """v, which the dealer knows, as the wire (d0, 0, d2)."""
    ring, _, known = arguments[2][:3]
    value = known()
    d0, d2 = trusted.split_mask("arithmetic.deal_wire", path, value, ring)
    zero = ring.zeros(*value.shape)
    return [Share(0, ring, d0, zero, 0), Share(1, ring, zero, d2, 0), Share(2, ring, d2, d0, 0)]


def ideal_open(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """c = z + r to roles 0 and 1 and r to role 2, r uniform."""
    terms = [one[0] for one in arguments]
    ring, z = terms[0].ring, value_of(terms)
    trusted.dealer_parts[path] = terms[2].value
    own = trusted.own.part("arithmetic.open_additive", path, "value", ring, z.shape)
    c, r = (ring.add(z, own), own) if trusted.role == 2 else (own, ring.sub(own, z))
    return [Opened(0, ring, c, 0), Opened(1, ring, c, 0), Opened(2, ring, r, 0)]


def ideal_view(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """The wire whose public part is c >> f and whose mask is -(r >> f): the value rounds by the coin, c or r."""
    opened = [one[0] for one in arguments]
    shift = arguments[0][1] if len(arguments[0]) > 1 else 0
    source = opened[0].ring
    ring = arguments[0][2] if len(arguments[0]) > 2 and arguments[0][2] is not None else source
    public = ring.convert(source.shift_right(opened[0].value, shift))
    mask = ring.neg(ring.convert(source.shift_right(opened[2].value, shift)))
    t0, t2 = trusted.split_mask("arithmetic.view", path, mask, ring)
    return [Share(0, ring, t0, public, 0), Share(1, ring, public, t2, 0), Share(2, ring, t2, t0, 0)]


def ideal_remask(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """Fresh shares of the same value."""
    terms = [one[0] for one in arguments]
    return trusted.wire("arithmetic.remask", path, value_of(terms), terms[0].ring)


def ideal_together(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """Fresh shares of the same values."""
    wires = [
        trusted.wire("arithmetic.remask_together", f"{path}#{index}", value_of(terms), terms[0].ring)
        for index, terms in enumerate(zip(*(one[0] for one in arguments), strict=True))
    ]
    return [[wire[role] for wire in wires] for role in range(3)]


def ideal_comparison(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """payload * [point < alpha], additively shared between roles 0 and 1."""
    ring, _, _, secrets = arguments[2][:4]
    alpha, payload = secrets()
    below = arguments[0][4]().astype(np.uint64) < alpha[:, None].astype(np.uint64)
    value = ring.mul(ring.constant(below)[..., None], payload[:, None])
    return trusted.terms("keyed.comparison", path, value, ring)


def ideal_window(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """payload at alpha's place in the window, additively shared between roles 0 and 1."""
    ring, (_, count, _), bits, secrets = arguments[2][:4]
    alpha, payload = secrets()
    # Where from the start alpha is, mod 2^bits.
    place = (alpha.astype(np.uint64) - arguments[0][4]().astype(np.uint64)) & np.uint64((1 << bits) - 1)
    there = place[:, None] == np.arange(count, dtype=np.uint64)
    value = ring.mul(ring.constant(there)[..., None], payload[:, None])
    return trusted.terms("keyed.window", path, value, ring)


def ideal_input(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """Fresh shares of the client's input."""
    return trusted.wire("io.receive_input", path, trusted.inputs[path], arguments[0][0])


def ideal_reveal(trusted: TrustedParty, path: str, arguments: list[Sequence[Any]]) -> Sequence[Any]:
    """The value to the receiver, nothing to the servers."""
    trusted.answers[path] = value_of([one[0] for one in arguments])
    return [None, None, None]


IDEALS: dict[str, Ideal] = {
    "arithmetic.deal": ideal_deal,
    "arithmetic.deal_wire": ideal_deal_wire,
    "arithmetic.open_additive": ideal_open,
    "arithmetic.view": ideal_view,
    "arithmetic.remask": ideal_remask,
    "arithmetic.remask_together": ideal_together,
    "keyed.comparison": ideal_comparison,
    "keyed.window": ideal_window,
    "io.receive_input": ideal_input,
    "io.reveal": ideal_reveal,
}


@contextmanager
def hybrid(trusted: TrustedParty, session: bytes | None = None) -> Iterator[None]:
    """While open, every primitive gate is a call of the trusted party.

    session: only of servers in this session, if given; others run their gates as they are.
    """

    def replacement(name: str, current: Callable[..., Awaitable[Any]], ideal: Ideal) -> Callable[..., Any]:
        parameters = signature(current)

        async def call(party: Party, *arguments: Any, **options: Any) -> Any:
            if session is not None and party.channel.mailbox.session != session:  # type: ignore[attr-defined]
                return await current(party, *arguments, **options)
            if options:
                bound = parameters.bind(party, *arguments, **options)
                bound.apply_defaults()
                arguments = bound.args[1:]
            return await trusted.call(name, party, arguments, ideal)

        return call

    gates = {gate.name: gate for gate in gates_of_the_package()}
    replacements = {}
    for name, ideal in IDEALS.items():
        current = gates[name].current
        replacements[current] = replacement(name, current, ideal)
    with replaced_all(replacements):
        yield


def same_parts(one: Any, other: Any) -> bool:
    """Whether two outputs of a gate at one server are the same elements."""
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same_parts, one, other))
    names = ("first", "second") if isinstance(one, Share) else ("value",)
    return one is other or all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
