"""Many sessions through three server processes and one user process: does anything grow?

    python tests/campaigns/soak.py [--sessions 10000] [--burst 200] [--samples 10] [--seed N]

First ``--sessions`` sessions, ``--at-once`` at a time, mostly of the cheapest policy.  Now and then each process's
memory, descriptors and threads are sampled while nothing runs, and this one's tasks.  What is remembered of ended
sessions is bounded and fills up first, so the warm-up is not compared: 5,000 sessions, or half of a shorter run.
After it memory may grow by 5 % or 5 MiB (the larger), anything else not at all.
Then ``--burst`` sessions at once (afterwards, as they leave free memory behind in which a leak would not show): all
must complete, p99 of their times at most five times the median.
Prints a JSON line for each sample, then a table; exits 1 when something grew or an answer was wrong.
"""

from __future__ import annotations

import os
import random
import secrets
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import trio
import typer
from campaign_deployment import LABEL, LINESEARCH, SIGUARD, Fleet, open_fleet, with_limits
from campaign_report import Report, quantile
from campaign_resources import MIB, Resources, resources

from siguard import GuardConfig
from siguard.deploy.loopback import make_loopback


@dataclass(frozen=True)
class Plan:
    """What is asked for; see `main`."""

    sessions: int
    burst: int
    policy: str
    at_once: int
    samples: int
    idle: float
    seed: int


_POLICIES = {"label": LABEL, "linesearch": LINESEARCH, "siguard": SIGUARD}
#: Sessions after which every table of ended sessions is full: they hold 4,096 each.
_WARM = 5_000
#: Seconds after which threads that wait for work have ended.
_THREADS_END = 10.0
_GROWTH, _GROWTH_PART = 5 * MIB, 0.05
#: How much longer than the median the slowest hundredth of a burst may take.
_SPREAD = 5.0


@dataclass(frozen=True)
class Sample:
    """All processes while nothing runs, after so many sessions."""

    sessions: int
    tasks: int
    held: dict[str, Resources]


async def _sample(fleet: Fleet, sessions: int, idle: float) -> Sample:
    await trio.sleep(idle)
    processes = {**fleet.pids(), "user": os.getpid()}
    return Sample(
        sessions,
        trio.lowlevel.current_statistics().tasks_living,
        {name: resources(pid) for name, pid in processes.items()},
    )


class Soak:
    """Sessions and what became of them."""

    def __init__(self, fleet: Fleet, seed: int) -> None:
        self.wrong: Counter[str] = Counter()
        self.policies: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._fleet = fleet
        self._rng = random.Random(seed)  # noqa: S311 - a mix of load, protects nothing

    async def ask(self, number: int, config: GuardConfig) -> None:
        """One session; what is wrong with it is counted."""
        started = trio.current_time()
        try:
            for text in await self._fleet.checked(number, config):
                self.wrong[f"{config.policy}: {text}"] += 1
        except Exception as error:
            self.wrong[f"{config.policy}: {type(error).__name__}: {error}"[:200]] += 1
        self.seconds.append(trio.current_time() - started)
        self.policies[config.policy] += 1

    async def run(self, sessions: int, at_once: int) -> None:
        """A mix: of 200 sessions about 189 label, 10 linesearch, 1 siguard."""
        turns = iter(range(sessions))

        async def worker() -> None:
            for number in turns:
                draw = self._rng.random()
                await self.ask(number, SIGUARD if draw < 0.005 else LINESEARCH if draw < 0.055 else LABEL)

        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(worker)

    async def burst(self, sessions: int, config: GuardConfig) -> None:
        """All at once."""
        async with trio.open_nursery() as nursery:
            for number in range(sessions):
                nursery.start_soon(self.ask, number, config)


async def _burst(
    fleet: Fleet, report: Report, sessions: int, config: GuardConfig, rows: list[list[object]]
) -> None:
    load = Soak(fleet, 0)
    started = trio.current_time()
    await load.burst(sessions, config)
    middle, slowest = quantile(load.seconds, 0.5), quantile(load.seconds, 0.99)
    wrong = [f"{count} sessions: {text}" for text, count in load.wrong.items()]
    if slowest > _SPREAD * middle:
        wrong.append(f"p99 is {slowest / middle:.1f} times the median; at most {_SPREAD:g}")
    peaks = {name: round(resources(pid).peak / MIB, 1) for name, pid in fleet.pids().items()}
    report.found(
        f"burst of {sessions} {config.policy}",
        wrong,
        seconds=round(trio.current_time() - started, 2),
        p50=round(middle, 3),
        p99=round(slowest, 3),
        ratio=round(slowest / middle, 2),
        peak_mib=peaks,
    )
    rows.append([f"burst of {sessions} {config.policy}: p50, p99 s", middle, slowest, "FAIL" if wrong else "ok"])
    rows += [[f"peak MiB of {name}", "", peak, ""] for name, peak in peaks.items()]


def growth(samples: Sequence[Sample], rows: list[list[object]], *, threads: bool) -> list[str]:
    """What grew between the first and the last quarter of the samples.

    threads: those too; there was time for those without work to end.
    """
    count = max(1, len(samples) // 4)
    first, last = samples[:count], samples[-count:]
    wrong = []
    if max(one.tasks for one in last) > max(one.tasks for one in first):
        wrong.append(f"tasks of the user grew from {first[-1].tasks} to {last[-1].tasks}")
    rows.append(["tasks of the user", first[-1].tasks, last[-1].tasks, "FAIL" if wrong else "ok"])
    for name in samples[0].held:
        for what in ("descriptors", "threads") if threads else ("descriptors",):
            before = max(getattr(one.held[name], what) for one in first)
            after = max(getattr(one.held[name], what) for one in last)
            if after > before:
                wrong.append(f"{what} of {name} grew from {before} to {after}")
            rows.append([f"{what} of {name}", before, after, "FAIL" if after > before else "ok"])
        began = statistics.median(one.held[name].rss for one in first)
        ended = statistics.median(one.held[name].rss for one in last)
        grew = ended - began > max(_GROWTH, _GROWTH_PART * began)
        if grew:
            wrong.append(f"memory of {name} grew from {began / MIB:.1f} to {ended / MIB:.1f} MiB")
        rows.append([f"MiB of {name}", began / MIB, ended / MIB, "FAIL" if grew else "ok"])
    return wrong


async def _soak(fleet: Fleet, report: Report, plan: Plan, rows: list[list[object]]) -> None:
    load = Soak(fleet, plan.seed)
    warm = min(_WARM, plan.sessions // 2)
    marks = [warm + (plan.sessions - warm) * step // plan.samples for step in range(plan.samples + 1)]
    started = trio.current_time()
    samples: list[Sample] = []
    done = 0
    for mark in marks:
        await load.run(mark - done, plan.at_once)
        done = mark
        samples.append(await _sample(fleet, done, plan.idle))
        held = {name: one.as_dict() for name, one in samples[-1].held.items()}
        report.line(sessions=done, tasks=samples[-1].tasks, held=held)
    wrong = [f"{count} sessions: {text}" for text, count in load.wrong.items()]
    wrong += growth(samples, rows, threads=plan.idle > _THREADS_END)
    rows.append(
        [f"{plan.sessions} sessions: p50, p99 s", *(quantile(load.seconds, part) for part in (0.5, 0.99)), ""]
    )
    report.found(
        f"soak of {plan.sessions} sessions",
        wrong,
        warm=warm,
        policies=dict(load.policies),
        grown_bytes={name: samples[-1].held[name].rss - samples[0].held[name].rss for name in samples[0].held},
        compared_sessions=plan.sessions - warm,
        seconds=round(trio.current_time() - started, 1),
    )


async def _campaign(report: Report, plan: Plan) -> list[list[object]]:
    rows: list[list[object]] = []
    loopback = await make_loopback("soak")
    # A burst's sessions and their questions about traffic come on top of each other.
    async with open_fleet(with_limits(loopback, sessions=max(256, 2 * plan.burst))) as fleet:
        if plan.sessions:
            await _soak(fleet, report, plan, rows)
        if plan.burst:
            await _burst(fleet, report, plan.burst, _POLICIES[plan.policy], rows)
    return rows


def main(
    sessions: Annotated[int, typer.Option(min=0, help="Sessions in all.")] = 10_000,
    burst: Annotated[int, typer.Option(min=0, help="Sessions at once, afterwards.")] = 200,
    policy: Annotated[str, typer.Option(help=f"Of the burst: {', '.join(_POLICIES)}.")] = "linesearch",
    at_once: Annotated[int, typer.Option(min=1, help="Sessions that run side by side.")] = 20,
    samples: Annotated[int, typer.Option(min=1, help="Samples after the warm-up.")] = 10,
    idle: Annotated[
        float, typer.Option(min=0, help="Seconds of rest before a sample; threads are compared if more than 10.")
    ] = 11.0,
    seed: Annotated[int | None, typer.Option(help="Of the mix of policies.", show_default="random")] = None,
) -> None:
    """Look for growth over many sessions."""
    if policy not in _POLICIES:
        raise typer.BadParameter(f"{policy}; there are {', '.join(_POLICIES)}", param_hint="--policy")
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    plan = Plan(sessions, burst, policy, at_once, samples, idle, chosen)
    report = Report()
    report.line(campaign="soak", **asdict(plan))
    rows = trio.run(_campaign, report, plan)
    sys.exit(report.end(f"soak, seed {chosen}", ("what", "first", "last", "result"), rows))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
