"""The model owner of a deployment: shares networks with the servers, and signs which guards may run with them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from siguard.actors.client import ModelOwner
from siguard.actors.deployment import LinkWrapper
from siguard.actors.encoding import encoded
from siguard.actors.ledger import Ledger
from siguard.actors.messages import Load
from siguard.actors.naming import SessionNames
from siguard.deploy.client import linked_client
from siguard.deploy.file import DeploymentFile
from siguard.deploy.hello import ClientKeys
from siguard.deploy.schema import OWNER_NAME
from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.nn.model import Defender, DenseNetwork, Model
from siguard.transport.secure import Identity


class Owner:
    """A process of the model owner; made by `connect_owner`."""

    def __init__(self, actor: ModelOwner) -> None:
        self._actor = actor
        self._sessions = SessionNames(None)

    async def share(
        self, model: Model, defender: Defender, configs: Sequence[GuardConfig], label: str = ""
    ) -> tuple[bytes, bytes]:
        """Share both networks with the servers and sign ``configs`` for them; returns their names (model, h).

        label: what users call the model.  Raises `InputError` for networks that cannot be shared or do not fit
        together, `ProtocolError` when a server fails: what was shared until then is offered to nobody, as its
        guards are signed last.
        """
        if model.classes != defender.classes:
            raise InputError(
                f"defender: it takes {defender.classes} confidences, and the model gives {model.classes}"
            )
        if not configs:
            raise InputError("configs: none; sign at least one guard configuration")
        if len(label) > 64 or not label.isprintable():
            raise InputError(f"label: found {label[:80]!r}; allowed: up to 64 printable characters")
        names = [await self._share(network, label) for network in (model, defender)]
        for config in configs:
            await self._actor.grant(self._sessions.session(), names[1], names[0], config)
        return names[0], names[1]

    async def _share(self, network: DenseNetwork, label: str) -> bytes:
        kind, arrays, public = encoded(network)
        session = self._sessions.session()
        load = Load(kind, session, label, [list(array.shape) for array in arrays], public)
        await self._actor.share_network(session, load, arrays)
        return session


@asynccontextmanager
async def connect_owner(
    deployment: DeploymentFile, identity: Identity, *, wrap_link: LinkWrapper | None = None
) -> AsyncIterator[Owner]:
    """Run the owner's process inside the block.  Raises `InputError` when the identity is not the owner's."""
    if identity.name != OWNER_NAME:
        raise InputError(f"{identity.name} is not the model owner; use the key of {OWNER_NAME}")
    keys = ClientKeys(identity.name)
    actor = ModelOwner({}, Ledger(), keys.held, identity.signing_key, deployment.limits.deadline, name=keys.name)
    async with linked_client(actor, keys, deployment, identity, wrap_link):
        yield Owner(actor)
