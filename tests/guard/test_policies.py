"""What every policy owes: label kept, rows of confidences, declared cost, frames that show nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, TWO_PLANS

import siguard.actors.cluster as cluster_module
from siguard import Cluster, Defender, GuardConfig, InputError, Model, open_cluster, reference
from siguard.guard.defender import encode_defender
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, Planned
from siguard.guard.policy import POLICIES, policy_cost
from siguard.guard.shape import Shape
from siguard.mpc.gate import Cost
from siguard.nn.model import FloatArray
from siguard.nn.shared import inference_cost
from siguard.transport.link import Link
from siguard.transport.wrapped import WrappedLink

SHORT = GuardConfig(outer=2, inner=3)
CONFIGS = [
    GuardConfig("none"),
    GuardConfig("label"),
    GuardConfig("linesearch"),
    GuardConfig("decay", inner=3),
    SHORT,
]
#: Frames outside a policy: three requests, two masked inputs, two parts of the answer.
OUTSIDE = ("start", "input", "reveal", "credit")


def _defender(*widths: int, seed: int = 0, last: float = 1.0) -> Defender:
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(m, n)) * 3 / np.sqrt(m), rng.normal(size=n) * 0.3) for m, n in pairwise(widths)]
    W, b = layers.pop()
    return Defender([*layers, (W * last, b * last)])


async def _check_label(cluster: Cluster, logits: FloatArray, defender: Defender, config: GuardConfig) -> FloatArray:
    confidences = (await cluster.guard(logits, defender, config)).confidences
    assert (confidences >= 0).all()
    assert np.abs(confidences.sum(axis=1) - 1).max() <= 1e-9
    lost = np.flatnonzero(confidences.argmax(axis=1) != logits.argmax(axis=1))
    shown = [(logits[row].tolist(), confidences[row].tolist()) for row in lost[:3]]
    assert lost.size == 0, f"{config}: label lost on rows {lost.tolist()} of {len(logits)}, for example {shown}"
    return confidences


def test_every_policy_is_tested_here() -> None:
    assert {config.policy for config in CONFIGS} == set(POLICIES)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.policy)
@pytest.mark.parametrize("classes", [2, 3, 4, 10, 30])
async def test_labels_of_near_ties(classes: int, config: GuardConfig, autojump_clock: Any) -> None:
    """Differences from 1e-3 to just above 2^-24, at any size of logits; exact ties take the lowest index."""
    rng = np.random.default_rng(classes)
    gaps = [1e-3, 1e-4, 1e-5, 1e-6, 2.0**-22, 2.0**-23, 1.1 * 2.0**-24, 0.0]
    logits = rng.normal(size=(48, classes)) * rng.choice([0.1, 1, 5, 30], size=(48, 1))
    for row in range(40):
        first, second = rng.choice(classes, 2, replace=False)
        logits[row, first] = logits[row].max() + rng.choice([0, 0.5])
        logits[row, second] = logits[row, first] - gaps[row % 8]
    logits[40:43] = [[0.0], [5.0], [-1000.0]]
    logits[43:46] = np.where(np.arange(classes) < 3, 2.0, 0.0)
    logits[46, -1] = logits[46].max() + 1e-6
    async with open_cluster(seed=classes) as cluster:
        await _check_label(cluster, logits, _defender(classes, 8, 6, 1), config)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.policy)
async def test_huge_logits_saturate(config: GuardConfig, autojump_clock: Any) -> None:
    """Finite is enough: what is far below the label is 0 in any answer, and nothing wraps."""
    huge = [
        1e3,
        1e5,
        2.0**20,
        2.0**21,
        1e7,
        2.0**31,
        1e9,
        2.0**39,
        2.0**40,
        1e12,
        2.0**63,
        1e25,
        1e100,
        1e300,
        1.7e308,
    ]
    rows = [[a, 0.0, -a, 1.0] for a in huge] + [[-a, -a, 0.0, -0.5] for a in huge] + [[0.0, a, -a, a] for a in huge]
    rows += [[-a, -a, -a * (1 - 1e-3), -a] for a in huge] + [[3.0, 2.0, -a, 2.0] for a in huge]
    logits = np.array(rows)
    defender = _defender(4, 8, 6, 1)
    async with open_cluster(seed=1) as cluster:
        confidences = await _check_label(cluster, logits, defender, config)
    if config.policy in ("none", "label"):
        expected = reference.guard(logits, defender, config).confidences
        assert np.abs(confidences - expected).max() < 1e-3


@pytest.mark.parametrize(
    "values",
    [
        {"c1": 10.0, "c3": 1e-3},
        {"c1": 1e3, "c2": 10.0, "c3": 1e-3},
        {"c1": 1e4, "c2": 1e-3, "c3": 1e-3},
        {"c1": 1e-3, "c2": 1e4, "c3": 1e-3},
        {"c1": 1e-3, "c2": 1e-3, "c3": 1e3},
        {"learning_rate": 1.8, "inner": 20, "outer": 1},
        {"learning_rate": 1.8, "inner": 20, "outer": 1, "c2": 0.0},
        {"policy": "decay", "inner": 11, "learning_rate": 2.5, "outer": 1},
        {"policy": "decay", "learning_rate": 2.5, "outer": 1, "c2": 0.0},
        {"policy": "decay", "learning_rate": 2.5, "outer": 1, "c1": 1e-3, "c2": 1e4, "c3": 1e4},
    ],
    ids=str,
)
async def test_labels_under_every_allowed_configuration(values: dict[str, Any], autojump_clock: Any) -> None:
    """A configuration is refused as it is made, or it keeps the labels, however uneven its weights are."""
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(size=(20, 4)) * scale for scale in (1, 3, 10, 30)])
    try:
        config = GuardConfig(**{"outer": 2, "inner": 6, **values})
    except InputError:
        assert "learning_rate" not in values
        return
    async with open_cluster(seed=1) as cluster:
        await _check_label(cluster, logits, _defender(4, 16, 8, 1), config)


@pytest.mark.parametrize("last", [1e-6, 1.0, 1e2, 1e3, 1e5])
async def test_labels_with_every_accepted_defender(last: float, autojump_clock: Any) -> None:
    """A classifier is refused, or it keeps the labels, however steep it is, and guards as in float64."""
    rng = np.random.default_rng(3)
    logits = np.concatenate([rng.normal(size=(13, 4)) * scale for scale in (1, 3, 10, 30)])
    defender = _defender(4, 16, 8, 1, last=last)
    async with open_cluster(seed=1) as cluster:
        try:
            await cluster.guard(logits[:1], defender, GuardConfig(inner=6))
        except InputError:
            assert last >= 1e3, "slopes of a trained classifier are not refused"
            return
        await _check_label(cluster, logits, defender, GuardConfig("linesearch"))
        for config in (GuardConfig(outer=2, inner=6), GuardConfig("decay")):
            try:
                answer = await _check_label(cluster, logits, defender, config)
            except InputError:
                assert config.policy == "decay", "with 4 classes it takes an |h| of at most 2^16"
                assert last >= 1e5
                continue
            if last >= 1e-1:
                expected = reference.guard(logits, defender, config).confidences
                far = np.mean(np.abs(answer - expected).max(axis=1) >= 2e-2)
                where = f"{config.policy}, last layer times {last:g}"
                assert far <= 0.1, f"{where}: {far:.0%} of the rows are off by 2e-2 or more"


async def test_a_classifier_that_is_zero_everywhere(autojump_clock: Any) -> None:
    """Its gradient is 0, so the noise stays 0, and 0 is on both sides of the border.

    All that is left is the last bit of the term that stays close; normalised, it moves a row now and then.
    """
    flat = Defender([(np.zeros((4, 8)), np.zeros(8)), (np.zeros((8, 1)), np.zeros(1))])
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 3
    async with open_cluster(seed=1) as cluster:
        for config in CONFIGS:
            expected = reference.guard(logits, flat, config).confidences
            answer = (await cluster.guard(logits, flat, config)).confidences
            assert (answer.argmax(axis=1) == logits.argmax(axis=1)).all()
            far = np.abs(answer - expected).max(axis=1) >= 5e-3
            assert far.mean() <= (0.3 if config.iterations > 1 else 0), config.policy


def _outside(traffic: Any) -> Cost:
    counts = [count for step, count in traffic.by_step().items() if step in OUTSIDE]
    messages = sum(count.messages for count in counts)
    return Cost(0, messages, sum(count.bytes for count in counts) - 80 * messages)


def force(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Let calls run by this plan, whatever the planner would choose."""

    def planned(config: GuardConfig, shape: Shape, conditions: Conditions) -> Planned:
        cost = policy_cost(shape._replace(plan=plan), config)
        return Planned(plan, cost.rounds + 3, cost.bytes, 0.0)

    monkeypatch.setattr(cluster_module, "plan_for", planned)


def _declared(batch: int, defender: Defender, config: GuardConfig, plan: Plan) -> Cost:
    return policy_cost(Shape(batch, defender.shape, encode_defender(defender).magnitude_bits, plan), config)


SHAPES = [(2, 5, 1), (3, 4, 3, 1), (10, 6, 5, 4, 1), (30, 4, 1), (4, 7, 3, 1)]


@pytest.mark.parametrize(
    ("outer", "plan"),
    [
        *((1, plan) for plan in PLANS.values()),
        *((outer, plan) for outer in (2, 3, 4) for plan in TWO_PLANS.values()),
    ],
    ids=[*(f"1-{name}" for name in PLANS), *(f"{outer}-{name}" for outer in (2, 3, 4) for name in TWO_PLANS)],
)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(map(str, s)))
async def test_declared_cost_is_what_is_measured(
    shape: tuple[int, ...], outer: int, plan: Plan, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(outer)
    defender = _defender(*shape)
    force(monkeypatch, plan)
    configs = [GuardConfig(outer=outer, inner=2, c3=0.05)]
    configs += CONFIGS[:-1] if outer == 1 else []
    async with open_cluster(seed=1) as cluster:
        for config in configs:
            for batch in (1, 3):
                result = await cluster.guard(rng.normal(size=(batch, shape[0])), defender, config)
                traffic, planned = result.traffic, result.planned
                cost = _declared(batch, defender, config, plan)
                declared = cost + _outside(traffic)
                where = f"{config}, batch {batch}, shape {shape}"
                assert traffic.messages == declared.messages, where
                assert traffic.bytes_total == declared.bytes, where
                # Outside the policy: the request, the input with the first dealt frames, the reveal.
                assert traffic.rounds == cost.rounds + 3, where
                assert planned is not None
                assert (planned.rounds, planned.bytes) == (traffic.rounds, cost.bytes), where


@pytest.mark.parametrize("plan", TWO_PLANS.values(), ids=TWO_PLANS)
@pytest.mark.parametrize("widths", [(5, 4), (5, 7, 4), (5, 6, 9, 4)], ids=lambda s: "-".join(map(str, s)))
async def test_declared_cost_of_inference(
    widths: tuple[int, ...], plan: Plan, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    model = Model([(rng.normal(size=(m, n)), rng.normal(size=n)) for m, n in pairwise(widths)])
    defender = _defender(4, 5, 1)
    force(monkeypatch, plan)
    async with open_cluster(seed=1) as cluster:
        for batch in (1, 3, 20):
            traffic = (await cluster.query(rng.normal(size=(batch, 5)), model, defender, SHORT)).traffic
            declared = _declared(batch, defender, SHORT, plan) + inference_cost(batch, widths, plan.hidden)
            declared += _outside(traffic)
            assert (traffic.messages, traffic.bytes_total) == (declared.messages, declared.bytes), f"batch {batch}"


#: Of "few" and "bytes", measured when this was written: a change that needs more has to say so here.
CEILINGS = {"none": (6, 9), "label": (4, 7), "linesearch": (14, 29), "decay": (66, 153), "siguard": (102, 677)}


@pytest.mark.parametrize("policy", CEILINGS)
async def test_rounds_stay_at_what_was_measured(policy: str, autojump_clock: Any) -> None:
    defender = _defender(10, 128, 64, 1)
    logits = np.random.default_rng(0).normal(size=(1, 10))
    async with open_cluster(seed=1) as cluster:
        for mode, ceiling in zip(("few", "bytes"), CEILINGS[policy], strict=True):
            traffic = (await cluster.guard(logits, defender, GuardConfig(policy, rounds=mode))).traffic
            assert traffic.rounds <= ceiling, f"{mode}: {traffic.rounds}"


class LengthRecorder(WrappedLink):
    """A link that notes who sent how many bytes, in the order of each link."""

    def __init__(self, link: Link, owner: str, lengths: dict[tuple[str, str], list[tuple[bytes, int]]]) -> None:
        super().__init__(link)
        self._sent = lengths.setdefault((owner, link.peer), [])

    async def send(self, data: bytes) -> None:
        # The session changes with the content; step, depth, type, shape and length must not.
        self._sent.append((data[22:80], len(data)))
        await self.link.send(data)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.policy)
@pytest.mark.parametrize("rounds", ["few", "bytes"])
async def test_frames_do_not_depend_on_any_value(config: GuardConfig, rounds: str, autojump_clock: Any) -> None:
    """Members or not, any label, ties, saturated or flat rows, accepted or not: equal frames on every link."""
    rng = np.random.default_rng(0)
    defender = _defender(4, 8, 6, 1)
    config = config.with_values(rounds=rounds)
    batches = {
        "random": rng.normal(size=(3, 4)) * 2,
        "confident": rng.normal(size=(3, 4)) * 300,
        "flat": np.zeros((3, 4)),
        "huge": np.array([[1e6, 0, -1e6, 3]] * 3),
        "one label": np.array([[0, 0, 0, 9.0]] * 3),
        "another label": np.array([[9.0, 0, 0, 0]] * 3),
    }
    seen: dict[str, Any] = {}
    for name, logits in batches.items():
        lengths: dict[tuple[str, str], list[tuple[bytes, int]]] = {}

        def record(
            link: Link, owner: str, lengths: dict[tuple[str, str], list[tuple[bytes, int]]] = lengths
        ) -> LengthRecorder:
            return LengthRecorder(link, owner, lengths)

        async with open_cluster(seed=1, wrap_link=record) as cluster:
            await cluster.guard(logits, defender, config)
        seen[name] = {link: sorted(sent) for link, sent in lengths.items()}
    for name in batches:
        assert seen[name] == seen["random"], f"rows {name!r} show in the frames"
