"""Throughput, latency and processor time of links between two processes on this machine.

    python bench/links.py [--repeats 5] [--megabytes 512] [--messages 5000] [--links memory raw plain sealed]

Two processes, each on a core of its own where there are two, over loopback.  ``raw`` is a blocking socket without
anything: the baseline, measured between the others.  ``memory`` is the in-process link between two tasks.
Prints one JSON object a line as it goes, then a table; `Row` says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import socket
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import TypeAlias

import trio
from nacl.signing import SigningKey
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run import positive

from siguard.transport.link import Link
from siguard.transport.memory import memory_link_pair
from siguard.transport.secure import Identity, seal
from siguard.transport.tcp import TcpLink

#: The long-term keys of the two ends, made for one run.
Keys: TypeAlias = dict[str, SigningKey]

LARGE, SMALL = 1 << 20, 300
KINDS = ("memory", "raw", "plain", "sealed")
#: What is measured: large messages one way, small ones one way, small ones there and back.
JOBS = ("large", "small", "ping")


@dataclass(frozen=True)
class Job:
    """One timed exchange: ``count`` messages of ``size`` bytes, one way or there and back."""

    kind: str
    what: str
    count: int

    @property
    def size(self) -> int:
        """Bytes of a message."""
        return LARGE if self.what == "large" else SMALL


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, and processor seconds of this end, for one job."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Row:
    """One link doing one job: median, least and most over the repeats.

    value is MB/s for large messages, microseconds per message one way for small ones.  to_raw: median of the ratios
    to the raw socket in the same repeat.  cpu_us, peer_cpu_us: processor microseconds of the two ends per message;
    in ``ping``, per message sent and one received.
    """

    link: str
    what: str
    unit: str
    bytes: int
    messages: int
    repeats: int
    value: float
    value_min: float
    value_max: float
    to_raw: float | None
    cpu_us: float
    peer_cpu_us: float | None


def pin(core: int) -> None:
    """Keep this process on one core, where the platform can and there is more than one."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(0, {cores[core % len(cores)]})


def processor_seconds() -> float:
    """What this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# The two ends over a raw socket -------------------------------------------------------------------------------


def raw_read(connection: socket.socket, buffer: memoryview) -> None:
    """Fill the buffer."""
    filled = 0
    while filled < len(buffer):
        count = connection.recv_into(buffer[filled:])
        if count == 0:
            raise ConnectionError("the other end of the raw socket is gone")
        filled += count


def raw_near(connection: socket.socket, job: Job) -> None:
    """The end that sends first, and is timed."""
    message, buffer = bytes(job.size), memoryview(bytearray(job.size))
    for _ in range(job.count):
        connection.sendall(message)
        if job.what == "ping":
            raw_read(connection, buffer)
    if job.what != "ping":
        raw_read(connection, buffer[:1])


def raw_far(connection: socket.socket, job: Job) -> None:
    """The end that receives first."""
    message, buffer = bytes(job.size), memoryview(bytearray(job.size))
    for _ in range(job.count):
        raw_read(connection, buffer)
        if job.what == "ping":
            connection.sendall(message)
    if job.what != "ping":
        connection.sendall(b"1")


# The two ends over a link -------------------------------------------------------------------------------------


async def near(link: Link, job: Job) -> None:
    """The end that sends first, and is timed."""
    message = bytes(job.size)
    for _ in range(job.count):
        await link.send(message)
        if job.what == "ping":
            await link.receive()
    if job.what != "ping":
        await link.receive()


async def far(link: Link, job: Job) -> None:
    """The end that receives first."""
    message = bytes(job.size)
    for _ in range(job.count):
        received = await link.receive()
        if job.what == "ping":
            await link.send(message)
    if len(received) != job.size:
        raise AssertionError(f"{len(received)} bytes came instead of {job.size}")
    if job.what != "ping":
        await link.send(b"1")


@asynccontextmanager
async def open_link(connection: socket.socket, kind: str, end: str, keys: Keys) -> AsyncIterator[Link]:
    """The link of this kind for one end of a connected socket."""
    async with trio.open_nursery() as nursery:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        link: Link = TcpLink(stream, "far" if end == "near" else "near", nursery)
        if kind == "sealed":
            known = {name: key.verify_key for name, key in keys.items()}
            link = await seal(link, Identity(end, keys[end]), known, initiator=end == "near")
        yield link
        await link.aclose()


# One job ------------------------------------------------------------------------------------------------------


def run_end(connection: socket.socket, job: Job, end: str, keys: Keys) -> Cost:
    """Do one end's part of a job, once to warm up and once timed."""
    warm = Job(job.kind, job.what, max(job.count // 10, 1))
    if job.kind == "raw":
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        part = raw_near if end == "near" else raw_far
        with connection:
            part(connection, warm)
            start, used = time.perf_counter(), processor_seconds()
            part(connection, job)
            return Cost(time.perf_counter() - start, processor_seconds() - used)

    async def over_link() -> Cost:
        part = near if end == "near" else far
        async with open_link(connection, job.kind, end, keys) as link:
            await part(link, warm)
            start, used = time.perf_counter(), processor_seconds()
            await part(link, job)
            return Cost(time.perf_counter() - start, processor_seconds() - used)

    return trio.run(over_link)


def far_process(orders: Connection, port: int, seeds: dict[str, bytes]) -> None:
    """The other process: connects for each job that it is given, and answers with its cost."""
    pin(1)
    keys = {name: SigningKey(seed) for name, seed in seeds.items()}
    while True:
        job = orders.recv()
        if job is None:
            return
        orders.send(run_end(socket.create_connection(("127.0.0.1", port)), job, "far", keys))


async def in_memory(job: Job) -> Cost:
    """Both ends in this process; the processor time is that of both."""
    one, other = memory_link_pair("near", "far")
    start, used = time.perf_counter(), processor_seconds()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(far, other, job)
        await near(one, job)
    return Cost(time.perf_counter() - start, processor_seconds() - used)


class Bench:
    """The near process: gives the far one its jobs and keeps what they cost."""

    def __init__(self, listener: socket.socket, orders: Connection, keys: Keys) -> None:
        self._listener = listener
        self._keys = keys
        self._orders = orders
        self._costs: dict[tuple[str, str], list[tuple[Cost, Cost | None]]] = {}

    def run(self, job: Job) -> None:
        """Do a job once."""
        if job.kind == "memory":
            costs: tuple[Cost, Cost | None] = (trio.run(in_memory, job), None)
        else:
            self._orders.send(job)
            connection, _ = self._listener.accept()
            mine = run_end(connection, job, "near", self._keys)
            costs = (mine, self._orders.recv())
        self._costs.setdefault((job.kind, job.what), []).append(costs)

    def row(self, job: Job) -> Row:
        """The figures of all repeats of a job."""
        costs = self._costs[job.kind, job.what]
        values = [figure(mine, job) for mine, _ in costs]
        raw = [figure(mine, job) for mine, _ in self._costs.get(("raw", job.what), [])]
        peers = [peer.cpu for _, peer in costs if peer is not None]
        return Row(
            link=job.kind,
            what=job.what,
            unit="MB/s" if job.what == "large" else "us",
            bytes=job.size,
            messages=job.count,
            repeats=len(costs),
            value=statistics.median(values),
            value_min=min(values),
            value_max=max(values),
            to_raw=statistics.median(a / b for a, b in zip(values, raw, strict=True)) if raw else None,
            cpu_us=statistics.median(mine.cpu for mine, _ in costs) / job.count * 1e6,
            peer_cpu_us=statistics.median(peers) / job.count * 1e6 if peers else None,
        )


def figure(cost: Cost, job: Job) -> float:
    """MB/s, or microseconds per message one way."""
    if job.what == "large":
        return job.size * job.count / cost.seconds / 1e6
    return cost.seconds / job.count / (2 if job.what == "ping" else 1) * 1e6


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    title = f"messages of {LARGE} bytes (large) and {SMALL} bytes (small, ping) between two processes"
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("what", "link", "value", "min-max", "unit", "to raw", "cpu us", "peer's"):
        result.add_column(heading, justify="left" if heading in ("what", "link", "unit") else "right", no_wrap=True)
    for row in rows:
        digits = 0 if row.what == "large" else 1
        result.add_row(
            row.what,
            row.link,
            f"{row.value:.{digits}f}",
            f"{row.value_min:.{digits}f}-{row.value_max:.{digits}f}",
            row.unit,
            "" if row.to_raw is None else f"{row.to_raw:.2f}",
            f"{row.cpu_us:.1f}",
            "" if row.peer_cpu_us is None else f"{row.peer_cpu_us:.1f}",
        )
    return result


def run(kinds: Sequence[str], repeats: int, megabytes: int, messages: int) -> None:
    """Measure, print a JSON line for each row, then the table."""
    jobs = [Job(kind, what, megabytes if what == "large" else messages) for what in JOBS for kind in kinds]
    processes = multiprocessing.get_context("spawn")
    orders, theirs = processes.Pipe()
    keys = {name: SigningKey.generate() for name in ("near", "far")}
    seeds = {name: bytes(key) for name, key in keys.items()}
    rows = []
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = processes.Process(
            target=far_process, args=(theirs, listener.getsockname()[1], seeds), daemon=True
        )
        process.start()
        theirs.close()
        try:
            pin(0)
            bench = Bench(listener, orders, keys)
            for what in JOBS:
                chosen = [job for job in jobs if job.what == what]
                # Repeats go round the links, so that a busy moment hits them all.
                for _ in range(repeats):
                    for job in chosen:
                        bench.run(job)
                for job in chosen:
                    rows.append(bench.row(job))
                    print(json.dumps(asdict(rows[-1])), flush=True)
            orders.send(None)
            process.join()
        finally:
            process.kill()
            if cores is not None:
                os.sched_setaffinity(0, cores)
    Console().print(table(rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = argparse.ArgumentParser(description="Speed of links between two processes of this machine.")
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs for each row")
    parser.add_argument("--megabytes", type=positive, default=512, help="messages of 1 MB in a run")
    parser.add_argument("--messages", type=positive, default=5000, help="small messages in a run")
    parser.add_argument("--links", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args(arguments)
    run(options.links, options.repeats, options.megabytes, options.messages)


if __name__ == "__main__":
    main()
