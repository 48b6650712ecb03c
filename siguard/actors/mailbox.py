"""What has come for one session and was not yet asked for; waits with deadlines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import trio

from siguard.actors.blame import Note, who_is_missing
from siguard.actors.virtual import Meter
from siguard.actors.windows import SendWindows
from siguard.errors import DeadlineError, ProtocolError, SiguardError
from siguard.transport.frame import Frame, Kind, step_digest

#: Part of a wait, and seconds at most, before its end at which servers tell each other for whom they wait.
_NOTICE, _MOST_NOTICE = 0.1, 1.0
#: Seconds that a party waits for one frame before it gives the session up.
DEFAULT_DEADLINE = 60.0


class _Wait(NamedTuple):
    """For a frame that has not come: set when it has, and when the wait began."""

    over: trio.Event
    since: float


class Mailbox:
    """Frames of one session, waited for by (sender, step).  Every wait has a deadline."""

    def __init__(
        self, session: bytes, party: str, deadline: float = DEFAULT_DEADLINE, meter: Meter | None = None
    ) -> None:
        self.session = session
        #: Makes the party pay for its work, in virtual time.
        self.meter = meter
        self.party = party
        self.deadline = deadline
        #: Why the session ended, once it failed; and whether it was another party that said so.
        self.failure: SiguardError | None = None
        self.told = False
        self.scope = trio.CancelScope()
        self.opened = trio.current_time()
        #: Whom this session needs; None while that is not known yet.
        self.members: frozenset[str] | None = None
        #: The step this party was last seen at, for errors.
        self.last_step: str | None = None
        #: Room for what this party deals.
        self.windows = SendWindows()
        #: Tells the other servers for whom this one waits, the given one last; and what they told.
        self.tell_waiting: Callable[[str], Awaitable[None]] | None = None
        self.notes: dict[str, Note] = {}
        #: Called when the session fails between its parts, while no task of this party is in it.
        self.unattended: Callable[[], None] | None = None
        self._arrived: dict[tuple[str, bytes], Frame] = {}
        self._waiting: dict[tuple[str, bytes], _Wait] = {}
        self._senders: set[str] = set()

    def deliver(self, sender: str, frame: Frame) -> None:
        """Put a frame where its step will look for it.  A second frame for one step fails the session."""
        if frame.kind is Kind.CREDIT:
            self.windows.give_back(sender, int(frame.payload.sum()))
            return
        key = (sender, frame.step)
        self._senders.add(sender)
        if key in self._arrived:
            self.fail(
                ProtocolError(
                    f"{sender} sent two frames for step {frame.step.hex()}",
                    party=sender,
                    session=self.session.hex(),
                )
            )
            return
        self._arrived[key] = frame
        wait = self._waiting.get(key)
        if wait is not None:
            wait.over.set()

    def needs(self, peer: str) -> bool:
        """Whether the loss of a peer ends this session; before its members are known, of one that sent for it."""
        return peer in (self.members or self._senders)

    def fail(self, error: SiguardError, *, told: bool = False) -> None:
        """End the session at this party with ``error``; the first one counts.

        told: another party said so, and has told everybody else.
        """
        if self.failure is None:
            error.step = error.step or self.last_step
            self.failure, self.told = error, told
            self.scope.cancel()
            if self.unattended is not None:
                self.unattended()

    def reopen(self) -> None:
        """Another part of the session follows, in a scope of its own."""
        self.scope = trio.CancelScope()

    def note(self) -> Note:
        """For whom this party waits longest."""
        if not self._waiting:
            return Note("", 0.0)
        (sender, _), wait = min(self._waiting.items(), key=lambda item: item[1].since)
        return Note(sender, trio.current_time() - wait.since)

    def patience(self, depth: int) -> float:
        """How long the wait for a frame of this depth may take: the deadline, and up to a tenth more.

        When one frame is lost, others soon wait for frames that depend on it, which lie deeper: they lose patience
        later, and the first to speak is the one who misses the lost frame.
        """
        return self.deadline * (1 + 0.1 * depth / (depth + 1000))

    async def take(self, sender: str, path: str, depth: int = 0) -> Frame:
        """The frame of a step; raises `DeadlineError` naming the sender when it does not come in time."""
        key = (sender, step_digest(path))
        self.last_step = path
        if key not in self._arrived:
            wait = self._waiting[key] = _Wait(trio.Event(), trio.current_time())
            try:
                await self._wait(wait.over, sender, self.patience(depth))
                if key not in self._arrived:
                    raise self._missing(sender, path, trio.current_time() - wait.since)
            finally:
                del self._waiting[key]
        # A read frame is forgotten, so that memory does not grow; a late double of it is read by nobody.
        frame = self._arrived.pop(key)
        if self.meter is not None:
            await self.meter.received(self.party, path, frame.size, f"{sender} {self.session.hex()}")
        return frame

    async def _wait(self, arrived: trio.Event, sender: str, patience: float) -> None:
        """Wait for a frame; shortly before the end of the patience, find out who is missing."""
        notice = min(_NOTICE * patience, _MOST_NOTICE)
        with trio.move_on_after(patience - notice):
            await arrived.wait()
        if not arrived.is_set():
            with trio.move_on_after(notice):
                if self.tell_waiting is not None:
                    await self.tell_waiting(sender)
                await arrived.wait()

    def _missing(self, sender: str, path: str, waited: float) -> DeadlineError:
        missing = who_is_missing(self.party, Note(sender, waited), self.notes)
        behind = f", which waits for {missing}" if missing not in (sender, self.party) else ""
        return DeadlineError(
            f"{self.party} waited {waited:.3g} s for a frame of {sender}{behind}",
            party=missing,
            session=self.session.hex(),
            step=path,
        )
