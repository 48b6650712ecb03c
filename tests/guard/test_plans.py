"""Plans say how, never what: one answer, one permission, one request for all; what a plan may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, force_plan, random_defender

from siguard import GuardConfig, InputError, Model, open_cluster, reference
from siguard.guard.plan import Plan
from siguard.mpc.thresholds import Way
from siguard.nn.model import FloatArray

CONFIGS = [
    GuardConfig("none"),
    GuardConfig("label"),
    GuardConfig("linesearch"),
    GuardConfig("decay"),
    GuardConfig(outer=2, inner=3),
    GuardConfig(outer=4, inner=2, c3=0.01),
]
SHAPES = [(4, 16, 1), (4, 12, 8, 1), (4, 6, 5, 4, 1)]


@pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: "-".join(map(str, widths)))
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.policy}-{config.outer}")
async def test_every_plan_gives_the_same_answer(
    config: GuardConfig, widths: tuple[int, ...], autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to rounding, which moves a rare row to another path; and that of float64."""
    rng = np.random.default_rng(len(widths))
    defender = random_defender(*widths, seed=1)
    logits = rng.normal(size=(30, 4)) * rng.choice([1.0, 3.0, 20.0], size=(30, 1))
    expected = reference.guard(logits, defender, config).confidences
    answers: dict[str, FloatArray] = {}
    async with open_cluster(seed=1) as cluster:
        for name in ("keys", "adders", "in turn"):
            force_plan(monkeypatch, PLANS[name])
            answers[name] = (await cluster.guard(logits, defender, config)).confidences
            assert (answers[name].argmax(1) == logits.argmax(1)).all(), name
    exact = config.policy in ("none", "label")
    for name, answer in answers.items():
        for other, what in ((expected, "float64"), (answers["keys"], "keys")):
            far = np.abs(answer - other).max(1) >= (1e-3 if exact else 2e-2)
            assert far.mean() <= (0 if exact else 0.1), (
                f"{name} against {what}: rows {np.flatnonzero(far).tolist()}"
            )


async def test_every_plan_infers_the_same_logits(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = Model([(rng.normal(size=(6, 9)), rng.normal(size=9)), (rng.normal(size=(9, 4)), rng.normal(size=4))])
    features = rng.normal(size=(30, 6))
    expected = reference.softmax(model(features))
    async with open_cluster(seed=1) as cluster:
        for plan in PLANS.values():
            force_plan(monkeypatch, plan)
            answer = await cluster.query(features, model, random_defender(4, 5, 1), GuardConfig("none"))
            assert np.abs(answer.confidences - expected).max() < 1e-3, plan
            assert answer.planned is not None
            assert answer.planned.plan == plan


def test_how_it_is_computed_is_not_part_of_what_is_permitted() -> None:
    plain = GuardConfig(inner=4)
    for other in (
        GuardConfig(inner=4, rounds="few"),
        GuardConfig(inner=4, rounds="bytes"),
        GuardConfig(inner=4, rounds="few", max_bytes=10**7),
    ):
        assert other == plain
        assert hash(other) == hash(plain)
        assert other.to_dict() == plain.to_dict()
        assert other.described() == plain.described()
        assert other.resolved().rounds == other.rounds
        assert other.resolved().max_bytes == other.max_bytes
    assert not {"rounds", "max_bytes"} & set(plain.to_dict())


async def test_a_signed_configuration_runs_by_any_plan(autojump_clock: Any) -> None:
    logits, defender = np.random.default_rng(0).normal(size=(3, 4)), random_defender(4, 8, 6, 1)
    async with open_cluster(seed=1, allow=[GuardConfig(inner=2)]) as cluster:
        seen = {}
        for mode in ("few", "bytes", "auto"):
            result = await cluster.guard(logits, defender, GuardConfig(inner=2, rounds=mode))
            assert result.planned is not None
            seen[mode] = result.planned
            assert result.traffic.rounds == result.planned.rounds
        assert seen["few"].rounds < seen["bytes"].rounds
        assert seen["few"].bytes > seen["bytes"].bytes
        most = (seen["few"].bytes + seen["bytes"].bytes) // 2
        result = await cluster.guard(logits, defender, GuardConfig(inner=2, rounds="few", max_bytes=most))
        assert result.planned is not None
        assert result.planned.bytes <= most
        assert seen["few"].rounds <= result.planned.rounds <= seen["bytes"].rounds


async def test_too_few_bytes_are_refused_before_anything_is_sent(autojump_clock: Any) -> None:
    async with open_cluster(seed=1) as cluster:
        config = GuardConfig(rounds="few", max_bytes=1000)
        with pytest.raises(InputError, match=r"^max_bytes: found 1000; policy 'siguard' with 2 row\(s\)"):
            await cluster.guard(np.zeros((2, 4)), random_defender(4, 8, 6, 1), config)
        assert cluster.setup_traffic.messages == 0


# --- as it is sent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_plans_are_sent_as_plain_values(plan: Plan) -> None:
    plain = plan.to_dict()
    assert {type(value) for value in plain.values()} <= {str, bool}
    assert Plan.from_dict(plain) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": "table"}, "allowed: key, bit key, adder"),
        ({"direct": None}, "allowed: key, bit key, adder"),
        ({"beside": 1}, "allowed: key, bit key, adder"),
        ({"folded": 1}, "folded is 1; allowed: true or false"),
        ({"joined": "true"}, "joined is 'true'; allowed: true or false"),
        ({"sequential": None}, "sequential is None; allowed: true or false"),
        ({"more": True}, "expected the fields"),
    ],
    ids=str,
)
def test_what_is_not_a_plan_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^plan: .*{message}"):
        Plan.from_dict({**Plan().to_dict(), **change})


@pytest.mark.parametrize("values", [None, [], "key", {}, {"hidden": "key"}])
def test_a_plan_has_all_its_fields(values: Any) -> None:
    with pytest.raises(InputError, match=r"^plan: expected the fields beside, curves, direct, folded, hidden"):
        Plan.from_dict(values)


def test_ways_are_told_by_their_names() -> None:
    assert Plan.from_dict({**Plan().to_dict(), "hidden": "bit key"}).hidden is Way.BIT_KEY
