"""Who the clients are, and which pair keys each party holds."""

from __future__ import annotations

from siguard.actors.session import SERVERS, client_pair, pair_name

OWNER, USER, UPSTREAM = "owner", "user", "upstream"


def server_keys(name: str) -> list[str]:
    """The names of the pair keys that a server holds: with each server, and with each client and one server."""
    pairs = own_pairs(name)
    return pairs + [client_pair(client, pair) for client in (OWNER, USER, UPSTREAM) for pair in pairs]


def client_keys(client: str) -> list[str]:
    """The names of the pair keys that a client holds: one with each pair of servers."""
    pairs = [pair_name(one, other) for i, one in enumerate(SERVERS) for other in SERVERS[i + 1 :]]
    return [client_pair(client, pair) for pair in pairs]


def own_pairs(name: str) -> list[str]:
    """The pairs of servers that a server belongs to."""
    return [pair_name(name, other) for other in SERVERS if other != name]
