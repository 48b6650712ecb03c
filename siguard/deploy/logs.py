"""Logs of a party process: one JSON object a line, through structlog.  Library code configures no logging.

A line that cannot be written at once (full disk, closed pipe, a reader that has stopped) is dropped and counted:
the protocol never waits for a log.  The next line that can be written says ``log_lines_dropped``.
"""

from __future__ import annotations

import json
import os
import select
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import structlog
from structlog.typing import EventDict

from siguard.deploy.redact import Printable, exception, printable
from siguard.errors import InputError

LEVELS = ("debug", "info", "warning", "error", "critical")
_FIRST = ("timestamp", "level", "event", "party", "session")
#: Bytes of the longest line: in a file, and elsewhere, where a pipe that poll() calls ready takes this much in one
#: piece and without waiting (less the line break that ends a torn line).
_LONGEST_IN_FILE, _LONGEST = 1 << 16, select.PIPE_BUF - 1
_BRIEF = 100  # characters of a text in what is left of a longer line


class LogLines:
    """Where the lines go.  ``dropped``: how many lines were lost since the last one that was written."""

    def __init__(self, target: Path | IO[str] | IO[bytes]) -> None:
        self.dropped = 0
        self._torn = False  # the last line was cut off in its middle
        self._lock = threading.Lock()
        try:
            self._descriptor = _opened(target)
        except OSError as error:
            shown = target if isinstance(target, Path) else getattr(target, "name", "stream")
            raise InputError(f"log file {shown}: cannot be written ({error.strerror or error})") from None
        is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._longest = _LONGEST_IN_FILE if is_file else _LONGEST

    def close(self) -> None:
        """Stop writing; every later line counts as dropped.  A stream that was passed stays open."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def write(self, event: EventDict) -> None:
        """Write one line, or count it as dropped; never raises and never waits."""
        with self._lock:
            try:
                written = self._write(event)
            except Exception:  # whatever it is: a log line is never worth a session
                written = False
            self.dropped = 0 if written else self.dropped + 1

    # What structlog calls, once for each level.
    msg = debug = info = warning = error = critical = write

    def _write(self, event: EventDict) -> bool:
        if self._descriptor < 0 or not _is_ready(self._descriptor):
            return False
        shown = _shown(event)
        if self.dropped:
            shown["log_lines_dropped"] = self.dropped
        line = _encoded(shown, self._longest)
        data = b"\n" + line if self._torn else line
        sent = 0
        try:
            while sent < len(data):
                sent += os.write(self._descriptor, data[sent:])
        finally:
            if sent:
                self._torn = sent < len(data)
        return True


def configure_logs(target: Path | IO[str] | IO[bytes], level: str = "info") -> LogLines:
    """Let every structlog logger of this process write JSON lines of ``level`` and above to a file or a stream.

    Fields: timestamp (UTC, ISO 8601), level, event, and what was logged, as `siguard.deploy.redact.printable`
    shows it.  Parties bind their logger as they are made: call this before.  A stream must have a descriptor, as
    `sys.stderr` has.  Raises `InputError` for an unknown level and for a file that cannot be opened.
    """
    if level not in LEVELS:
        raise InputError(f"log level: found {level!r}; allowed: {', '.join(LEVELS)}")
    lines = LogLines(target)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            lambda _logger, _method, event: ((event,), {}),
        ],
        wrapper_class=_without_interpolation(structlog.make_filtering_bound_logger(level)),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    return lines


def _opened(target: Path | IO[str] | IO[bytes]) -> int:
    """A descriptor of our own: nobody else can close it, so its number never means another file or socket."""
    if isinstance(target, Path):
        # Non-blocking, in case it is a pipe that nobody reads.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(target, flags, 0o640)
    # Past the stream's own buffer, which would keep what a full disk refused, and fail again at the exit.
    return os.dup(target.fileno())


def _is_ready(descriptor: int) -> bool:
    """Whether a write would not wait for a reader."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(happened & select.POLLOUT for _, happened in poll.poll(0))


def _shown(event: EventDict) -> dict[str, Printable]:
    """What may be shown of an event, in an order that reads well."""
    event = dict(event)
    caught = _caught(event.pop("exc_info", None))
    first = {key: event.pop(key) for key in _FIRST if key in event}
    shown = {str(printable(key)): printable(value) for key, value in (first | event).items()}
    if caught is not None:
        shown["exception"] = exception(caught)
    return shown


def _caught(value: object) -> BaseException | None:
    if isinstance(value, BaseException):
        return value
    if isinstance(value, tuple) and len(value) == 3:
        return value[1] if isinstance(value[1], BaseException) else None
    return sys.exc_info()[1] if value else None


def _without_interpolation(base: type[Any]) -> type[Any]:
    """Loggers whose ``info("got %s", x)`` does not make a text of x, which nothing could tell from others."""

    def plain(method: Callable[..., Any], before: int) -> Callable[..., Any]:
        def log(self: object, *args: object, **fields: Any) -> Any:
            positional = {"args": args[before:]} if len(args) > before else {}
            return method(self, *args[:before], **{**fields, **positional})

        return log

    methods = {name: plain(getattr(base, name), 1) for name in (*LEVELS, "msg", "warn", "fatal", "exception")}
    return type(f"Plain{base.__name__}", (base,), {**methods, "log": plain(base.log, 2)})


def _encoded(shown: dict[str, Printable], longest: int) -> bytes:
    line = json.dumps(shown, allow_nan=False).encode("ascii") + b"\n"
    if len(line) > longest:
        kept = {key: shown[key] for key in (*_FIRST, "log_lines_dropped") if key in shown}
        brief = {key: value if isinstance(value, int) else str(value)[:_BRIEF] for key, value in kept.items()}
        line = json.dumps({**brief, "log_line_too_long": len(line)}).encode("ascii") + b"\n"
    return line
