"""The membership classifier h in few exchanges: two for each layer, and its gradient through the softmax beside.

h is piecewise linear, so for a factor S > 0 its value at q S, with biases multiplied by S, is S h(q): signs and
ReLU masks are those of h(q), and nothing is ever divided.  The first bias is folded into the first matrix
(sum q = 1).  E holds q S: exp(x_i), and 1 for the label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log2

from siguard.guard.defender import FOLDED_BITS, GROWTH_BITS, WEIGHT_BITS, SharedDefender, can_be_folded
from siguard.guard.plan import Plan
from siguard.mpc.arithmetic import (
    deal_cost,
    exchange_cost,
    matmul,
    multiply,
    open_additive,
    open_matmul,
    product_cost,
    remask,
    view,
)
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_multiply, bit_multiply_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product, product
from siguard.mpc.share import Additive, Opened, Share
from siguard.mpc.thresholds import Way, at_least, at_least_cost, bits_at_least, bits_cost
from siguard.ring import FRACTION_BITS, Z64, Ring, ring

#: Fraction bits at which layers are opened, and at which the signs inside h are taken.
OPENED_BITS = FRACTION_BITS + WEIGHT_BITS
SIGN_FRACTION_BITS = 12


def sign_ring_bits(magnitude_bits: int, classes: int) -> int:
    """Bits of the ring in which the sign of a layer is taken: its bound, times S up to 4 C."""
    return 1 + magnitude_bits + ceil(log2(classes)) + GROWTH_BITS + SIGN_FRACTION_BITS


@dataclass
class Logit:
    """S h, opened, (..., rows); and where not by key its bit [h > 0], (..., rows, 1)."""

    opened: Opened
    positive: Share | None


class Classifier:
    """h at one server, computed as a plan says."""

    def __init__(self, defender: SharedDefender, plan: Plan) -> None:
        self.defender = defender
        self.plan = plan
        self.folded = plan.folded and bool(defender.folded)
        self._last = len(defender.hidden) - 1

    def sign_ring(self, layer: int) -> Ring:
        """Public ring in which the sign of an opened layer is taken."""
        return ring(sign_ring_bits(self.defender.magnitude_bits[layer], self.defender.classes))

    def sign_of(self, logit: Opened) -> Opened:
        """An opened S h in the ring of its sign."""
        return logit.reduce(OPENED_BITS - SIGN_FRACTION_BITS, self.sign_ring(self._last + 1))

    async def logit(self, party: Party, E: Share, S: Share) -> Opened:
        """S h at `OPENED_BITS`, opened, (..., rows), from E (..., rows, C) and S (..., rows, 1) at 16 bits.

        Rounds: 2 for each hidden layer with keys, and 1.
        """
        opened = await open_matmul(party.at("layer", 0), E, self.defender.matrices[0])
        return await self.logit_after(party, opened, S, WEIGHT_BITS)

    async def logit_after(self, party: Party, opened: Opened, S: Share, scale_bits: int) -> Opened:
        """`logit` from its first layer, opened at 16 + ``scale_bits`` bits."""
        value = (await self._active(party.at("layer", 0), 0, opened, scale_bits, [], bits=False))[0][..., 0]
        for layer in range(1, self._last + 1):
            joined = Share.concatenate([value, S], axis=-1)
            value = (await self._layer(party.at("layer", layer), layer, joined, [], bits=False))[0][..., 0]
        joined = Share.concatenate([value, S], axis=-1)
        return (await open_matmul(party.at("logit"), joined, self.defender.matrices[-1]))[..., 0]

    async def _layer(
        self, party: Party, layer: int, value: Share, more: list[Share], *, bits: bool
    ) -> tuple[Share, Share | None]:
        """A layer's matrix, then `_active`."""
        opened = await open_matmul(party, value, self.defender.matrices[layer])
        return await self._active(party, layer, opened, WEIGHT_BITS, more, bits=bits)

    async def _active(
        self, party: Party, layer: int, opened: Opened, scale_bits: int, more: list[Share], *, bits: bool
    ) -> tuple[Share, Share | None]:
        """ReLU of an opened layer, (..., width, words): its bit [x > 0] if asked for, value, bit times ``more``.

        And the bit as a bit, (..., width), where it is found as one.
        """
        y = await view(party.at("value"), opened, scale_bits)
        wires = Share.concatenate(
            [wire[..., None] for wire in (y, *(m.broadcast(*y.shape) for m in more))], axis=-1
        )
        compared = opened.reduce(FRACTION_BITS + scale_bits - SIGN_FRACTION_BITS, self.sign_ring(layer))
        by, step = self.plan.hidden, party.at("relu")
        found = None if by is Way.KEY else await bits_at_least(step, compared, [1], by)
        active = (await at_least(step, compared, [1], wires, by=by, bits=found))[..., 0, :]
        result = await remask(step, active if bits else active[..., 1:])
        return result, None if found is None else found[..., 0]

    async def with_gradient(
        self, party: Party, E: Share, S: Share, w: Share, gradient_bits: int
    ) -> tuple[Logit, Share]:
        """S h as `logit`, and w_i (S v_i - <v, E>) for the gradient v of h at ``gradient_bits``.

        w: positive weights (..., rows, C) at 16 bits, proportional to E but 0 at the label.
        Folded, for two hidden layers: N_ik = sum_j b1_j W1_ij W2_jk w3_k and n_k = sum_j y1_j W2_jk w3_k give
        sum_k Q_ik b2_k, Q_ik = w_i S N_ik - w_i n_k (Euler: <v, E> is the linear part of S h), which is opened
        together with S h.  Else the weights are applied layer by layer: 3 rounds after the last ReLU, and 2 more
        for each hidden layer but the first.
        """
        if self.folded:
            return await self._with_folded(party, E, S, w, gradient_bits)
        return await self._with_layered(party, E, S, w, gradient_bits)

    async def _with_folded(
        self, party: Party, E: Share, S: Share, w: Share, gradient_bits: int
    ) -> tuple[Logit, Share]:
        through, onward = self.defender.folded
        classes, width = self.defender.classes, self.defender.hidden[1]

        async def weigh() -> Share:
            opened = await open_additive(party.at("weights"), product(w, S))
            return await view(party.at("weights"), opened, FRACTION_BITS)

        (active, _), wS = await side_by_side(lambda: self._layer(party.at("layer", 0), 0, E, [], bits=True), weigh)
        b1, y1 = active[..., 0], active[..., 1]

        async def second() -> tuple[Share, Share | None]:
            joined = Share.concatenate([y1, S], axis=-1)
            return await self._layer(party.at("layer", 1), 1, joined, [], bits=True)

        async def folded() -> Share:
            N, n = await side_by_side(
                lambda: matmul(party.at("folded"), b1, through),
                lambda: matmul(party.at("onward"), y1, onward, FRACTION_BITS),
            )
            N = N.reshape(*N.shape[:-1], classes, width)
            terms = product(wS[..., None], N) - product(w[..., None], n.reshape(*n.shape[:-1], 1, width))
            return await view(party.at("Q"), await open_additive(party.at("Q"), terms), FRACTION_BITS)

        (active, _), Q = await side_by_side(second, folded)
        b2, y2 = active[..., 0], active[..., 1]

        async def gradient() -> Share:
            terms = dot_product(Q, b2.reshape(*b2.shape[:-1], 1, width))[..., 0]
            opened = await open_additive(party.at("gradient"), terms)
            return await view(party.at("gradient"), opened, FOLDED_BITS - gradient_bits)

        joined = Share.concatenate([y2, S], axis=-1)
        return tuple(await side_by_side(lambda: self._signed(party, joined), gradient))

    async def _with_layered(
        self, party: Party, E: Share, S: Share, w: Share, gradient_bits: int
    ) -> tuple[Logit, Share]:
        defender, last = self.defender, self._last
        masks: list[Share] = []
        layer_input = E
        for layer in range(last):
            by_bit = self.plan.hidden is not Way.KEY
            active, bit = await self._layer(party.at("layer", layer), layer, layer_input, [], bits=not by_bit)
            masks.append(active[..., 0] if bit is None else bit)
            layer_input = Share.concatenate([active[..., -1], S], axis=-1)
        column = defender.matrices[-1][:-1, 0]
        active, _ = await self._layer(party.at("layer", last), last, layer_input, [column], bits=False)
        layer_input = Share.concatenate([active[..., 0], S], axis=-1)
        weighted = active[..., 1]

        async def gradient() -> Share:
            v = weighted
            for layer in range(last, 0, -1):
                step = party.at("back", layer)
                v = await matmul(step, v, defender.transposed[layer], WEIGHT_BITS)
                times = multiply if self.plan.hidden is Way.KEY else bit_multiply
                v = await times(step.at("mask"), masks[layer - 1], v)
            v = await matmul(party.at("back", 0), v, defender.transposed[0], WEIGHT_BITS)
            centred: Additive = product(S, v) - dot_product(E, v)
            step = party.at("centre")
            inner = await view(step, await open_additive(step, centred), WEIGHT_BITS)
            step = party.at("gradient")
            return await view(step, await open_additive(step, product(w, inner)), 2 * FRACTION_BITS - gradient_bits)

        return tuple(await side_by_side(lambda: self._signed(party, layer_input), gradient))

    async def _signed(self, party: Party, last_input: Share) -> Logit:
        """The last layer; where not by key its sign too, beside the gradient."""
        opened = (await open_matmul(party.at("logit"), last_input, self.defender.matrices[-1]))[..., 0]
        if self.plan.direct is Way.KEY:
            return Logit(opened, None)
        return Logit(opened, await bits_at_least(party.at("sign"), self.sign_of(opened), [1], self.plan.direct))


# --- declared cost ----------------------------------------------------------------------------------------


def _layer_cost(rows: int, width: int, ring_bits: int, more: int, by: Way, *, bits: bool) -> Cost:
    n = rows * width
    return (
        exchange_cost(n, 8)
        + deal_cost(n, 8)
        + at_least_cost(n, ring_bits, 1, 1 + more, Z64, by)
        + exchange_cost(n * (1 + more + bits), 8)
    )


def classifier_cost(rows: int, shape: Sequence[int], magnitude_bits: Sequence[int], plan: Plan) -> Cost:
    """Declared frames and bytes of `Classifier.logit`; shape: widths of h from C to 1."""
    total = exchange_cost(rows, 8)
    for layer, width in enumerate(shape[1:-1]):
        ring_bits = sign_ring_bits(magnitude_bits[layer], shape[0])
        total += _layer_cost(rows, width, ring_bits, 0, plan.hidden, bits=False)
    return total


def gradient_cost(rows: int, shape: Sequence[int], magnitude_bits: Sequence[int], plan: Plan) -> Cost:
    """Declared frames and bytes of `Classifier.with_gradient`; it and `logit` wait as `schedule_rounds` says."""
    n, by = rows * shape[0], plan.hidden
    rings = [sign_ring_bits(bits, shape[0]) for bits in magnitude_bits]
    # Where not by key the sign of h is taken here, beside the gradient.
    final = sign_ring_bits(magnitude_bits[-1], shape[0])
    sign = Cost() if plan.direct is Way.KEY else bits_cost(rows, final, 1, plan.direct)
    logit = exchange_cost(rows, 8) + sign
    if plan.folded and can_be_folded(shape):
        first, second = (_layer_cost(rows, shape[layer + 1], rings[layer], 0, by, bits=True) for layer in range(2))
        wide = n * shape[2]
        folded = product_cost(wide, 8) * 2 + product_cost(rows * shape[2], 8)
        return first + second + folded + logit + product_cost(n, 8) * 2
    last = len(shape) - 3
    total = Cost()
    for layer, width in enumerate(shape[1:-1]):
        bits = layer < last and by is Way.KEY
        total += _layer_cost(rows, width, rings[layer], int(layer == last), by, bits=bits)
    back = product_cost(n, 8) * 3
    masked = product_cost if by is Way.KEY else bit_multiply_cost
    for width in shape[1:-2]:
        back += product_cost(rows * width, 8) + masked(rows * width, 8)
    return total + logit + back
