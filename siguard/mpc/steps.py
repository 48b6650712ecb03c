"""Public step functions of a secret: one comparison per public threshold, all in one round."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.mpc.arithmetic import deal_cost, exchange_cost, remask
from siguard.mpc.boolean import invert, sign_bit, sign_cost
from siguard.mpc.conversion import bit_terms
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.ring import Z64

#: Thresholds to an octave for the inverse square root: the step is within 4.4 % of the root.
_PER_OCTAVE = 4


def steps_cost(elements: int, thresholds: int, bits: int) -> Cost:
    """A comparison and a dealt element per threshold, one exchange of the sums."""
    pairs = elements * thresholds
    return sign_cost(pairs, bits) + deal_cost(pairs, 8) + exchange_cost(elements, 8)


@gate(cost=steps_cost, simulator=composed)
async def step_function(
    party: Party, x: Share | Opened, thresholds: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> Share:
    """values[j] for the number j of thresholds that x reaches; x of shape (..., 1), ascending thresholds.

    values[0] + sum_j (values[j + 1] - values[j]) [x >= thresholds[j]], linear in the comparison bits.
    Exact while x - thresholds stays inside the ring of x.  Cost: rounds of `sign_bit` + 1.
    """
    shape = (*x.shape[:-1], len(thresholds))
    if isinstance(x, Opened):
        difference: Share | Opened = x.minus_public(thresholds)
    else:
        difference = x.broadcast(*shape) - thresholds
    below = await sign_bit(party.at("compare"), difference)
    bits = await bit_terms(party.at("bits"), invert(below), Z64)
    jumps = Z64.constant(np.diff(values))
    total = bits.map(lambda value: Z64.sum(Z64.mul(value, jumps), -1)[..., None])
    return await remask(party.at("sum"), _plus_public(total, int(values[0])))


def _plus_public(terms: Additive, constant: int) -> Additive:
    return terms.map(lambda value: Z64.add(value, Z64.constant(constant))) if terms.role == 1 else terms


@lru_cache(maxsize=8)
def inverse_root_steps(
    low: int, high: int, scale_bits: int, result_bits: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Thresholds and values of a step function for 1 / sqrt(v), v from 2^low to 2^high at ``scale_bits``.

    Four steps an octave, each at the geometric middle: within 4.4 % of the root, which one cubic Newton step
    turns into 0.15 %.  Outside the range the first or last value holds.
    """
    exponents = low + np.arange((high - low) * _PER_OCTAVE + 1) / _PER_OCTAVE
    thresholds = np.rint(2.0 ** (exponents[1:-1] + scale_bits)).astype(np.int64)
    middles = (exponents[:-1] + exponents[1:]) / 2
    return thresholds, np.rint(2.0 ** (result_bits - middles / 2)).astype(np.int64)
