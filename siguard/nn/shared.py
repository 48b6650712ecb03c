"""Secure inference: the target model on shares, features in, logits out; nobody holds either.

The model owner publishes, with the shares, the largest feature the fixed-point range allows; users' features
saturate there, so that no layer can wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siguard.errors import InputError
from siguard.mpc.arithmetic import deal_cost, exchange_cost, open_additive, remask, view
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.products import matrix_product
from siguard.mpc.share import Share, as_additive
from siguard.mpc.thresholds import Way, at_least, at_least_cost
from siguard.nn.model import Model
from siguard.ring import FRACTION_BITS, Z64, RingArray, encode, ring

#: Fraction bits of the weights; products open at FRACTION_BITS + WEIGHT_BITS.
WEIGHT_BITS = 16
#: Ring in which the signs of hidden values are taken: |x| < 2^31 at 16 fraction bits.
SIGN_BITS = 48
_LARGEST_FEATURE = 2.0**12
#: Every hidden value and logit stays below this, a factor 4 inside the ring.
_VALUE_LIMIT = 2.0**29


@dataclass(frozen=True)
class EncodedModel:
    """What the owner shares: W and b of each layer in turn; and the public bound on features."""

    arrays: tuple[RingArray, ...]
    feature_limit: float


def encode_model(model: Model) -> EncodedModel:
    """Fixed-point weights and the feature limit; raises `InputError` when features of size 1 would overflow."""
    limit = _LARGEST_FEATURE
    while _largest_value(model, limit) >= _VALUE_LIMIT:
        limit /= 2
        if limit < 1:
            raise InputError(
                "model: a feature of size 1 could already take a layer beyond the fixed-point range "
                f"(+-{_VALUE_LIMIT:.3g}); scale the weights down or train with weight decay"
            )
    arrays: list[RingArray] = []
    for W, b in model.layers:
        arrays += [encode(W, WEIGHT_BITS), encode(b, FRACTION_BITS + WEIGHT_BITS)]
    return EncodedModel(tuple(arrays), limit)


def _largest_value(model: Model, feature: float) -> float:
    """A bound on every layer's values: the smaller of the interval bound and the Euclidean one."""
    entries = np.full(model.shape[0], feature)
    norm = float(np.linalg.norm(entries))
    largest = feature
    for W, b in model.layers:
        by_norm = np.linalg.norm(W, axis=0) * norm + np.abs(b)
        entries = np.minimum(entries @ np.abs(W) + np.abs(b), by_norm)
        norm = min(float(np.linalg.norm(W, 2)) * norm + float(np.linalg.norm(b)), float(np.linalg.norm(entries)))
        largest = max(largest, float(entries.max()))
    return largest


class SharedModel:
    """Shares of the target model at one server."""

    def __init__(self, arrays: Sequence[Share], feature_limit: float) -> None:
        self.layers = list(zip(arrays[::2], arrays[1::2], strict=True))
        self.feature_limit = feature_limit

    @property
    def shape(self) -> tuple[int, ...]:
        """Widths from input to output."""
        return (self.layers[0][0].shape[0], *(W.shape[1] for W, _ in self.layers))

    def for_role(self, role: int) -> SharedModel:
        """The same shares read in the role this server has in a session."""
        turned = object.__new__(SharedModel)
        turned.layers = [(W.with_role(role), b.with_role(role)) for W, b in self.layers]
        turned.feature_limit = self.feature_limit
        return turned

    async def forward(self, party: Party, features: Share, logit_bits: int, by: Way = Way.KEY) -> Share:
        """Logits (batch, classes) at ``logit_bits`` from features (batch, in) at 16 fraction bits.

        by: how the signs of hidden values are found.  Rounds: 2 for each hidden layer with keys, and 1.
        Error: about 2^-17 per weight and 2^-16 per value of each layer; failure: a wrap with probability
        |x| 2^-32 per hidden value.
        """
        x = features
        for index, (W, b) in enumerate(self.layers):
            step = party.at("layer", index)
            work = x.shape[0] * W.shape[0] * W.shape[1] // 8
            terms = await party.compute(lambda x=x, W=W: matrix_product(x, W), work)  # type: ignore[misc]
            opened = await open_additive(step, terms + as_additive(b))
            if index == len(self.layers) - 1:
                return await view(step, opened, FRACTION_BITS + WEIGHT_BITS - logit_bits)
            value = await view(step.at("value"), opened, WEIGHT_BITS)
            compared = opened.reduce(WEIGHT_BITS, ring(SIGN_BITS))
            terms = await at_least(step.at("relu"), compared, [1], value[..., None], by=by)
            x = await remask(step.at("relu"), terms[..., 0, 1])
        raise AssertionError("a model has at least one layer")


def inference_cost(batch: int, shape: Sequence[int], by: Way = Way.KEY) -> Cost:
    """Declared cost of `SharedModel.forward`."""
    total = Cost()
    for index, width in enumerate(shape[1:]):
        outputs = batch * width
        total += exchange_cost(outputs, 8) + deal_cost(outputs, 8)
        if index < len(shape) - 2:
            total += at_least_cost(outputs, SIGN_BITS, 1, 1, Z64, by) + exchange_cost(outputs, 8)
    return total
