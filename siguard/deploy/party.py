"""A server of a deployment: listens, dials the servers before it, serves users and the owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from siguard.actors.deployment import LinkWrapper
from siguard.actors.ledger import Ledger
from siguard.actors.naming import instance_name
from siguard.actors.server import OWNER, Server
from siguard.actors.session import SERVERS, pair_name
from siguard.deploy.connections import Connections, Exported
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import Hello, RefusedError, key_between_servers, keys_from_client
from siguard.deploy.running import running
from siguard.deploy.schema import join_address
from siguard.errors import InputError
from siguard.prf import PairwiseRandomness, RandomnessFactory, fresh_key
from siguard.transport.secure import Identity


@asynccontextmanager
async def open_party(
    deployment: DeploymentFile,
    identity: Identity,
    *,
    listeners: Sequence[trio.SocketListener] | None = None,
    state: Path | None = None,
    wrap_link: LinkWrapper | None = None,
    randomness: RandomnessFactory = PairwiseRandomness,
) -> AsyncIterator[Server]:
    """Run one of the three servers inside the block, at its address in the deployment file.

    listeners: sockets that listen already, instead of that address.  state: the folder where it keeps what the
    owner shares with it; None for in memory only.  wrap_link, randomness: as in `siguard.open_cluster`.
    Raises `InputError` when the party is no server, or its address cannot be listened at.
    """
    name = identity.name
    if name not in SERVERS:
        raise InputError(f"{name} is no server of {deployment.file}; there are {', '.join(SERVERS)}")
    server = Server(
        name,
        {},
        Ledger(),
        {},
        deployment.owner_key,
        deadline=deployment.limits.deadline,
        randomness=randomness,
        users=deployment.users,
        most_sessions=deployment.limits.sessions,
        state=state,
    )
    # The servers before it are dialled, those after it dial.
    before = SERVERS[: SERVERS.index(name)]
    # Pair keys for the plaintext experiment only: a seal gives better ones.
    chosen = {pair_name(name, other): fresh_key(None) for other in before} if deployment.plaintext else {}

    def hello_to(peer: str) -> Hello:
        return Hello(deployment.digests(), keys={pair: key for pair, key in chosen.items() if peer in pair})

    def admit(peer: str, hello: Hello, exported: Exported) -> str:
        if peer in SERVERS:
            if peer == name:
                raise RefusedError(f"the other end is {name} too: two processes run as {name}")
            server.learn_keys(key_between_servers(name, peer, exported.key, {**chosen, **hello.keys}))
            return peer
        if peer != OWNER and peer not in deployment.users:
            raise RefusedError(f"{peer!r} is not in the deployment file")
        server.learn_keys(keys_from_client(hello, peer, name))
        return instance_name(peer, hello.instance)

    connections = Connections(
        server,
        identity,
        deployment,
        hello_to,
        admit,
        server.forget_client,
        deployment.network.as_profile(),
        wrap_link,
    )
    if listeners is None:
        endpoint = deployment.servers[name]
        listeners = await listen_at(endpoint.host, endpoint.port)
    server.problems = connections.problems
    async with running(server, connections, before, listeners):
        structlog.get_logger("siguard").info("listening", party=name, address=deployment.servers[name].address)
        yield server


async def listen_at(host: str, port: int) -> list[trio.SocketListener]:
    """Sockets that listen at an address of this host; raises `InputError` when that cannot be done."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise InputError(
            f"cannot listen at {join_address(host, port)} ({error.strerror or error}): another process may, or it "
            "is no address of this host; siguard party --listen HOST:PORT listens elsewhere"
        ) from None
