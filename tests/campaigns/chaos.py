"""Three real server processes on loopback, and signals: what breaks, and whether it is told and mended.

    python tests/campaigns/chaos.py [--kills 100] [--scenarios all] [--seed N]

First the scenarios of chaos_scenarios.py, then ``--kills`` random points at which a random server is killed while
two queries run.  Each query must end in time with the right answer or with an error naming the server; the two
others live on; after a restart the next query is right; descriptors, threads and tasks are as at the start.
Prints a JSON line for each, then a table; exits 1 when something did not hold.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import trio
import typer
from campaign_deployment import LINESEARCH, SERVERS, SIGUARD, Fleet, at_ports, open_fleet, pids, with_limits
from campaign_report import Report, quantile
from campaign_resources import is_alive, resources
from chaos_baseline import dead_servers, take_baseline
from chaos_queries import ask_during, bound, later, must_be_right, must_fail_or_be_right, nothing
from chaos_scenarios import ALL_DEALERS, GUEST, SCENARIOS, Stage
from tcp_proxy import open_proxy

from siguard.deploy.launch import Processes
from siguard.deploy.loopback import make_loopback

#: Seconds that a server waits for a frame, and a party for a link.
_LIMITS = {"deadline": 3.0, "connect": 8.0}


@asynccontextmanager
async def _open_stage(report: Report, seed: int) -> AsyncIterator[Stage]:
    """A deployment behind a proxy; afterwards nothing of it may be left on this machine."""
    descriptors = resources(os.getpid()).descriptors
    loopback = await make_loopback("chaos", users=("user", GUEST))
    real = {server: loopback.listeners[server].socket.getsockname()[1] for server in SERVERS}
    async with open_proxy(real) as proxy:

        def tell_callers_apart(processes: Processes) -> None:
            proxy.pids = lambda: {**pids(processes), "user": os.getpid()}

        proxied = with_limits(at_ports(loopback, proxy.ports), **_LIMITS)
        async with open_fleet(proxied, tell_callers_apart) as fleet:
            typical = await _typical_seconds(fleet)
            stage = Stage(fleet, proxy, await take_baseline(fleet), random.Random(seed), typical)  # noqa: S311
            report.line(limits=_LIMITS, typical_seconds=round(typical, 3), baseline=stage.baseline.counts)
            yield stage
            running, folder = fleet.pids(), fleet.processes.folder
    wrong = [f"{server} still runs" for server, pid in running.items() if is_alive(pid)]
    wrong += [f"{folder} is still there"] if folder.exists() else []
    left = resources(os.getpid()).descriptors - descriptors
    # trio and structlog keep none; a descriptor more is a socket or a pipe that nobody closed.
    wrong += [f"{left} descriptors more than at the start"] if left > 0 else []
    report.found("clean-up", wrong)


async def _typical_seconds(fleet: Fleet) -> float:
    """Seconds of a siguard query with another one beside it, as in the kills; the median of three."""
    # First as many at once as ever: the threads that this needs are there when the baseline is taken.
    seconds = []
    for configs in (ALL_DEALERS, *[(SIGUARD, LINESEARCH)] * 3):
        outcomes = await ask_during(fleet, configs, 0, nothing)
        wrong = must_be_right(outcomes)
        if wrong:
            raise AssertionError(f"undisturbed: {', '.join(wrong)}")
        seconds.append(max(one.seconds for one in outcomes))
    return quantile(seconds[1:], 0.5)


async def _kill(stage: Stage, number: int, report: Report, tally: Counter[str]) -> list[float]:
    """Kill a random server at a random moment of two queries; the seconds until each of those failed."""
    fleet, rng = stage.fleet, stage.rng
    victim, moment = rng.choice(SERVERS), rng.uniform(0, 0.8) * stage.typical
    beside = rng.choice((SIGUARD, LINESEARCH))
    pid = fleet.processes.pid(victim)

    async def kill() -> None:
        fleet.processes.signal(victim, signal.SIGKILL)
        await fleet.processes.wait(victim)

    outcomes = await ask_during(fleet, [SIGUARD, beside], moment, kill)
    wrong = must_fail_or_be_right(outcomes, [victim], bound(fleet))
    if dead_servers(fleet) != [victim]:
        wrong.append(f"{victim} was killed, and these are dead: {', '.join(dead_servers(fleet))}")
    await fleet.processes.start(victim)
    wrong += [f"{victim} has the process id of before"] if fleet.processes.pid(victim) == pid else []
    started = trio.current_time()
    wrong += await later(fleet, SIGUARD, number)
    recovered = trio.current_time() - started
    wrong += await stage.baseline.left_behind(fleet, threads=False)
    tally.update("answered" if one.error is None else "failed" for one in outcomes)
    tally["error without a step"] += sum(
        one.error is not None and getattr(one.error, "step", None) is None for one in outcomes
    )
    report.found(
        f"kill {number}",
        wrong,
        victim=victim,
        moment=round(moment, 3),
        queries=[one.as_dict() for one in outcomes],
        recovered=round(recovered, 3),
    )
    return [one.seconds for one in outcomes if one.error is not None]


async def _campaign(report: Report, kills: int, names: Sequence[str], seed: int) -> list[list[object]]:
    rows: list[list[object]] = []
    async with _open_stage(report, seed) as stage:
        for name in names:
            stage.told = {}
            started = trio.current_time()
            wrong = await SCENARIOS[name](stage)
            wrong += await stage.baseline.left_behind(stage.fleet)
            wrong += [f"{server} is dead" for server in dead_servers(stage.fleet)]
            report.found(name, wrong, seconds=round(trio.current_time() - started, 1), told=stage.told)
            rows.append([name, "FAIL" if wrong else "ok", trio.current_time() - started])
        tally: Counter[str] = Counter()
        until_error: list[float] = []
        before, started = len(report.failures), trio.current_time()
        for number in range(kills):
            until_error += await _kill(stage, number, report, tally)
        if kills:
            report.found("after the kills", await stage.baseline.left_behind(stage.fleet))
            counts = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()))
            worst = f"; slowest error after {max(until_error):.2f} s" if until_error else ""
            good = "ok" if len(report.failures) == before else "FAIL"
            rows.append([f"{kills} kills ({counts}{worst})", good, trio.current_time() - started])
    return rows


def main(
    kills: Annotated[int, typer.Option(min=0, help="Random points at which a server is killed.")] = 100,
    scenarios: Annotated[str, typer.Option(help=f"all, none, or some of: {' '.join(SCENARIOS)}.")] = "all",
    seed: Annotated[int | None, typer.Option(help="Of victims and moments.", show_default="random")] = None,
) -> None:
    """Kill, stop, cut and starve a deployment of three processes."""
    names = {"all": list(SCENARIOS), "none": []}.get(scenarios, scenarios.replace(",", " ").split())
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; there are {' '.join(SCENARIOS)}", param_hint="--scenarios")
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    report = Report()
    report.line(campaign="chaos", seed=chosen, kills=kills, scenarios=names)
    rows = trio.run(partial(_campaign, report, kills, names, chosen))
    sys.exit(report.end(f"chaos, seed {chosen}", ("what", "result", "seconds"), rows))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
