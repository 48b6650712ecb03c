"""The public sizes that a guard's cost depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siguard.guard.classifier import classifier_cost, gradient_cost, sign_ring_bits
from siguard.guard.plan import Plan
from siguard.mpc.gate import Cost


class Shape(NamedTuple):
    """Rows, widths of h from C to 1, log2 of the bound of each of its layers, and the plan."""

    batch: int
    widths: Sequence[int]
    magnitude_bits: Sequence[int]
    plan: Plan

    @property
    def classes(self) -> int:
        """C."""
        return self.widths[0]

    @property
    def sign_bits(self) -> int:
        """Bits of the ring in which the sign of h is taken."""
        return sign_ring_bits(self.magnitude_bits[-1], self.classes)

    def logit(self, rows: int) -> Cost:
        """h of so many rows."""
        return classifier_cost(rows, self.widths, self.magnitude_bits, self.plan)

    def gradient(self, rows: int) -> Cost:
        """h of so many rows, with its gradient."""
        return gradient_cost(rows, self.widths, self.magnitude_bits, self.plan)
