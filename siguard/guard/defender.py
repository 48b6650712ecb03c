"""The membership classifier h on shares: forward and backward pass on unnormalised confidences.

h is piecewise linear, so for a factor S > 0 its value at q S, with biases multiplied by S, is S h(q): signs and
ReLU masks are those of h(q), and nothing is ever divided.  The first bias is folded into the first matrix
(sum q = 1), the others are one more row each, multiplied with S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, exp, log2, sqrt

import numpy as np

from siguard.errors import InputError
from siguard.guard.config import LEARNING_RATE_LIMIT
from siguard.mpc.arithmetic import (
    deal_cost,
    exchange_cost,
    matmul,
    open_matmul,
    product_cost,
    truncate,
    view,
)
from siguard.mpc.boolean import sign_cost
from siguard.mpc.compare import is_positive
from siguard.mpc.conversion import bit_multiply, bit_multiply_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS
from siguard.nn.model import Defender
from siguard.ring import RingArray, encode, ring

#: Fraction bits of the weights of h.
WEIGHT_BITS = 14
#: Ring in which signs inside h are taken.
SIGN_BITS = 32


def factor_limit(classes: int) -> float:
    """Largest factor S that h meets: C at the start, one step's growth e^(sqrt 2 lr) later."""
    return max(float(classes), exp(sqrt(2) * LEARNING_RATE_LIMIT) * 1.05)


@dataclass(frozen=True)
class EncodedDefender:
    """What the model owner shares: fixed-point matrices, and a public bound for each layer.

    matrices: first (C, n1) with its bias folded in, the others (in + 1, out) with the bias as last row.
    magnitude_bits: ceil(log2) of the largest value a layer can give, per unit of S; public.
    gradient_bits: ceil(log2) of the largest difference of two entries of dh/dq; public.
    """

    matrices: tuple[RingArray, ...]
    magnitude_bits: tuple[int, ...]
    gradient_bits: int


def encode_defender(defender: Defender) -> EncodedDefender:
    """Fixed-point matrices of h; raises `InputError` when a layer could leave the range.

    The bound is an interval bound over the simplex, so it holds for every input.
    """
    first, bias = defender.layers[0]
    matrices = [first + bias]
    bound = np.abs(matrices[0]).max(axis=0)
    bounds = [bound.max()]
    for W, b in defender.layers[1:]:
        matrices.append(np.vstack([W, b]))
        bound = bound @ np.abs(W) + np.abs(b)
        bounds.append(bound.max())
    limit = factor_limit(defender.classes)
    largest_weight = max(float(np.abs(matrix).max()) for matrix in matrices)
    # Layer values are opened at FRACTION_BITS + WEIGHT_BITS and must stay a factor 4 inside the ring.
    if max(bounds) * limit >= 2.0 ** (61 - FRACTION_BITS - WEIGHT_BITS) or largest_weight >= 2.0**20:
        raise InputError(
            f"defender: its layers can reach {max(bounds):.3g} (largest weight {largest_weight:.3g}), beyond the "
            "fixed-point range; train it with weight decay or scale its last layer down"
        )
    return EncodedDefender(
        tuple(encode(matrix, WEIGHT_BITS) for matrix in matrices),
        tuple(_bits(value) for value in bounds),
        _bits(_gradient_bound(defender)),
    )


def _bits(value: float) -> int:
    return ceil(log2(max(value, 1.0)))


def _gradient_bound(defender: Defender) -> float:
    """Largest |dh/dq_i - dh/dq_k| whatever ReLUs are active: an interval bound over all paths."""
    first = defender.layers[0][0]
    paths = np.abs(defender.layers[-1][0])
    for W, _ in defender.layers[-2:0:-1]:
        paths = np.abs(W) @ paths
    return float(np.ptp(first, axis=0) @ paths[:, 0])


@dataclass
class Activations:
    """Hidden layers of one evaluation of h: all derivative bits, and the last layer's values before its ReLU."""

    derivative_bits: list[Share]
    value: Share


class SharedDefender:
    """Shares of h at one server."""

    def __init__(self, matrices: Sequence[Share], magnitude_bits: Sequence[int], gradient_bits: int) -> None:
        self.matrices = list(matrices)
        self.magnitude_bits = tuple(magnitude_bits)
        self.gradient_bits = gradient_bits
        self._transposed = [
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
        turned = object.__new__(SharedDefender)
        turned.matrices = [matrix.with_role(role) for matrix in self.matrices]
        turned.magnitude_bits = self.magnitude_bits
        turned.gradient_bits = self.gradient_bits
        turned._transposed = [matrix.with_role(role) for matrix in self._transposed]
        return turned

    def sign_shift(self, layer: int) -> int:
        """Public shift that brings an opened layer into the ring of signs."""
        bits = self.magnitude_bits[layer] + ceil(log2(factor_limit(self.classes)))
        return max(WEIGHT_BITS, bits + FRACTION_BITS + WEIGHT_BITS - (SIGN_BITS - 1))

    async def activations(self, party: Party, q: Share, factor: Share) -> Activations:
        """Hidden layers of S h(q), from S q of shape (..., C) and S of shape (..., 1), both at 16 fraction bits.

        Derivative bits are [x > 0].
        Rounds: for each hidden layer a product and a comparison (6), and a bit product between two of them.
        """
        bits: list[Share] = []
        layer_input = q
        for layer in range(len(self.hidden)):
            opened = await open_matmul(party.at("layer", layer), layer_input, self.matrices[layer])
            step = party.at("relu", layer)
            value = await view(step.at("value"), opened, WEIGHT_BITS)
            small = await truncate(step.at("reduce"), opened, self.sign_shift(layer), ring(SIGN_BITS))
            bits.append(await is_positive(step.at("sign"), small))
            if layer < len(self.hidden) - 1:
                active = await bit_multiply(step.at("product"), bits[layer], value)
                layer_input = Share.concatenate([active, factor], axis=-1)
        return Activations(bits, value)

    async def logit(self, party: Party, hidden: Activations, factor: Share) -> Share:
        """S h in the ring of signs, (..., 1), ready for a comparison.  2 rounds."""
        last = len(self.hidden)
        active = await bit_multiply(party.at("product"), hidden.derivative_bits[-1], hidden.value)
        joined = Share.concatenate([active, factor], axis=-1)
        opened = await open_matmul(party.at("layer", last), joined, self.matrices[last])
        return await truncate(party.at("reduce"), opened, self.sign_shift(last), ring(SIGN_BITS))

    async def backward(self, party: Party, hidden: Activations) -> Share:
        """dh/dq up to a constant per row, (..., C) at 14 fraction bits; runs beside `logit`.

        The folded first bias adds the same constant to every entry, which the softmax Jacobian cancels.
        Rounds: two for each hidden layer.
        """
        gradient = self._transposed[-1].reshape(self.hidden[-1])
        for layer in range(len(self.hidden) - 1, -1, -1):
            gradient = await bit_multiply(party.at("mask", layer), hidden.derivative_bits[layer], gradient)
            gradient = await matmul(party.at("layer", layer), gradient, self._transposed[layer], WEIGHT_BITS)
        return gradient


def activations_cost(rows: int, shape: Sequence[int]) -> Cost:
    """Declared cost of `SharedDefender.activations`; shape: widths of h from C to 1."""
    total = Cost()
    for layer, width in enumerate(shape[1:-1]):
        n = rows * width
        if layer:
            total += bit_multiply_cost(rows * shape[layer], 8)
        total += exchange_cost(n, 8) + deal_cost(n, 8) + deal_cost(n, ring(SIGN_BITS).itemsize)
        total += sign_cost(n, SIGN_BITS)
    return total


def logit_cost(rows: int, shape: Sequence[int]) -> Cost:
    """Declared cost of `SharedDefender.logit`."""
    return (
        bit_multiply_cost(rows * shape[-2], 8) + exchange_cost(rows, 8) + deal_cost(rows, ring(SIGN_BITS).itemsize)
    )


def backward_cost(rows: int, shape: Sequence[int]) -> Cost:
    """Declared cost of `SharedDefender.backward`."""
    total = Cost()
    for before, width in pairwise(shape[:-1]):
        total += bit_multiply_cost(rows * width, 8) + product_cost(rows * before, 8)
    return total
