"""Below the seal, whatever is changed on a connection breaks it: an error in time, never another answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import trio
from deploy_helpers import (
    GRACE,
    SHORT,
    assert_right,
    deals,
    deployed,
    failure_of,
    no_sessions,
    nothing_left,
    settled,
    some_features,
)
from middleman import Connection, Middle, Passed, unchanged

from siguard.actors.session import SERVERS
from siguard.deploy import connections

Tamper = Callable[[Passed, list[bytes]], Sequence[bytes]]


def _flipped(data: bytes, at: int, mask: int = 1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= mask
    return bytes(changed)


#: What becomes of one message, given those that went before it in its direction.
TAMPERS: dict[str, Tamper] = {
    "a bit of the text": lambda passed, before: [_flipped(passed.data, len(passed.data) // 2)],
    "a bit of the tag": lambda passed, before: [_flipped(passed.data, -1, 0x80)],
    "a shorter length": lambda passed, before: [_flipped(passed.data, 0, passed.data[0] & -passed.data[0] or 1)],
    "an enormous length": lambda passed, before: [_flipped(passed.data, 3, 0x7F)],
    "the mark of an end": lambda passed, before: [b"\xff\xff\xff\xff"],
    "the mark of a close": lambda passed, before: [b"\xfe\xff\xff\xff"],
    "a byte less": lambda passed, before: [passed.data[:-1]],
    "a byte more": lambda passed, before: [passed.data + b"\0"],
    "doubled": lambda passed, before: [passed.data, passed.data],
    "left out": lambda passed, before: [],
    "the one before again": lambda passed, before: [before[-1]],
    "the first frame again": lambda passed, before: [before[0], passed.data],
    "an empty message": lambda passed, before: [bytes(4), passed.data],
    "a foreign message": lambda passed, before: [(64).to_bytes(4, "little") + bytes(64), passed.data],
}


#: Nothing says so yet: the other end waits for the rest of a message, or for one more.
MISSED_LATER = {"a byte less", "a byte more", "left out"}


@pytest.fixture(autouse=True)
def _links_come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BRIEF_SECONDS", 0.0)


def tamper_once(connection: Connection, how: Tamper, at: int, to_server: bool) -> list[int]:
    """Tamper with one frame from now on; the result lists it once done."""
    done: list[int] = []
    before: list[bytes] = []

    def change(passed: Passed) -> Sequence[bytes]:
        if passed.to_server is not to_server:
            return [passed.data]
        before.append(passed.data)
        if len(before) != at:
            return [passed.data]
        done.append(passed.number)
        return how(passed, before[:-1])

    connection.change = change
    return done


@pytest.mark.parametrize("to_server", [False, True])
async def test_a_changed_connection_between_servers(to_server: bool) -> None:
    """One deployment for all: each fault is survived."""
    middle = Middle()
    with trio.fail_after(60):
        async with nothing_left(), deployed(between=middle.stand, deadline=0.4) as here, here.connect() as user:
            expected = (await user.query(some_features(), SHORT)).confidences
            for name, how in TAMPERS.items():
                link = await middle.link(here, "S2", "S1")
                deals(user, "S0")  # the two others exchange
                done = tamper_once(link, how, 4, to_server)
                failure = await failure_of(user.query(some_features(), SHORT))
                assert len(done) == 1, name
                assert failure.error.party in ("S1", "S2"), f"{name}: {failure.error}"
                assert failure.error.session is not None, name
                assert failure.error.step is not None, name
                assert failure.seconds < GRACE, f"{name}: {failure.seconds} s"
                assert await settled(lambda: no_sessions(*here.servers.values())), name
                if name in MISSED_LATER:
                    link.reset()
                assert await settled(link.is_closed), name
                await middle.link(here, "S2", "S1")
                deals(user, "S0")
                assert_right(await user.query(some_features(), SHORT), expected)


@pytest.mark.parametrize("to_server", [False, True])
async def test_a_changed_connection_to_the_user(to_server: bool) -> None:
    middle = Middle()
    with trio.fail_after(60):
        async with nothing_left(), deployed(between=middle.stand, deadline=0.4) as here, here.connect() as user:
            for name in (
                "a bit of the text",
                "the mark of a close",
                "a byte less",
                "left out",
                "the one before again",
            ):
                link = await middle.link(here, user, "S1")
                deals(user, "S0")
                # To the server: its part of the input.  From it: its part of the answer.
                done = tamper_once(link, TAMPERS[name], 3 if to_server else 2, to_server)
                failure = await failure_of(user.query(some_features(), SHORT))
                assert len(done) == 1, name
                assert failure.error.party in ("S1", user._client.name), f"{name}: {failure.error}"
                assert failure.error.session is not None, name
                assert failure.seconds < GRACE, f"{name}: {failure.seconds} s"
                assert await settled(lambda: no_sessions(*here.servers.values())), name
                if name in MISSED_LATER:
                    link.reset()
                assert await settled(link.is_closed), name
                await middle.link(here, user, "S1")
                assert_right(await user.query(some_features(), SHORT))


async def test_messages_of_another_connection() -> None:
    """The same place in an earlier epoch of the link, and in the link of two others."""
    old: dict[tuple[Connection, int], bytes] = {}

    def record(passed: Passed) -> list[bytes]:
        if passed.to_server:
            old[passed.connection, passed.number] = passed.data
        return [passed.data]

    def replayed(source: Connection, passed: Passed, before: list[bytes]) -> list[bytes]:
        return [old[source, passed.number]]

    middle = Middle(change=record)
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand) as here, here.connect() as user:
            before = await middle.link(here, "S2", "S1")
            for dealer in SERVERS:
                deals(user, dealer)
                await user.query(some_features(), SHORT)
            before.reset()
            for source in (before, await middle.link(here, "S1", "S0")):
                link = await middle.link(here, "S2", "S1")
                deals(user, "S0")
                done = tamper_once(link, partial(replayed, source), 1, True)
                failure = await failure_of(user.query(some_features(), SHORT))
                assert len(done) == 1
                assert any(
                    why in failure.error.message for why in ("does not authenticate", "was cut")
                )  # at either end
                assert failure.error.party in ("S1", "S2")
                assert failure.seconds < GRACE
                await middle.link(here, "S2", "S1")
                assert_right(await user.query(some_features(), SHORT))


@pytest.mark.parametrize("to_server", [False, True])
@pytest.mark.parametrize("number", range(3))
async def test_a_handshake_with_changed_messages(number: int, to_server: bool) -> None:
    """Each message of the handshake and both hellos: no link until they pass unchanged."""
    middle = Middle()
    hits = 0

    def change(passed: Passed) -> list[bytes]:
        nonlocal hits
        if (passed.number, passed.to_server, passed.connection.server) == (number, to_server, "S1"):
            hits += 1
            return [_flipped(passed.data, -1)]
        return [passed.data]

    with trio.fail_after(10):
        async with nothing_left(), deployed(between=middle.stand, deadline=0.4) as here:
            middle.change = change
            async with here.connect() as user:
                assert await settled(lambda: hits > 1), f"message {number}: {hits}"
                assert here.users_of("S1") == [] or not to_server
                middle.change = unchanged
                await middle.link(here, user, "S1")
                assert_right(await user.query(some_features(), SHORT))
