"""Sealed links against whoever sits on the wire, and after sends that were cancelled nobody knows where."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import trio
from sealed_helpers import Tamper, sealed_pair
from trio.testing import MockClock, wait_all_tasks_blocked

from siguard.transport.link import LinkBrokenError, LinkClosedError
from siguard.transport.secure import SEAL_BYTES

# The wire is hostile ---------------------------------------------------------------------------------------------


def at_third(change: Callable[[list[bytes]], list[bytes]]) -> Tamper:
    """Change what goes on in place of the third record, given all three."""
    seen: list[bytes] = []

    def tamper(data: bytes) -> list[bytes]:
        seen.append(data)
        return change(seen) if len(seen) == 3 else [data]

    return tamper


ATTACKS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "changed": lambda seen: [seen[2][:4] + bytes([seen[2][4] ^ 1]) + seen[2][5:]],
    "replayed": lambda seen: [seen[1], seen[2]],
    "truncated": lambda seen: [seen[2][:-1]],
    "left out": lambda seen: [],
    "plaintext": lambda seen: [b"message 2"],
    "an invented end": lambda seen: [bytes(SEAL_BYTES)],
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_breaks_the_link_at_once(autojump_clock: MockClock, attack: str) -> None:
    one, other, wire, other_wire = await sealed_pair(rekey_records=2)
    wire.tamper = at_third(ATTACKS[attack])
    for number in range(4):
        await one.send(b"message %d" % number)
    assert [await other.receive() for _ in range(2)] == [b"message 0", b"message 1"]
    for call in (other.receive, other.receive, partial(other.send, b"x")):
        with pytest.raises(LinkBrokenError, match="record 2 from S0 does not authenticate: it was"):
            await call()
    assert other_wire.closed
    assert other_wire.sent == []  # and nothing was told to whoever did it
    with pytest.raises(LinkClosedError):
        other.export("key")
    await other.aclose()
    with pytest.raises(LinkBrokenError):
        await other.receive()
    with pytest.raises(LinkBrokenError, match="cut"):
        await one.receive()


@pytest.mark.parametrize("direction", ["the other direction", "another connection"])
async def test_records_of_elsewhere_do_not_fit(autojump_clock: MockClock, direction: str) -> None:
    _, other, wire, other_wire = await sealed_pair()
    if direction == "the other direction":
        await other.send(b"reflect me")
        foreign = other_wire.sent[0]
    else:
        another, _, another_wire, _ = await sealed_pair()
        await another.send(b"splice me")
        foreign = another_wire.sent[0]
    await wire.inner.send(foreign)
    with pytest.raises(LinkBrokenError, match="record 0 from S0 does not authenticate"):
        await other.receive()


async def test_an_end_that_the_other_end_did_not_send_is_a_cut(autojump_clock: MockClock) -> None:
    for cut in ("send_eof", "aclose"):
        one, other, wire, _ = await sealed_pair()
        await one.send(b"last")
        await getattr(wire.inner, cut)()
        assert await other.receive() == b"last"
        for call in (other.receive, partial(other.send, b"x")):
            with pytest.raises(LinkBrokenError, match="cut before S0 said that nothing more comes"):
                await call()


async def test_what_follows_the_end_is_not_read(autojump_clock: MockClock) -> None:
    one, other, wire, _ = await sealed_pair()
    wire.tamper = lambda data: [data, data, b"more"]
    await one.send_eof()
    for _ in range(3):
        with pytest.raises(LinkClosedError) as caught:
            await other.receive()
        assert not isinstance(caught.value, LinkBrokenError)
    with pytest.raises(LinkClosedError, match="sent its last message"):
        await one.send(b"late")
    await other.send(b"back")
    assert await one.receive() == b"back"


# Cancelled sends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [True, False])
async def test_a_send_that_is_cancelled_below_leaves_the_link_usable(autojump_clock: MockClock, left: bool) -> None:
    """Whether the record left or not, and nobody here can know: it arrives or not, and the rest arrives."""
    one, other, wire, _ = await sealed_pair(rekey_records=2)
    for round_ in range(5):
        wire.cancel_next = left
        with trio.move_on_after(1) as scope:
            await one.send(b"cancelled %d" % round_)
        assert scope.cancelled_caught
        wire.cancel_next = False  # the skip, too
        with trio.move_on_after(1):
            await one.send(b"never sealed %d" % round_)
        await one.send(b"sent %d" % round_)
        expected = [b"cancelled %d" % round_] * left + [b"sent %d" % round_]
        assert [await other.receive() for _ in expected] == expected
    assert len(set(wire.sent)) == len(wire.sent)
    wire.cancel_next = left
    with trio.move_on_after(1):
        await one.send_eof()
    with pytest.raises(LinkClosedError, match="sent its last"):
        await one.send(b"after the end")
    await one.aclose()
    with pytest.raises(LinkClosedError) as caught:
        await other.receive()
    assert not isinstance(caught.value, LinkBrokenError)


async def test_only_a_cancelled_message_can_be_suppressed(autojump_clock: MockClock) -> None:
    one, other, wire, _ = await sealed_pair()
    wire.tamper = lambda data: []
    await one.send(b"sent, and held back")
    wire.cancel_next = False
    with trio.move_on_after(1):
        await one.send(b"cancelled")
    wire.tamper = None
    await one.send(b"next")
    with pytest.raises(LinkBrokenError, match="record 0"):
        await other.receive()


async def test_a_cancelled_send_waits_for_nobody_on_a_clogged_link(autojump_clock: MockClock) -> None:
    one, other, _, _ = await sealed_pair(capacity=1)
    await one.send(b"fills the link")
    start = trio.current_time()
    for _ in range(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3):  # one in the link below, two that wait for it
                nursery.start_soon(one.send, b"cancelled")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert trio.current_time() == start
    assert await other.receive() == b"fills the link"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send, b"next")
        assert await other.receive() == b"next"


async def test_a_link_whose_sends_are_always_cancelled_gives_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siguard.transport.secure.MAX_SKIP", 5)
    one, _, wire, _ = await sealed_pair()
    for _ in range(5):
        wire.cancel_next = False
        with trio.move_on_after(1):
            await one.send(b"cancelled")
    with pytest.raises(LinkBrokenError, match="5 sends to S1 in a row were cancelled"):
        await one.send(b"one too many")
    assert wire.closed


async def test_concurrent_senders_seal_in_the_order_of_sending(autojump_clock: MockClock) -> None:
    one, other, _, _ = await sealed_pair(capacity=1, rekey_records=3)
    received: list[bytes] = []

    async def send(sender: int) -> None:
        for number in range(10):
            await one.send(b"%d %d" % (sender, number))

    async with trio.open_nursery() as nursery:
        for sender in range(4):
            nursery.start_soon(send, sender)
        for _ in range(40):
            received.append(await other.receive())
    for sender in range(4):
        mine = [message for message in received if message.startswith(b"%d " % sender)]
        assert mine == [b"%d %d" % (sender, number) for number in range(10)]
