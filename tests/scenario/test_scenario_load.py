"""Scenario files and overrides: what is accepted, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from siguard.errors import ScenarioError
from siguard.guard.config import GuardConfig
from siguard.scenario.load import Scenario, load_scenario
from siguard.scenario.overrides import parse_overrides
from siguard.scenario.proof import load_any
from siguard.transport.profiles import WAN, Direction, NetworkProfile

ROOT = Path(__file__).resolve().parents[2]


def load(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> Scenario:
    file = folder / "s.toml"
    file.write_text(text, encoding="utf-8")
    return load_scenario(file, overrides)


def refusal(folder: Path, text: str, overrides: dict[str, Any] | None = None) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(folder, text, overrides)
    message = str(caught.value)
    assert str(folder / "s.toml") in message
    return message


def test_an_empty_file_has_a_default_for_everything(tmp_path: Path) -> None:
    scenario = load(tmp_path, "")
    assert scenario.name == "s"
    assert scenario.data.kind == "digits"
    assert scenario.policies == {
        "none": GuardConfig(policy="none"),
        "siguard": GuardConfig(policy="siguard"),
        "linesearch": GuardConfig(policy="linesearch"),
    }
    assert scenario.transport.kind == "memory"
    assert scenario.network.as_profile() is None
    assert (scenario.network.clock, scenario.network.costs, scenario.network.cores) == ("wall", "table", None)


def test_a_network_is_a_profile_with_values_of_its_own(tmp_path: Path) -> None:
    assert load(tmp_path, '[network]\nprofile = "wan"').network.as_profile() == WAN
    changed = load(tmp_path, '[network]\nprofile = "wan"\nlatency_ms = 5').network.as_profile()
    assert changed is not None
    assert changed.default == Direction(5e-3, 100e6)
    custom = load(tmp_path, "[network]\nlatency_ms = 5\njitter_ms = 1.5").network
    assert custom.as_profile() == NetworkProfile("none, changed", Direction(5e-3, None, 1.5e-3))
    assert custom.shape().as_profile() == custom.as_profile()


def test_a_single_direction_takes_what_it_leaves_out_from_the_network_or_from_its_own_profile(
    tmp_path: Path,
) -> None:
    text = """
    [network]
    profile = "wan"
    jitter_ms = 2
    [network.links]
    "user->S0" = { latency_ms = 60 }
    "S0->user" = { profile = "lan", latency_ms = 1 }
    "S1->S2" = { profile = "none" }
    """
    profile = load(tmp_path, text).network.as_profile()
    assert profile is not None
    assert profile.direction("user", "S0") == Direction(60e-3, 100e6, 2e-3)
    assert profile.direction("S0", "user") == Direction(1e-3, 1e9)
    assert profile.direction("S1", "S2") == Direction()
    assert profile.direction("S2", "S1") == Direction(20e-3, 100e6, 2e-3)
    assert load(tmp_path, text).network.shape().as_profile() == NetworkProfile("wan, changed", profile.default)
    alone = load(tmp_path, "", {"network.links.S0->S1.latency_ms": 7}).network.as_profile()
    assert alone is not None
    assert (alone.default, alone.direction("S0", "S1")) == (Direction(), Direction(7e-3))


@pytest.mark.parametrize("file", sorted((ROOT / "scenarios").glob("*.toml")), ids=lambda file: file.stem)
def test_the_scenarios_of_the_repository_are_valid(file: Path) -> None:
    assert load_any(file).name == file.stem


def test_shared_values_reach_the_policies_that_have_them_and_own_values_win(tmp_path: Path) -> None:
    text = """
    [guard]
    policies = ["siguard", "decay", "linesearch", "none"]
    inner = 7
    outer = 2
    [guard.siguard]
    inner = 5
    """
    policies = load(tmp_path, text).policies
    assert policies["siguard"] == GuardConfig(policy="siguard", inner=5, outer=2)
    assert policies["decay"] == GuardConfig(policy="decay", inner=7)
    assert policies["linesearch"] == GuardConfig(policy="linesearch")
    assert list(policies) == ["none", "siguard", "decay", "linesearch"]


def computed(scenario: Scenario) -> dict[str, tuple[str, int | None]]:
    """How each policy is computed, which configurations do not compare."""
    return {name: (config.rounds, config.max_bytes) for name, config in scenario.policies.items()}


def test_how_a_guard_is_computed_is_a_key_of_every_policy_the_undefended_one_included(tmp_path: Path) -> None:
    text = """
    prepare = true
    [guard]
    rounds = "few"
    max_bytes = 25_000_000
    [guard.linesearch]
    max_bytes = 1_000_000
    """
    few = ("few", 25_000_000)
    assert load(tmp_path, text).prepare
    assert computed(load(tmp_path, text)) == {"none": few, "siguard": few, "linesearch": ("few", 1_000_000)}
    assert computed(load(tmp_path, text, parse_overrides(["guard.max_bytes=7"]))) == dict.fromkeys(
        ("none", "siguard", "linesearch"), ("few", 7)
    )
    own = computed(load(tmp_path, "", parse_overrides(["guard.siguard.rounds=bytes"])))
    assert own == {"none": ("auto", None), "siguard": ("bytes", None), "linesearch": ("auto", None)}
    assert not load(tmp_path, "").prepare


def test_an_override_of_all_policies_also_replaces_a_policys_own_value(tmp_path: Path) -> None:
    text = "[guard.siguard]\ninner = 5\nouter = 2\n"
    assert load(tmp_path, text, {"guard.inner": 4}).policies["siguard"] == GuardConfig(inner=4, outer=2)
    assert load(tmp_path, text, {"guard.siguard.inner": 4}).policies["siguard"] == GuardConfig(inner=4, outer=2)
    both = load(tmp_path, text, {"guard.inner": 4, "guard.siguard.inner": 3})
    assert both.policies["siguard"] == GuardConfig(inner=3, outer=2)


def test_choosing_other_policies_forgets_what_only_the_others_had(tmp_path: Path) -> None:
    text = '[guard]\npolicies = ["siguard"]\nouter = 2\n[guard.siguard]\ninner = 5\n'
    assert set(load(tmp_path, text, {"guard.policies": ["linesearch"]}).policies) == {"linesearch", "none"}


def test_a_path_counts_from_the_file_and_an_overriding_one_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "scenarios"
    folder.mkdir()
    text = '[data]\nkind = "npz"\npath = "logits.npz"\n'
    assert load(folder, text).data_path() == folder / "logits.npz"
    assert load(folder, text, {"data.path": "other.npz"}).data_path() == tmp_path / "other.npz"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seeed = 3", ["seeed", "unknown key", "did you mean 'seed'?", "allowed:", "samples", "guard"]),
        ("seed = true", ["seed: found true", "a whole number from 0 to"]),
        ("samples = 401", ["samples: found 401", "an even number"]),
        ("samples = 0", ["samples: found 0", "an even number from 2"]),
        ("batch = 2.5", ["batch: found 2.5", "a whole number from 1"]),
        ("batch = nan", ["batch: found nan"]),
        ("target = 3", ["target: found 3", "a table"]),
        ("[target]\nhidden = [64, 0]", ["target.hidden[1]: found 0", "whole numbers from 1"]),
        ("[target]\nhidden = []", ["target.hidden: found []", "a list of 1 to 5"]),
        ("[target]\nhiden = [3]", ["target.hiden", "did you mean 'hidden'?"]),
        ("[data]\nrows = 400", ["data.rows: found 400", "from 20 to 359"]),
        ('[data]\nkind = "digit"', ['data.kind: found "digit"', "digits, location30 or npz"]),
        ('[data]\nkind = "npz"', ["data.path: missing", "the .npz file"]),
        (
            '[data]\npath = "x"',
            ['data.path: data.kind = "digits" has no use for it, only location30 and npz'],
        ),
        ('[data]\nkind = "location30"\nrows = 30', ["data.rows: data.kind", "only digits"]),
        ("[attacks]\nshadows = 0", ["attacks.shadows: found 0", "from 1 to 16"]),
        (
            '[data]\nkind = "npz"\npath = "x"\n[target]\nhidden = [2]',
            ['target.hidden: data.kind = "npz" has no use'],
        ),
        ("guard = 3", ["guard: found 3", "a table"]),
        ("[guard]\npolicies = []", ["guard.policies: found []", "a list of siguard, decay, linesearch"]),
        ('[guard]\npolicies = ["sigard"]', ["guard.policies[0]", "did you mean 'siguard'?"]),
        ('[guard]\npolicies = ["none", "none"]', ["guard.policies", "each at most once"]),
        ("[guard]\ninnner = 3", ["guard.innner", "did you mean 'inner'?", "policies"]),
        ('[guard]\ninner = "ten"', ["guard.inner: found 'ten'", "a whole number from 1 to 1000"]),
        ("[guard]\ninner = 0", ["guard.inner: found 0", "1 to 1000"]),
        ("[guard.siguard]\nouter = 9", ["guard.siguard.outer: found 9", "1 to 6", "c3 grows"]),
        (
            "[guard.siguard]\nouter = 6\nc3 = 0.2",
            ["guard.siguard.outer: c3 = 0.2 grows", "c3 * 10^(outer - 1) <="],
        ),
        (
            '[guard]\npolicies = ["decay"]\n[guard.decay]\nouter = 2',
            ["guard.decay.outer: unknown key", "inner, learning_rate"],
        ),
        (
            '[guard]\npolicies = ["decay"]\n[guard.decay]\nlearning_rate = 3',
            ["guard.decay.learning_rate: found 3", "0.1286 to 2.5 with inner = 6"],
        ),
        (
            '[guard]\npolicies = ["decay"]\ninner = 20',
            ["guard.inner: found 20", "1 to 11", "0.6 of the length"],
        ),
        ('[guard]\nrounds = "fast"', ["guard.rounds: found 'fast'", "auto, few, bytes"]),
        ("[guard.siguard]\nrounds = 3", ["guard.siguard.rounds: found 3", "auto, few, bytes"]),
        ("[guard]\nmax_bytes = 1000", ["guard.max_bytes: it steers rounds = 'few'; found rounds = 'auto'"]),
        (
            '[guard]\nrounds = "few"\n[guard.siguard]\nmax_bytes = 1.5',
            ["guard.siguard.max_bytes: found 1.5", "a whole number of bytes"],
        ),
        (
            '[guard]\nrounds = "few"\nmax_bytes = 1000\n[guard.linesearch]\nrounds = "bytes"',
            ["guard.max_bytes: it steers", "found rounds = 'bytes'"],
        ),
        ("prepare = 1", ["prepare: found 1", "true or false"]),
        ("[guard.siguard]\niner = 3", ["guard.siguard.iner", "did you mean 'inner'?"]),
        ("[guard.linesearch]\ninner = 3", ["guard.linesearch.inner", "allowed: max_bytes, rounds"]),
        ("[guard]\nsiguard = 3", ["guard.siguard: found 3", "a table"]),
        (
            '[guard]\npolicies = ["none"]\ninner = 3',
            ["guard.inner", "no policy of this scenario (none)", "siguard, decay"],
        ),
        (
            '[guard]\npolicies = ["none"]\n[guard.siguard]\ninner = 3',
            ["guard.siguard", "not in guard.policies"],
        ),
        ("seed = = 3", ["not valid TOML", "line 1"]),
        ('[transport]\nkind = "udp"', ['transport.kind: found "udp"', "memory or tcp"]),
        ('[network]\nprofile = "moon"', ['network.profile: found "moon"', '"lan", "wan" or "none"']),
        ("[network]\nlatency_ms = -1", ["network.latency_ms: found -1", "0 to 60000"]),
        ("[network]\nlatency = 1", ["network.latency: unknown key", "did you mean 'latency_ms'?"]),
        ('[network]\nclock = "sun"', ['network.clock: found "sun"', "wall or virtual"]),
        (
            '[network]\nclock = "virtual"\ncosts = "free"',
            ['network.costs: found "free"', "table or measured"],
        ),
        ('[network]\nclock = "virtual"\ncores = 0', ["network.cores: found 0", "a whole number from 1 to 64"]),
        ("[network]\ncores = 2", ['network.cores: network.clock = "wall" has no use for it', "leave it out"]),
        ('[network]\ncosts = "table"', ['network.costs: network.clock = "wall" has no use for it']),
        ("[network]\nlinks = 3", ["network.links: found 3", 'a table of directions, for example "S0->user"']),
        (
            '[network.links]\n"S0->S0" = {}',
            ['network.links."S0->S0": found "S0->S0"', "SENDER->RECEIVER in quotes"],
        ),
        ('[network.links]\n"user->owner" = {}', ['found "user->owner"', "two of S0, S1, S2 and user"]),
        ('[network.links]\n"S0->user" = 3', ['network.links."S0->user": found 3', "a table"]),
        (
            '[network.links]\n"S0->user" = { mbit_per_s = 0 }',
            ['network.links."S0->user".mbit_per_s: found 0', "0.001 to 1000000"],
        ),
        (
            '[transport]\nkind = "tcp"\n[network]\nclock = "virtual"',
            ['network.clock: found "virtual"', 'transport.kind = "tcp"', 'clock = "wall"', 'kind = "memory"'],
        ),
        (
            '[transport]\nkind = "tcp"\n[network.links]\n"S0->user" = {}',
            ['network.links: transport.kind = "tcp" has one network', 'transport.kind = "memory"'],
        ),
        (
            '[transport]\nkind = "tcp"\n[data]\nkind = "npz"\npath = "x"',
            ['transport.kind: found "tcp"', 'data.kind = "npz" has logits', 'kind = "memory"', '"digits"'],
        ),
    ],
)
def test_a_wrong_file_is_told_key_found_and_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in parts:
        assert part in message


def test_every_problem_has_its_own_line(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "seed = -1\nbatch = 0\n[attacks]\nshadows = 0").splitlines()
    assert len(lines) == 3
    assert all(str(tmp_path / "s.toml") in line for line in lines)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"guard.x": 1}, ["guard.x (set by an override)", "unknown key"]),
        ({"guard.inner": 1}, ["guard.inner (set by an override)", "no policy of this scenario"]),
        ({"guard.siguard.inner": 1}, ["guard.siguard.inner (set by an override)", "not in guard.policies"]),
        (
            {"guard.linesearch.inner": 1},
            ["guard.linesearch.inner (set by an override)", "allowed: max_bytes, rounds"],
        ),
        ({"seed.x": 1}, ["seed.x", "seed is a value, not a table"]),
        (
            {"attacks.shadows": "many"},
            ['attacks.shadows (set by an override): found "many"', "a whole number"],
        ),
    ],
)
def test_a_wrong_override_says_that_it_was_one(tmp_path: Path, overrides: dict[str, Any], parts: list[str]) -> None:
    message = refusal(tmp_path, 'seed = 1\n[guard]\npolicies = ["linesearch"]', overrides)
    for part in parts:
        assert part in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"absent\.toml: no such file"):
        load_scenario(tmp_path / "absent.toml")
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="UTF-8"):
        load_scenario(tmp_path / "binary.toml")


def test_override_texts() -> None:
    items = ["a=5", "b.c = 0.5", "d=true", "e=text", 'f=["x", "y"]', "g=a=b", "h=1\ni=2", "a=6"]
    overrides = parse_overrides(items)
    expected = {"b.c": 0.5, "d": True, "e": "text", "f": ["x", "y"], "g": "a=b", "h": "1\ni=2", "a": 6}
    assert list(overrides.items()) == list(expected.items())


@pytest.mark.parametrize("item", ["inner", "=5", "guard..inner=5", "guard.=5", ""])
def test_an_override_without_key_or_value_shows_one(item: str) -> None:
    with pytest.raises(ScenarioError, match=r"allowed: key=value, for example guard\.inner=5"):
        parse_overrides([item])
