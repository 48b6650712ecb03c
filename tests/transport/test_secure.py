"""Sealed links are links; each message grows by 16 bytes, closing is bounded, and keys stay where they are."""

from __future__ import annotations

import gc
import hashlib
import logging
import pickle
import platform
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from handshake_helpers import KEYS, KNOWN, identity
from sealed_helpers import sealed_pair
from trio.testing import MockClock, wait_all_tasks_blocked

from siguard.errors import FrameError
from siguard.transport.handshake import HandshakeError
from siguard.transport.link import Link, LinkBrokenError, LinkClosedError
from siguard.transport.memory import memory_link_pair
from siguard.transport.records import MAX_MESSAGE_BYTES, REKEY_RECORDS
from siguard.transport.secure import CLOSE_PATIENCE, SEAL_BYTES, SealedLink, seal
from siguard.transport.testing import check_transport


@asynccontextmanager
async def make_pair(capacity: int, rekey_records: int) -> AsyncIterator[tuple[Link, Link]]:
    one, other, _, _ = await sealed_pair(capacity, rekey_records)
    yield one, other


@pytest.mark.parametrize(("capacity", "rekey_records"), [(64, REKEY_RECORDS), (3, 5), (1, 1)])
async def test_it_is_a_link(autojump_clock: MockClock, capacity: int, rekey_records: int) -> None:
    await check_transport(
        partial(make_pair, max(capacity, 4), rekey_records), partial(make_pair, capacity, rekey_records)
    )


async def test_it_is_a_link_over_itself(autojump_clock: MockClock) -> None:
    """Wrappers stack, this one too."""

    @asynccontextmanager
    async def twice(capacity: int) -> AsyncIterator[tuple[Link, Link]]:
        one, other, _, _ = await sealed_pair(capacity)
        outer: dict[str, SealedLink] = {}

        async def run(link: Link, name: str) -> None:
            outer[name] = await seal(link, identity(name), KNOWN, initiator=name == "S0")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, one, "S0")
            nursery.start_soon(run, other, "S1")
        yield outer["S0"], outer["S1"]

    await check_transport(partial(twice, 64), partial(twice, 3))


async def test_messages_grow_by_the_stated_bytes_and_are_not_readable(autojump_clock: MockClock) -> None:
    one, other, wire, _ = await sealed_pair()
    assert (one.peer, other.peer) == ("S1", "S0")
    messages = [b"", b"a secret share", bytes(10_000), b"a secret share"]
    for message in messages:
        await one.send(message)
    assert [await other.receive() for _ in messages] == messages
    assert [len(sealed) for sealed in wire.sent] == [len(message) + SEAL_BYTES for message in messages]
    assert not any(b"secret" in sealed or bytes(20) in sealed for sealed in wire.sent)
    assert len(set(wire.sent)) == len(wire.sent)


async def test_a_message_that_openssl_cannot_take_is_refused(autojump_clock: MockClock) -> None:
    one, other, _, _ = await sealed_pair()
    with pytest.raises(FrameError, match=f"carries at most {MAX_MESSAGE_BYTES}"):
        await one.send(bytes(MAX_MESSAGE_BYTES + 1))
    await one.send(b"next")
    assert await other.receive() == b"next"


PAGE_FAULTS = """
import resource
import trio
from sealed_helpers import sealed_pair

async def main():
    one, other, _, _ = await sealed_pair()
    message = bytes(1 << 20)
    for number in range(15):
        if number == 5:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        one._inner.sent.clear()
        await one.send(message)
        await other.receive()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)

trio.run(main)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have other habits")
def test_large_messages_are_sealed_into_memory_that_is_there() -> None:
    """A megabyte is 256 pages; were each record in new ones, their faults would cost more than the encryption."""
    command = [sys.executable, "-c", PAGE_FAULTS]
    here = Path(__file__).parent
    ran = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    assert float(ran.stdout) < 32


async def test_exported_keys_are_shared_by_the_two_ends_of_one_connection(autojump_clock: MockClock) -> None:
    pairs = [await sealed_pair() for _ in range(2)]
    keys = []
    for one, other, _, _ in pairs:
        for label in ("pair key", "another", "", "a"):
            assert one.export(label) == other.export(label)
            keys.append(one.export(label))
    assert len(set(keys)) == len(keys) == 8
    assert {len(key) for key in keys} == {32}
    one = pairs[0][0]
    await one.aclose()
    with pytest.raises(LinkClosedError, match="its keys are gone"):
        one.export("pair key")


# Closing ---------------------------------------------------------------------------------------------------------


async def test_closing_a_clogged_link_is_bounded_and_frees_everything(autojump_clock: MockClock) -> None:
    for cancelled in (False, True):
        one, other, wire, _ = await sealed_pair(capacity=1)
        await one.send(b"fills the link")
        outcomes: list[str] = []

        async def ends_with(call: Callable[[], object], link: SealedLink = one, into: list[str] = outcomes) -> None:
            with pytest.raises(LinkClosedError, match="this end closed the link to S1"):
                await call()  # type: ignore[misc]
            into.append(link.peer)

        async with trio.open_nursery() as nursery:
            for call in (partial(one.send, b"1"), partial(one.send, b"2"), one.receive):
                nursery.start_soon(ends_with, call)
            await wait_all_tasks_blocked()
            start = trio.current_time()
            with trio.CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                await one.aclose()
            assert trio.current_time() - start <= CLOSE_PATIENCE
        assert outcomes == ["S1"] * 3
        assert wire.closed
        assert not hasattr(one._sealer, "_secret")
        assert not hasattr(one._opener, "_secret")
        assert await other.receive() == b"fills the link"
        with pytest.raises(LinkBrokenError, match="cut"):  # there was no room to say good-bye
            await other.receive()


async def test_calls_that_wait_for_a_close_without_room_are_refused(autojump_clock: MockClock) -> None:
    """The end record itself is cancelled when the patience is over, and the keys are gone when the others wake."""
    one, _, _, _ = await sealed_pair(capacity=1)
    await one.send(b"fills the link")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.aclose)
        await wait_all_tasks_blocked()
        nursery.start_soon(one.send_eof)
        with pytest.raises(LinkClosedError, match="this end closed the link to S1"):
            await one.send(b"late")


async def test_closing_in_a_cancelled_scope_still_says_so(autojump_clock: MockClock) -> None:
    one, other, _, _ = await sealed_pair()
    await one.send(b"last")
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.aclose()
    assert await other.receive() == b"last"
    with pytest.raises(LinkClosedError) as caught:
        await other.receive()
    assert not isinstance(caught.value, LinkBrokenError)


async def test_the_end_is_sent_once_and_the_other_ends_keys_for_it_go(autojump_clock: MockClock) -> None:
    one, other, wire, _ = await sealed_pair()
    await one.send_eof()
    await one.send_eof()
    await one.aclose()
    assert [len(sealed) for sealed in wire.sent] == [SEAL_BYTES]
    with pytest.raises(LinkClosedError, match="S0 has sent its last message"):
        await other.receive()
    assert not hasattr(other._opener, "_secret")
    assert hasattr(other._sealer, "_secret")


async def test_what_arrives_while_this_end_closes_is_not_received(autojump_clock: MockClock) -> None:
    one, other, _, _ = await sealed_pair(capacity=1)
    await one.send(b"fills the link, so that closing takes a moment")

    async def refused() -> None:
        with pytest.raises(LinkClosedError, match="this end closed the link"):
            await one.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused)
        await wait_all_tasks_blocked()
        nursery.start_soon(one.aclose)
        await wait_all_tasks_blocked()
        await other.send(b"too late")


# Keys stay where they are ----------------------------------------------------------------------------------------


async def test_no_key_is_shown_logged_or_pickled(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    one, other, wire, _ = await sealed_pair()
    secrets = [one._sealer._secret, one._opener._secret, one._exporter, bytes(KEYS["S0"]), bytes(KEYS["S1"])]
    await one.send(b"x")
    wire.tamper = lambda data: [b"spoilt"]
    await one.send(b"y")
    await other.receive()
    with pytest.raises(LinkBrokenError) as caught:
        await other.receive()
    for text in (repr(one), str(one), str(caught.value), caplog.text):
        for secret in secrets:
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
    with pytest.raises(TypeError, match="SealedLink holds keys"):
        pickle.dumps(one)


async def test_a_handshake_leaves_no_ephemeral_key_behind(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward secrecy: neither the links nor an error, with its traceback, lead to what a run drew or agreed."""
    drawn: list[bytes] = []

    def entropy(length: int) -> bytes:
        drawn.append(bytearray(hashlib.sha512(b"%d" % len(drawn)).digest()[:length]))  # type: ignore[arg-type]
        return bytes(drawn[-1])

    for function in ("initiate", "respond"):
        original = getattr(__import__("siguard.transport.secure", fromlist=[function]), function)
        monkeypatch.setattr(f"siguard.transport.secure.{function}", partial(original, entropy=entropy))
    one, other, _, _ = await sealed_pair()
    ends = memory_link_pair("S0", "S1")
    errors: list[HandshakeError] = []

    async def fails(link: Link, name: str, initiator: bool) -> None:
        with pytest.raises(HandshakeError) as caught:
            await seal(link, identity(name, "stranger" if initiator else None), KNOWN, initiator=initiator)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails, ends[0], "S0", True)
        nursery.start_soon(fails, ends[1], "S1", False)
    assert len(drawn) == 8
    assert len(errors) == 2
    ephemeral = {bytes(value) for value in drawn[::2]}
    held = [value for value in reachable([one, other, *errors]) if isinstance(value, bytes)]
    assert one._sealer._secret in held  # the search finds what is there
    assert not ephemeral & set(held)


def reachable(roots: list[object]) -> list[object]:
    """What objects lead to, through attributes, containers, tracebacks and frames, but not through code."""
    code = (type, type(gc), type(reachable))
    seen: dict[int, object] = {}
    waiting = roots
    while waiting:
        value = waiting.pop()
        if id(value) not in seen and not isinstance(value, code) and value is not globals():
            seen[id(value)] = value
            waiting += gc.get_referents(value)
    return list(seen.values())
