"""Both worlds of a sample: three servers and a user, or the corrupted parties and a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import trio

from siguard.actors.local import LocalUser, run_three
from siguard.actors.session import client_pair, pair_name, roles_for
from siguard.mpc.io import mask_input, simulate_answer
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.prf import PairwiseRandomness, RandomnessSource, derive_key
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.enumeration import Output, recombine
from siguard.proofsim.gate_samples import GateSample, hidden_values, share
from siguard.proofsim.gate_views import Coins, GateView, Held
from siguard.proofsim.simulation import CoinsOnly, around_gates, run_alone
from siguard.proofsim.walk import Gate
from siguard.ring import Ring, RingArray
from siguard.transport.frame import Kind, decode_frame, step_digest

_INPUT, _REVEAL = step_digest("input"), step_digest("reveal")


class GateWorld:
    """Both worlds of one sample: inputs, shares and keys of each are fresh and follow from (seed, which world)."""

    def __init__(self, sample: GateSample, elements: int, seed: int, dealer: str = "S2") -> None:
        self.sample = sample
        self.elements = max(64, int(elements * sample.scale))
        self.dealer = dealer
        self.seed = seed
        self._roles = roles_for(dealer)

    def real(self, number: int = 0, *, same_input: bool = False) -> GateView:
        """Three servers, and the user if there is one; ``number`` tells independent runs apart.

        same_input: of all these runs; shares and keys are fresh all the same.
        """
        return trio.run(self._real, number, same_input)

    def simulated(self, corrupted: Corrupted, number: int = 0) -> GateView:
        """The corrupted parties' own code, everybody else simulated."""
        return trio.run(self._simulated, corrupted, number)

    async def _real(self, number: int, same_input: bool) -> GateView:
        view, sample = GateView(), self.sample
        rng, key_seed = self._streams(number, "real")
        values, wires = self._inputs(rng, self._streams(0, "input")[0] if same_input else rng)

        def observe(sender: str, receiver: str, data: bytes) -> None:
            frame = decode_frame(data)
            if frame.kind is Kind.DATA:  # room given back to a dealer is a matter of sizes
                view.received[sender, receiver, frame.step] = frame.payload

        async def use(user: LocalUser) -> RingArray:
            assert sample.user_ring is not None  # noqa: S101 - only then is there a user
            await user.share(values[-1], sample.user_ring)
            return await user.answer(sample.user_ring)

        for role, name in enumerate(self._roles):
            view.hold_shares(name, "", [wire[role] for wire in wires], "wire")
        with around_gates(after=partial(self._note, view)):
            ran = await run_three(
                lambda party: sample.run(party, [wire[party.role] for wire in wires]),
                seed=key_seed,
                dealer=self.dealer,
                randomness=partial(self._tape, view),
                observe_frame=observe,
                user=use if sample.user_ring else None,
            )
        if sample.user_ring is None:
            try:
                outputs = [_value(same) for same in zip(*ran.results, strict=True)]
            except AssertionError:  # two servers hold different parts of one share: no value at all
                view.right = np.zeros(self.elements, np.bool_)
                return view
        else:
            self._note_user(view, values[-1])
            outputs = [ran.answer]
        view.right = sample.right(self._signed(values), outputs)
        return view

    async def _simulated(self, corrupted: Corrupted, number: int) -> GateView:
        view, sample = GateView(), self.sample
        rng, key_seed = self._streams(number, f"simulated {corrupted}")
        values, wires = self._inputs(rng, rng)
        user_ring = sample.user_ring if corrupted.user else None
        masked = None if user_ring is None else self._users_message(view, values[-1], user_ring, key_seed)
        coins = Coins(rng)
        view.received, view.layouts = coins.received, coins.layouts
        own_part: list[RingArray] = []

        def sent(receiver: str, data: bytes) -> None:
            if receiver == "user":
                own_part.append(decode_frame(data).payload)

        role = None if corrupted.server is None else self._roles.index(corrupted.server)
        if role is not None:
            view.hold_shares(self._roles[role], "", [wire[role] for wire in wires], "wire")
            await run_alone(
                lambda party: sample.run(party, [wire[role] for wire in wires]),
                role,
                coins.uniform,
                partial(self._tape, view),
                seed=key_seed,
                dealer=self.dealer,
                after=partial(self._note, view),
                from_client=None if masked is None else lambda path: masked,
                observe_posted=partial(coins.posted, self._roles[role]),
                observe_sent=sent,
            )
        if user_ring is not None and sample.answer is not None:
            own = (role, own_part[0]) if own_part and role is not None else None
            answer = sample.answer(self._signed(values))
            for sender, part in enumerate(simulate_answer(CoinsOnly(coins.uniform), answer, user_ring, own)):
                view.received[self._roles[sender], "user", _REVEAL] = part
                view.layouts[self._roles[sender], "user", _REVEAL] = [(user_ring, part.shape)]
            self._note_user(view, values[-1])
        return view

    # Inputs ------------------------------------------------------------------------------------------------

    def _streams(self, number: int, world: str) -> tuple[np.random.Generator, int]:
        key = derive_key(self.seed.to_bytes(32, "little"), "sample", self.sample.name, self.dealer, world, number)
        return np.random.default_rng(list(key)), int.from_bytes(key[:16], "little")

    def _inputs(
        self, rng: np.random.Generator, of_values: np.random.Generator
    ) -> tuple[list[RingArray], list[list[Share]]]:
        """Values of the wires, and of the user after them; shares of the wires."""
        sample = self.sample
        rings = [*sample.rings, *([sample.user_ring] if sample.user_ring else [])]
        values = [hidden_values(of_values, element_ring, self.elements) for element_ring in rings]
        return values, [share(rng, value, one) for value, one in zip(values, sample.rings, strict=False)]

    def _signed(self, values: Sequence[RingArray]) -> list[npt.NDArray[np.int64]]:
        rings = [*self.sample.rings, *([self.sample.user_ring] if self.sample.user_ring else [])]
        return [one.signed(value) for one, value in zip(rings, values, strict=True)]

    def _tape(self, view: GateView, *where: Any) -> _Tape:
        return _Tape(PairwiseRandomness(*where), where[-1], view)

    def _note(self, view: GateView, gate: Gate, party: Party, arguments: tuple[Any, ...], result: Any) -> None:
        if not self.sample.reused:
            view.hold_shares(self._roles[party.role], party.path, arguments)

    def _note_user(self, view: GateView, value: RingArray) -> None:
        """The user's value and tape stand beside its answer."""
        assert self.sample.user_ring is not None  # noqa: S101 - only then is there a user
        for held in [Held("value", self.sample.user_ring, value), *view.own.get(("user", _INPUT), [])]:
            view.hold("user", "reveal", held)

    def _users_message(self, view: GateView, value: RingArray, user_ring: Ring, key_seed: int) -> RingArray:
        """What the corrupted user's own code sends to roles 0 and 1."""
        seed_key = key_seed.to_bytes(32, "little")
        pairs = {
            (i, j): client_pair("user", pair_name(self._roles[i], self._roles[j])) for i, j in ((0, 2), (1, 2))
        }
        keys = {name: derive_key(seed_key, "pair", name) for name in pairs.values()}
        source = self._tape(view, keys, derive_key(seed_key, "session")[:16], self.dealer, "user")

        def draw(pair: tuple[int, int], drawn_ring: Ring, shape: tuple[int, ...]) -> RingArray:
            return source.draw(pairs[pair], "input", "input", drawn_ring, shape)

        return mask_input(value, user_ring, draw)


def _value(parts: Sequence[Output]) -> RingArray:
    return parts[0].ring.convert(recombine(parts).astype(np.uint64))


class _Tape:
    """The shipped randomness of one party, which notes in a view what it draws."""

    def __init__(self, source: RandomnessSource, party: str, view: GateView) -> None:
        self._source = source
        self._party = party
        self._view = view

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        values = self._source.draw(pair, purpose, path, ring, shape)
        held = Held(f"{purpose!r} of {pair}", ring, values)
        self._view.hold(self._party, path, held)
        # Parts of one frame draw at steps below the frame's.
        above, _, own = path.rpartition("/")
        if own.startswith("part["):
            self._view.hold(self._party, above, held._replace(name=f"{held.name} at {own}"))
        return values
