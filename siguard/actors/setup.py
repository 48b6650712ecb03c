"""What a cluster does once per network and per permission: the owner shares and signs."""

from __future__ import annotations

import trio

from siguard.actors.client import ModelOwner
from siguard.actors.encoding import Encoding, encoded
from siguard.actors.ledger import Ledger
from siguard.actors.messages import Load
from siguard.actors.naming import SessionNames
from siguard.guard.config import GuardConfig
from siguard.nn.model import DenseNetwork
from siguard.transport.accountant import Traffic


class SharedNetworks:
    """The networks and permissions of one cluster.

    allow: the configurations the owner signs for each pair of networks; None signs what each call passes.
    """

    def __init__(
        self,
        owner: ModelOwner,
        sessions: SessionNames,
        ledger: Ledger,
        allow: tuple[GuardConfig, ...] | None,
    ) -> None:
        self._owner = owner
        self._sessions = sessions
        self._ledger = ledger
        self._allow = allow
        self._names: dict[DenseNetwork, bytes] = {}
        self._encodings: dict[DenseNetwork, Encoding] = {}  # of networks that are about to be shared
        self._limits: dict[bytes, float] = {}
        self._bounds: dict[DenseNetwork, list[float]] = {}
        self._granted: set[tuple[bytes, bytes, GuardConfig]] = set()
        self._sharing = trio.Lock()
        self.traffic = Traffic()

    def encode(self, network: DenseNetwork) -> None:
        """Get a network ready to be shared; raises `InputError` when it cannot be."""
        if network not in self._names and network not in self._encodings:
            self._encodings[network] = encoded(network)
            self._bounds[network] = self._encodings[network][2]

    def magnitude_bits(self, defender: DenseNetwork) -> tuple[int, ...]:
        """The public bounds of the layers of an encoded classifier."""
        return tuple(int(bits) for bits in self._bounds[defender][:-1])

    def names(self, defender: DenseNetwork, model: DenseNetwork | None) -> tuple[bytes, bytes] | None:
        """The names of networks, b"" for no model; None unless all are shared."""
        if defender not in self._names or (model is not None and model not in self._names):
            return None
        return self._names[defender], (b"" if model is None else self._names[model])

    def limit(self, name: bytes) -> float:
        """The first of the public bounds of a shared network; a model's is its largest feature."""
        return self._limits[name]

    async def ensure(
        self, defender: DenseNetwork, model: DenseNetwork | None, config: GuardConfig
    ) -> tuple[bytes, bytes]:
        """Share and sign what is not yet; the names of the networks."""
        async with self._sharing:
            names = await self._share(defender), (await self._share(model) if model else b"")
            await self._grant(*names, config)
        return names

    async def _share(self, network: DenseNetwork) -> bytes:
        """Share a network with the servers unless this cluster has; returns its name."""
        if network in self._names:
            return self._names[network]
        kind, arrays, public = self._encodings[network]
        session = self._sessions.session(kind, *(array.tobytes() for array in arrays))
        load = Load(kind, session, "", [list(array.shape) for array in arrays], public)
        try:
            await self._owner.share_network(session, load, arrays)
        finally:
            self._count(session)
        self._names[network] = session
        del self._encodings[network]
        self._limits[session] = public[0]
        return session

    async def _grant(self, defender: bytes, model: bytes, config: GuardConfig) -> None:
        """The owner signs: the configurations of ``allow``, or in experiments what this call passes."""
        for allowed in (config,) if self._allow is None else self._allow:
            key = (defender, model, allowed.resolved())
            if key in self._granted:
                continue
            session = self._sessions.session("grant", defender, model, repr(allowed.to_dict()))
            try:
                await self._owner.grant(session, defender, model, allowed)
            finally:
                self._count(session)
            self._granted.add(key)

    def _count(self, session: bytes) -> None:
        self.traffic.merge(self._ledger.take(session))
