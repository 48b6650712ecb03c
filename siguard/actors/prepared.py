"""Sessions that are opened ahead of their query, as a server sees them.

A client sends its request at step `PREPARE`.  It is checked like any request, and the session is open from then on:
the dealer, whose program waits for nobody, runs it as far as its windows let it, and the two others keep what it
deals.  The query is the same request again, at step ``start``, and the input: then the two others run.  So all that
is different is when the dealer's messages were sent.

A session takes one query, of the client that opened it.  Its masks are drawn for its id, which is never used again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from siguard.actors import limits
from siguard.actors.mailbox import Mailbox
from siguard.errors import PartyFailedError, ProtocolError, SiguardError
from siguard.ring import RingArray
from siguard.transport.frame import Frame, Kind, step_digest

#: Steps of the request that opens a session ahead, and of a server's reply when it is ready for the query.
PREPARE, READY = "prepare", "prepared"


def opens_ahead(frame: Frame) -> bool:
    """Whether a frame is a request whose query comes later."""
    return frame.kind is Kind.START and frame.step == step_digest(PREPARE)


class PreparedSession:
    """One session at one server.

    tell: whom the session needs; whoever only gets the answer is added when the query comes.
    """

    def __init__(self, client: str, request: RingArray, mailbox: Mailbox, tell: list[str]) -> None:
        self.client = client
        self.tell = tell
        self._request = request.tobytes()
        self._mailbox = mailbox
        self._query = trio.Event()
        self._dealt = trio.Event()
        mailbox.windows.expect_query(self._query, self._dealt)

    def begin(self, frame: Frame, receiver: str) -> None:
        """The query has come.  Raises `ProtocolError` unless it asks for what was prepared."""
        if frame.payload.tobytes() != self._request:
            raise ProtocolError(f"{self.client} prepared another query than it asks", party=self.client)
        if receiver not in self.tell:
            self.tell.append(receiver)
            if self._mailbox.members is not None:
                self._mailbox.members |= {receiver}
        self._query.set()

    async def serve(
        self, protocol: Callable[[], Awaitable[None]], is_dealer: bool, ready: Callable[[], Awaitable[None]]
    ) -> None:
        """Run this server's part: the dealer's at once, another's when the query has come.

        ready: sent to the client; by the dealer when it has dealt everything, or all that its windows hold.
        """

        async def tell_when_dealt() -> None:
            await self._dealt.wait()
            await ready()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._expire)
            if is_dealer:
                nursery.start_soon(tell_when_dealt)
                await protocol()
                self._dealt.set()
                # Until the others begin, a link that is lost ends the session here, too.
                await self._query.wait()
            else:
                await ready()
                await self._query.wait()
                await protocol()

    async def _expire(self) -> None:
        # Clients stop earlier, so that no query meets a session that is being dropped.
        seconds = limits.PREPARED_SECONDS + self._mailbox.deadline
        with trio.move_on_after(seconds):
            await self._query.wait()
            return
        self._mailbox.fail(self._unused(f"was not used for {seconds:g} s"))

    def drop(self, reason: str) -> None:
        """End the session; reason: what became of it, as the end of a sentence."""
        self._mailbox.fail(self._unused(reason))

    def _unused(self, reason: str) -> SiguardError:
        session = self._mailbox.session.hex()
        return PartyFailedError(
            f"a prepared session {reason}; prepare again", party=self.client, session=session, step=PREPARE
        )


class PreparedSessions:
    """The prepared sessions of one server whose query has not come; ``most`` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: dict[bytes, PreparedSession] = {}

    @property
    def full(self) -> str:
        """Why no more can be prepared here, and what to do; empty where they can."""
        if len(self._sessions) < self._most:
            return ""
        return (
            f"keeps {len(self._sessions)} prepared sessions, the most it does (MOST_PREPARED = "
            f"{limits.MOST_PREPARED}, and half of limits.sessions); send the queries that they are for, prepare "
            f"fewer, or wait: unused ones are dropped after {limits.PREPARED_SECONDS:g} s"
        )

    def open(self, client: str, frame: Frame, mailbox: Mailbox, tell: list[str]) -> PreparedSession:
        """Open one."""
        prepared = self._sessions[frame.session] = PreparedSession(client, frame.payload, mailbox, tell)
        return prepared

    def client_of(self, session: bytes) -> str | None:
        """Who prepared a session whose query has not come."""
        prepared = self._sessions.get(session)
        return None if prepared is None else prepared.client

    def begin(self, frame: Frame, receiver: str) -> None:
        """The query of a session has come; raises as `PreparedSession.begin`."""
        self._sessions.pop(frame.session).begin(frame, receiver)

    def forget(self, session: bytes) -> None:
        """A session has ended."""
        self._sessions.pop(session, None)

    def drop_all(self, reason: str) -> None:
        """End all of them."""
        for prepared in list(self._sessions.values()):
            prepared.drop(reason)
