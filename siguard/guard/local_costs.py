"""What the work of all servers costs on one machine: the figures with which plans are compared.

`bench/plans.py` measures them; `shipped_costs` are those of this package, and say where they come from.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import lru_cache
from importlib import resources
from typing import Any

from siguard.errors import InputError
from siguard.mpc.gate import Cost

COSTS_VERSION = 1


@dataclass(frozen=True)
class LocalCosts:
    """Seconds for each frame of a session, each byte in it, each block of the key generator, all in one process.

    machine, measured, rows: where they come from.  median_error, largest_error: |predicted / measured - 1| over the
    rows to which they were fitted.  Raises `InputError` naming the field.
    """

    frame: float
    byte: float
    block: float
    machine: str = "not said"
    measured: str = "2026-01-01"
    rows: int = 1
    median_error: float = 0.0
    largest_error: float = 0.0

    def __post_init__(self) -> None:
        for name in ("frame", "byte", "block", "median_error", "largest_error"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InputError(f"{name}: found {value!r}; allowed: a finite number of 0 or more")
        rows: Any = self.rows
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise InputError(f"rows: found {rows!r}; allowed: a whole number of 1 or more")
        machine: Any = self.machine
        if not isinstance(machine, str):
            raise InputError(f"machine: found {machine!r}; allowed: a text")
        try:
            date.fromisoformat(self.measured)
        except (TypeError, ValueError):
            raise InputError(f"measured: found {self.measured!r}; allowed: a date as 2026-11-22") from None

    def seconds(self, cost: Cost) -> float:
        """The work of all servers, one after another."""
        return cost.messages * self.frame + cost.payload_bytes * self.byte + cost.blocks * self.block

    def to_json(self) -> str:
        """As `read_costs` reads it."""
        return json.dumps({"version": COSTS_VERSION} | asdict(self), indent=2) + "\n"


def read_costs(text: str, source: str) -> LocalCosts:
    """The costs in a JSON text; raises `InputError` naming ``source``, the field and what is allowed."""
    cure = "bench/plans.py --write FILE measures costs"
    try:
        values: Any = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source}: not JSON: {error}; {cure}") from None
    expected = {"version", *(field.name for field in fields(LocalCosts))}
    if not isinstance(values, dict) or set(values) != expected:
        raise InputError(f"{source}: expected the fields {', '.join(sorted(expected))}; {cure}")
    version = values.pop("version")
    if version != COSTS_VERSION:
        raise InputError(f"{source}: version: found {version!r}; allowed: {COSTS_VERSION}; {cure}")
    try:
        return LocalCosts(**values)
    except InputError as error:
        raise InputError(f"{source}: {error}; {cure}") from None


@lru_cache(maxsize=1)
def shipped_costs() -> LocalCosts:
    """Those that come with the package."""
    file = resources.files("siguard.guard").joinpath("local_costs.json")
    return read_costs(file.read_text(encoding="utf-8"), file.name)
