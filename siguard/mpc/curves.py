"""Functions of a secret, before any exchange: exponential, piecewise linear, scaled steps.

With one key each; the last two by adders too (`Way`), and the exponential by tables (`siguard.mpc.tabled`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import numpy.typing as npt

from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.keyed import signed_window, window, window_cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_opened
from siguard.mpc.splines import ARGUMENT_BITS, CELL_BITS, EXP_WINDOW, Pieces, exponential_cells
from siguard.mpc.thresholds import Way, at_least, at_least_cost
from siguard.ring import Z64, Ring, RingArray, ring


def at_places_cost(elements: int, bits: int, words: int, target: Ring, count: int = 1) -> Cost:
    """A point-function key for each index."""
    return window_cost(elements, bits, words, target, count)


@gate(cost=at_places_cost, simulator=composed)
async def at_places(
    party: Party,
    index: Opened,
    first: int,
    count: int,
    words: int = 1,
    payload: Callable[[], RingArray] | None = None,
    target: Ring = Z64,
) -> Additive:
    """[index = first + m] payload for m = 0 .. count - 1: (*index.shape, count, words), additive.

    index: signed or unsigned values of Z_2^t, any shape.  payload: at role 2, (*index.shape, words) of ``target``;
    1 when left out.  Exact.  Cost: 0 rounds, a key for each index.  Source: gates.md, 6 and 7.
    """
    elements = prod(index.shape)

    def secrets() -> tuple[RingArray, RingArray]:
        known = np.broadcast_to(target.constant(1), (elements, words)) if payload is None else payload()
        return index.mask().reshape(-1), known.reshape(elements, words)

    def start() -> RingArray:
        return signed_window(index.ring, first, index.masked().reshape(-1))

    shape = (elements, count, words)
    places = await window(party.at("key"), target, shape, index.ring.bits, secrets, start, index.depth)
    return places.reshape(*index.shape, count, words)


# --- exponential ------------------------------------------------------------------------------------------


def exponential_cost(elements: int, index_bits: int, below: int = EXP_WINDOW[1]) -> Cost:
    """A key with three words for each argument."""
    return at_places_cost(elements, index_bits, 3, Z64, len(exponential_cells(below)[1]))


@gate(cost=exponential_cost, simulator=composed)
async def exponential(party: Party, x: Share, index_bits: int, below: int = EXP_WINDOW[1]) -> Additive:
    """e^x at `EXP_BITS`, additive, x at `ARGUMENT_BITS`.

    The index floor(8 x) or one more, in Z_2^index_bits, chooses a quadratic T0 + T1 x + T2 x^2; with x = a + alpha
    it is linear in the key's payload (1, alpha, alpha^2).
    Range: |8 x| < 2^(index_bits - 1).  |error| <= 1.0e-4 e^x + 1.0e-5 for -12 <= x < 6; from -12.125 to -12 it is
    e^x or 0, below 0; from 6 to 6.125 e^x or 0, above 0.  x = 0 gives exactly 1.
    below: in place of 6, where x is known to be less; fewer cells are evaluated.
    Cost: 0 rounds, a key for each argument.  Source: gates.md, 6; the spline is `exponential_cells`.
    """
    first, cells = exponential_cells(below)
    count = len(cells)
    index = as_opened(x).reduce(ARGUMENT_BITS - CELL_BITS, ring(index_bits))

    def payload() -> RingArray:
        alpha = x.mask()
        return np.stack([np.broadcast_to(Z64.constant(1), alpha.shape), alpha, Z64.mul(alpha, alpha)], axis=-1)

    places = await at_places(party, index, first, count, 3, payload)
    if party.is_dealer:
        return Additive(2, Z64, Z64.zeros(*x.shape), places.depth, dealer_part=False)

    def combine() -> RingArray:
        a = x.masked()
        flat = places.value.reshape(prod(x.shape), count, 3)
        by_one, by_alpha, by_square = (np.ascontiguousarray(flat[..., word]) @ cells[:, word:] for word in range(3))
        T0, T1, T2 = (by_one[:, k].reshape(x.shape) for k in range(3))
        linear, mixed = (by_alpha[:, k].reshape(x.shape) for k in range(2))
        constant = T0 + linear + by_square[:, 0].reshape(x.shape)
        total: RingArray = constant + a * (T1 + mixed + mixed + a * T2)
        return total

    value = await party.compute(combine, prod(x.shape) * count * 8)
    return Additive(party.role, Z64, value, max(x.depth, places.depth), dealer_part=False)


# --- piecewise linear -------------------------------------------------------------------------------------


def piecewise_cost(elements: int, bits: int, pieces: int, by: Way = Way.KEY) -> Cost:
    """A comparison with every threshold and one wire."""
    return at_least_cost(elements, bits, pieces - 1, 1, Z64, by)


@gate(cost=piecewise_cost, simulator=composed)
async def piecewise(party: Party, x: Share, compared: Opened, pieces: Pieces, by: Way = Way.KEY) -> Additive:
    """The piecewise linear function of x, additive, of x's shape.

    compared: x at the scale of the thresholds, in a ring that holds x - thresholds.  Exact but for the rounding of
    ``compared``.  Cost: that of `at_least`, a key for each argument or an adder for each threshold.
    """
    bits = await at_least(party, compared, pieces.thresholds, x[..., None], by=by)
    if party.is_dealer:
        return Additive(2, Z64, Z64.zeros(*x.shape), bits.depth, dealer_part=False)
    jumps = np.stack([Z64.constant(np.diff(pieces.constants)), Z64.constant(np.diff(pieces.slopes))], axis=1)
    value = (bits.value * jumps).sum((-1, -2), dtype=np.uint64)
    terms = Additive(party.role, Z64, value, bits.depth, dealer_part=False)
    return plus_public(terms, int(pieces.constants[0]))


def plus_public(terms: Additive, constant: npt.ArrayLike) -> Additive:
    """An additive sharing plus a public array of integers."""
    if terms.role != 1:
        return terms
    return terms.map(lambda value: terms.ring.add(value, terms.ring.constant(constant)))


# --- steps that scale -------------------------------------------------------------------------------------


def scaled_steps_cost(elements: int, bits: int, thresholds: int, wires: int, by: Way = Way.KEY) -> Cost:
    """A comparison with every threshold, for all wires."""
    return at_least_cost(elements, bits, thresholds, wires, Z64, by)


@gate(cost=scaled_steps_cost, simulator=composed)
async def scaled_steps(
    party: Party,
    x: Opened,
    thresholds: npt.NDArray[np.int64],
    values: npt.NDArray[np.int64],
    wires: Share,
    by: Way = Way.KEY,
) -> Additive:
    """s(x) y_j for a public step function s and wires y_j, additive.

    x: (..., lanes or 1).  wires: (*x.shape, n).  values: (lanes, thresholds + 1), a step function for each
    lane.  Result: (..., lanes, n).  Exact while x - thresholds stays inside the ring of x.
    Cost: that of `at_least`, as for `piecewise`.
    """
    bits = await at_least(party, x, [int(t) for t in thresholds], wires, by=by)
    lanes, n = values.shape[0], wires.shape[-1]
    shape = (*x.shape[:-1], lanes, n)
    if party.is_dealer:
        return Additive(2, Z64, Z64.zeros(*shape), bits.depth, dealer_part=False)
    jumps = Z64.constant(np.diff(values, axis=1))
    total = np.matmul(jumps[:, None, :], bits.value[..., 1:])[..., 0, :]
    own = Additive(party.role, Z64, total, bits.depth, dealer_part=False)
    first = wires * Z64.constant(values[:, :1])
    part = first.masked() if party.role == 1 else Z64.zeros(*shape)
    return own.map(lambda value: Z64.add(value, Z64.add(part, first.mask_part())))
