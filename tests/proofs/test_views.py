"""Views as data: saved and loaded, compared, printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_helpers import flipped, recorded, without

from siguard.errors import InputError
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.proofsim.view import Draw, Event, Message, StepNames, View, digest_of
from siguard.transport.frame import Kind, decode_frame, step_digest

MESSAGE = Message("S0", "S1", True, bytes(16), 2, "guard/mix", 3, 8, (1, 2), bytes(range(16)))
DRAW = Draw("S0", bytes(16), "S2", "S0S2", "open", "guard/mix", 64, 8, (2,), bytes(range(16)))

# Made-up events ---------------------------------------------------------------------------------------------------

PARTIES = st.sampled_from(("S0", "S1", "S2", "user"))
SESSIONS = st.binary(min_size=16, max_size=16)
STEPS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#"), max_size=12),
    st.binary(min_size=8, max_size=8).map(lambda digest: f"#{digest.hex()}"),
)
ITEMSIZES = st.sampled_from((1, 2, 4, 8))
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


@st.composite
def events(draw: st.DrawFn) -> Event:
    itemsize, shape = draw(ITEMSIZES), draw(SHAPES)
    size = itemsize * prod(shape)
    data = draw(st.binary(min_size=size, max_size=size))
    party, session, step = draw(PARTIES), draw(SESSIONS), draw(STEPS)
    if draw(st.booleans()):
        peer, received, kind = draw(PARTIES), draw(st.booleans()), int(draw(st.sampled_from(Kind)))
        return Message(
            party, peer, received, session, kind, step, draw(st.integers(0, 1 << 40)), itemsize, shape, data
        )
    bits = draw(st.integers(1, 8 * itemsize))
    pair, purpose = draw(st.sampled_from(("S0S1", "user+S1S2"))), draw(st.text(max_size=5))
    return Draw(party, session, draw(PARTIES), pair, purpose, step, bits, itemsize, shape, data)


VIEWS = st.builds(
    View,
    st.sampled_from(CORRUPTED_SETS),
    st.lists(events(), max_size=6),
    st.dictionaries(SESSIONS, st.lists(st.lists(st.floats(allow_nan=False), max_size=3), max_size=2), max_size=2),
    st.binary(max_size=32),
)


@settings(max_examples=50)
@given(view=VIEWS)
def test_what_is_saved_is_what_is_loaded(view: View, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("views") / "one.view"
    view.save(path)
    loaded = View.load(path)
    assert loaded == view
    assert [type(event) for event in loaded.events] == [type(event) for event in view.events]
    assert all(isinstance(event.shape, tuple) for event in loaded.events)
    assert loaded.text() == view.text()


@settings(max_examples=50)
@given(view=VIEWS, order=st.randoms(use_true_random=False))
def test_a_view_differs_neither_from_itself_nor_from_a_reordered_one(view: View, order: Any) -> None:
    assert view.diff(view) == []
    # Two events at one place are told apart by their order, so keep one of each.
    places = {(type(e), e.party, e.session, str(e).split("  ")[1], e.step): e for e in view.events}
    mixed = list(places.values())
    order.shuffle(mixed)
    one, other = replace(view, events=list(places.values())), replace(view, events=mixed)
    assert one.shape() == other.shape() == sorted(other.shape())
    if len({(e.session, e.party, e.step) for e in mixed}) == len(mixed):
        assert one.diff(other) == other.diff(one) == []


@settings(max_examples=50)
@given(view=VIEWS)
def test_a_view_is_read_by_message_draw_and_session(view: View) -> None:
    assert len(view.messages) + len(view.draws) == len(view.events)
    assert all(m.sender == m.party and not m.received for m in view.sent)
    assert all(m.receiver == m.party and m.sender not in view.corrupted.parties for m in view.received)
    sessions = {event.session for event in view.events}
    parts = [view.of_session(session) for session in sessions]
    assert sum(len(part.events) for part in parts) == len(view.events)
    assert all({event.session for event in part.events} == {s} for s, part in zip(sessions, parts, strict=True))
    assert all(set(part.answers) <= {s} for s, part in zip(sessions, parts, strict=True))
    for event in view.events:
        assert (event.array.shape, event.array.itemsize) == (event.shape, event.itemsize)


def test_a_recorded_view_is_saved_and_loaded(tmp_path: Path) -> None:
    for corrupted in map(str, CORRUPTED_SETS):
        view = recorded().view(corrupted)
        view.save(tmp_path / corrupted)
        loaded = View.load(tmp_path / corrupted)
        assert loaded == view, corrupted
        assert loaded.diff(view) == []
        assert bool(loaded.answers) == view.corrupted.user
        assert loaded.owner_key == recorded().owner_key


def test_a_message_is_the_frame_that_travelled() -> None:
    for message in recorded().view("S0,U").messages:
        frame = decode_frame(message.encode())
        assert (frame.session, int(frame.kind), frame.depth) == (message.session, message.kind, message.round)
        assert frame.step == digest_of(message.step)
        np.testing.assert_array_equal(frame.payload, message.array)


def test_a_step_without_a_path_keeps_its_digest() -> None:
    names = StepNames()
    digest = step_digest("guard/mix")
    assert names.name(digest) == f"#{digest.hex()}"
    assert digest_of(names.name(digest)) == digest
    names.learn(["guard/mix"])
    assert names.name(digest) == "guard/mix"
    assert digest_of("guard/mix") == digest


# Files that are no views ------------------------------------------------------------------------------------------


def saved(path: Path) -> dict[str, Any]:
    View(Corrupted("S0", True), [MESSAGE, DRAW], {bytes(16): [[0.5, 0.5]]}, bytes(32)).save(path)
    packed: dict[str, Any] = msgpack.unpackb(path.read_bytes())
    return packed


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        View.load(path)
    message = str(raised.value)
    assert str(path) in message
    return message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.view", tmp_path):
        with pytest.raises(InputError, match="cannot be read") as raised:
            View.load(path)
        assert str(path) in str(raised.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.view"
    saved(path)
    data = path.read_bytes()
    for length in range(len(data)):
        assert "not a view written by View.save" in refusal(path, data[:length]), length


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "not a view"),
        (b"\xc1", "not a view"),
        (b"PK\x03\x04 surely not msgpack", "not a view"),
        (msgpack.packb(7), "not a view"),
        (msgpack.packb([1, 2]), "not a view"),
        (msgpack.packb({}), "format"),
        (msgpack.packb({"format": "siguard view"}), "version"),
        (msgpack.packb({"format": "another view", "version": 1}), "another view"),
        (msgpack.packb({"format": "siguard view", "version": 2}), "version 2"),
    ],
)
def test_what_is_no_view_is_refused(tmp_path: Path, data: bytes, found: str) -> None:
    assert found in refusal(tmp_path / "other.view", data)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("corrupted", "S0,S1"),
        ("corrupted", "nobody"),
        ("events", 5),
        ("events", [[]]),
        ("events", [[True]]),
        ("events", [[True, *range(11)]]),
        ("events", [7]),
        ("corrupted", 3),
        ("answers", [1]),
        ("answers", {bytes(16): [["0.5", 0.5]]}),
        ("owner_key", 7),
    ],
)
def test_a_wrong_field_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tmp_path / "field.view"
    refusal(path, msgpack.packb({**saved(path), key: value}))


def test_a_missing_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "field.view"
    packed = saved(path)
    for key in packed:
        refusal(path, msgpack.packb({other: value for other, value in packed.items() if other != key}))


def test_bytes_that_do_not_fill_the_shape_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "shape.view"
    for event in (MESSAGE, DRAW):
        View(Corrupted("S0", True), [replace(event, shape=(3,))]).save(path)
        assert "16 bytes for shape (3,)" in refusal(path, path.read_bytes())


@pytest.mark.parametrize(("field", "value"), [("session", 3), ("kind", 99), ("step", None), ("round", "1")])
def test_an_event_with_a_field_of_another_type_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    path = tmp_path / "type.view"
    View(Corrupted("S0", True), [replace(MESSAGE, **{field: value})]).save(path)
    refusal(path, path.read_bytes())


# Differences ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrupted", ["S0,U", "S2", "U"])
def test_a_difference_names_party_step_and_what_differs(corrupted: str) -> None:
    view = recorded().view(corrupted)
    assert view.diff(replace(view, events=view.events[::-1])) == []
    for event in view.events[:: max(1, len(view.events) // 20)]:
        (line,) = view.diff(replace(view, events=[flipped(e, 0) if e is event else e for e in view.events]))
        assert line.startswith(event.party)
        assert event.session.hex()[:8] in line
        assert f" {event.step}: 1 of {prod(event.shape)} elements differ" in line
        (line,) = view.diff(without(view, event))
        assert line.endswith(f" {event.step}: 1 times here, 0 times there")
        (line,) = without(view, event).diff(view)
        assert line.endswith(": 0 times here, 1 times there")


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (MESSAGE, replace(MESSAGE, round=4), "round 3 here, 4 there"),
        (MESSAGE, replace(MESSAGE, shape=(2,)), "(1, 2) x u64 here, (2,) x u64 there"),
        (DRAW, replace(DRAW, itemsize=4, bits=32, shape=(4,)), "(2,) x u64 here, (4,) x u32 there"),
        (DRAW, replace(DRAW, bits=63), "64 bits here, 63 bits there"),
        (MESSAGE, flipped(MESSAGE), "2 of 2 elements differ"),
    ],
)
def test_what_differs_is_said(one: Event, other: Event, found: str) -> None:
    corrupted = Corrupted("S0", True)
    (line,) = View(corrupted, [one]).diff(View(corrupted, [other]))
    assert line.endswith(found)


def test_sessions_that_begin_alike_are_kept_apart() -> None:
    view = View(Corrupted("S0", True), [replace(MESSAGE, session=b"same" + bytes([n] * 12)) for n in range(2)])
    assert view.diff(replace(view, events=view.events[::-1])) == []
    (line,) = view.diff(replace(view, events=[view.events[0], flipped(view.events[1], 0)]))
    assert line.endswith("1 of 2 elements differ")


def test_views_of_different_sets_differ() -> None:
    one, other = View(Corrupted("S0", True), [MESSAGE]), View(Corrupted("S0", False), [MESSAGE])
    assert one.diff(other) == ["corrupted: S0,U here, S0 there"]


def test_views_under_different_owners_keys_differ() -> None:
    one, other = (View(Corrupted("S0", True), [MESSAGE], owner_key=bytes([n] * 32)) for n in range(2))
    assert one.diff(other) == ["the model owner's public key differs"]


def test_sessions_and_answers_are_compared_one_by_one() -> None:
    view = recorded(kinds=("query", "query")).view("S0,U")
    first, second = recorded(kinds=("query", "query")).sessions
    (line,) = view.diff(replace(view, answers={**view.answers, second: [[0.5, 0.25, 0.25]]}))
    assert line == f"answer of session {second.hex()[:8]} differs"
    (line,) = view.diff(replace(view, answers={first: view.answers[first]}))
    assert second.hex()[:8] in line
    missing = view.diff(replace(view, events=[e for e in view.events if e.session != second]))
    assert len(missing) == len(view.of_session(second).events)
    assert all(second.hex()[:8] in line and line.endswith("1 times here, 0 times there") for line in missing)
    assert view.of_session(first).diff(replace(view, events=[*view.of_session(first).events])) == [
        f"answer of session {second.hex()[:8]} differs"
    ]


def test_a_shape_is_in_canonical_order_and_without_bytes() -> None:
    view = recorded().view("S1,U")
    shape = view.shape()
    assert shape == sorted(shape)
    assert len(shape) == len(view.sent) + len(view.received)
    blank = [replace(m, payload=bytes(len(m.payload))) for m in view.messages]
    assert View(view.corrupted, list(reversed(blank))).shape() == shape
    assert without(view, view.messages[5]).shape() != shape
    assert {line.link.partition(">")[2] for line in shape} >= {"S0", "S1", "user"}


@pytest.mark.parametrize("corrupted", ["S0,U", "S1,U", "S2,U"])
def test_a_frame_between_corrupted_parties_is_in_the_shape_once(corrupted: str) -> None:
    view = recorded().view(corrupted)
    inside = [m for m in view.messages if {m.party, m.peer} == set(view.corrupted.parties)]
    assert len(inside) == 2 * len({(m.sender, m.session, m.step) for m in inside}) > 0, "both ends are in the view"
    links = Counter((line.link, line.step) for line in view.shape())
    assert all(links[f"{m.sender}>{m.receiver}", m.step] == 1 for m in inside)


def test_text_is_readable_and_bounded() -> None:
    view = recorded(kinds=("query", "query")).view("S0,U")
    lines = view.text().splitlines()
    sessions = {event.session for event in view.events}
    assert lines[0] == f"view of {{S0,U}}: {len(view.events)} events in {len(sessions)} sessions"
    assert len(lines) == 1 + len(sessions) + len(view.events)
    assert max(map(len, lines)) < 120
    short = view.text(limit=5).splitlines()
    assert len(short) <= 1 + 7 * len(sessions)
    hidden = sum(int(line.split()[1]) for line in short if line.startswith("  ..."))
    assert hidden + sum("  ..." not in line[:5] for line in short) == len(lines)
    (shown,) = View(Corrupted("S0", True), [MESSAGE]).text().splitlines()[2:]
    assert shown == "   3  S0 <- S1       guard/mix  1x2 x u64  0001020304050607..."
    (shown,) = View(Corrupted("S0", True), [DRAW]).text().splitlines()[2:]
    assert shown == "   .  S0 draws    guard/mix 'open' of S0S2  2 x 64 bits  0001020304050607..."
