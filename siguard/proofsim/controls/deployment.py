"""Leaks around the protocol: in the length of a run or a frame, in the log, in what the network may do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
import structlog
import structlog.testing

from siguard.actors.mailbox import Mailbox
from siguard.actors.server import Server
from siguard.actors.session import ServerSession
from siguard.mpc.compare import win_counts
from siguard.mpc.party import Party
from siguard.mpc.share import Opened, Share
from siguard.proofsim.patching import replaced, replaced_method
from siguard.ring import BYTES, Ring, RingArray
from siguard.transport.frame import Frame


def loop_that_stops() -> AbstractContextManager[None]:
    """The guard as published: a loop that opens whether the noise is good, and stops."""
    leaky: AbstractContextManager[None] = import_module("siguard.proofsim.leaky").leaky_guard()
    return leaky


class _Trimmed(ServerSession):
    """Sends no trailing zero bytes; the receiver puts them back."""

    def send(self, role: int, path: str, depth: int, payload: RingArray) -> Any:
        trimmed = payload.tobytes().rstrip(b"\0")
        return super().send(role, path, depth, np.frombuffer(trimmed, BYTES.dtype))

    async def receive(
        self, role: int, path: str, ring: Ring, shape: tuple[int, ...], depth: int
    ) -> tuple[RingArray, int]:
        frame = await self.mailbox.take(self.roles[role], path, depth)
        padded = frame.payload.tobytes().ljust(prod(shape) * ring.itemsize, b"\0")
        return ring.from_bytes(padded, shape), frame.depth


@contextmanager
def length_depends_on_the_value() -> Iterator[None]:
    """Servers of a deployment leave out trailing zero bytes: who knows the mask reads the value off the length."""
    shipped = Server._channel

    def leaky(self: Server, session: bytes, dealer: str, client: str) -> ServerSession:
        channel = shipped(self, session, dealer, client)
        channel.__class__ = _Trimmed
        return channel

    with replaced_method(Server, "_channel", leaky):
        yield


@contextmanager
def secret_in_a_log_line() -> Iterator[None]:
    """Each server logs its part of the values it ranks."""
    shipped = win_counts

    @wraps(shipped)
    async def leaky(party: Party, x: Share, *rest: Any, **options: Any) -> Opened:
        structlog.get_logger("siguard").warning("ranking", role=party.role, part=str(x.first))
        return await shipped(party, x, *rest, **options)

    with ExitStack() as stack:
        # Kept from the terminal; who wants to see what is logged captures it inside.
        stack.enter_context(structlog.testing.capture_logs())
        stack.enter_context(replaced(win_counts, leaky))
        yield


@contextmanager
def coins_withheld() -> Iterator[None]:
    """No bug in the code: the claim is made given the answer alone."""
    exact: Any = import_module("siguard.proofsim.rungs.exact")
    given = exact.COINS_ARE_GIVEN
    exact.COINS_ARE_GIVEN = False
    try:
        yield
    finally:
        exact.COINS_ARE_GIVEN = given


@contextmanager
def second_frame_taken() -> Iterator[None]:
    """A second frame for one step takes the place of the first, and nobody is told."""
    shipped = Mailbox.deliver

    def leaky(self: Mailbox, sender: str, frame: Frame) -> None:
        self._arrived.pop((sender, frame.step), None)
        shipped(self, sender, frame)

    with replaced_method(Mailbox, "deliver", leaky):
        yield
