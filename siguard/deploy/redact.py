"""What a log line may hold: values that are public by their type.  Everything else becomes the type's name.

An allowlist: shares, arrays, numpy scalars, keys, bytes, and whatever is invented later are not on it.  It cannot
know that a text or a small number was computed from a secret; it only catches texts that look like a key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import TracebackType
from typing import Any, TypeAlias

from siguard.errors import SiguardError
from siguard.transport.frame import MAX_AXES, SESSION_BYTES

Printable: TypeAlias = "str | int | float | bool | list[Printable] | dict[str, Printable] | None"

_DEPTH = 4  # containers in containers, and causes of causes
_ITEMS = 32  # of one container
_BRANCHES = 4  # exceptions of one group
_CHARACTERS = 500  # of one text
_EXACT = 1 << 53  # from here on a JSON number is not exact, and it is more likely a ring element than a count
#: More hex digits than a session id has, or padded base64 of 16 bytes or more: how keys look in a text.
_LIKE_A_KEY = re.compile(rf"[0-9a-fA-F]{{{2 * SESSION_BYTES + 1},}}|[A-Za-z0-9+/_-]{{22,}}={{1,2}}")


def printable(value: object, depth: int = _DEPTH) -> Printable:
    """``value`` as JSON may show it; ``<Share>``, the name of its type, where it may be a secret.

    Never raises and calls no method of a type that it does not know.
    """
    kind = type(value)  # exactly: numpy's floats, for one, are floats too
    if value is None or kind is bool:
        return value  # type: ignore[return-value]
    if kind is str:
        return _text(value)  # type: ignore[arg-type]
    if kind is int:
        return value if -_EXACT < value < _EXACT else _name(value)  # type: ignore[operator,return-value]
    if kind is float:
        return value if math.isfinite(value) else str(value)  # type: ignore[arg-type,return-value]
    if issubclass(kind, Enum):
        return value.name  # type: ignore[attr-defined,no-any-return]
    if issubclass(kind, PurePath):
        return _text(str(value))
    if issubclass(kind, BaseException):
        return exception(value, depth)  # type: ignore[arg-type]
    if kind in (dict, list, tuple, set, frozenset) and depth > 0:
        return _container(value, depth)
    return _name(value)


def exception(error: BaseException, depth: int = _DEPTH) -> dict[str, Printable]:
    """Type and place, and of our own errors message and origin.  No locals, no arguments, no foreign text."""
    told: dict[str, Printable] = {"type": type(error).__name__}
    if isinstance(error, SiguardError):
        told["message"] = printable(error.message)
        told |= {
            name: printable(where)
            for name, where in (("party", error.party), ("session", error.session), ("step", error.step))
            if where is not None
        }
    place = _place(error.__traceback__)
    if place is not None:
        told["at"] = place
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    if depth > 0 and inner:
        told["exceptions"] = [exception(one, depth - 1) for one in inner[:_BRANCHES]]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if depth > 0 and cause is not None:
        told["cause"] = exception(cause, depth - 1)
    return told


def _container(value: Any, depth: int) -> Printable:
    if isinstance(value, Mapping):
        items = islice(value.items(), _ITEMS)
        return {_key(key): printable(item, depth - 1) for key, item in items}
    first = list(islice(value, _ITEMS))
    return _name(value) if _is_data(first) else [printable(item, depth - 1) for item in first]


def _key(key: object) -> str:
    return str(printable(key)) if type(key) in (str, int) else _name(key)


def _is_data(values: Iterable[object]) -> bool:
    """Whether a sequence looks like an array's content: numbers with a fraction, or more than a shape has."""
    kinds = [type(value) for value in values]
    numbers = [kind for kind in kinds if issubclass(kind, int | float) and kind is not bool]
    return len(numbers) > MAX_AXES or any(issubclass(kind, float) for kind in numbers)


def _text(text: str) -> str:
    shown = _LIKE_A_KEY.sub("<redacted>", text)
    return shown if len(shown) <= _CHARACTERS else shown[:_CHARACTERS] + "..."


def _name(value: object) -> str:
    return f"<{type(value).__name__}>"


def _place(traceback: TracebackType | None) -> str | None:
    """File and line of the innermost frame: code, not data."""
    if traceback is None:
        return None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{PurePath(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"
