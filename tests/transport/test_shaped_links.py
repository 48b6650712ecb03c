"""Shaped links: exact times on a virtual clock, the contract of a link, and how close real time comes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.actors.virtual import virtual_clock
from siguard.errors import InputError
from siguard.transport.link import Data, Link, LinkClosedError
from siguard.transport.memory import memory_link_pair
from siguard.transport.profiles import LAN, WAN, Direction, NetworkProfile, network_profile
from siguard.transport.shape import IN_FLIGHT_BUFFERS, LINGER_SECONDS, ShapedLink, shaper
from siguard.transport.testing import FILL_BYTES, check_transport

STILL = Direction()


@asynccontextmanager
async def shaped_pair(
    there: Direction = STILL, back: Direction = STILL, *, capacity: int = 64, buffer_bytes: int = 4 << 20
) -> AsyncIterator[tuple[ShapedLink, ShapedLink]]:
    """Two ends, for parties a and b; leaving lets what is on its way arrive."""
    a, b = memory_link_pair("a", "b", capacity)
    async with trio.open_nursery() as nursery:
        ends = (
            ShapedLink(a, there, nursery, rng=np.random.default_rng(1), buffer_bytes=buffer_bytes),
            ShapedLink(b, back, nursery, rng=np.random.default_rng(2), buffer_bytes=buffer_bytes),
        )
        yield ends
        for end in ends:
            await end.aclose()


async def arrivals(link: Link, count: int) -> list[tuple[float, Data]]:
    """When each of the next messages came, and what it was."""
    result = []
    for _ in range(count):
        data = await link.receive()
        result.append((trio.current_time(), data))
    return result


# Times ----------------------------------------------------------------------------------------------------


async def test_a_message_takes_its_bits_and_the_latency(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0.25, 8000)) as (a, b):
        await a.send(b"x" * 500)  # half a second on the line
        assert trio.current_time() == 0
        assert await arrivals(b, 1) == [(0.75, b"x" * 500)]


async def test_messages_on_their_way_overlap(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(1.0, 8000)) as (a, b):
        for index in range(4):
            await a.send(bytes([index]) * 125)  # an eighth of a second each
        expected = [(1 + (index + 1) / 8, bytes([index]) * 125) for index in range(4)]
        assert await arrivals(b, 4) == expected


async def test_without_a_bandwidth_all_arrive_one_latency_later(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0.5)) as (a, b):
        for _ in range(100):
            await a.send(bytes(10_000))
        assert {when for when, _ in await arrivals(b, 100)} == {0.5}


async def test_a_line_that_was_idle_starts_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0.5, 8000)) as (a, b):
        await a.send(bytes(1000))
        await trio.sleep(10)
        await a.send(bytes(1000))
        assert [when for when, _ in await arrivals(b, 2)] == [10, 11.5]


async def test_each_direction_has_its_own_shape(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0.5, 8000), Direction(0.125)) as (a, b):
        await a.send(bytes(1000))
        await b.receive()
        assert trio.current_time() == 1.5
        await b.send(bytes(1000))
        await a.receive()
        assert trio.current_time() == 1.625


async def test_jitter_is_added_keeps_the_order_and_repeats(autojump_clock: trio.testing.MockClock) -> None:
    async def run() -> list[float]:
        start = trio.current_time()
        async with shaped_pair(Direction(0.5, jitter_seconds=0.25)) as (a, b):
            for index in range(40):
                await a.send(bytes([index]))
                await trio.sleep(1 / 64)
            seen = await arrivals(b, 40)
        assert [data for _, data in seen] == [bytes([index]) for index in range(40)]
        return [when - start - index / 64 for index, (when, _) in enumerate(seen)]

    async with shaped_pair(Direction(0.5, jitter_seconds=0.25)) as (a, b):
        single = []
        for _ in range(200):  # one at a time: nothing to overtake
            await a.send(b"")
            before = trio.current_time()
            await b.receive()
            single.append(trio.current_time() - before - 0.5)
    assert min(single) >= 0
    assert max(single) <= 0.25 + 1e-9
    assert np.mean(single) == pytest.approx(0.125, abs=0.02)  # 4 standard errors
    first = await run()
    assert min(first) >= 0.5
    assert max(first) > 0.6
    assert await run() == pytest.approx(first, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(
    gaps=st.lists(st.tuples(st.integers(0, 3000), st.floats(0, 2)), min_size=1, max_size=12),
    latency=st.floats(0, 1),
    rate=st.one_of(st.none(), st.floats(100, 1e6)),
)
def test_times_follow_the_equations(gaps: list[tuple[int, float]], latency: float, rate: float | None) -> None:
    async def main() -> None:
        free, expected = 0.0, []
        async with shaped_pair(Direction(latency, rate)) as (a, b), trio.open_nursery() as nursery:
            seen: list[float] = []

            async def read() -> None:
                seen.extend(when for when, _ in await arrivals(b, len(gaps)))

            nursery.start_soon(read)
            for size, gap in gaps:
                await a.send(bytes(size))
                free = max(trio.current_time(), free) + (8 * size / rate if rate else 0)
                expected.append(free + latency)
                await trio.sleep(gap)
        assert seen == pytest.approx(expected, abs=1e-9)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


# The end of a link ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["send_eof", "aclose"])
async def test_the_end_comes_after_the_last_message(autojump_clock: trio.testing.MockClock, how: str) -> None:
    async with shaped_pair(Direction(0.5, 8000)) as (a, b):
        await a.send(bytes(1000))
        await getattr(a, how)()
        with pytest.raises(LinkClosedError):
            await a.send(b"too late")
        assert trio.current_time() == 0
        await b.receive()
        with pytest.raises(LinkClosedError):
            await b.receive()
        assert trio.current_time() == 1.5
        if how == "send_eof":
            await b.send(b"still")
            assert await a.receive() == b"still"


async def test_closing_wakes_own_calls_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async def closed(call: object) -> None:
        with pytest.raises(LinkClosedError):
            await call  # type: ignore[misc]
        assert trio.current_time() == 1

    async with shaped_pair(Direction(5, 8), buffer_bytes=1) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(closed, a.receive())
        await a.send(bytes(100))  # keeps the line busy for 100 s
        for _ in range(3):
            nursery.start_soon(closed, a.send(b"waits"))
        await trio.sleep(1)
        await a.aclose()
        assert trio.current_time() == 1
        assert len(await b.receive()) == 100
        assert trio.current_time() == 105


async def test_what_is_sent_after_the_other_end_closed_fails(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0.5), Direction(0.25)) as (a, b):
        await b.send(b"last")
        await b.aclose()
        await a.send(b"for nobody")
        await trio.sleep(1)
        with pytest.raises(LinkClosedError):
            await a.send(b"")
        await a.send_eof()
        assert await a.receive() == b"last"
        with pytest.raises(LinkClosedError):
            await a.receive()


async def test_a_reader_that_never_comes_cannot_hold_the_task(autojump_clock: trio.testing.MockClock) -> None:
    below, _unread = memory_link_pair("a", "b", 1)
    async with trio.open_nursery() as nursery:
        link = ShapedLink(below, Direction(0.5), nursery)
        for _ in range(10):
            await link.send(b"unread")
        await link.aclose()
    assert trio.current_time() == 0.5 + LINGER_SECONDS


async def test_a_cancelled_nursery_closes_the_link_below(autojump_clock: trio.testing.MockClock) -> None:
    below, other = memory_link_pair("a", "b")
    async with trio.open_nursery() as nursery:
        link = ShapedLink(below, Direction(1), nursery)
        await link.send(b"lost")
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == 0.5
    with pytest.raises(LinkClosedError):
        await other.receive()
    with pytest.raises(LinkClosedError):
        await link.send(b"")
    with pytest.raises(LinkClosedError):
        await link.receive()
    await link.aclose()


# Back-pressure --------------------------------------------------------------------------------------------


async def test_a_sender_waits_while_the_buffer_is_full(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0, 8000), buffer_bytes=2000) as (a, b):
        for expected in (0, 0, 0, 1, 2):  # one on the line and 2000 bytes behind it, then one for one
            await a.send(bytes(1000))
            assert trio.current_time() == expected
        await arrivals(b, 5)
        assert trio.current_time() == 5


async def test_a_message_larger_than_the_buffer_leaves_the_line_busy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with shaped_pair(Direction(3, 8000), buffer_bytes=500) as (a, b), trio.open_nursery() as nursery:

        async def send() -> None:
            for _ in range(4):
                await a.send(bytes(10_000))

        nursery.start_soon(send)
        assert [when for when, _ in await arrivals(b, 4)] == [13, 23, 33, 43]


@pytest.mark.parametrize("size", [0, 1000])
async def test_an_end_that_reads_nothing_stops_the_sender(
    autojump_clock: trio.testing.MockClock, size: int
) -> None:
    async with shaped_pair(Direction(0.5, 8e6), capacity=1, buffer_bytes=5000) as (a, b):
        sent = 0
        with trio.move_on_after(60):
            while True:
                await a.send(bytes(size))
                sent += 1
                await trio.sleep(0.01)
        assert trio.current_time() == 60
        assert sent < 80
        with trio.fail_after(1):
            assert [data for _, data in await arrivals(b, sent)] == [bytes(size)] * sent
            await a.send(b"room again")


async def test_without_a_bandwidth_what_is_on_its_way_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    message = bytes(IN_FLIGHT_BUFFERS * 1000 // 4)
    async with shaped_pair(Direction(1), buffer_bytes=1000) as (a, b), trio.open_nursery() as nursery:
        nursery.start_soon(arrivals, b, 8)
        for _ in range(8):
            await a.send(message)
        assert trio.current_time() == 1


async def test_a_cancelled_send_was_sent_whole_or_not_at_all(autojump_clock: trio.testing.MockClock) -> None:
    async with shaped_pair(Direction(0, 8000), buffer_bytes=1000) as (a, b):
        done = []
        for index in range(6):
            with trio.move_on_after(0.7):
                await a.send(bytes([index]) * 1000)
                done.append(index)
        assert 0 < len(done) < 6
        assert [data[0] for _, data in await arrivals(b, len(done))] == done


# The contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "direction"),
    [
        ("real", Direction(0.2e-3, 1e9, 0.1e-3)),
        ("virtual", STILL),
        ("virtual", LAN.default),
        ("virtual", Direction(2e-3, None, 1e-3)),
        ("virtual", Direction(0, 200e6)),
    ],
)
def test_the_contract(clock: str, direction: Direction) -> None:
    def make() -> AbstractAsyncContextManager[tuple[Link, Link]]:
        return shaped_pair(direction, direction)

    def make_clogged() -> AbstractAsyncContextManager[tuple[Link, Link]]:
        return shaped_pair(direction, direction, capacity=1, buffer_bytes=8 * FILL_BYTES)

    async def main() -> None:
        await check_transport(make, make_clogged)

    trio.run(main, clock=virtual_clock() if clock == "virtual" else None)


# Real time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.2e-3, 5e-3])
async def test_real_messages_are_not_early_and_hardly_late(latency: float) -> None:
    late = []
    async with shaped_pair(Direction(latency)) as (a, b):
        for _ in range(25):
            started = trio.current_time()
            await a.send(b"")
            await b.receive()
            late.append(trio.current_time() - started - latency)
    assert min(late) >= 0
    # Sleeping alone is 1 ms late; the best of many, since the machine may be busy with something else.
    assert sorted(late)[5] < 0.3e-3, late


# Profiles -------------------------------------------------------------------------------------------------


def test_named_profiles() -> None:
    assert network_profile("none") is None
    assert network_profile("lan") is LAN
    assert network_profile("wan") is WAN
    assert 2 * LAN.direction("S0", "S1").latency_seconds == 0.4e-3
    assert 2 * WAN.direction("S0", "S1").latency_seconds == 40e-3
    assert LAN.direction("S0", "S1").seconds_on_line(125_000_000) == 1
    assert WAN.direction("S0", "S1").seconds_on_line(12_500_000) == 1
    with pytest.raises(InputError, match="profile: found 'wam'; allowed: none, lan, wan"):
        network_profile("wam")


def test_links_may_differ_and_their_ways_too() -> None:
    slow = Direction(1)
    profile = NetworkProfile("mine", STILL, {("user", "S0"): slow})
    assert profile.direction("user", "S0") == slow
    assert profile.direction("S0", "user") == STILL
    profile.check_parties(["S0", "user"])
    with pytest.raises(InputError, match=r"no party 'user' .*there are S0, S1"):
        profile.check_parties(["S0", "S1"])


@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, "1", True])
@pytest.mark.parametrize("name", ["latency_seconds", "jitter_seconds", "bits_per_second"])
def test_bad_directions_are_named(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{name}: found"):
        Direction(**{name: value})  # type: ignore[arg-type]


def test_a_line_without_bandwidth_is_refused() -> None:
    with pytest.raises(InputError, match="bits_per_second: found 0"):
        Direction(bits_per_second=0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("", STILL), "name"),
        (("x", 3), "default"),
        (("x", STILL, [1]), "links"),
        (("x", STILL, {("a", "a"): STILL}), "links"),
        (("x", STILL, {("a", "b"): 0.1}), "links"),
        (("x", STILL, {"ab": STILL}), "links"),
    ],
)
def test_bad_profiles_are_named(arguments: tuple[object, ...], field: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: found"):
        NetworkProfile(*arguments)  # type: ignore[arg-type]


async def test_a_shaper_takes_the_directions_of_the_profile(autojump_clock: trio.testing.MockClock) -> None:
    profile = NetworkProfile("mine", Direction(1), {("b", "a"): Direction(0.25, jitter_seconds=0.125)})

    async def there_and_back(seed: int | None) -> float:
        async with trio.open_nursery() as nursery:
            wrap = shaper(profile, nursery, seed)
            one, other = memory_link_pair("a", "b")
            a, b = wrap(one, "a"), wrap(other, "b")
            await a.send(b"")
            start = trio.current_time()
            await b.receive()
            assert trio.current_time() - start == pytest.approx(1)
            await b.send(b"")
            await a.receive()
            nursery.cancel_scope.cancel()
            return trio.current_time() - start - 1

    first, again, another = [await there_and_back(seed) for seed in (1, 1, 2)]
    assert first == pytest.approx(again, abs=1e-9)
    assert abs(first - another) > 1e-6
    assert all(0.25 <= seconds <= 0.375 for seconds in (first, another))


async def test_no_profile_leaves_a_link_as_it_is(nursery: trio.Nursery) -> None:
    link, _ = memory_link_pair("a", "b")
    assert shaper(None, nursery)(link, "a") is link
