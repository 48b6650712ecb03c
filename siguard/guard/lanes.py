"""The lanes of the published loop, with their public parameters.

An outer run depends on the runs before it only through how many of them were accepted, so that all of them can be
computed side by side: `siguard.guard.iteration` does, `siguard.guard.answer` chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siguard.guard.config import C3_GROWTH, LEARNING_RATE_GROWTH, POLICIES, GuardConfig

#: Smallest proportion of one weight to another that is told apart from it.
_LEAST_PROPORTION = 2.0**-10


@dataclass(frozen=True)
class Lane:
    """Outer run ``run`` after ``accepted`` acceptances; its public parameters follow."""

    run: int
    accepted: int

    def c3(self, config: GuardConfig) -> float:
        """Weight of the closeness term in this lane."""
        return config.c3 * C3_GROWTH**self.accepted

    def learning_rate(self, config: GuardConfig) -> float:
        """Length of the first step in this lane."""
        return float(config.learning_rate or 0.0) * LEARNING_RATE_GROWTH ** (self.run - self.accepted)

    def step_length(self, config: GuardConfig, step: int) -> float:
        """Length of a step in this lane, the first being step 0."""
        return self.learning_rate(config) * POLICIES[config.policy].decay ** step


def lanes_of(outer: int) -> list[Lane]:
    """All lanes of ``outer`` runs: outer (outer + 1) / 2."""
    return [Lane(run, accepted) for run in range(outer) for accepted in range(run + 1)]


def integer_weights(weights: Sequence[float], tolerance: float = 2.0**-10) -> list[int]:
    """Smallest whole numbers in the proportions of ``weights``, each within ``tolerance`` of its own."""
    for factor in range(1, 4097):
        scaled = [weight * factor for weight in weights]
        rounded = [round(value) for value in scaled]
        if all(abs(r - s) <= tolerance * s for r, s in zip(rounded, scaled, strict=True)):
            return rounded
    return [round(weight * 4096) for weight in weights]


def lane_weights(c1: float, c2: float, c3: float) -> list[int]:
    """Whole numbers in the proportions of one lane's weights, of which only the proportions matter.

    (1, 10, 0.1) is (10, 100, 1), exactly.  A weight that is positive counts as at least 2^-10 of the larger of c1
    and c3, and c2 as at most 2^10 of it: beyond that, the direction of the sum changes by less than 2^-10.
    """
    return joint_weights(c1, c2, [c3])


def joint_weights(c1: float, c2: float, c3s: Sequence[float]) -> list[int]:
    """As `lane_weights`, for several values of c3 with the same c1 and c2: [c1, c2, *c3s]."""
    largest = max(c1, *c3s)
    if largest == 0:
        return [0, 1, *(0 for _ in c3s)]
    raised = [max(weight, largest * _LEAST_PROPORTION) if weight > 0 else 0.0 for weight in (c1, c2, *c3s)]
    raised[1] = min(raised[1], largest / _LEAST_PROPORTION)
    return integer_weights([weight / largest for weight in raised])
