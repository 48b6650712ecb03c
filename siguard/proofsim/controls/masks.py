"""Leaks in the masks that gates draw: missing, constant, biased, too short, or not fresh."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import numpy as np

from siguard.actors.session import ServerSession
from siguard.mpc import arithmetic
from siguard.mpc.arithmetic import multiply
from siguard.mpc.conversion import bit_product
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Share
from siguard.prf import PairwiseRandomness
from siguard.proofsim.patching import replaced, replaced_method
from siguard.ring import Z2, Z64, Ring, RingArray

#: Draws fresh elements of this shape at the address in question.
Fresh = Callable[[tuple[int, ...]], RingArray]
#: (fresh, ring, shape) -> what the gate gets as its mask.
Change = Callable[[Fresh, Ring, tuple[int, ...]], RingArray]

#: Random bits left in a 64-bit mask that is "statistical", for values that are thought to be short.
SHORT_BITS = 48
#: Bits of a float64 between 0 and 1.
FLOAT_BITS = 53


@contextmanager
def drawn_for(
    wanted: str, change: Callable[[Fresh, tuple[int, int], Ring, tuple[int, ...]], RingArray]
) -> Iterator[None]:
    """Change what servers draw for one purpose, alike at both holders of the key."""
    shipped = ServerSession.draw

    def draw(
        self: ServerSession,
        roles: tuple[int, int],
        purpose: str,
        path: str,
        ring: Ring,
        shape: tuple[int, ...],
        client: bool = False,
    ) -> RingArray:
        def fresh(shape: tuple[int, ...]) -> RingArray:
            return shipped(self, roles, purpose, path, ring, shape, client)

        return change(fresh, roles, ring, shape) if purpose == wanted else fresh(shape)

    with replaced_method(ServerSession, "draw", draw):
        yield


def _purpose(wanted: str, change: Change) -> AbstractContextManager[None]:
    """`drawn_for`, whoever the holders are."""
    return drawn_for(wanted, lambda fresh, roles, ring, shape: change(fresh, ring, shape))


def _zeros(fresh: Fresh, ring: Ring, shape: tuple[int, ...]) -> RingArray:
    return ring.zeros(*shape)


def _ones(fresh: Fresh, ring: Ring, shape: tuple[int, ...]) -> RingArray:
    return ring.add(ring.zeros(*shape), ring.constant(1))


def product_without_zero_share() -> AbstractContextManager[None]:
    """r0 = r2 = 0: roles 0 and 1 send each other their bare summands."""
    return _purpose("open", _zeros)


def constant_mask() -> AbstractContextManager[None]:
    """Every re-mask takes 1 for its mask."""
    return _purpose("remask", _ones)


def dealt_in_the_clear() -> AbstractContextManager[None]:
    """d0 = 0: role 1 is dealt the dealer's value itself."""
    return _purpose("dealt", _zeros)


def reveal_without_its_mask() -> AbstractContextManager[None]:
    """rho = 0: the receiver is sent x0 + x1 and x2."""
    return _purpose("reveal", _zeros)


# Every mask -------------------------------------------------------------------------------------------------


@contextmanager
def _every_mask(change: Callable[[RingArray, Ring], RingArray]) -> Iterator[None]:
    shipped = PairwiseRandomness.draw

    def draw(
        self: PairwiseRandomness, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]
    ) -> RingArray:
        return change(shipped(self, pair, purpose, path, ring, shape), ring)

    with replaced_method(PairwiseRandomness, "draw", draw):
        yield


def one_random_bit_per_byte() -> AbstractContextManager[None]:
    """Of each byte of a mask only the lowest bit is random."""

    def lowest(mask: RingArray, ring: Ring) -> RingArray:
        kept: RingArray = mask & ring.dtype.type(int.from_bytes(b"\x01" * ring.itemsize, "little"))
        return kept

    return _every_mask(lowest)


def masks_shorter_than_the_ring() -> AbstractContextManager[None]:
    """64-bit masks have `SHORT_BITS` random bits: enough to hide short values, were they not ring elements."""

    def short(mask: RingArray, ring: Ring) -> RingArray:
        return mask & ring.dtype.type((1 << SHORT_BITS) - 1) if ring == Z64 else mask

    return _every_mask(short)


def masks_from_floating_point() -> AbstractContextManager[None]:
    """64-bit masks are scaled from a float64 in [0, 1): the low 11 bits are 0."""

    def scaled(mask: RingArray, ring: Ring) -> RingArray:
        if ring != Z64:
            return mask
        fraction = np.ldexp((mask >> np.uint64(64 - FLOAT_BITS)).astype(np.float64), -FLOAT_BITS)
        return np.ldexp(fraction, 64).astype(np.uint64)

    return _every_mask(scaled)


@contextmanager
def skewed_random_bits() -> Iterator[None]:
    """Random bits are the AND of two: 1 in a quarter of the cases."""
    shipped = PairwiseRandomness.draw

    def draw(
        self: PairwiseRandomness, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]
    ) -> RingArray:
        mask = shipped(self, pair, purpose, path, ring, shape)
        return mask & shipped(self, pair, purpose, f"{path}/again", ring, shape) if ring == Z2 else mask

    with replaced_method(PairwiseRandomness, "draw", draw):
        yield


# Masks that are not fresh -----------------------------------------------------------------------------------


class _Redrawn(ServerSession):
    """The same session with other masks for one gate."""

    def __init__(self, session: ServerSession, change: Change) -> None:
        # Shares mailbox, outbox and randomness with the session it stands for.
        self.__dict__.update(vars(session))
        self._change = change

    def draw(self, roles: Any, purpose: str, path: str, ring: Ring, shape: Any, client: bool = False) -> RingArray:
        def fresh(shape: tuple[int, ...]) -> RingArray:
            return super(_Redrawn, self).draw(roles, purpose, path, ring, shape, client)

        return self._change(fresh, ring, shape)


def with_masks(party: Party, change: Change) -> Party:
    """The same party with other masks."""
    assert isinstance(party.channel, ServerSession)  # noqa: S101 - protocols run on nothing else
    return Party(party.role, _Redrawn(party.channel, change), party.path)


@contextmanager
def output_mask_of_an_input() -> Iterator[None]:
    """A product's wire has the t0 of its first factor, x0, which roles 0 and 2 have in common."""

    @wraps(multiply)
    async def leaky(party: Party, x: Share, y: Share, shift: int = 0) -> Share:
        # By their names in the module, so that simulators stand around the inner gates.
        opened = await arithmetic.open_additive(party, product(x, y))
        x0 = x.first if party.role == 0 else x.second
        again = with_masks(party, lambda fresh, ring, shape: np.broadcast_to(x0, shape))
        return await arithmetic.view(again, opened, shift)

    with replaced(multiply, leaky):
        yield


@contextmanager
def one_mask_for_bit_and_value() -> Iterator[None]:
    """beta and beta y_beta are dealt under one d0: their difference is in the clear."""

    def twice(fresh: Fresh, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        mask = fresh(shape[1:])
        return np.stack([mask, mask])

    shipped = bit_product

    @wraps(shipped)
    async def leaky(party: Party, bit: Share, y: Share) -> Additive:
        return await shipped(with_masks(party, twice), bit, y)

    with replaced(bit_product, leaky):
        yield
