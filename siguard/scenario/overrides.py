"""``--set guard.inner=5``: values put over those of a scenario file, by dotted key."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from siguard.errors import ScenarioError
from siguard.guard.config import POLICIES
from siguard.scenario.schema import policy_keys


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """Read ``key=value`` texts, as the command line takes them; the last one wins where a key is repeated.

    A value is read as TOML (``5``, ``0.8``, ``true``, ``["nn", "gb"]``); what is not TOML is taken as text,
    so that quotes may be left out: ``data.kind=digits``.  Raises `ScenarioError` for an item without ``=``.
    """
    overrides: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ScenarioError(f"--set: found {item!r}; allowed: key=value, for example guard.inner=5")
        overrides.pop(key, None)  # a repeated key takes the place of the last one, not of the first
        overrides[key] = _value(text)
    return overrides


def _value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def apply_overrides(file: Path, raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the scenario ``raw`` with the overrides put in, not yet validated.

    ``guard.X`` reaches every policy: it also replaces the X that a policy has of its own in the file.
    A relative ``data.path`` given here counts from the working directory, not from the scenario file: it was
    typed in a shell.
    """
    result = copy.deepcopy(dict(raw))
    # First, so that the order in which overrides are given does not matter for what the file still holds.
    if "guard.policies" in overrides:
        _set(file, result, "guard.policies", overrides["guard.policies"])
        _drop_what_only_others_had(result["guard"])
    for key, value in overrides.items():
        if key == "guard.policies":
            continue
        if key == "data.path" and isinstance(value, str):
            value = str(Path(value).absolute())
        _set(file, result, key, value)
        parts = key.split(".")
        if parts[0] == "guard" and len(parts) == 2:
            for policy in POLICIES:
                own = result["guard"].get(policy)
                if isinstance(own, dict):
                    own.pop(parts[1], None)
    return result


def _set(file: Path, raw: dict[str, Any], key: str, value: Any) -> None:
    *tables, last = key.split(".")
    table = raw
    for depth, name in enumerate(tables):
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            raise ScenarioError(
                f"{file}: {key}: {'.'.join(tables[: depth + 1])} is a value, not a table (set by an override)"
            )
        table = inner
    table[last] = value


def _drop_what_only_others_had(guard: dict[str, Any]) -> None:
    """Other policies were chosen: forget the file's values that none of them has, they would be errors."""
    chosen = guard["policies"]
    if not isinstance(chosen, list):
        return  # the validation that follows says what is wrong
    fields = {field for name in chosen if name in POLICIES for field in policy_keys(name)}
    known = {field for policy in POLICIES for field in policy_keys(policy)}
    for name in list(guard):
        if (name in POLICIES and name not in chosen) or (name in known and name not in fields):
            del guard[name]
