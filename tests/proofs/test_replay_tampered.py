"""A replay notices what is missing from a view, and what was changed in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio
import trio.testing
from nacl.signing import SigningKey
from proof_helpers import (
    at_once,
    draws_of,
    flipped,
    received_data,
    recorded,
    with_event,
    without,
)

from siguard.actors.server import USER
from siguard.errors import InputError, PolicyError, ProtocolError
from siguard.proofsim import stage
from siguard.proofsim.claims import CORRUPTED_SETS
from siguard.proofsim.replay import replay
from siguard.proofsim.view import Draw, Event, View
from siguard.transport.frame import Kind

SETS = [str(one) for one in CORRUPTED_SETS]
#: Each server, and one beside the user.
SERVERS = ["S0", "S1", "S2", "S1,U"]


def problems(view: View) -> list[str]:
    """What a replay finds."""
    found: list[str] = trio.run(replay, view).problems
    return found


def stuck(view: View, *, seconds: float = 2 * stage.PATIENCE) -> ProtocolError:
    """Why a replay cannot go on, after a bounded time on a clock that skips waiting."""

    async def bounded() -> ProtocolError:
        with trio.fail_after(seconds), pytest.raises(ProtocolError) as raised:
            await replay(view)
        return raised.value

    found: ProtocolError = at_once(bounded)[0]
    assert found.party in (*view.corrupted.parties,)
    assert found.session in {event.session.hex() for event in view.events}
    return found


# It fails where something is missing ------------------------------------------------------------------------------


def some(events: Sequence[Event], count: int = 5) -> list[Event]:
    """First, last, and some between, by step: the order in which they happened is another in each run."""
    events = sorted(events, key=lambda event: (event.step, str(event)))
    if len(events) <= count:
        return list(events)
    return [events[round(n * (len(events) - 1) / (count - 1))] for n in range(count)]


@pytest.mark.parametrize("corrupted", SERVERS)
def test_a_view_without_a_received_message_is_incomplete(corrupted: str) -> None:
    made = recorded(kinds=("query", "guard"))
    view = made.view(corrupted)
    for session in (made.sessions[0], made.sessions[-1]):
        of_servers: list[Event] = [m for m in view.received if m.session == session and m.party != USER]
        for message in some(of_servers, 4):
            error = stuck(without(view, message))
            assert error.session == session.hex()
            assert error.party in view.corrupted.parties
            assert error.step, str(message)


#: Who sends the first and the last part of the answer: S0 and S1 in the first call, S1 and S2 in the second.
@pytest.mark.parametrize(("corrupted", "call"), [("S0,U", 0), ("S2,U", 0), ("U", 0), ("S0,U", 1), ("U", 1)])
def test_a_view_without_a_part_of_the_answer_is_incomplete(corrupted: str, call: int) -> None:
    made = recorded(kinds=("query", "guard"))
    view = made.view(corrupted)
    parts = [m for m in view.received if m.step == "reveal" and m.session == made.sessions[call]]
    error = stuck(without(view, parts[-1]))
    assert (error.party, error.session) == (USER, made.sessions[call].hex())


@pytest.mark.parametrize("corrupted", ["S1,U", "S2,U"])
def test_without_the_only_part_from_an_honest_server_there_is_no_answer(corrupted: str) -> None:
    """In a session of upstream it is the first sign of the call that the script gives."""
    made = recorded(kinds=("query", "guard"))
    view, session = made.view(corrupted), made.sessions[1]
    (part,) = [m for m in view.received if m.step == "reveal" and m.session == session]
    lines = problems(without(view, part))
    assert lines == [f"answer of session {session.hex()[:8]} differs"]


def test_a_view_without_any_part_of_the_answer_is_incomplete() -> None:
    view = recorded().view("U")
    no_answer = replace(view, events=[e for e in view.events if e.step != "reveal"])
    assert "no answer" in stuck(no_answer).message


@pytest.mark.parametrize("corrupted", SETS)
def test_a_view_without_a_draw_is_incomplete(corrupted: str) -> None:
    made = recorded()
    view = made.view(corrupted)
    for draw in some(draws_of(view, made.sessions[0]), 4):
        assert isinstance(draw, Draw)
        if draw.party == USER:
            continue  # the user's input follows from its masks: see below
        error = stuck(without(view, draw))
        assert error.session == made.sessions[0].hex()
        assert error.party in view.corrupted.parties
        assert error.step, str(draw)


@pytest.mark.parametrize("corrupted", ["S0", "S1,U", "S2"])
def test_the_draw_that_is_missing_is_named_at_once(corrupted: str) -> None:
    view = recorded().view(corrupted)
    draws = [draw for draw in draws_of(view, recorded().sessions[0]) if draw.party != USER]
    for draw in some(draws, 3):
        error = stuck(without(view, draw), seconds=stage.PATIENCE / 10)
        assert (error.party, error.session, error.step) == (draw.party, draw.session.hex(), draw.step)
        assert "not on the tape" in error.message


def test_a_user_without_a_mask_is_incomplete() -> None:
    view = recorded().view("U")
    for draw in view.draws:
        assert stuck(without(view, draw)).party == USER


def test_a_user_without_what_it_sent_is_incomplete() -> None:
    view = recorded().view("U")
    error = stuck(replace(view, events=[e for e in view.events if e.step != "input" or isinstance(e, Draw)]))
    assert error.party == USER


@pytest.mark.parametrize("corrupted", ["S0,U", "S1", "S2"])
def test_a_key_that_is_not_the_owners_is_noticed(corrupted: str) -> None:
    view = replace(recorded().view(corrupted), owner_key=bytes(SigningKey(bytes(range(32))).verify_key))

    async def at_the_grant() -> PolicyError:
        with trio.fail_after(stage.PATIENCE / 10), pytest.raises(PolicyError, match="not signed by") as raised:
            await replay(view)
        return raised.value

    error: PolicyError = at_once(at_the_grant)[0]
    (grant,) = [m.session.hex() for m in view.messages if m.kind == Kind.GRANT]
    assert error.session == grant


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_view_recorded_without_the_owners_key_is_refused(key: bytes) -> None:
    with pytest.raises(InputError, match="owner_key"):
        trio.run(replay, replace(recorded().view("S0"), owner_key=key))
    assert problems(replace(recorded().view("U"), owner_key=key)) == [], "a user checks no signature"


def test_a_missing_message_is_noticed_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the real clock."""
    monkeypatch.setattr(stage, "PATIENCE", 0.3)
    view = recorded().view("S1")
    message = received_data(view, recorded().sessions[0])[3]
    started = time.perf_counter()
    with pytest.raises(ProtocolError):
        trio.run(replay, without(view, message))
    assert time.perf_counter() - started < 5


# It differs where something was changed ---------------------------------------------------------------------------


def noticed(view: View, session: bytes) -> list[str]:
    """What a replay says of one session that was changed, and of no other."""
    try:
        found = problems(view)
    except ProtocolError as error:
        found = [f"{session.hex()[:8]} error: {error}"]
    inside = view.corrupted.parties
    for line in found:
        assert session.hex()[:8] in line
        if "error: " not in line and not line.startswith("answer of"):
            said = [f"{party} sends to" for party in inside]
            said += [f"{party} receives from {peer}" for party in inside for peer in inside]
            assert line.startswith(tuple(said)), line
            assert line.endswith(" elements differ")
    return found


@pytest.mark.parametrize("corrupted", SETS)
def test_received_messages_with_other_bits_change_what_is_sent(corrupted: str) -> None:
    """Most of them: parts of some wires are dealt and never needed, and bits cancel by chance."""
    made = recorded()
    view, (session,) = made.view(corrupted), made.sessions
    messages = received_data(view, session)
    found = {str(m): noticed(with_event(view, m, flipped(m)), session) for m in some(messages, 5)}
    unnoticed = [message for message, lines in found.items() if not lines]
    assert len(unnoticed) <= len(found) / 2, unnoticed


@pytest.mark.parametrize("corrupted", SETS)
def test_one_bit_is_enough(corrupted: str) -> None:
    """One bit of a masked input changes all that follows; one bit of a part of the answer changes the answer."""
    made = recorded()
    view, (session,) = made.view(corrupted), made.sessions
    messages = [m for m in received_data(view, session) if m.step in ("input", "reveal")]
    assert messages or corrupted == "S2"
    for message in messages:
        for bit in (3, 16, 64 + 20):
            assert noticed(with_event(view, message, flipped(message, bit)), session), (str(message), bit)


@pytest.mark.parametrize("corrupted", SERVERS)
def test_other_draws_change_what_is_sent(corrupted: str) -> None:
    """Most of them, as above; what masks a message changes that message."""
    made = recorded()
    view, (session,) = made.view(corrupted), made.sessions
    draws = [draw for draw in draws_of(view, session) if draw.party != USER]
    masks = [draw for draw in draws if draw.purpose == ("open" if corrupted[:2] != "S2" else "dealt")]
    for draw in some(masks, 4):
        lines = noticed(with_event(view, draw, flipped(draw)), session)
        assert any(f" {draw.step}: " in line or "error: " in line for line in lines), str(draw)
    found = {str(draw): noticed(with_event(view, draw, flipped(draw)), session) for draw in some(draws, 6)}
    unnoticed = [draw for draw, lines in found.items() if not lines]
    assert len(unnoticed) <= len(found) / 2, unnoticed


def test_an_answer_that_was_not_given_is_noticed() -> None:
    view = recorded().view("U")
    (session,) = recorded().sessions
    changed = replace(view, answers={session: [[0.25, 0.25, 0.5]]})
    assert problems(changed) == [f"answer of session {session.hex()[:8]} differs"]


def test_what_was_not_sent_is_noticed() -> None:
    view = recorded().view("S2")
    (session,) = recorded().sessions
    extra = replace(view.sent[-1], step="guard/more", session=session)
    error = stuck(replace(view, events=[*view.events, extra]))
    assert (error.party, error.step) == ("S2", "guard/more")


def test_what_is_sent_beyond_the_view_is_noticed() -> None:
    view = recorded().view("S2")
    last = view.sent[-1]
    (line,) = problems(without(view, last))
    assert last.step in line
    assert line.endswith("0 times here, 1 times there")


def test_a_draw_that_nobody_makes_is_noticed() -> None:
    view = recorded().view("S0")
    extra = replace(view.draws[-1], step="guard/more")
    (line,) = problems(replace(view, events=[*view.events, extra]))
    assert "guard/more" in line
    assert line.endswith("1 times here, 0 times there")
