"""The public contract: names, fields of a result, and what its figures mean."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from fault_links import (
    LABEL,
    LINESEARCH,
    NONE,
    SHORT,
    Wire,
    glass_cluster,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)
from structlog.testing import capture_logs

import siguard
from siguard import GuardConfig, GuardResult, open_cluster
from siguard.transport.accountant import Traffic
from siguard.transport.frame import HEADER_BYTES, Kind

POLICIES = [LABEL, NONE, LINESEARCH, SHORT]


def test_the_names_that_others_rely_on() -> None:
    for name in ("Model", "Defender", "GuardConfig", "open_cluster", "run_scenario"):
        assert name in siguard.__all__, name
        assert getattr(siguard, name) is not None
    assert set(siguard.__all__) <= set(dir(siguard)) | {"run_scenario"}
    options = inspect.signature(open_cluster).parameters
    assert list(options)[:3] == ["seed", "debug_open", "allow"]
    assert [options[name].default for name in ("seed", "debug_open", "allow")] == [None, False, None]
    fields = inspect.signature(GuardConfig).parameters
    assert {name: field.default for name, field in fields.items()} == {
        "policy": "siguard", "outer": None, "inner": None, "learning_rate": None, "c1": 1.0, "c2": 10.0, "c3": 0.1,
        "rounds": "auto", "max_bytes": None,
    }  # fmt: skip


async def test_a_result_has_the_fields_of_the_contract(autojump_clock: Any) -> None:
    async with open_cluster(seed=1) as cluster:
        result = await cluster.guard(some_logits(3), tiny_defender(), SHORT)
    assert isinstance(result, GuardResult)
    assert result.confidences.shape == (3, 4)
    assert result.confidences.dtype == np.float64
    assert (result.confidences >= 0).all()
    assert np.abs(result.confidences.sum(axis=1) - 1).max() <= 1e-9
    assert isinstance(result.seconds, float)
    assert result.seconds >= 0
    assert result.iterations == 1
    assert result.internals is None


@pytest.mark.parametrize(
    ("config", "iterations"),
    [
        (GuardConfig(outer=3, inner=10), 30),
        (GuardConfig(outer=2, inner=7), 14),
        (LINESEARCH, 1),
        (LABEL, 0),
        (NONE, 0),
    ],
)
def test_iterations_are_the_configured_ones(config: GuardConfig, iterations: int) -> None:
    assert config.iterations == iterations


async def test_the_default_configuration_is_the_published_guard(autojump_clock: Any) -> None:
    async with open_cluster(seed=1) as cluster:
        by_default = await cluster.guard(some_logits(1), tiny_defender())
    assert by_default.iterations == 30


async def test_seconds_are_wall_clock() -> None:
    async with open_cluster(seed=1) as cluster:
        result = await cluster.guard(some_logits(), tiny_defender(), LABEL)
    assert 0 < result.seconds < 30


def _check_sums(traffic: Traffic) -> None:
    for counts in (traffic.by_step().values(), traffic.by_link().values()):
        assert sum(count.messages for count in counts) == traffic.messages
        assert sum(count.bytes for count in counts) == traffic.bytes_total
        assert max(count.depth for count in counts) == traffic.rounds


@pytest.mark.parametrize("config", POLICIES, ids=lambda config: config.policy)
async def test_traffic_is_every_frame_of_the_call_once(config: GuardConfig, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        defender, model = tiny_defender(), tiny_model()
        for path in ("guard", "query"):
            wire.frames.clear()
            if path == "guard":
                traffic = (await cluster.guard(some_logits(), defender, config)).traffic
            else:
                traffic = (await cluster.query(some_features(), model, defender, config)).traffic
            opening = next(sent for sent in wire.frames if sent.sender in ("user", "upstream"))
            frames = wire.of_session(opening.frame.session)
            assert traffic.messages == len(frames)
            assert traffic.bytes_total == sum(len(sent.data) for sent in frames)
            assert traffic.rounds == max(sent.frame.depth for sent in frames)
            links = {(sent.sender, sent.receiver) for sent in frames}
            assert set(traffic.by_link()) == links
            assert all(len(sent.data) == HEADER_BYTES + sent.frame.payload.nbytes for sent in frames)
            _check_sums(traffic)


async def test_setup_is_counted_apart_and_once_for_each_object(autojump_clock: Any) -> None:
    wire = Wire()
    defender, model = tiny_defender(), tiny_model()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        assert cluster.setup_traffic.messages == 0
        first = await cluster.query(some_features(), model, defender, LABEL)
        setup = [sent for sent in wire.frames if "owner" in (sent.sender, sent.receiver)]
        assert cluster.setup_traffic.messages == len(setup)
        assert cluster.setup_traffic.bytes_total == sum(len(sent.data) for sent in setup)
        _check_sums(cluster.setup_traffic)
        assert len(setup) + first.traffic.messages == len(wire.frames)

        before = cluster.setup_traffic.messages
        second = await cluster.query(some_features(seed=5), model, defender, LABEL)
        assert cluster.setup_traffic.messages == before, "the same objects are not shared again"
        for figure in ("rounds", "bytes_total", "messages"):
            assert getattr(first.traffic, figure) == getattr(second.traffic, figure), figure

        await cluster.query(some_features(), model, defender, NONE)
        added = cluster.setup_traffic.messages - before
        assert added == 6, "a new configuration costs one grant to each server and its receipt"
        await cluster.query(some_features(), tiny_model(3), defender, NONE)
        assert cluster.setup_traffic.messages > before + added, "another object is shared once more"


async def test_depth_of_a_call_starts_at_its_own_input(autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        defender = tiny_defender()
        rounds = {(await cluster.guard(some_logits(), defender, NONE)).traffic.rounds for _ in range(4)}
    assert len(rounds) == 1
    starts = [sent.frame.depth for sent in wire.frames if sent.sender == "upstream"]
    assert set(starts) == {1}


@pytest.mark.parametrize("config", POLICIES, ids=lambda config: config.policy)
async def test_debug_open_changes_neither_traffic_nor_transcript(config: GuardConfig, autojump_clock: Any) -> None:
    quiet, loud = Wire(), Wire()
    async with open_cluster(seed=3, wrap_link=quiet) as cluster:
        plain = await cluster.guard(some_logits(), tiny_defender(), config)
    async with glass_cluster(seed=3, wire=loud) as cluster:
        opened = await cluster.guard(some_logits(), tiny_defender(), config)
    assert quiet.sorted_frames() == loud.sorted_frames()
    assert plain.traffic.by_step() == opened.traffic.by_step()
    assert plain.traffic.by_link() == opened.traffic.by_link()
    assert plain.confidences.tobytes() == opened.confidences.tobytes()
    assert plain.internals is None
    assert opened.internals is not None


async def test_debug_open_is_loud(autojump_clock: Any) -> None:
    with capture_logs() as events:
        async with open_cluster(seed=3):
            pass
        assert not events
        async with open_cluster(seed=3, debug_open=True):
            pass
    assert [event["log_level"] for event in events] == ["warning"]
    assert "nothing in this cluster is secret" in events[0]["event"]


async def test_internals_are_there_only_where_the_policy_has_them(autojump_clock: Any) -> None:
    async with glass_cluster(seed=3) as cluster:
        defender, logits = tiny_defender(), some_logits(7)
        guarded = (await cluster.guard(logits, defender, GuardConfig(outer=2, inner=3))).internals
        others = [(await cluster.guard(logits, defender, config)).internals for config in POLICIES[:3]]
        queried = (await cluster.query(some_features(7), tiny_model(), defender, SHORT)).internals
    for internals in (guarded, queried):
        assert internals is not None
        assert internals.accepted is not None
        assert internals.noise is not None
        assert internals.accepted.shape == (7,)
        assert internals.accepted.dtype == np.bool_
        assert internals.noise.shape == (7, 4)
    for internals in others:
        assert internals is not None
        assert internals.accepted is None
        assert internals.noise is None


async def test_two_clusters_live_in_one_process(autojump_clock: Any) -> None:
    first_wire, second_wire = Wire(), Wire()
    async with (
        open_cluster(seed=1, wrap_link=first_wire) as first,
        open_cluster(seed=1, wrap_link=second_wire) as second,
    ):
        defender = tiny_defender()
        one = await first.guard(some_logits(), defender, LABEL)
        assert second_wire.frames == []
        two = await second.guard(some_logits(), defender, LABEL)
    assert one.confidences.tobytes() == two.confidences.tobytes()
    assert first_wire.sorted_frames() == second_wire.sorted_frames()


async def test_the_answer_goes_to_the_user_alone(autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        await cluster.query(some_features(), tiny_model(), tiny_defender(), SHORT)
        wire.frames.clear()
        await cluster.guard(some_logits(), tiny_defender(), SHORT)
    to_clients = {(sent.receiver, sent.frame.kind) for sent in wire.frames if sent.receiver == "upstream"}
    assert to_clients == set(), "servers tell upstream nothing of a call that went well"
    answers = [sent for sent in wire.frames if sent.receiver == "user"]
    assert len(answers) == 2
    assert all(sent.frame.kind is Kind.DATA for sent in answers)
