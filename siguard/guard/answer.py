"""Secure noise validation and the oblivious choice among all lanes, in eight exchanges, the reveal included.

Source: SIGuard (NDSS 2025), section on noise validation.  What is validated is what is released: the label and
the sign of h are taken of the very exponentials that the answer is selected from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.guard.choice import choose
from siguard.guard.classifier import Classifier
from siguard.guard.iteration import FirstStep, exponentials
from siguard.guard.lanes import Lane
from siguard.guard.plan import Plan
from siguard.guard.step_ranges import Reach
from siguard.mpc.arithmetic import multiply, open_additive, remask
from siguard.mpc.compare import into
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_product
from siguard.mpc.curves import at_places
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_additive, as_opened
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.mpc.thresholds import at_least
from siguard.ring import FRACTION_BITS, Z2, Z64, Ring, RingArray, ring

#: The label's entry of a released answer is 1 + 2^-12, every other one is validated to be at most 1 + 2^-13.
LABEL_MARGIN = 1 << (FRACTION_BITS - 12)
_TIE = 1 << (FRACTION_BITS - 13)
#: Ring of bits that are weighted by powers of 2, and of counts.
BITS = ring(8)
COUNTS = ring(16)
#: Lanes whose accept bits index a table: three outer runs.
TABLE_LANES = 6


async def validated(
    party: Party, first: FirstStep, x: Share, label: Share, classifier: Classifier, reach: Reach
) -> tuple[Share, Additive]:
    """E of every lane, (batch, lanes, C) at 16 bits; and its accept bit, (batch, lanes), additive in `BITS`.

    Rounds: 6 with keys and two hidden layers.
    """
    batch, _, classes = x.shape
    others = await exponentials(party.at("candidates"), x, reach.index_bits, classifier.plan.curves)
    E = others + label.reshape(batch, 1, classes) * (1 << FRACTION_BITS)

    async def conditions() -> Share:
        kept, signs = await side_by_side(
            lambda: label_kept(party.at("kept"), x, others, reach, classifier.plan, BITS),
            lambda: own_signs(party.at("own"), first.logit.opened, classifier),
        )
        return Share.concatenate([kept[None], await multiply(party.at("sides"), kept, signs)])

    logit, bits = await side_by_side(lambda: classifier.logit(party.at("h"), E, E.sum(-1)[..., None]), conditions)
    return E, await _accepted(party.at("accepted"), classifier.sign_of(logit), bits, classifier.plan)


async def chosen_answer(
    party: Party,
    first: FirstStep,
    x: Share,
    label: Share,
    classifier: Classifier,
    lanes: Sequence[Lane],
    reach: Reach,
) -> Additive:
    """E of the chosen lane, or the undefended one where none was accepted: (batch, C) at 16 bits, additive.

    1 + 2^-12 at the label.  Rounds: 7 with keys and up to three outer runs; the reveal is the eighth.
    """
    E, ok = await validated(party, first, x, label, classifier, reach)
    gains = E - first.E
    if len(lanes) <= TABLE_LANES:
        gain = await _from_table(party.at("choice"), ok, gains, lanes)
    else:
        accepted = await remask(party.at("accepted"), into(ok, Z2))
        chosen = await choose(party.at("choice"), accepted, lanes, max(lane.run for lane in lanes) + 1)
        party.observe("chosen", chosen)
        gain = (await bit_product(party.at("answer"), chosen[:, :, None], gains)).sum(1)
    return gain + (first.E[:, 0] + label * LABEL_MARGIN)


async def label_kept(party: Party, x: Share, others: Share, reach: Reach, plan: Plan, target: Ring) -> Share:
    """The bit that 0 <= E_i <= 1 + 2^-13 and x_i <= 0 for all classes, (batch, lanes) in ``target``.

    E in the full ring, so that it holds for every value that E could take: whatever was lost on the way here (a
    wrap in the optimisation), nothing passes that is not an answer with this label.  2 rounds with keys.
    """
    classes = x.shape[-1]
    one = 1 << FRACTION_BITS
    inside = await at_least(
        party.at("range"), as_opened(others), [0, one + _TIE + 1], target=COUNTS, by=plan.beside
    )
    ahead = await at_least(
        party.at("ahead"), as_opened(x).reduce(0, reach.ring(ARGUMENT_BITS)), [1], target=COUNTS, by=plan.beside
    )
    kept = (inside[..., 0, 0] - inside[..., 1, 0] - ahead[..., 0, 0]).sum(-1)
    count = await open_additive(party.at("count"), into(kept, kept_ring(classes)))
    places = await at_places(party.at("all"), count, classes, 1, target=target)
    return await remask(party.at("all"), places[..., 0, 0])


def kept_ring(classes: int) -> Ring:
    """Ring in which a count from -2 C to C is compared with C."""
    return ring((3 * classes).bit_length())


async def own_signs(party: Party, logit: Opened, classifier: Classifier) -> Share:
    """[h0 > 0] and [h0 < 0] of the undefended answer: (2, batch, 1) in `BITS`.  1 round with keys."""
    bits = await at_least(party, classifier.sign_of(logit), [1, 0], target=BITS, by=classifier.plan.beside)
    signs = await remask(party, Additive.concatenate([bits[..., 0, 0][None], bits[..., 1, 0][None]]))
    return Share.concatenate([signs[:1], 1 - signs[1:]])


async def _accepted(party: Party, logit: Opened, conditions: Share, plan: Plan) -> Additive:
    """kept (1 - [h0 > 0] [h > 0] - [h0 < 0] [h < 0]), additive in `BITS`, (batch, lanes).

    conditions: kept, and kept times each of h0's signs: (3, batch, lanes).  0 rounds with keys.
    """
    kept, positive, negative = conditions[0], conditions[1], conditions[2]
    wires = Share.concatenate([positive[..., None], negative[..., None]], axis=-1)
    same = await at_least(party, logit, [1, 0], wires, BITS, by=plan.direct)
    return as_additive(kept - negative) - same[..., 0, 1] + same[..., 1, 2]


@lru_cache(maxsize=8)
def choice_table(lanes: tuple[Lane, ...]) -> npt.NDArray[np.int64]:
    """Row v: one-hot of the lane whose noise is used when lane j is accepted for the set bits j of v; (2^L, L)."""
    index = {(lane.run, lane.accepted): position for position, lane in enumerate(lanes)}
    table = np.zeros((1 << len(lanes), len(lanes)), np.int64)
    for value, row in enumerate(table):
        accepted = 0
        best = None
        for run in range(max(lane.run for lane in lanes) + 1):
            position = index[run, accepted]
            if value >> position & 1:
                best, accepted = position, accepted + 1
        if best is not None:
            row[best] = 1
    return table


async def _from_table(party: Party, ok: Additive, gains: Share, lanes: Sequence[Lane]) -> Additive:
    """sum_j chosen_j gains_j, additive: a table of all accept patterns, with the masks of the gains as payload.

    1 round, that of the pattern.
    """
    count = len(lanes)
    batch, _, classes = gains.shape
    powers = BITS.constant(1 << np.arange(count))
    pattern = into(ok.map(lambda value: BITS.mul(value, powers)).sum(-1), ring(count))
    index = await open_additive(party.at("pattern"), pattern)
    party.observe("pattern", index)

    def payload() -> RingArray:
        masks = gains.mask().reshape(batch, -1)
        return np.concatenate([np.broadcast_to(Z64.constant(1), (batch, 1)), masks], axis=1)

    places = await at_places(party.at("table"), index, 0, 1 << count, 1 + count * classes, payload)
    if party.is_dealer:
        return Additive(2, Z64, Z64.zeros(batch, classes), places.depth, dealer_part=False)

    def select() -> RingArray:
        table = Z64.constant(choice_table(tuple(lanes)))
        hot = places.value[:, :, 0] @ table  # (batch, lanes)
        masks = places.value[:, :, 1:].reshape(batch, -1, count, classes)
        parts = (masks * table[:, :, None]).sum((1, 2), dtype=np.uint64)
        return Z64.add(parts, (hot[:, :, None] * gains.masked()).sum(1, dtype=np.uint64))

    value = await party.compute(select, places.value.size)
    return Additive(party.role, Z64, value, max(gains.depth, places.depth), dealer_part=False)
