"""The first message each way on a new connection, inside the seal: do both ends mean the same deployment, and the
keys.

Servers derive their pair key from the sealed channel: each connection is an epoch of its own, and a key is used in
the sessions that begin on it.  A client makes its keys itself, once for as long as its process lives, and sends
each server those that it shares with it; sessions have fresh names, so no key ever meets one session twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import trio

from siguard.actors.naming import instance_name
from siguard.actors.session import SERVERS, client_pair, pair_name
from siguard.deploy.file import DeploymentFile
from siguard.errors import ProtocolError
from siguard.prf import KEY_BYTES, fresh_key
from siguard.transport.link import Link, LinkClosedError

#: Bytes of the largest hello, sealed: digests of a deployment with some ten thousand users.
MAX_HELLO_BYTES = 1 << 20


class RefusedError(Exception):
    """The other end is who it claims to be, and cannot take part as it is; the text says why and what to do."""


@dataclass(frozen=True)
class Hello:
    """What one end says of itself.

    digests: of each entry of its deployment file.  instance: which process of a client this is, else "".
    keys: by pair of servers, what a client shares with both; from a dialling server, the pair key where no seal
    gives one.
    """

    digests: dict[str, str]
    instance: str = ""
    keys: dict[str, bytes] = field(default_factory=dict, repr=False)

    def encode(self) -> bytes:
        """One message."""
        packed: bytes = msgpack.packb([self.digests, self.instance, self.keys])
        return packed

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Raises `ProtocolError` for anything that is not a hello."""
        try:
            digests, instance, keys = msgpack.unpackb(data)
            good = (
                _is_map(digests, str)
                and _is_map(keys, bytes)
                and isinstance(instance, str)
                and re.fullmatch(r"([0-9a-f]{16})?", instance) is not None
                and all(len(key) == KEY_BYTES for key in keys.values())
            )
        except (ValueError, TypeError, msgpack.UnpackException):
            good = False
        if not good:
            raise ProtocolError("the first message is not a hello")
        return cls(digests, instance, keys)


def _is_map(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


async def exchange_hellos(link: Link, mine: Hello, deadline: float) -> Hello:
    """Say hello both ways; raises `RefusedError` when the deployment files differ, naming the entries."""
    with trio.move_on_after(deadline) as scope:
        await link.send(mine.encode())
        data = bytes(await link.receive())
    if scope.cancelled_caught:
        raise LinkClosedError(f"{link.peer} did not say hello within {deadline:g} s")
    theirs = Hello.decode(data)
    differing = [
        entry
        for entry in sorted(mine.digests.keys() | theirs.digests.keys())
        if mine.digests.get(entry) != theirs.digests.get(entry)
    ]
    if differing:
        shown = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise RefusedError(f"{link.peer} has another deployment file: {shown} differ; copy one file to every host")
    return theirs


class ClientKeys:
    """The mask keys of one process of a client, one with each pair of servers; dropped with the process."""

    def __init__(self, client: str) -> None:
        self.instance = fresh_key(None)[:8].hex()
        self.name = instance_name(client, self.instance)
        pairs = [pair_name(one, other) for i, one in enumerate(SERVERS) for other in SERVERS[i + 1 :]]
        self._keys = {pair: fresh_key(None) for pair in pairs}

    @property
    def held(self) -> dict[str, bytes]:
        """All three, by the names that the client's own randomness uses."""
        return {client_pair(self.name, pair): key for pair, key in self._keys.items()}

    def hello_to(self, server: str, deployment: DeploymentFile) -> Hello:
        """With the keys that this server is to know."""
        known = {pair: key for pair, key in self._keys.items() if server in pair}
        return Hello(deployment.digests(), self.instance, known)


def keys_from_client(hello: Hello, client: str, server: str) -> dict[str, bytes]:
    """What a client's hello gave this server, by the names that the server's randomness uses."""
    expected = {pair_name(server, other) for other in SERVERS if other != server}
    if set(hello.keys) != expected or not hello.instance:
        raise ProtocolError(f"{client} did not send the keys of {', '.join(sorted(expected))}")
    name = instance_name(client, hello.instance)
    return {client_pair(name, pair): key for pair, key in hello.keys.items()}


def key_between_servers(
    one: str, other: str, exported: bytes | None, dialled: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The pair key of two servers: from the seal, or, in plaintext experiments, as the dialling end chose it."""
    pair = pair_name(one, other)
    key = exported if exported is not None else dialled.get(pair)
    if key is None:
        raise ProtocolError(f"no pair key for {pair}")
    return {pair: key}
