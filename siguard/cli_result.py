"""What `siguard query` says of an answer, as JSON and in words."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siguard.actors.result import GuardResult


def as_json(result: GuardResult, *, with_confidences: bool) -> str:
    """Figures of one call, with the keys of a scenario's report where they are the same figures."""
    traffic, planned = result.traffic, result.planned
    content: dict[str, Any] = {"confidences": result.confidences.tolist()} if with_confidences else {}
    content |= {
        "rows": len(result.confidences),
        "seconds": result.seconds,
        "rounds": traffic.rounds,
        "bytes_total": traffic.bytes_total,
        "bytes_prepare": traffic.prepare,
        "bytes_online": traffic.online,
        "messages": traffic.messages,
        "iterations": result.iterations,
    }
    if planned is not None:
        content |= {
            "plan": planned.plan.to_dict(),
            "rounds_declared": planned.rounds,
            "bytes_declared": planned.bytes,
        }
    if result.failures is not None:
        content["failures"] = asdict(result.failures)
    return json.dumps(content, indent=2, allow_nan=False)


def in_words(result: GuardResult) -> str:
    """The same in some lines."""
    from siguard.actors.result import plan_words

    traffic, planned, failures = result.traffic, result.planned, result.failures
    lines = [
        (
            f"{len(result.confidences)} rows in {result.seconds:.3g} s: {traffic.rounds} rounds, "
            f"{traffic.bytes_total / 1e6:.3g} MB ({traffic.prepare / 1e6:.3g} MB of it dealt), "
            f"{traffic.messages} messages"
        )
    ]
    if planned is not None:
        lines.append(
            f"guard declared: {planned.rounds} rounds, {planned.bytes / 1e6:.3g} MB; "
            f"plan: {plan_words(planned.plan.to_dict())}"
        )
    if failures is not None:
        lines.append(
            f"declared to fail at most with probability {failures.wrong_answer:.1e} (wrong answer), "
            f"{failures.noise_lost:.1e} (noise lost)"
        )
    return "\n".join(lines)
