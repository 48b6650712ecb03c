"""The real and the simulated world of one instance, each in one run over a batch of enumerated cases."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from siguard.actors.local import LocalRun, LocalUser, local_keys, run_three
from siguard.actors.session import SERVERS, client_pair, pair_name, roles_for
from siguard.mpc.io import mask_input, simulate_answer
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.prf import derive_key
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.enumeration import (
    NOTING_CASES,
    Digits,
    EnumeratedRandomness,
    Instance,
    Output,
    Values,
    World,
    columns,
    layout_of,
    recombine,
    values_of,
)
from siguard.proofsim.simulation import CoinsOnly, around_gates, run_alone
from siguard.proofsim.walk import Gate
from siguard.ring import Ring, RingArray
from siguard.transport.frame import SESSION_BYTES, Kind, decode_frame, step_digest

_SEED_KEY = bytes(32)


class Session(NamedTuple):
    """One run of an instance."""

    turn: int
    name: bytes
    dealer: str


class Case:
    """One instance and one corrupted set: which variables are the set's own, and how to run both worlds.

    coins: whether the adversary is given the coins of truncation; without them the claim is false.
    """

    def __init__(self, instance: Instance, corrupted: Corrupted, coins: bool) -> None:
        self.instance = instance
        self.corrupted = corrupted
        self.coins = coins
        # The server of number i holds the parts i and i + 1 of every wire, whatever its role in a session.
        number = None if corrupted.server is None else SERVERS.index(corrupted.server)
        self.held = () if number is None else (number, (number + 1) % 3)
        parts = [("wire", w, p) for w in range(len(instance.rings)) for p in range(3)]
        self.own: list[Hashable] = [name for name in parts if name[2] in self.held]
        self.hidden: list[Hashable] = [name for name in parts if name[2] not in self.held]
        if self.shared is not None:
            (self.own if corrupted.user else self.hidden).append(("user",))

    def sessions(self) -> Iterator[Session]:
        """The runs of the instance, in order."""
        for turn, (number, dealer) in enumerate(self.instance.sessions):
            yield Session(turn, derive_key(_SEED_KEY, "session", number)[:SESSION_BYTES], dealer)

    def role(self, session: Session) -> int | None:
        """The corrupted server's role in a session."""
        return None if self.corrupted.server is None else roles_for(session.dealer).index(self.corrupted.server)

    @property
    def shared(self) -> Ring | None:
        """The ring of the user's input, where it has one."""
        return self.instance.user_ring if self.instance.user_shares else None

    @property
    def answered(self) -> Ring | None:
        """The ring of the answer, where the corrupted set gets one."""
        return self.instance.user_ring if self.corrupted.user else None

    def bits_of(self, name: Any) -> int:
        """Ring width of an input variable."""
        if name == ("user",):
            assert self.instance.user_ring is not None  # noqa: S101 - only then is there such a variable
            return self.instance.user_ring.bits
        wire: int = name[1]
        return self.instance.rings[wire].bits


class Batch:
    """A batch of cases in one of the two worlds; without ``cases`` the run that notes which variables there are."""

    def __init__(self, case: Case, digits: Digits, cases: Values | None) -> None:
        self.case = case
        self._digits = digits
        self._cases = cases
        self._sources: list[EnumeratedRandomness] = []
        self._coins: list[Values] = []
        self._openings: list[Values] = []
        self._drawn = count()
        self.world = World(NOTING_CASES if cases is None else len(cases))

    async def real(self) -> World:
        """Three servers and the user run the instance as shipped."""
        value = self._value(("user",), self.case.shared)
        ran = [await self._real_session(session, value) for session in self.case.sessions()]
        self._take_tapes()
        if self._cases is not None:
            self._give(None if self.case.answered is None else ran[0].answer)
            self.world.right = self._right(value, ran[0])
        return self.world

    async def _real_session(self, session: Session, value: RingArray | None) -> LocalRun:
        instance, inside = self.case.instance, self.case.corrupted.parties

        def observe(sender: str, receiver: str, data: bytes) -> None:
            if receiver in inside:
                frame = decode_frame(data)
                # Credit counts bytes taken, here of all cases in one call; one case by itself gives none.
                if frame.kind is not Kind.CREDIT:
                    self.world.note_message(session.name, sender, receiver, frame.step, frame.payload)

        user = None if instance.user_ring is None else partial(_use, ring=instance.user_ring, value=value)
        with around_gates(after=partial(self._note_coin, self.case.role(session))):
            return await run_three(
                lambda party: instance.run(party, self._wires(session, party.role, range(3))),
                randomness=self._source,
                observe_frame=observe,
                dealer=session.dealer,
                session=session.name,
                user=user,
            )

    async def simulated(self) -> World:
        """The corrupted parties run their own code, everybody else is simulated; the answer is a variable."""
        answer = self._value(("answer",), self.case.answered)
        for session in self.case.sessions():
            await self._simulated_session(session, answer)
        self._take_tapes()
        if self._cases is not None:
            self._give(answer)
        return self.world

    async def _simulated_session(self, session: Session, answer: RingArray | None) -> None:
        case, instance, world = self.case, self.case.instance, self.world
        roles, role = roles_for(session.dealer), case.role(session)
        message = None
        if case.corrupted.user and case.shared is not None:
            message = self._message_of_user(session, case.shared)
        own_part: list[RingArray] = []

        def sent(receiver: str, data: bytes) -> None:
            if receiver == "user":
                own_part.append(decode_frame(data).payload)

        if role is not None:
            await run_alone(
                lambda party: instance.run(party, self._wires(session, party.role, case.held)),
                role,
                self._uniform_of_simulator,
                self._source,
                dealer=session.dealer,
                session=session.name,
                after=partial(self._note_coin, role),
                from_client=None if message is None else lambda path: message,
                observe_posted=partial(self._posted, session, roles[role]),
                observe_sent=sent,
            )
        if case.answered is not None and answer is not None:
            own = (role, own_part[0]) if own_part and role is not None else None
            coins = CoinsOnly(self._uniform_of_simulator)
            for sender, part in zip(roles, simulate_answer(coins, answer, case.answered, own), strict=False):
                world.note_message(session.name, sender, "user", step_digest("reveal"), part)

    def _posted(self, session: Session, receiver: str, sender: str, step: bytes, payload: RingArray) -> None:
        self.world.note_message(session.name, sender, receiver, step, payload)

    # Variables ---------------------------------------------------------------------------------------------

    @property
    def hidden(self) -> list[Values]:
        """What the corrupted set does not hold, as columns."""
        assert self._cases is not None  # noqa: S101 - not asked of a noting run
        return columns([self._digits.values(name, self._cases) for name in self.case.hidden], self.world.cases)

    def _source(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> EnumeratedRandomness:
        source = EnumeratedRandomness(
            keys,
            session,
            dealer,
            party,
            digits=self._digits,
            cases=self._cases,
            word_bits=self.case.instance.word_bits,
        )
        self._sources.append(source)
        return source

    def _uniform_of_simulator(self, element_ring: Ring, shape: tuple[int, ...]) -> RingArray:
        layout = layout_of(element_ring, shape, self.world.cases, self.case.instance.word_bits)
        name = ("simulator", next(self._drawn))
        if self._cases is None:
            self._digits.note(name, layout.bits, layout.elements)
            return element_ring.zeros(*shape)
        return layout.array(self._digits.values(name, self._cases))

    def _value(self, name: Hashable, element_ring: Ring | None) -> RingArray | None:
        if element_ring is None:
            return None
        if self._cases is None:
            self._digits.note(name, element_ring.bits, 1)
            return element_ring.zeros(NOTING_CASES)
        return self._digits.values(name, self._cases)[:, 0].astype(element_ring.dtype)

    def _wires(self, session: Session, role: int, held: Iterable[int]) -> list[Share]:
        """The wires at a role, from the session's turn on; only parts in ``held`` are looked at, others are 0."""
        number = SERVERS.index(roles_for(session.dealer)[role])
        shares = []
        for index, element_ring in enumerate(self.case.instance.rings):
            first, second = (
                self._value(("wire", index, part), element_ring) if part in held else None
                for part in (number, (number + 1) % 3)
            )
            zero = element_ring.zeros(self.world.cases)
            shares.append(
                Share(role, element_ring, zero if first is None else first, zero if second is None else second, 0)
            )
        return shares[session.turn :] + shares[: session.turn]

    def _message_of_user(self, session: Session, element_ring: Ring) -> RingArray:
        """What the corrupted user's own code sends to roles 0 and 1."""
        roles = roles_for(session.dealer)
        pairs = {(i, j): client_pair("user", pair_name(roles[i], roles[j])) for i, j in ((0, 1), (0, 2), (1, 2))}
        source = self._source(local_keys(0, "user"), session.name, session.dealer, "user")
        value = self._value(("user",), element_ring)
        assert value is not None  # noqa: S101 - there is a ring

        def draw(pair: tuple[int, int], drawn_ring: Ring, shape: tuple[int, ...]) -> RingArray:
            return source.draw(pairs[pair], "input", "input", drawn_ring, shape)

        return mask_input(value, element_ring, draw)

    # What is noted -----------------------------------------------------------------------------------------

    def _note_coin(
        self, role: int | None, gate: Gate, party: Party, arguments: tuple[Any, ...], result: Any
    ) -> None:
        """The coin of a truncation: what its party holds of the opened value."""
        if gate.name == "arithmetic.view" and len(arguments) > 1 and arguments[1]:
            held = values_of(arguments[0].value, self.world.cases)
            if party.role == role:
                self._coins.append(held)
            if party.role == 0:  # what the functionality is given, whoever is corrupted
                self._openings.append(held)

    def _take_tapes(self) -> None:
        """The tape of the set: whatever is drawn, by whomever, with a key that one of its parties holds."""
        held = {
            key for source in self._sources if source.party in self.case.corrupted.parties for key in source.held
        }
        for source in self._sources:
            self.world.view.update({name: values for name, values in source.seen.items() if name[1] in held})

    def _give(self, answer: RingArray | None) -> None:
        """What the simulator is given: the set's own inputs, the answer, the coins."""
        assert self._cases is not None  # noqa: S101 - not asked of a noting run
        self.world.given = [self._digits.values(name, self._cases) for name in self.case.own]
        if answer is not None:
            self.world.given += [*(self._coins if self.case.coins else ()), values_of(answer, self.world.cases)]

    def _right(self, value: RingArray | None, ran: LocalRun) -> Any:
        """Per case, whether the values are those of the functionality."""
        instance, cases = self.case.instance, self.world.cases
        inputs = np.zeros((cases, len(instance.rings)), np.int64)
        for index, element_ring in enumerate(instance.rings):
            for part in range(3):
                inputs[:, index] += self._digits.values(("wire", index, part), self._cases)[:, 0]  # type: ignore[arg-type]
            inputs[:, index] %= 1 << element_ring.bits
        if value is not None:
            inputs = np.column_stack([inputs, value.astype(np.int64)])
        openings = np.concatenate([np.zeros((cases, 0), np.int64), *self._openings], axis=1)
        if instance.user_ring is not None:
            return instance.right(inputs, values_of(ran.answer, cases), openings)
        outputs = zip(*(_outputs(result) for result in ran.results), strict=True)
        columns = [values_of(recombine(same).astype(np.uint64), cases) for same in outputs]
        return instance.right(inputs, np.concatenate(columns, axis=1), openings)


def _outputs(result: Output | Sequence[Output]) -> Sequence[Output]:
    return result if isinstance(result, (list, tuple)) else [result]  # type: ignore[list-item]


async def _use(user: LocalUser, ring: Ring, value: RingArray | None) -> RingArray:
    """The user of an instance: an input, if it has one, and an answer."""
    if value is not None:
        await user.share(value, ring)
    return await user.answer(ring)
