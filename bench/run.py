"""Seconds, rounds, bytes and messages of each guard policy, at several batch sizes, on this machine.

    python bench/run.py [--repeats 5] [--batches 1 10 100] [--policies siguard linesearch label none]

Prints one JSON object a line as it goes, then a table.  bench/NOTES.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import siguard
from siguard.nn.model import FloatArray
from siguard.proofsim.recorder import Recorder

CLASSES = 10
HIDDEN = (128, 64)


@dataclass(frozen=True)
class Row:
    """One policy at one batch size: the cost of one call, its time over the repeats, and the baseline's."""

    policy: str
    batch: int
    repeats: int
    iterations: int
    rounds: int
    bytes_total: int
    messages: int
    seconds: float
    seconds_min: float
    seconds_max: float
    reference_seconds: float
    times_reference: float
    recorded_seconds: float
    times_recorded: float


def untrained_layers(rng: np.random.Generator, *widths: int) -> list[tuple[FloatArray, FloatArray]]:
    """Weights of a dense network, as before its training: cost needs none."""
    return [
        (rng.normal(0, np.sqrt(2 / rows), (rows, columns)), rng.normal(0, 0.1, columns))
        for rows, columns in itertools.pairwise(widths)
    ]


def random_inputs(batch: int, seed: int) -> tuple[FloatArray, siguard.Defender]:
    """Seeded logits of shape (batch, 10) and an untrained h of shape 10-128-64-1."""
    rng = np.random.default_rng(seed)
    layers = untrained_layers(rng, CLASSES, *HIDDEN, 1)
    return rng.normal(0, 4, (batch, CLASSES)), siguard.Defender(layers)


@dataclass(frozen=True)
class Clusters:
    """A deployment as it is, and one under the recorder of `siguard prove`."""

    plain: siguard.Cluster
    recorded: siguard.Cluster
    recorder: Recorder


async def measure(clusters: Clusters, policy: str, batch: int, repeats: int, seed: int) -> Row:
    """One policy at one batch size; the baselines run between the calls, so under the same load."""
    config = siguard.GuardConfig(policy=policy)
    logits, defender = random_inputs(batch, seed)
    # Shares h and fills caches: not counted.
    for cluster in (clusters.plain, clusters.recorded):
        result = await cluster.guard(logits, defender, config)
    seconds, recorded, baseline = [], [], []
    for _ in range(repeats):
        clusters.recorder.clear()
        recorded.append((await clusters.recorded.guard(logits, defender, config)).seconds)
        clusters.recorder.clear()
        result = await clusters.plain.guard(logits, defender, config)
        seconds.append(result.seconds)
        start = time.perf_counter()
        siguard.reference.guard(logits, defender, config)
        baseline.append(time.perf_counter() - start)
    return Row(
        policy=policy,
        batch=batch,
        repeats=repeats,
        iterations=result.iterations,
        rounds=result.traffic.rounds,
        bytes_total=result.traffic.bytes_total,
        messages=result.traffic.messages,
        seconds=statistics.median(seconds),
        seconds_min=min(seconds),
        seconds_max=max(seconds),
        reference_seconds=statistics.median(baseline),
        times_reference=statistics.median(seconds) / statistics.median(baseline),
        recorded_seconds=statistics.median(recorded),
        times_recorded=statistics.median(recorded) / statistics.median(seconds),
    )


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    title = f"one call, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1"
    # Narrow: a terminal of 80 columns, or a file.
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    headings = ("policy", "batch", "rounds", "MB", "sent", "seconds", "min-max", "times", "recorded")
    for heading in headings:
        result.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.policy,
            str(row.batch),
            str(row.rounds),
            f"{row.bytes_total / 1e6:.3f}",
            str(row.messages),
            f"{row.seconds:.3f}",
            f"{row.seconds_min:.2f}-{row.seconds_max:.2f}",
            f"{row.times_reference:.0f}",
            f"{row.times_recorded:.2f}",
        )
    return result


async def run(policies: Sequence[str], batches: Sequence[int], repeats: int, seed: int) -> None:
    """Measure, print a JSON line for each row as it comes, then the table."""
    rows = []
    recorder = Recorder()
    async with (
        siguard.open_cluster(seed=seed) as plain,
        siguard.open_cluster(seed=seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness) as recorded,
    ):
        clusters = Clusters(plain, recorded, recorder)
        for policy in policies:
            for batch in batches:
                rows.append(await measure(clusters, policy, batch, repeats, seed))
                print(json.dumps(asdict(rows[-1])), flush=True)
    Console().print(table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description="Cost of each guard policy on this machine.")
    parser.add_argument("--repeats", type=positive, default=5, help="timed calls for each row")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="+", default=["siguard", "linesearch", "label", "none"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        trio.run(run, options.policies, options.batches, options.repeats, options.seed)
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")


def positive(text: str) -> int:
    """An option that is a whole number from 1 up."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    main()
