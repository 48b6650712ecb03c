"""Simulation for given coins: the same answers and parts, bit for bit, from other messages and other masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trio
from proof_helpers import recording_of

from siguard.errors import ProtocolError
from siguard.mpc.gate import composed
from siguard.proofsim import bound
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.proofsim.ideal import same_parts
from siguard.proofsim.replay import replay
from siguard.proofsim.simulator import same_answers, simulate
from siguard.proofsim.view import Message, View
from siguard.proofsim.walk import gates_of_the_package

SETS = [one for one in CORRUPTED_SETS if one.server]


def test_every_gate_with_a_simulator_of_its_own_can_be_given_its_coins() -> None:
    own = {gate.name for gate in gates_of_the_package() if gate.info.simulator is not composed}
    assert own == set(bound._BINDINGS)


@pytest.mark.parametrize("corrupted", SETS, ids=str)
@pytest.mark.parametrize("policy", ["linesearch", "siguard"])
def test_same_coins_and_answers_from_other_messages(policy: str, corrupted: Corrupted) -> None:
    view = recording_of(policy).view(str(corrupted))
    real = trio.run(replay, view)
    simulated = trio.run(simulate, view, same_answers(view), 5, real.coins)
    played = trio.run(replay, simulated)
    assert played.problems == []
    assert simulated.shape() == view.shape()
    assert simulated.answers == view.answers
    for session, results in real.coins.items():
        for place, result in results.items():
            assert same_parts(result, played.coins[session][place]), place
    # Openings are masked anew on both sides; what is dealt or re-masked is determined by the parts.
    opened = {
        step for results in real.coins.values() for gate, step in results if gate == "arithmetic.open_additive"
    }
    for one, other in zip(messages_at(view, opened), messages_at(simulated, opened), strict=True):
        assert (one.step, one.peer) == (other.step, other.peer)
        if one.array.size * one.itemsize >= 8:
            assert not np.array_equal(one.array, other.array), one.step


def messages_at(view: View, steps: set[str]) -> list[Message]:
    found = [m for m in view.messages if m.received and m.step in steps and m.peer in ("S0", "S1")]
    exchanged = [m for m in found if {m.party, m.peer} == {"S0", "S1"} or m.party in ("S0", "S1", "S2")]
    sent = {(m.party, m.peer, m.session, m.step) for m in view.messages if not m.received}
    both = [m for m in exchanged if (m.party, m.peer, m.session, m.step) in sent]
    return sorted(both, key=lambda m: (m.session, m.step, m.peer))


def test_the_simulator_does_not_look_at_honest_messages() -> None:
    view = recording_of("label").view("S1,U")
    coins = trio.run(replay, view).coins
    blank = replace(
        view,
        events=[
            replace(event, payload=bytes(len(event.payload)))
            if isinstance(event, Message)
            and (event.received, event.party) == (True, "S1")
            and event.peer in ("S0", "S2")
            and not event.step.endswith("/key")  # keys are coins
            else event
            for event in view.events
        ],
    )
    one, other = [trio.run(simulate, given, same_answers(view), 5, coins) for given in (view, blank)]
    assert one.diff(other) == []


def test_coins_of_another_run_are_refused_by_the_missing_step() -> None:
    view, other = recording_of("label").view("S0"), recording_of("linesearch").view("S0")
    coins = trio.run(replay, other).coins
    with pytest.raises(ProtocolError, match=r"of a run without io\.receive_input here"):
        trio.run(simulate, view, same_answers(view), 5, coins)
