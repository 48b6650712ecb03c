"""TOML files that people write: read them, and word what is wrong with them.

One line for each problem: file, key, what was found, what is allowed, and the likely meaning.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from siguard.errors import InputError

_LONGEST = 60  # characters of a found value that a message shows


@dataclass(frozen=True)
class Where:
    """The file that messages name, the keys that an override set, and which error a message becomes."""

    file: Path
    overridden: Collection[str] = ()
    kind: type[InputError] = InputError

    def is_override(self, key: str) -> bool:
        """Whether the key's value was set by an override."""
        return key in self.overridden

    def line(self, key: str, problem: str) -> str:
        """One message about one key."""
        mark = " (set by an override)" if self.is_override(key) else ""
        return f"{self.file}: {key}{mark}: {problem}"

    def error(self, key: str, problem: str) -> InputError:
        """The same as an error to raise."""
        return self.kind(self.line(key, problem))


def read_toml(where: Where, expected: str) -> dict[str, Any]:
    """The tables of the file, not yet validated; ``expected`` says what a missing one should have been."""
    file = where.file
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise where.kind(f"{file}: no such file; expected {expected}") from None
    except UnicodeDecodeError as error:
        raise where.kind(f"{file}: not a text file in UTF-8 ({error.reason})") from None
    except OSError as error:
        raise where.kind(f"{file}: cannot be read ({error.strerror})") from None
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also a number of more digits than Python converts
        raise where.kind(f"{file}: not valid TOML: {error}") from None
    except RecursionError:
        raise where.kind(f"{file}: not valid TOML: nested too deeply") from None


def found_allowed(found: object, allowed: str) -> str:
    """``found X; allowed: Y`` with X as it would stand in the file, shortened."""
    return f"found {show(found)}; allowed: {allowed}"


def show(value: object) -> str:
    """A value as TOML writes it, shortened; a table by its keys."""
    if isinstance(value, dict):
        text = f"a table with keys {', '.join(map(_name, value))}" if value else "an empty table"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and not math.isfinite(value):
        text = str(value)
    elif isinstance(value, list):
        text = f"[{', '.join(map(show, value))}]"
    else:
        text = _quoted(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """``unknown key; did you mean ...?; allowed: ...`` for a name that is not among the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what}{hint}; allowed: {', '.join(names) or 'none'}"


def explain_validation(
    where: Where, model: type[BaseModel], error: ValidationError, more_keys: Iterable[str] = ()
) -> InputError:
    """All problems that pydantic found, one line each; ``more_keys`` are allowed on the top level besides.

    What is allowed stands in the fields' ``json_schema_extra``: "allowed" for a value, "names" for the names in
    a table that may hold any.  A validator that raises `InputError` has said all there is to say.
    """
    lines = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        if problem["type"] == "extra_forbidden":
            parent = _model_at(model, location[:-1])
            known = [*(parent.model_fields if parent else ()), *(more_keys if parent is model else ())]
            told = unknown(str(location[-1]), known)
        elif location[-1:] == ("[key]",):  # pydantic's word for the name of an entry, not for its value
            location = location[:-1]
            told = found_allowed(location[-1], str(_stated(model, location[:-1]).get("names")))
        else:
            stated = _stated(model, location)
            allowed = str(stated.get("allowed", "a table"))
            if problem["type"] == "missing":
                told = f"missing; allowed: {allowed}"
            elif isinstance(said := problem.get("ctx", {}).get("error"), InputError):
                told = said.message
            else:
                told = found_allowed(problem["input"], allowed)
        lines.append(where.line(dotted(location), told))
    return where.kind("\n".join(lines))


def dotted(location: Sequence[int | str]) -> str:
    """A pydantic location as a key of the file: ``target.hidden[1]``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{_name(part)}" if text else _name(part)
    return text


def _name(key: object) -> str:
    """A key as TOML writes it: bare, or else quoted."""
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else _quoted(text)


def _quoted(text: str) -> str:
    """A text as TOML writes it, in one line and without characters that a terminal obeys."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _stated(model: type[BaseModel], location: Sequence[int | str]) -> Mapping[str, Any]:
    """What the field at ``location`` says about itself."""
    names = [part for part in location if isinstance(part, str)]
    parent = _model_at(model, names[:-1])
    field = parent.model_fields.get(names[-1]) if parent is not None and names else None
    extra: Any = field.json_schema_extra if field is not None else None
    return extra if isinstance(extra, dict) else {}


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    kind: Any = model
    for part in location:
        if get_origin(kind) is dict:  # a table of entries with names of the author's choice
            kind = get_args(kind)[1]
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
