"""The protocols on function keys that are enumerated, as those of `siguard.proofsim.instance_gates`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siguard.mpc.arithmetic import multiply, open_additive, remask
from siguard.mpc.compare import ranked, relu, win_counts
from siguard.mpc.cubic import cubic
from siguard.mpc.curves import at_places, piecewise, scaled_steps
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Opened, Share, as_opened
from siguard.mpc.splines import Pieces
from siguard.mpc.thresholds import Way, at_least, bits_at_least
from siguard.proofsim.enumeration import Output
from siguard.proofsim.instance_gates import Wires, column
from siguard.ring import Z2, Ring, RingArray, ring

Z4 = ring(2)


async def relu_of(party: Party, x: Wires) -> Sequence[Output]:
    """`relu` in the ring of its wire."""
    return await relu(party, x[0], bits=x[0].ring.bits)


async def wins(party: Party, x: Wires, by: Way = Way.KEY) -> Opened:
    """`win_counts` in the ring of its wires."""
    return await win_counts(party, column(x), x[0].ring, by)


async def compared(party: Party, x: Wires, thresholds: Sequence[int], target: Ring, by: Way = Way.KEY) -> Output:
    """[x >= t], and times the other wires, for all thresholds: one element after the other."""
    wires = column(x[1:]) if len(x) > 1 else None
    return await at_least(party, as_opened(x[0]), thresholds, wires, target, by=by)


async def compared_and_exchanged(party: Party, x: Wires, by: Way = Way.KEY) -> Share:
    """[x >= 1] and [x >= 1] y in one exchange, as the classifier resolves its ReLUs."""
    terms = await at_least(party, as_opened(x[0]), [1], x[1][..., None], x[1].ring, by=by)
    return await remask(party, terms[..., 0, :])


async def compared_and_low(party: Party, x: Wires) -> Share:
    """[x >= 1] and [x >= 1] (x mod 2) in one exchange: a ReLU, of which the lowest bit is looked at."""
    low = Share(x[0].role, Z2, Z2.convert(x[0].first), Z2.convert(x[0].second), x[0].depth)
    return await compared_and_exchanged(party, [x[0], low])


async def compared_ahead(party: Party, x: Wires, by: Way) -> Output:
    """Bits first, the wire later."""
    compared = as_opened(x[0])
    bits = await bits_at_least(party.at("ahead"), compared, [1], by)
    return await at_least(party, compared, [1], x[1][..., None], x[1].ring, by=by, bits=bits)


async def bits_of(party: Party, x: Wires, thresholds: Sequence[int], by: Way) -> Share:
    """`bits_at_least`."""
    return await bits_at_least(party, as_opened(x[0]), thresholds, by)


async def placed(party: Party, x: Wires, first: int, count: int, target: Ring) -> Output:
    """One-hot of an index in a window, and times the masks of the other wires, which are put right by hand."""
    wires = list(x[1:])

    def payload() -> RingArray:
        one = np.broadcast_to(target.constant(1), x[0].shape)
        return np.stack([one, *(wire.mask() for wire in wires)], axis=-1)

    places = await at_places(party, as_opened(x[0]), first, count, 1 + len(wires), payload, target)
    if party.is_dealer or not wires:
        return places
    public = np.stack([wire.masked() for wire in wires], axis=-1)[:, None]

    def selected(value: RingArray) -> RingArray:
        value[..., 1:] = target.add(value[..., 1:], target.mul(public, value[..., :1]))
        return value

    return places.map(selected)


async def ranked_of(party: Party, x: Wires, ranks: int, wires: bool) -> Output:
    """Places of two counts, and times two values where there are any."""
    values = column(x[2:])[..., None] if wires else None
    return await ranked(party, as_opened(column(x[:2])), ranks, values)


async def cubic_of(party: Party, x: Wires, linear: int) -> Output:
    """`cubic`, before its exchange."""
    return await cubic(party, column(x), linear)


async def cubic_opened(party: Party, x: Wires, linear: int) -> Opened:
    """The cubic step and its exchange."""
    # Its sums are 64-bit words, of which a small ring keeps the low bits.
    terms = await cubic(party.at("cubic"), column(x), linear)
    return await open_additive(party.at("cubic"), terms.map(x[0].ring.convert))


PIECES = Pieces((0, 1), np.array([1, 0, 3]), np.array([0, 1, 2]))


async def piecewise_of(party: Party, x: Wires) -> Output:
    """`piecewise` of a value that is compared as it is."""
    return await piecewise(party, x[0], as_opened(x[0]), PIECES)


STEPS = np.array([[0, 1, 0], [1, 1, 0]])


async def steps_of(party: Party, x: Wires) -> Output:
    """Two step functions of one argument times two values."""
    return await scaled_steps(party, as_opened(x[0])[:, None], np.array([0, 1]), STEPS, column(x[1:])[:, None])


# --- gates in sequence ----------------------------------------------------------------------------------


async def places_of_product(party: Party, x: Wires) -> Output:
    """A point-function key on a product that was only opened: nothing is dealt between."""
    index = await open_additive(party.at("product"), product(x[0], x[1]))
    return await at_places(party.at("places"), index, 0, 2, target=Z2)


async def places_times_wire(party: Party, x: Wires) -> Share:
    """A place of an index, then its product with another wire."""
    places = await at_places(party.at("places"), as_opened(x[0]), 1, 1, target=Z2)
    return await multiply(party.at("product"), await remask(party.at("places"), places[:, 0, 0]), x[1])


async def compared_product(party: Party, x: Wires) -> Output:
    """The sign of a product that was only opened."""
    opened = await open_additive(party.at("product"), product(x[0], x[1]))
    return (await at_least(party.at("sign"), opened, [0], target=Z2))[..., 0, 0]


async def bit_times_wire(party: Party, x: Wires) -> Share:
    """A comparison, then the product of its bit with the wire: two uses of one mask."""
    terms = await at_least(party.at("compare"), as_opened(x[0]), [0], target=x[1].ring)
    bit = await remask(party.at("compare"), terms[..., 0, 0])
    return await multiply(party.at("product"), bit, x[1])


async def compared_twice(party: Party, x: Wires) -> list[Output]:
    """Two keys, of two wires; of one wire and its double where there is one only."""
    x = x if len(x) > 1 else [x[0], x[0] * 2]
    one = await at_least(party.at("one"), as_opened(x[0]), [0], target=Z2)
    other = await at_least(party.at("other"), as_opened(x[1]), [0], target=Z2)
    return [one[..., 0, 0], other[..., 0, 0]]
