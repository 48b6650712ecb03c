"""`prove`: climb the ladder rung by rung, then break the shipped code on purpose and see which rung notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from siguard.errors import SiguardError
from siguard.proofsim.claims import RUNGS, Claim, ControlOutcome, ProofReport, Scope
from siguard.proofsim.worker import scope_to_dict

#: Called with (what is being done, done, total).
Progress = Callable[[str, int, int], None]

#: Rungs whose work may be spread, over policies or over corrupted servers.
_BY_POLICY, _BY_SERVER = ("shape", "content"), ("exact",)
#: Enumerations fill and drop arrays of megabytes all the time: glibc is to keep the memory, which saves a tenth of
#: the time.  Other systems do not look at it.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}
#: More processes than this do not pay: there are a few long tasks.
_MOST_WORKERS = 4


class ProofFailedError(SiguardError):
    """A process of a proof run ended without an answer: a bug of the harness, or no memory."""


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def _tasks(scope: Scope) -> list[dict[str, Any]]:
    """What there is to do, long tasks first."""
    from siguard.proofsim.controls import CONTROLS

    tasks: list[dict[str, Any]] = []
    for rung in sorted(RUNGS, key=lambda rung: rung not in (*_BY_SERVER, *_BY_POLICY)):
        parts = [scope]
        if rung in _BY_POLICY:
            parts = [replace(scope, policies=(policy,)) for policy in scope.policies]
        elif rung in _BY_SERVER:
            servers = dict.fromkeys(one.server for one in scope.corrupted)
            sets = [tuple(one for one in scope.corrupted if one.server == server) for server in servers]
            parts = [replace(scope, corrupted=part) for part in sets]
        tasks += [{"rung": rung, "scope": scope_to_dict(part)} for part in parts]
    return tasks + [{"control": number, "scope": scope_to_dict(scope)} for number in range(len(CONTROLS))]


def prove(scope: Scope, progress: Progress = _silent, workers: int | None = None) -> ProofReport:
    """Check every claim in ``scope`` and run every control, in processes of their own.

    workers: how many; as many as there are cores, up to 4, when left out.
    Runs its own event loop: inside trio call it through ``trio.to_thread.run_sync``.
    Raises `ProofFailedError` when a process dies.
    """
    started = time.perf_counter()
    tasks = _tasks(scope)
    count = min(workers or min(os.cpu_count() or 1, _MOST_WORKERS), len(tasks))
    answers = trio.run(partial(_run_all, tasks, count, progress))
    report = ProofReport(scope)
    claims = [Claim(**values) for answer in answers for values in answer.get("claims", ())]
    # In the order of the ladder, whatever process was first; what every part of a rung states, once.
    report.claims = sorted(dict.fromkeys(claims), key=lambda claim: RUNGS.index(claim.rung))
    report.controls = [ControlOutcome(**answer["control"]) for answer in answers if "control" in answer]
    report.seconds = time.perf_counter() - started
    return report


async def _run_all(tasks: list[dict[str, Any]], count: int, progress: Progress) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [{} for _ in tasks]
    waiting = iter(range(len(tasks)))

    def tell(number: int, seconds: float) -> None:
        kind = "rungs" if "rung" in tasks[number] else "controls"
        of_kind = [n for n, task in enumerate(tasks) if ("rung" in task) == (kind == "rungs")]
        stage = f"{kind}: {_named(tasks[number])}, {_verdict(answers[number])}, {seconds:.1f} s"
        progress(stage, sum(bool(answers[n]) for n in of_kind), len(of_kind))

    async def work() -> None:
        command = [sys.executable, "-m", "siguard.proofsim.worker"]
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**_ALLOCATION, **os.environ}
        )
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101 - asked for above
        lines = _Lines(process.stdout)
        try:
            for number in waiting:
                line, started = b"", time.perf_counter()
                with suppress(trio.BrokenResourceError):  # it is gone already
                    await process.stdin.send_all((json.dumps(tasks[number]) + "\n").encode())
                    line = await lines.next()
                if not line:
                    what = _named(tasks[number])
                    raise ProofFailedError(f"the process that checked {what} ended without an answer, see above")
                answers[number] = json.loads(line)
                tell(number, time.perf_counter() - started)
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                await process.stdout.aclose()
                process.kill()
                await process.wait()

    progress("rungs", 0, sum("rung" in task for task in tasks))
    progress("controls", 0, sum("control" in task for task in tasks))
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(work)
    except* ProofFailedError as group:
        raise group.exceptions[0] from None
    return answers


def _named(task: dict[str, Any]) -> str:
    if "control" in task:
        return f"control {task['control']}"
    if task["rung"] in _BY_SERVER:
        return f"{task['rung']} of {' '.join(f'{{{one}}}' for one in task['scope']['corrupted'])}"
    return f"{task['rung']} of {' '.join(task['scope']['policies'])}"


def _verdict(answer: dict[str, Any]) -> str:
    """In words: a campaign that is stopped has then said what it found."""
    if "control" in answer:
        return "caught" if ControlOutcome(**answer["control"]).caught else "missed"
    holding = [Claim(**values).holds for values in answer["claims"]]
    return f"{sum(holding)} of {len(holding)} claims hold"


class _Lines:
    """Whole lines of a byte stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._rest = b""

    async def next(self) -> bytes:
        """The next line without its end; empty when the stream has ended."""
        while b"\n" not in self._rest:
            chunk = await self._stream.receive_some(1 << 16)
            if not chunk:
                return b""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line
