"""Simulation given the coins: tapes and messages that give the corrupted server the parts it held in another run.

The simulator of each primitive gate in its strict form: from the server's own input and output of the gate, its
draws and what it receives.  What neither determines (its own mask of an opening) is drawn anew.
A function key is a coin as a whole: root and corrections are as they were, and so is what comes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from siguard.actors.session import ServerSession, pair_name
from siguard.errors import ProtocolError
from siguard.mpc.arithmetic import bytes_of
from siguard.mpc.gate import CLIENT, composed
from siguard.mpc.party import Party
from siguard.prf import KEY_BYTES, PairwiseRandomness, RandomnessSource, derive_key
from siguard.proofsim.simulation import uniform_at
from siguard.proofsim.view import View, digest_of
from siguard.proofsim.walk import Gate
from siguard.ring import Ring, RingArray
from siguard.transport.frame import Kind

#: What gates gave a server: by session, then by (gate, path).
Coins = Mapping[bytes, Mapping[tuple[str, str], Any]]
#: A message that the server receives in a gate: (role or CLIENT, payload); None where it receives nothing.
Received = tuple[int, RingArray] | None
_Address = tuple[bytes, str, str, str]


class BoundCoins:
    """Draws and messages under which a server's code gets the same parts again.

    view: of the run that ``coins`` are from.  The masks of inputs follow from the parts and the user's own input:
    they are as they were, and so are keys.  seed: of what is free.
    """

    def __init__(self, view: View, coins: Coins, seed: int) -> None:
        self._coins = coins
        self._seed_key = seed.to_bytes(KEY_BYTES, "little")
        self._fixed: dict[_Address, RingArray] = {
            (draw.session, draw.pair, draw.purpose, draw.step): draw.array
            for draw in view.draws
            if draw.purpose in ("input", "root")
        }
        self._corrections = {
            (message.session, digest_of(message.step)): message.array
            for message in view.messages
            if message.received and message.kind == Kind.DATA
        }

    def tape(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        """A `siguard.prf.RandomnessFactory`: fresh but for what the parts determine."""
        fresh = {name: derive_key(self._seed_key, "bound tape", name) for name in keys}
        return _BoundTape(PairwiseRandomness(fresh, session, dealer, party), session, self._fixed)

    def before(self, gate: Gate, party: Party, arguments: tuple[Any, ...]) -> Received:
        """Fix the draws of the gate that is about to run, and say what is received in it."""
        bind = _BINDINGS.get(gate.name)
        if bind is None:
            if gate.info.simulator is not composed:
                raise AssertionError(f"{gate.name} has no simulator for given coins: add one to {__name__}")
            return None
        channel = party.channel
        assert isinstance(channel, ServerSession)  # noqa: S101 - actors' code runs on nothing else
        results = self._coins.get(channel.mailbox.session, {})
        if (gate.name, party.path) not in results:
            raise ProtocolError(f"the given coins are of a run without {gate.name} here", step=party.path)
        return bind(_Binding(self, party, channel, arguments), results[gate.name, party.path])

    def key(self, session: bytes, path: str) -> RingArray:
        """The corrections of the key that was received at a step."""
        found = self._corrections.get((session, digest_of(path)))
        if found is None:
            raise ProtocolError("the view has no key here", step=path)
        return found

    def fix(self, address: _Address, value: RingArray) -> None:
        """Draw this at an address."""
        self._fixed[address] = value

    def free(self, address: _Address, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Uniform elements of the simulator's own."""
        return uniform_at(self._seed_key, "free mask", *address)(ring, shape)


class _BoundTape:
    def __init__(self, source: RandomnessSource, session: bytes, fixed: Mapping[_Address, RingArray]) -> None:
        self._source = source
        self._session = session
        self._fixed = fixed

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        # Drawn in any case: the shipped source refuses a second use of an address.
        drawn = self._source.draw(pair, purpose, path, ring, shape)
        return self._fixed.get((self._session, pair, purpose, path), drawn)


class _Binding:
    """One gate about to run at the corrupted server."""

    def __init__(self, coins: BoundCoins, party: Party, channel: ServerSession, arguments: tuple[Any, ...]) -> None:
        self._coins = coins
        self._channel = channel
        self.role = party.role
        self.path = party.path
        self.arguments = arguments

    def fix(self, other: int, purpose: str, value: RingArray, path: str | None = None) -> None:
        """The server draws ``value`` with another role."""
        self._coins.fix(self._address(other, purpose, path), value)

    def free(self, other: int, purpose: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """The server draws uniform elements with another role; returns them."""
        address = self._address(other, purpose, None)
        value = self._coins.free(address, ring, shape)
        self._coins.fix(address, value)
        return value

    def key(self) -> RingArray:
        """The corrections of this step's key, as they were."""
        return self._coins.key(self._channel.mailbox.session, self.path)

    def _address(self, other: int, purpose: str, path: str | None) -> _Address:
        roles = self._channel.roles
        name = pair_name(roles[self.role], roles[other])
        return self._channel.mailbox.session, name, purpose, self.path if path is None else path


def _open(gate: _Binding, out: Any) -> Received:
    """c = m0 + m1, m = v + own mask; r = r0 + r2 - v2."""
    x, ring = gate.arguments[0], out.ring
    if gate.role == 2:
        own = gate.free(0, "open", ring, out.shape)
        total = ring.add(out.value, x.value) if x.dealer_part else out.value
        gate.fix(1, "open", ring.sub(total, own))
        return None
    mine = ring.add(x.value, gate.free(2, "open", ring, out.shape))
    return 1 - gate.role, ring.sub(out.value, mine)


def _remask(gate: _Binding, out: Any) -> Received:
    """y1 = (v0 - y0) + (v1 - y2)."""
    return _one_remask(gate, gate.arguments[0], out, None)


def _together(gate: _Binding, out: Any) -> Received:
    parts = [
        _one_remask(gate, x, one, f"{gate.path}/part[{index}]")
        for index, (x, one) in enumerate(zip(gate.arguments[0], out, strict=True))
    ]
    messages = [part[1] for part in parts if part is not None]
    return (1 - gate.role, bytes_of(messages)) if messages else None


def _one_remask(gate: _Binding, x: Any, out: Any, path: str | None) -> Received:
    ring = out.ring
    if gate.role == 2:
        gate.fix(0, "remask", out.second, path)
        gate.fix(1, "remask", out.first, path)
        return None
    mask, masked = (out.first, out.second) if gate.role == 0 else (out.second, out.first)
    gate.fix(2, "remask", mask, path)
    return 1 - gate.role, ring.sub(masked, ring.sub(x.value, mask))


def _view(gate: _Binding, out: Any) -> Received:
    """t0 is drawn by roles 0 and 2, t2 dealt to role 1."""
    return _dealt(gate, "view", (out.first, out.second, out.second))


def _deal_wire(gate: _Binding, out: Any) -> Received:
    return _dealt(gate, "dealt", (out.first, out.second, out.second))


def _deal(gate: _Binding, out: Any) -> Received:
    """The dealer itself is given nothing: its d0 is free."""
    return _dealt(gate, "dealt", (out.value, out.value, None))


def _dealt(gate: _Binding, purpose: str, own: tuple[Any, Any, Any]) -> Received:
    if gate.role == 1:
        return 2, own[1]
    if own[gate.role] is not None:
        gate.fix(2 - gate.role, purpose, own[gate.role])
    return None


def _key(gate: _Binding, out: Any) -> Received:
    """Corrections, as they were; the dealer receives nothing."""
    return None if gate.role == 2 else (2, gate.key())


def _input(gate: _Binding, out: Any) -> Received:
    """x1; the masks are as they were."""
    return None if gate.role == 2 else (CLIENT, out.second if gate.role == 0 else out.first)


def _reveal(gate: _Binding, out: Any) -> Received:
    """Servers receive nothing; rho is free."""
    return None


_BINDINGS: dict[str, Callable[[_Binding, Any], Received]] = {
    "arithmetic.open_additive": _open,
    "arithmetic.remask": _remask,
    "arithmetic.remask_together": _together,
    "arithmetic.view": _view,
    "arithmetic.deal": _deal,
    "arithmetic.deal_wire": _deal_wire,
    "keyed.comparison": _key,
    "keyed.window": _key,
    "io.receive_input": _input,
    "io.reveal": _reveal,
}
