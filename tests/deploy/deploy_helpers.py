"""What the deployment tests share: a whole deployment in this process, and a count of what it leaves behind.

Rules: 127.0.0.1, ports that the system chose, short deadlines in real time, an absolute timeout round everything.
"""

from __future__ import annotations

import socket as stdlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import trio
from fault_links import LABEL as LABEL
from fault_links import LINESEARCH as LINESEARCH
from fault_links import SHORT as SHORT
from fault_links import Failure as Failure
from fault_links import failure_of as failure_of
from fault_links import some_features as some_features
from fault_links import tiny_defender as tiny_defender
from fault_links import tiny_model as tiny_model

from siguard import GuardConfig, Model
from siguard.actors.deployment import LinkWrapper
from siguard.actors.server import Server
from siguard.actors.session import SERVERS
from siguard.deploy.file import DeploymentFile
from siguard.deploy.loopback import LOOPBACK, Loopback, make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.party import open_party
from siguard.deploy.user import User, connect
from siguard.nn.model import FloatArray
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.transport.secure import Identity

#: Seconds that a server waits for a frame, and a party for a link.
DEADLINE = 1.0
#: Seconds beyond a deadline that this machine may take for what it has to do, the tests beside it included.
GRACE = 2.0


# A deployment -----------------------------------------------------------------------------------------------------


@dataclass
class Deployed:
    """A deployment whose servers start and stop one by one.

    ports: where the servers really listen, which is not what the file says when something stands between.
    """

    loopback: Loopback
    ports: dict[str, int]
    state: Path | None
    wrap_link: LinkWrapper | None
    randomness: RandomnessFactory
    nursery: trio.Nursery
    servers: dict[str, Server] = field(default_factory=dict)
    _scopes: dict[str, tuple[trio.CancelScope, trio.Event]] = field(default_factory=dict)

    @property
    def deployment(self) -> DeploymentFile:
        return self.loopback.deployment

    async def start(
        self, server: str, deployment: DeploymentFile | None = None, identity: Identity | None = None
    ) -> Server:
        """Start a server; a second time too, at its old port."""
        started = self.nursery.start(self._serve, server, deployment or self.deployment, identity)
        self.servers[server] = await started
        return self.servers[server]

    async def _serve(
        self,
        server: str,
        deployment: DeploymentFile,
        identity: Identity | None,
        *,
        task_status: trio.TaskStatus[Server],
    ) -> None:
        listeners = await trio.open_tcp_listeners(self.ports[server], host=LOOPBACK)
        scope, ended = self._scopes[server] = trio.CancelScope(), trio.Event()
        try:
            with scope:
                async with open_party(
                    deployment,
                    identity or self.loopback.identities[server],
                    listeners=listeners,
                    state=None if self.state is None else self.state / server,
                    wrap_link=self.wrap_link,
                    randomness=self.randomness,
                ) as party:
                    task_status.started(party)
                    await trio.sleep_forever()
        finally:
            ended.set()

    def stop_soon(self, server: str) -> None:
        """Cancel a server."""
        self._scopes[server][0].cancel()

    async def stop(self, server: str) -> None:
        """Cancel a server, and wait until it has ended."""
        scope, ended = self._scopes[server]
        scope.cancel()
        await ended.wait()

    async def linked(self) -> None:
        """Wait until the servers that run are linked to each other; that may take them two seconds."""
        running = {name: server for name, server in self.servers.items() if server.nursery is not None}

        def all_linked() -> bool:
            return all(one.has_link(other) for name, one in running.items() for other in running if other != name)

        assert await settled(all_linked, 5.0), sorted(running)

    async def share(
        self, configs: Sequence[GuardConfig] = (SHORT, LINESEARCH), model: Model | None = None, label: str = "tiny"
    ) -> tuple[bytes, bytes]:
        async with connect_owner(self.deployment, self.loopback.identities["owner"]) as owner:
            return await owner.share(model or tiny_model(), tiny_defender(), configs, label)

    def connect(self, user: str = "user", **options: Any) -> AbstractAsyncContextManager[User]:
        return connect(self.deployment, self.loopback.identities[user], **options)

    def users_of(self, server: str) -> list[str]:
        """The client processes that a server is linked to."""
        return [peer for peer in self.servers[server]._links if "/" in peer]


@asynccontextmanager
async def deployed(
    *,
    start: Sequence[str] = SERVERS,
    users: tuple[str, ...] = ("user",),
    between: Callable[[Loopback, trio.Nursery], Awaitable[Loopback]] | None = None,
    share: Sequence[GuardConfig] = (SHORT, LINESEARCH),
    state: Path | None = None,
    wrap_link: LinkWrapper | None = None,
    randomness: RandomnessFactory = PairwiseRandomness,
    fields: dict[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[Deployed]:
    """A deployment, started, linked, and with shared networks if all three servers are started.

    between: puts something before the listeners.  fields, limits: of the deployment file.
    """
    loopback = await make_loopback(users=users)
    for listener in loopback.listeners.values():
        await listener.aclose()
    allowed = loopback.deployment.limits.model_copy(update={"deadline": DEADLINE, "connect": DEADLINE, **limits})
    with ExitStack() as stack:
        ports = {server: stack.enter_context(_held_port()).getsockname()[1] for server in SERVERS}
        deployment = loopback.deployment
        for server, port in ports.items():
            deployment = with_server(deployment, server, port=port)
        loopback = loopback.changed(servers=deployment.servers, limits=allowed, **(fields or {}))
        async with trio.open_nursery() as nursery:
            if between is not None:
                loopback = await between(loopback, nursery)
            here = Deployed(loopback, ports, state, wrap_link, randomness, nursery)
            for server in start:
                await here.start(server)
            if set(start) == set(SERVERS):
                await here.linked()
                if share:
                    await here.share(share)
            yield here
            nursery.cancel_scope.cancel()


def _held_port() -> stdlib.socket:
    """Bound and not listening: nobody else gets the port, a server may listen at it, and until then it refuses."""
    held = stdlib.socket()
    held.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
    held.bind((LOOPBACK, 0))
    return held


def deals(user: User, dealer: str) -> None:
    """Let this server deal in the user's next query; the two others exchange, it sends to the second of them."""
    user._first_turn = (SERVERS.index(dealer) - 2 - user._sessions._calls) % 3


# What is left -----------------------------------------------------------------------------------------------------


class Held(NamedTuple):
    """What this process holds of the system."""

    descriptors: int
    threads: int
    tasks: int


def held() -> Held:
    def tasks(task: trio.lowlevel.Task) -> int:
        return 1 + sum(tasks(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    root = trio.lowlevel.current_root_task()
    assert root is not None
    # Threads that have nothing to do stay for ten seconds, for whoever needs one next.
    idle = len(trio._core._thread_cache.THREAD_CACHE._idle_workers)
    return Held(len(list(Path("/proc/self/fd").iterdir())), threading.active_count() - idle, tasks(root))


@asynccontextmanager
async def nothing_left(seconds: float = 3.0) -> AsyncIterator[None]:
    """What the block opened is gone at its end: descriptors, threads, tasks."""
    before = held()
    yield
    with trio.move_on_after(seconds):
        while held() != before:  # noqa: ASYNC110 - nothing says when the kernel and others are done
            await trio.sleep(0.01)
    assert held() == before, f"{held()} at the end, {before} before"


async def settled(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    """Whether a condition comes to hold soon."""
    with trio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 - no event stands for what a test asks
            await trio.sleep(0.005)
    return condition()


def no_sessions(*servers: Server) -> bool:
    """Whether servers serve no session, and keep no task for one.

    A mailbox without members is of a request that did not come: it goes when a later session begins.
    """
    return all(
        not server._serving
        and all(mailbox.members is None for mailbox in server._mailboxes.values())
        and (server.nursery is None or len(server.nursery.child_tasks) == len(server._links))
        for server in servers
    )


def assert_right(result: Any, expected: FloatArray | None = None) -> None:
    """Confidences are rows that sum to one; those of two runs differ by rounding only."""
    assert result.confidences.sum(axis=1) == pytest.approx(1)
    if expected is not None:
        assert np.abs(result.confidences - expected).max() < 1e-3


# The file ---------------------------------------------------------------------------------------------------------


def with_server(deployment: DeploymentFile, server: str, **changes: Any) -> DeploymentFile:
    """The deployment with another entry of a server."""
    servers = {**deployment.servers, server: replace(deployment.servers[server], **changes)}
    return replace(deployment, servers=servers)
