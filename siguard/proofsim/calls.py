"""The calls in a view: who dealt, what the user asked, and how the user's own code is set going."""

from __future__ import annotations

from siguard.actors.messages import Abort, Request
from siguard.actors.server import USER
from siguard.actors.session import SERVERS, roles_for
from siguard.errors import ProtocolError
from siguard.proofsim.stage import Stage
from siguard.proofsim.view import Message, View
from siguard.ring import Z64, RingArray
from siguard.transport.frame import Kind


def refuse_failed_sessions(view: View) -> None:
    """A session that failed has no answer to replay or simulate: raises `ProtocolError` that names it."""
    for message in view.messages:
        if message.kind == Kind.ABORT:
            reason = Abort.decode(message.array).reason
            raise ProtocolError(
                f"the view has a session that failed ({reason}): take it out with View.of_session",
                party=message.sender,
                session=message.session.hex(),
            )


def roles_of(view: View, session: bytes) -> tuple[str, str, str]:
    """The servers in roles 0, 1, 2 of a call: the two that answer the user, and the one that deals."""
    senders = {part.peer for part in answer_parts(view, session)}
    for dealer in SERVERS:
        if set(roles_for(dealer)[:2]) == senders:
            return roles_for(dealer)
    raise ProtocolError(
        f"the view has parts of the answer from {sorted(senders)}; expected two servers",
        party=USER,
        session=session.hex(),
        step="reveal",
    )


def answer_parts(view: View, session: bytes) -> list[Message]:
    """What the user is sent as the answer of a call."""
    return [m for m in view.messages if m.session == session and m.party == USER and m.step == "reveal"]


def begin_call(stage: Stage, view: View, message: Message) -> None:
    """Let the corrupted user make its call at the first sign of it: its request, or a part of an answer.

    In a session of the test role upstream the user only waits.
    """
    session = message.session
    if message.party != USER or stage.is_asked(session):
        return
    parts = answer_parts(view, session)
    if not parts:
        raise ProtocolError("the view has no answer for this call", party=USER, session=session.hex())
    start = next((m for m in view.sent if m.session == session and m.kind == Kind.START), None)
    if start is not None and start.party == USER:
        stage.ask(session, Request.decode(start.array), input_of(view, session), parts[0].shape)
    else:
        dealer = roles_of(view, session)[2]
        request = Request("guard", dealer, b"", b"", {}, {}, parts[0].shape[0], parts[0].shape[1])
        stage.ask(session, request, None, parts[0].shape)


def input_of(view: View, session: bytes) -> RingArray:
    """The corrupted user's own input: what it sent plus the masks on its tape."""
    sent = next((m for m in view.sent if m.session == session and m.party == USER and m.step == "input"), None)
    masks = [draw.array for draw in view.draws if draw.session == session and draw.party == USER]
    if sent is None or len(masks) != 2:
        raise ProtocolError(
            "the view has not what the user shared and its two masks",
            party=USER,
            session=session.hex(),
            step="input",
        )
    return Z64.add(sent.array, Z64.add(masks[0], masks[1]))
