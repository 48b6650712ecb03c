"""The shape of a call: its frames without their bytes, with the servers named by role."""

from __future__ import annotations

from siguard.actors.messages import Request
from siguard.actors.server import UPSTREAM, USER
from siguard.actors.session import roles_for
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.view import Message, ShapeLine, View
from siguard.transport.frame import Kind


def by_role(messages: list[Message]) -> tuple[list[ShapeLine], str]:
    """The shape of a call, servers named by role, and its dealer, as the request says."""
    start = next(m for m in messages if m.kind == Kind.START and m.sender in (USER, UPSTREAM))
    dealer = Request.decode(start.array).dealer
    names = {server: f"role {role}" for role, server in enumerate(roles_for(dealer))}

    def renamed(line: ShapeLine) -> ShapeLine:
        sender, receiver = line.link.split(">")
        return line._replace(link=f"{names.get(sender, sender)}>{names.get(receiver, receiver)}")

    # A view of everybody: what anybody on the network sees of it is its shape.
    return sorted(map(renamed, View(Corrupted(None, False), list(messages)).shape())), dealer


def first_difference(one: list[ShapeLine], other: list[ShapeLine]) -> str:
    """The first frame, by round, that only one of two shapes has; and their numbers of frames."""
    only_one, only_other = set(one) - set(other), set(other) - set(one)
    if not only_one | only_other:
        return f"the same frames, but {len(one)} of them, not {len(other)}"
    frame = min(only_one | only_other, key=lambda line: (line.round, line))
    which = "former" if frame in only_one else "latter"
    return (
        f"{frame.link} {Kind(frame.kind).name} {frame.step}, round {frame.round}, {frame.length} bytes: only the "
        f"{which} has this frame ({len(one)} frames against {len(other)})"
    )
