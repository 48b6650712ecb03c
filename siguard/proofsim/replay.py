"""Replay: the corrupted parties' own actor code against a recorded view.

If it sends the same messages and gives the same outputs, the view is complete: it holds all that they used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio.testing

from siguard.errors import ProtocolError
from siguard.mpc.party import Party
from siguard.prf import RandomnessSource
from siguard.proofsim.bound import Coins
from siguard.proofsim.calls import begin_call, refuse_failed_sessions
from siguard.proofsim.simulation import around_gates
from siguard.proofsim.stage import open_stage
from siguard.proofsim.view import Draw, View
from siguard.proofsim.walk import Gate
from siguard.ring import Ring, RingArray


@dataclass(frozen=True)
class Replay:
    """What the replayed parties saw and did, as a view; and in words where it differs from the recorded one.

    coins: by session, what each gate gave the corrupted server, by (gate, path).
    """

    view: View
    problems: list[str]
    coins: Coins


class Tape:
    """The random tapes of a view: gives each draw back at its address, to the party that made it."""

    def __init__(self, view: View) -> None:
        self._draws = {(draw.party, *draw.address): draw for draw in view.draws}

    def factory(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        """A `siguard.prf.RandomnessFactory`."""
        return _TapeOfSession(self._draws, session, dealer, party)


class _TapeOfSession:
    def __init__(
        self, draws: Mapping[tuple[str, bytes, str, str, str, str], Draw], session: bytes, dealer: str, party: str
    ) -> None:
        self._draws = draws
        self._session = session
        self._dealer = dealer
        self._party = party

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        found = self._draws.get((self._party, self._session, self._dealer, pair, purpose, path))
        if found is None or found.shape != shape or found.bits != ring.bits or found.itemsize != ring.itemsize:
            raise ProtocolError(
                f"{self._party} draws {purpose!r} of {pair}, {shape} of {ring}, which is not on the tape",
                party=self._party,
                session=self._session.hex(),
                step=path,
            )
        return found.array


async def replay(view: View) -> Replay:
    """Run the corrupted parties of a view again; see `Replay`.

    A view of the user must hold the user's answers.  Raises `ProtocolError` where the parties get stuck.
    """
    refuse_failed_sessions(view)
    coins: dict[bytes, dict[tuple[str, str], Any]] = {}

    def note(gate: Gate, party: Party, arguments: tuple[Any, ...], result: Any) -> None:
        session = party.channel.mailbox.session  # type: ignore[attr-defined]
        coins.setdefault(session, {})[gate.name, party.path] = result

    async with open_stage(view, Tape(view).factory) as stage:
        with around_gates(after=note):
            for message in view.messages:
                if message.received and message.peer not in view.corrupted.parties:
                    begin_call(stage, view, message)
                    stage.give(message.party, message.peer, message.encode())
                elif not message.received:
                    begin_call(stage, view, message)
                    await stage.until_sent(message)
            await stage.until_answered()
            # What they would send beyond the view, they send now.
            await trio.testing.wait_all_tasks_blocked()
        seen = stage.recorder.view(view.corrupted, owner_key=view.owner_key)
        seen.answers = stage.answers
    return Replay(seen, view.diff(seen), coins)
