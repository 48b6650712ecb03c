"""Seconds of a query to three server processes over sealed loopback TCP, against the same query in memory.

    python bench/processes.py [--repeats 9] [--batches 1 10 100] [--policies siguard decay linesearch label none]
                              [--modes auto few bytes] [--limit 30] [--quick] [--out FILE]

Both run in turn, in the same minute, so that their ratio means something on a busy machine.  Prints one JSON object
a line as it goes, then a table.  bench/NOTES.md says how to read the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import structlog
import trio
from measuring import (
    Report,
    SkippedError,
    parsed,
    parser_of,
    peak_bytes,
    plan_name,
    positive,
    processor_seconds,
    report,
    reset_peak,
    short,
)
from measuring import measured as several
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table
from run import CLASSES, HIDDEN, MODES, POLICIES, random_inputs, untrained_layers

import siguard
from siguard.actors.session import SERVERS
from siguard.deploy.launch import open_processes
from siguard.deploy.loopback import make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.user import User, connect

FEATURES = 16


@dataclass(frozen=True)
class Processes:
    """One policy at one batch size in one mode: medians of seconds, and what was sent.

    rounds, bytes_total, messages: between processes; in memory the same where ``plan`` is that of ``memory_plan``.
    server_cpu_seconds: of each server in a call, the mean over all calls.  server_peak_bytes: of each server.
    detail: why the row was skipped.
    """

    policy: str
    mode: str
    batch: int
    detail: str = ""
    plan: str = ""
    memory_plan: str = ""
    repeats: int = 0
    rounds: int | None = None
    bytes_total: int | None = None
    messages: int | None = None
    memory_seconds: float | None = None
    processes_seconds: float | None = None
    processes_min: float | None = None
    processes_max: float | None = None
    ratio: float | None = None
    server_cpu_seconds: dict[str, float | None] = field(default_factory=dict)
    server_peak_bytes: dict[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Both:
    """A deployment in memory and one of processes, with the same networks."""

    cluster: siguard.Cluster
    user: User
    pids: dict[str, int]
    model: siguard.Model
    defender: siguard.Defender


async def measure(both: Both, policy: str, mode: str, batch: int, repeats: int, limit: float) -> Processes:
    """The same rows in memory and over processes, one after the other."""
    config = siguard.GuardConfig(policy, rounds=mode)
    rows = np.random.default_rng(batch).normal(size=(batch, FEATURES))
    in_memory: list[siguard.GuardResult] = []

    async def call() -> siguard.GuardResult:
        in_memory.append(await both.cluster.query(rows, both.model, both.defender, config))
        return await both.user.query(rows, config)

    for pid in both.pids.values():
        reset_peak(pid)
    before = {server: processor_seconds(pid) for server, pid in both.pids.items()}
    calls = await several(call, repeats, limit)
    one, other = in_memory[-1], calls.result
    plans = [plan_name(result.planned.plan) if result.planned else "" for result in (one, other)]
    sent = [(r.traffic.rounds, r.traffic.bytes_total, r.traffic.messages) for r in (one, other)]
    if plans[0] == plans[1] and sent[0] != sent[1]:
        raise SystemExit(f"bench: {policy}, batch {batch}: {sent[0]} in memory, {sent[1]} over TCP")
    used: dict[str, float | None] = {}
    for server, pid in both.pids.items():
        start, end = before[server], processor_seconds(pid)
        used[server] = None if start is None or end is None else (end - start) / len(in_memory)
    memory = statistics.median(result.seconds for result in in_memory[1:])
    middle = statistics.median(calls.seconds)
    return Processes(
        policy=policy,
        mode=mode,
        batch=batch,
        plan=plans[1],
        memory_plan=plans[0],
        repeats=len(calls.seconds),
        rounds=other.traffic.rounds,
        bytes_total=other.traffic.bytes_total,
        messages=other.traffic.messages,
        memory_seconds=memory,
        processes_seconds=middle,
        processes_min=min(calls.seconds),
        processes_max=max(calls.seconds),
        ratio=middle / memory,
        server_cpu_seconds=used,
        server_peak_bytes={server: peak_bytes(pid) for server, pid in both.pids.items()},
    )


async def run(
    policies: Sequence[str],
    modes: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    limit: float,
    found: Report,
) -> None:
    """Measure, and add rows to the report; what a smaller batch was skipped for is not tried with a larger one."""
    _, defender = random_inputs(1, seed=1)
    model = siguard.Model(untrained_layers(np.random.default_rng(1), FEATURES, CLASSES))
    loopback = await make_loopback()
    owner, user = loopback.identities["owner"], loopback.identities["user"]
    configs = [siguard.GuardConfig(policy) for policy in policies]
    async with open_processes(loopback) as servers, siguard.open_cluster() as cluster:
        async with connect_owner(loopback.deployment, owner) as sharing:
            await sharing.share(model, defender, configs)
        pids = {server: servers.pid(server) for server in SERVERS}
        async with connect(loopback.deployment, user) as asking:
            both = Both(cluster, asking, pids, model, defender)
            for policy, mode in product(policies, modes):
                reason = ""
                for batch in sorted(batches):
                    try:
                        if reason:
                            raise SkippedError(reason)
                        found.add(await measure(both, policy, mode, batch, repeats, limit))
                    except SkippedError as skipped:
                        reason = str(skipped)
                        found.add(Processes(policy, mode, batch, reason))


def table(rows: Sequence[Processes]) -> Table:
    """The rows for a terminal; cpu: seconds of the busiest server, peak: megabytes of the largest."""
    title = f"one query, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1"
    headings = ("policy", "mode", "batch", "rounds", "MB", "memory", "processes", "min-max", "cpu", "peak")
    result = empty_table(title, headings, left=("policy", "mode"))
    for row in rows:
        if row.detail:
            result.add_row(row.policy, row.mode, str(row.batch), "-", "-", row.detail[:24])
            continue
        cpu = [value for value in row.server_cpu_seconds.values() if value is not None]
        peak = [value for value in row.server_peak_bytes.values() if value is not None]
        result.add_row(
            row.policy,
            row.mode,
            str(row.batch),
            str(row.rounds),
            short((row.bytes_total or 0) / 1e6),
            f"{row.memory_seconds:.3f}",
            f"{row.processes_seconds:.3f}",
            f"{row.processes_min:.2f}-{row.processes_max:.2f}",
            f"{max(cpu):.2f}" if cpu else "-",
            f"{max(peak) / 1e6:.0f}" if peak else "-",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("Three sealed processes against one process in memory.")
    parser.set_defaults(repeats=9)
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["auto", "few"])
    quick = {"repeats": 2, "batches": [1], "policies": ["label"], "modes": ["few"]}
    options = parsed(parser, arguments, quick)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))  # links that open are no news
    with report(options.out) as found:
        chosen = (options.policies, options.modes, options.batches, options.repeats, options.limit)
        trio.run(run, *chosen, found)
    Console().print(table(found.rows))


if __name__ == "__main__":
    main()
