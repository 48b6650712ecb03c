"""Read, override and validate a scenario file; what ``[prove]`` holds is in proof.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from siguard.errors import InputError, ScenarioError
from siguard.explain import Where, explain_validation, found_allowed, read_toml, show, unknown
from siguard.guard.config import POLICIES, GuardConfig
from siguard.scenario.overrides import apply_overrides
from siguard.scenario.schema import (
    ONLY_FOR,
    AttacksSection,
    DataSection,
    NetworkSection,
    Sections,
    TargetSection,
    TransportSection,
    policy_keys,
)

_DEFAULT_POLICIES = ("siguard", "linesearch")


@dataclass(frozen=True)
class Scenario:
    """A validated scenario; see docs/scenarios.md for every key.

    policies: each policy's configuration, ``none`` first and always there, then in the order of the file.
    samples: None for as many rows as the data has.
    """

    file: Path
    name: str
    seed: int
    samples: int | None
    batch: int
    prepare: bool
    data: DataSection
    target: TargetSection
    attacks: AttacksSection
    transport: TransportSection
    network: NetworkSection
    policies: dict[str, GuardConfig]

    def data_path(self) -> Path | None:
        """``data.path`` made absolute: a relative one counts from the folder of the scenario file."""
        return None if self.data.path is None else self.file.absolute().parent / self.data.path


def load_scenario(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Scenario:
    """Read the TOML file ``path``, put ``overrides`` (dotted key to value) over it, and validate the result.

    Raises `ScenarioError` with one line for each problem: file, key, what was found, what is allowed; also for a
    file with ``[prove]``, which is no experiment.
    """
    where, raw = read(path, overrides)
    if "prove" in raw:
        raise where.error("prove", "this file describes a proof, not an experiment; run it with siguard run")
    return experiment(where, raw)


def read(path: str | Path, overrides: Mapping[str, Any] | None) -> tuple[Where, dict[str, Any]]:
    """The content of a scenario file with the overrides put in, not yet validated."""
    file = Path(path)
    overrides = overrides or {}
    where = Where(file, overrides, ScenarioError)
    return where, apply_overrides(file, read_toml(where, "a scenario in TOML"), overrides)


def experiment(where: Where, raw: Mapping[str, Any]) -> Scenario:
    """Validate what `read` returned."""
    raw = dict(raw)
    guard = raw.pop("guard", {})
    try:
        sections = Sections.model_validate(raw)
    except ValidationError as error:
        raise explain_validation(where, Sections, error, more_keys=["guard", "prove"]) from None
    _check_together(where, sections, raw)
    return Scenario(
        file=where.file,
        name=sections.name or where.file.stem,
        seed=sections.seed,
        samples=sections.samples,
        batch=sections.batch,
        prepare=sections.prepare,
        data=sections.data,
        target=sections.target,
        attacks=sections.attacks,
        transport=sections.transport,
        network=sections.network,
        policies=_read_guard(where, guard),
    )


def _check_together(where: Where, sections: Sections, raw: Mapping[str, Any]) -> None:
    """Rules that concern more than one key."""
    kind = sections.data.kind
    for key, kinds in ONLY_FOR.items():
        section, _, name = key.partition(".")
        if name in raw.get(section, {}) and kind not in kinds:
            raise where.error(
                key, f'data.kind = "{kind}" has no use for it, only {" and ".join(kinds)}; leave it out'
            )
    if kind == "npz" and sections.data.path is None:
        raise where.error("data.path", 'missing; allowed: the .npz file, with kind = "npz"')
    _check_network(where, sections, raw.get("network", {}))


def _check_network(where: Where, sections: Sections, given: Mapping[str, Any]) -> None:
    """What transport, clock and data have no use for."""
    network, over_tcp = sections.network, sections.transport.kind == "tcp"
    if over_tcp and sections.data.kind == "npz":
        raise where.error(
            "transport.kind",
            'found "tcp", but data.kind = "npz" has logits and no model that servers could evaluate; '
            'allowed: kind = "memory", or data.kind = "digits" or "location30"',
        )
    if over_tcp and network.clock == "virtual":
        raise where.error(
            "network.clock",
            'found "virtual", but with transport.kind = "tcp" the servers are processes, which no clock can hold '
            'still; allowed: clock = "wall", or transport.kind = "memory"',
        )
    if over_tcp and network.links:
        raise where.error(
            "network.links",
            'transport.kind = "tcp" has one network for all links; leave it out, or use transport.kind = "memory"',
        )
    for name in ("costs", "cores"):
        if name in given and network.clock == "wall":
            raise where.error(
                f"network.{name}", 'network.clock = "wall" has no use for it, only virtual; leave it out'
            )


def _read_guard(where: Where, guard: Any) -> dict[str, GuardConfig]:
    """``[guard]``: the policies, values shared by those that have them, and a table for each policy's own."""
    if not isinstance(guard, dict):
        raise where.error("guard", found_allowed(guard, "a table"))
    chosen = _read_policies(where, guard.get("policies", list(_DEFAULT_POLICIES)))
    known = {field for policy in POLICIES for field in policy_keys(policy)}
    for key, value in guard.items():
        if key == "policies":
            continue
        if key in POLICIES:
            _check_own_table(where, key, value, chosen)
        elif key not in known:
            raise where.error(f"guard.{key}", unknown(key, known | set(POLICIES) | {"policies"}))
        elif not any(key in policy_keys(policy) for policy in chosen):
            having = ", ".join(name for name in POLICIES if key in policy_keys(name))
            raise where.error(
                f"guard.{key}",
                f"no policy of this scenario ({', '.join(chosen)}) has it; policies that have it: {having}",
            )
    configs = {policy: _read_config(where, policy, guard) for policy in chosen}
    return {"none": _read_config(where, "none", guard), **configs}


def _read_policies(where: Where, policies: Any) -> list[str]:
    allowed = f"a list of {', '.join(POLICIES)}, each at most once"
    if not isinstance(policies, list) or not policies or not all(isinstance(name, str) for name in policies):
        raise where.error("guard.policies", found_allowed(policies, allowed))
    for index, name in enumerate(policies):
        if name not in POLICIES:
            raise where.error(
                f"guard.policies[{index}]", f"found {show(name)}: {unknown(name, POLICIES, 'policy')}"
            )
    if len(set(policies)) != len(policies):
        raise where.error("guard.policies", found_allowed(policies, allowed))
    return policies


def _check_own_table(where: Where, policy: str, table: Any, chosen: list[str]) -> None:
    key = f"guard.{policy}"
    if not isinstance(table, dict):
        raise where.error(key, found_allowed(table, "a table of this policy's own values"))
    overridden = next((f"{key}.{field}" for field in table if where.is_override(f"{key}.{field}")), key)
    if policy not in chosen:
        raise where.error(overridden, f"policy {policy!r} is not in guard.policies ({', '.join(chosen)})")
    for field in table:
        if field not in policy_keys(policy):
            raise where.error(f"{key}.{field}", unknown(field, policy_keys(policy), f"key of policy {policy!r}"))


def _read_config(where: Where, policy: str, guard: Mapping[str, Any]) -> GuardConfig:
    own: Mapping[str, Any] = guard.get(policy, {})
    shared = {field: guard[field] for field in policy_keys(policy) if field in guard}
    try:
        return GuardConfig(policy=policy, **{**shared, **own})
    except InputError as error:
        # GuardConfig begins its message with the name of the field.
        field, _, problem = error.message.partition(": ")
        key = f"guard.{field}" if field in shared and field not in own else f"guard.{policy}.{field}"
        raise where.error(key, problem) from None
