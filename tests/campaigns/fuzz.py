"""Wrong bytes for everything that reads bytes of others: codecs, TCP streams, handshakes, records, files.

    python tests/campaigns/fuzz.py [--minutes 5] [--targets all] [--seed N]
    python tests/campaigns/fuzz.py --targets frame --seed 7 --case 1234    # one case again

Each target has the same time.  A case may end with the errors that its target documents, and with no other; it may
take a second, and a bounded amount of memory (as Python counts it, every eighth case).  The cases of a target
follow from the seed and their number.  Prints a JSON line for each target, then a table; exits 1 when something did
not hold.
"""

from __future__ import annotations

import secrets
import signal
import sys
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from random import Random
from types import FrameType
from typing import Annotated

import fuzz_codecs
import fuzz_links
import typer
from campaign_report import Report
from campaign_resources import MIB

#: Seconds after which a case counts as hanging.
_HANGS = 10.0
_MEASURED = 8


class _HangingError(BaseException):
    """Not an Exception: nothing under test may catch it."""


@dataclass
class Target:
    """One thing to fuzz.  memory, slow: bytes and seconds that a case may use."""

    name: str
    case: Callable[[Random], None]
    memory: int = 4 * MIB
    slow: float = 1.0
    cases: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    peak: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    firsts: dict[str, int] = field(default_factory=dict)

    def run(self, seed: int, number: int) -> None:
        """One case; what did not hold is counted."""
        measured = number % _MEASURED == 0
        if measured:
            tracemalloc.start()
        signal.setitimer(signal.ITIMER_REAL, _HANGS)
        started = time.perf_counter()
        try:
            self.case(Random(f"{seed} {self.name} {number}"))  # noqa: S311 - cases that can be repeated
        except _HangingError:
            self._failed(f"hangs for {_HANGS:g} s", number)
        except (Exception, BaseExceptionGroup) as error:
            self._failed(_described(error), number)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            took = time.perf_counter() - started
            self.cases += 1
            self.seconds += took
            self.slowest = max(self.slowest, took)
            if measured:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.peak = max(self.peak, peak)
                if peak > self.memory:
                    self._failed(f"uses more than {self.memory / MIB:g} MiB", number)
        if took > self.slow:
            self._failed(f"takes more than {self.slow:g} s", number)

    def _failed(self, what: str, number: int) -> None:
        self.failures[what] += 1
        self.firsts.setdefault(what, number)


def _described(error: BaseException) -> str:
    """Kind and place of an exception: cases that fail in one way are counted together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if "/siguard/" in one.filename] or frames
    place = f"{ours[-1].filename.rpartition('/')[2]}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:120]}"


def _targets(files: fuzz_codecs.Files) -> list[Target]:
    return [
        Target("frame", fuzz_codecs.frame),
        Target("hello", fuzz_codecs.hello),
        Target("messages", fuzz_codecs.messages),
        Target("traffic", fuzz_codecs.traffic),
        Target("deployment", files.deployment, memory=16 * MIB),
        Target("keys", files.key_file),
        Target("tcp", fuzz_links.tcp, memory=16 * MIB),
        Target("handshake", fuzz_links.handshake, memory=8 * MIB),
        # A forged skip record makes the receiver derive 65,536 keys where each record has its own, as here.
        Target("records", fuzz_links.records, slow=5.0),
    ]


def _hangs(number: int, frame: FrameType | None) -> None:
    raise _HangingError


def _fuzz(
    report: Report, targets: list[Target], seed: int, numbers: Iterable[int], seconds: float
) -> list[list[object]]:
    """Run these cases of every target, as far as the time of each reaches."""
    rows: list[list[object]] = []
    for target in targets:
        with suppress(Exception):  # what is imported and cached at first is not the cases' memory
            target.case(Random(0))  # noqa: S311 - as below
        end = time.monotonic() + seconds / len(targets)
        for number in numbers:
            target.run(seed, number)
            if time.monotonic() > end:
                break
        per_second = target.cases / target.seconds if target.seconds else 0.0
        wrong = [f"{count} cases, first {target.firsts[what]}: {what}" for what, count in target.failures.items()]
        report.found(
            target.name,
            wrong,
            seed=seed,
            cases=target.cases,
            per_second=round(per_second, 1),
            slowest=round(target.slowest, 4),
            peak_mib=round(target.peak / MIB, 2),
        )
        rows.append(
            [target.name, target.cases, per_second, target.slowest, target.peak / MIB, "FAIL" if wrong else "ok"]
        )
    return rows


def main(
    minutes: Annotated[float, typer.Option(min=0.001, help="For all targets together.")] = 5.0,
    targets: Annotated[str, typer.Option(help="all, or names.")] = "all",
    seed: Annotated[int | None, typer.Option(help="Of all cases.", show_default="random")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Of each target at most.", show_default=False)] = sys.maxsize,
    case: Annotated[int | None, typer.Option(min=0, help="Run this case alone, to look at it.")] = None,
) -> None:
    """Look for bytes that are read wrongly."""
    signal.signal(signal.SIGALRM, _hangs)
    numbers = range(cases) if case is None else [case]
    chosen = secrets.randbelow(1 << 32) if seed is None else seed
    report = Report()
    with closing(fuzz_codecs.Files()) as files:
        known = {target.name: target for target in _targets(files)}
        names = list(known) if targets == "all" else targets.replace(",", " ").split()
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise typer.BadParameter(f"{', '.join(unknown)}; there are {' '.join(known)}", param_hint="--targets")
        report.line(campaign="fuzz", seed=chosen, minutes=minutes, targets=names)
        rows = _fuzz(report, [known[name] for name in names], chosen, numbers, 60 * minutes)
    headings = ("target", "cases", "a second", "slowest s", "peak MiB", "result")
    sys.exit(report.end(f"fuzz, seed {chosen}", headings, rows))


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
