"""Links that break the contract while they carry messages, in one way each.

Each of them keeps all clauses before the one that must notice.
"""

from __future__ import annotations

import trio
from sound_link import Lane, Sound
from trio.lowlevel import checkpoint

from siguard.transport.link import Data


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


# Cancelling -------------------------------------------------------------------------------------------------


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


# Full links -------------------------------------------------------------------------------------------------


class NeverFull(Sound):
    async def wait_for_room(self) -> None:
        return


class SharesRoom(Sound):
    async def wait_for_room(self) -> None:
        while (self.out.full or self.into.full) and not (self.out.ended or self.out.unread):  # noqa: ASYNC110 - two lanes
            await trio.sleep(0.001)


class StallsWhenBothAreFull(Sound):
    async def receive(self) -> Data:
        while self.out.full and self.into.full and not self.closed:  # noqa: ASYNC110 - two lanes
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


#: The clause that must notice each of them.
BROKEN: dict[type[Sound], str] = {
    NamesBothEndsAlike: "ends_name_each_other",
    Reorders: "messages_arrive_once_and_in_order",
    Repeats: "messages_arrive_once_and_in_order",
    Loses: "messages_arrive_once_and_in_order",
    Splits: "messages_arrive_whole",
    DropsEmptyMessages: "empty_messages_are_messages",
    Truncates: "large_messages_arrive_whole",
    ReturnsViews: "received_messages_are_bytes",
    ReusesBuffers: "nobody_writes_to_a_received_message",
    Interleaves: "senders_do_not_mix",
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
}
