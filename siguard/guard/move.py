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
from siguard.guard.step_ranges import NORM_RANGE
from siguard.mpc.arithmetic import open_additive, remask, view
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.cubic import cubic, length_product
from siguard.mpc.curves import scaled_steps
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product, product
from siguard.mpc.share import Additive, Opened, Share, as_additive
from siguard.mpc.splines import ARGUMENT_BITS, inverse_root_steps
from siguard.mpc.thresholds import at_least, selected_form
from siguard.ring import ring

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
    plan = classifier.plan
    steps = partial(
        scaled_steps, party.at("direction"), compared, thresholds >> _NORM_SHIFT, values, by=plan.curves
    )
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
    |U|^2 = c1^2 K(R, R) + K(H, H) + 2 c1 (2 b - 1) K(R, H).
    """
    sign, by = classifier.sign_of(logit.opened), classifier.plan.direct
    if H is None:
        bR = (await at_least(party, sign, [1], R, by=by, bits=logit.positive))[..., 0, 1:]
        return await _together(party, (bR * 2 - as_additive(R)) * c1, _lengths_product(R, R) * (c1 * c1))
    bR, _, bK = await selected_form(party, sign, length_product, R, H, by, logit.positive)
    U = (bR * 2 - as_additive(R)) * c1 + H
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
