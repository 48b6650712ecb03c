"""The parties of a deployment in one process, with their keys and the links between them."""

from __future__ import annotations

from collections.abc import Callable

from nacl.signing import SigningKey

from siguard.actors.actor import Actor
from siguard.actors.client import Client, ModelOwner
from siguard.actors.debug import DebugProbe
from siguard.actors.keyring import OWNER, UPSTREAM, USER, client_keys, server_keys
from siguard.actors.ledger import Ledger
from siguard.actors.server import Server
from siguard.actors.session import SERVERS
from siguard.prf import RandomnessFactory, fresh_key
from siguard.transport.link import Link
from siguard.transport.memory import memory_link_pair

#: Wraps one end of a link: (link, owner of this end) -> link.  Recorders and fault injectors stack here.
LinkWrapper = Callable[[Link, str], Link]


class Deployment:
    """Three servers, the user, the model owner and upstream: each with its own keys, none with another's."""

    def __init__(
        self,
        seed_key: bytes | None,
        ledger: Ledger,
        probes: dict[bytes, DebugProbe],
        deadline: float,
        wrap_link: LinkWrapper | None,
        randomness: RandomnessFactory,
    ) -> None:
        links = _links(wrap_link or (lambda link, owner: link))
        # A pair key is made once and given to its holders only.
        keys = {
            name: fresh_key(seed_key, "pair key", name)
            for name in sorted({key for server in SERVERS for key in server_keys(server)})
        }
        signing_key = SigningKey(fresh_key(seed_key, "owner's signing key"))

        def held(names: list[str]) -> dict[str, bytes]:
            return {name: keys[name] for name in names}

        self.servers = [
            Server(
                name,
                links[name],
                ledger,
                held(server_keys(name)),
                signing_key.verify_key,
                deadline=deadline,
                probes=probes,
                randomness=randomness,
            )
            for name in SERVERS
        ]
        self.user = Client(USER, links[USER], ledger, held(client_keys(USER)), deadline, randomness)
        self.upstream = Client(UPSTREAM, links[UPSTREAM], ledger, held(client_keys(UPSTREAM)), deadline, randomness)
        self.owner = ModelOwner(links[OWNER], ledger, held(client_keys(OWNER)), signing_key, deadline, randomness)

    @property
    def actors(self) -> dict[str, Actor]:
        """All parties by name."""
        return {actor.name: actor for actor in (*self.servers, self.user, self.owner, self.upstream)}


def _links(wrap: LinkWrapper) -> dict[str, dict[str, Link]]:
    """A link between each two servers, and between each server and each client."""
    links: dict[str, dict[str, Link]] = {name: {} for name in (*SERVERS, USER, OWNER, UPSTREAM)}
    for i, one in enumerate(SERVERS):
        for other in (*SERVERS[i + 1 :], USER, OWNER, UPSTREAM):
            ends = memory_link_pair(one, other)
            links[one][other], links[other][one] = wrap(ends[0], one), wrap(ends[1], other)
    return links
