"""`Plan`: the public choices of how a guard is computed; what it computes does not depend on them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from siguard.errors import InputError
from siguard.mpc.thresholds import Way


@dataclass(frozen=True)
class Plan:
    """How comparisons are made, by where they stand, and how the backward pass through h.

    hidden: the ReLUs of h.  direct: other comparisons that everything waits for.  beside: those that run beside.
    curves: logarithms and the division by length, and with adders exponentials by tables, two rounds more.
    joined: the gradient is divided by its length in the comparison that finds it, and the step corrected for its
    length in one exchange; else by products of their own, a round more each.
    folded: the backward pass in one product with a matrix folded from the weights of h; two hidden layers only.
    sequential: outer runs one after another instead of side by side.
    """

    hidden: Way = Way.KEY
    direct: Way = Way.KEY
    beside: Way = Way.KEY
    curves: Way = Way.KEY
    folded: bool = True
    joined: bool = True
    sequential: bool = False

    def to_dict(self) -> dict[str, str | bool]:
        """Plain values, as sent with a request."""
        return {
            field.name: value if isinstance(value := getattr(self, field.name), bool) else str(value)
            for field in fields(self)
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """What `to_dict` wrote; raises `InputError` for anything else."""
        expected = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != expected:
            raise InputError(f"plan: expected the fields {', '.join(sorted(expected))}")
        try:
            chosen: dict[str, Any] = {name: Way(values[name]) for name in WAYS}
        except ValueError as error:
            raise InputError(f"plan: {error}; allowed: {', '.join(Way)}") from None
        for name in SWITCHES:
            if not isinstance(values[name], bool):
                raise InputError(f"plan: {name} is {values[name]!r}; allowed: true or false")
            chosen[name] = values[name]
        return cls(**chosen)


#: Fields of a plan that are a `Way`, and those that are true or false.
WAYS = tuple(one.name for one in fields(Plan) if isinstance(one.default, Way))
SWITCHES = tuple(one.name for one in fields(Plan) if isinstance(one.default, bool))
