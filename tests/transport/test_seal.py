"""`seal`: what the two ends see when no sealed link comes about, and that the link below is closed in the end."""

from __future__ import annotations

import pytest
import trio
from handshake_helpers import KNOWN, SIZES, identity
from trio.testing import MockClock

from siguard.errors import InputError
from siguard.transport.handshake import HandshakeError
from siguard.transport.link import LinkBrokenError, LinkClosedError
from siguard.transport.memory import MemoryLink, memory_link_pair
from siguard.transport.secure import SealedLink, seal


async def both(
    caller: tuple[str, str | None] = ("S0", None),
    called: tuple[str, str | None] = ("S1", None),
    expect: str | None = "S1",
    prologues: tuple[bytes, bytes] = (b"", b""),
) -> dict[str, SealedLink | HandshakeError]:
    """Run `seal` at both ends; afterwards the links of those that failed are closed."""
    ends = memory_link_pair(caller[0], called[0])
    outcomes: dict[str, SealedLink | HandshakeError] = {}

    async def run(link: MemoryLink, who: tuple[str, str | None], initiator: bool, prologue: bytes) -> None:
        key = "caller" if initiator else "called"
        try:
            outcomes[key] = await seal(
                link,
                identity(*who),
                KNOWN,
                initiator=initiator,
                expect=expect if initiator else None,
                prologue=prologue,
            )
        except HandshakeError as error:
            outcomes[key] = error
            with pytest.raises(LinkClosedError):
                await link.send(b"")

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, ends[0], caller, True, prologues[0])
            nursery.start_soon(run, ends[1], called, False, prologues[1])
    return outcomes


async def test_both_ends_learn_who_is_there(autojump_clock: MockClock) -> None:
    outcomes = await both(expect=None, prologues=(b"same", b"same"))
    assert {key: link.peer for key, link in outcomes.items() if isinstance(link, SealedLink)} == {
        "caller": "S1",
        "called": "S0",
    }


@pytest.mark.parametrize(
    ("options", "caller", "called"),
    [
        (
            {"caller": ("S0", "stranger")},
            "S1 refused S0: its deployment file pins another key",
            "S0 proved another key",
        ),
        ({"called": ("S1", "stranger")}, "S1 proved another key", "refused this side's name, key or deployment"),
        ({"caller": ("stranger", None)}, "name is not in its deployment file", "stranger is not in the deployment"),
        ({"called": ("S2", None)}, "reached S2 where S1 was expected", "refused this side's name, key"),
        ({"prologues": (b"a", b"b")}, "S1 describes the channel differently", "refused this side's name, key"),
        ({"expect": "nobody"}, "nobody is not in the deployment file", "closed the link during the handshake"),
    ],
)
async def test_refusals_are_explained_at_both_ends(
    autojump_clock: MockClock, options: dict[str, object], caller: str, called: str
) -> None:
    outcomes = await both(**options)  # type: ignore[arg-type]
    assert caller in str(outcomes["caller"])
    assert called in str(outcomes["called"])
    for error in outcomes.values():
        assert isinstance(error, HandshakeError)
        assert isinstance(error, LinkBrokenError)
        assert error.__context__ is None  # nothing that leads to frames with keys
        assert error.__cause__ is None


@pytest.mark.parametrize("initiator", [True, False])
async def test_a_silent_peer_is_given_up_at_the_deadline(autojump_clock: MockClock, initiator: bool) -> None:
    here, there = memory_link_pair("S0", "S1")
    start = trio.current_time()
    with pytest.raises(HandshakeError, match="did not finish the handshake in 3 s"):
        await seal(here, identity("S0"), KNOWN, initiator=initiator, expect="S1" if initiator else None, deadline=3)
    assert trio.current_time() - start == 3
    with pytest.raises(LinkClosedError):
        await there.send(b"late")


async def test_a_clogged_link_is_given_up_at_the_deadline(autojump_clock: MockClock) -> None:
    here, _ = memory_link_pair("S0", "S1", capacity=0)
    with pytest.raises(HandshakeError, match="S1 did not finish the handshake in 3 s"):
        await seal(here, identity("S0"), KNOWN, initiator=True, expect="S1", deadline=3)
    with pytest.raises(LinkClosedError):
        await here.receive()


async def test_only_the_end_that_dials_can_expect_somebody(autojump_clock: MockClock) -> None:
    here, _ = memory_link_pair("S0", "S1")
    with pytest.raises(InputError, match="expect is for the end that dials"):
        await seal(here, identity("S0"), KNOWN, initiator=False, expect="S1")


async def test_a_cancelled_handshake_closes_the_link(autojump_clock: MockClock) -> None:
    here, there = memory_link_pair("S0", "S1")
    with trio.move_on_after(1) as scope:
        await seal(here, identity("S0"), KNOWN, initiator=True)
    assert scope.cancelled_caught
    assert len(await there.receive()) == SIZES[0]
    with pytest.raises(LinkClosedError):
        await there.receive()


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100_000)])
async def test_a_port_scanner_gets_a_closed_link_and_nothing_else(
    autojump_clock: MockClock, garbage: bytes
) -> None:
    here, there = memory_link_pair("S0", "scanner")
    await there.send(garbage)
    with pytest.raises(HandshakeError, match=f"a frame of {len(garbage)} bytes is not a handshake message"):
        await seal(here, identity("S0"), KNOWN, initiator=False)
    with pytest.raises(LinkClosedError):
        await there.receive()


async def test_a_peer_that_closes_during_the_handshake(autojump_clock: MockClock) -> None:
    here, there = memory_link_pair("S0", "S1")
    await there.aclose()
    with pytest.raises(HandshakeError, match="S1 closed the link during the handshake"):
        await seal(here, identity("S0"), KNOWN, initiator=True, expect="S1")


async def test_a_refusal_that_nobody_reads_does_not_delay_the_end(autojump_clock: MockClock) -> None:
    """The other end speaks another version, and its link is clogged."""
    here, there = memory_link_pair("S0", "S1", capacity=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(there.send, b"siguard\1\0\2" + bytes(64))
        start = trio.current_time()
        with pytest.raises(HandshakeError, match="protocol version 2"):
            await seal(here, identity("S0"), KNOWN, initiator=False)
        assert trio.current_time() - start < 1
