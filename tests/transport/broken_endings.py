"""Links that break the contract when they end, in one way each.

Each of them keeps all clauses before the one that must notice.
"""

from __future__ import annotations

import trio
from sound_link import Lane, Sound
from trio.lowlevel import checkpoint

from siguard.transport.link import Data, LinkBrokenError, LinkClosedError


class IgnoresHalfClose(Sound):
    async def send_eof(self) -> None:
        await checkpoint()


class HasOneEnd(Sound):
    """Says once that there are no more messages."""

    told = False

    async def receive(self) -> Data:
        try:
            return await super().receive()
        except LinkClosedError:
            if self.told and not self.closed:
                await trio.sleep_forever()
            self.told = True
            raise


class CallsTheEndBroken(Sound):
    async def receive(self) -> Data:
        try:
            return await super().receive()
        except LinkClosedError:
            raise LinkBrokenError("cut") from None


class RaisesWhatItRunsOn(Sound):
    async def receive(self) -> Data:
        try:
            return await super().receive()
        except LinkClosedError:
            raise trio.EndOfChannel from None


class DoesNotTellOfHalfClose(Sound):
    async def send_eof(self) -> None:
        self.out.ended = True
        await checkpoint()


class SwallowsAfterHalfClose(Sound):
    async def send(self, data: bytes) -> None:
        if not self.out.ended or self.closed:
            await super().send(data)


class HalfClosesBothWays(Sound):
    async def send_eof(self) -> None:
        await self.aclose()


class RefusesSecondHalfClose(Sound):
    async def send_eof(self) -> None:
        if self.out.ended:
            raise LinkClosedError("closed")
        await super().send_eof()


# Close -------------------------------------------------------------------------------------------------


class DropsTheTail(Sound):
    async def aclose(self) -> None:
        self.out.waiting.clear()
        await super().aclose()


class HangsOnClose(Sound):
    async def aclose(self) -> None:
        await super().aclose()
        await trio.sleep_forever()


class SaysGoodbyeAfterItsLast(Sound):
    async def aclose(self) -> None:
        if self.out.ended and not self.closed:
            super().put(b"goodbye")
        await super().aclose()


class ResetsWhenUnread(Sound):
    """As a socket that is closed while something is unread."""

    async def aclose(self) -> None:
        if self.into.waiting:
            self.out.waiting.clear()
        await super().aclose()


class SwallowsAfterTheOtherClosed(Sound):
    async def send(self, data: bytes) -> None:
        try:
            await super().send(data)
        except LinkClosedError:
            # Also when the other end closes while this send is on its way.
            if self.closed or not self.out.unread:
                raise


class SwallowsAfterClose(Sound):
    async def send(self, data: bytes) -> None:
        if not self.closed:
            await super().send(data)


class ReadsAfterClose(Sound):
    async def receive(self) -> Data:
        if self.closed and self.into.waiting:
            return self.into.waiting.popleft()
        return await super().receive()


class RefusesSecondClose(Sound):
    async def aclose(self) -> None:
        if self.closed:
            raise LinkClosedError("closed")
        await super().aclose()


class LeavesItsReceiveWaiting(Sound):
    async def aclose(self) -> None:
        self.closed = self.out.ended = self.into.unread = True
        self.out.senders.unpark_all()
        self.out.receivers.unpark_all()
        self.into.senders.unpark_all()
        await checkpoint()


class DoesNotTellOfClose(Sound):
    async def aclose(self) -> None:
        self.closed = self.out.ended = self.into.unread = True
        self.out.senders.unpark_all()
        self.into.senders.unpark_all()
        self.into.receivers.unpark_all()
        await checkpoint()


class ClosesUnlessCancelled(Sound):
    async def aclose(self) -> None:
        await checkpoint()
        await super().aclose()


class LeavesATask(Sound):
    def __init__(self, peer: str, out: Lane, into: Lane) -> None:
        super().__init__(peer, out, into)
        trio.lowlevel.spawn_system_task(trio.sleep_forever)


# Full links -------------------------------------------------------------------------------------------------


class ForgetsHalfCloseWhenFull(Sound):
    async def send_eof(self) -> None:
        if self.out.full:
            await checkpoint()
        else:
            await super().send_eof()


class DropsTheTailWhenFull(Sound):
    async def aclose(self) -> None:
        if self.out.full:
            self.out.waiting.pop()
        await super().aclose()


class DropsTheTailWithItsReceive(Sound):
    """A receive that waits when this end closes takes what is unsent with it."""

    async def receive(self) -> Data:
        open_before = not self.closed
        try:
            return await super().receive()
        except LinkClosedError:
            if open_before and self.closed:
                self.out.waiting.clear()
            raise


class LeavesItsSendsWaiting(Sound):
    async def aclose(self) -> None:
        self.closed = self.out.ended = self.into.unread = True
        self.out.receivers.unpark_all()
        self.into.senders.unpark_all()
        self.into.receivers.unpark_all()
        await checkpoint()


class ClosesWhenItsSendsAreRead(Sound):
    async def aclose(self) -> None:
        while self.out.full and not self.out.unread:
            await self.out.senders.park()
        await super().aclose()


class LeavesTheOtherEndsSendsWaiting(Sound):
    async def aclose(self) -> None:
        self.closed = self.out.ended = self.into.unread = True
        self.out.senders.unpark_all()
        self.out.receivers.unpark_all()
        self.into.receivers.unpark_all()
        await checkpoint()


#: The clause that must notice each of them.
BROKEN: dict[type[Sound], str] = {
    LeavesATask: "no_task_outlives_a_link",
    IgnoresHalfClose: "half_close_delivers_what_was_sent",
    HasOneEnd: "half_close_delivers_what_was_sent",
    CallsTheEndBroken: "half_close_delivers_what_was_sent",
    RaisesWhatItRunsOn: "half_close_delivers_what_was_sent",
    DoesNotTellOfHalfClose: "half_close_wakes_the_other_ends_receive",
    SwallowsAfterHalfClose: "half_close_refuses_later_sends",
    HalfClosesBothWays: "half_close_leaves_the_other_direction",
    RefusesSecondHalfClose: "half_close_twice_is_harmless",
    DropsTheTail: "close_delivers_what_was_sent",
    HangsOnClose: "close_delivers_what_was_sent",
    SaysGoodbyeAfterItsLast: "close_after_half_close_is_clean",
    ResetsWhenUnread: "close_with_unread_messages_delivers_what_was_sent",
    SwallowsAfterTheOtherClosed: "close_refuses_the_other_ends_sends",
    SwallowsAfterClose: "close_refuses_this_ends_calls",
    ReadsAfterClose: "close_refuses_this_ends_calls",
    RefusesSecondClose: "close_twice_is_harmless",
    LeavesItsReceiveWaiting: "close_wakes_this_ends_receive",
    DoesNotTellOfClose: "close_wakes_the_other_ends_receive",
    ClosesUnlessCancelled: "a_cancelled_close_closes",
    ForgetsHalfCloseWhenFull: "half_close_of_a_full_link_delivers_what_was_sent",
    DropsTheTailWhenFull: "close_of_a_full_link_delivers_what_was_sent",
    DropsTheTailWithItsReceive: "close_of_a_full_link_delivers_what_was_sent",
    LeavesItsSendsWaiting: "close_of_a_full_link_delivers_what_was_sent",
    ClosesWhenItsSendsAreRead: "close_of_a_full_link_delivers_what_was_sent",
    LeavesTheOtherEndsSendsWaiting: "close_wakes_the_other_ends_sends",
}
