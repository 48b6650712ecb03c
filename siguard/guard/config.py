"""`GuardConfig`: the public parameters of a guard, validated before anything is sent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
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
    #: Most outer runs.
    max_outer: int = 6
    #: Length of a step in that of the step before.
    decay: float = 1.0
    #: Longest step on the logits, after growth over all runs; what follows is in `siguard.guard.step_ranges`.
    longest_step: float = 2.0


#: One line per policy.
POLICIES: dict[str, PolicyDefaults] = {
    "siguard": PolicyDefaults(outer=3, inner=10, learning_rate=0.8),
    # A long step is followed by a shorter one, so it may be longer.
    "decay": PolicyDefaults(outer=1, inner=6, learning_rate=2.5, max_outer=1, decay=0.6, longest_step=2.5),
    "linesearch": PolicyDefaults(steps=1),
    "label": PolicyDefaults(),
    "none": PolicyDefaults(),
}

#: `linesearch`: confidences of the label that are tried, evenly spaced with both ends.
LINESEARCH_CANDIDATES = tuple(0.3 + (0.98 - 0.3) * k / 7 for k in range(8))
#: `linesearch`: by how much the label's confidence exceeds the next one at least.
LINESEARCH_MARGIN = 1.02

#: `decay`: noise is accepted where |h| exceeds that of the undefended answer by less than this.  Without it
#: rounding would decide on over-confident rows, where h hardly changes.
DECAY_TOLERANCE = 2.0**-9

#: Shortest step: step lengths are rounded to 2^-10.
LEARNING_RATE_LEAST = 0.01

# Limits that keep the fixed-point arithmetic inside the ring, see docs/numerics.md.
_MAX_INNER = 1_000
_MAX_WEIGHT = 10_000.0
_MIN_WEIGHT = 1e-3


@dataclass(frozen=True)
class GuardConfig:
    """Which guard runs, with which public parameters.  Equal configurations are the same signed permission.

    policy: ``"siguard"`` (the published 3 x 10 guard), ``"decay"``, ``"linesearch"``, ``"label"`` or ``"none"``.
    outer, inner: optimisation runs (``"decay"`` has one), and steps in each; None takes the policy's own value.
    learning_rate: length of one normalised step on the logits (of ``"decay"``: the first); None takes the policy's
    own value.
    c1, c2, c3: weights of the three gradient terms (towards h = 0, keep the label, stay close).
    rounds: how it is computed, which changes no answer and needs no permission: in ``"few"`` rounds, in few
    ``"bytes"``, or ``"auto"``: the fastest for the links at hand (`siguard.guard.planner`).
    max_bytes: with ``"few"``: the fewest rounds with at most so many bytes on all links, preparation included.

    Raises `InputError` naming the field, what was found and what is allowed.
    """

    policy: str = "siguard"
    outer: int | None = None
    inner: int | None = None
    learning_rate: float | None = None
    c1: float = 1.0
    c2: float = 10.0
    c3: float = 0.1
    rounds: str = field(default="auto", compare=False)
    max_bytes: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.policy not in tuple(POLICIES):  # a tuple, because what was passed may have no hash
            raise InputError(f"policy: unknown policy {self.policy!r}; allowed: {', '.join(POLICIES)}")
        self._check_execution()
        own = POLICIES[self.policy]
        for name, limit in (("outer", own.max_outer), ("inner", _MAX_INNER)):
            value = getattr(self, name)
            if value is None:
                continue
            self._check_used(name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{name}: found {value!r}; allowed: a whole number from 1 to {limit}, or None")
            if limit == 1 != value:
                raise InputError(f"{name}: found {value}; allowed: 1 or None, policy {self.policy!r} has one run")
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
        if own.inner is not None:
            self._check_ranges()
        if self.learning_rate is not None:
            self._check_used("learning_rate")

    def _check_execution(self) -> None:
        if self.rounds not in ("auto", "few", "bytes"):
            raise InputError(f"rounds: found {self.rounds!r}; allowed: auto, few, bytes")
        most = self.max_bytes
        if most is None:
            return
        if self.rounds != "few":
            raise InputError(f"max_bytes: it steers rounds = 'few'; found rounds = {self.rounds!r}")
        given: object = most
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InputError(f"max_bytes: found {most!r}; allowed: a whole number of bytes, or None")

    def _check_used(self, name: str) -> None:
        if getattr(POLICIES[self.policy], name) is None:
            raise InputError(f"{name}: policy {self.policy!r} has no such parameter; leave it at None")

    def _check_ranges(self) -> None:
        full = self.resolved()
        assert full.outer is not None  # noqa: S101 - for the type checker
        self._check_step_lengths(full)
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

    def _check_step_lengths(self, full: GuardConfig) -> None:
        assert full.outer is not None  # noqa: S101 - for the type checker
        assert full.inner is not None  # noqa: S101 - for the type checker
        assert full.learning_rate is not None  # noqa: S101 - for the type checker
        own = POLICIES[self.policy]
        most = own.longest_step / LEARNING_RATE_GROWTH ** (full.outer - 1)
        if own.decay < 1:
            steps = 1 + int(math.log(LEARNING_RATE_LEAST / most, own.decay))
            if full.inner > steps:
                raise InputError(
                    f"inner: found {full.inner}; allowed: 1 to {steps} (each step has {own.decay} of the length of "
                    f"the one before, and those shorter than {LEARNING_RATE_LEAST} would be lost in rounding)"
                )
            why = f"inner = {full.inner} (each step has {own.decay} of the length of the one before)"
        else:
            why = f"outer = {full.outer} (it grows by {LEARNING_RATE_GROWTH} with each run)"
        least = LEARNING_RATE_LEAST / own.decay ** (full.inner - 1)
        if not least <= full.learning_rate <= most:
            raise InputError(
                f"learning_rate: found {full.learning_rate}; allowed: {least:.4g} to {most:.4g} with {why}"
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
        values = asdict(self.resolved())
        return {name: value for name, value in values.items() if name not in ("rounds", "max_bytes")}

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
