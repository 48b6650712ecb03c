"""One process of a proof run: takes tasks from stdin, one JSON object a line, and answers each with one on stdout.

Tasks run one after the other; a control patches this process only.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict
from importlib import import_module
from typing import Any

import structlog

from siguard.errors import leaves_of
from siguard.proofsim.claims import ALL, Claim, ControlOutcome, Corrupted, Scope

#: Seeds with which a campaign runs every control.
FULL_SEEDS = 20


def check_rung(rung: str, scope: Scope) -> list[Claim]:
    """All claims of one rung; what the code under test raises is a claim that fails."""
    check = import_module(f"siguard.proofsim.rungs.{rung}").check
    claims: list[Claim] = []
    try:
        claims += check(scope)
    except Exception as error:
        leaf = next(leaves_of(error))
        claims.append(Claim("runs to its end", rung, ALL, 0, False, problem=f"{type(leaf).__name__}: {leaf}"))
    return claims


def check_control(number: int, scope: Scope) -> ControlOutcome:
    """Run one control; in a full scope with many seeds, all of which must be caught by the same rung."""
    from siguard.proofsim.controls import CONTROLS, run_control

    control = CONTROLS[number]
    seeds = range(scope.seed, scope.seed + (FULL_SEEDS if scope.full else 1))
    outcomes = [run_control(control, seed) for seed in seeds]
    rungs = {outcome.caught_by for outcome in outcomes}
    if len(rungs) == 1:
        note = f" (all of {len(outcomes)} seeds)" if scope.full else ""
        return ControlOutcome(control.name, control.expected_rung, rungs.pop(), outcomes[0].finding + note)
    missed = [seed for seed, outcome in zip(seeds, outcomes, strict=True) if not outcome.caught]
    return ControlOutcome(control.name, control.expected_rung, None, f"not caught as expected with seeds {missed}")


def scope_to_dict(scope: Scope) -> dict[str, Any]:
    """Plain values."""
    return {**asdict(scope), "corrupted": [str(one) for one in scope.corrupted]}


def scope_from_dict(values: dict[str, Any]) -> Scope:
    """The inverse of `scope_to_dict`."""
    corrupted = tuple(Corrupted.parse(one) for one in values["corrupted"])
    return Scope(tuple(values["policies"]), corrupted, values["full"], values["seed"])


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    scope = scope_from_dict(task["scope"])
    if "rung" in task:
        return {"claims": [asdict(claim) for claim in check_rung(task["rung"], scope)]}
    return {"control": asdict(check_control(task["control"], scope))}


def main() -> None:
    """Serve tasks until stdin ends."""
    # Answers go to the real stdout; whatever else is printed goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
