"""`Party`: everything a protocol coroutine may touch.  No socket, no clock, no key, no log handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from siguard.mpc.secret import Secret
from siguard.ring import Ring, RingArray

T = TypeVar("T")

#: The role that deals: it knows the mask of every wire and never waits.
DEALER = 2


class Channel(Protocol):
    """What a session gives to its protocol; the implementation is `siguard.actors.session`."""

    def draw(
        self,
        roles: tuple[int, int],
        purpose: str,
        path: str,
        ring: Ring,
        shape: tuple[int, ...],
        client: bool = False,
    ) -> RingArray:
        """Elements that two roles share, and with ``client`` the input's owner too; see `siguard.prf`."""
        ...

    def send(self, role: int, path: str, depth: int, payload: RingArray) -> Awaitable[None]:
        """Send to a role of this session."""
        ...

    def receive_input(self, path: str, ring: Ring, shape: tuple[int, ...]) -> Awaitable[tuple[RingArray, int]]:
        """The masked input that the client of this session sends."""
        ...

    def send_answer(self, path: str, depth: int, payload: RingArray) -> Awaitable[None]:
        """Send to the one party that may learn the answer."""
        ...

    def receive(
        self, role: int, path: str, ring: Ring, shape: tuple[int, ...], depth: int
    ) -> Awaitable[tuple[RingArray, int]]:
        """The elements a role sends at this step, checked against ring and shape, and their depth.

        depth: that of what the receiver computes meanwhile; waits for deeper frames have a little more time.
        """
        ...

    def compute(self, work: Callable[[], T], elements: int) -> Awaitable[T]:
        """Run local numpy work; in a thread where it is large."""
        ...

    def observe(self, name: str, value: Secret) -> None:
        """Hand a share to the debug probe where there is one; sends nothing."""
        ...


class Party:
    """One server's view of one session at one step path.

    role: 0, 1 or 2 (the dealer), rotated by session.
    path: the step path, for example ``guard/inner[3]/h/relu0``; it addresses randomness and frames.
    """

    __slots__ = ("channel", "path", "role")

    def __init__(self, role: int, channel: Channel, path: str = "") -> None:
        self.role = role
        self.channel = channel
        self.path = path

    def at(self, step: str, index: int | None = None) -> Party:
        """The same party one step deeper; loops pass their index."""
        name = step if index is None else f"{step}[{index}]"
        return Party(self.role, self.channel, f"{self.path}/{name}" if self.path else name)

    @property
    def is_dealer(self) -> bool:
        """Whether this party deals in this session."""
        return self.role == DEALER

    def draw(self, other: int, purpose: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh uniform elements that this party and ``other`` know; once per (purpose, path)."""
        roles = (self.role, other) if self.role < other else (other, self.role)
        return self.channel.draw(roles, purpose, self.path, ring, shape)

    def draw_with_client(self, other: int, purpose: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh elements that this party, ``other`` and the owner of the input know."""
        roles = (self.role, other) if self.role < other else (other, self.role)
        return self.channel.draw(roles, purpose, self.path, ring, shape, client=True)

    async def exchange(self, mine: RingArray, ring: Ring, depth: int) -> tuple[RingArray, int]:
        """Roles 0 and 1 swap arrays of one shape; returns the other's and the depth of what came of it.

        Cost: one round, two messages, 2 n elements.
        """
        other = 1 - self.role
        await self.channel.send(other, self.path, depth + 1, mine)
        # Two rounds deeper than what goes in: the other party may be a round ahead of what this one has seen.
        theirs, their_depth = await self.channel.receive(other, self.path, ring, mine.shape, depth + 2)
        return theirs, max(depth, their_depth)

    def compute(self, work: Callable[[], T], elements: int) -> Awaitable[T]:
        """The one door for heavy numpy work; ``elements`` says how large it is."""
        return self.channel.compute(work, elements)

    def observe(self, name: str, value: Secret) -> None:
        """Name a share for `debug_open`; costs nothing and sends nothing."""
        self.channel.observe(name, value)
