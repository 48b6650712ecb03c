"""Secure inference on the way of a query: the logits on shares against the float64 model."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from siguard import Defender, GuardConfig, GuardResult, InputError, Model, open_cluster, reference
from siguard.nn.model import FloatArray
from siguard.nn.shared import encode_model

NONE, LABEL, LINESEARCH, SHORT = (
    GuardConfig("none"), GuardConfig("label"), GuardConfig("linesearch"), GuardConfig(outer=1, inner=2)
)  # fmt: skip
#: Error of a confidence: exponential, normalisation, and the model's weights at 14 fraction bits.
TOLERANCE = 2e-3


def _network(*widths: int, seed: int = 0, scale: float = 1.0) -> list[tuple[FloatArray, FloatArray]]:
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(m, n)) * scale * np.sqrt(2 / m), rng.normal(size=n) * 0.1) for m, n in pairwise(widths)
    ]


def _defender(classes: int) -> Defender:
    return Defender(_network(classes, 6, 1, seed=99))


async def _query(
    features: Any, model: Model, config: GuardConfig = NONE, seed: int = 1, defender: Defender | None = None
) -> GuardResult:
    async with open_cluster(seed=seed) as cluster:
        return await cluster.query(features, model, defender or _defender(model.classes), config)


def _check(result: GuardResult, logits: FloatArray, tolerance: float = TOLERANCE) -> None:
    confidences = result.confidences
    assert confidences.shape == logits.shape
    assert (confidences >= 0).all()
    assert np.abs(confidences.sum(axis=1) - 1).max() <= 1e-9
    difference = np.abs(confidences - reference.softmax(logits)).max()
    assert difference <= tolerance, f"largest difference {difference:.3g}"


@pytest.mark.parametrize("batch", [1, 7, 40])
@pytest.mark.parametrize(
    "widths",
    [(5, 4), (1, 2), (3, 2), (5, 7, 4), (5, 16, 8, 3), (64, 32, 16, 8, 10), (8, 30)],
    ids=lambda widths: "-".join(map(str, widths)),
)
async def test_confidences_of_the_model(widths: tuple[int, ...], batch: int, autojump_clock: Any) -> None:
    model = Model(_network(*widths))
    features = np.random.default_rng(batch).normal(size=(batch, widths[0]))
    _check(await _query(features, model), model(features))


@pytest.mark.parametrize("config", [LABEL, LINESEARCH, SHORT], ids=lambda config: config.policy)
@pytest.mark.parametrize("widths", [(4, 3), (4, 9, 2), (4, 9, 6, 5)], ids=lambda widths: "-".join(map(str, widths)))
async def test_every_policy_keeps_the_models_label(
    widths: tuple[int, ...], config: GuardConfig, autojump_clock: Any
) -> None:
    model = Model(_network(*widths, seed=3, scale=2))
    features = np.random.default_rng(5).normal(size=(30, 4))
    logits = model(features)
    ordered = np.sort(logits, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 1e-2  # nearer ties are within the precision of the weights
    confidences = (await _query(features, model, config)).confidences
    assert clear.sum() >= 25
    assert (confidences.argmax(axis=1) == logits.argmax(axis=1))[clear].all()
    expected = reference.guard(logits, _defender(model.classes), config).confidences
    near = np.mean(np.abs(confidences - expected).max(axis=1)[clear] < 2e-2)
    assert near >= 0.9, f"{near:.0%} of the rows are within 2e-2"


@pytest.mark.parametrize(("scale", "tolerance"), [(1e-3, TOLERANCE), (1.0, TOLERANCE), (10.0, 1e-2)])
async def test_weights_of_any_common_size(scale: float, tolerance: float, autojump_clock: Any) -> None:
    """Features are right to 2^-17, which two steep layers multiply by about scale^2."""
    model = Model(_network(6, 10, 4, scale=scale))
    features = np.random.default_rng(0).normal(size=(20, 6)) * min(1.0, 1 / scale)
    _check(await _query(features, model), model(features), tolerance)


async def test_wide_layers_split_the_exact_product(autojump_clock: Any) -> None:
    """1,100 inputs are more than one exact block of the limb product."""
    model = Model(_network(1100, 20, 3))
    features = np.random.default_rng(0).uniform(size=(60, 1100))
    logits = model(features)
    _check(await _query(features, model), logits, tolerance=5e-3)


@pytest.mark.parametrize("config", [NONE, LABEL], ids=lambda config: config.policy)
async def test_features_saturate_at_the_published_limit(config: GuardConfig, autojump_clock: Any) -> None:
    """A feature beyond the limit counts as the limit; nothing wraps, however large it is."""
    model = Model(_network(5, 8, 4, scale=0.01))
    limit = encode_model(model).feature_limit
    directions = np.sign(np.random.default_rng(2).normal(size=(12, 5)))
    for size in (limit, limit * 2, 2.0**31, 2.0**47, 1e100, 1e308):
        answer = (await _query(directions * size, model, config)).confidences
        clipped = model(np.clip(directions * size, -limit, limit))
        assert (answer.argmax(axis=1) == clipped.argmax(axis=1)).all(), f"features of {size:g}"
        if config.policy == "none":
            # Weights are right to 2^-15, and each of five features is up to 2^12.
            assert np.abs(answer - reference.softmax(clipped)).max() <= 0.25


async def test_the_limit_follows_from_the_weights(autojump_clock: Any) -> None:
    """Steeper models publish smaller limits, and at the limit no layer leaves the range."""
    limits = []
    for scale in (0.1, 1.0, 10.0, 100.0):
        model = Model(_network(20, 30, 30, 5, scale=scale))
        limit = encode_model(model).feature_limit
        limits.append(limit)
        features = np.sign(np.random.default_rng(1).normal(size=(6, 20))) * limit
        logits = model(features)
        assert np.abs(logits).max() < 2.0**31
        answer = await _query(features, model, LABEL)
        assert (answer.confidences.argmax(axis=1) == logits.argmax(axis=1)).all(), f"scale {scale}"
    assert limits == sorted(limits, reverse=True)
    assert limits[0] == 4096
    assert limits[-1] < limits[0]


async def test_a_model_that_cannot_be_shared_is_refused_first(autojump_clock: Any) -> None:
    sent: list[bytes] = []
    steep = Model(_network(20, 30, 30, 5, scale=1e6))
    async with open_cluster(seed=1) as cluster:
        with pytest.raises(InputError, match="model"):
            await cluster.query(np.zeros((1, 20)), steep, _defender(5), NONE)
        assert cluster.setup_traffic.messages == 0
    assert sent == []


@pytest.mark.parametrize("values", ["zeros", "equal rows", "bits", "integers"])
async def test_special_features(values: str, autojump_clock: Any) -> None:
    features: Any = {
        "zeros": np.zeros((3, 6)),
        "equal rows": np.ones((5, 6)) * 0.3,
        "bits": np.random.default_rng(0).integers(0, 2, size=(9, 6)).astype(bool),
        "integers": np.random.default_rng(0).integers(-16, 17, size=(9, 6)),
    }[values]
    model = Model(_network(6, 9, 4, scale=0.3))
    _check(await _query(features, model), model(features))


async def test_relu_at_its_border(autojump_clock: Any) -> None:
    """Hidden values that are exactly 0, or a unit of the last place from it."""
    W = np.array([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])
    model = Model([(W, np.array([0.0, 2.0**-16, -(2.0**-16)])), (np.eye(3) * 4, np.zeros(3))])
    features = np.array([[1.0, 1.0], [0.5, 0.5], [0.25, 0.0], [0.0, 0.25], [-3.0, -3.0]])
    _check(await _query(features, model), model(features))


async def test_a_tie_inside_the_model_goes_to_one_of_the_tied(autojump_clock: Any) -> None:
    """Equal columns give equal logits up to rounding, so either label is right, and only these."""
    column = np.random.default_rng(0).normal(size=(5, 1))
    model = Model([(np.hstack([column - 3, column, column]), np.array([-40.0, 0.25, 0.25]))])
    features = np.random.default_rng(1).normal(size=(10, 5))
    for config in (LABEL, NONE, LINESEARCH, SHORT):
        confidences = (await _query(features, model, config)).confidences
        assert (confidences.argmax(axis=1) >= 1).all(), config.policy
        if config is NONE:
            assert np.abs(confidences[:, 1:] - 0.5).max() < TOLERANCE


@pytest.mark.parametrize("batch", [1, 5])
async def test_guard_and_query_are_the_same_guard(batch: int, autojump_clock: Any) -> None:
    model, defender = Model(_network(5, 7, 4)), Defender(_network(4, 8, 6, 1, seed=4))
    features = np.random.default_rng(batch).normal(size=(batch, 5))
    async with open_cluster(seed=1) as cluster:
        for config in (NONE, LABEL, LINESEARCH, SHORT):
            queried = await cluster.query(features, model, defender, config)
            guarded = await cluster.guard(model(features), defender, config)
            assert np.abs(queried.confidences - guarded.confidences).max() < 1e-2, config.policy
            assert queried.iterations == guarded.iterations
            assert queried.traffic.rounds > guarded.traffic.rounds
