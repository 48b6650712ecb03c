"""Sign, ReLU, argmax by counting: the comparisons that protocols are written with, on `siguard.mpc.thresholds`."""

from __future__ import annotations

import numpy as np

from siguard.mpc.arithmetic import exchange_cost, open_additive, remask
from siguard.mpc.curves import at_places, at_places_cost, plus_public
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_opened
from siguard.mpc.thresholds import Way, at_least, at_least_cost
from siguard.ring import Z64, Ring, RingArray, ring


def relu_cost(elements: int, bits: int, by: Way = Way.KEY) -> Cost:
    """A comparison with one wire, one exchange of both results."""
    return at_least_cost(elements, bits, 1, 1, Z64, by) + exchange_cost(2 * elements, 8)


@gate(cost=relu_cost, simulator=composed)
async def relu(party: Party, x: Share, bits: int = 32, shift: int = 0, by: Way = Way.KEY) -> tuple[Share, Share]:
    """max(x, 0) and its derivative bit [x > 0], both as wires of Z_2^64.

    The sign is taken of x / 2^shift in the ring of ``bits`` bits: exact while |x| < 2^(bits - 1 + shift), up to
    the rounding of the shift (an x within 2^shift of 0 may get the other bit; then |error| <= 2^shift).
    Cost: 1 round with keys.  Source: gates.md, 5a.
    """
    compared = as_opened(x).reduce(shift, ring(bits))
    terms = await at_least(party, compared, [1], x[..., None], by=by)
    both = await remask(party, terms[..., 0, :])
    return both[..., 1], both[..., 0]


# --- argmax by counting -----------------------------------------------------------------------------------


def count_ring(classes: int) -> Ring:
    """Smallest ring that holds the win counts 0 .. classes - 1."""
    return ring(max(1, (classes - 1).bit_length()))


def sums_ring(classes: int) -> Ring:
    """Ring of whole machine words that holds win counts."""
    return ring(8 if classes <= 256 else 16)


def win_counts_cost(rows: int, classes: int, bits: int, by: Way = Way.KEY) -> Cost:
    """All pairs at once, then one exchange of counts."""
    pairs = rows * classes * (classes - 1) // 2
    counts = exchange_cost(rows * classes, count_ring(classes).itemsize)
    return at_least_cost(pairs, bits, 1, 0, sums_ring(classes), by) + counts


@gate(cost=win_counts_cost, simulator=composed)
async def win_counts(party: Party, x: Share, compare: Ring, by: Way = Way.KEY, shift: int = 0) -> Opened:
    """How many other entries each entry of the last axis beats, in `count_ring`, opened.

    Entry i beats j > i when x_i >= x_j, and j beats i otherwise: ties go to the lower index, the counts are a
    permutation of 0 .. C - 1, the argmax is the one with C - 1.
    x: (..., C).  Differences are compared without ``shift`` bits in the ring ``compare``, which must hold them;
    exact for shift 0.  Cost: 1 round with keys.  Source: gates.md, 7.
    """
    classes = x.shape[-1]
    counts, wide = count_ring(classes), sums_ring(classes)
    lower, upper = np.triu_indices(classes, 1)
    differences = as_opened(x[..., lower] - x[..., upper]).reduce(shift, compare)
    beats = (await at_least(party.at("pairs"), differences, [0], target=wide, by=by))[..., 0, 0]
    # Entry i gets b for each pair (i, j), and entry j gets 1 - b.
    incidence = np.zeros((len(lower), classes), np.int64)
    incidence[range(len(lower)), lower] = 1
    incidence[range(len(upper)), upper] = -1
    weights = wide.constant(incidence)
    total = beats.map(lambda value: wide.matmul(value.reshape(-1, len(lower)), weights).reshape(x.shape))
    return await open_additive(party.at("counts"), into(plus_public(total, np.arange(classes)), counts))


def into(terms: Additive, smaller: Ring) -> Additive:
    """An additive sharing reduced into a smaller ring.  Local."""
    value = smaller.convert(terms.value)
    return Additive(terms.role, smaller, value, terms.depth, dealer_part=terms.dealer_part)


def ranked_cost(rows: int, classes: int, ranks: int, wires: int) -> Cost:
    """A point-function key for each count."""
    return at_places_cost(rows * classes, count_ring(classes).bits, 1 + wires, Z64, ranks)


@gate(cost=ranked_cost, simulator=composed)
async def ranked(party: Party, counts: Opened, ranks: int, wires: Share | None = None) -> Additive:
    """One-hot vectors of the largest entry, the second, ..., and times wires: (*counts.shape, ranks, 1 + wires).

    counts: of `win_counts`.  wires: (*counts.shape, wires).  Additive, before any exchange.  Exact.
    Cost: 0 rounds, a key for each count, however many ranks.  Source: gates.md, 7.
    """
    classes = counts.shape[-1]
    words = 1 if wires is None else 1 + wires.shape[-1]

    def payload() -> RingArray:
        one = np.broadcast_to(Z64.constant(1), (*counts.shape, 1))
        return one if wires is None else np.concatenate([one, wires.mask()], axis=-1)

    places = await at_places(party, counts, classes - ranks, ranks, words, payload)
    # The largest count stands last in the window.
    places = places.map(lambda value: value[..., ::-1, :])
    if wires is None or party.is_dealer:
        return places
    public = wires.masked()[..., None, :]

    def selected(value: RingArray) -> RingArray:
        hot = value[..., :1]
        return np.concatenate([hot, Z64.add(Z64.mul(hot, public), value[..., 1:])], axis=-1)

    return places.map(selected)
