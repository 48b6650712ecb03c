"""Bad input: a clear `InputError` that names the field, before one frame is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fault_links import (
    LABEL,
    SHORT,
    Wire,
    failure_of,
    layers,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import Defender, GuardConfig, InputError, open_cluster

NAN, INF = float("nan"), float("inf")

BAD_LOGITS: dict[str, Any] = {
    "NaN": [[0.0, NAN, 1.0, 2.0]],
    "infinite": [[0.0, 1.0, INF, 2.0]],
    "minus infinity": [[0.0, 1.0, -INF, 2.0]],
    "one class": np.zeros((3, 1)),
    "no class": np.zeros((3, 0)),
    "empty batch": np.zeros((0, 4)),
    "one axis": np.zeros(4),
    "three axes": np.zeros((1, 1, 4)),
    "a number": 3.0,
    "strings": [["1", "2", "3", "4"]],
    "a string": "1234",
    "bytes": b"1234",
    "None": None,
    "objects": np.array([[None] * 4], dtype=object),
    "complex": np.zeros((1, 4), dtype=np.complex128),
    "booleans": np.zeros((1, 4), dtype=np.bool_),
    "dates": np.array([["2020"] * 4], dtype="datetime64[Y]"),
    "ragged": [[1.0, 2.0, 3.0, 4.0], [1.0]],
    "integers beyond 64 bits": [[10**400, 1, 2, 3]],
    "a dict": {"logits": [1, 2, 3, 4]},
}
BAD_FEATURES = {
    name: value for name, value in BAD_LOGITS.items() if name not in ("one class", "no class", "booleans")
}


@pytest.mark.parametrize("name", BAD_LOGITS)
async def test_logits_that_cannot_be_guarded(name: str, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        failure = await failure_of(cluster.guard(BAD_LOGITS[name], tiny_defender(), LABEL))
    assert isinstance(failure.error, InputError), repr(failure.error)
    assert str(failure.error).startswith("logits"), str(failure.error)
    assert wire.frames == []


@pytest.mark.parametrize("name", BAD_FEATURES)
async def test_features_that_cannot_be_shared(name: str, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        failure = await failure_of(cluster.query(BAD_FEATURES[name], tiny_model(), tiny_defender(), LABEL))
    assert isinstance(failure.error, InputError), repr(failure.error)
    assert str(failure.error).startswith("features"), str(failure.error)
    assert wire.frames == []


@pytest.mark.parametrize("width", [1, 3, 5, 40])
async def test_the_wrong_width(width: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        guard = await failure_of(cluster.guard(np.zeros((2, width)), tiny_defender(), LABEL))
        features = np.zeros((2, width + 1))
        query = await failure_of(cluster.query(features[:, : width + (width == 5)], tiny_model(), tiny_defender()))
    assert isinstance(guard.error, InputError)
    assert "defender" in str(guard.error) or "logits" in str(guard.error)
    assert isinstance(query.error, InputError)
    assert str(query.error).startswith("features")
    assert wire.frames == []


@pytest.mark.parametrize(
    "wrong", [None, "defender", 3, [(np.zeros((4, 1)), np.zeros(1))], tiny_model()], ids=lambda w: type(w).__name__
)
async def test_what_is_not_a_defender(wrong: Any, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        guard = await failure_of(cluster.guard(some_logits(), wrong, LABEL))
        query = await failure_of(cluster.query(some_features(), tiny_model(), wrong, LABEL))
        model = await failure_of(cluster.query(some_features(), tiny_defender(), tiny_defender(), LABEL))  # type: ignore[arg-type]
    for failure, field in ((guard, "defender"), (query, "defender"), (model, "model")):
        assert isinstance(failure.error, InputError)
        assert str(failure.error).startswith(field), str(failure.error)
    assert wire.frames == []


async def test_a_defender_for_other_classes(autojump_clock: Any) -> None:
    wire = Wire()
    other = Defender(layers((5, 4, 1)))
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        guard = await failure_of(cluster.guard(some_logits(), other, LABEL))
        query = await failure_of(cluster.query(some_features(), tiny_model(), other, LABEL))
    for failure in (guard, query):
        assert isinstance(failure.error, InputError)
        assert str(failure.error).startswith("defender"), str(failure.error)
    assert wire.frames == []


async def test_a_defender_beyond_the_fixed_point_range(autojump_clock: Any) -> None:
    wire = Wire()
    steep = Defender([(np.full((4, 8), 1e5), np.zeros(8)), (np.full((8, 1), 1e9), np.zeros(1))])
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        guard = await failure_of(cluster.guard(some_logits(), steep, LABEL))
        query = await failure_of(cluster.query(some_features(), tiny_model(), steep, LABEL))
    for failure in (guard, query):
        assert isinstance(failure.error, InputError)
        assert str(failure.error).startswith("defender"), str(failure.error)
    assert wire.frames == [], f"{len(wire.frames)} frames of the model were sent before its classifier was refused"


@pytest.mark.parametrize("config", ["siguard", 3, {"policy": "label"}, [LABEL], GuardConfig], ids=str)
async def test_what_is_not_a_configuration(config: Any, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        guard = await failure_of(cluster.guard(some_logits(), tiny_defender(), config))
        query = await failure_of(cluster.query(some_features(), tiny_model(), tiny_defender(), config))
    for failure in (guard, query):
        assert isinstance(failure.error, InputError)
        assert str(failure.error).startswith("config"), str(failure.error)
    assert wire.frames == []


@pytest.mark.parametrize("path", ["guard", "query"])
async def test_a_batch_beyond_memory(path: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        monkeypatch.setattr("siguard.actors.limits.available_bytes", lambda: 1000)
        if path == "guard":
            failure = await failure_of(cluster.guard(some_logits(50), tiny_defender(), SHORT))
        else:
            failure = await failure_of(cluster.query(some_features(50), tiny_model(), tiny_defender(), SHORT))
        assert isinstance(failure.error, InputError)
        assert str(failure.error).startswith("batch"), str(failure.error)
        assert "50" in str(failure.error)
        assert wire.frames == [], f"{len(wire.frames)} frames were sent before the batch was refused"
        monkeypatch.undo()
        assert (await cluster.guard(some_logits(50), tiny_defender(), SHORT)).confidences.shape == (50, 4)


async def test_memory_names_a_batch_that_fits(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cure in the message is one: the number of rows it names is accepted."""
    async with open_cluster(seed=1) as cluster:
        monkeypatch.setattr("siguard.actors.limits.available_bytes", lambda: 3_000_000)
        failure = await failure_of(cluster.guard(some_logits(500), tiny_defender(), SHORT))
        fits = int(str(failure.error).split("at most ")[1].split()[0])
        assert 1 < fits < 500
        assert (await cluster.guard(some_logits(fits), tiny_defender(), SHORT)).confidences.shape == (fits, 4)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("seed", value) for value in ("1", 1.0, True, [1], Ellipsis)],
        *[("allow", value) for value in (5, "label", LABEL, [1], [None], ["label"], {"policy": "label"}, True)],
        *[("deadline", value) for value in ("1", 0, -1, NAN, None, [1])],
    ],
    ids=str,
)
async def test_options_of_a_cluster(option: str, value: Any, autojump_clock: Any) -> None:
    opening: Callable[..., Any] = open_cluster
    with pytest.raises(InputError, match=option):
        async with opening(**{option: value}):
            pass


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**64, 10**40])
async def test_any_whole_number_is_a_seed(seed: int, autojump_clock: Any) -> None:
    async with open_cluster(seed=seed) as cluster:
        assert (await cluster.guard(some_logits(), tiny_defender(), LABEL)).confidences.shape == (2, 4)


async def test_a_party_that_is_not_there_cannot_be_killed(autojump_clock: Any) -> None:
    async with open_cluster(seed=1) as cluster:
        with pytest.raises(InputError, match="S3"):
            cluster.kill("S3")


@pytest.mark.parametrize(
    "logits",
    [
        np.array([[1, 2, 3, 4]]),
        np.array([[1, 2, 3, 4]], dtype=np.uint8),
        np.array([[1, 2, 3, 4]], dtype=np.float16),
        np.array([[1, 2, 3, 4]], dtype=np.longdouble),
        np.asfortranarray(np.array([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]])),
        np.array([[4.0, 3.0, 2.0, 1.0]])[:, ::-1],
        [[1, 2, 3, 4]],
        ((1.0, 2, 3, 4),),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'dtype', '')}",
)
async def test_real_numbers_of_any_kind_are_logits(logits: Any, autojump_clock: Any) -> None:
    async with open_cluster(seed=1) as cluster:
        result = await cluster.guard(logits, tiny_defender(), LABEL)
    assert result.confidences[0].tolist() == [0, 0, 0, 1]


async def test_the_caller_keeps_its_arrays(autojump_clock: Any) -> None:
    logits, features = some_logits(), some_features()
    before = logits.copy(), features.copy()
    async with open_cluster(seed=1) as cluster:
        await cluster.guard(logits, tiny_defender(), SHORT)
        await cluster.query(features, tiny_model(), tiny_defender(), SHORT)
    assert (logits == before[0]).all()
    assert (features == before[1]).all()
