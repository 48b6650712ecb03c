"""How far optimisation can reach, from public parameters: bounds of sums, rings of x, scales of the gradient.

Weights are kept relative to a logarithm that is one step old (`siguard.guard.iteration`), so that their sum stays
within what one step can change it by, and what the logarithm missed.  All of it follows the step lengths of the
configuration, step for step.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, log2, sqrt

import numpy as np
import numpy.typing as npt

from siguard.guard.config import GuardConfig
from siguard.guard.lanes import Lane, joint_weights, lane_weights
from siguard.guard.start import FLOOR
from siguard.mpc.splines import CELL_BITS
from siguard.ring import Ring, ring

#: Fraction bits of the gradient, or as many fewer as its bound needs.
GRADIENT_BITS = 13
#: The scale S^2 exp(-lag) of the term that keeps the label is at most this, in any case where it matters.
LARGEST_SCALE = 1 << 10
#: log2 of the squared norm, as it is opened, for which the inverse root is right.
NORM_RANGE = (12, 62)


def change_of_sums(step_length: float) -> float:
    """By which factor a step of this length changes a sum of exponentials, relative to the label, at most.

    The difference of two logits moves by at most sqrt 2 times the length; 2 % for Newton's step and rounding.
    """
    return exp(sqrt(2) * 1.02 * step_length)


def largest_sum(config: GuardConfig, lanes: Sequence[Lane], step: int) -> float:
    """Bound of sum w at a step after the first: what the step before changed."""
    return change_of_sums(_longest(config, lanes, step - 1)) * 1.02


def first_gradient_bits(classes: int, defender_bits: int) -> int:
    """Fraction bits of the gradient of the first step; ``defender_bits`` as in `TermWeights.gradient_bits`."""
    # The weight of h alone: w_i <= 1 and S <= C, so that each entry is at most C G and their sum C G.
    C = float(classes)
    return _gradient_bits(4.0**defender_bits * (C**3 + C**2))


def _gradient_bits(squared_norm: float) -> int:
    """Fraction bits at which a squared norm up to this stays below the end of `NORM_RANGE`."""
    return min(GRADIENT_BITS, (NORM_RANGE[1] - ceil(log2(squared_norm))) // 2)


class Reach:
    """Rings for x: its entries, their differences, and x - lag all lie within +-1.5 ``offset``.

    The others start at the floor or above, and the label's entry ``offset`` below 0, which is below them whatever
    the steps do: a step moves an entry by less than sqrt 2 of its length, and the label's by less than its length.
    """

    def __init__(self, config: GuardConfig, lanes: Sequence[Lane]) -> None:
        assert config.inner is not None  # noqa: S101 - for the type checker
        path = max(sum(lane.step_length(config, step) for step in range(config.inner)) for lane in lanes)
        self.offset = 16 - FLOOR + ceil(2.5 * path)
        self._bits = ceil(log2(1.5 * self.offset))

    @property
    def index_bits(self) -> int:
        """Of the exponential's index, in cells of 1/8."""
        return self._bits + 1 + CELL_BITS

    def ring(self, fraction_bits: int) -> Ring:
        """Where entries are compared at so many fraction bits."""
        return ring(self._bits + 1 + fraction_bits)


def _longest(config: GuardConfig, lanes: Sequence[Lane], step: int) -> float:
    return max(lane.step_length(config, step) for lane in lanes)


class TermWeights:
    """Public whole weights of the three terms, each (lanes, 1): only their proportions matter."""

    def __init__(self, config: GuardConfig, lanes: Sequence[Lane]) -> None:
        weights = np.array([lane_weights(config.c1, config.c2, lane.c3(config)) for lane in lanes], np.int64)
        self.c1: npt.NDArray[np.int64] = weights[:, :1]
        self.c2: npt.NDArray[np.int64] = weights[:, 1:2]
        self.c3: npt.NDArray[np.int64] = weights[:, 2:]

    @classmethod
    def together(cls, config: GuardConfig, lanes: Sequence[Lane]) -> TermWeights:
        """The same weights with one c1 and one c2 for all lanes: those of the first, c3 in proportion."""
        weights = object.__new__(cls)
        joint = joint_weights(config.c1, config.c2, [lane.c3(config) for lane in lanes])
        weights.c1, weights.c2 = (np.array([[weight]], np.int64) for weight in joint[:2])
        weights.c3 = np.array(joint[2:], np.int64)[:, None]
        return weights

    def gradient_bits(self, classes: int, defender_bits: int, largest: float) -> int:
        """Fraction bits of the gradient of a step after the first.

        defender_bits: log2 of the largest difference of two entries of dh/dq.  largest: `largest_sum` of the step.
        """
        # The sum of |w_i (S v_i - <v, E>)| is at most G S times that of w, with S up to 2 C.
        terms = self.c1 * 2.0**defender_bits + self.c3 * 2
        entries = largest * 2 * classes * terms + self.c2 * LARGEST_SCALE
        return _gradient_bits(2 * float(entries.max()) ** 2)
