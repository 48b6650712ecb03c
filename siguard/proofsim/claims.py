"""What a proof run states: claims, controls, and the rungs of the ladder.  Plain data; no check lives here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from siguard.actors.server import USER
from siguard.actors.session import SERVERS
from siguard.errors import InputError

#: The ladder, lowest rung first; ``docs/security.md`` says what each one tests.
RUNGS = ("exact", "simulation", "shape", "content", "null", "taint", "active")

#: Version of the JSON form.
SCHEMA = 1

#: In place of a corrupted set where a claim holds for every observer.
ALL = "all"


class Corrupted(NamedTuple):
    """A corrupted set: at most one server, with or without the user."""

    server: str | None
    user: bool

    def __str__(self) -> str:
        return ",".join(([self.server] if self.server else []) + (["U"] if self.user else []))

    @property
    def parties(self) -> tuple[str, ...]:
        """Names of the parties as actors."""
        return (*((self.server,) if self.server else ()), *((USER,) if self.user else ()))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``S0,U``, ``U`` or ``S1``; raises `InputError` for anything else."""
        names = [name.strip() for name in text.split(",")]
        servers = [name for name in names if name in SERVERS]
        if not names or len(set(names)) != len(names) or len(servers) > 1 or set(names) - {*SERVERS, "U"}:
            raise InputError(
                f"corrupt: found {text!r}; allowed: one server (S0, S1, S2), the user (U), or a server and "
                "the user (S0,U); two servers together can open everything"
            )
        return cls(servers[0] if servers else None, "U" in names)


#: What the threat model allows, largest sets first: {S_i, U}, each server alone, the user alone.
CORRUPTED_SETS = (
    *(Corrupted(server, True) for server in SERVERS),
    *(Corrupted(server, False) for server in SERVERS),
    Corrupted(None, True),
)


@dataclass(frozen=True)
class Scope:
    """What to prove: which policies, against whom, how thoroughly."""

    policies: tuple[str, ...]
    corrupted: tuple[Corrupted, ...] = CORRUPTED_SETS
    full: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Claim:
    """One statement that was tested.

    cases: enumerated, or sampled.  detectable: the smallest effect (total variation, or distinguishing advantage)
    that the test would have seen with probability 0.9; 0.0 where it is exact.
    problem: what was found, in words, where it does not hold.
    """

    claim: str
    rung: str
    corrupted: str
    cases: int
    holds: bool
    detectable: float = 0.0
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "claim": self.claim,
            "rung": self.rung,
            "corrupted": self.corrupted,
            "cases": int(self.cases),
            "verdict": "holds" if self.holds else "fails",
            "detectable": float(self.detectable),
        }


@dataclass(frozen=True)
class ControlOutcome:
    """A deliberate leak, and the lowest rung that caught it (None: no rung did).

    finding: the claim that failed and why.
    """

    control: str
    expected_rung: str
    caught_by: str | None
    finding: str = ""

    @property
    def caught(self) -> bool:
        """Whether the rung that should catch it did, and none below."""
        return self.caught_by == self.expected_rung

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "control": self.control,
            "expected_rung": self.expected_rung,
            "caught_by": self.caught_by,
            "verdict": "caught" if self.caught else "missed",
        }


@dataclass
class ProofReport:
    """All claims and controls of one proof run."""

    scope: Scope
    claims: list[Claim] = field(default_factory=list)
    controls: list[ControlOutcome] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether there are claims and controls, all claims hold, all controls were caught where they should."""
        tested = bool(self.claims) and bool(self.controls)
        return tested and all(c.holds for c in self.claims) and all(c.caught for c in self.controls)

    def to_json(self) -> str:
        """One JSON object, as ``siguard prove --json`` prints it."""
        value = {
            "schema": SCHEMA,
            "holds": self.holds,
            "claims": [claim.to_dict() for claim in self.claims],
            "controls": [control.to_dict() for control in self.controls],
        }
        return json.dumps(value, indent=2, allow_nan=False) + "\n"


def failures(claims: Sequence[Claim]) -> list[Claim]:
    """The claims that do not hold."""
    return [claim for claim in claims if not claim.holds]
