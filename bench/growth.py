"""How one call grows with the number of classes, the rows of a batch, and the iterations of the optimisation.

    python bench/growth.py [--policies siguard decay linesearch] [--along classes batch iterations]
                           [--modes few auto] [--repeats 3] [--limit 30] [--quick] [--out FILE]

In memory; everything but what grows is as in bench/run.py.  Prints one JSON object a line as it goes, then a table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import trio
from measuring import Report, SkippedError, Spread, measured, parsed, parser_of, plan_name, report, short
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table
from run import CLASSES, MODES, Options, random_inputs

import siguard

ALONG = ("classes", "batch", "iterations")
ALL_CLASSES = (2, 10, 30, 100)
BATCHES = (1, 3, 10, 30, 100, 300)
#: Outer runs and steps in each, by policy.
ITERATIONS = {
    "siguard": ((1, 1), (1, 5), (1, 10), (2, 10), (3, 10), (4, 10), (3, 3), (3, 30)),
    "decay": ((1, 1), (1, 2), (1, 4), (1, 6), (1, 8)),
}


@dataclass(frozen=True)
class Step:
    """One size: rows, classes, outer runs and steps in each; None where the policy has its own or none."""

    along: str
    batch: int = 1
    classes: int = CLASSES
    outer: int | None = None
    inner: int | None = None


@dataclass(frozen=True)
class Growth:
    """One policy in one mode at one size.  detail: why it was skipped; then the figures are None."""

    policy: str
    mode: str
    along: str
    batch: int
    classes: int
    outer: int | None
    inner: int | None
    detail: str = ""
    plan: str = ""
    repeats: int = 0
    rounds: int | None = None
    bytes_total: int | None = None
    messages: int | None = None
    seconds: float | None = None
    seconds_min: float | None = None
    seconds_max: float | None = None
    cpu_seconds: float | None = None


def steps(along: str, policy: str, quick: bool) -> Iterator[Step]:
    """All sizes along one axis, smallest first; with ``quick`` two of them, of one iteration where they may be."""
    last, inner = (2, 1) if quick else (None, None)
    if along == "classes":
        yield from (Step(along, classes=classes, inner=inner) for classes in ALL_CLASSES[:last])
    elif along == "batch":
        yield from (Step(along, batch=batch, inner=inner) for batch in BATCHES[:last])
    else:
        pairs = ITERATIONS.get(policy, ())[:last]
        yield from (Step(along, outer=outer, inner=inner) for outer, inner in pairs)


async def measure(cluster: siguard.Cluster, policy: str, mode: str, step: Step, options: Options) -> Growth:
    """One row."""
    logits, defender = random_inputs(step.batch, options.seed, step.classes)
    config = siguard.GuardConfig(policy, outer=step.outer, inner=step.inner, rounds=mode)
    calls = await measured(lambda: cluster.guard(logits, defender, config), options.repeats, options.limit)
    result, spread = calls.result, Spread.of(calls.seconds)
    return Growth(
        policy,
        mode,
        step.along,
        step.batch,
        step.classes,
        step.outer,
        step.inner,
        plan=plan_name(result.planned.plan) if result.planned else "",
        repeats=len(calls.seconds),
        rounds=result.traffic.rounds,
        bytes_total=result.traffic.bytes_total,
        messages=result.traffic.messages,
        seconds=spread.median,
        seconds_min=spread.least,
        seconds_max=spread.most,
        cpu_seconds=min(calls.cpu_seconds),
    )


def table(rows: Sequence[Growth]) -> Table:
    """The rows for a terminal."""
    headings = ("policy", "mode", "along", "size", "rounds", "MB", "seconds", "min-max", "cpu")
    result = empty_table(f"one call in memory; C = {CLASSES}, one row", headings, left=("policy", "mode", "along"))
    for row in rows:
        sizes = {"classes": row.classes, "batch": row.batch, "iterations": f"{row.outer} x {row.inner}"}
        named = (row.policy, row.mode, row.along, str(sizes[row.along]))
        if row.detail:
            result.add_row(*named, "-", "-", row.detail[:24])
            continue
        result.add_row(
            *named,
            str(row.rounds),
            short((row.bytes_total or 0) / 1e6),
            f"{row.seconds:.3f}",
            f"{row.seconds_min:.2f}-{row.seconds_max:.2f}",
            f"{row.cpu_seconds:.2f}",
        )
    return result


async def run(
    policies: Sequence[str],
    modes: Sequence[str],
    along: Sequence[str],
    options: Options,
    found: Report,
    *,
    quick: bool,
) -> None:
    """Measure, and add rows to the report."""
    async with siguard.open_cluster(seed=options.seed) as cluster:
        for policy, axis, mode in product(policies, along, modes):
            for step in steps(axis, policy, quick):
                try:
                    found.add(await measure(cluster, policy, mode, step, options))
                except SkippedError as skipped:
                    sizes = (step.batch, step.classes, step.outer, step.inner)
                    found.add(Growth(policy, mode, axis, *sizes, detail=str(skipped)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("How the cost of a call grows.")
    parser.set_defaults(repeats=3)
    parser.add_argument("--policies", nargs="+", default=["siguard", "decay", "linesearch"])
    parser.add_argument("--along", nargs="+", choices=ALONG, default=list(ALONG))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["few", "auto"])
    options = parsed(parser, arguments, {"repeats": 2, "policies": ["decay"], "modes": ["few"]})
    chosen = Options(options.repeats, options.limit, options.seed)
    try:
        with report(options.out) as found:
            trio.run(
                lambda: run(options.policies, options.modes, options.along, chosen, found, quick=options.quick)
            )
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")
    Console().print(table(found.rows))


if __name__ == "__main__":
    main()
