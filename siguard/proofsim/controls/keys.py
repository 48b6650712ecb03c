"""Leaks of function keys and tables: roots that others know or that serve twice, points and digits that tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from math import prod
from typing import Any

import numpy as np

from siguard.mpc import curves, keyed
from siguard.mpc.arithmetic import remask
from siguard.mpc.curves import at_places
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.mpc.tabled import tabled_exponential
from siguard.mpc.thresholds import Way, bits_at_least
from siguard.proofsim.controls.addresses import at_address
from siguard.proofsim.controls.masks import Fresh, drawn_for, with_masks
from siguard.proofsim.controls.openings import tell_servers
from siguard.proofsim.patching import replaced
from siguard.ring import Z64, BooleanRing, Ring, RingArray


def corrections_not_masked() -> AbstractContextManager[None]:
    """Role 0's root is 0: role 1 can expand both keys, and takes its own off the corrections."""

    def changed(fresh: Fresh, roles: tuple[int, int], ring: Ring, shape: tuple[int, ...]) -> RingArray:
        return ring.zeros(*shape) if roles == (0, 2) else fresh(shape)

    return drawn_for("root", changed)


def one_root_for_all_keys() -> AbstractContextManager[None]:
    """All keys of one call have one root: their corrections differ where, and only where, their alphas do."""

    def changed(fresh: Fresh, roles: tuple[int, int], ring: Ring, shape: tuple[int, ...]) -> RingArray:
        if len(shape) != 2:  # a truth table, which has no root
            return fresh(shape)
        return np.repeat(fresh((1, shape[1])), shape[0], axis=0)

    return drawn_for("root", changed)


def root_in_two_steps() -> AbstractContextManager[None]:
    """The step is not part of a root's address: the share of a truth table serves two of them."""
    return at_address(lambda randomness, pair, purpose, path: (purpose, "" if purpose == "root" else path))


@contextmanager
def one_mask_for_value_and_bit() -> Iterator[None]:
    """A ReLU and its bit, exchanged together, go out under one mask."""
    shipped = remask

    def twice(fresh: Fresh, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        return np.repeat(fresh(shape[:-1])[..., None], shape[-1], axis=-1)

    @wraps(shipped)
    async def leaky(party: Party, x: Additive) -> Share:
        both = len(x.shape) > 1 and x.shape[-1] == 2 and not isinstance(x.ring, BooleanRing)
        return await shipped(with_masks(party, twice) if both else party, x)

    with replaced(shipped, leaky):
        yield


@contextmanager
def threshold_bit_opened() -> Iterator[None]:
    """The servers are told on which side of a threshold a value lies."""
    shipped = bits_at_least

    @wraps(shipped)
    async def leaky(party: Party, x: Opened, thresholds: Sequence[int], by: Way) -> Share:
        bits = await shipped(party, x, thresholds, by)
        await tell_servers(party.at("told"), bits)
        return bits

    with replaced(shipped, leaky):
        yield


@contextmanager
def window_begins_at_the_index() -> Iterator[None]:
    """Of a window only the one leaf that is not 0 is expanded: roles 0 and 1 are told which."""
    shipped = at_places

    @wraps(shipped)
    async def leaky(
        party: Party,
        index: Opened,
        first: int,
        count: int,
        words: int = 1,
        payload: Callable[[], RingArray] | None = None,
        target: Ring | None = None,
    ) -> Additive:
        ring: Ring = vars(curves)["Z64"] if target is None else target
        elements, step = prod(index.shape), party.at("leaf")
        if party.is_dealer:
            alpha, depth = index.mask().reshape(-1), index.depth
            for role in (0, 1):
                await party.channel.send(role, step.path, depth + 1, alpha)
        else:
            alpha, depth = await party.channel.receive(2, step.path, index.ring, (elements,), index.depth)

        def secrets() -> tuple[RingArray, RingArray]:
            known = np.broadcast_to(ring.constant(1), (elements, words)) if payload is None else payload()
            return alpha, known.reshape(elements, words)

        leaf = await keyed.window(
            party.at("key"), ring, (elements, 1, words), index.ring.bits, secrets, lambda: alpha, depth
        )
        if party.is_dealer:
            return Additive(2, ring, ring.zeros(*index.shape, count, words), depth, dealer_part=False)
        found: Any = index.ring.add(index.masked().reshape(-1), alpha)
        places = index.ring.sub(found, index.ring.constant(first)).astype(np.int64)
        there = places[:, None] == np.arange(count)
        value = ring.mul(ring.constant(there)[..., None], leaf.value)
        return Additive(party.role, ring, value.reshape(*index.shape, count, words), leaf.depth, dealer_part=False)

    with replaced(shipped, leaky):
        yield


@contextmanager
def digit_of_a_mask_told() -> Iterator[None]:
    """Role 1 learns the upper bits of the mask under which an exponential's index is public."""
    shipped = tabled_exponential

    @wraps(shipped)
    async def leaky(party: Party, x: Share, index_bits: int) -> Share:
        step = party.at("digit").path
        if party.is_dealer:
            await party.channel.send(1, step, x.depth + 1, Z64.shift_right(x.mask(), ARGUMENT_BITS + 1))
        elif party.role == 1:
            await party.channel.receive(2, step, Z64, x.shape, x.depth)
        return await shipped(party, x, index_bits)

    with replaced(shipped, leaky):
        yield
