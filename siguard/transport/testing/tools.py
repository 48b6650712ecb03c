"""What the clauses share: messages that tell each other apart, bounded waits, ways to cancel, the end of a link.

Nothing here depends on how fast a link is: a pause that is too short for a slow link makes a clause weaker, it does
not make it fail.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import trio

from siguard.transport.link import Data, Link, LinkBrokenError, LinkClosedError

T = TypeVar("T")

#: Seconds in which what has been started gets as far as it can on a fast link.
PAUSE = 0.02
#: Seconds after which a wait that should have ended is called a hang.
WAIT = 10.0
#: (checkpoints, seconds) after which a call is cancelled.
DELAYS = [(checkpoints, 0.0) for checkpoints in range(24)] + [(0, 0.001), (0, 0.01), (0, 0.05)]

_STAMP = struct.Struct(">II")


def require(holds: bool, otherwise: str) -> None:
    """Raise AssertionError unless it holds; unlike a statement, also under ``python -O``."""
    if not holds:
        raise AssertionError(otherwise)


def stamped(sender: int, number: int, size: int) -> bytes:
    """A message of ``size`` bytes, at least 8, that only this sender and number give."""
    # The period is prime, so that what repeats is no piece that a transport may cut.
    filler = Random(number << 8 | sender).randbytes(min(size, 4093))  # noqa: S311 - not a secret
    return (_STAMP.pack(sender, number) + filler * (size // len(filler) + 1))[:size]


def sender_of(message: Data) -> int:
    """Who stamped the message, -1 if nobody did."""
    return int(_STAMP.unpack_from(message)[0]) if len(message) >= _STAMP.size else -1


def require_same(received: Sequence[Data], sent: Sequence[bytes]) -> None:
    """Raise AssertionError unless these are the same messages in the same order."""
    for number, (got, want) in enumerate(zip(received, sent, strict=False)):
        if got != want:
            at = sent.index(bytes(got)) if got in sent else None
            came = f"{len(got)} other bytes" if at is None else f"message {at}"
            raise AssertionError(f"in place of message {number} ({len(want)} bytes) came {came}")
    require(len(received) == len(sent), f"{len(sent)} messages were sent, {len(received)} came")


@contextmanager
def within(what: str, seconds: float = WAIT) -> Iterator[None]:
    """Raise AssertionError when the block takes longer."""
    with trio.move_on_after(seconds) as scope:
        yield
    require(not scope.cancelled_caught, f"{what} still waits after {seconds:g} s")


async def send_all(link: Link, messages: Iterable[bytes]) -> None:
    """Send one message after the other."""
    for message in messages:
        await link.send(message)


async def take(link: Link, count: int) -> list[Data]:
    """The next messages."""
    received: list[Data] = []
    with within(f"receive, after {count} messages were sent,"):
        while len(received) < count:
            received.append(await link.receive())
    return received


async def read_to_end(link: Link, *, cut: bool = False) -> list[Data]:
    """All messages until the link says that there are no more, which it must say each time.

    cut: the other end had to stop within a message, and this end may call that broken.
    """
    received: list[Data] = []
    ends = 0
    while ends < 3:
        try:
            with within("receive, after the other end's last message,"):
                received.append(await link.receive())
        except LinkBrokenError as error:
            require(cut, f"receive raised LinkBrokenError ({error}) where the other end closed cleanly")
            ends += 1
        except LinkClosedError:
            ends += 1
        else:
            require(not ends, "a message came after receive had raised LinkClosedError")
    return received


async def refused(what: str, call: Callable[[], Awaitable[object]]) -> None:
    """Raise AssertionError unless the call raises LinkClosedError, before long."""
    try:
        with within(what):
            await call()
    except LinkClosedError:
        return
    raise AssertionError(f"{what} did not raise LinkClosedError")


async def refused_in_the_end(link: Link) -> None:
    """Raise AssertionError unless sends raise LinkClosedError after a while: what closed is far away."""
    with within("send, after the other end closed,"):
        for number in range(1000):
            try:
                await link.send(stamped(9, number, 1000))
            except LinkClosedError:
                return
            await trio.sleep(WAIT / 2000)
    raise AssertionError("1000 messages were accepted after the other end had closed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: its value, or the cancellation."""

    cancelled: bool
    value: object = None


async def cancelled_after(delay: tuple[int, float], call: Callable[[], Awaitable[object]]) -> Outcome:
    """Make the call and cancel it after so many checkpoints and seconds, unless it has ended by then."""
    checkpoints, seconds = delay
    scope = trio.CancelScope()
    value: object = None

    async def cancel() -> None:
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        if seconds:
            await trio.sleep(seconds)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel)
        with scope:
            value = await call()
        nursery.cancel_scope.cancel()
    return Outcome(scope.cancelled_caught, value)


async def in_cancelled_scope(call: Callable[[], Awaitable[object]]) -> bool:
    """Make the call where it is cancelled from the start; whether it noticed."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await call()
    return scope.cancelled_caught
