"""Virtual seconds against real ones: three processes with shaped links on this machine, and their prediction.

    python bench/virtual_vs_wall.py [--repeats 5] [--networks wan lan] [--policies siguard linesearch] [--cores 2]

For each policy and network: a deployment of three server processes over sealed TCP, whose parties shape what they
send, is asked by a user in this process; and the same query runs in memory in virtual time, with stored and with
measured costs, each with one machine per party and with all parties on one machine of ``--cores`` cores, as here.
Prints one JSON object a line as it goes, then a table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import structlog
import trio
from measuring import Spread
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import CLASSES, HIDDEN, positive, random_inputs

import siguard
from siguard.deploy.launch import open_processes
from siguard.deploy.loopback import make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.schema import NetworkSection
from siguard.deploy.user import User, connect
from siguard.errors import leaves_of
from siguard.nn.model import FloatArray

_Profile = Literal["lan", "wan", "none"]
_Costs = Literal["table", "measured"]
#: As many untimed queries go first: each server has been dealer once.
_WARM_UP = 3


class Seconds(Spread):
    """Seconds of several calls."""

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f}-{self.most:.3f})"


@dataclass(frozen=True)
class Row:
    """One policy on one network.

    table, measured: virtual seconds by stored and by measured costs, each party on a machine of its own.
    table_cores, measured_cores: the same with all parties on one machine of ``cores`` cores.
    wall: real seconds of three processes.  rounds: of one query, the same in all of them.
    """

    policy: str
    network: str
    batch: int
    cores: int
    repeats: int
    rounds: int
    table: Seconds
    measured: Seconds
    table_cores: Seconds
    measured_cores: Seconds
    wall: Seconds

    def error(self, predicted: Seconds) -> float:
        """How far a prediction is from the clock, in percent of the clock's."""
        return 100 * (predicted.median / self.wall.median - 1)


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is asked: the rows of `run.random_inputs` through a target that leaves them as they are, one layer."""

    rows: FloatArray
    model: siguard.Model
    defender: siguard.Defender

    @classmethod
    def random(cls, batch: int, seed: int) -> Inputs:
        """Seeded inputs."""
        rows, defender = random_inputs(batch, seed)
        return cls(rows, siguard.Model([(np.eye(CLASSES), np.zeros(CLASSES))]), defender)


@dataclass(frozen=True)
class Options:
    """How often, and what is asked."""

    repeats: int
    batch: int
    seed: int
    cores: int


def _config(policy: str) -> siguard.GuardConfig:
    """One plan for both: ``auto`` knows more of a cluster's links than of those between processes."""
    return siguard.GuardConfig(policy, rounds="few")


@asynccontextmanager
async def processes(network: _Profile, inputs: Inputs, policies: Sequence[str]) -> AsyncIterator[User]:
    """A user of three server processes that hold the model, all with links like ``network``."""
    loopback = (await make_loopback()).changed(network=NetworkSection(profile=network))
    async with open_processes(loopback) as servers, trio.open_nursery() as nursery:
        nursery.start_soon(servers.watch)
        async with connect_owner(loopback.deployment, loopback.identities["owner"]) as owner:
            configs = [_config(policy) for policy in policies]
            await owner.share(inputs.model, inputs.defender, configs)
        async with connect(loopback.deployment, loopback.identities["user"]) as user:
            yield user
        nursery.cancel_scope.cancel()


async def on_the_wall(
    network: _Profile, inputs: Inputs, policies: Sequence[str], repeats: int
) -> dict[str, tuple[Seconds, int]]:
    """Real seconds and rounds by policy."""
    found = {}
    async with processes(network, inputs, policies) as user:
        for policy in policies:
            results = [await user.query(inputs.rows, _config(policy)) for _ in range(_WARM_UP + repeats)]
            seconds = Seconds.of([result.seconds for result in results[_WARM_UP:]])
            found[policy] = seconds, results[0].traffic.rounds
    return found


def in_virtual_time(
    network: _Profile, inputs: Inputs, policy: str, options: Options, costs: _Costs, cores: int | None
) -> tuple[Seconds, int]:
    """Virtual seconds and rounds of one policy."""

    async def ask() -> list[siguard.GuardResult]:
        time = siguard.VirtualTime(costs, cores=cores)
        async with siguard.open_cluster(seed=options.seed, network=network, time=time) as cluster:
            config = _config(policy)
            return [
                await cluster.query(inputs.rows, inputs.model, inputs.defender, config)
                for _ in range(_WARM_UP + options.repeats)
            ]

    results = trio.run(ask, clock=siguard.virtual_clock())
    return Seconds.of([result.seconds for result in results[_WARM_UP:]]), results[0].traffic.rounds


def measure(network: _Profile, policies: Sequence[str], options: Options) -> list[Row]:
    """Rows of all policies on one network."""
    inputs = Inputs.random(options.batch, options.seed)
    wall = trio.run(on_the_wall, network, inputs, policies, options.repeats)
    rows = []
    for policy in policies:
        seconds, rounds = wall[policy]
        predicted = {}
        for costs in ("table", "measured"):
            for cores in (None, options.cores):
                predicted[costs, cores], same = in_virtual_time(network, inputs, policy, options, costs, cores)
                if same != rounds:
                    raise siguard.ProtocolError(f"{policy}: {rounds} rounds between processes, {same} in memory")
        rows.append(
            Row(
                policy,
                network,
                options.batch,
                options.cores,
                options.repeats,
                rounds,
                predicted["table", None],
                predicted["measured", None],
                predicted["table", options.cores],
                predicted["measured", options.cores],
                seconds,
            )
        )
        print(json.dumps(asdict(rows[-1])), flush=True)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal: median (least-most), and how far each prediction is from the clock."""
    title = f"one query, C = {CLASSES}, h {CLASSES}-{'-'.join(map(str, HIDDEN))}-1; virtual by costs, off from wall"
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("policy", "network", "how", "seconds", "off"):
        result.add_column(heading, justify="right" if heading == "off" else "left", no_wrap=True)
    for row in rows:
        result.add_row(row.policy, row.network, "processes, wall clock", str(row.wall), "")
        for how, seconds in (
            ("table", row.table),
            ("measured", row.measured),
            (f"table, {row.cores} cores", row.table_cores),
            (f"measured, {row.cores} cores", row.measured_cores),
        ):
            result.add_row("", "", how, str(seconds), f"{row.error(seconds):+.1f} %")
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description="Virtual seconds against those of three processes.")
    parser.add_argument("--repeats", type=positive, default=5, help="timed queries for each figure")
    parser.add_argument("--networks", nargs="+", choices=["lan", "wan", "none"], default=["wan", "lan"])
    parser.add_argument("--policies", nargs="+", default=["siguard", "linesearch"])
    parser.add_argument("--batch", type=positive, default=1)
    parser.add_argument("--cores", type=positive, default=os.cpu_count() or 1, help="cores of this machine")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    # That links open, and are slow, is no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    options = Options(chosen.repeats, chosen.batch, chosen.seed, chosen.cores)
    rows = []
    try:
        for network in chosen.networks:
            rows += measure(network, chosen.policies, options)
    except BaseExceptionGroup as group:
        sys.exit(f"bench: {next(leaves_of(group))}")
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")
    Console().print(table(rows))


if __name__ == "__main__":
    main()
