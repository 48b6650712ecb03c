"""Simulated views: their coins are addressed, so that no order of tasks or events changes them; what is refused."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio
from nacl.signing import SigningKey
from proof_helpers import (
    CONFIGS,
    Recorded,
    at_once,
    record,
    recorded,
    recording_of,
    scheduled,
    simulated,
    simulated_from,
)

from siguard.actors.server import USER
from siguard.errors import InputError, PolicyError, ProtocolError
from siguard.proofsim import stage
from siguard.proofsim.replay import replay
from siguard.proofsim.simulator import ideal_answers, simulate
from siguard.proofsim.view import Draw, Event, Message, View

# Coins ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrupted", ["S0,U", "S2", "U"])
def test_the_same_seed_gives_the_same_view_and_another_seed_another(corrupted: str) -> None:
    made = recording_of("linesearch")
    first = simulated("linesearch", corrupted)
    assert first.diff(simulated_from(made.view(corrupted), made)) == []
    other = simulated("linesearch", corrupted, seed=8)
    assert other.shape() == first.shape()
    for one, another in zip(sorted(first.draws, key=_place), sorted(other.draws, key=_place), strict=True):
        if one.itemsize == 8:
            assert not np.isin(one.array, another.array).any(), str(one)


def _place(draw: Draw) -> tuple[Any, ...]:
    return draw.party, draw.address


@pytest.mark.parametrize("order", range(3))
def test_the_order_of_tasks_does_not_change_the_view(order: int) -> None:
    made = recording_of("linesearch")
    with scheduled(order):
        view = simulated_from(made.view("S0,U"), made)
    assert simulated("linesearch", "S0,U").diff(view) == [], f"order {order}"


def test_a_server_and_a_user_that_share_a_key_draw_the_same() -> None:
    view = simulated("linesearch", "S0,U")
    for draw in view.draws:
        if draw.party == USER and "S0" in draw.pair:
            (mine,) = [d for d in view.draws if d.party == "S0" and d.address == draw.address]
            assert mine.values == draw.values


@pytest.fixture(scope="module")
def recorded_twice() -> Recorded:
    """The same rows in two calls."""
    made: Recorded = trio.run(lambda: record(CONFIGS["linesearch"], ("query", "query"), (5, 5), batch=8))
    return made


@pytest.mark.parametrize("corrupted", ["S0,U", "S1,U", "S2,U", "U"])
def test_two_calls_with_the_same_input_do_not_round_alike(corrupted: str, recorded_twice: Recorded) -> None:
    """In the real world they do not: the joint view of two sessions must not tell."""
    made = recorded_twice
    real = [made.results[session].confidences.tolist() for session in made.sessions]
    assert real[0] != real[1]
    answers = simulated_from(made.view(corrupted), made).answers
    assert answers[made.sessions[0]] != answers[made.sessions[1]]


# Order of events --------------------------------------------------------------------------------------------------


def overlapping(view: View, sessions: list[bytes]) -> View:
    """The second call is begun just before the first answer arrives, as it may be in the real world."""

    def opens_the_second(event: Event) -> bool:
        mine = event.session == sessions[1] and event.party == USER
        return mine and not (isinstance(event, Message) and event.received)

    early = [event for event in view.events if opens_the_second(event)]
    late = [event for event in view.events if not opens_the_second(event)]
    place = next(
        n
        for n, e in enumerate(late)
        if isinstance(e, Message) and e.session == sessions[0] and e.step == "reveal" and e.party == USER
    )
    return replace(view, events=[*late[:place], *early, *late[place:]])


@pytest.mark.parametrize("corrupted", ["S0,U", "S1,U", "S2,U"])
def test_calls_that_overlap_are_replayed(corrupted: str) -> None:
    made = recorded("linesearch", ("query", "query"))
    assert trio.run(replay, overlapping(made.view(corrupted), made.sessions)).problems == []


@pytest.mark.parametrize("corrupted", ["S0,U", "S1,U"])
def test_calls_that_overlap_are_simulated(corrupted: str) -> None:
    made = recorded("linesearch", ("query", "query"))
    view = overlapping(made.view(corrupted), made.sessions)
    seen = simulated_from(view, made)
    assert seen.shape() == view.shape()
    assert seen.diff(simulated_from(made.view(corrupted), made)) == [], "as if they came one after the other"


def test_its_patience_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that the corrupted code does not send ends it."""
    monkeypatch.setattr(stage, "PATIENCE", 0.2)
    made = recorded("linesearch")
    view = made.view("S2")
    extra = replace(view.sent[-1], step="guard/more")
    started = time.perf_counter()
    with pytest.raises(ProtocolError, match="does not send") as raised:
        simulated_from(replace(view, events=[*view.events, extra]), made)
    assert (raised.value.party, raised.value.step) == ("S2", "guard/more")
    assert time.perf_counter() - started < 5


def test_a_reason_to_give_up_is_reported_at_once() -> None:
    """By the server itself: a grant that another key signed."""
    made = recorded("linesearch")
    other = bytes(SigningKey(bytes(32)).verify_key)
    view = replace(made.view("S1,U"), owner_key=other)

    async def refused() -> None:
        with trio.fail_after(stage.PATIENCE / 10), pytest.raises(PolicyError, match="not signed by"):
            await simulate(view, ideal_answers(made.queries, made.dealers, 7), 7)

    at_once(refused)


def test_a_view_without_the_owners_key_is_refused() -> None:
    made = recorded("linesearch")
    with pytest.raises(InputError, match="owner_key"):
        simulated_from(replace(made.view("S2"), owner_key=b""), made)
