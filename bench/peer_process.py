"""A peer program as a process: started once, then asked call by call.

The program is run as ``python PROGRAM INPUT.npz OUTPUT.npz POLICY [EXTRA ...]``.  INPUT has ``logits`` (batch,
classes) and ``W0``, ``b0``, ``W1``, ... of h.  It prints lines that begin with ``peer: `` and go on with a JSON
object: ``{"ready": true}`` once it is set up (compiled, h shared), then, for each line ``call`` on its standard
input, ``{"seconds": ..., "rounds": ..., "bytes_total": ...}`` after it has written ``confidences`` (batch, classes)
to OUTPUT; rounds and bytes only where its framework counts them.  Seconds run from the sharing of the logits to the
answer.  It ends when its standard input does.  Whatever else it prints is ignored; stderr goes into a file.
"""

from __future__ import annotations

import json
import os
import signal
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import trio

from siguard.nn.model import FloatArray

_PREFIX = b"peer: "
_LONGEST_LINE = 1_000_000
#: Seconds that a program has to end by itself once its input is closed.
_GOODBYE = 5.0


class PeerFailedError(Exception):
    """A peer program ended, or said something that is not in the protocol."""


class OverTheLimitError(Exception):
    """A call or the set-up took longer than the limit."""


@dataclass(frozen=True)
class Call:
    """One call: the confidences (batch, classes), and what it took; None where it is not counted."""

    confidences: FloatArray
    seconds: float
    rounds: int | None = None
    bytes_total: int | None = None


class PeerProcess:
    """A running program."""

    def __init__(self, process: trio.Process, folder: Path, limit: float) -> None:
        self._process = process
        self._folder = folder
        self._limit = limit
        self._buffer = b""

    async def ready(self) -> None:
        """Wait for its set-up.  Raises `OverTheLimitError`, `PeerFailedError`."""
        await self._said("set-up")

    async def __call__(self) -> Call:
        """One call.  Raises `OverTheLimitError`, `PeerFailedError`."""
        if self._process.stdin is None:
            raise PeerFailedError("the program was started without a standard input")
        with suppress(trio.BrokenResourceError):  # it ended; its output and stderr tell more
            await self._process.stdin.send_all(b"call\n")
        figures = await self._said("call")
        try:
            with np.load(self._folder / "answer.npz", allow_pickle=False) as stored:
                confidences = stored["confidences"].astype(np.float64)
            rounds, sent = (
                None if figures.get(key) is None else int(figures[key]) for key in ("rounds", "bytes_total")
            )
            return Call(confidences, float(figures["seconds"]), rounds, sent)
        except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise PeerFailedError(f"its answer cannot be read: {type(error).__name__}: {error}") from None

    def kill(self) -> None:
        """End it and all that it has started; again is fine."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _said(self, what: str) -> dict[str, Any]:
        """The next message, within the limit."""
        with trio.move_on_after(self._limit):
            return await self._message()
        self.kill()  # or it would go on, beside the calls of others
        raise OverTheLimitError(f"{what} took longer than {self._limit:g} s")

    async def _message(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise PeerFailedError("the program was started without a standard output")
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.startswith(_PREFIX):
                    return self._parsed(line[len(_PREFIX) :])
                continue
            if len(self._buffer) > _LONGEST_LINE:
                raise PeerFailedError(f"it printed a line of more than {_LONGEST_LINE} bytes")
            data = await self._process.stdout.receive_some()
            if not data:
                status = await self._process.wait()
                raise PeerFailedError(f"it ended with status {status}: {self._last_words()}")
            self._buffer += data

    def _parsed(self, text: bytes) -> dict[str, Any]:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise PeerFailedError(f"it said {text[:80]!r}; expected a JSON object")
        return message

    def _last_words(self) -> str:
        text = (self._folder / "stderr").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing on stderr"


@asynccontextmanager
async def open_peer(
    command: Sequence[str], policy: str, folder: Path, limit: float, extra: Sequence[str] = ()
) -> AsyncIterator[PeerProcess]:
    """Run ``command`` (interpreter and program) until the block ends; set up when the block begins.

    folder: has ``rows.npz``; answer and stderr go there.  limit: seconds for the set-up, and for each call.
    Afterwards nothing is left of it: the program has a session of its own, which is killed as a whole, since peers
    start parties as processes.  Raises `OverTheLimitError`, `PeerFailedError`.
    """
    with (folder / "stderr").open("wb") as stderr:
        try:
            process = await trio.lowlevel.open_process(
                [*command, str(folder / "rows.npz"), str(folder / "answer.npz"), policy, *extra],
                stdin=PIPE,
                stdout=PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise PeerFailedError(f"it cannot be started: {error}") from None
    peer = PeerProcess(process, folder, limit)
    try:
        await peer.ready()
        yield peer
        if process.stdin is not None:
            await process.stdin.aclose()
            with trio.move_on_after(_GOODBYE):
                await process.wait()
    finally:
        peer.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
