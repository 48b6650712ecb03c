"""Replay: the corrupted parties' own code does the same again, and notices a view that is not what it saw."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from proof_helpers import (
    CASES,
    CONFIGS,
    SETS,
    Recorded,
    as_query,
    call,
    record,
    recorded,
    recording_of,
    scheduled,
    without,
)

import siguard
from siguard.actors.server import OWNER, UPSTREAM, USER
from siguard.errors import ProtocolError
from siguard.prf import RandomnessSource
from siguard.proofsim.calls import input_of
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.replay import Tape, replay
from siguard.proofsim.simulator import ideal_answers, simulate
from siguard.proofsim.view import View
from siguard.ring import Z64, ring
from siguard.transport.frame import Kind


def problems(view: View) -> list[str]:
    """What a replay finds."""
    found: list[str] = trio.run(replay, view).problems
    return found


# It reproduces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "corrupted"), CASES)
def test_replay_reproduces_the_view(policy: str, corrupted: str) -> None:
    made = recording_of(policy)
    view = made.view(corrupted)
    assert {m.session for m in view.messages} >= set(made.sessions)
    seen = trio.run(replay, view)
    assert seen.problems == []
    assert seen.view.corrupted == view.corrupted
    assert sorted(map(str, seen.view.events)) == sorted(map(str, view.events))
    assert seen.view.answers == view.answers
    assert len(view.answers) == (len(made.sessions) if view.corrupted.user else 0)


@pytest.mark.parametrize("corrupted", SETS)
def test_a_loaded_view_is_replayed_like_any_other(corrupted: str, tmp_path: Path) -> None:
    recorded("label").view(corrupted).save(tmp_path / "view")
    assert problems(View.load(tmp_path / "view")) == []


@pytest.mark.parametrize("corrupted", SETS)
def test_a_replay_can_be_replayed(corrupted: str) -> None:
    once = trio.run(replay, recorded("label").view(corrupted))
    assert problems(once.view) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_tasks_does_not_matter(seed: int) -> None:
    with scheduled(seed):
        assert problems(recorded(kinds=("query", "guard")).view("S0,U")) == [], f"seed {seed}"


async def at_the_same_time() -> Recorded:
    recorder = Recorder()
    found: dict[bytes, siguard.GuardResult] = {}
    async with siguard.open_cluster(
        seed=1, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:

        async def ask(seed: int) -> None:
            query = as_query("query", CONFIGS["linesearch"], seed)
            found[query.value.tobytes()] = await call(cluster, "query", CONFIGS["linesearch"], seed)

        async with trio.open_nursery() as nursery:
            for seed in range(3):
                nursery.start_soon(ask, seed)
        made = Recorded(recorder, cluster.owner_key)
    # A result does not name its session; what was asked does.
    user = recorder.view(Corrupted.parse("U"))
    for session in {m.session for m in user.sent}:
        made.results[session] = found.pop(input_of(user, session).tobytes())
    assert not found
    return made


@pytest.fixture(scope="module")
def three_at_once() -> Recorded:
    made: Recorded = trio.run(at_the_same_time)
    return made


@pytest.mark.parametrize("corrupted", SETS)
def test_sessions_that_ran_at_the_same_time_are_replayed(corrupted: str, three_at_once: Recorded) -> None:
    view = three_at_once.view(corrupted)
    assert problems(view) == []
    assert len(view.answers) == (3 if view.corrupted.user else 0)


@pytest.mark.parametrize("corrupted", ["S1,U", "U"])
def test_a_view_of_the_user_without_its_answers_differs(corrupted: str) -> None:
    made = recorded(kinds=("query", "query"))
    first, second = made.sessions
    view = made.view(corrupted)
    assert problems(replace(view, answers={first: view.answers[first]})) == [
        f"answer of session {second.hex()[:8]} differs"
    ]
    assert len(problems(replace(view, answers={}))) == 2


def test_nobody_else_is_on_the_stage() -> None:
    for corrupted in SETS:
        seen = trio.run(replay, recorded("label").view(corrupted)).view
        assert {event.party for event in seen.events} <= set(seen.corrupted.parties)
        assert not {OWNER, UPSTREAM} & {event.party for event in seen.events}


# Its parts --------------------------------------------------------------------------------------------------------


def test_a_tape_gives_each_draw_at_its_address_to_its_party_only() -> None:
    view = recorded().view("S0,U")
    draw = next(d for d in view.draws if d.party == "S0")
    source = Tape(view).factory({}, draw.session, draw.dealer, "S0")
    took = source.draw(draw.pair, draw.purpose, draw.step, ring(draw.bits), draw.shape)
    assert took.tobytes() == draw.values
    wrong: list[tuple[RandomnessSource, dict[str, Any]]] = [
        (Tape(view).factory({}, draw.session, draw.dealer, USER), {}),
        (Tape(view).factory({}, bytes(16), draw.dealer, "S0"), {}),
        (Tape(view).factory({}, draw.session, "S1", "S0"), {}),
        (source, {"pair": "S1S2"}),
        (source, {"purpose": "other"}),
        (source, {"path": "other"}),
        (source, {"ring": ring(draw.bits - 1)}),
        (source, {"shape": (*draw.shape, 1)}),
    ]
    for other, change in wrong:
        asked: dict[str, Any] = {
            "pair": draw.pair,
            "purpose": draw.purpose,
            "path": draw.step,
            "ring": ring(draw.bits),
            "shape": draw.shape,
        }
        with pytest.raises(ProtocolError, match="not on the tape") as raised:
            other.draw(**{**asked, **change})
        assert raised.value.party in ("S0", USER)


@pytest.mark.parametrize("corrupted", ["U", "S0,U", "S2,U"])
def test_the_users_own_input_follows_from_its_view(corrupted: str) -> None:
    made = recording_of("label")
    view = made.view(corrupted)
    for session in made.sessions[:3]:
        found = input_of(view, session)
        assert found.tobytes() == made.queries[session].value.tobytes()


async def killed() -> Recorded:
    recorder = Recorder()
    async with siguard.open_cluster(
        seed=1, deadline=1, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        result = await call(cluster, "query", CONFIGS["label"], 0)
        session = recorder.sessions[-1]
        cluster.kill("S1")
        with pytest.raises(ProtocolError):
            await call(cluster, "query", CONFIGS["label"], 1)
        sessions = [session, recorder.sessions[-1]]
        return Recorded(recorder, cluster.owner_key, sessions, {session: result})


@pytest.fixture(scope="module")
def one_failed() -> Recorded:
    """A call that was answered, and one during which a server died."""
    made: Recorded = trio.run(killed)
    return made


@pytest.mark.parametrize("corrupted", ["S0,U", "S2", "U"])
def test_the_part_of_a_view_before_a_failure_is_replayed(corrupted: str, one_failed: Recorded) -> None:
    view, failed = one_failed.view(corrupted), one_failed.sessions[1]
    before = replace(view, events=[e for e in view.events if e.session != failed])
    assert len(before.events) < len(view.events)
    assert problems(before) == []


@pytest.mark.parametrize("corrupted", ["S0,U", "S2", "U"])
def test_a_view_with_a_session_that_failed_is_refused(corrupted: str, one_failed: Recorded) -> None:
    view, failed = one_failed.view(corrupted), one_failed.sessions[1]
    assert {m.session for m in view.messages if m.kind == Kind.ABORT} == {failed}
    for refused in (partial(replay, view), partial(simulate, view, ideal_answers({}, {}, 1), 1)):
        with pytest.raises(ProtocolError, match="a session that failed") as raised:
            trio.run(refused)
        assert raised.value.session == failed.hex()


def test_recording_with_other_seeds_gives_other_views() -> None:
    views = [
        trio.run(lambda seed=seed: record(CONFIGS["label"], cluster_seed=seed)).view("S0,U")  # type: ignore[misc]
        for seed in (1, 2)
    ]
    assert views[0].diff(views[1])
    for view in views:
        assert problems(view) == []


def test_elements_of_the_tape_are_read_only() -> None:
    view = recorded().view("S0")
    draw = next(d for d in view.draws if d.bits == 64 and d.pair == "S0S2")
    took = (
        Tape(view)
        .factory({}, draw.session, draw.dealer, "S0")
        .draw(draw.pair, draw.purpose, draw.step, Z64, draw.shape)
    )
    assert not took.flags.writeable


def test_messages_between_corrupted_parties_are_not_from_the_script() -> None:
    """They travel over a real link: to drop the received end changes nothing but the record."""
    view = recorded().view("S0,U")
    inside = [m for m in view.messages if m.received and m.peer in view.corrupted.parties]
    assert inside
    (line,) = problems(without(view, inside[-1]))
    assert line.endswith("0 times here, 1 times there")
