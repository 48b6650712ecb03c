"""`GuardConfig`: the public parameters of a guard, validated before anything is sent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from siguard.errors import InputError

#: Growth of the learning rate after an outer run whose noise was not accepted (SIGuard, section 2).
LEARNING_RATE_GROWTH = 1.1
#: Growth of c3 after an outer run whose noise was accepted.
C3_GROWTH = 10.0


@dataclass(frozen=True)
class PolicyDefaults:
    """A policy's own values for the fields that a configuration may leave open."""

    #: Public number of optimisation steps where it is not outer x inner.
    steps: int = 0
    #: Values of the fields that the policy has; setting another one is an error, never ignored.
    outer: int | None = None
    inner: int | None = None
    learning_rate: float | None = None


#: One line per policy.
POLICIES: dict[str, PolicyDefaults] = {
    "siguard": PolicyDefaults(outer=3, inner=10, learning_rate=0.8),
    "linesearch": PolicyDefaults(steps=1),
    "label": PolicyDefaults(),
    "none": PolicyDefaults(),
}

#: `linesearch`: confidences of the label that are tried, evenly spaced with both ends.
LINESEARCH_CANDIDATES = tuple(0.3 + (0.98 - 0.3) * k / 7 for k in range(8))
#: `linesearch`: by how much the label's confidence exceeds the next one at least.
LINESEARCH_MARGIN = 1.02

#: Longest step on the logits, after growth over all runs: one step changes no exponential by more than 17.
LEARNING_RATE_LIMIT = 2.0
#: Shortest step: step lengths are rounded to 2^-10.
LEARNING_RATE_LEAST = 0.01

# Limits that keep the fixed-point arithmetic inside the ring, see docs/numerics.md.
_MAX_OUTER = 6
_MAX_INNER = 1_000
_MAX_WEIGHT = 10_000.0
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True)
class GuardConfig:
    """Which guard runs, with which public parameters.  Equal configurations are the same signed permission.

    policy: ``"siguard"`` (the published 3 x 10 guard), ``"linesearch"``, ``"label"`` or ``"none"``.
    outer, inner: optimisation runs, and steps in each; None takes the policy's own value.
    learning_rate: length of one normalised step on the logits; None takes the policy's own value.
    c1, c2, c3: weights of the three gradient terms (towards h = 0, keep the label, stay close).

    Raises `InputError` naming the field, what was found and what is allowed.
    """

    policy: str = "siguard"
    outer: int | None = None
    inner: int | None = None
    learning_rate: float | None = None
    c1: float = 1.0
    c2: float = 10.0
    c3: float = 0.1

    def __post_init__(self) -> None:
        if self.policy not in tuple(POLICIES):  # a tuple, because what was passed may have no hash
            raise InputError(f"policy: unknown policy {self.policy!r}; allowed: {', '.join(POLICIES)}")
        for name, limit in (("outer", _MAX_OUTER), ("inner", _MAX_INNER)):
            value = getattr(self, name)
            if value is None:
                continue
            self._check_used(name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{name}: found {value!r}; allowed: a whole number from 1 to {limit}, or None")
            if not 1 <= value <= limit:
                cure = "; c3 grows tenfold with each accepted run" if name == "outer" and value > limit else ""
                raise InputError(f"{name}: found {value}; allowed: 1 to {limit}{cure}")
        for name in ("learning_rate", "c1", "c2", "c3"):
            value = getattr(self, name)
            if value is None and name == "learning_rate":
                continue
            if not _is_finite_number(value):
                raise InputError(f"{name}: found {value!r}; allowed: a finite number")
            object.__setattr__(self, name, float(value))
        if self.policy == "siguard":
            self._check_ranges()
        if self.learning_rate is not None:
            self._check_used("learning_rate")

    def _check_used(self, name: str) -> None:
        if getattr(POLICIES[self.policy], name) is None:
            raise InputError(f"{name}: policy {self.policy!r} has no such parameter; leave it at None")

    def _check_ranges(self) -> None:
        full = self.resolved()
        assert full.outer is not None  # noqa: S101 - for the type checker
        assert full.learning_rate is not None  # noqa: S101 - for the type checker
        last_rate = full.learning_rate * LEARNING_RATE_GROWTH ** (full.outer - 1)
        if full.learning_rate < LEARNING_RATE_LEAST or last_rate > LEARNING_RATE_LIMIT:
            allowed = LEARNING_RATE_LIMIT / LEARNING_RATE_GROWTH ** (full.outer - 1)
            raise InputError(
                f"learning_rate: found {full.learning_rate}; allowed: {LEARNING_RATE_LEAST} to {allowed:.4g} "
                f"with outer = {full.outer} (it grows by {LEARNING_RATE_GROWTH} with each run)"
            )
        for name in ("c1", "c2", "c3"):
            value = getattr(full, name)
            if value != 0 and not _MIN_WEIGHT <= value <= _MAX_WEIGHT:
                raise InputError(f"{name}: found {value}; allowed: 0, or {_MIN_WEIGHT} to {_MAX_WEIGHT:.0f}")
        if full.c1 == 0 and full.c2 == 0 and full.c3 == 0:
            raise InputError("c1, c2, c3: all are 0; at least one term must have a weight")
        largest = full.c3 * C3_GROWTH ** (full.outer - 1)
        if largest > _MAX_WEIGHT:
            raise InputError(
                f"outer: c3 = {full.c3} grows to {largest:g} in {full.outer} runs and would leave the "
                f"fixed-point range; allowed: c3 * 10^(outer - 1) <= {_MAX_WEIGHT:.0f}"
            )

    def resolved(self) -> GuardConfig:
        """The same configuration with the policy's own values in place of None, where it has the parameter."""
        own = POLICIES[self.policy]
        result = object.__new__(GuardConfig)  # validated already
        for name, value in asdict(self).items():
            object.__setattr__(result, name, getattr(own, name, None) if value is None else value)
        return result

    @property
    def iterations(self) -> int:
        """Public number of optimisation steps per query: outer x inner, however they are scheduled."""
        full = self.resolved()
        if full.outer is None or full.inner is None:
            return POLICIES[self.policy].steps
        return full.outer * full.inner

    def to_dict(self) -> dict[str, Any]:
        """Plain values in a fixed order, as signed by the model owner and sent with a request."""
        return asdict(self.resolved())

    def described(self) -> str:
        """For people: the policy with the values that it uses, as `siguard share-model --allow` takes it."""
        used = {name: value for name, value in self.to_dict().items() if name != "policy" and value is not None}
        if POLICIES[self.policy].inner is None:
            used = {name: value for name, value in used.items() if name not in ("c1", "c2", "c3")}
        values = ",".join(f"{name}={value:g}" for name, value in used.items())
        return f"{self.policy}:{values}" if values else self.policy

    def with_values(self, **changes: Any) -> GuardConfig:
        """A copy with some fields replaced, validated again."""
        return replace(self, **changes)


def _is_finite_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False
