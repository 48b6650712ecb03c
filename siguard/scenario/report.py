"""`Report`: what a scenario measured, as JSON and as tables; docs/scenarios.md explains each figure."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siguard.actors.result import plan_words
from siguard.guard.failures import Failures

if TYPE_CHECKING:
    from rich.table import Table

#: Version of the layout of report.json; a change of meaning or a removed key raises it, an added one does not.
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PolicyFigures:
    """One policy over all evaluated rows; rounds, bytes, messages and seconds are those of one full batch.

    Undefended is what policy ``none`` released for the same row, so these figures measure the guard alone.
    label_kept: share of rows, 0 to 1, whose released label is the undefended one.
    accepted: share of rows for which some outer run was accepted; None where a policy validates nothing.
    l1: mean over rows of ``sum |released - undefended|``.
    seconds: median over the full batches, from call to answer, by the scenario's clock; with least and most.
    iterations: public number of optimisation steps per query.
    plan: how it was computed, as `siguard.guard.plan.Plan` explains.
    rounds_declared, bytes_declared: of the guard by that plan, without inference; rounds with input and reveal.
    bytes_prepare, bytes_online: what the dealing server sent to the others, and all else; together bytes_total.
    failures: declared probabilities that the arithmetic of one full batch fails.
    """

    label_kept: float
    accepted: float | None
    l1: float
    rounds: int
    bytes_total: int
    messages: int
    seconds: float
    seconds_min: float
    seconds_max: float
    iterations: int
    plan: dict[str, str | bool]
    rounds_declared: int
    bytes_declared: int
    bytes_prepare: int
    bytes_online: int
    failures: Failures


@dataclass(frozen=True)
class AttackFigures:
    """One attack against one policy's released confidences; 0.5 is guessing for the first two."""

    balanced_accuracy: float
    auc: float
    tpr_at_1pct_fpr: float


@dataclass(frozen=True)
class Agreement:
    """Released confidences under MPC against the float64 reference on the same rows.

    label: share of rows with the same label; near ties fall to either side in fixed point.
    accept_bit: share of rows whose accept bit is the same; None where a policy validates nothing.
    rows_within_0_02: share of rows whose every confidence is within 0.02.
    mean_difference, largest_difference: of single confidences, absolute.
    """

    label: float
    accept_bit: float | None
    rows_within_0_02: float
    mean_difference: float
    largest_difference: float


@dataclass(frozen=True)
class DirectionFigures:
    """What the messages of one direction of a link met; mbit_per_s: None for no limit."""

    latency_ms: float = 0.0
    mbit_per_s: float | None = None
    jitter_ms: float = 0.0

    def __str__(self) -> str:
        rate = "" if self.mbit_per_s is None else f", {self.mbit_per_s:g} Mbit/s"
        jitter = "" if not self.jitter_ms else f" + {self.jitter_ms:g}"
        return f"{self.latency_ms:g}{jitter} ms{rate}"


@dataclass(frozen=True)
class NetworkFigures(DirectionFigures):
    """The network of a run: all directions but those in ``links``, by sender->receiver.

    clock: wall or virtual.  costs, cores: of virtual time, None on the wall clock; cores also None where each party
    has a machine of its own.
    """

    profile: str = "none"
    links: dict[str, DirectionFigures] = field(default_factory=dict)
    clock: str = "wall"
    costs: str | None = None
    cores: int | None = None

    def __str__(self) -> str:
        is_shaped = self.latency_ms or self.mbit_per_s or self.jitter_ms
        name = "custom" if self.profile == "none" else self.profile
        shaped = f"{name}: {super().__str__()}" if is_shaped else "unshaped"
        links = ", some directions differ" if self.links else ""
        return f"{shaped}{links}; {self._clock()}"

    def _clock(self) -> str:
        if self.clock == "wall":
            return "wall clock"
        cores = "" if self.cores is None else f", {self.cores} cores"
        return f"virtual clock ({self.costs}{cores})"


@dataclass
class Report:
    """What one run measured so far; ``partial`` with a ``reason`` when the run did not finish.

    transport: memory or tcp.
    guard, agreement: by policy.  attacks: by policy, then by attack.  accuracy: of the target on members and
    non-members, and balanced accuracy of the defender on undefended rows; None for data without a target.
    warnings: what a reader must know before trusting the figures.  notes: how they were obtained.
    """

    scenario: str
    seed: int
    samples: int
    batch: int
    transport: str = "memory"
    network: NetworkFigures = field(default_factory=NetworkFigures)
    guard: dict[str, PolicyFigures] = field(default_factory=dict)
    attacks: dict[str, dict[str, AttackFigures]] = field(default_factory=dict)
    agreement: dict[str, Agreement] = field(default_factory=dict)
    accuracy: dict[str, float | None] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    partial: bool = False
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The content of report.json: plain values, numbers that are not finite as None."""
        head = {"schema": SCHEMA_VERSION}
        finite: dict[str, Any] = _only_finite(asdict(self))
        return {**head, **finite}

    def to_json(self) -> str:
        """The text of report.json."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, folder: str | Path) -> Path:
        """Write ``report.json`` into ``folder``, made if it is not there; returns the file's path."""
        target = Path(folder) / "report.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        # In one step: a reader, or a second Ctrl-C, never finds half a report.
        draft = target.with_name("report.json.tmp")
        draft.write_text(self.to_json(), encoding="utf-8")
        draft.replace(target)
        return target

    def tables(self) -> list[Table]:
        """The figures as tables for a terminal."""
        return [
            table for table in (self._guard_table(), self._plan_table(), self._attack_table()) if table.row_count
        ]

    def _guard_table(self) -> Table:
        where = "in memory" if self.transport == "memory" else "three processes over TCP"
        table = _empty_table(
            f"{self.scenario}: {self.samples} rows; cost of one batch of {self.batch}\n{where}; {self.network}"
        )
        for heading in ("label\nkept", "accepted", "L1", "steps", "rounds", "MB", "mes-\nsages", "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        for policy, row in self.guard.items():
            table.add_row(
                policy,
                f"{row.label_kept:.3f}",
                "-" if row.accepted is None else f"{row.accepted:.3f}",
                f"{row.l1:.3f}",
                str(row.iterations),
                str(row.rounds),
                f"{row.bytes_total / 1e6:.2f}",
                str(row.messages),
                _spread(row),
            )
        return table

    def _plan_table(self) -> Table:
        table = _empty_table("how it was computed; declared for the guard, prepare and online as measured")
        table.add_column("plan", no_wrap=True)
        for heading in ("decl.\nrounds", "decl.\nMB", "prepare\nMB", "online\nMB", "wrong\nanswer", "noise\nlost"):
            table.add_column(heading, justify="right", no_wrap=True)
        for policy, row in self.guard.items():
            table.add_row(
                policy,
                plan_words(row.plan).replace(", ", "\n"),
                str(row.rounds_declared),
                f"{row.bytes_declared / 1e6:.2f}",
                f"{row.bytes_prepare / 1e6:.2f}",
                f"{row.bytes_online / 1e6:.2f}",
                f"{row.failures.wrong_answer:.0e}",
                f"{row.failures.noise_lost:.0e}",
            )
        return table

    def _attack_table(self) -> Table:
        table = _empty_table("attacks: balanced accuracy / AUC (0.5 is guessing)")
        names = list(dict.fromkeys(name for rows in self.attacks.values() for name in rows))
        for name in names:
            table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
        for policy, rows in self.attacks.items():
            cells = [
                f"{rows[name].balanced_accuracy:.3f}/{rows[name].auc:.3f}" if name in rows else "-"
                for name in names
            ]
            table.add_row(policy, *cells)
        return table


def _empty_table(title: str) -> Table:
    """A table whose first column is the policy, narrow enough for a terminal of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("policy", no_wrap=True)
    return table


def _spread(row: PolicyFigures) -> str:
    """Median, and below it least and most where they differ."""
    median, least, most = map(_seconds, (row.seconds, row.seconds_min, row.seconds_max))
    return median if least == most else f"{median}\n{least}-{most}"


def _seconds(value: float) -> str:
    decimals = next((count for count, below in ((3, 1), (2, 10), (1, 100)) if value < below), 0)
    return f"{value:.{decimals}f}"


def _only_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _only_finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_only_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
