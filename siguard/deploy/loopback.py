"""A deployment on this machine alone: fresh keys, and sockets that listen on ports the system chose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio
from nacl.signing import SigningKey

from siguard.actors.background import background_nursery
from siguard.actors.deployment import LinkWrapper
from siguard.actors.server import Server
from siguard.actors.session import SERVERS
from siguard.deploy.file import DeploymentFile, Endpoint
from siguard.deploy.party import open_party
from siguard.deploy.schema import OWNER_NAME
from siguard.prf import PairwiseRandomness, RandomnessFactory
from siguard.transport.secure import Identity

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Loopback:
    """A deployment with the identities of all its parties, and each server's listening socket.

    Whoever takes a listener closes it.
    """

    deployment: DeploymentFile
    identities: dict[str, Identity]
    listeners: dict[str, trio.SocketListener]

    def changed(self, **fields: object) -> Loopback:
        """The same with other fields of the deployment."""
        return replace(self, deployment=replace(self.deployment, **fields))  # type: ignore[arg-type]


async def make_loopback(name: str = "loopback", users: tuple[str, ...] = ("user",)) -> Loopback:
    """Keys for everybody, and one listening socket for each server."""
    parties = (*SERVERS, OWNER_NAME, *users)
    identities = {party: Identity(party, SigningKey.generate()) for party in parties}
    keys = {party: identity.signing_key.verify_key for party, identity in identities.items()}
    listeners = {server: (await trio.open_tcp_listeners(0, host=LOOPBACK))[0] for server in SERVERS}
    deployment = DeploymentFile(
        name=name,
        servers={
            server: Endpoint(LOOPBACK, listener.socket.getsockname()[1], keys[server])
            for server, listener in listeners.items()
        },
        owner_key=keys[OWNER_NAME],
        users={user: keys[user] for user in users},
        file=Path("deployment.toml"),
    )
    return Loopback(deployment, identities, listeners)


@asynccontextmanager
async def open_servers(
    loopback: Loopback,
    *,
    wrap_link: LinkWrapper | None = None,
    randomness: RandomnessFactory = PairwiseRandomness,
) -> AsyncIterator[dict[str, Server]]:
    """The three servers of a loopback deployment in this process, over its sealed TCP connections."""
    servers: dict[str, Server] = {}

    async def serve(name: str, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = [loopback.listeners[name]]
        async with open_party(
            loopback.deployment,
            loopback.identities[name],
            listeners=listeners,
            wrap_link=wrap_link,
            randomness=randomness,
        ) as server:
            servers[name] = server
            task_status.started()
            await trio.sleep_forever()

    async with background_nursery() as nursery:
        for name in SERVERS:
            await nursery.start(partial(serve, name))
        yield servers
