"""Measure what a frame costs a server on this machine, for repeatable virtual time (`siguard.actors.cost_table`).

    python bench/calibrate.py [--repeats 5] [--batches 1 10 100] [--write siguard/actors/cost_table.json]

Runs guard calls in memory, takes the processor seconds of each server, and fits seconds = cost of each frame sent
and received, and of each of their bytes; costs are 0 or more, and relative errors count.  Prints every row.
What processes pay beyond it for the operating system and for sealing comes from --network-frame and --network-byte.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import trio
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import positive, random_inputs
from scipy.optimize import nnls

import siguard
from siguard.actors.cost_table import TABLE_VERSION, CostTable, Fit, FrameCost
from siguard.actors.server import UPSTREAM, USER
from siguard.actors.session import SERVERS
from siguard.actors.virtual import WORKING_FOR, WorkTimer, virtual_clock
from siguard.transport.accountant import Count
from siguard.transport.link import Data, Link

POLICIES = ("label", "none", "linesearch", "siguard")
_CALLER = "caller"


class ChargingLink:
    """Says whose work it is that starts with a message: tasks of a session come from the one that receives."""

    def __init__(self, link: Link, owner: str) -> None:
        self.peer = link.peer
        self._link = link
        self._owner = owner
        self.send, self.send_eof, self.aclose = link.send, link.send_eof, link.aclose

    async def receive(self) -> Data:
        """The next message."""
        if WORKING_FOR.get() != self._owner:
            WORKING_FOR.set(self._owner)
        return await self._link.receive()


@dataclass(frozen=True)
class Row:
    """One server in the calls of one policy and batch: median processor seconds of a call, and what it counts."""

    policy: str
    batch: int
    server: str
    seconds: float
    frames: tuple[int, int]  # sent, received
    bytes: tuple[int, int]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """What the four costs are multiplied with."""
        return *self.frames, *self.bytes


async def measure(cluster: siguard.Cluster, policy: str, batch: int, repeats: int) -> list[Row]:
    """Rows of the three servers.

    A timer slows down what it measures, and does not see trio's loop between the steps: its seconds are scaled, so
    that those of all parties add up to the processor time of the same call without it.
    """
    config = siguard.GuardConfig(policy=policy)
    logits, defender = random_inputs(batch, seed=1)
    await cluster.guard(logits, defender, config)  # shares h, fills caches
    timer = WorkTimer()
    names = (*SERVERS, USER, UPSTREAM)
    whole, parts = [], []
    for _ in range(repeats):
        # Three calls: the servers take turns as dealer, and the measured call always has the same one.
        for _ in range(len(SERVERS) - 1):
            started = time.thread_time()
            await cluster.guard(logits, defender, config)
            whole.append(time.thread_time() - started)
        trio.lowlevel.add_instrument(timer)
        await trio.lowlevel.checkpoint()
        for name in (_CALLER, *names):
            timer.take(name)
        result = await cluster.guard(logits, defender, config)
        # The running step is the caller's.
        parts.append({name: timer.take(name) for name in (_CALLER, *names)})
        trio.lowlevel.remove_instrument(timer)
    scale = statistics.median(whole) / statistics.median(sum(part.values()) for part in parts)
    links = result.traffic.by_link()
    return [
        Row(
            policy,
            batch,
            server,
            scale * statistics.median(part[server] for part in parts),
            _sent_received(links, server, "messages"),
            _sent_received(links, server, "bytes"),
        )
        for server in SERVERS
    ]


def _sent_received(links: Mapping[tuple[str, str], Count], server: str, what: str) -> tuple[int, int]:
    ends = [[getattr(count, what) for pair, count in links.items() if pair[end] == server] for end in (0, 1)]
    return sum(ends[0]), sum(ends[1])


def fit(rows: Sequence[Row]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Costs of (frame sent, frame received, byte sent, byte received), and each row's predicted / measured."""
    counts = np.array([row.counts for row in rows], dtype=float)
    relative = counts / np.array([[row.seconds] for row in rows])
    largest = relative.max(axis=0)  # columns of one size, for the solver
    costs = nnls(relative / largest, np.ones(len(rows)))[0] / largest
    return costs, relative @ costs


def table_of(rows: Sequence[Row], machine: str, network: FrameCost) -> CostTable:
    """The fitted table."""
    costs, ratios = fit(rows)
    errors = np.abs(ratios - 1)
    return CostTable(
        version=TABLE_VERSION,
        machine=machine,
        measured=datetime.now(UTC).date(),
        send=FrameCost(per_frame_seconds=costs[0], per_byte_seconds=costs[2]),
        receive=FrameCost(per_frame_seconds=costs[1], per_byte_seconds=costs[3]),
        network=network,
        fit=Fit(rows=len(rows), median_error=float(np.median(errors)), largest_error=float(errors.max())),
    )


def printed(rows: Sequence[Row]) -> Table:
    """The rows with what the fit says of them."""
    _, ratios = fit(rows)
    result = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("policy", "batch", "server", "seconds", "sent", "received", "MB sent", "MB received", "fit"):
        result.add_column(heading, justify="right", no_wrap=True)
    for row, ratio in zip(rows, ratios, strict=True):
        result.add_row(
            row.policy,
            str(row.batch),
            row.server,
            f"{row.seconds:.4f}",
            *map(str, row.frames),
            *(f"{size / 1e6:.3f}" for size in row.bytes),
            f"{ratio:.2f}",
        )
    return result


async def run(options: argparse.Namespace) -> None:
    """Measure, print, and write the table if asked."""
    WORKING_FOR.set(_CALLER)
    rows: list[Row] = []
    async with siguard.open_cluster(seed=1, wrap_link=ChargingLink) as cluster:
        for policy in options.policies:
            for batch in options.batches:
                rows += await measure(cluster, policy, batch, options.repeats)
    Console().print(printed(rows))
    network = FrameCost(per_frame_seconds=options.network_frame, per_byte_seconds=options.network_byte)
    table = table_of(rows, options.machine, network)
    text = json.dumps(table.model_dump(mode="json"), indent=2)
    print(text)
    if options.write:
        options.write.write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure; in virtual time, where all work is done in the steps that are measured."""
    parser = argparse.ArgumentParser(description="Fit the cost table of this machine.")
    parser.add_argument("--repeats", type=positive, default=5, help="measured calls for each row")
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100])
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--machine", default=f"{platform.machine()}, Python {platform.python_version()}")
    parser.add_argument("--network-frame", type=float, default=0.0, help="seconds per frame between processes")
    parser.add_argument("--network-byte", type=float, default=0.0, help="seconds per byte between processes")
    parser.add_argument("--write", type=Path, help="where the table goes")
    options = parser.parse_args(arguments)
    try:
        trio.run(run, options, clock=virtual_clock())
    except siguard.SiguardError as error:
        sys.exit(f"calibrate: {error}")


if __name__ == "__main__":
    main()
