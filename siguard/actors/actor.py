"""`Actor`: a party with links, a mailbox per session, and the rule for how a session ends.

A session that fails at one party is aborted at all others with an error that names the party where it began;
a party that stops closes its links, which its peers see.  Sessions beside it go on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial

import trio

from siguard.actors.blame import Note
from siguard.actors.failures import as_siguard_error
from siguard.actors.ledger import Ledger
from siguard.actors.mailbox import DEFAULT_DEADLINE, Mailbox
from siguard.actors.messages import Abort, abort_for, error_from, from_payload, to_payload
from siguard.actors.ping import pong
from siguard.actors.session import SERVERS, Outbox
from siguard.actors.virtual import WORKING_FOR, Meter
from siguard.errors import PartyFailedError, ProtocolError, SiguardError
from siguard.transport.frame import Frame, Kind, decode_frame
from siguard.transport.link import Data, Link, LinkBrokenError, LinkClosedError

#: Sessions of which frames came before the request; more than that, and the oldest are forgotten.
MOST_EARLY = 1024
#: Ended sessions that are remembered, so that late frames do not open them again.
_REMEMBERED = 4096


class Actor:
    """One party: pumps its links into mailboxes; subclasses say what a session does."""

    def __init__(
        self, name: str, links: Mapping[str, Link], ledger: Ledger, deadline: float = DEFAULT_DEADLINE
    ) -> None:
        self.name = name
        self.deadline = deadline
        self._links = dict(links)
        self._changed = trio.Event()
        #: Seconds that a session waits for links to its members; 0 where links are never made again.
        self.link_patience = 0.0
        #: Makes this party pay for its work, in virtual time.
        self.meter: Meter | None = None
        #: What is known of a peer without a link, to end a sentence with.
        self.why_unlinked: Callable[[str], str] = lambda peer: ""
        self.ledger = ledger
        self._mailboxes: dict[bytes, Mailbox] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()
        import structlog  # loads rich where that is installed: not needed before a party exists

        self._log = structlog.get_logger("siguard").bind(party=name)
        self._scope = trio.CancelScope()
        self.nursery: trio.Nursery | None = None

    # Lifecycle --------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is called or this task is cancelled; closes every link in the end."""
        WORKING_FOR.set(self.name)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    self.nursery = nursery
                    for peer, link in list(self._links.items()):
                        nursery.start_soon(self._pump, peer, link)
                    task_status.started()
                    await trio.sleep_forever()
        finally:
            self.nursery = None
            for session in list(self._mailboxes):
                self._mailboxes[session].fail(self._stopped(session))
            with trio.CancelScope(shield=True):
                for peer in list(self._links):
                    await self._links.pop(peer).aclose()

    def stop(self) -> None:
        """End this party at once, as a crash would."""
        self._scope.cancel()

    def _is_running(self) -> bool:
        return self.nursery is not None

    def _stopped(self, session: bytes) -> PartyFailedError:
        return PartyFailedError(f"{self.name} was stopped", party=self.name, session=session.hex())

    # Links ------------------------------------------------------------------------------------------------

    def attach(self, link: Link) -> None:
        """Take a new link into use; sessions that were using an older one to the same peer end."""
        if self.nursery is None:
            raise LinkClosedError(f"{self.name} does not run")
        old = self._links.get(link.peer)
        self._links[link.peer] = link
        if old is not None:
            self._log.info("link replaced", peer=link.peer)
            self._fail_sessions_with(link.peer, PartyFailedError, f"{link.peer} connected anew")
            self.nursery.start_soon(old.aclose)
        self.nursery.start_soon(self._pump, link.peer, link)
        self._note_change()

    def is_attached(self, link: Link) -> bool:
        """Whether this very link is in use."""
        return self._links.get(link.peer) is link

    def has_link(self, peer: str) -> bool:
        """Whether there is a link to a peer now."""
        return peer in self._links

    async def detached(self, link: Link) -> None:
        """Wait until this very link is no longer in use."""
        while self.is_attached(link):
            await self._changed.wait()

    async def linked(self, peers: Iterable[str]) -> None:
        """Wait until there are links to all peers; raises `PartyFailedError` naming one that stays away."""
        missing = [peer for peer in peers if peer not in self._links]
        with trio.move_on_after(self.link_patience):
            while missing and self.link_patience:
                await self._changed.wait()
                missing = [peer for peer in missing if peer not in self._links]
        if missing:
            peer = missing[0]
            raise PartyFailedError(f"{self.name} has no link to {peer}{self.why_unlinked(peer)}", party=peer)

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Frames in --------------------------------------------------------------------------------------------

    async def _pump(self, peer: str, link: Link) -> None:
        receive_now: Callable[[], Data | None] = getattr(link, "receive_now", lambda: None)
        while True:
            try:
                # What is here is taken at once: nobody sends meanwhile, so there is little of it.
                data = receive_now()
                if data is None:
                    data = await link.receive()
            except LinkClosedError as closed:
                reason = f"{peer} closed its link to {self.name}"
                if isinstance(closed, LinkBrokenError):
                    reason = f"the link between {self.name} and {peer} broke: {closed}"
                if self.is_attached(link):
                    del self._links[peer]
                    self._log.info("link closed", peer=peer, reason=reason)
                    self._fail_sessions_with(peer, PartyFailedError, reason)
                    self._note_change()
                await link.aclose()
                return
            try:
                self._dispatch(peer, decode_frame(data))
            except SiguardError as error:
                # The link keeps messages whole, so the next one can be read: only sessions with this peer end.
                self._log.warning("not a frame", peer=peer, reason=error.message)
                self._fail_sessions_with(peer, ProtocolError, f"{peer} sent what is not a frame: {error.message}")

    def _fail_sessions_with(self, peer: str, kind: type[SiguardError], reason: str) -> None:
        for session, mailbox in list(self._mailboxes.items()):
            if mailbox.needs(peer):
                mailbox.fail(kind(reason, party=peer, session=session.hex()))

    def _dispatch(self, peer: str, frame: Frame) -> None:
        session = frame.session
        if session in self._ended:
            return
        if frame.kind is Kind.ABORT:
            self._on_abort(peer, session, error_from(Abort.decode(frame.payload), session))
        elif frame.kind is Kind.PING:
            if self.nursery is not None:
                self.nursery.start_soon(self._pong, peer, session)
        elif frame.kind is Kind.WAIT:
            self._on_wait(peer, frame)
        elif frame.kind in (Kind.START, Kind.GRANT, Kind.ASK):
            self._on_start(peer, frame)
        else:
            self.mailbox(session).deliver(peer, frame)

    def _on_start(self, peer: str, frame: Frame) -> None:
        """A request; only servers take them."""
        self.mailbox(frame.session).fail(
            PartyFailedError(f"{self.name} takes no requests", party=peer, session=frame.session.hex())
        )

    def _on_abort(self, peer: str, session: bytes, error: SiguardError) -> None:
        """A party gave the session up.  A client may only be about to wait for it, so it is kept until then."""
        self.mailbox(session).fail(error, told=True)

    def _on_wait(self, peer: str, frame: Frame) -> None:
        """Another server waits: tell it, once, for whom this one does."""
        mailbox = self._mailboxes.get(frame.session)
        if mailbox is None or not mailbox.needs(peer):
            return
        first = peer not in mailbox.notes
        mailbox.notes[peer] = Note.from_values(from_payload(frame.payload))
        if first and self.nursery is not None:
            self.nursery.start_soon(self._send_note, mailbox, peer)

    async def _pong(self, peer: str, session: bytes) -> None:
        with suppress(KeyError, LinkClosedError), trio.move_on_after(self.deadline):
            await self._links[peer].send(pong(session))

    async def _tell_waiting(self, mailbox: Mailbox, awaited: str) -> None:
        for peer in sorted(mailbox.members or (), key=lambda peer: peer == awaited):
            if peer in SERVERS and peer in self._links:
                await self._send_note(mailbox, peer)

    async def _send_note(self, mailbox: Mailbox, peer: str) -> None:
        """Best effort: it is for an error message."""
        outbox = Outbox(mailbox, self._links, self.ledger.traffic(mailbox.session))
        with suppress(SiguardError):
            await outbox.send(peer, Kind.WAIT, "wait", 0, to_payload(list(mailbox.note())))

    # Sessions ---------------------------------------------------------------------------------------------

    def mailbox(self, session: bytes) -> Mailbox:
        """The mailbox of a session, opened at its first use.

        Frames may come before the request that explains them; mailboxes whose request never came are dropped when
        a deadline has passed, as others are opened.
        """
        mailbox = self._mailboxes.get(session)
        if mailbox is None:
            self._drop_early()
            mailbox = self._mailboxes[session] = Mailbox(session, self.name, self.deadline, self.meter)
            mailbox.tell_waiting = partial(self._tell_waiting, mailbox)
        return mailbox

    def _drop_early(self) -> None:
        """Forget sessions whose request stays away, and the oldest of them where there are too many."""
        early = [key for key, mailbox in self._mailboxes.items() if mailbox.members is None]
        for number, session in enumerate(early):
            late = trio.current_time() - self._mailboxes[session].opened > self.deadline
            if late or number <= len(early) - MOST_EARLY:
                self._forget(session)

    def outbox(self, session: bytes) -> Outbox:
        """Where this party's frames of a session go out and are counted."""
        return Outbox(self.mailbox(session), self._links, self.ledger.traffic(session))

    async def within_session(
        self,
        session: bytes,
        tell: Iterable[str],
        body: Callable[[], Awaitable[None]],
        *,
        keep: bool = False,
    ) -> SiguardError | None:
        """Run this party's part of a session; on failure tell the others and return the error.

        Begins when there are links to all of ``tell``.  A session that the caller cancels is aborted at the others
        too, and the cancellation goes on.  keep: after success the session stays open, for another part of it.
        """
        if not self._is_running():
            return self._stopped(session)
        mailbox = self.mailbox(session)
        mailbox.members = frozenset(tell)
        error: SiguardError | None = None
        finished = False
        cancelled: BaseException | None = None
        caller = WORKING_FOR.set(self.name)
        try:
            with mailbox.scope:
                await self.linked(tell)
                await body()
                # A failure that was noticed in the same moment as the end still counts.
                finished = mailbox.failure is None
        except Exception as problem:
            error = as_siguard_error(problem, mailbox, self._log)
        except BaseExceptionGroup as group:
            # A failure and a cancellation at once: the failure is told, the cancellation goes on.
            cancelled, problems = group.split(trio.Cancelled)
            if problems is None or not isinstance(problems, ExceptionGroup):
                raise
            error = as_siguard_error(problems, mailbox, self._log)
        finally:
            if not finished:
                # Raised here, or noticed while the body ran, or else the caller cancelled.
                error = error or mailbox.failure
                if not self._is_running():
                    error = self._stopped(session)
                if error is None or error is not mailbox.failure or not mailbox.told:
                    left = PartyFailedError(f"{self.name} left the session", party=self.name)
                    await self._tell(session, tell, error or left)
            if finished and keep:
                mailbox.reopen()
            else:
                self._forget(session)
            WORKING_FOR.reset(caller)
        if cancelled is not None:
            raise cancelled
        return error

    async def _tell(self, session: bytes, peers: Iterable[str], error: SiguardError) -> None:
        """Abort the session at the others; best effort, bounded, and not stopped by a cancellation."""
        outbox = self.outbox(session)
        payload = abort_for(error, self.name).encode()

        async def tell(peer: str) -> None:
            with suppress(SiguardError):
                await outbox.send(peer, Kind.ABORT, "abort", 0, payload)

        # Side by side: one who takes nothing any more keeps nobody else from hearing it.
        with trio.move_on_after(1, shield=True):
            async with trio.open_nursery() as nursery:
                for peer in peers:
                    if peer in self._links:
                        nursery.start_soon(tell, peer)

    async def _give_up(self, session: bytes, tell: Iterable[str], error: SiguardError) -> None:
        """End at the others a session that does not run here."""
        await self._tell(session, tell, error)
        self._forget(session)

    def drop(self, session: bytes) -> None:
        """Forget a session in which nothing was drawn, and its traffic."""
        self._mailboxes.pop(session, None)
        self.ledger.take(session)

    def _forget(self, session: bytes) -> None:
        self._mailboxes.pop(session, None)
        self._ended[session] = None
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
