"""Simulated views: from public facts, the set's own inputs and F's answer, and from nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import trio
from proof_helpers import (
    CASES,
    CONFIGS,
    DEFENDER,
    MODEL,
    ROUNDING,
    SETS,
    recorded,
    recording_of,
    simulated,
    simulated_from,
    values,
)

import siguard
from siguard.actors.server import OWNER, USER
from siguard.proofsim.calls import input_of
from siguard.proofsim.ideal import OwnParts
from siguard.proofsim.queries import Networks
from siguard.proofsim.replay import replay
from siguard.proofsim.simulator import ideal_answers
from siguard.proofsim.view import Draw, Event, Message, View
from siguard.ring import RingArray
from siguard.transport.frame import Kind


def honest(view: View) -> list[Message]:
    """Protocol data from honest parties."""
    return [m for m in view.received if m.kind == Kind.DATA]


# It looks like a view, and holds together -------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "corrupted"), CASES)
def test_it_has_the_shape_of_the_real_one_and_replays(policy: str, corrupted: str) -> None:
    real, made = recording_of(policy).view(corrupted), simulated(policy, corrupted)
    assert made.shape() == real.shape()
    assert made.corrupted == real.corrupted
    assert Counter((*d.address, d.party, d.bits, d.shape) for d in made.draws) == Counter(
        (*d.address, d.party, d.bits, d.shape) for d in real.draws
    )
    assert trio.run(replay, made).problems == []


@pytest.mark.parametrize(("policy", "corrupted"), [case for case in CASES if "U" in case[1]])
def test_the_users_answer_is_that_of_the_functionality(policy: str, corrupted: str) -> None:
    """In every session: real answer, simulated one and the float64 reference differ by rounding."""
    made, view = recording_of(policy), simulated(policy, corrupted)
    assert list(view.answers) == made.sessions
    for session, answer in view.answers.items():
        np.testing.assert_allclose(answer, made.results[session].confidences, atol=ROUNDING)
    for session in made.sessions[:-1]:  # the last input is that of upstream
        assert input_of(view, session).tobytes() == made.queries[session].value.tobytes()


@pytest.mark.parametrize("corrupted", ["S0,U", "S1,U", "S2,U", "U"])
def test_the_answer_is_exactly_f_of_the_inputs_and_the_coins_of_this_view(corrupted: str) -> None:
    """The two frames to the user add up to what F gave for the parts that the corrupted server held."""
    made = recording_of("linesearch")
    inner = ideal_answers(made.queries, made.dealers, 7)
    given: dict[bytes, RingArray] = {}

    async def remembered(session: bytes, role: int, parts: OwnParts, held: dict[str, Networks] | None) -> RingArray:
        given[session] = await inner(session, role, parts, held)
        return given[session]

    view = simulated_from(made.view(corrupted), made, functionality=remembered)
    assert set(given) == set(made.sessions)
    for session, answer in given.items():
        parts = [m.array for m in view.messages if m.session == session and m.party == USER and m.step == "reveal"]
        assert len(parts) == 2
        np.testing.assert_array_equal(parts[0] + parts[1], answer)


# It takes nothing from the real one -------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "corrupted"), CASES)
def test_no_element_of_an_honest_message_is_the_real_one(policy: str, corrupted: str) -> None:
    """Elements of 64 bits agree by chance with probability 2^-64; of shorter ones, not all of a message do."""
    real, made = recording_of(policy).view(corrupted), simulated(policy, corrupted)
    theirs = {(m.party, m.peer, m.session, m.step): m for m in honest(real)}
    compared = 0
    for message in honest(made):
        if message.step == "done":
            continue  # a constant
        other = theirs[message.party, message.peer, message.session, message.step]
        if message.itemsize == 8:
            assert not np.isin(message.array, other.array).any(), str(message)
            compared += 1
        elif message.array.size >= 16:
            assert np.mean(message.array == other.array) < 0.9, str(message)
    assert compared > 0


def zero_bytes(event: Event) -> Event:
    """The event without what a simulator must not see."""
    if isinstance(event, Draw):
        return replace(event, values=bytes(len(event.values)))
    return replace(event, payload=bytes(len(event.payload)))


def of_public_facts_and_own_input(view: View) -> View:
    """All bytes zero, but for requests, grants and the user's own input, which stands where it was masked."""
    inputs = {
        m.session: input_of(view, m.session)
        for m in view.sent
        if m.party == USER and m.step == "input" and m.kind == Kind.DATA
    }
    events: list[Event] = []
    for event in view.events:
        if isinstance(event, Message) and event.kind in (Kind.START, Kind.GRANT):
            events.append(event)
        elif isinstance(event, Message) and event.party == USER and event.step == "input":
            events.append(replace(event, payload=inputs[event.session].tobytes()))
        else:
            events.append(zero_bytes(event))
    answers = {session: [[0.0] * len(row) for row in rows] for session, rows in view.answers.items()}
    return View(view.corrupted, events, answers, view.owner_key)


@pytest.mark.parametrize(
    ("policy", "corrupted"), [*(("linesearch", one) for one in SETS), ("siguard", "S0,U"), ("siguard", "S1")]
)
def test_the_simulator_does_not_read_the_real_view(policy: str, corrupted: str) -> None:
    """With every honest message, every tape and every answer of its input set to zero it gives the same view."""
    made = recording_of(policy)
    blind = of_public_facts_and_own_input(made.view(corrupted))
    kept = [e for e in blind.events if isinstance(e, Message) and any(e.payload)]
    assert {e.kind for e in kept} <= {Kind.START, Kind.GRANT} or all(
        e.kind != Kind.DATA or (e.party == USER and e.step == "input") for e in kept
    )
    assert simulated(policy, corrupted).diff(simulated_from(blind, made)) == []


@pytest.mark.parametrize("corrupted", ["S0", "S1", "S2"])
def test_a_server_alone_needs_no_functionality(corrupted: str) -> None:
    """It gets no answer, so the queries are never looked at."""
    made = recording_of("linesearch")

    async def never(*arguments: Any) -> RingArray:
        raise AssertionError("F is asked for a set without the user")

    view = simulated_from(made.view(corrupted), made, functionality=never)
    assert simulated("linesearch", corrupted).diff(view) == []


@pytest.mark.parametrize("corrupted", ["S0,U", "S2"])
def test_what_the_functionality_gives_is_what_the_user_gets(corrupted: str) -> None:
    """Another answer of F: other frames to the user, and nothing else changes."""
    made = recording_of("linesearch")
    inner = ideal_answers(made.queries, made.dealers, 7)

    async def doubled(session: bytes, role: int, parts: OwnParts, held: dict[str, Networks] | None) -> RingArray:
        return 2 * await inner(session, role, parts, held)

    view = simulated_from(made.view(corrupted), made, functionality=doubled)
    lines = simulated("linesearch", corrupted).diff(view)
    assert all(" reveal: " in line and line.startswith("user receives") for line in lines), lines
    # One in each call: in the second, which S0 deals, the part of S1 is a coin.
    assert len(lines) == (2 if corrupted == "S0,U" else 0)


def test_it_is_given_the_networks_that_the_corrupted_server_holds() -> None:
    """Shares of both networks, as sums of what it was sent by the owner's simulator and of its own masks."""
    made = recorded("linesearch")
    held: list[dict[str, Networks]] = []
    inner = ideal_answers(made.queries, made.dealers, 7)

    async def looking(session: bytes, role: int, parts: OwnParts, own: dict[str, Networks] | None) -> RingArray:
        assert own is not None
        held.append(own)
        return await inner(session, role, parts, own)

    view = simulated_from(made.view("S1,U"), made, functionality=looking)
    (networks,) = held
    assert list(networks) == ["S1"]
    model = networks["S1"].model
    assert model is not None
    flat = np.concatenate([share.first.reshape(-1) for layer in model.layers for share in layer])
    sent = [m.array for m in view.messages if m.peer == OWNER and m.step == "input" and m.received]
    masks = [d.array for d in view.draws if d.pair.startswith(OWNER)]
    assert any(array.tobytes() == flat.tobytes() for array in (*sent, *masks))


def test_the_reference_agrees() -> None:
    """The answers that are compared above are right in the first place."""
    for policy, config in CONFIGS.items():
        made = recording_of(policy)
        for number, session in enumerate(made.sessions):
            logits = values(number) if session == made.sessions[-1] else MODEL(values(number))
            expected = siguard.reference.guard(logits, DEFENDER, config).confidences
            np.testing.assert_allclose(
                made.results[session].confidences, expected, atol=4 * ROUNDING, err_msg=policy
            )
