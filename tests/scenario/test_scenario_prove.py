"""Scenario files with ``[prove]``: what they ask for, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import siguard
from siguard.errors import ScenarioError
from siguard.guard.config import POLICIES
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted, Scope
from siguard.scenario.load import Scenario
from siguard.scenario.overrides import parse_overrides
from siguard.scenario.proof import ProofScenario, load_any

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, text: str, overrides: list[str] | None = None) -> Scenario | ProofScenario:
    file = folder / "s.toml"
    file.write_text(text, encoding="utf-8")
    return load_any(file, parse_overrides(overrides or []))


def proof(folder: Path, text: str, overrides: list[str] | None = None) -> ProofScenario:
    loaded = load(folder, text, overrides)
    assert isinstance(loaded, ProofScenario)
    return loaded


def test_an_empty_table_asks_for_everything_quickly(tmp_path: Path) -> None:
    loaded = proof(tmp_path, "[prove]")
    assert loaded == ProofScenario(tmp_path / "s.toml", "s", Scope(tuple(POLICIES), CORRUPTED_SETS), html=False)
    assert loaded.scope.full is False
    assert loaded.scope.seed == 1


def test_each_key_reaches_the_scope(tmp_path: Path) -> None:
    text = (
        'name = "n"\nseed = 5\n'
        '[prove]\npolicies = ["label", "none"]\ncorrupt = ["U", "S1", "S0, U"]\nmode = "full"\nhtml = true\n'
    )
    loaded = proof(tmp_path, text)
    sets = (Corrupted(None, True), Corrupted("S1", False), Corrupted("S0", True))
    assert loaded.scope == Scope(("label", "none"), sets, full=True, seed=5)
    assert (loaded.name, loaded.html) == ("n", True)


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    options = ["prove.mode=full", 'prove.policies=["none"]', 'prove.corrupt=["S2"]', "prove.html=true", "seed=9"]
    loaded = proof(tmp_path, '[prove]\nmode = "quick"\npolicies = ["label"]\n', options)
    assert loaded.scope == Scope(("none",), (Corrupted("S2", False),), full=True, seed=9)
    assert loaded.html


def test_without_prove_it_is_an_experiment(tmp_path: Path) -> None:
    assert isinstance(load(tmp_path, "samples = 10"), Scenario)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "scenarios").glob("security_view_*.toml")), ids=lambda file: file.stem
)
def test_the_security_views_of_the_repository_are_quick_proofs(file: Path) -> None:
    loaded = load_any(file)
    assert isinstance(loaded, ProofScenario)
    assert not loaded.scope.full
    assert {Corrupted(server, True) for server in ("S0", "S1", "S2")} <= set(loaded.scope.corrupted)


def test_security_views_cover_every_policy_and_every_set() -> None:
    loaded = load_any(ROOT / "scenarios" / "security_view_all.toml")
    assert isinstance(loaded, ProofScenario)
    assert loaded.scope == Scope(tuple(POLICIES), CORRUPTED_SETS)


@pytest.mark.parametrize(
    ("text", "options", "parts"),
    [
        ("prove = 3", [], ["prove: found 3", "a table"]),
        ("[prove]\nmode = 3", [], ["prove.mode: found 3", "quick or full"]),
        ('[prove]\nmode = "fast"', [], ['prove.mode: found "fast"', "quick or full"]),
        ("[prove]\nhtml = 1", [], ["prove.html: found 1", "true or false"]),
        ("[prove]\npolicies = []", [], ["prove.policies: found []", "siguard, decay, linesearch, label, none"]),
        ("[prove]\npolicies = [[1]]", [], ["prove.policies[0]: found [1]", "siguard, decay, linesearch"]),
        ('[prove]\npolicies = ["sigard"]', [], ['prove.policies[0]: found "sigard"', "siguard, decay, linesearch"]),
        ('[prove]\npolicies = ["none", "none"]', [], ["prove.policies: found", "each at most once"]),
        ("[prove]\ncorrupt = []", [], ["prove.corrupt: found []", "S0,U; S1,U; S2,U; S0; S1; S2; U"]),
        ('[prove]\ncorrupt = ["S0,S1"]', [], ['prove.corrupt[0]: found "S0,S1"', "S0,U; S1,U"]),
        ('[prove]\ncorrupt = ["U", 3]', [], ["prove.corrupt[1]: found 3", "S0,U; S1,U"]),
        ('[prove]\ncorrupt = ["S0,U", "U,S0"]', [], ["prove.corrupt: found", "each at most once"]),
        ('[prove]\nmodes = "full"', [], ["prove.modes: unknown key; did you mean 'mode'?"]),
        ("seeed = 3\n[prove]", [], ["seeed: unknown key; did you mean 'seed'?", "name, prove, seed"]),
        ("seed = -1\n[prove]", [], ["seed: found -1", "a whole number"]),
        ("proove = 1", [], ["proove: unknown key; did you mean 'prove'?"]),
        ("[prove]", ["prove.mode=fast"], ["prove.mode (set by an override)", "quick or full"]),
        ("[prove]", ["prove.corrupt=S0"], ['prove.corrupt (set by an override): found "S0"', "a list of"]),
    ],
)
def test_a_wrong_file_is_told_key_found_and_allowed(
    tmp_path: Path, text: str, options: list[str], parts: list[str]
) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text, options)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 's.toml'}: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("text", "options", "key"),
    [
        ("samples = 10\n[prove]", [], "samples: "),
        ("[prove]\n[guard]\ninner = 3", [], "guard: "),
        ("[prove]\n[data]\n[target]", [], "data: "),
        ("[prove]", ["data.rows=30"], "data.rows (set by an override): "),
        ("[prove]", ["prove.mode=full", "guard.inner=3"], "guard.inner (set by an override): "),
        ("batch = 10", ["prove.mode=full"], "prove.mode (set by an override): "),
        ("batch = 10", ["seed=2", "prove.html=true"], "prove.html (set by an override): "),
    ],
)
def test_an_experiment_and_a_proof_in_one_file_are_refused_by_key(
    tmp_path: Path, text: str, options: list[str], key: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path, text, options)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 's.toml'}: {key}")
    assert message.endswith("allowed beside [prove]: name, seed")


def test_run_scenario_measures_experiments_only(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[prove]", encoding="utf-8")
    no_values: dict[str, Any] = {}
    with pytest.raises(ScenarioError, match=r"s\.toml: prove: this file describes a proof"):
        siguard.run_scenario(file, no_values)
