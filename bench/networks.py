"""Seconds of each policy over LAN and WAN, and against the round-trip time, in virtual time; or between processes.

    python bench/networks.py [--policies siguard decay linesearch] [--modes auto few bytes] [--batches 1 10]
                             [--networks lan wan] [--rtts 0.1 1 4 10 20 40 80] [--wall] [--quick] [--out FILE]

Each server has a machine of its own (``table``: stored costs of its work, the same in every run; ``measured``: what
its work takes here).  ``--rtts`` in milliseconds, at the bandwidth of the WAN.  ``--wall``: three server processes
whose links are shaped, in real seconds, mode auto.  Prints one JSON object a line as it goes, then a table.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal

import structlog
import trio
from measuring import Report, Spread, parsed, parser_of, plan_name, positive, report, short
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table
from run import CLASSES, MODES, random_inputs
from virtual_vs_wall import Inputs, on_the_wall

import siguard
from siguard.transport.profiles import Direction, NetworkProfile, network_profile

#: Calls before those that count: each server has been dealer once.
_WARM_UP = 3
#: Bytes above which more calls are not worth their time: the network decides.
_LARGE = 100_000_000


@dataclass(frozen=True)
class Network:
    """One call of a policy in one mode over one network.

    network: a profile, or ``rtt``.  rtt_milliseconds: there and back.  table_seconds: virtual, by stored costs.
    measured_seconds: virtual, by measured costs: median, least and most.
    """

    policy: str
    mode: str
    batch: int
    network: str
    rtt_milliseconds: float
    bits_per_second: float | None
    plan: str
    rounds: int
    bytes_total: int
    table_seconds: float
    measured_seconds: float
    measured_min: float
    measured_max: float


def profiles(networks: Sequence[str], rtts: Sequence[float]) -> list[NetworkProfile]:
    """The profiles of these names, and one for each round-trip time."""
    named = [profile for name in networks if (profile := network_profile(name)) is not None]
    wan = network_profile("wan")
    rate = None if wan is None else wan.default.bits_per_second
    return named + [NetworkProfile("rtt", Direction(rtt / 2000, rate)) for rtt in rtts]


def virtual(
    profile: NetworkProfile, costs: str, config: siguard.GuardConfig, batch: int, repeats: int, seed: int
) -> list[siguard.GuardResult]:
    """Calls in virtual time."""
    logits, defender = random_inputs(batch, seed)

    async def ask() -> list[siguard.GuardResult]:
        time = siguard.VirtualTime("table" if costs == "table" else "measured")
        async with siguard.open_cluster(seed=seed, network=profile, time=time) as cluster:
            results = [await cluster.guard(logits, defender, config)]
            warm = 0 if costs == "table" or results[0].traffic.bytes_total > _LARGE else _WARM_UP
            for _ in range(warm + repeats - 1):
                results.append(await cluster.guard(logits, defender, config))
            return results[-repeats:]

    return trio.run(ask, clock=siguard.virtual_clock())


def measure(profile: NetworkProfile, policy: str, mode: str, batch: int, repeats: int, seed: int) -> Network:
    """One row, without the wall clock."""
    config = siguard.GuardConfig(policy, rounds=mode)
    [stored] = virtual(profile, "table", config, batch, 1, seed)
    large = stored.traffic.bytes_total > _LARGE
    calls = virtual(profile, "measured", config, batch, 1 if large else repeats, seed)
    spread = Spread.of([call.seconds for call in calls])
    return Network(
        policy=policy,
        mode=mode,
        batch=batch,
        network=profile.name,
        rtt_milliseconds=2000 * profile.default.latency_seconds,
        bits_per_second=profile.default.bits_per_second,
        plan=plan_name(stored.planned.plan) if stored.planned else "",
        rounds=stored.traffic.rounds,
        bytes_total=stored.traffic.bytes_total,
        table_seconds=stored.seconds,
        measured_seconds=spread.median,
        measured_min=spread.least,
        measured_max=spread.most,
    )


@dataclass(frozen=True)
class Wall:
    """One policy between three processes with shaped links, mode auto: real seconds of a query."""

    policy: str
    batch: int
    network: str
    rounds: int
    seconds: float
    seconds_min: float
    seconds_max: float


def on_the_clock(
    networks: Sequence[str], policies: Sequence[str], batch: int, repeats: int, seed: int
) -> list[Wall]:
    """Rows of processes."""
    rows = []
    for name in networks:
        network: Literal["wan", "lan"] = "wan" if name == "wan" else "lan"
        inputs = Inputs.random(batch, seed)
        found = trio.run(partial(on_the_wall, network, inputs, policies, repeats))
        rows += [
            Wall(policy, batch, network, rounds, seconds.median, seconds.least, seconds.most)
            for policy, (seconds, rounds) in found.items()
        ]
    return rows


def table(rows: Sequence[Network]) -> Table:
    """The rows for a terminal."""
    headings = ("policy", "mode", "batch", "network", "ms", "rounds", "MB", "table", "measured", "min-max")
    title = f"one call, virtual seconds, C = {CLASSES}"
    result = empty_table(title, headings, left=("policy", "mode", "network"))
    for row in rows:
        result.add_row(
            row.policy,
            row.mode,
            str(row.batch),
            row.network,
            f"{row.rtt_milliseconds:g}",
            str(row.rounds),
            short(row.bytes_total / 1e6),
            short(row.table_seconds),
            short(row.measured_seconds),
            f"{short(row.measured_min)}-{short(row.measured_max)}",
        )
    return result


def run(
    policies: Sequence[str],
    modes: Sequence[str],
    batches: Sequence[int],
    shapes: Sequence[NetworkProfile],
    repeats: int,
    seed: int,
    found: Report,
) -> None:
    """Measure, and add rows to the report; against the round-trip time with the first batch only."""
    for profile, policy, mode, batch in product(shapes, policies, modes, batches):
        if profile.name != "rtt" or batch == batches[0]:
            found.add(measure(profile, policy, mode, batch, repeats, seed))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("Seconds of each policy over networks.")
    parser.set_defaults(repeats=3)
    parser.add_argument("--policies", nargs="+", default=["siguard", "decay", "linesearch"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10])
    parser.add_argument("--networks", nargs="*", choices=["lan", "wan"], default=["lan", "wan"])
    parser.add_argument("--rtts", type=float, nargs="*", default=[0.1, 1, 4, 10, 20, 40, 80])
    parser.add_argument("--wall", action="store_true", help="three processes with shaped links, too")
    quick = {
        "repeats": 1,
        "policies": ["linesearch"],
        "modes": ["few"],
        "batches": [1],
        "networks": ["wan"],
        "rtts": [2],
    }
    options = parsed(parser, arguments, quick)
    # That links are slow is no news.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        with report(options.out) as found:
            shapes = profiles(options.networks, options.rtts)
            run(options.policies, options.modes, options.batches, shapes, options.repeats, options.seed, found)
            rows = list(found.rows)
            if options.wall:
                for wall in on_the_clock(
                    options.networks, options.policies, options.batches[0], options.repeats, options.seed
                ):
                    found.add(wall)
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")
    Console().print(table(rows))


if __name__ == "__main__":
    main()
