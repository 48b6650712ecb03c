"""Seconds, rounds and bytes of each guard policy in memory, at several batch sizes, on this machine.

    python bench/run.py [--batches 1 10 100 1000] [--policies siguard decay linesearch label none]
                        [--modes auto few bytes] [--repeats 5] [--limit 30] [--recorded] [--quick] [--out FILE]

Prints one JSON object a line as it goes, then a table; a row that does not fit in memory, or whose first call takes
longer than the limit, is skipped and says why.  bench/NOTES.md says how to read the figures.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import trio
from measuring import (
    Report,
    SkippedError,
    Spread,
    measured,
    parsed,
    parser_of,
    plan_name,
    report,
    short,
)
from measuring import positive as positive
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table

import siguard
from siguard.nn.model import FloatArray
from siguard.proofsim.recorder import Recorder

CLASSES = 10
HIDDEN = (128, 64)
POLICIES = ("siguard", "decay", "linesearch", "label", "none")
MODES = ("auto", "few", "bytes")
#: Calls of more bytes are not recorded: a recorder keeps them all.
_RECORDED_BYTES = 200_000_000


@dataclass(frozen=True)
class Policy:
    """One policy at one batch size in one mode: the cost of one call, and its time over the repeats.

    detail: why the row was skipped; then the figures are None.  cpu_seconds: of all parties, the least.
    prepare_seconds, online_seconds: medians of `Cluster.prepare`, and of the calls that use it.
    """

    policy: str
    mode: str
    batch: int
    detail: str = ""
    plan: str = ""
    repeats: int = 0
    iterations: int | None = None
    rounds: int | None = None
    bytes_total: int | None = None
    bytes_dealt: int | None = None
    bytes_online: int | None = None
    bytes_by_link: dict[str, int] = field(default_factory=dict)
    messages: int | None = None
    predicted_seconds: float | None = None
    seconds: float | None = None
    seconds_min: float | None = None
    seconds_max: float | None = None
    cpu_seconds: float | None = None
    prepare_seconds: float | None = None
    online_seconds: float | None = None
    peak_bytes: int | None = None
    reference_seconds: float | None = None
    times_reference: float | None = None
    recorded_seconds: float | None = None
    times_recorded: float | None = None


def untrained_layers(rng: np.random.Generator, *widths: int) -> list[tuple[FloatArray, FloatArray]]:
    """Weights of a dense network, as before its training: cost needs none."""
    return [
        (rng.normal(0, np.sqrt(2 / rows), (rows, columns)), rng.normal(0, 0.1, columns))
        for rows, columns in itertools.pairwise(widths)
    ]


def random_inputs(batch: int, seed: int, classes: int = CLASSES) -> tuple[FloatArray, siguard.Defender]:
    """Seeded logits of shape (batch, classes) and an untrained h of shape classes-128-64-1."""
    rng = np.random.default_rng(seed)
    layers = untrained_layers(rng, classes, *HIDDEN, 1)
    return rng.normal(0, 4, (batch, classes)), siguard.Defender(layers)


@dataclass(frozen=True)
class Clusters:
    """A deployment as it is, and one under the recorder of `siguard prove` if that is asked for."""

    plain: siguard.Cluster
    recorded: siguard.Cluster | None
    recorder: Recorder


@dataclass(frozen=True)
class Options:
    """How often, how long, from which seed."""

    repeats: int
    limit: float
    seed: int


async def measure(clusters: Clusters, policy: str, mode: str, batch: int, options: Options) -> Policy:
    """One policy at one batch size; the baselines run between the calls, so under the same load."""
    config = siguard.GuardConfig(policy=policy, rounds=mode)
    logits, defender = random_inputs(batch, options.seed)
    baseline: list[float] = []

    async def call() -> siguard.GuardResult:
        started = time.perf_counter()
        siguard.reference.guard(logits, defender, config)
        baseline.append(time.perf_counter() - started)
        return await clusters.plain.guard(logits, defender, config)

    # The baseline is not part of the seconds that a result says, and is taken off those of the processor.
    calls = await measured(call, options.repeats, options.limit)
    result, spread = calls.result, Spread.of(calls.seconds)
    prepared = await prepared_seconds(clusters.plain, logits, defender, config, len(calls.seconds))
    recorded = None
    if clusters.recorded is not None and result.traffic.bytes_total <= _RECORDED_BYTES:
        recorded = await recorded_seconds(clusters, logits, defender, config, len(calls.seconds))
    reference = statistics.median(baseline)
    return Policy(
        policy=policy,
        mode=mode,
        batch=batch,
        plan=plan_name(result.planned.plan) if result.planned else "",
        repeats=len(calls.seconds),
        iterations=result.iterations,
        rounds=result.traffic.rounds,
        bytes_total=result.traffic.bytes_total,
        bytes_dealt=result.traffic.prepare,
        bytes_online=result.traffic.online,
        bytes_by_link={f"{one} to {other}": n.bytes for (one, other), n in result.traffic.by_link().items()},
        messages=result.traffic.messages,
        predicted_seconds=result.planned.seconds if result.planned else None,
        seconds=spread.median,
        seconds_min=spread.least,
        seconds_max=spread.most,
        cpu_seconds=max(0.0, min(calls.cpu_seconds) - min(baseline)),
        prepare_seconds=prepared[0],
        online_seconds=prepared[1],
        peak_bytes=calls.peak,
        reference_seconds=reference,
        times_reference=spread.median / reference,
        recorded_seconds=recorded,
        times_recorded=None if recorded is None else recorded / spread.median,
    )


async def prepared_seconds(
    cluster: siguard.Cluster,
    logits: FloatArray,
    defender: siguard.Defender,
    config: siguard.GuardConfig,
    repeats: int,
) -> tuple[float, float]:
    """Medians of the seconds of preparing a call, and of the call."""
    ahead, online = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        await cluster.prepare(defender, config, len(logits))
        ahead.append(time.perf_counter() - started)
        online.append((await cluster.guard(logits, defender, config)).seconds)
    return statistics.median(ahead), statistics.median(online)


async def recorded_seconds(
    clusters: Clusters,
    logits: FloatArray,
    defender: siguard.Defender,
    config: siguard.GuardConfig,
    repeats: int,
) -> float:
    """Median of the seconds of a call under the recorder."""
    assert clusters.recorded is not None  # noqa: S101 - for the type checker
    seconds = []
    for _ in range(repeats + 1):
        clusters.recorder.clear()
        seconds.append((await clusters.recorded.guard(logits, defender, config)).seconds)
    clusters.recorder.clear()
    return statistics.median(seconds[1:])


def table(rows: Sequence[Policy]) -> Table:
    """The rows for a terminal."""
    title = f"one call in memory, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1"
    headings = ("policy", "mode", "batch", "rounds", "MB", "seconds", "min-max", "cpu", "online", "peak")
    result = empty_table(title, headings, left=("policy", "mode"))
    for row in rows:
        if row.detail:
            result.add_row(row.policy, row.mode, str(row.batch), "-", "-", row.detail[:24])
            continue
        result.add_row(
            row.policy,
            row.mode,
            str(row.batch),
            str(row.rounds),
            short((row.bytes_total or 0) / 1e6),
            f"{row.seconds:.3f}",
            f"{row.seconds_min:.2f}-{row.seconds_max:.2f}",
            f"{row.cpu_seconds:.2f}",
            f"{row.online_seconds:.2f}",
            "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
        )
    return result


async def run(
    policies: Sequence[str],
    modes: Sequence[str],
    batches: Sequence[int],
    options: Options,
    found: Report,
    *,
    recorded: bool,
) -> None:
    """Measure, and add rows to the report; what a smaller batch was skipped for is not tried with a larger one."""
    recorder, seed = Recorder(), options.seed
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(siguard.open_cluster(seed=seed))
        other = None
        if recorded:
            wrapped = siguard.open_cluster(seed=seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness)
            other = await stack.enter_async_context(wrapped)
        clusters = Clusters(plain, other, recorder)
        for policy, mode in itertools.product(policies, modes):
            reason = ""
            for batch in sorted(batches):
                try:
                    if reason:
                        raise SkippedError(reason)
                    found.add(await measure(clusters, policy, mode, batch, options))
                except SkippedError as skipped:
                    reason = str(skipped)
                    found.add(Policy(policy, mode, batch, reason))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("Cost of each guard policy on this machine.")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--recorded", action="store_true", help="the same under the recorder of `siguard prove`, too"
    )
    options = parsed(
        parser, arguments, {"repeats": 2, "batches": [1, 4], "policies": ["none", "linesearch"], "modes": ["few"]}
    )
    chosen = Options(options.repeats, options.limit, options.seed)
    try:
        with report(Path(options.out) if options.out else None) as found:
            trio.run(
                lambda: run(
                    options.policies, options.modes, options.batches, chosen, found, recorded=options.recorded
                )
            )
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")
    Console().print(table(found.rows))


if __name__ == "__main__":
    main()
