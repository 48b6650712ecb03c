"""A sound link, and links that break the contract in one way each.

`BROKEN` says which clause must notice; each link keeps all clauses before that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.lowlevel import ParkingLot, checkpoint

from siguard.transport.link import Data, Link, LinkBrokenError, LinkClosedError
from siguard.transport.testing import LinkMaker


class Lane:
    """Messages on their way in one direction."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.waiting: deque[bytes] = deque()
        self.ended = self.unread = False
        self.senders, self.receivers = ParkingLot(), ParkingLot()

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.room


class Sound:
    """A link that keeps the contract."""

    def __init__(self, peer: str, out: Lane, into: Lane) -> None:
        self.peer = peer
        self.out, self.into = out, into
        self.closed = False
        self.sent = 0

    async def send(self, data: bytes) -> None:
        await checkpoint()
        await self.wait_for_room()
        if self.out.ended or self.out.unread:
            raise LinkClosedError("closed")
        self.put(data)

    async def wait_for_room(self) -> None:
        while self.out.full and not (self.out.ended or self.out.unread):
            await self.out.senders.park()

    def put(self, data: bytes) -> None:
        self.sent += 1
        self.out.waiting.append(data)
        self.out.receivers.unpark_all()

    async def receive(self) -> Data:
        await checkpoint()
        while not self.closed:
            if self.into.waiting:
                self.into.senders.unpark_all()
                return self.into.waiting.popleft()
            if self.into.ended:
                break
            await self.into.receivers.park()
        raise LinkClosedError("closed")

    async def send_eof(self) -> None:
        self.out.ended = True
        self.out.senders.unpark_all()
        self.out.receivers.unpark_all()
        await checkpoint()

    async def aclose(self) -> None:
        self.closed = self.out.ended = self.into.unread = True
        for lane in (self.out, self.into):
            lane.senders.unpark_all()
            lane.receivers.unpark_all()
        await checkpoint()


def maker_of(kind: type[Sound], room: int) -> LinkMaker:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Link, Link]]:
        there, back = Lane(room), Lane(room)
        yield kind("S1", there, back), kind("S0", back, there)

    return make


# Messages ----------------------------------------------------------------------------------------------------


class NamesBothEndsAlike(Sound):
    def __init__(self, peer: str, out: Lane, into: Lane) -> None:
        super().__init__("S1", out, into)


class Reorders(Sound):
    def put(self, data: bytes) -> None:
        super().put(data)
        if self.sent % 50 == 0 and len(self.out.waiting) > 1:
            self.out.waiting.rotate(1)


class Repeats(Sound):
    def put(self, data: bytes) -> None:
        super().put(data)
        if self.sent % 50 == 0:
            super().put(data)


class Loses(Sound):
    def put(self, data: bytes) -> None:
        if self.sent == 100:
            self.sent += 1
        else:
            super().put(data)


class Splits(Sound):
    def put(self, data: bytes) -> None:
        for at in range(0, len(data) or 1, 1500):
            super().put(data[at : at + 1500])


class DropsEmptyMessages(Sound):
    def put(self, data: bytes) -> None:
        if data:
            super().put(data)


class Truncates(Sound):
    def put(self, data: bytes) -> None:
        super().put(data[: 1 << 20])


class ReturnsViews(Sound):
    async def receive(self) -> Data:
        return memoryview(await super().receive())  # type: ignore[return-value]


class ReusesBuffers(Sound):
    """One buffer for each length, for all but small messages."""

    async def receive(self) -> Data:
        data = await super().receive()
        if len(data) < 100:
            return data
        buffers: dict[int, bytearray] = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault(len(data), bytearray(len(data)))
        buffer[:] = data
        return buffer


class Interleaves(Sound):
    """Sends in pieces, and lets other tasks send between them."""

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data) or 1, 5000):
            piece = data[at : at + 5000]
            await super().send(bytes([at + 5000 >= len(data)]) + piece)

    async def receive(self) -> Data:
        whole = b""
        while True:
            piece = await super().receive()
            whole += piece[1:]
            if piece[0]:
                return whole


# Half-close --------------------------------------------------------------------------------------------------


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


# Close -------------------------------------------------------------------------------------------------------


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
        if self.out.unread and not self.closed:
            await checkpoint()
        else:
            await super().send(data)


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


# Cancelling --------------------------------------------------------------------------------------------------


class SendsWhenCancelled(Sound):
    async def send(self, data: bytes) -> None:
        if self.out.full or self.out.ended or self.out.unread:
            await super().send(data)
        else:
            self.put(data)


class ReceivesWhenCancelled(Sound):
    async def receive(self) -> Data:
        return self.into.waiting.popleft() if self.into.waiting and not self.closed else await super().receive()


class LosesWhenCancelled(Sound):
    async def receive(self) -> Data:
        data = await super().receive()
        await checkpoint()
        return data


class LosesPiecesWhenCancelled(Sound):
    """Reads long messages in pieces, and forgets those it has when it is cancelled."""

    async def receive(self) -> Data:
        data = await super().receive()
        for _ in range(0, len(data) - 1000, 100_000):
            await checkpoint()
        return data


class SendsHalfWhenCancelled(Sound):
    async def wait_for_room(self) -> None:
        try:
            await super().wait_for_room()
        except trio.Cancelled:
            self.out.waiting.append(b"half")
            raise


class RepeatsWhenCancelled(Sound):
    async def send(self, data: bytes) -> None:
        try:
            await super().send(data)
        except trio.Cancelled:
            if self.out.full:
                self.out.waiting.extend([data, data])
            raise


class HoldsTheTurnWhenCancelled(Sound):
    taken = False

    async def wait_for_room(self) -> None:
        while self.taken and not self.out.ended and not self.out.unread:
            await self.out.senders.park()
        self.taken = True
        await super().wait_for_room()
        self.taken = False


# Full links --------------------------------------------------------------------------------------------------


class NeverFull(Sound):
    async def wait_for_room(self) -> None:
        return


class SharesRoom(Sound):
    async def wait_for_room(self) -> None:
        while (self.out.full or self.into.full) and not (self.out.ended or self.out.unread):
            await trio.sleep(0.001)


class StallsWhenBothAreFull(Sound):
    async def receive(self) -> Data:
        while self.out.full and self.into.full and not self.closed:
            await trio.sleep(0.001)
        return await super().receive()


class HasOnePendingMessage(Sound):
    """Keeps the message of a task that waits where that of another one is kept."""

    pending = b""

    async def send(self, data: bytes) -> None:
        self.pending = data
        if self.out.full:
            await checkpoint()
            await self.wait_for_room()
            data = self.pending
        await super().send(data)


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
    NamesBothEndsAlike: "ends_name_each_other",
    LeavesATask: "no_task_outlives_a_link",
    Reorders: "messages_arrive_once_and_in_order",
    Repeats: "messages_arrive_once_and_in_order",
    Loses: "messages_arrive_once_and_in_order",
    Splits: "messages_arrive_whole",
    DropsEmptyMessages: "empty_messages_are_messages",
    Truncates: "large_messages_arrive_whole",
    ReturnsViews: "received_messages_are_bytes",
    ReusesBuffers: "nobody_writes_to_a_received_message",
    Interleaves: "senders_do_not_mix",
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
    SendsWhenCancelled: "calls_notice_a_cancelled_scope",
    ReceivesWhenCancelled: "calls_notice_a_cancelled_scope",
    LosesWhenCancelled: "a_cancelled_receive_loses_nothing",
    LosesPiecesWhenCancelled: "a_receive_cancelled_within_a_message_loses_nothing",
    NeverFull: "a_sender_waits_while_nobody_reads",
    SharesRoom: "a_full_direction_does_not_block_the_other",
    StallsWhenBothAreFull: "both_directions_drain_when_both_were_full",
    HasOnePendingMessage: "waiting_senders_do_not_mix",
    SendsHalfWhenCancelled: "a_cancelled_send_sends_all_or_nothing",
    RepeatsWhenCancelled: "a_cancelled_send_sends_all_or_nothing",
    HoldsTheTurnWhenCancelled: "a_cancelled_send_sends_all_or_nothing",
    ForgetsHalfCloseWhenFull: "half_close_of_a_full_link_delivers_what_was_sent",
    DropsTheTailWhenFull: "close_of_a_full_link_delivers_what_was_sent",
    LeavesItsSendsWaiting: "close_of_a_full_link_delivers_what_was_sent",
    ClosesWhenItsSendsAreRead: "close_of_a_full_link_delivers_what_was_sent",
    LeavesTheOtherEndsSendsWaiting: "close_wakes_the_other_ends_sends",
}
