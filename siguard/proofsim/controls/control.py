"""A negative control, and the climb that finds out which rung notices it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module

import siguard.proofsim
from siguard.errors import leaves_of
from siguard.proofsim.claims import RUNGS, Claim, ControlOutcome, Scope
from siguard.proofsim.walk import gates_of_the_package

#: A quick part of a rung: seed -> claims, tested one after the other as they are asked for.
Battery = Callable[[int], Iterable[Claim]]


@dataclass(frozen=True)
class Control:
    """A deliberate leak in the shipped code.

    name: what is wrong, readably.  expected_rung: the lowest rung that must notice it.  why: which bug it is, and
    where it is on record.  patch: while open, the leak is in the shipped code; answers stay right unless ``why``
    says so.
    """

    name: str
    expected_rung: str
    why: str
    patch: Callable[[], AbstractContextManager[None]]


def _battery(rung: str, seed: int) -> Iterable[Claim]:
    """The rung's own ``battery``, or where it has none its check of a quick scope."""
    module = import_module(f"siguard.proofsim.rungs.{rung}")
    found: Iterable[Claim] = (
        module.battery(seed)
        if hasattr(module, "battery")
        else module.check(Scope(policies=("label", "siguard"), seed=seed))
    )
    return found


#: By rung, lowest first.  The null rung compares a class with itself: whatever it said of a leak would be chance.
BATTERIES: Mapping[str, Battery] = {rung: partial(_battery, rung) for rung in RUNGS if rung != "null"}


def run_control(control: Control, seed: int) -> ControlOutcome:
    """Climb the batteries under the patch, lowest rung first, and stop at the first failing claim.

    What the protocol raises counts as a finding of the rung that made it run.  Runs its own event loops.
    """
    _load()
    with control.patch():
        for rung, battery in BATTERIES.items():
            caught_by, finding = _climb(rung, battery, seed)
            if caught_by:
                return ControlOutcome(control.name, control.expected_rung, caught_by, finding)
    return ControlOutcome(control.name, control.expected_rung, None)


def _climb(rung: str, battery: Battery, seed: int) -> tuple[str | None, str]:
    """The lowest rung of a failing claim, and what it found; (None, "") where all hold."""
    found: tuple[str | None, str] = None, ""
    try:
        for claim in battery(seed):
            if not claim.holds and (found[0] is None or claim.rung == rung):
                found = claim.rung, f"{claim.claim} {{{claim.corrupted}}}: {claim.problem or 'does not hold'}"
            if found[0] == rung:
                break
    except ImportError:
        raise  # a rung that is not installed has found nothing
    except Exception as error:
        return rung, "; ".join(dict.fromkeys(f"{type(leaf).__name__}: {leaf}" for leaf in leaves_of(error)))
    return found


@cache
def _load() -> None:
    """Import all of the harness and walk the gates: what first meets a patched function would keep it for good."""
    for found in pkgutil.walk_packages(siguard.proofsim.__path__, siguard.proofsim.__name__ + "."):
        import_module(found.name)
    gates_of_the_package()
