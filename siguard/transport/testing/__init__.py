"""`check_transport`: the contract of `siguard.transport.link` as something that runs.

messages.py     what arrives is what was sent
cancelling.py   what a cancelled call leaves behind
closing.py      half-close, close, and who is woken
pressure.py     a sender waits when the link is full, and nothing else does
tools.py        what they share
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import TypeAlias

import trio

from siguard.errors import leaves_of
from siguard.transport.link import Link
from siguard.transport.testing.cancelling import (
    a_cancelled_receive_loses_nothing,
    a_cancelled_send_sends_all_or_nothing,
    a_receive_cancelled_within_a_message_loses_nothing,
    calls_notice_a_cancelled_scope,
)
from siguard.transport.testing.closing import (
    a_cancelled_close_closes,
    close_after_half_close_is_clean,
    close_delivers_what_was_sent,
    close_of_a_full_link_delivers_what_was_sent,
    close_refuses_the_other_ends_sends,
    close_refuses_this_ends_calls,
    close_twice_is_harmless,
    close_wakes_the_other_ends_receive,
    close_wakes_the_other_ends_sends,
    close_wakes_this_ends_receive,
    close_with_unread_messages_delivers_what_was_sent,
    half_close_delivers_what_was_sent,
    half_close_leaves_the_other_direction,
    half_close_of_a_full_link_delivers_what_was_sent,
    half_close_refuses_later_sends,
    half_close_twice_is_harmless,
    half_close_wakes_the_other_ends_receive,
)
from siguard.transport.testing.messages import (
    empty_messages_are_messages,
    ends_name_each_other,
    large_messages_arrive_whole,
    messages_arrive_once_and_in_order,
    messages_arrive_whole,
    nobody_writes_to_a_received_message,
    received_messages_are_bytes,
    senders_do_not_mix,
)
from siguard.transport.testing.pressure import (
    FILL_BYTES,
    FILL_LIMIT,
    a_full_direction_does_not_block_the_other,
    a_sender_waits_while_nobody_reads,
    both_directions_drain_when_both_were_full,
    waiting_senders_do_not_mix,
)
from siguard.transport.testing.tools import in_cancelled_scope

#: Gives the two ends of a fresh link, whose tasks it keeps until it is left.
LinkMaker: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Link, Link]]]
#: Raises AssertionError unless the link between two ends keeps one clause; its docstring says which.
Clause: TypeAlias = Callable[[Link, Link], Awaitable[None]]

#: The clauses that any link can be asked for, simplest first.
CLAUSES: tuple[Clause, ...] = (
    ends_name_each_other,
    messages_arrive_once_and_in_order,
    messages_arrive_whole,
    empty_messages_are_messages,
    large_messages_arrive_whole,
    received_messages_are_bytes,
    nobody_writes_to_a_received_message,
    senders_do_not_mix,
    half_close_delivers_what_was_sent,
    half_close_wakes_the_other_ends_receive,
    half_close_refuses_later_sends,
    half_close_leaves_the_other_direction,
    half_close_twice_is_harmless,
    close_delivers_what_was_sent,
    close_after_half_close_is_clean,
    close_with_unread_messages_delivers_what_was_sent,
    close_refuses_the_other_ends_sends,
    close_refuses_this_ends_calls,
    close_twice_is_harmless,
    close_wakes_this_ends_receive,
    close_wakes_the_other_ends_receive,
    a_cancelled_close_closes,
    calls_notice_a_cancelled_scope,
    a_cancelled_receive_loses_nothing,
    a_receive_cancelled_within_a_message_loses_nothing,
)
#: The clauses that need a link which is soon full.
CLOGGED_CLAUSES: tuple[Clause, ...] = (
    a_sender_waits_while_nobody_reads,
    a_full_direction_does_not_block_the_other,
    both_directions_drain_when_both_were_full,
    waiting_senders_do_not_mix,
    a_cancelled_send_sends_all_or_nothing,
    half_close_of_a_full_link_delivers_what_was_sent,
    close_of_a_full_link_delivers_what_was_sent,
    close_wakes_the_other_ends_sends,
)
#: Seconds for one clause.
CLAUSE_SECONDS = 30.0
#: Seconds in which the tasks of a link that was left must have ended.
END_SECONDS = 1.0

__all__ = ["CLAUSES", "CLOGGED_CLAUSES", "FILL_BYTES", "FILL_LIMIT", "Clause", "LinkMaker", "check_transport"]


async def check_transport(maker: LinkMaker, clogged_maker: LinkMaker | None) -> None:
    """Raise AssertionError, naming the clause, unless the links of ``maker`` keep the contract.

    Each of `CLAUSES` gets a fresh link, and another one with its ends exchanged.  Both ends are closed before the
    context of a link is left; a task that a link started must end with the context.

    clogged_maker: gives links of the same kind with small buffers, on which at most `FILL_LIMIT` messages of
    `FILL_BYTES` are taken while nobody reads; each of `CLOGGED_CLAUSES` gets those.  None: these clauses, on
    back-pressure and on what ends while a send waits, are left out.

    Runs on the real clock and on a MockClock that jumps by itself.  How fast the links are does not matter as long
    as a few megabytes pass in ten seconds.  Nothing else may start tasks in the meantime: they are counted.
    """
    for clauses, make in ((CLAUSES, maker), (CLOGGED_CLAUSES, clogged_maker)):
        if make is None:
            continue
        for clause in clauses:
            for exchanged in (False, True):
                await _check(clause, make, exchanged)


async def _check(clause: Clause, maker: LinkMaker, exchanged: bool) -> None:
    name = f"{getattr(clause, '__name__', clause)}{' (ends exchanged)' if exchanged else ''}"
    text = (clause.__doc__ or "").strip()
    living = trio.lowlevel.current_statistics().tasks_living
    try:
        with trio.fail_after(CLAUSE_SECONDS):
            async with maker() as (one, other):
                await _keep(clause, *((other, one) if exchanged else (one, other)))
    except Exception as error:
        reason = "; ".join(map(_reason, leaves_of(error)))
        raise AssertionError(f"{name}: {reason}\nbroken clause: {text}") from error
    with trio.move_on_after(END_SECONDS):
        while trio.lowlevel.current_statistics().tasks_living > living:  # noqa: ASYNC110 - no event says so
            await trio.sleep(END_SECONDS / 100)
        return
    raise AssertionError(f"no_task_outlives_a_link: one is left {END_SECONDS:g} s after the check of {name}")


async def _keep(clause: Clause, one: Link, other: Link) -> None:
    """Run the clause and close both ends, which also ends what would wait for ever behind a shield."""

    async def close() -> None:
        for link in (one, other):
            with suppress(Exception):  # a close that raises is a matter of the clauses on closing
                await in_cancelled_scope(link.aclose)

    async def watch() -> None:
        await trio.sleep(CLAUSE_SECONDS - 1)
        await close()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await clause(one, other)
            nursery.cancel_scope.cancel()
    finally:
        await close()


def _reason(error: BaseException) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    if isinstance(error, trio.TooSlowError):
        return f"not done after {CLAUSE_SECONDS:g} s"
    return f"raised {type(error).__name__}: {error}"
