"""What a program says while a block runs - log events, output, errors - and whether a secret is in it."""

from __future__ import annotations

import ast
import io
import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import structlog

from siguard.ring import RingArray

#: Words below this magnitude, read unsigned or signed, are not looked for: a short number occurs by chance.
LEAST = 1 << 48
#: Fraction bits at which a word may have been printed as a real number.
_SCALES = (0, 16, 24)
_LITERAL = re.compile(r"b'(?:[^'\\\n]|\\.)*'|b\"(?:[^\"\\\n]|\\.)*\"")
_REAL = re.compile(r"-?\d+(?:\.\d*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")


@contextmanager
def captured() -> Iterator[io.BytesIO]:
    """Catch, instead of printing: structlog and logging at every level, `sys.stdout`, `sys.stderr`.

    Loggers that are made while the block runs are caught; the settings are put back as they were.
    """
    said = io.BytesIO()
    console = io.TextIOWrapper(said, "utf-8", errors="backslashreplace", write_through=True)
    handler = logging.StreamHandler(console)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)r"))

    def note(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        console.write(f"{method} {spelled(event)}\n")
        raise structlog.DropEvent

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    settings, configured = structlog.get_config(), structlog.is_configured()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, note],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=structlog.ReturnLoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root.handlers[:] = [handler]
    root.setLevel(logging.NOTSET)
    try:
        with redirect_stdout(console), redirect_stderr(console):
            yield said
    finally:
        # Not closed with the wrapper: it is read after the block.
        console.detach()
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**settings)
        if not configured:
            structlog.reset_defaults()


def spelled(value: Any) -> str:
    """A value in full: no array is abbreviated."""
    with np.printoptions(threshold=sys.maxsize, floatmode="unique"):
        return repr(value)


def of_error(error: BaseException) -> bytes:
    """All that an exception says: messages, arguments, attributes and notes, its causes, groups and traceback."""
    parts, todo, seen = ["".join(traceback.format_exception(error))], [error], set[int]()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        parts += [str(one), spelled(one.args), spelled(vars(one))]
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
        todo += one.exceptions if isinstance(one, BaseExceptionGroup) else []
    return "\n".join(parts).encode("utf-8", "backslashreplace")


class Secrets:
    """Words of 64 bits, and texts, that nothing may say.

    A number that has nothing to do with the run is one of N uniform words with probability N 2^-64, a real number,
    which holds 53 bits, with probability below 3 N 2^-53.
    """

    def __init__(self, arrays: Iterable[RingArray], texts: Iterable[str] = (), keys: Iterable[bytes] = ()) -> None:
        words = [array.reshape(-1) for array in arrays if array.itemsize == 8]
        words += [np.frombuffer(key, np.uint64) for key in keys]
        every = np.unique(np.concatenate([*words, np.zeros(0, np.uint64)]).view(np.uint64))
        self.words = every[(every >= LEAST) & (every <= (1 << 64) - LEAST)]
        self._integers = set(self.words.tolist())
        self._reals = {
            *self.words.astype(np.float64).tolist(),
            *self.words.view(np.int64).astype(np.float64).tolist(),
        }
        self._texts = {_one_spaced(text) for text in texts if len(text) >= 15}

    def __len__(self) -> int:
        return len(self.words) + len(self._texts)

    def found_in(self, said: bytes) -> list[str]:
        """In which forms a secret is in what was said; empty where none is.  Never the secret itself."""
        text = said.decode("utf-8", "replace")
        forms = {
            "decimal": any(value in self._integers for value in _decimals(text)),
            "hexadecimal": any(value in self._integers for value in _hexadecimals(text)),
            "real": any(value in self._reals for value in _reals(text)),
            "bytes": any(self._holds(data) for data in (said, *_literals(text))),
            "planted": any(planted in _one_spaced(text) for planted in self._texts),
        }
        return [form for form, found in forms.items() if found]

    def _holds(self, data: bytes) -> bool:
        if len(data) < 8:
            return False
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)
        at_all_offsets: npt.NDArray[np.uint64] = np.ascontiguousarray(windows).view(np.uint64)
        both = np.concatenate([at_all_offsets, at_all_offsets.byteswap()])
        return bool(np.isin(both, self.words).any())


def _literals(text: str) -> Iterator[bytes]:
    """Bytes objects as Python prints them."""
    for literal in _LITERAL.findall(text):
        with suppress(SyntaxError, ValueError):  # text that only looks like one
            yield ast.literal_eval(literal)


def _decimals(text: str) -> Iterator[int]:
    for digits in _runs(r"\d{15,}", text, range(15, 21)):
        value = int(digits)
        yield value
        yield (1 << 64) - value  # as the digits of a negative number


def _hexadecimals(text: str) -> Iterator[int]:
    for digits in _runs(r"[0-9a-fA-F]{13,}", text, range(13, 17)):
        value = int(digits, 16)
        yield value
        yield int.from_bytes(value.to_bytes(8, "big"), "little")  # as a dump of little-endian bytes


def _reals(text: str) -> Iterator[float]:
    for number in _REAL.findall(text):
        for bits in _SCALES:
            yield float(number) * 2.0**bits


def _runs(pattern: str, text: str, lengths: range) -> Iterator[str]:
    """All parts of these lengths of what matches: numbers may stand side by side."""
    for run in re.findall(pattern, text):
        for length in lengths:
            for start in range(len(run) - length + 1):
                yield run[start : start + length]


def _one_spaced(text: str) -> str:
    """Lists and arrays print alike."""
    return re.sub(r"[\s,]+", " ", text)
