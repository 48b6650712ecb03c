"""A query, run in the real world by three servers and a user, and in the ideal one by a trusted party."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from siguard.actors.local import LocalUser, Protocol, run_three
from siguard.actors.session import SERVERS, Probe, roles_for
from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender, encode_defender
from siguard.guard.inputs import relative_to_largest
from siguard.guard.plan import Plan
from siguard.guard.query import answer_query
from siguard.guard.start import LOGIT_BITS
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.nn.model import Defender, FloatArray, Model
from siguard.nn.shared import SharedModel, encode_model
from siguard.prf import KEY_BYTES, PairwiseRandomness, derive_key
from siguard.proofsim.ideal import OwnParts, TrustedParty, hybrid, shared_with
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.simulation import around_gates
from siguard.proofsim.walk import Gate
from siguard.ring import FRACTION_BITS, Z64, Ring, RingArray, encode
from siguard.transport.frame import SESSION_BYTES

#: No session of a deployment has this id: ideal runs may go on beside one.
_IDEAL_SESSION = b"ideal run".ljust(SESSION_BYTES, b"\0")


@dataclass(frozen=True)
class Query:
    """What the ideal functionality is given: the networks, the configuration, and the client's input, encoded.

    value: features (batch, in), or without a model logits (batch, C), as elements of Z_2^64.
    plan: how it is computed, which is public and of which the answer does not depend but in its coins.
    """

    config: GuardConfig
    defender: Defender
    model: Model | None
    value: RingArray
    plan: Plan = field(default_factory=Plan)

    @classmethod
    def of_features(
        cls, features: FloatArray, model: Model, defender: Defender, config: GuardConfig, plan: Plan | None = None
    ) -> Query:
        """As `siguard.Cluster.query` encodes it."""
        value = encode(features, FRACTION_BITS, encode_model(model).feature_limit)
        return cls(config, defender, model, value, plan or Plan())

    @classmethod
    def of_logits(
        cls, logits: FloatArray, defender: Defender, config: GuardConfig, plan: Plan | None = None
    ) -> Query:
        """As `siguard.Cluster.guard` encodes it."""
        value = encode(relative_to_largest(np.asarray(logits)), LOGIT_BITS)
        return cls(config, defender, None, value, plan or Plan())


@dataclass(frozen=True)
class Networks:
    """Both networks as one server holds them."""

    defender: SharedDefender
    model: SharedModel | None


def share_networks(query: Query, seed: int, held: Mapping[str, Networks] | None = None) -> dict[str, Networks]:
    """Both networks as shares of the three servers; parts of one server in ``held`` are taken as they are."""
    encoded = encode_defender(query.defender)
    source = PairwiseRandomness(
        {"parts": derive_key(seed.to_bytes(KEY_BYTES, "little"), "networks")}, bytes(16), "", ""
    )
    corrupted = next(iter(held)) if held else SERVERS[0]
    own = held[corrupted] if held else None
    if own is not None and (own.model is None) != (query.model is None):
        raise InputError(f"held: {corrupted} holds other networks than the query has")

    def shares(arrays: Sequence[RingArray], name: str, mine: Sequence[Share] | None) -> list[list[Share]]:
        found = []
        for index, array in enumerate(arrays):
            first, second = (
                (mine[index].first, mine[index].second)
                if mine is not None
                else (
                    source.draw("parts", part, f"{name}{index}", Z64, array.shape) for part in ("first", "second")
                )
            )
            found.append(shared_with(array, Z64, SERVERS.index(corrupted), first, second))
        return found

    parts_of_h = [*own.defender.matrices, *own.defender.folded] if own else None
    matrices = shares(encoded.matrices, "h", parts_of_h)
    weights: list[list[Share]] | None = None
    limit = 0.0
    if query.model is not None:
        model = encode_model(query.model)
        limit = model.feature_limit
        mine = [share for layer in own.model.layers for share in layer] if own and own.model else None
        weights = shares(model.arrays, "model", mine)
    return {
        server: Networks(
            SharedDefender([parts[i] for parts in matrices], encoded.magnitude_bits, encoded.gradient_bits),
            None if weights is None else SharedModel([parts[i] for parts in weights], limit),
        )
        for i, server in enumerate(SERVERS)
    }


@dataclass
class WorldRun:
    """One run of a query: the answer as the user adds it up, and by role the results of gates by (gate, path)."""

    answer: RingArray
    results: list[dict[tuple[str, str], Any]] = field(default_factory=lambda: [{}, {}, {}])


async def run_real(
    query: Query,
    networks: Mapping[str, Networks],
    *,
    seed: int,
    dealer: str = "S2",
    recorder: Recorder | None = None,
) -> WorldRun:
    """The protocol as shipped, by three servers and the user, with what each gate gave each of them."""
    run = WorldRun(Z64.zeros(1))

    def note(gate: Gate, party: Party, arguments: tuple[Any, ...], result: Any) -> None:
        run.results[party.role][gate.name, party.path] = result

    async def user(local: LocalUser) -> RingArray:
        await local.share(query.value, Z64)
        return await local.answer(Z64)

    with around_gates(after=note):
        ran = await run_three(
            lambda party: _serve(party, query, networks, dealer),
            seed=seed,
            dealer=dealer,
            user=user,
            randomness=PairwiseRandomness if recorder is None else recorder.randomness,
            observe_frame=None if recorder is None else recorder.note_frame,
        )
    run.answer = ran.answer
    return run


async def run_ideal(
    query: Query,
    networks: Mapping[str, Networks],
    role: int,
    own: OwnParts,
    *,
    dealer: str = "S2",
    probe: Probe | None = None,
) -> TrustedParty:
    """F(inputs; coins): the same query with every primitive gate done by the trusted party.

    role: the corrupted server's; own: its parts; probe: sees what a policy names.
    The answer is ``answers["reveal"]`` of what is returned.
    Nothing is sent or drawn outside the functionalities: a protocol that tries raises.
    """
    trusted = TrustedParty(role, own, {"input": query.value})
    await run_hybrid(trusted, lambda party: _serve(party, query, networks, dealer), dealer=dealer, probe=probe)
    return trusted


async def run_hybrid(
    trusted: TrustedParty, protocol: Protocol, *, dealer: str = "S2", probe: Probe | None = None
) -> None:
    """Run ``protocol`` at three servers with every primitive gate done by the trusted party, and nothing beside."""
    with hybrid(trusted, _IDEAL_SESSION):
        ran = await run_three(protocol, dealer=dealer, session=_IDEAL_SESSION, randomness=NoRandomness, probe=probe)
    if ran.traffic.messages:
        raise AssertionError(f"{ran.traffic.messages} frames were sent outside the primitive gates")


class NoRandomness:
    """The source of a server in the hybrid model: only functionalities draw."""

    def __init__(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None:
        pass

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Refuse: what is drawn outside a primitive gate has no simulator."""
        raise AssertionError(f"{purpose!r} is drawn at {path!r} outside a primitive gate")


async def _serve(party: Party, query: Query, networks: Mapping[str, Networks], dealer: str) -> None:
    held = networks[roles_for(dealer)[party.role]]
    shape = (query.value.shape[0], query.value.shape[1])
    await answer_query(party, shape, held.model, held.defender, query.config, query.plan, 0)
