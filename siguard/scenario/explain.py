"""Error messages for scenario files: file, key, what was found, what is allowed, and the likely meaning."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from siguard.errors import ScenarioError

_LONGEST = 60  # characters of a found value that a message shows


@dataclass(frozen=True)
class Where:
    """The file that messages name, and the keys that an override set."""

    file: Path
    overridden: Collection[str] = ()

    def is_override(self, key: str) -> bool:
        """Whether the key's value was set by an override."""
        return key in self.overridden

    def line(self, key: str, problem: str) -> str:
        """One message about one key."""
        mark = " (set by an override)" if self.is_override(key) else ""
        return f"{self.file}: {key}{mark}: {problem}"

    def error(self, key: str, problem: str) -> ScenarioError:
        """The same as an error to raise."""
        return ScenarioError(self.line(key, problem))


def found_allowed(found: object, allowed: str) -> str:
    """``found X; allowed: Y`` with X as it would stand in the file, shortened."""
    return f"found {show(found)}; allowed: {allowed}"


def show(value: object) -> str:
    """A value as TOML writes it, shortened; a table by its keys."""
    if isinstance(value, dict):
        text = f"a table with keys {', '.join(map(str, value))}" if value else "an empty table"
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and not math.isfinite(value):
        text = str(value)
    elif isinstance(value, list):
        text = f"[{', '.join(map(show, value))}]"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def unknown(name: str, known: Iterable[str], what: str = "key") -> str:
    """``unknown key; did you mean ...?; allowed: ...`` for a name that is not among the known ones."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what}{hint}; allowed: {', '.join(names) or 'none'}"


def explain_validation(
    where: Where, model: type[BaseModel], error: ValidationError, more_keys: Iterable[str] = ()
) -> ScenarioError:
    """All problems that pydantic found, one line each; ``more_keys`` are allowed on the top level besides."""
    lines = []
    for problem in error.errors(include_url=False):
        location = problem["loc"]
        key = dotted(location)
        if problem["type"] == "extra_forbidden":
            parent = _model_at(model, location[:-1])
            known = [*(parent.model_fields if parent else ()), *(more_keys if parent is model else ())]
            lines.append(where.line(key, unknown(str(location[-1]), known)))
        elif problem["type"] == "missing":
            lines.append(where.line(key, f"missing; allowed: {_allowed(model, location)}"))
        else:
            lines.append(where.line(key, found_allowed(problem["input"], _allowed(model, location))))
    return ScenarioError("\n".join(lines))


def dotted(location: Sequence[int | str]) -> str:
    """A pydantic location as a scenario key: ``target.hidden[1]``."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _allowed(model: type[BaseModel], location: Sequence[int | str]) -> str:
    names = [part for part in location if isinstance(part, str)]
    parent = _model_at(model, names[:-1])
    field = parent.model_fields.get(names[-1]) if parent is not None and names else None
    extra: Any = field.json_schema_extra if field is not None else None
    return str(extra["allowed"]) if isinstance(extra, dict) else "a table"


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel] | None:
    for part in location:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field is not None else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return None
        model = annotation
    return model
