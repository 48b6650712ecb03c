"""A network that attacks sealed links: it holds every record, and can only lose, bend, repeat, delay or forge them.

The links are those of one cluster in memory, sealed as over TCP; time is virtual.  A link that was attacked is
gone, so each call has a cluster of its own; keys and inputs follow from the seed, so that the answer of an honest
run is known bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import trio
import trio.testing
from nacl.signing import SigningKey

from siguard.actors.cluster import open_cluster
from siguard.actors.server import OWNER, UPSTREAM, USER
from siguard.actors.session import SERVERS
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.nn.model import Defender, Model
from siguard.prf import derive_key
from siguard.proofsim.attacked import BATCH, CLASSES, small_networks, warm_up
from siguard.proofsim.capture import captured
from siguard.proofsim.faults import RECORD_FAULTS, Arrival, Fault, Network, Passing, honest
from siguard.transport.handshake import Agreed, Steps, initiate, respond
from siguard.transport.link import Link
from siguard.transport.secure import Identity, SealedLink

#: Virtual seconds that a server waits for a frame.
_DEADLINE = 5.0

#: Where the records of a query travel.
PLACES: dict[str, Callable[[str, str], bool]] = {
    "between servers": lambda sender, receiver: sender in SERVERS and receiver in SERVERS,
    "input": lambda sender, receiver: sender == USER,
    "answer": lambda sender, receiver: receiver == USER,
}


class SealedCase(NamedTuple):
    """A call under attack.

    record: (sender, receiver, number on that link within the call); met: whether it was sent at all.
    expected, answer: of an honest run and of this one, None where it failed, with ``error``.
    """

    attack: str
    record: tuple[str, str, int]
    met: bool
    expected: npt.NDArray[np.float64]
    answer: npt.NDArray[np.float64] | None
    error: SiguardError | None

    def __str__(self) -> str:
        sender, receiver, number = self.record
        return f"record {number} of {sender} > {receiver}: {self.attack}"


@dataclass
class SealedNetwork:
    """Seals both ends of each link above a `Network`, with a handshake run for each; pass ``wrap_link`` on."""

    seed: int
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        self._identities = {name: self._identity(name) for name in (*SERVERS, USER, OWNER, UPSTREAM)}
        self._known = {name: one.signing_key.verify_key for name, one in self._identities.items()}
        self._agreed: dict[tuple[str, str], Agreed] = {}

    def _identity(self, name: str) -> Identity:
        return Identity(name, SigningKey(derive_key(self.seed.to_bytes(32, "little"), "identity", name)))

    def wrap_link(self, link: Link, owner: str) -> Link:
        """One end of a link: sealed, with the adversary below the seal."""
        peer = link.peer
        if (owner, peer) not in self._agreed:
            first = initiate(self._identities[owner], self._known, peer)
            self._agreed[owner, peer], self._agreed[peer, owner] = run_handshake(
                first, respond(self._identities[peer], self._known)
            )
        return SealedLink(self.network.wrap_link(link, owner), self._agreed.pop((owner, peer)))


def run_handshake(initiator: Steps, responder: Steps) -> tuple[Agreed, Agreed]:
    """Both ends of an honest handshake without a link between them."""
    next(responder)
    answer = responder.send(next(initiator))
    proof = initiator.send(answer)
    try:
        responder.send(proof)
    except StopIteration as done:
        verdict, at_responder = done.value
    try:
        initiator.send(verdict)
    except StopIteration as done:
        _, at_initiator = done.value
    return at_initiator, at_responder


def attacked_sealed(config: GuardConfig, seed: int, times: int) -> list[SealedCase]:
    """A query under each of `RECORD_FAULTS`, ``times`` times, at changing places.  Runs its own event loop."""
    with captured():
        return trio.run(_attacked, config, seed, times, clock=trio.testing.MockClock(autojump_threshold=0))


async def _attacked(config: GuardConfig, seed: int, times: int) -> list[SealedCase]:
    rng = np.random.default_rng([seed, 10])
    call = _Call(config, seed, rng.normal(size=(BATCH, CLASSES)), small_networks(rng))
    sealed = SealedNetwork(seed)
    expected, error, sent = await call.run(sealed)
    if expected is None:
        raise error or AssertionError("no answer and no error")
    cases = []
    places = list(PLACES.values())
    for number, (name, fault) in enumerate(RECORD_FAULTS.items()):
        for turn in range(times):
            place = places[(number + turn) % len(places)]
            records = [record for record in sent if place(*record[:2])]
            record = records[rng.integers(len(records))]
            sealed = SealedNetwork(seed)
            tamper = _Tamper(record, fault, rng)
            answer, error, _ = await call.run(sealed, tamper)
            cases.append(SealedCase(name, record, tamper.met, expected, answer, error))
    return cases


@dataclass
class _Call:
    """One and the same query, in a cluster of its own each time."""

    config: GuardConfig
    seed: int
    features: npt.NDArray[np.float64]
    networks: tuple[Model, Defender]

    async def run(
        self, sealed: SealedNetwork, tamper: _Tamper | None = None
    ) -> tuple[npt.NDArray[np.float64] | None, SiguardError | None, list[tuple[str, str, int]]]:
        """Answer or error, and the records that were sent for it."""
        network = sealed.network
        answer, error = None, None
        async with open_cluster(self.seed, deadline=_DEADLINE, wrap_link=sealed.wrap_link) as cluster:
            await warm_up(cluster, self.networks, self.config)
            before = len(network.passed)
            if tamper is not None:
                tamper.past = network.passed[:before]
                network.tamper = tamper
            try:
                answer = (await cluster.query(self.features, *self.networks, self.config)).confidences
            except SiguardError as failed:
                error = failed
            # Until every party has given up what it waits for, and what is late has come.
            await trio.sleep(3 * _DEADLINE)
            sent = network.passed[before:]
        seen: dict[tuple[str, str], int] = {}
        records = []
        for passing in sent:
            link = passing.sender, passing.receiver
            records.append((*link, seen.get(link, 0)))
            seen[link] = seen.get(link, 0) + 1
        return answer, error, records


class _Tamper:
    """Meets one record of a call."""

    def __init__(self, record: tuple[str, str, int], fault: Fault, rng: np.random.Generator) -> None:
        self.met = False
        self.past: Sequence[Passing] = ()
        self._link, self._number = record[:2], record[2]
        self._seen = 0
        self._fault = fault
        self._rng = rng

    def __call__(self, passing: Passing) -> list[Arrival]:
        if (passing.sender, passing.receiver) != self._link:
            return honest(passing)
        self._seen += 1
        if self._seen - 1 != self._number:
            return honest(passing)
        self.met = True
        past = [old for old in self.past if (old.sender, old.receiver) == self._link]
        return self._fault(passing, self._rng, past)
