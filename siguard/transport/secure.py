"""Sealed links: `seal` runs the handshake over any link, `SealedLink` carries messages as AEAD records.

A send that is cancelled under way is whole or not at all, but the link below does not say which.  Its counter is
spent in either case (a nonce never covers two messages), and before the next record goes a *skip* that says,
authenticated, which records may be missing.  So a cancellation is honoured at once, also on a link that is clogged
for ever; whoever sits on the wire can suppress exactly those messages whose sends were cancelled, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

import trio
from nacl.signing import VerifyKey

from siguard.errors import FrameError, InputError
from siguard.transport.handshake import Agreed, HandshakeError, Identity, Steps, initiate, respond
from siguard.transport.link import Link, LinkBrokenError, LinkClosedError
from siguard.transport.records import (
    MAX_MESSAGE_BYTES,
    MAX_SKIP,
    REKEY_RECORDS,
    SEAL_BYTES,
    HoldsKeys,
    Mark,
    Opener,
    RecordError,
    Sealer,
    expand,
)

__all__ = ["CLOSE_PATIENCE", "SEAL_BYTES", "HandshakeError", "Identity", "SealedLink", "seal"]

#: Seconds that closing waits for room for the end record; without it the other end reads "cut" for "closed".
CLOSE_PATIENCE = 0.25

#: Just below the largest block that glibc learns from: 32 MiB with its header.
_LEARNT_BYTES = (1 << 25) - (1 << 16)

_Over: TypeAlias = tuple[type[LinkClosedError], str]


async def seal(
    link: Link,
    identity: Identity,
    known: Mapping[str, VerifyKey],
    *,
    initiator: bool,
    expect: str | None = None,
    prologue: bytes = b"",
    deadline: float = 10.0,
    rekey_records: int = REKEY_RECORDS,
) -> SealedLink:
    """Authenticate both ends of ``link`` and return it sealed; `SealedLink.peer` is who is there.

    known: the pinned key of each party that may be there.  expect: the one that was dialled (initiator only).
    prologue: what both ends must agree on.  deadline: seconds for all of it.
    rekey_records: the same at both ends.  Raises `HandshakeError`, and then, as when cancelled, ``link`` is closed.
    """
    if expect is not None and not initiator:
        raise InputError("expect is for the end that dials: the other one reads `peer` of the sealed link")
    steps = initiate(identity, known, expect, prologue) if initiator else respond(identity, known, prologue)
    whom = expect or "the other end"
    sealed: SealedLink | None = None
    reason = (
        f"{whom} did not finish the handshake in {deadline:g} s: is it running, and does it speak this protocol?"
    )
    try:
        with trio.move_on_after(deadline):
            sealed = SealedLink(link, await _shake(link, steps), rekey_records)
            return sealed
    except HandshakeError as error:
        reason = str(error)
        if error.reply is not None:
            await _tell(link, error.reply)
    except LinkClosedError:
        reason = (
            f"{whom} closed the link during the handshake: it may have stopped, or not know this party; see its log"
        )
    finally:
        steps.close()
        if sealed is None:
            await _close(link)
    # Raised anew, here: the tracebacks of what was caught lead to frames that hold keys.
    raise HandshakeError(reason)


async def _shake(link: Link, steps: Steps) -> Agreed:
    try:
        outgoing = next(steps)
        while True:
            if outgoing:
                await link.send(outgoing)
            outgoing = steps.send(await link.receive())
    except StopIteration as done:
        result: tuple[bytes, Agreed] = done.value
    last, agreed = result
    if last:
        await link.send(last)
    return agreed


async def _tell(link: Link, message: bytes) -> None:
    """Send if there is room soon, also when cancelled."""
    with trio.CancelScope(deadline=trio.current_time() + CLOSE_PATIENCE, shield=True):
        try:
            await link.send(message)
        except LinkClosedError:
            return


async def _close(link: Link) -> None:
    """Close, also when cancelled; bounded in case the links below wait for something, too."""
    with trio.CancelScope(deadline=trio.current_time() + 4 * CLOSE_PATIENCE, shield=True):
        await link.aclose()


class SealedLink(HoldsKeys):
    """A link whose messages are encrypted and authenticated; see `siguard.transport.link.Link` for the contract.

    Each message grows by `SEAL_BYTES`.  A record that does not authenticate, or an end without the other end's
    word, breaks the link: it is closed at once, and this and every later call raises `LinkBrokenError`.
    """

    def __init__(self, inner: Link, agreed: Agreed, rekey_records: int = REKEY_RECORDS) -> None:
        _keep_freed_blocks()
        self.peer = agreed.peer
        self._inner = inner
        self._sealer = Sealer(agreed.sending, rekey_records)
        self._opener = Opener(agreed.receiving, rekey_records)
        self._exporter = agreed.exporter
        # Records leave in the order of their counters: one task at a time is between sealing and sent.
        self._lock = trio.Lock()
        # Why nothing more can be sent, or received: set once.
        self._no_send: _Over | None = None
        self._no_receive: _Over | None = None
        # The end record has left, or nothing leaves any more.
        self._finished = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<SealedLink to {self.peer}>"

    async def send(self, data: bytes) -> None:
        """Send one message of at most `MAX_MESSAGE_BYTES`; waits while the link below does."""
        if len(data) > MAX_MESSAGE_BYTES:
            raise FrameError(f"message of {len(data)} bytes; a sealed link carries at most {MAX_MESSAGE_BYTES}")
        await self._acquire()
        try:
            if self._sealer.in_doubt:
                await self._skip()
            if self._no_send is not None:
                raise _error(self._no_send)
            await self._pass(self._sealer.seal(data))
        finally:
            self._lock.release()

    async def send_eof(self) -> None:
        """Tell the other end, authenticated, that nothing more comes from this end; waits as `send` does."""
        await self._acquire()
        try:
            self._no_send = self._no_send or (LinkClosedError, f"this end sent its last message to {self.peer}")
            if await self._finish():
                await self._inner.send_eof()
        finally:
            self._lock.release()

    async def receive(self) -> bytes:
        """The next message."""
        while True:
            if self._no_receive is not None:
                await trio.lowlevel.checkpoint()
                raise _error(self._no_receive)
            try:
                record = await self._inner.receive()
            except LinkClosedError as error:
                if not self._closed:
                    await self._break(f"the link was cut before {self.peer} said that nothing more comes ({error})")
                continue
            if self._closed:
                continue
            number = self._opener.counter
            try:
                message = self._opener.open(record)
            except RecordError:
                await self._break(
                    f"record {number} from {self.peer} does not authenticate: it was changed, replayed, reordered "
                    "or is of another connection"
                )
                continue
            if isinstance(message, bytes):
                return message
            if message is Mark.END:
                self._no_receive = LinkClosedError, f"{self.peer} has sent its last message"
                self._opener.forget()

    async def aclose(self) -> None:
        """Close this end; a clogged link delays that by at most `CLOSE_PATIENCE`, also in a cancelled scope."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        over = LinkClosedError, f"this end closed the link to {self.peer}"
        self._no_send = self._no_send or over
        self._no_receive = self._no_receive or over
        try:
            with trio.CancelScope(deadline=trio.current_time() + CLOSE_PATIENCE, shield=True):
                await self._acquire()
                try:
                    await self._finish()
                finally:
                    self._lock.release()
        finally:
            self._finished = True  # also when there was no room: whoever waited for the lock finds no keys
            self._forget()
            await self._inner.aclose()

    def export(self, label: str) -> bytes:
        """32 bytes that both ends, and nobody else, can derive for ``label``; of this connection only."""
        if not self._exporter:
            raise LinkClosedError(f"the link to {self.peer} is closed, and its keys are gone")
        return expand(self._exporter, b"export " + label.encode())

    # Parts; the lock is held -----------------------------------------------------------------------------

    async def _acquire(self) -> None:
        try:
            self._lock.acquire_nowait()  # without the checkpoint: the send below has one
        except trio.WouldBlock:
            await self._lock.acquire()

    async def _pass(self, record: bytes) -> None:
        """Hand the record that was sealed last to the link below."""
        try:
            await self._inner.send(record)
            return
        except LinkClosedError as error:
            kind = LinkBrokenError if isinstance(error, LinkBrokenError) else LinkClosedError
            self._finished = True
            self._no_send = self._no_send or (kind, f"the link to {self.peer} is closed")
        except BaseException:
            self._sealer.doubt()
            raise
        raise _error(self._no_send)

    async def _skip(self) -> None:
        if self._finished:
            return
        if self._sealer.in_doubt >= MAX_SKIP:
            await self._break(f"{MAX_SKIP} sends to {self.peer} in a row were cancelled under way")
            return
        await self._pass(self._sealer.seal_skip())
        self._sealer.settle()

    async def _finish(self) -> bool:
        """Send the end record; False if that was done before, or the link is gone."""
        try:
            if self._sealer.in_doubt:
                await self._skip()
            if self._finished:
                return False
            await self._pass(self._sealer.seal_end())
        except LinkClosedError:
            return False
        self._finished = True
        return True

    async def _break(self, reason: str) -> None:
        """Close both directions at once; whatever is called from now on raises ``reason``."""
        self._no_send = self._no_receive = LinkBrokenError, reason
        self._finished = self._closed = True
        self._forget()
        await _close(self._inner)

    def _forget(self) -> None:
        self._sealer.forget()
        self._opener.forget()
        self._exporter = b""


@cache
def _keep_freed_blocks() -> None:
    """Have the C library keep freed blocks of a message's size for the next message; once per process.

    A record is a new block.  glibc gives blocks back to the kernel above a size that it learns from the largest one
    freed so far (mallopt(3), M_MMAP_THRESHOLD), and for a megabyte the page faults cost more than the encryption.
    Freeing one large block, which is never touched, teaches it; elsewhere this does nothing.
    """
    bytes(_LEARNT_BYTES)


def _error(over: _Over) -> LinkClosedError:
    kind, text = over
    return kind(text)
