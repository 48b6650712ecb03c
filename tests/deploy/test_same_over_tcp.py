"""A deployment over sealed TCP does what a cluster in memory does, frame by frame, and draws nothing twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import structlog
import structlog.testing
import trio
from deploy_helpers import (
    DEADLINE,
    GRACE,
    LINESEARCH,
    SHORT,
    assert_right,
    deals,
    deployed,
    failure_of,
    nothing_left,
    settled,
    some_features,
    tiny_defender,
    tiny_model,
)
from frame_taps import Tap
from middleman import Middle, Passed

import siguard
from siguard.actors.session import SERVERS
from siguard.deploy.logs import configure_logs
from siguard.deploy.user import connect
from siguard.proofsim.recorder import Recorder, _Drawn
from siguard.transport.frame import Kind, decode_frame
from siguard.transport.secure import SEAL_BYTES
from siguard.transport.tcp_wire import PREFIX_BYTES


@pytest.mark.parametrize("plaintext", [False, True])
async def test_the_same_as_in_memory(plaintext: bool) -> None:
    with trio.fail_after(20):
        async with (
            nothing_left(),
            siguard.open_cluster() as cluster,
            deployed(fields={"plaintext": plaintext}) as here,
            here.connect() as user,
        ):
            # Planned for the links at hand, so for comparison planned the same.
            for config in (one.with_values(rounds="few") for one in (SHORT, LINESEARCH)):
                await cluster.query(some_features(), tiny_model(), tiny_defender(), config)  # shares and signs
                there = await cluster.query(some_features(), tiny_model(), tiny_defender(), config)
                answer = await user.query(some_features(), config)
                assert_right(answer, there.confidences)
                assert answer.iterations == there.iterations
                for count in ("rounds", "messages", "bytes_total"):
                    assert getattr(answer.traffic, count) == getattr(there.traffic, count), count
                assert answer.traffic.by_step().keys() == there.traffic.by_step().keys()


async def test_sealing_adds_a_stated_number_of_bytes_to_each_frame() -> None:
    tap, middle = Tap(), Middle()
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(wrap_link=tap, between=middle.stand) as here,
            here.connect(wrap_link=tap) as user,
        ):
            await user.services()

            def octets() -> int:
                return sum(sum(one.octets.values()) for one in middle.connections if one.open)

            before = octets()
            tap.frames.clear()
            result = await user.query(some_features(), SHORT)
            framed = sum(len(sent.data) + SEAL_BYTES + PREFIX_BYTES for sent in tap.frames)
            assert await settled(lambda: octets() - before == framed), (octets() - before, framed)
            # Beside the query: three questions, and three more after it, with their replies.
            assert len(tap.frames) == result.traffic.messages + 12


async def test_a_retry_draws_nothing_twice() -> None:
    """A session is cut, the servers make a new key, the user asks again: no two masks are the same."""
    recorder, middle = Recorder(), Middle()
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(randomness=recorder.randomness, between=middle.stand) as here,
            here.connect(randomness=recorder.randomness) as user,
        ):
            keys = []
            for _ in range(3):
                link = await middle.link(here, "S1", "S0")
                keys.append(here.servers["S0"]._keys["S0S1"])
                assert here.servers["S1"]._keys["S0S1"] == keys[-1]
                deals(user, "S2")
                link.change = partial(_cut_at, 20)
                failure = await failure_of(user.query(some_features(), SHORT))
                assert failure.error.party in ("S0", "S1")
                await middle.link(here, "S1", "S0")
                deals(user, "S2")
                assert_right(await user.query(some_features(), SHORT))
            assert len(set(keys)) == 3
            drawn = [event for event in recorder._events if isinstance(event, _Drawn)]
            addresses = Counter((e.party, e.pair, e.session, e.dealer, e.purpose, e.path) for e in drawn)
            assert len(addresses) > 1000
            assert max(addresses.values()) == 1
            # The two who share a key draw the same; otherwise no values come up a second time.
            values: dict[bytes, set[tuple[str, bytes, str, str]]] = {}
            for e in drawn:
                if e.values.nbytes >= 16:
                    values.setdefault(e.values.tobytes(), set()).add((e.pair, e.session, e.purpose, e.path))
            assert max(map(len, values.values())) == 1
            assert len({e.session for e in drawn}) > 6


def _cut_at(number: int, passed: Passed) -> list[bytes]:
    if passed.number >= number:
        passed.connection.reset()
    return [passed.data]


async def test_plaintext_shouts() -> None:
    middle = Middle()
    with trio.fail_after(20), structlog.testing.capture_logs() as logged:
        async with (
            nothing_left(),
            deployed(fields={"plaintext": True}, between=middle.stand) as here,
            here.connect() as user,
        ):
            assert_right(await user.query(some_features(), SHORT))
            link = await middle.link(here, user, "S0")
            seen: list[bytes] = []

            def look(passed: Passed) -> list[bytes]:
                seen.append(passed.data)
                return [passed.data]

            link.change = look
            assert_right(await user.query(some_features(), SHORT))
            # Whoever listens reads frames.
            assert any(decode_frame(data[PREFIX_BYTES:]).kind is Kind.START for data in seen)
    shouted = [entry for entry in logged if "NOTHING IS ENCRYPTED" in entry["event"]]
    # The servers, and those whose data it is.
    assert [entry["party"] for entry in shouted] == [*SERVERS, "owner", "user"]
    assert {entry["log_level"] for entry in shouted} == {"warning"}


async def test_a_sealed_and_a_plaintext_end_say_so() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(connect=0.4) as here:
            plain = replace(here.deployment, plaintext=True)
            async with connect(plain, here.loopback.identities["user"]) as user:
                failure = await failure_of(user.services())
                assert failure.error.party in SERVERS
                assert user.problems


async def test_a_full_disk_under_the_log_stops_nobody() -> None:
    lines = configure_logs(Path("/dev/full"))
    try:
        with trio.fail_after(20):
            async with nothing_left(), deployed() as here, here.connect() as user:
                assert_right(await user.query(some_features(), SHORT))
                assert lines.dropped > 10
                await here.stop("S1")
                assert (await failure_of(user.query(some_features(), SHORT))).error.party == "S1"
    finally:
        lines.close()
        structlog.reset_defaults()


async def test_a_frame_larger_than_allowed_is_not_sent() -> None:
    """It ends its own session, with a cure, and no connection."""
    tap = Tap()
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(frame_bytes=65_536, wrap_link=tap) as here,
            here.connect() as user,
            here.connect() as beside,
        ):
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            links = [dict(server._links) for server in here.servers.values()]
            answers = []

            async def ask() -> None:
                for _ in range(3):
                    answers.append(await beside.query(some_features(), service=service))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                failure = await failure_of(user.query(some_features(2048), service=service))
            assert "limits.frame_bytes" in failure.error.message, failure.error
            assert failure.error.session is not None
            assert failure.error.step is not None
            assert failure.seconds < DEADLINE + GRACE
            assert len(answers) == 3
            assert [dict(server._links) for server in here.servers.values()] == links
