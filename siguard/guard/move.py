"""One step of the optimisation from the gradient of h and the two other terms: sign, length, step.

The label's entry of the gradient is minus the sum of the others, so |U|^2 = sum U^2 + (sum U)^2, and relative to
the label the step of entry i is V_i + sum V.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from siguard.guard.classifier import Classifier, Logit
from siguard.guard.plan import Plan
from siguard.guard.step_ranges import NORM_RANGE
from siguard.mpc.arithmetic import deal_wire, open_additive, remask, view
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.cubic import cubic, length_product
from siguard.mpc.curves import scaled_steps
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product, product
from siguard.mpc.share import Additive, Opened, Share, as_additive
from siguard.mpc.splines import ARGUMENT_BITS, inverse_root_steps
from siguard.mpc.thresholds import at_least
from siguard.ring import Z64, RingArray, ring

_ROOT_BITS = 37
_DIRECTION_BITS = 12
#: |U|^2 is compared without its lowest bits, with steps of the inverse root at so many thresholds an octave.
_NORM_SHIFT, NORM_RING, PER_OCTAVE = 8, ring(56), 4
#: Centres the error of the cubic Newton step on 0.
_NEWTON = 1.50147


async def step_of(
    party: Party,
    classifier: Classifier,
    logit: Logit,
    R: Share,
    c1: npt.NDArray[np.int64],
    H: Share | None,
    lengths: Sequence[float],
    plan: Plan,
) -> Share:
    """length g / |g| relative to the label, for every lane, at `ARGUMENT_BITS`; 0 for a gradient of 0.  3 rounds.

    g = c1 sign(h) R + H; H None is 0.
    """
    U, squared = await _signed(party.at("signed"), classifier, logit, R, c1, H)
    thresholds, roots = inverse_root_steps(*NORM_RANGE, PER_OCTAVE)
    # Scaled so that the cubic term of Newton's step has the coefficient 1.
    scales = np.cbrt(np.array(lengths) / 2)
    values = np.rint(scales[:, None] * roots * 2.0**_ROOT_BITS).astype(np.int64)
    compared = squared.reduce(_NORM_SHIFT, NORM_RING)
    steps = partial(scaled_steps, party.at("direction"), compared, thresholds >> _NORM_SHIFT, values)
    if plan.joined:
        terms = await steps(U)
    else:
        root = await remask(party.at("root"), await steps(R[..., :1] * 0 + 1))
        terms = product(U, root)
    opened = await open_additive(party.at("direction"), terms)
    V = await view(party.at("direction"), opened, _ROOT_BITS - _DIRECTION_BITS)
    # length V (N - |V|^2 / 2) with V / scale in place of V.
    linear = np.rint(_NEWTON * np.array(lengths) / scales * 2.0 ** (2 * _DIRECTION_BITS)).astype(np.int64)
    if plan.joined:
        terms = await cubic(party.at("move"), V, linear[:, None])
    else:
        step = party.at("length")
        squared_length = await view(step, await open_additive(step, _lengths_product(V, V)))
        terms = product(V + V.sum(-1)[..., None], squared_length * -1 + linear[:, None])
    opened = await open_additive(party.at("move"), terms)
    return await view(party.at("move"), opened, 3 * _DIRECTION_BITS - ARGUMENT_BITS)


async def _signed(
    party: Party, classifier: Classifier, logit: Logit, R: Share, c1: npt.NDArray[np.int64], H: Share | None
) -> tuple[Share, Opened]:
    """U = c1 s R + H and |U|^2 = sum U^2 + (sum U)^2, opened, for s = sign(h), from one comparison.

    The label's entry of the gradient is -sum U.  s = 2 b - 1, b = [h > 0]; with <R, H> + sum R sum H = K(R, H):
    |U|^2 = c1^2 K(R, R) + K(H, H) + 2 c1 (2 b - 1) K(R, H), and b K is linear in b (1, R, H, the masks' own K).
    """

    async def selected(wires: Share) -> Additive:
        sign = classifier.sign_of(logit.opened)
        return (await at_least(party, sign, [1], wires, by=classifier.plan.direct, bits=logit.positive))[..., 0, :]

    if H is None:
        terms = await selected(R)
        U = (terms[..., 1:] * 2 - as_additive(R)) * c1
        return await _together(party, U, _lengths_product(R, R) * (c1 * c1))
    n = R.shape[-1]

    def masks() -> RingArray:
        return length_product(R.mask(), H.mask())

    own = await deal_wire(party.at("masks"), Z64, (*R.shape[:-1], 1), masks, max(R.depth, H.depth))
    terms = await selected(Share.concatenate([R, H, own], axis=-1))
    bit, bR, bH, bK = (
        terms[..., part] for part in (slice(1), slice(1, 1 + n), slice(1 + n, 1 + 2 * n), slice(-1, None))
    )
    U = (bR * 2 - as_additive(R)) * c1 + H
    if not party.is_dealer:
        aR, aH = R.masked(), H.masked()
        crossed = length_product(aR, bH.value) + length_product(aH, bR.value)
        crossed = crossed - length_product(aR, aH) * bit.value + bK.value
        bK = Additive(party.role, Z64, crossed, bK.depth, dealer_part=False)
    squares = _lengths_product(R, R) * (c1 * c1) + _lengths_product(H, H)
    return await _together(party, U, squares + (bK * 2 - _lengths_product(R, H)) * (2 * c1))


async def _together(party: Party, U: Additive, squared: Additive) -> tuple[Share, Opened]:
    return tuple(
        await side_by_side(
            lambda: remask(party.at("U"), U), lambda: open_additive(party.at("length"), squared[..., 0])
        )
    )


def _lengths_product(x: Share, y: Share) -> Additive:
    """<x, y> + sum x sum y, (..., 1), additive.  Local."""
    sums = product(x.sum(-1)[..., None], y.sum(-1)[..., None])
    return dot_product(x, y) + sums
