"""The recorder: stacks on any link and on the randomness, without the protocol knowing.

    recorder = Recorder()
    async with siguard.open_cluster(wrap_link=recorder.wrap_link, randomness=recorder.randomness) as cluster: ...
    view = recorder.view(Corrupted.parse("S0,U"))

It keeps references to bytes and arrays that exist anyway and decodes them when a view is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siguard.prf import PairwiseRandomness, RandomnessFactory, RandomnessSource
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.view import Draw, Event, Message, StepNames, View
from siguard.ring import Ring, RingArray
from siguard.transport.frame import decode_frame
from siguard.transport.link import Data, Link
from siguard.transport.wrapped import WrappedLink


@dataclass(frozen=True, slots=True)
class _Passed:
    """A frame that passed one end of a link."""

    party: str
    peer: str
    received: bool
    data: Data


@dataclass(frozen=True, slots=True)
class _Drawn:
    party: str
    session: bytes
    dealer: str
    pair: str
    purpose: str
    path: str
    ring: Ring
    values: RingArray


class Recorder:
    """Everything that all parties of one process draw, send and receive, in order.

    source: what the recorded randomness comes from.  names: steps known already.
    """

    def __init__(self, source: RandomnessFactory = PairwiseRandomness, names: StepNames | None = None) -> None:
        self._source = source
        self._events: list[_Passed | _Drawn] = []
        self._names = StepNames() if names is None else names
        self._names.learn(("start", "grant", "done", "abort", "input", "reveal"))

    def wrap_link(self, link: Link, owner: str) -> Link:
        """An end of a link that notes what passes it; pass it to `siguard.open_cluster`."""
        return _RecordedLink(link, owner, self._events)

    def randomness(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        """The source of one party in one session, with what it gives noted; pass it to `siguard.open_cluster`."""
        return _RecordedSource(self._source(keys, session, dealer, party), session, dealer, party, self._events)

    def note_frame(self, sender: str, receiver: str, data: bytes) -> None:
        """Note a frame at both its ends; pass it to `siguard.actors.local.run_three` as ``observe_frame``."""
        self._events.append(_Passed(sender, receiver, False, data))
        self._events.append(_Passed(receiver, sender, True, data))

    def learn_steps(self, paths: Iterable[str]) -> None:
        """Names of steps, for printing: ``result.traffic.by_step()`` has them all."""
        self._names.learn(paths)

    def clear(self) -> None:
        """Forget what was recorded."""
        self._events.clear()

    @property
    def steps(self) -> StepNames:
        """Known names of steps."""
        return self._names

    @property
    def sessions(self) -> list[bytes]:
        """Session ids in the order in which their frames appeared."""
        frames = (decode_frame(event.data) for event in self._events if isinstance(event, _Passed))
        return list(dict.fromkeys(frame.session for frame in frames))

    def events(self, parties: Iterable[str] | None = None) -> list[Event]:
        """The events of some parties, or of all."""
        wanted = None if parties is None else set(parties)
        # A step at which something was drawn is known by its path.
        self._names.learn({event.path for event in self._events if isinstance(event, _Drawn)})
        return [self._decoded(event) for event in self._events if wanted is None or event.party in wanted]

    def view(
        self,
        corrupted: Corrupted,
        answers: Mapping[bytes, npt.NDArray[np.float64]] | None = None,
        owner_key: bytes = b"",
    ) -> View:
        """The joint view of a corrupted set.

        answers: the user's, by session, kept if the user is in the set.  owner_key: see `View`; a replay needs it.
        """
        kept = {session: answer.tolist() for session, answer in (answers or {}).items()} if corrupted.user else {}
        return View(corrupted, self.events(corrupted.parties), kept, owner_key)

    def _decoded(self, event: _Passed | _Drawn) -> Event:
        if isinstance(event, _Drawn):
            values = np.ascontiguousarray(event.values)
            return Draw(
                event.party,
                event.session,
                event.dealer,
                event.pair,
                event.purpose,
                event.path,
                event.ring.bits,
                event.ring.itemsize,
                values.shape,
                values.tobytes(),
            )
        frame = decode_frame(event.data)
        return Message(
            event.party,
            event.peer,
            event.received,
            frame.session,
            int(frame.kind),
            self._names.name(frame.step),
            frame.depth,
            frame.payload.itemsize,
            frame.payload.shape,
            frame.payload.tobytes(),
        )


class _RecordedLink(WrappedLink):
    def __init__(self, link: Link, owner: str, events: list[_Passed | _Drawn]) -> None:
        super().__init__(link)
        self._owner = owner
        self._events = events

    async def send(self, data: bytes) -> None:
        # Noted first: what the other end does with it comes later.
        self._events.append(_Passed(self._owner, self.peer, False, data))
        await self.link.send(data)

    async def receive(self) -> Data:
        data = await self.link.receive()
        self._events.append(_Passed(self._owner, self.peer, True, data))
        return data


class _RecordedSource:
    def __init__(
        self, source: RandomnessSource, session: bytes, dealer: str, party: str, events: list[_Passed | _Drawn]
    ) -> None:
        self._source = source
        self._session = session
        self._dealer = dealer
        self._party = party
        self._events = events

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        values = self._source.draw(pair, purpose, path, ring, shape)
        # append is atomic: large gates draw in worker threads.
        self._events.append(_Drawn(self._party, self._session, self._dealer, pair, purpose, path, ring, values))
        return values
