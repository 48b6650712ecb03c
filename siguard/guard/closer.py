"""`decay`'s validation: the noise is accepted where the label is kept and |h| has not grown by more than 2^-9.

Eight exchanges, the reveal included.  What is validated is what is released.
"""

from __future__ import annotations

from math import ceil, log2

from siguard.errors import InputError
from siguard.guard.answer import LABEL_MARGIN, label_kept
from siguard.guard.classifier import OPENED_BITS, Classifier
from siguard.guard.config import DECAY_TOLERANCE
from siguard.guard.iteration import FirstStep, exponentials
from siguard.guard.shape import Shape
from siguard.guard.step_ranges import Reach
from siguard.mpc.arithmetic import multiply, open_additive, remask, view
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.party import Party
from siguard.mpc.products import product
from siguard.mpc.share import Additive, Opened, Share, as_additive
from siguard.mpc.thresholds import at_least, selected_form
from siguard.ring import FRACTION_BITS, Z64, ring

#: 1 / tolerance is this power of 2; the difference is opened with as many bits more than a product.
_TOLERANCE_BITS = round(-log2(DECAY_TOLERANCE))
_DIFFERENCE_SHIFT, DIFFERENCE_RING = 8, ring(56)


def check_closer(shape: Shape) -> None:
    """Raise `InputError` where 2^9 |S h| S0, opened at 32 bits, could leave the ring."""
    bits = 2 * FRACTION_BITS + _TOLERANCE_BITS + shape.magnitude_bits[-1] + 2 * ceil(log2(shape.classes)) + 1
    if bits > 62:
        own, most = shape.magnitude_bits[-1], shape.magnitude_bits[-1] - bits + 62
        raise InputError(
            f"defender: |h| can reach 2^{own}; policy 'decay' with {shape.classes} classes takes at most 2^{most}: "
            "train it with weight decay or scale its last layer down"
        )


async def closer_answer(
    party: Party, first: FirstStep, x: Share, label: Share, classifier: Classifier, reach: Reach
) -> Additive:
    """E of the one lane where it is accepted, else the undefended one: (batch, C) at 16 bits, additive.

    |h| S0 < (|h0| + 2^-9) S is asked of S h and S0 h0.  1 + 2^-12 at the label.  Rounds: 7 with keys; the reveal is
    the eighth.
    """
    batch, _, classes = x.shape
    others = await exponentials(party.at("candidates"), x, reach.index_bits, classifier.plan.curves)
    E = others + label.reshape(batch, 1, classes) * (1 << FRACTION_BITS)
    S, own_S = E.sum(-1), first.E.sum(-1)

    async def gains() -> Share:
        kept = await label_kept(party.at("kept"), x, others, reach, classifier.plan, Z64)
        party.observe("kept", kept)
        return await multiply(party.at("gains"), kept[..., None], E - first.E)

    async def own() -> Share:
        return await _magnitude(party.at("own"), first.logit.opened, classifier)

    logit, gain, magnitude = await side_by_side(
        lambda: classifier.logit(party.at("h"), E, S[..., None]), gains, own
    )
    difference = await _difference(party.at("closer"), logit, S, magnitude, own_S, classifier)
    compared = difference.reduce(_DIFFERENCE_SHIFT, DIFFERENCE_RING)
    beyond = await at_least(party.at("accepted"), compared, [0], gain, by=classifier.plan.direct)
    party.observe("difference", difference)
    answer = as_additive(gain) - beyond[..., 0, 1:]
    return answer[:, 0] + (first.E[:, 0] + label * LABEL_MARGIN)


async def _magnitude(party: Party, logit: Opened, classifier: Classifier) -> Share:
    """|S0 h0| at 16 bits.  1 round with keys."""
    h = await view(party.at("value"), logit, OPENED_BITS - FRACTION_BITS)
    positive = await at_least(
        party.at("sign"), classifier.sign_of(logit), [1], h[..., None], by=classifier.plan.beside
    )
    return await remask(party, positive[..., 0, 1] * 2 - as_additive(h))


async def _difference(
    party: Party, logit: Opened, S: Share, magnitude: Share, own_S: Share, classifier: Classifier
) -> Opened:
    """2^9 (|S h| S0 - |S0 h0| S) - S S0, opened, at 32 bits; below 0 where the noise is accepted.

    |S h| S0 = (2 b - 1) S h S0, b = [h > 0].  1 round with keys.
    """
    h = await view(party.at("value"), logit, OPENED_BITS - FRACTION_BITS)

    *_, crossed = await selected_form(
        party.at("sign"), classifier.sign_of(logit), Z64.mul, h[..., None], own_S[..., None], classifier.plan.direct
    )
    grown = crossed[..., 0] * 2 - product(h, own_S) - product(magnitude, S)
    return await open_additive(party.at("difference"), grown * (1 << _TOLERANCE_BITS) - product(S, own_S))
