"""Disturbances with a name: each scenario does one thing to a running deployment and says what did not hold."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import numpy as np
import trio
from campaign_deployment import LABEL, LINESEARCH, SERVERS, SIGUARD, Fleet, question
from campaign_resources import settles
from chaos_baseline import Baseline
from chaos_queries import (
    SLACK,
    ask_during,
    bound,
    later,
    must_be_right,
    must_fail_or_be_right,
    nothing,
)
from tcp_proxy import Proxy

from siguard.deploy.keys import default_key_file, write_key

#: Who may be at the two ends of a link, servers first.
PAIRS = (("S0", "S1"), ("S0", "S2"), ("S1", "S2"), ("S0", "user"), ("S1", "user"), ("S2", "user"))
#: The user of a process that is killed, and of garbage; the other one asks the questions.
GUEST = "guest"
#: One query for each dealer: two of the three servers exchange nothing but through the third, in turn.
ALL_DEALERS = (SIGUARD, SIGUARD, SIGUARD)


@dataclass
class Stage:
    """What a scenario plays on.  typical: seconds of an undisturbed query.  told: figures for the report."""

    fleet: Fleet
    proxy: Proxy
    baseline: Baseline
    rng: Random
    typical: float
    told: dict[str, Any] = field(default_factory=dict)

    def moment(self) -> float:
        """A random time within a query."""
        return self.rng.uniform(0.05, 0.8) * self.typical

    @property
    def deadline(self) -> float:
        """Seconds that a server waits for a frame."""
        return self.fleet.loopback.deployment.limits.deadline


Scenario: TypeAlias = Callable[[Stage], Awaitable[list[str]]]


async def stopped_long(stage: Stage) -> list[str]:
    """A server stands still for longer than the deadline, then goes on."""
    wrong = []
    for victim in SERVERS:
        outcomes = await ask_during(
            stage.fleet, ALL_DEALERS, stage.moment(), partial(_signal, stage, victim, signal.SIGSTOP)
        )
        stage.told[victim] = [one.as_dict() for one in outcomes]
        wrong += must_fail_or_be_right(outcomes, [victim], bound(stage.fleet))
        await _signal(stage, victim, signal.SIGCONT)
        wrong += await later(stage.fleet, SIGUARD)
    return wrong


async def stopped_short(stage: Stage) -> list[str]:
    """A server stands still for less than the deadline: the answer is late, and right."""

    async def pause(victim: str) -> None:
        await _signal(stage, victim, signal.SIGSTOP)
        await trio.sleep(stage.deadline / 3)
        await _signal(stage, victim, signal.SIGCONT)

    wrong = []
    for victim in SERVERS:
        outcomes = await ask_during(stage.fleet, [SIGUARD, LINESEARCH], stage.moment(), partial(pause, victim))
        wrong += must_be_right(outcomes)
    return wrong


async def all_killed(stage: Stage) -> list[str]:
    """All three servers are killed at once, and started again; the user's process lives on."""

    async def kill() -> None:
        for server in SERVERS:
            await _signal(stage, server, signal.SIGKILL)

    outcomes = await ask_during(stage.fleet, ALL_DEALERS, stage.moment(), kill)
    for server in SERVERS:
        await stage.fleet.processes.wait(server)
        await stage.fleet.processes.start(server)
    return must_fail_or_be_right(outcomes, SERVERS, bound(stage.fleet)) + await later(stage.fleet, SIGUARD)


async def user_killed(stage: Stage) -> list[str]:
    """A process of another user is killed in the middle of its query."""
    processes = stage.fleet.processes
    write_key(
        default_key_file(processes.config, GUEST),
        GUEST,
        stage.fleet.loopback.identities[GUEST].signing_key,
        force=True,
    )
    rows = processes.folder / "rows.npy"
    np.save(rows, question(0))
    before = [_links(stage, server, GUEST) for server in SERVERS]
    command = [sys.executable, "-m", "siguard", "query", str(rows), "--config", str(processes.config)]
    child = await trio.lowlevel.open_process(
        [*command, "--as", GUEST, "--policy", "siguard"], stdout=subprocess.DEVNULL
    )
    wanted = [count + 1 for count in before]
    if not await settles(lambda: [_links(stage, server, GUEST) for server in SERVERS] == wanted, 30):
        return ["the other user's process did not connect"]
    await trio.sleep(stage.moment())
    ended_before = child.returncode is not None
    child.kill()
    await child.wait()
    wrong = ["the other user's query had ended before it was killed"] if ended_before else []
    wrong += await later(stage.fleet, SIGUARD)
    return wrong


async def never_starts(stage: Stage) -> list[str]:
    """S2 is not there and nobody listens for it, until it starts."""
    processes, connect = stage.fleet.processes, stage.fleet.loopback.deployment.limits.connect
    await stage.proxy.refuse("S2")
    await processes.stop("S2")
    outcomes = await ask_during(stage.fleet, [SIGUARD], 0, nothing)
    stage.told["error"] = [one.as_dict() for one in outcomes]
    wrong = must_fail_or_be_right(outcomes, ["S2"], connect + SLACK)
    wrong += ["an answer came without S2" for one in outcomes if one.error is None]
    await stage.proxy.listen("S2")
    await processes.start("S2")
    return wrong + await later(stage.fleet, SIGUARD)


async def cut(stage: Stage) -> list[str]:
    """The connection of each pair of parties is reset."""

    async def reset(pair: tuple[str, str]) -> None:
        for link in stage.proxy.between(*pair):
            link.reset()
        await trio.lowlevel.checkpoint()

    return await _each_pair(stage, reset)


async def held(stage: Stage) -> list[str]:
    """Nothing passes between two parties for longer than the deadline, then all of it does."""

    async def hold(pair: tuple[str, str]) -> None:
        for link in stage.proxy.between(*pair):
            link.flows = trio.Event()
        await trio.lowlevel.checkpoint()

    return await _each_pair(stage, hold)


async def lost(stage: Stage) -> list[str]:
    """Some bytes between two parties never arrive, and those after them do."""

    async def drop(pair: tuple[str, str]) -> None:
        for link in stage.proxy.between(*pair):
            link.change = _once(link, lambda data: data[: len(data) // 2])
        await trio.lowlevel.checkpoint()

    return await _each_pair(stage, drop, noticed=False)


async def corrupted(stage: Stage) -> list[str]:
    """One bit changes between two parties."""

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[stage.rng.randrange(len(changed))] ^= 1 << stage.rng.randrange(8)
        return bytes(changed)

    async def change(pair: tuple[str, str]) -> None:
        for link in stage.proxy.between(*pair):
            link.change = _once(link, flip)
        await trio.lowlevel.checkpoint()

    return await _each_pair(stage, change, noticed=False)


async def log_full(stage: Stage) -> list[str]:
    """A server whose log cannot be written answers all the same."""
    processes = stage.fleet.processes
    log = processes.log("S1")
    kept = log.rename(log.with_suffix(".kept"))
    log.symlink_to("/dev/full")
    try:
        await processes.stop("S1")
        await processes.start("S1")
        wrong = await later(stage.fleet, SIGUARD) + await later(stage.fleet, LABEL)
    finally:
        log.unlink()
        kept.rename(log)
        await processes.stop("S1")
        await processes.start("S1")
    return wrong + await later(stage.fleet, LABEL)


async def drained(stage: Stage) -> list[str]:
    """SIGTERM in the middle of a query: the query ends well, and so does the server."""
    processes = stage.fleet.processes
    wrong = []
    for victim in SERVERS:
        outcomes = await ask_during(
            stage.fleet, ALL_DEALERS, stage.moment(), partial(_signal, stage, victim, signal.SIGTERM)
        )
        wrong += [f"SIGTERM to {victim}: {text}" for text in must_be_right(outcomes)]
        with trio.move_on_after(15):
            status = await processes.wait(victim)
            if status != 0:
                wrong.append(f"{victim} ended with status {status} after SIGTERM: {processes.end_of_log(victim)}")
            await processes.start(victim)
            wrong += await later(stage.fleet, SIGUARD)
            continue
        wrong.append(f"{victim} did not end within 15 s of SIGTERM")
        await processes.stop(victim)
        await processes.start(victim)
    return wrong


async def garbage(stage: Stage) -> list[str]:
    """Scanners and strangers connect to every server while a query runs."""
    streams: list[trio.SocketStream] = []

    async def scan() -> None:
        for _ in range(20):
            for port in stage.proxy.targets.values():
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                streams.append(stream)
                await stream.send_all(stage.rng.randbytes(stage.rng.choice((1, 4, 80, 2000))))

    outcomes = await ask_during(stage.fleet, [SIGUARD, LINESEARCH], stage.moment() / 2, scan)
    for stream in streams:
        stream.socket.close()
    return must_be_right(outcomes) + await later(stage.fleet, LABEL)


SCENARIOS: dict[str, Scenario] = {
    "stopped-long": stopped_long,
    "stopped-short": stopped_short,
    "all-killed": all_killed,
    "user-killed": user_killed,
    "never-starts": never_starts,
    "cut": cut,
    "held": held,
    "lost": lost,
    "corrupted": corrupted,
    "log-full": log_full,
    "drained": drained,
    "garbage": garbage,
}


async def _each_pair(
    stage: Stage, disturb: Callable[[tuple[str, str]], Awaitable[None]], *, noticed: bool = True
) -> list[str]:
    """Disturb queries on the link of each pair in turn; the network is well again before the next one.

    noticed: nothing of the disturbance is left when the queries have ended.  Else the receiver may still wait for
    the rest of a message, and one more round of queries may fail.
    """
    wrong: list[str] = []
    for pair in PAIRS:
        outcomes = await ask_during(stage.fleet, ALL_DEALERS, stage.moment(), partial(disturb, pair))
        told = [one.as_dict() for one in outcomes]
        found = must_fail_or_be_right(outcomes, pair, bound(stage.fleet))
        for link in stage.proxy.between(*pair):
            link.flows.set()
            link.change = None
        if not noticed:
            outcomes = await ask_during(stage.fleet, ALL_DEALERS, 0, nothing)
            told += [one.as_dict() for one in outcomes]
            found += must_fail_or_be_right(outcomes, pair, bound(stage.fleet))
        found += await later(stage.fleet, SIGUARD)
        stage.told["-".join(pair)] = told
        wrong += [f"{'-'.join(pair)}: {text}" for text in found]
    return wrong


def _once(link: Any, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        link.change = None
        return change(data)

    return changed


async def _signal(stage: Stage, server: str, number: signal.Signals) -> None:
    stage.fleet.processes.signal(server, number)
    await trio.lowlevel.checkpoint()


def _links(stage: Stage, server: str, peer: str) -> int:
    """How often a server's log says that a peer's link was opened."""
    log: Path = stage.fleet.processes.log(server)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return sum("link open" in line and f'"{peer}/' in line for line in lines)
