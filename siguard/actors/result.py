"""`GuardResult`: what one call gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siguard.actors.debug import Internals
from siguard.guard.failures import Failures
from siguard.guard.planner import Planned
from siguard.transport.accountant import Traffic


@dataclass(frozen=True)
class GuardResult:
    """What one call gave.

    confidences: (batch, C), rows >= 0 with sum 1.  seconds: call to answer, by trio's clock.
    iterations: public number of optimisation steps per query.  traffic: this call, input sharing to reveal, with
    what was prepared for it; ``traffic.prepare`` and ``traffic.online`` sum to ``traffic.bytes_total``.
    internals: only with ``debug_open``, else None.
    planned: how it was computed, and what that was declared to cost: the guard, without inference of the target.
    failures: with which declared probability its fixed-point arithmetic failed.
    """

    confidences: npt.NDArray[np.float64]
    seconds: float
    iterations: int
    traffic: Traffic
    internals: Internals | None = None
    planned: Planned | None = None
    failures: Failures | None = None


def plan_words(plan: Mapping[str, str | bool]) -> str:
    """A plan, as `siguard.guard.plan.Plan.to_dict` gives it, in a few words: ``hidden key, ..., folded``."""
    ways = [f"{name} {value}" for name, value in plan.items() if not isinstance(value, bool)]
    return ", ".join(ways + [name for name, value in plan.items() if value is True])
