"""One party's end of one session: its mailbox, its randomness, its deadlines."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import trio

from siguard.actors import windows
from siguard.actors.compute import ComputeDoor
from siguard.actors.mailbox import Mailbox
from siguard.errors import DeadlineError, PartyFailedError, ProtocolError
from siguard.mpc.party import DEALER
from siguard.mpc.secret import Secret
from siguard.prf import RandomnessSource
from siguard.ring import Z64, Ring, RingArray
from siguard.transport.accountant import Traffic
from siguard.transport.frame import Frame, Kind, encode_frame, step_digest
from siguard.transport.link import Link, LinkClosedError

T = TypeVar("T")

SERVERS = ("S0", "S1", "S2")


def roles_for(dealer: str) -> tuple[str, str, str]:
    """Names of the servers in roles 0, 1, 2 when ``dealer`` deals: role i + 1 follows role i cyclically."""
    index = SERVERS.index(dealer)
    return SERVERS[(index + 1) % 3], SERVERS[(index + 2) % 3], dealer


def pair_name(one: str, other: str) -> str:
    """The name of the key that two servers share."""
    return "".join(sorted((one, other)))


def client_pair(client: str, pair: str) -> str:
    """The name of the key that a client shares with two servers; never the servers' own."""
    return f"{client}+{pair}"


class Probe(Protocol):
    """Collects shares held in this process, for `debug_open`."""

    def record(self, name: str, party: str, share: Secret) -> None:
        """Remember one party's part of a named value."""
        ...


#: Frames that are no step of a session.
_BESIDE = (Kind.ABORT, Kind.CREDIT, Kind.WAIT)
#: Sends that need not wait let other tasks run after so many: after each, they would take a tenth of a small call.
_PROMPT_SENDS = 8


class Outbox:
    """Sends the frames of one session, counted once, here, where they are encoded."""

    def __init__(self, mailbox: Mailbox, links: Mapping[str, Link], traffic: Traffic) -> None:
        self._mailbox = mailbox
        self._links = links
        self._traffic = traffic
        self._prompt = 0

    async def send(
        self, peer: str, kind: Kind, path: str, depth: int, payload: RingArray, *, dealt: bool = False
    ) -> None:
        """Send one frame; raises `PartyFailedError` if the link is gone, `DeadlineError` if it is clogged.

        dealt: the sender runs ahead of the receiver, and waits for room there (`siguard.actors.windows`).
        """
        box = self._mailbox
        if kind not in _BESIDE:
            box.last_step = path
        data = encode_frame(Frame(kind, box.session, step_digest(path), depth, payload))
        self._traffic.record(box.party, peer, path, len(data), depth, dealt=dealt)
        try:
            has_room = not dealt or box.windows.room_now(peer, payload.nbytes)
            prompt = has_room and box.meter is None and await self._send_now(peer, data)
            in_time = prompt or await self._send_in_time(peer, path, data, None if has_room else payload.nbytes)
        except (KeyError, LinkClosedError) as lost:
            if box.failure is not None:  # says why the link is gone
                raise box.failure from None
            why = f": {lost}" if isinstance(lost, LinkClosedError) else ""
            text = f"{box.party} has no link to {peer} any more{why}"
            raise PartyFailedError(text, party=peer, session=box.session.hex(), step=path) from None
        if not in_time:
            text = f"{peer} took no frame for {box.deadline:g} s"
            raise DeadlineError(text, party=peer, session=box.session.hex(), step=path)

    async def _send_now(self, peer: str, data: bytes) -> bool:
        """Send a frame that need not wait, as almost none has to: a deadline would cost more than its encoding."""
        send_now: Callable[[bytes], bool] | None = getattr(self._links[peer], "send_now", None)
        if send_now is None:
            return False
        await trio.lowlevel.checkpoint_if_cancelled()
        if not send_now(data):
            return False
        self._prompt += 1
        if self._prompt % _PROMPT_SENDS == 0:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return True

    async def _send_in_time(self, peer: str, path: str, data: bytes, dealt: int | None) -> bool:
        """Send a frame, with ``dealt`` bytes to find room for at the receiver; False when that takes too long."""
        box = self._mailbox
        with trio.move_on_after(box.deadline) as scope:
            if box.meter is not None:
                await box.meter.sending(box.party, path, len(data), f"{peer} {box.session.hex()}")
            if dealt is not None:
                await box.windows.room(peer, dealt, scope)
            await self._links[peer].send(data)
        return not scope.cancelled_caught


class ServerSession:
    """The channel of one server's protocol in one session (`siguard.mpc.party.Channel`)."""

    def __init__(
        self,
        mailbox: Mailbox,
        outbox: Outbox,
        roles: tuple[str, str, str],
        randomness: RandomnessSource,
        door: ComputeDoor,
        probe: Probe | None = None,
        client: str = "user",
        receiver: str = "user",
    ) -> None:
        self.mailbox = mailbox
        self.outbox = outbox
        self.roles = roles
        self._randomness = randomness
        self._door = door
        self._probe = probe
        self.client = client
        self._receiver = receiver
        self._dealing = roles[DEALER] == mailbox.party
        self._taken = windows.TakenBytes()
        self._pairs = {(i, j): pair_name(roles[i], roles[j]) for i in range(3) for j in range(i + 1, 3)}

    def draw(
        self,
        roles: tuple[int, int],
        purpose: str,
        path: str,
        ring: Ring,
        shape: tuple[int, ...],
        client: bool = False,
    ) -> RingArray:
        """Elements shared by two roles of this session, and by its client if so asked."""
        pair = self._pairs[roles]
        if client:
            pair = client_pair(self.client, pair)
        return self._randomness.draw(pair, purpose, path, ring, shape)

    async def receive_input(self, path: str, ring: Ring, shape: tuple[int, ...]) -> tuple[RingArray, int]:
        """The masked input of this session's client."""
        frame = await self.mailbox.take(self.client, path)
        check_payload(frame, ring, shape, self.client, path)
        return frame.payload, frame.depth

    def send_answer(self, path: str, depth: int, payload: RingArray) -> Awaitable[None]:
        """Send a part of the answer to this session's receiver."""
        return self.outbox.send(self._receiver, Kind.DATA, path, depth, payload)

    def send(self, role: int, path: str, depth: int, payload: RingArray) -> Awaitable[None]:
        """Send protocol data to another role."""
        return self.outbox.send(self.roles[role], Kind.DATA, path, depth, payload, dealt=self._dealing)

    async def receive(
        self, role: int, path: str, ring: Ring, shape: tuple[int, ...], depth: int
    ) -> tuple[RingArray, int]:
        """The array that another role sends at this step; a wrong type or shape fails the session."""
        peer = self.roles[role]
        frame = await self.mailbox.take(peer, path, depth)
        check_payload(frame, ring, shape, peer, path)
        if role == DEALER:
            # A frame for each piece: then neither their number nor what they say depends on the order of taking.
            for _ in range(self._taken.take(peer, frame.payload.nbytes) // windows.CREDIT_BYTES):
                await self.outbox.send(peer, Kind.CREDIT, "credit", 0, Z64.constant([windows.CREDIT_BYTES]))
        return frame.payload, frame.depth

    def compute(self, work: Callable[[], T], elements: int) -> Awaitable[T]:
        """Local work through the door."""
        return self._door.run(work, elements)

    def observe(self, name: str, value: Secret) -> None:
        """Hand a share to the probe, where this process has one."""
        if self._probe is not None:
            self._probe.record(name, self.mailbox.party, value)


def check_payload(frame: Frame, ring: Ring, shape: tuple[int, ...], peer: str, path: str) -> None:
    """Raise `ProtocolError` unless the payload is an array of the ring with this shape."""
    payload = frame.payload
    if payload.shape != shape or payload.itemsize != ring.itemsize:
        raise ProtocolError(
            f"{peer} sent {payload.itemsize}-byte elements of shape {payload.shape}; "
            f"expected {ring.itemsize}-byte elements of shape {shape} ({math.prod(shape)} in all)",
            party=peer,
            session=frame.session.hex(),
            step=path,
        )
