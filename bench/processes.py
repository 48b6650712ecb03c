"""Seconds of a query to three server processes over sealed loopback TCP, against the same query in memory.

    python bench/processes.py [--repeats 9] [--batches 1 10 100] [--policies siguard linesearch label none]

Both run in turn, in the same minute, so that their ratio means something on a busy machine.  Prints one JSON object
a line as it goes, then a table.  bench/NOTES.md says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import structlog
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import CLASSES, HIDDEN, positive, random_inputs, untrained_layers

import siguard
from siguard.deploy.launch import open_processes
from siguard.deploy.loopback import make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.user import User, connect

FEATURES = 16


@dataclass(frozen=True)
class Row:
    """One policy at one batch size: medians of seconds, and what was sent, which is the same in both."""

    policy: str
    batch: int
    repeats: int
    rounds: int
    bytes_total: int
    messages: int
    memory_seconds: float
    processes_seconds: float
    processes_min: float
    processes_max: float
    ratio: float


async def measure(
    cluster: siguard.Cluster,
    user: User,
    model: siguard.Model,
    defender: siguard.Defender,
    policy: str,
    batch: int,
    repeats: int,
) -> Row:
    """The same rows in memory and over processes, one after the other."""
    config = siguard.GuardConfig(policy)
    rows = np.random.default_rng(batch).normal(size=(batch, FEATURES))
    in_memory, over_tcp = [], []
    for number in range(repeats + 1):
        one = await cluster.query(rows, model, defender, config)
        other = await user.query(rows, config)
        if number:  # the first shares networks and fills caches
            in_memory.append(one.seconds)
            over_tcp.append(other.seconds)
    sent = [(r.traffic.rounds, r.traffic.bytes_total, r.traffic.messages) for r in (one, other)]
    if sent[0] != sent[1]:
        raise SystemExit(f"bench: {policy}, batch {batch}: {sent[0]} in memory, {sent[1]} over TCP")
    rounds, total, messages = sent[0]
    middle = statistics.median(over_tcp)
    return Row(
        policy=policy,
        batch=batch,
        repeats=repeats,
        rounds=rounds,
        bytes_total=total,
        messages=messages,
        memory_seconds=statistics.median(in_memory),
        processes_seconds=middle,
        processes_min=min(over_tcp),
        processes_max=max(over_tcp),
        ratio=middle / statistics.median(in_memory),
    )


async def run(policies: Sequence[str], batches: Sequence[int], repeats: int) -> None:
    """Measure, print a JSON line for each row as it comes, then the table."""
    _, defender = random_inputs(1, seed=1)
    model = siguard.Model(untrained_layers(np.random.default_rng(1), FEATURES, CLASSES))
    loopback = await make_loopback()
    owner, user = loopback.identities["owner"], loopback.identities["user"]
    configs = [siguard.GuardConfig(policy) for policy in policies]
    rows = []
    async with open_processes(loopback), siguard.open_cluster() as cluster:
        async with connect_owner(loopback.deployment, owner) as sharing:
            await sharing.share(model, defender, configs)
        async with connect(loopback.deployment, user) as asking:
            for policy in policies:
                for batch in batches:
                    rows.append(await measure(cluster, asking, model, defender, policy, batch, repeats))
                    print(json.dumps(asdict(rows[-1])), flush=True)
    Console().print(table(rows))


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    title = f"one query, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1"
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("policy", "batch", "rounds", "MB", "sent", "memory", "processes", "min-max", "ratio"):
        result.add_column(heading, justify="left" if heading == "policy" else "right", no_wrap=True)
    for row in rows:
        result.add_row(
            row.policy,
            str(row.batch),
            str(row.rounds),
            f"{row.bytes_total / 1e6:.3f}",
            str(row.messages),
            f"{row.memory_seconds:.3f}",
            f"{row.processes_seconds:.3f}",
            f"{row.processes_min:.2f}-{row.processes_max:.2f}",
            f"{row.ratio:.2f}",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description="Three sealed processes against one process in memory.")
    parser.add_argument("--repeats", type=positive, default=9, help="timed calls for each row")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="+", default=["siguard", "linesearch", "label", "none"])
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))  # links that open are no news
    trio.run(run, options.policies, options.batches, options.repeats)


if __name__ == "__main__":
    main()
