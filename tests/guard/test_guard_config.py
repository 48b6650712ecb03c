"""`GuardConfig`: what is allowed, what is refused by name, and which configurations are the same permission."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from siguard import GuardConfig, InputError
from siguard.guard.config import C3_GROWTH, LEARNING_RATE_GROWTH, LEARNING_RATE_LEAST, POLICIES

NAN, INF = float("nan"), float("inf")

WRONG: dict[str, list[Any]] = {
    "policy": ["SIGUARD", "", " siguard", None, 1, ["siguard"], {}, b"siguard"],
    "outer": [0, -1, 7, 10**400, 1.0, "3", True, NAN],
    "inner": [0, -5, 1001, 2.5, "10", False, [10]],
    "learning_rate": [0, -0.1, 2.1, NAN, INF, "0.8", True, 10**400],
    "c1": [-1, NAN, INF, -INF, 1e5, 1e-4, "1", None, True, 10**400],
    "c2": [-10, NAN, 2e4, 1e-9, [10], 10**400],
    "c3": [-0.1, NAN, 1e9, 1e-300, {}, 10**400],
}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    *[(field, {field: value}) for field, values in WRONG.items() for value in values],
    ("c1", {"c1": 0, "c2": 0, "c3": 0}),
    ("c3", {"c3": 1000.0, "outer": 3}),
    ("c3", {"c3": 0.2, "outer": 6}),
    ("outer", {"c3": 101.0}),
    ("learning_rate", {"learning_rate": 1.5, "outer": 6}),
    *[("outer: ", {"policy": "decay", "outer": value}) for value in (0, 2, 3, 7, 1.0, True)],
    ("outer: found 3; allowed: 1 or None, policy 'decay' has one run", {"policy": "decay", "outer": 3}),
    *[("learning_rate: ", {"policy": "decay", "learning_rate": value}) for value in (0, 0.1, 2.51, -1.0, NAN)],
    ("inner: found 12; allowed: 1 to 11", {"policy": "decay", "inner": 12}),
    ("inner: ", {"policy": "decay", "inner": 1000}),
    ("c1, c2, c3: ", {"policy": "decay", "c1": 0, "c2": 0, "c3": 0}),
    ("c3: ", {"policy": "decay", "c3": 1e5}),
    *[("rounds: ", {"rounds": value}) for value in ("FEW", "", "many", None, 1, True, ["few"], b"few")],
    *[("max_bytes: ", {"rounds": "few", "max_bytes": value}) for value in (0, -1, 1.5, 1e6, "1e6", True, NAN, [1])],
    *[("max_bytes: it steers rounds = 'few'", {"rounds": mode, "max_bytes": 10**6}) for mode in ("auto", "bytes")],
    ("max_bytes: it steers rounds = 'few'", {"max_bytes": 10**6}),
]


@pytest.mark.parametrize(("field", "values"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_is_refused_is_named(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        GuardConfig(**values)
    message = str(caught.value)
    assert field in message, message
    assert len(message) < 500, "the message does not repeat what was found at any length"


@pytest.mark.parametrize("policy", ["linesearch", "label", "none"])
@pytest.mark.parametrize("field", ["outer", "inner", "learning_rate"])
def test_a_parameter_that_the_policy_has_not_is_refused(policy: str, field: str) -> None:
    values: dict[str, Any] = {"policy": policy, field: 1}
    with pytest.raises(InputError, match=field):
        GuardConfig(**values)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_says_how_it_is_computed(policy: str) -> None:
    assert (GuardConfig(policy).rounds, GuardConfig(policy).max_bytes) == ("auto", None)
    for mode in ("auto", "few", "bytes"):
        assert GuardConfig(policy, rounds=mode).resolved().rounds == mode
    bounded = GuardConfig(policy, rounds="few", max_bytes=10**7)
    assert bounded.with_values(max_bytes=None).max_bytes is None
    with pytest.raises(InputError, match="max_bytes"):
        bounded.with_values(rounds="auto")


def test_none_takes_the_policys_own_values() -> None:
    full = GuardConfig().resolved()
    assert (full.policy, full.outer, full.inner, full.learning_rate) == ("siguard", 3, 10, 0.8)
    assert (full.c1, full.c2, full.c3) == (1.0, 10.0, 0.1)
    assert GuardConfig(inner=4).resolved().outer == 3
    assert GuardConfig("label").resolved().outer is None


def test_equal_parameters_are_equal_however_they_were_given() -> None:
    spelled = GuardConfig(outer=3, inner=10, learning_rate=0.8, c1=1, c2=10, c3=0.1)
    assert spelled == GuardConfig().resolved()
    assert spelled.to_dict() == GuardConfig().to_dict()
    assert hash(spelled) == hash(GuardConfig().resolved())
    assert GuardConfig(c1=2) == GuardConfig(c1=2.0)
    assert GuardConfig(inner=9).to_dict() != GuardConfig().to_dict()


def test_resolving_twice_changes_nothing() -> None:
    for policy in POLICIES:
        full = GuardConfig(policy).resolved()
        assert full == full.resolved()
        assert GuardConfig(**full.to_dict()).to_dict() == full.to_dict()


def test_a_configuration_cannot_be_changed() -> None:
    config = GuardConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.c1 = 0.0  # type: ignore[misc]
    with pytest.raises(InputError, match="outer"):
        config.with_values(outer=0)
    assert config.with_values(outer=1).outer == 1
    assert config.outer is None


@pytest.mark.parametrize("outer", [1, 2, 3, 4, 5, 6])
def test_the_largest_allowed_growth_is_allowed(outer: int) -> None:
    """The limits in the messages are the limits: on them is fine, just beyond is not."""
    rate = POLICIES["siguard"].longest_step / LEARNING_RATE_GROWTH ** (outer - 1) * (1 - 1e-12)
    GuardConfig(outer=outer, learning_rate=rate, c3=0.05)
    with pytest.raises(InputError, match="learning_rate"):
        GuardConfig(outer=outer, learning_rate=rate * 1.001, c3=0.05)
    c3 = 10_000.0 / C3_GROWTH ** (outer - 1)
    GuardConfig(outer=outer, c3=c3 * (1 - 1e-12), learning_rate=0.5, c1=c3, c2=c3)
    with pytest.raises(InputError, match="c3"):
        GuardConfig(outer=outer, c3=c3 * 1.001, learning_rate=0.5, c1=c3, c2=c3)


@pytest.mark.parametrize("inner", [1, 2, 6, 11])
def test_no_step_of_decay_is_lost_in_rounding(inner: int) -> None:
    """The limits in the messages are the limits here too: the first step may be 2.5, the last one 0.01."""
    own = POLICIES["decay"]
    least = LEARNING_RATE_LEAST / own.decay ** (inner - 1)
    for rate, refused in ((least * 1.001, least * 0.999), (own.longest_step, own.longest_step * 1.001)):
        assert GuardConfig("decay", inner=inner, learning_rate=rate).iterations == inner
        with pytest.raises(InputError, match="learning_rate"):
            GuardConfig("decay", inner=inner, learning_rate=refused)


def test_decay_has_one_run() -> None:
    full = GuardConfig("decay").resolved()
    assert (full.outer, full.inner, full.learning_rate) == (1, 6, 2.5)
    assert GuardConfig("decay", outer=1).resolved() == full
    assert GuardConfig("decay").described() == "decay:outer=1,inner=6,learning_rate=2.5,c1=1,c2=10,c3=0.1"


@pytest.mark.parametrize(
    ("values", "iterations"),
    [
        ({}, 30),
        ({"outer": 1, "inner": 300}, 300),
        ({"outer": 6, "inner": 1000, "c3": 0.01}, 6000),
        ({"policy": "decay"}, 6),
        ({"policy": "decay", "inner": 3}, 3),
        ({"policy": "linesearch"}, 1),
        ({"policy": "label"}, 0),
        ({"policy": "none"}, 0),
    ],
)
def test_iterations_are_public(values: dict[str, Any], iterations: int) -> None:
    assert GuardConfig(**values).iterations == iterations


def test_values_of_numpy_are_plain_numbers_or_refused() -> None:
    """What is signed and sent is msgpack of plain values: a numpy scalar must not reach it."""
    import numpy as np

    config = GuardConfig(learning_rate=np.float64(0.5), c1=np.float64(2))
    assert all(type(value) in (str, int, float, type(None)) for value in config.to_dict().values())
    assert math.isclose(config.c1, 2)
