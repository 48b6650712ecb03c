"""What the user and the owner have in common: one process with keys of its own, linked to all three servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from siguard.actors.client import Client
from siguard.actors.deployment import LinkWrapper
from siguard.actors.session import SERVERS
from siguard.deploy.connections import Connections, Exported
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import ClientKeys, Hello
from siguard.deploy.running import running
from siguard.transport.secure import Identity


@asynccontextmanager
async def linked_client(
    client: Client,
    keys: ClientKeys,
    deployment: DeploymentFile,
    identity: Identity,
    wrap_link: LinkWrapper | None,
) -> AsyncIterator[Connections]:
    """Run ``client`` and keep it linked to the servers inside the block."""

    def hello_to(peer: str) -> Hello:
        return keys.hello_to(peer, deployment)

    def admit(peer: str, hello: Hello, exported: Exported) -> str:
        return peer

    connections = Connections(
        client, identity, deployment, hello_to, admit, profile=deployment.network.as_profile(), wrap_link=wrap_link
    )
    async with running(client, connections, SERVERS):
        yield connections
