"""The membership classifier h as the model owner shares it (`siguard.guard.classifier` computes with it).

h is piecewise linear, so for a factor S > 0 its value at q S, with biases multiplied by S, is S h(q): signs and
ReLU masks are those of h(q), and nothing is ever divided.  The first bias is folded into the first matrix
(sum q = 1), the others are one more row each, multiplied with S.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from math import ceil, log2, prod

import numpy as np

from siguard.errors import InputError
from siguard.mpc.share import Share
from siguard.nn.model import Defender, FloatArray
from siguard.ring import FRACTION_BITS, RingArray, encode

#: Fraction bits of the weights of h.
WEIGHT_BITS = 14
#: Fraction bits of the matrices folded from the weights, and how many elements the larger one may have.
FOLDED_BITS = 14
FOLDED_LIMIT = 1 << 21
#: log2 of how far the sum of exponentials may grow beyond C before signs inside h are lost.
GROWTH_BITS = 2


@dataclass(frozen=True)
class EncodedDefender:
    """What the model owner shares: fixed-point matrices, and a public bound for each layer.

    matrices: first (C, n1) with its bias folded in, the others (in + 1, out) with the bias as last row; with two
    hidden layers then what the backward pass takes in one product (`_folded`).
    magnitude_bits: ceil(log2) of the largest value a layer can give, per unit of S; public.
    gradient_bits: ceil(log2) of the largest difference of two entries of dh/dq; public.
    """

    matrices: tuple[RingArray, ...]
    magnitude_bits: tuple[int, ...]
    gradient_bits: int


def encode_defender(defender: Defender) -> EncodedDefender:
    """Fixed-point matrices of h; raises `InputError` when a layer could leave the range.

    The bounds hold for every input, and are public.
    """
    first, bias = defender.layers[0]
    matrices = [first + bias, *(np.vstack([W, b]) for W, b in defender.layers[1:])]
    bounds = _layer_bounds(defender)
    limit = defender.classes * 2.0**GROWTH_BITS
    largest_weight = max(float(np.abs(matrix).max()) for matrix in matrices)
    # Layer values are opened at FRACTION_BITS + WEIGHT_BITS and must stay a factor 4 inside the ring.
    if max(bounds) * limit >= 2.0 ** (61 - FRACTION_BITS - WEIGHT_BITS) or largest_weight >= 2.0**20:
        raise InputError(
            f"defender: its layers can reach {max(bounds):.3g} (largest weight {largest_weight:.3g}), beyond the "
            "fixed-point range; train it with weight decay or scale its last layer down"
        )
    return EncodedDefender(
        (*(encode(matrix, WEIGHT_BITS) for matrix in matrices), *_folded(matrices)),
        tuple(_bits(value) for value in bounds),
        _bits(_gradient_bound(defender)),
    )


def can_be_folded(widths: Sequence[int]) -> bool:
    """Whether an h of these widths, from C to 1, is shared with its folded matrices."""
    return len(widths) == 4 and prod(widths[:3]) <= FOLDED_LIMIT


def _folded(matrices: Sequence[FloatArray]) -> list[RingArray]:
    """For two hidden layers, at `FOLDED_BITS`: W1_ij W2_jk w3_k as (n1, C n2), and W2_jk w3_k as (n1, n2)."""
    if not can_be_folded([matrices[0].shape[0], *(matrix.shape[1] for matrix in matrices)]):
        return []
    onward = matrices[1][:-1] * matrices[2][:-1, 0]
    through = (matrices[0].T[:, :, None] * onward[:, None, :]).reshape(len(onward), -1)
    return [encode(through, FOLDED_BITS), encode(onward, FOLDED_BITS)]


def _bits(value: float) -> int:
    return ceil(log2(max(value, 1.0)))


def _layer_bounds(defender: Defender) -> list[float]:
    """Largest |value| of each layer over the simplex.

    A layer lies between linear functions of q, described by their values at the corners: a ReLU of one is convex,
    so at most what is linear between its values at the corners, and at least 0.
    """
    first, bias = defender.layers[0]
    upper = first + bias
    bounds = [float(np.abs(upper).max())]
    for W, b in defender.layers[1:]:
        active = np.maximum(upper, 0.0)
        upper, lower = active @ np.maximum(W, 0.0) + b, active @ np.minimum(W, 0.0) + b
        bounds.append(float(max(upper.max(), -lower.min())))
    return bounds


def _gradient_bound(defender: Defender) -> float:
    """Largest |dh/dq_i - dh/dq_k| whatever ReLUs are active: intervals, backwards through the layers."""
    upper = lower = defender.layers[-1][0][:, 0]
    for W, _ in defender.layers[-2::-1]:
        upper, lower = np.maximum(upper, 0.0), np.minimum(lower, 0.0)
        positive, negative = np.maximum(W, 0.0), np.minimum(W, 0.0)
        upper, lower = positive @ upper + negative @ lower, positive @ lower + negative @ upper
    return float(upper.max() - lower.min())


class SharedDefender:
    """Shares of h at one server."""

    def __init__(self, matrices: Sequence[Share], magnitude_bits: Sequence[int], gradient_bits: int) -> None:
        layers = len(magnitude_bits)
        self.matrices = list(matrices[:layers])
        #: With two hidden layers that are not too wide: (n1, C n2) and (n1, n2), see `encode_defender`.
        self.folded = tuple(matrices[layers:])
        self.magnitude_bits = tuple(magnitude_bits)
        self.gradient_bits = gradient_bits
        self.transposed = [
            (matrix if index == 0 else matrix[:-1]).map(lambda part: np.ascontiguousarray(part.T))
            for index, matrix in enumerate(self.matrices)
        ]

    @property
    def classes(self) -> int:
        """Number of confidences that h takes."""
        return self.matrices[0].shape[0]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(matrix.shape[1] for matrix in self.matrices[:-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Widths from C to 1."""
        return (self.classes, *(matrix.shape[1] for matrix in self.matrices))

    def for_role(self, role: int) -> SharedDefender:
        """The same shares read in the role this server has in a session."""
        turned = copy(self)
        turned.matrices = [matrix.with_role(role) for matrix in self.matrices]
        turned.folded = tuple(matrix.with_role(role) for matrix in self.folded)
        turned.transposed = [matrix.with_role(role) for matrix in self.transposed]
        return turned
