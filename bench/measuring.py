"""What the scripts of this folder share: spread, processor time, peak memory, skipped rows, JSON lines."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, TextIO

import trio
from rich.box import SIMPLE_HEAD
from rich.table import Table

import siguard
from siguard.guard.plan import SWITCHES, WAYS, Plan


@dataclass(frozen=True)
class Spread:
    """Median, least and most of several figures."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Of at least one figure."""
        return cls(statistics.median(figures), min(figures), max(figures))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.least)}-{short(self.most)})"


def short(value: float | None) -> str:
    """Three digits, or all of a whole number; ``-`` without a value."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def table(title: str, headings: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """An empty table for a terminal of 80 columns, or a file."""
    result = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        result.add_column(heading, justify="left" if heading in left else "right", no_wrap=True)
    return result


# --- options and rows -------------------------------------------------------------------------------------


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options of every script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=positive, default=5, help="timed calls for each row")
    parser.add_argument("--limit", type=float, default=30.0, help="seconds of a call beyond which a row is skipped")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few small rows, to see that everything runs")
    parser.add_argument("--out", type=Path, help="a new file for the JSON lines, beside the output")
    return parser


def parsed(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, quick: Mapping[str, Any]
) -> argparse.Namespace:
    """The options; with ``--quick`` the defaults are those of ``quick``."""
    if parser.parse_args(arguments).quick:
        parser.set_defaults(**quick)
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """An option that is a whole number from 1 up."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


@dataclass
class Report:
    """Rows of one run: each is printed as a JSON line as it comes, and written to a file if there is one."""

    file: TextIO | None = None
    rows: list[Any] = field(default_factory=list)

    def add(self, row: Any) -> None:
        """One row, a dataclass; its JSON has the name of the class as ``row``."""
        self.rows.append(row)
        line = json.dumps({"row": type(row).__name__} | asdict(row))
        print(line, flush=True)
        if self.file is not None:
            self.file.write(line + "\n")
            self.file.flush()


@contextmanager
def report(path: Path | None) -> Iterator[Report]:
    """A report that is written to ``path``, whose folders are made."""
    if path is None:
        yield Report()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        yield Report(file)


# --- what a call takes ------------------------------------------------------------------------------------


def reset_peak(pid: int | str = "self") -> None:
    """Let the peak memory of a process start again from what it has now, where the system can (Linux)."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_bytes(pid: int | str = "self") -> int | None:
    """Most memory that a process had since `reset_peak`; None where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None


def processor_seconds(pid: int) -> float | None:
    """What a process has used, to a hundredth of a second; None where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name, in brackets, may hold anything.
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Calls:
    """Calls of one kind: what the last one gave, seconds, processor seconds and peak memory of this process."""

    result: siguard.GuardResult
    seconds: list[float]
    cpu_seconds: list[float]
    peak: int | None


class SkippedError(Exception):
    """A row that is not measured, and why."""


async def measured(call: Callable[[], Awaitable[siguard.GuardResult]], repeats: int, limit: float) -> Calls:
    """Call ``repeats`` times, after one call that is not counted: it shares networks and fills caches.

    Twice at least, and no more once three times ``limit`` seconds have passed.  Raises `SkippedError` where one row
    does not fit in memory, or the first call takes longer than ``limit`` seconds.
    """
    try:
        with trio.fail_after(limit):
            await call()
    except trio.TooSlowError:
        raise SkippedError(f"longer than {limit:g} s") from None
    except siguard.InputError as error:
        if not str(error).startswith(("batch:", "max_bytes:")):
            raise
        raise SkippedError(str(error)) from None
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    reset_peak()
    while len(seconds) < repeats and (len(seconds) < 2 or sum(seconds) < 3 * limit):
        started = time.process_time()
        result = await call()
        cpu_seconds.append(time.process_time() - started)
        seconds.append(result.seconds)
    return Calls(result, seconds, cpu_seconds, peak_bytes())


def plan_name(plan: Plan | None) -> str:
    """A plan in a word: its ways, then what else it does."""
    if plan is None:
        return ""
    ways = "/".join(str(getattr(plan, name)) for name in WAYS)
    more = [name for name in SWITCHES if getattr(plan, name)]
    return " ".join([ways, *more])
