"""Scenario files with ``[prove]``: what `siguard prove` is asked on the command line, as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from siguard.explain import Where, explain_validation
from siguard.proofsim.claims import Scope
from siguard.scenario.load import Scenario, experiment, read
from siguard.scenario.schema import ProofSections, Sections

_HEAD = set(ProofSections.model_fields) & set(Sections.model_fields)
_ONLY_EXPERIMENTS = {*Sections.model_fields, "guard"} - _HEAD


@dataclass(frozen=True)
class ProofScenario:
    """A validated scenario that describes a proof; html: whether the report is wanted as a page too."""

    file: Path
    name: str
    scope: Scope
    html: bool


def load_any(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario | ProofScenario:
    """Like `load_scenario`, and a `ProofScenario` where the file or an override has ``[prove]``."""
    where, raw = read(path, overrides)
    return _proof(where, raw) if "prove" in raw else experiment(where, raw)


def _proof(where: Where, raw: Mapping[str, Any]) -> ProofScenario:
    _check_not_mixed(where, raw)
    try:
        sections = ProofSections.model_validate(dict(raw))
    except ValidationError as error:
        raise explain_validation(where, ProofSections, error) from None
    prove = sections.prove
    scope = Scope(tuple(prove.policies), tuple(prove.corrupt), prove.mode == "full", sections.seed)
    return ProofScenario(where.file, sections.name or where.file.stem, scope, prove.html)


def _check_not_mixed(where: Where, raw: Mapping[str, Any]) -> None:
    """The message names the key that an override brought into a file of the other kind, if it was one."""
    others = [key for key in raw if key in _ONLY_EXPERIMENTS]
    if others:
        brought = [key for key in where.overridden if key.partition(".")[0] in (*others, "prove")]
        brought.sort(key=lambda key: key.partition(".")[0] == "prove")
        key = brought[0] if brought else others[0]
        problem = f"a scenario is a proof, with [prove], or an experiment, here with {', '.join(others)}"
        raise where.error(key, f"{problem}; allowed beside [prove]: {', '.join(sorted(_HEAD))}")
