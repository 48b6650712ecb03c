"""What a comparison with peers reports: the rows that are guarded, whether an answer is right, and the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peer_process import Call
from rich.box import SIMPLE_HEAD
from rich.table import Table
from run import CLASSES, HIDDEN, random_inputs

import siguard
from siguard.nn.model import Defender, FloatArray

#: An answer agrees with the float64 guard on a row when no confidence differs by more than this.
TOLERANCE = 2e-2
#: Least share of agreeing rows, of all and of those that the guard changes.  Of 100 rows, float64 guards with
#: another weight, step length or count reach 0.09 to 0.84, and siguard 0.92 to 1.
LEAST_WITHIN = 0.85
#: Rows to choose from, for one that is used.
_CANDIDATES = 4
#: How often logits are moved to see whether a row is steady, and the standard deviation of that.
_NUDGES, _NUDGE = 5, 2e-3


@dataclass(frozen=True)
class Truth:
    """Rows of a benchmark, h, and what the float64 guard makes of them."""

    logits: FloatArray
    defender: Defender
    confidences: FloatArray
    changed: FloatArray

    def save(self, folder: Path) -> Path:
        """As peer programs read them, plain arrays in ``rows.npz`` of a new folder; returns the folder."""
        layers = {
            name: array
            for index, layer in enumerate(self.defender.layers)
            for name, array in zip((f"W{index}", f"b{index}"), layer, strict=True)
        }
        folder.mkdir()
        np.savez(folder / "rows.npz", allow_pickle=False, logits=self.logits, **layers)
        return folder


def truth(policy: str, batch: int, seed: int) -> Truth:
    """Seeded rows of C = 10 logits and an h 10-128-64-1, untrained but centred, so that its sign varies.

    From more rows than needed: first those that the policy changes by more than `TOLERANCE`, so that even a batch
    of 1 tells a guard from none; and before them all, rows whose answer hardly moves when their logits do, since on
    the others a rounding anywhere decides whether noise is accepted, and no fixed-point system can be compared.
    """
    logits, untrained = random_inputs(_CANDIDATES * (batch + 10), seed)
    undefended = siguard.reference.softmax(logits)
    *hidden, (W, b) = untrained.layers
    defender = siguard.Defender([*hidden, (W, b - np.median(untrained(undefended)))])
    config = siguard.GuardConfig(policy)
    guarded = siguard.reference.guard(logits, defender, config).confidences
    changed = np.abs(guarded - undefended).max(axis=1) > TOLERANCE
    steady = np.ones(len(logits), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    for _ in range(_NUDGES):
        nudged = logits + rng.normal(0, _NUDGE, logits.shape)
        moved = siguard.reference.guard(nudged, defender, config).confidences
        steady &= np.abs(moved - guarded).max(axis=1) <= TOLERANCE / 2
    chosen = np.lexsort((~changed, ~steady))[:batch]
    return Truth(logits[chosen], defender, guarded[chosen], changed[chosen])


@dataclass(frozen=True)
class Agreement:
    """How answers compare with the float64 guard: shares of rows, and the largest difference of a confidence."""

    within: float
    label_kept: float
    largest_difference: float
    right: bool


def agreement(expected: Truth, calls: Sequence[Call]) -> Agreement:
    """Over the rows of all calls."""
    shape = expected.confidences.shape
    if any(call.confidences.shape != shape or not np.isfinite(call.confidences).all() for call in calls):
        return Agreement(0.0, 0.0, float("inf"), right=False)
    answers = np.stack([call.confidences for call in calls])
    difference = np.abs(answers - expected.confidences).max(axis=2)
    within = difference <= TOLERANCE
    kept = answers.argmax(axis=2) == expected.logits.argmax(axis=1)
    changed = within[:, expected.changed]
    right = bool(
        kept.all() and within.mean() >= LEAST_WITHIN and (not changed.size or changed.mean() >= LEAST_WITHIN)
    )
    return Agreement(float(within.mean()), float(kept.mean()), float(difference.max()), right)


@dataclass(frozen=True)
class Row:
    """One contestant on one policy and batch.

    status: ``ok``; ``wrong``: it computes something else; ``over the limit``; ``failed``; ``missing``.
    Seconds are the median and range of its calls, None without a figure; ratio: its median to siguard's.
    """

    peer: str
    policy: str
    batch: int
    status: str
    detail: str = ""
    repeats: int = 0
    seconds: float | None = None
    seconds_min: float | None = None
    seconds_max: float | None = None
    ratio: float | None = None
    rounds: int | None = None
    bytes_total: int | None = None
    within: float | None = None
    label_kept: float | None = None
    largest_difference: float | None = None


def measured(peer: str, policy: str, expected: Truth, calls: Sequence[Call], own_seconds: float | None) -> Row:
    """The row of a contestant that answered all its calls; own_seconds: siguard's median in the same run."""
    agreed = agreement(expected, calls)
    seconds = [call.seconds for call in calls]
    middle = statistics.median(seconds)
    return Row(
        peer=peer,
        policy=policy,
        batch=len(expected.logits),
        status="ok" if agreed.right else "wrong",
        detail="" if agreed.right else "it computes something else than the float64 guard",
        repeats=len(calls),
        seconds=middle,
        seconds_min=min(seconds),
        seconds_max=max(seconds),
        ratio=middle / own_seconds if own_seconds else None,
        rounds=calls[-1].rounds,
        bytes_total=calls[-1].bytes_total,
        within=agreed.within,
        label_kept=agreed.label_kept,
        largest_difference=agreed.largest_difference if np.isfinite(agreed.largest_difference) else None,
    )


def short(value: float | None) -> str | None:
    """Three digits, or all of a whole number."""
    return None if value is None else f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal of 80 columns, or a file."""
    title = f"one call, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1"
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    for heading in ("policy", "batch", "peer", "seconds", "min-max", "ratio", "rounds", "MB", "agree", "status"):
        left = heading in ("policy", "peer", "status")
        result.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        cells = (
            row.policy,
            row.batch,
            row.peer,
            short(row.seconds),
            None if row.seconds is None else f"{short(row.seconds_min)}-{short(row.seconds_max)}",
            short(row.ratio),
            row.rounds,
            short(None if row.bytes_total is None else row.bytes_total / 1e6),
            None if row.within is None else f"{row.within:.2f}",
            row.status.removeprefix("over the "),
        )
        result.add_row(*("-" if cell is None else str(cell) for cell in cells))
    return result
