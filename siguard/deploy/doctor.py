"""`siguard doctor`: is every link open, does everybody mean the same deployment, and if not, who is it?

It connects as a client, the way a query would, and asks each server about its links to the others.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio

from siguard.actors.client import Client
from siguard.actors.inquiries import STATUS
from siguard.actors.ledger import Ledger
from siguard.actors.session import SERVERS
from siguard.deploy.client import linked_client
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import ClientKeys
from siguard.errors import PartyFailedError, SiguardError
from siguard.transport.secure import Identity

#: Seconds in which all servers must be reached.
PATIENCE = 6.0


@dataclass(frozen=True)
class Finding:
    """One link, from the party that tells about it: whether it is open, and what is wrong or how fast it is."""

    source: str
    target: str
    good: bool
    text: str


async def examine(deployment: DeploymentFile, identity: Identity, patience: float = PATIENCE) -> list[Finding]:
    """Probe each link of the deployment as ``identity``, a user or the owner."""
    keys = ClientKeys(identity.name)
    client = Client(keys.name, {}, Ledger(), keys.held, deployment.limits.deadline)
    findings = []
    async with linked_client(client, keys, deployment, identity, None) as connections:
        # Gives up by itself after limits.connect seconds.
        with trio.move_on_after(patience), suppress(PartyFailedError):
            await client.linked(SERVERS)
        for server in SERVERS:
            address = deployment.servers[server].address
            not_known = [
                Finding(server, other, False, f"not known: {server} cannot be asked") for other in _before(server)
            ]
            if not client.has_link(server):
                reason = connections.problems.get(server, f"no answer in {patience:g} s")
                findings += [Finding(identity.name, server, False, f"{address}: {reason}"), *not_known]
                continue
            try:
                with trio.fail_after(patience):
                    started = trio.current_time()
                    status = await client.inquire(server, STATUS)
                    milliseconds = 1e3 * (trio.current_time() - started)
            except (SiguardError, trio.TooSlowError) as error:
                reason = str(error) if isinstance(error, SiguardError) else f"no answer in {patience:g} s"
                text = f"{address}: connected, but {reason}"
                findings += [Finding(identity.name, server, False, text), *not_known]
                continue
            load = f"{status['networks']} networks, {status['sessions']} sessions"
            draining = ", shutting down" if status["draining"] else ""
            told = f"{milliseconds:.1f} ms there and back, {load}{draining}"
            findings.append(Finding(identity.name, server, not status["draining"], f"{address}: {told}"))
            findings += [_between(server, other, status) for other in _before(server)]
    return findings


def _before(server: str) -> tuple[str, ...]:
    """The servers that this one dials, so that each pair is told once, by the end that knows why."""
    return SERVERS[: SERVERS.index(server)]


def _between(server: str, other: str, status: dict[str, Any]) -> Finding:
    if other in status["links"]:
        return Finding(server, other, True, f"{1e3 * status['links'][other]:.1f} ms there and back")
    return Finding(server, other, False, status["problems"].get(other, "no connection"))
