"""What the model owner sends of a network: its kind, its weights in fixed point, and public bounds."""

from __future__ import annotations

from siguard.guard.defender import encode_defender
from siguard.nn.model import Defender, DenseNetwork, Model
from siguard.nn.shared import encode_model
from siguard.ring import RingArray

#: Kind, fixed-point arrays and public bounds of a network.
Encoding = tuple[str, tuple[RingArray, ...], list[float]]


def encoded(network: DenseNetwork) -> Encoding:
    """Kind, fixed-point arrays and public bounds of a network; raises `InputError` when it cannot be shared."""
    if isinstance(network, Defender):
        encoded = encode_defender(network)
        public = (*encoded.magnitude_bits, encoded.gradient_bits)
        return "defender", encoded.matrices, [float(bits) for bits in public]
    assert isinstance(network, Model)  # noqa: S101 - callers checked
    weights = encode_model(network)
    return "model", weights.arrays, [weights.feature_limit]
