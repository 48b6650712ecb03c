"""A link that keeps the contract, for others that break it in one way each."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio.lowlevel import ParkingLot, checkpoint

from siguard.transport.link import Data, Link, LinkClosedError
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
