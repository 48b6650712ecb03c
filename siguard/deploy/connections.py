"""One party's connections: dialled or accepted, authenticated, and handed to the actor; made again when they are
lost.

A server dials the servers before it in the order S0, S1, S2 and accepts the others; clients dial all three.
Whoever has not proved who it is gets no memory beyond a handshake message, no time beyond a few seconds, and no
answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from siguard.actors.actor import Actor
from siguard.actors.deployment import LinkWrapper
from siguard.actors.naming import client_of
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import MAX_HELLO_BYTES, Hello, RefusedError, exchange_hellos
from siguard.errors import ProtocolError
from siguard.transport.dial import DialError, backoff, dial
from siguard.transport.link import Link, LinkClosedError
from siguard.transport.profiles import NetworkProfile
from siguard.transport.secure import SEAL_BYTES, Identity, seal
from siguard.transport.shape import ShapedLink
from siguard.transport.tcp import TcpLink
from siguard.transport.wrapped import WrappedLink

#: Bytes of the largest message before the other end has proved who it is.
MAX_HANDSHAKE_BYTES = 1024
#: Seconds that the other end has for the handshake and its hello.
HANDSHAKE_SECONDS = 10.0
#: Callers that may be in the handshake at once; one more, and the one that has taken longest is closed.
MOST_UNKNOWN = 64

#: A link that is lost within this many seconds counts as an attempt that failed: the other end takes no part.
BRIEF_SECONDS = 1.0

#: Seconds for telling the other end that a link is closed.
_GOODBYE_SECONDS = 1.0

#: After the hellos: what the hello and the seal (None in plaintext) give, once; returns the peer's full name.
Admit = Callable[[str, Hello, "Exported"], str]


@dataclass(frozen=True)
class Exported:
    """A secret that both ends of a sealed link know, and nobody else; None where nothing is sealed."""

    key: bytes | None = field(repr=False)


class BoundedLink(WrappedLink):
    """A link that refuses what the other end would not take, and break the connection for: all would lose it."""

    def __init__(self, link: Link, most: int) -> None:
        super().__init__(link)
        self._most = most

    async def send(self, data: bytes) -> None:
        """As `Link.send`; raises `ProtocolError` for more than ``most`` bytes."""
        if len(data) > self._most:
            raise ProtocolError(
                f"a frame of {len(data)} bytes; limits.frame_bytes is {self._most}: ask for fewer rows at once, "
                "or raise it in the deployment file of every host"
            )
        await self.link.send(data)


@dataclass
class Connections:
    """Keeps the links of one actor.

    hello_to: what this party says to a peer.  admit: takes what a peer said, and gives the name it goes by.
    left: told of a peer whose link was lost.  problems: why there is no link to a server.
    """

    actor: Actor
    identity: Identity
    deployment: DeploymentFile
    hello_to: Callable[[str], Hello]
    admit: Admit
    left: Callable[[str], None] = lambda peer: None
    profile: NetworkProfile | None = None
    wrap_link: LinkWrapper | None = None
    problems: dict[str, str] = field(default_factory=dict)
    _unknown: dict[trio.CancelScope, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = self.deployment.known()
        self._log = structlog.get_logger("siguard").bind(party=self.identity.name)
        for warning in self.deployment.warnings():
            self._log.warning(warning)
        self.actor.link_patience = self.deployment.limits.connect
        self.actor.why_unlinked = self.why

    def why(self, peer: str) -> str:
        """What keeps a peer away, as far as it is known."""
        endpoint = self.deployment.servers.get(peer)
        address = f" ({endpoint.address})" if endpoint is not None else ""
        return f"{address}: {self.problems[peer]}" if peer in self.problems else address

    # Dialling ---------------------------------------------------------------------------------------------

    async def keep_dialling(self, server: str) -> None:
        """Connect to a server, again and again, as long as this task lives."""
        while True:
            for wait in backoff():
                started = trio.current_time()
                if await self._dial(server) and trio.current_time() - started >= BRIEF_SECONDS:
                    break
                await trio.sleep(wait)

    async def _dial(self, server: str) -> bool:
        """One attempt; returns after the link was lost whether there was one."""
        endpoint = self.deployment.servers[server]
        try:
            stream = await dial(endpoint.host, endpoint.port, deadline=HANDSHAKE_SECONDS)
        except DialError as error:
            self._note(server, str(error))
            return False
        return await self._use(stream, partial(self._identify, initiator=True, expect=server), server)

    def _note(self, peer: str, problem: str) -> None:
        if self.problems.get(peer) != problem:
            self.problems[peer] = problem
            self._log.info("no link yet", peer=peer, reason=problem)

    # Accepting --------------------------------------------------------------------------------------------

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one accepted connection until it ends; for `trio.serve_listeners`.

        A party is known within moments, so that whoever only holds connections open keeps no party out.
        """
        if len(self._unknown) >= MOST_UNKNOWN:
            longest = next(iter(self._unknown))
            del self._unknown[longest]
            longest.cancel()
        await self._use(stream, partial(self._identify, initiator=False, expect=None), None)

    # Both -------------------------------------------------------------------------------------------------

    async def _use(
        self, stream: trio.SocketStream, identify: Callable[[TcpLink], Awaitable[Link]], dialled: str | None
    ) -> bool:
        """Identify the other end, use the link until it is lost, and leave nothing behind."""
        used = False
        link: Link | None = None
        async with trio.open_nursery() as nursery:
            tcp = TcpLink(stream, dialled or "a caller", nursery, limit=MAX_HANDSHAKE_BYTES)
            tcp.linger = False
            try:
                with self._counted(dialled):
                    link = await identify(tcp)
                if link is None:
                    raise LinkClosedError("too many callers in the handshake at once")
                link = self._dressed(link, nursery)
                self.actor.attach(link)
                used = True
                self.problems.pop(link.peer, None)
                self._log.info("link open", peer=link.peer)
                await self.actor.detached(link)
                if link.peer in self.deployment.servers and not self.actor.has_link(link.peer):
                    self._note(link.peer, "the connection was lost")
            except (LinkClosedError, RefusedError, ProtocolError) as error:
                if dialled is not None:
                    self._note(dialled, str(error))
                else:
                    self._log.info("caller refused", reason=str(error))
            finally:
                # In this order, so that the other end is told, and learns that nothing was cut.
                with trio.move_on_after(_GOODBYE_SECONDS, shield=True):
                    if link is not None:
                        await link.aclose()
                    await tcp.aclose()
                if used and link is not None and not self.actor.has_link(link.peer):
                    self.left(link.peer)
                nursery.cancel_scope.cancel()
        return used

    @contextmanager
    def _counted(self, dialled: str | None) -> Iterator[None]:
        """Count a caller as unknown inside the block, which ends when others need the room."""
        with trio.CancelScope() as scope:
            if dialled is None:
                self._unknown[scope] = None
            try:
                yield
            finally:
                self._unknown.pop(scope, None)

    async def _identify(self, tcp: TcpLink, *, initiator: bool, expect: str | None) -> Link:
        """Seal the connection and exchange hellos; the link that comes back has its peer's full name."""
        link: Link
        if self.deployment.plaintext:
            link, exported = await _introduce(tcp, self.identity.name, expect), Exported(None)
        else:
            sealed = await seal(
                tcp, self.identity, self._known, initiator=initiator, expect=expect, deadline=HANDSHAKE_SECONDS
            )
            link, exported = sealed, Exported(sealed.export("siguard pair key"))
        tcp.limit = MAX_HELLO_BYTES
        hello = await exchange_hellos(link, self.hello_to(link.peer), HANDSHAKE_SECONDS)
        link.peer = tcp.peer = self.admit(link.peer, hello, exported)
        tcp.limit = self.deployment.limits.frame_bytes + SEAL_BYTES
        tcp.linger = True
        return link

    def _dressed(self, link: Link, nursery: trio.Nursery) -> Link:
        if self.profile is not None:
            direction = self.profile.direction(self.identity.name, client_of(link.peer))
            link = ShapedLink(link, direction, nursery)
        link = BoundedLink(link, self.deployment.limits.frame_bytes)
        return link if self.wrap_link is None else self.wrap_link(link, self.actor.name)


async def _introduce(link: Link, name: str, expect: str | None) -> Link:
    """Plaintext experiments: each end says who it is, and is believed."""
    with trio.move_on_after(HANDSHAKE_SECONDS):
        await link.send(name.encode())
        peer = bytes(await link.receive()).decode("utf-8", errors="replace")
        if expect is not None and peer != expect:
            raise RefusedError(f"expected {expect}, and the other end says it is {peer[:64]!r}")
        link.peer = peer
        return link
    raise LinkClosedError(f"the other end did not say who it is within {HANDSHAKE_SECONDS:g} s")
