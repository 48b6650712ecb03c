"""Three real parties in one call, shares of known values to feed them, and what the results hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import trio
from hypothesis import settings
from hypothesis import strategies as st

from siguard.actors.local import LocalRun, run_three
from siguard.actors.mailbox import Mailbox
from siguard.actors.session import Outbox, ServerSession, client_pair, pair_name, roles_for
from siguard.mpc.io import mask_input
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.mpc.splines import ARGUMENT_BITS, CELL_BITS
from siguard.prf import PairwiseRandomness, derive_key
from siguard.ring import Z64, Ring, RingArray, decode, encode
from siguard.transport.frame import Frame, Kind, decode_frame
from siguard.transport.link import Link
from siguard.transport.memory import MemoryLink, memory_link_pair

Shares = tuple[Share, Share, Share]
Protocol = Callable[[Party], Awaitable[Any]]
Integers = npt.NDArray[np.int64]

#: Fraction bits of the values in most tests.
F = 16
#: One at the scale of the exponential's argument, and its bits below a cell.
UNIT, CELL_SHIFT = 1 << ARGUMENT_BITS, ARGUMENT_BITS - CELL_BITS
#: Examples of a law that three parties try, and the seeds that make them.
FEW = settings(deadline=None, max_examples=8, derandomize=True)
seeds = st.integers(0, 2**32)
#: A protocol that hangs fails after this many seconds.
DEADLINE = 20.0


def run(protocol: Protocol, **options: Any) -> LocalRun:
    """`run_three` from a test that is not async."""
    return trio.run(partial(run_three, protocol, **{"deadline": DEADLINE, **options}))


def run_seen(protocol: Protocol, seed: int) -> tuple[list[Any], list[bytes], LocalRun]:
    """`run`, with the headers of all frames, sorted, and their contents in the same order."""
    seen: list[tuple[Any, bytes]] = []

    def note(sender: str, receiver: str, data: bytes) -> None:
        frame = decode_frame(data)
        header = (sender, receiver, frame.step, frame.depth, frame.payload.shape, frame.payload.itemsize)
        seen.append((header, frame.payload.tobytes()))

    done = run(protocol, seed=seed, observe_frame=note)
    seen.sort()
    return [header for header, _ in seen], [content for _, content in seen], done


def uniform(rng: np.random.Generator, ring: Ring, shape: tuple[int, ...]) -> RingArray:
    """Random elements of a ring."""
    size = ring.itemsize
    for length in shape:
        size *= length
    return ring.from_bytes(rng.bytes(size), shape)


def share_from(ring: Ring, value: RingArray, x0: RingArray, x2: RingArray, depth: int = 0) -> Shares:
    """The sharing of ``value`` with these masks."""
    x1 = ring.sub(ring.sub(value, x0), x2)
    return Share(0, ring, x0, x1, depth), Share(1, ring, x1, x2, depth), Share(2, ring, x2, x0, depth)


def share(values: npt.ArrayLike, ring: Ring = Z64, *, seed: int = 0, depth: int = 0) -> Shares:
    """A fresh sharing of (signed) integers, or of ring elements."""
    array = np.asarray(values)
    value = array if array.dtype == ring.dtype else ring.constant(array)
    rng = np.random.default_rng([seed, 0x51])
    return share_from(ring, value, uniform(rng, ring, value.shape), uniform(rng, ring, value.shape), depth)


def share_floats(values: npt.ArrayLike, fraction_bits: int = F, *, seed: int = 0) -> Shares:
    """A fresh sharing of real numbers in fixed point."""
    return share(encode(values, fraction_bits), seed=seed)


def share_terms(values: npt.ArrayLike, ring: Ring = Z64, *, seed: int = 0, dealer: bool = False) -> list[Additive]:
    """An additive sharing of integers; ``dealer``: the dealer holds a part too."""
    value = ring.constant(values)
    rng = np.random.default_rng([seed, 0xAD])
    first = uniform(rng, ring, value.shape)
    third = uniform(rng, ring, value.shape) if dealer else ring.zeros(*value.shape)
    parts = (first, ring.sub(ring.sub(value, first), third), third)
    return [Additive(role, ring, part, 0, dealer_part=dealer) for role, part in enumerate(parts)]


def share_opened(values: npt.ArrayLike, ring: Ring = Z64, *, seed: int = 0) -> list[Opened]:
    """An opened wire of integers."""
    value = ring.constant(values)
    mask = uniform(np.random.default_rng([seed, 0x09]), ring, value.shape)
    masked = ring.add(value, mask)
    return [Opened(role, ring, part, 0) for role, part in enumerate((masked, masked, mask))]


def value_of(results: Sequence[Share]) -> RingArray:
    """The shared value, after checking what a replicated sharing owes at every role."""
    ring = results[0].ring
    for role, part in enumerate(results):
        following = results[(role + 1) % 3]
        assert isinstance(part, Share)
        assert part.role == role
        assert part.ring == ring
        for array in (part.first, part.second):
            assert array.dtype == ring.dtype
            assert array.shape == part.shape == results[0].shape
            np.testing.assert_array_equal(array, ring.convert(array), err_msg="elements are not reduced")
        np.testing.assert_array_equal(part.second, following.first, err_msg=f"role {role} and the next one differ")
    return ring.add(ring.add(results[0].first, results[1].first), results[2].first)


def terms_of(results: Sequence[Additive]) -> RingArray:
    """The value of an additive sharing; what every role says of it must agree."""
    ring = results[0].ring
    for role, part in enumerate(results):
        assert isinstance(part, Additive)
        assert (part.role, part.ring, part.shape) == (role, ring, results[0].shape)
        assert part.dealer_part == results[0].dealer_part
        assert part.value.dtype == ring.dtype
    if not results[2].dealer_part:
        assert not results[2].value.any()
    return ring.add(ring.add(results[0].value, results[1].value), results[2].value)


def opened_of(results: Sequence[Opened]) -> RingArray:
    """The value of an opened wire: c - r."""
    ring = results[0].ring
    for role, part in enumerate(results):
        assert isinstance(part, Opened)
        assert (part.role, part.ring, part.shape) == (role, ring, results[0].shape)
    np.testing.assert_array_equal(results[0].value, results[1].value)
    return ring.sub(results[0].value, results[2].value)


def signed_of(results: Sequence[Share]) -> Integers:
    """The shared value, signed."""
    return results[0].ring.signed(value_of(results))


def floats_of(results: Sequence[Share], fraction_bits: int = F) -> npt.NDArray[np.float64]:
    """The shared real numbers."""
    return decode(value_of(results), fraction_bits)


def in_ring(values: npt.ArrayLike, ring: Ring) -> Integers:
    """Integers reduced into a ring, read signed."""
    return ring.signed(ring.constant(values))


def every_pair(ring: Ring) -> tuple[RingArray, RingArray]:
    """All (value, mask) of a small ring, as two arrays of 4^k elements."""
    size = 1 << ring.bits
    grid = np.arange(size * size)
    return ring.constant(grid // size), ring.constant(grid % size)


class FixedMasks:
    """A source of randomness that gives chosen masks at (pair, purpose) and zeros elsewhere.

    For dealer S2, S0S2 is the pair of roles 0 and 2 and S1S2 that of roles 1 and 2.
    """

    def __init__(self, masks: dict[tuple[str, str], RingArray]) -> None:
        self._masks = masks

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """The chosen mask, which must have the shape that is asked for."""
        mask = self._masks.get((pair, purpose))
        if mask is None:
            return ring.zeros(*shape)
        assert mask.shape == shape
        return mask


# --- the client of a session ------------------------------------------------------------------------------

_PAIRS = ("S0S1", "S0S2", "S1S2")
_KEYS = {pair: derive_key(bytes(32), pair) for pair in (*_PAIRS, *(client_pair("user", pair) for pair in _PAIRS))}


def client_randomness(name: str, dealer: str = "S2") -> PairwiseRandomness:
    """Streams of a server, or of the user, with the keys that the user shares with pairs of servers."""
    keys = {pair: key for pair, key in _KEYS.items() if name in pair}
    return PairwiseRandomness(keys, bytes(16), dealer, name)


class User:
    """A client beside `run_three`: it shares an input and receives an answer over links of its own.

    Run the protocol with ``randomness=user.randomness``, and `attach` every party first.
    """

    def __init__(self, dealer: str = "S2") -> None:
        self.dealer = dealer
        self.roles = roles_for(dealer)
        self._ends: dict[str, MemoryLink] = {}

    def randomness(self, keys: Mapping[str, bytes], session: bytes, dealer: str, name: str) -> PairwiseRandomness:
        """The source of each server, with the keys it shares with this client."""
        return client_randomness(name, self.dealer)

    def attach(self, party: Party) -> None:
        """Give a server a link to the user."""
        session = cast(ServerSession, party.channel)
        theirs, self._ends[session.mailbox.party] = memory_link_pair("server", "user")
        cast(dict[str, Link], session.outbox._links)["user"] = theirs

    def masked(self, value: RingArray, ring: Ring, path: str) -> RingArray:
        """What the user sends of its input."""
        randomness = client_randomness("user", self.dealer)

        def draw(roles: tuple[int, int], ring: Ring, shape: tuple[int, ...]) -> RingArray:
            pair = client_pair("user", pair_name(self.roles[roles[0]], self.roles[roles[1]]))
            return randomness.draw(pair, "input", path, ring, shape)

        return mask_input(value, ring, draw)

    async def send(self, party: Party, masked: RingArray) -> None:
        """Send the masked input to a server in role 0 or 1, counted as every frame is."""
        session = cast(ServerSession, party.channel)
        box = Mailbox(session.mailbox.session, "user")
        server = session.mailbox.party
        outbox = Outbox(box, {server: self._ends[server]}, session.outbox._traffic)
        await outbox.send(server, Kind.DATA, party.path, 1, masked)
        link = cast(dict[str, Link], session.outbox._links)["user"]
        session.mailbox.deliver("user", decode_frame(await link.receive()))

    async def receive(self, party: Party) -> Frame:
        """The frame that a server sent to the user."""
        session = cast(ServerSession, party.channel)
        return decode_frame(await self._ends[session.mailbox.party].receive())
