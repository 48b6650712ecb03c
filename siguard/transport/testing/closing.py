"""Clauses: how a link ends, one direction at a time or as a whole."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio

from siguard.transport.link import Data, Link, LinkClosedError
from siguard.transport.testing.pressure import Flow
from siguard.transport.testing.tools import (
    PAUSE,
    in_cancelled_scope,
    read_to_end,
    refused,
    refused_in_the_end,
    require_same,
    send_all,
    stamped,
    take,
    within,
)

TAIL = [stamped(0, number, size) for number, size in enumerate([8, 1000, 8, 60_000, 8])]
BACK = [stamped(1, number, size) for number, size in enumerate([100, 8, 50_000])]


async def _send_and(end: Callable[[], Awaitable[None]], link: Link, messages: list[bytes]) -> None:
    await send_all(link, messages)
    await end()


async def _delivers(end: Callable[[], Awaitable[None]], one: Link, other: Link) -> None:
    """What was sent before ``end`` reaches the other end, which waits, and nothing after it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_and, end, one, TAIL)
        await trio.sleep(PAUSE)
        require_same(await read_to_end(other), TAIL)


async def _send_until_closed(link: Link, messages: list[bytes]) -> None:
    """Send; the other end may close before it has room for all of them."""
    with suppress(LinkClosedError):
        await send_all(link, messages)


# One direction -----------------------------------------------------------------------------------------------


async def half_close_delivers_what_was_sent(one: Link, other: Link) -> None:
    """After `send_eof` the other end receives what was sent, then LinkClosedError each time."""
    await _delivers(one.send_eof, one, other)


async def half_close_wakes_the_other_ends_receive(one: Link, other: Link) -> None:
    """`send_eof` wakes a `receive` that waits at the other end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_end, other)
        await trio.sleep(PAUSE)
        await one.send_eof()


async def half_close_refuses_later_sends(one: Link, other: Link) -> None:
    """After `send_eof` this end's `send` raises LinkClosedError."""
    await one.send_eof()
    for _ in range(2):
        await refused("send, after this end's send_eof,", partial(one.send, b"late"))
    require_same(await read_to_end(other), [])


async def half_close_leaves_the_other_direction(one: Link, other: Link) -> None:
    """After `send_eof` this end goes on receiving, until the other end has sent its last."""
    await one.send_eof()
    require_same(await read_to_end(other), [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_and, other.send_eof, other, BACK)
        require_same(await read_to_end(one), BACK)


async def half_close_twice_is_harmless(one: Link, other: Link) -> None:
    """A second `send_eof` is harmless."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_and, one.send_eof, one, TAIL)
        require_same(await take(other, len(TAIL)), TAIL)
    await one.send_eof()
    require_same(await read_to_end(other), [])
    await one.send_eof()


# Both directions ---------------------------------------------------------------------------------------------


async def close_delivers_what_was_sent(one: Link, other: Link) -> None:
    """After `aclose` the other end receives what was sent, then LinkClosedError each time."""
    await _delivers(one.aclose, one, other)


async def close_after_half_close_is_clean(one: Link, other: Link) -> None:
    """After `send_eof` and then `aclose` the other end receives what was sent, then LinkClosedError each time."""

    async def end() -> None:
        await one.send_eof()
        await one.aclose()

    await _delivers(end, one, other)


async def close_with_unread_messages_delivers_what_was_sent(one: Link, other: Link) -> None:
    """So it does when the end that closes has not read all that came to it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_until_closed, other, BACK)
        await trio.sleep(PAUSE)
        nursery.start_soon(_send_and, one.aclose, one, TAIL)
        await trio.sleep(PAUSE)
        require_same(await read_to_end(other), TAIL)


async def close_refuses_the_other_ends_sends(one: Link, other: Link) -> None:
    """After `aclose` the other end's sends raise LinkClosedError before long; what was sent can still be read."""
    async with trio.open_nursery() as nursery:
        tail = TAIL[:2]
        nursery.start_soon(_send_and, one.aclose, one, tail)
        received: list[Data] = list(await take(other, 1))
        await refused_in_the_end(other)
        require_same(received + await read_to_end(other), tail)


async def close_refuses_this_ends_calls(one: Link, other: Link) -> None:
    """After `aclose` this end's `send` and `receive` raise LinkClosedError, whatever has arrived."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_until_closed, other, [b"read", *BACK])
        await take(one, 1)
        await trio.sleep(PAUSE)
        await one.aclose()
        for _ in range(2):
            await refused("receive, after this end's aclose,", one.receive)
            await refused("send, after this end's aclose,", partial(one.send, b"late"))


async def close_twice_is_harmless(one: Link, other: Link) -> None:
    """`aclose` is harmless the second time, from two tasks at once, and at both ends at once."""
    with within("aclose"):
        async with trio.open_nursery() as nursery:
            for link in (one, other, one, other):
                nursery.start_soon(link.aclose)
        for link in (one, other):
            await link.aclose()


async def close_wakes_this_ends_receive(one: Link, other: Link) -> None:
    """`aclose` wakes a `receive` that waits at this end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, "receive, when this end closes,", one.receive)
        await trio.sleep(PAUSE)
        await one.aclose()


async def close_wakes_the_other_ends_receive(one: Link, other: Link) -> None:
    """`aclose` wakes a `receive` that waits at the other end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_end, other)
        await trio.sleep(PAUSE)
        await one.aclose()


async def a_cancelled_close_closes(one: Link, other: Link) -> None:
    """`aclose` in a cancelled scope closes all the same, and both ends notice."""
    await in_cancelled_scope(one.aclose)
    await refused("receive, after this end's cancelled aclose,", one.receive)
    await refused("send, after this end's cancelled aclose,", partial(one.send, b"late"))
    # Whoever may not wait may not be able to take leave either.
    require_same(await read_to_end(other, cut=True), [])
    await one.aclose()


# Full links --------------------------------------------------------------------------------------------------


async def half_close_of_a_full_link_delivers_what_was_sent(one: Link, other: Link) -> None:
    """`send_eof` after as much as the link takes: the other end receives all of it, then LinkClosedError."""
    flow = Flow(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.run)
        await flow.stands_still()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_eof)
        await trio.sleep(PAUSE)
        await flow.arrives(other, flow.sent)
        rest = await read_to_end(other)
    require_same(rest, [flow.message(flow.sent)][: len(rest)])  # the send that was cancelled


async def close_of_a_full_link_delivers_what_was_sent(one: Link, other: Link) -> None:
    """`aclose` waits for no reader, wakes this end's calls, and what was sent can still be read."""
    flow = Flow(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, "send, when this end closes,", flow.run)
        nursery.start_soon(refused, "receive, when this end closes,", one.receive)
        await flow.stands_still()
        with within("aclose, with nobody reading,"):
            await one.aclose()
    await flow.arrives(other, flow.sent)
    rest = await read_to_end(other, cut=True)
    require_same(rest, [flow.message(flow.sent)][: len(rest)])  # the send that was woken


async def close_wakes_the_other_ends_sends(one: Link, other: Link) -> None:
    """`aclose` wakes a `send` that waits at the other end."""
    flow = Flow(other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.run)
        await flow.stands_still()
        nursery.cancel_scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused_in_the_end, other)
        await trio.sleep(PAUSE)
        await one.aclose()
