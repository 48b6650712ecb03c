"""What a process holds, from /proc: descriptors, threads, resident memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

_PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


@dataclass(frozen=True)
class Resources:
    """One sample.  rss, peak: bytes of resident memory now and at most."""

    descriptors: int
    threads: int
    rss: int
    peak: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def resources(pid: int) -> Resources:
    """What a process holds now; raises `FileNotFoundError` for one that has ended."""
    folder = Path("/proc") / str(pid)
    lines = dict(
        line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines() if ":" in line
    )
    return Resources(
        descriptors=len(list((folder / "fd").iterdir())),
        threads=len(list((folder / "task").iterdir())),
        rss=int((folder / "statm").read_text(encoding="ascii").split()[1]) * _PAGE,
        peak=int(lines["VmHWM"].split()[0]) * 1024,
    )


def is_alive(pid: int) -> bool:
    """Whether the process runs: neither gone nor waiting for its parent to notice that it is."""
    try:
        stat = (Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


async def settles(good: Callable[[], bool], seconds: float) -> bool:
    """Wait until ``good()``; False when that takes too long."""
    with trio.move_on_after(seconds):
        while not good():  # noqa: ASYNC110 - other processes set no event here
            await trio.sleep(0.05)
    return good()
