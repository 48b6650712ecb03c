"""The recorder sees everything and changes nothing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import trio
from proof_helpers import CONFIGS, DEFENDER, MODEL, call, record, recorded, scheduled, values

import siguard
from siguard.actors.deployment import LinkWrapper
from siguard.actors.server import OWNER, UPSTREAM, USER
from siguard.actors.session import SERVERS
from siguard.errors import PartyFailedError, SiguardError
from siguard.prf import PairwiseRandomness, RandomnessFactory, RandomnessSource
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import Draw, Event, Message, StepNames, View
from siguard.ring import Ring, RingArray
from siguard.transport.frame import HEADER_BYTES, Kind
from siguard.transport.link import Link
from siguard.transport.wrapped import WrappedLink

Frames = dict[tuple[str, str], list[bytes]]


class Tap:
    """What is sent over each link, without a recorder's help."""

    def __init__(self) -> None:
        self.frames: Frames = defaultdict(list)

    def wrap_link(self, link: Link, owner: str) -> Link:
        tap = self

        class Tapped(WrappedLink):
            async def send(self, data: bytes) -> None:
                tap.frames[owner, link.peer].append(data)
                await link.send(data)

        return Tapped(link)

    def sorted(self) -> Frames:
        """Branches that run side by side send in any order."""
        return {link: sorted(frames) for link, frames in self.frames.items()}


async def transcript(
    policy: str, tap: Tap, wrap_link: LinkWrapper, randomness: RandomnessFactory
) -> tuple[Frames, list[list[float]]]:
    answers = []
    async with siguard.open_cluster(seed=3, wrap_link=wrap_link, randomness=randomness) as cluster:
        for kind in ("query", "guard"):
            answers += (await call(cluster, kind, CONFIGS[policy], 5)).confidences.tolist()
    return tap.sorted(), answers


@pytest.mark.parametrize("policy", CONFIGS)
def test_a_recorded_run_is_the_run_without_recorder(policy: str) -> None:
    bare, tapped, recorder = Tap(), Tap(), Recorder()

    def both(link: Link, owner: str) -> Link:
        return recorder.wrap_link(tapped.wrap_link(link, owner), owner)

    expected = trio.run(transcript, policy, bare, bare.wrap_link, PairwiseRandomness)
    assert trio.run(transcript, policy, tapped, both, recorder.randomness) == expected
    noted: Frames = defaultdict(list)
    for event in recorder.events():
        if isinstance(event, Message) and not event.received:
            noted[event.party, event.peer].append(event.encode())
    assert {link: sorted(frames) for link, frames in noted.items()} == expected[0]


def test_every_party_and_both_ends_of_every_frame_are_recorded() -> None:
    events = recorded(kinds=("query", "guard")).recorder.events()
    parties = {*SERVERS, USER, OWNER, UPSTREAM}
    assert {event.party for event in events if isinstance(event, Draw)} == parties
    ends: dict[bool, Counter[tuple[str, str, bytes]]] = {True: Counter(), False: Counter()}
    for event in events:
        if isinstance(event, Message):
            assert {event.party, event.peer} <= parties
            ends[event.received][event.sender, event.receiver, event.encode()] += 1
    assert ends[True] == ends[False]
    assert set(ends[True].values()) == {1}


def test_a_frame_is_sent_before_it_is_received_and_a_draw_comes_before_its_use() -> None:
    events = recorded().recorder.events()
    places = [(m.sender, m.receiver, m.encode()) if isinstance(m, Message) else None for m in events]
    for index, event in enumerate(events):
        if isinstance(event, Message) and not event.received:
            assert index == places.index(places[index])
        if isinstance(event, Message) and event.party == USER and event.step == "input":
            assert sum(isinstance(e, Draw) and e.party == USER for e in events[:index]) == 2


@pytest.mark.parametrize("corrupted", CORRUPTED_SETS, ids=str)
def test_a_view_holds_what_its_set_sees_and_nothing_else(corrupted: Corrupted) -> None:
    made = recorded(kinds=("query", "guard"))
    everything, view = made.recorder.events(), made.view(str(corrupted))
    assert {event.party for event in view.events} == set(corrupted.parties)
    assert not {OWNER, UPSTREAM} & {event.party for event in view.events}
    # A key of two other parties has no place on its tape.
    for draw in view.draws:
        assert draw.party in draw.pair
    if corrupted.user:
        sent_to_user = [e for e in everything if isinstance(e, Message) and e.receiver == USER and not e.received]
        arrived = [m for m in view.messages if m.party == USER and m.received]
        assert Counter(m.encode() for m in sent_to_user) == Counter(m.encode() for m in arrived)
        assert len(arrived) == 4  # two calls, two parts of an answer
        assert set(view.answers) == set(made.sessions)
        for session, answer in view.answers.items():
            np.testing.assert_array_equal(answer, made.results[session].confidences)
    else:
        assert view.answers == {}


def test_what_the_owner_and_upstream_draw_and_hold_is_in_no_view() -> None:
    """Their draws reach a server only where it holds the key too."""
    made = recorded(kinds=("guard",))
    for corrupted in CORRUPTED_SETS:
        view = made.view(str(corrupted))
        own = {draw.values for draw in view.draws}
        for event in made.recorder.events([OWNER, UPSTREAM]):
            if isinstance(event, Draw):
                shared = any(name in event.pair.split("+")[1] for name in corrupted.parties)
                assert (event.values in own) is shared, (str(corrupted), event.pair)


async def two_clusters() -> tuple[Recorder, Recorder]:
    recorders = Recorder(), Recorder()

    async def one(seed: int) -> None:
        recorder = recorders[seed]
        async with siguard.open_cluster(
            seed=seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness
        ) as cluster:
            await call(cluster, "query", CONFIGS["label"], seed)

    async with trio.open_nursery() as nursery:
        for seed in range(2):
            nursery.start_soon(one, seed)
    return recorders


def key(event: Event) -> tuple[str, ...]:
    return type(event).__name__, str(event), event.session.hex()


def test_two_clusters_in_one_process_are_recorded_apart() -> None:
    for seed, together in enumerate(trio.run(two_clusters)):
        alone = trio.run(lambda seed=seed: record(CONFIGS["label"], seeds=(seed,), cluster_seed=seed))  # type: ignore[misc]
        together.learn_steps({e.step for e in alone.recorder.events() if not e.step.startswith("#")})
        assert sorted(together.events(), key=key) == sorted(alone.recorder.events(), key=key), seed


async def clear_between() -> tuple[list[bytes], list[bytes], list[Event]]:
    recorder = Recorder()
    async with siguard.open_cluster(
        seed=1, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        await call(cluster, "query", CONFIGS["label"], 0)
        first = recorder.sessions
        recorder.clear()
        assert not recorder.events()
        assert not recorder.sessions
        assert not recorder.view(Corrupted("S0", True)).events
        await call(cluster, "query", CONFIGS["label"], 1)
    return first, recorder.sessions, recorder.events()


def test_clear_forgets_what_was_and_goes_on() -> None:
    before, after, events = trio.run(clear_between)
    assert len(before) == 4  # two networks, a grant, a call
    assert len(after) == 1
    assert not set(before) & set(after)
    assert {event.session for event in events} == set(after)


class Ones:
    """A source that gives ones, and keeps count."""

    drawn: Counter[tuple[str, bytes, str, str, str]]

    def __init__(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None:
        self._where = party, session

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        Ones.drawn[(*self._where, pair, purpose, path)] += 1
        return ring.constant(np.ones(shape, np.int64))


def test_a_source_of_ones_own_is_recorded() -> None:
    Ones.drawn = Counter()
    made = trio.run(lambda: record(CONFIGS["linesearch"], randomness=Ones))
    draws = [event for event in made.recorder.events() if isinstance(event, Draw)]
    assert Counter((d.party, d.session, d.pair, d.purpose, d.step) for d in draws) == Ones.drawn
    assert all((d.array == 1).all() for d in draws)
    assert abs(made.results[made.sessions[0]].confidences.sum() - 1) < 1e-9


def test_a_recorder_records_a_recorder() -> None:
    inner = Recorder()
    made = trio.run(lambda: record(CONFIGS["label"], randomness=inner.randomness))
    assert inner.events() == [event for event in made.recorder.events() if isinstance(event, Draw)]


async def killed(recorder: Recorder) -> SiguardError:
    errors: list[SiguardError] = []
    async with siguard.open_cluster(
        seed=1, deadline=1, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        await call(cluster, "query", CONFIGS["linesearch"], 0)
        before = len(recorder.events())

        async def fail() -> None:
            try:
                await call(cluster, "query", CONFIGS["linesearch"], 1)
            except SiguardError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            while len(recorder.events()) < before + 60:
                await trio.lowlevel.checkpoint()
            cluster.kill("S1")
    return errors[0]


def test_a_session_that_fails_is_recorded_to_the_end(tmp_path: Path) -> None:
    recorder = Recorder()
    with scheduled(1):
        error = trio.run(killed, recorder)
    assert isinstance(error, PartyFailedError)
    session = recorder.sessions[-1]
    assert error.session == session.hex()
    for corrupted in CORRUPTED_SETS:
        view = recorder.view(corrupted)
        failed = [m for m in view.messages if m.session == session]
        assert any(m.kind == Kind.ABORT for m in failed), str(corrupted)
        assert not any(m.step == "reveal" for m in failed)
        assert "ABORT abort" in view.text()
        view.save(tmp_path / "failed")
        assert View.load(tmp_path / "failed") == view


async def cancelled(recorder: Recorder) -> None:
    async with siguard.open_cluster(
        seed=1, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        for steps in (5, 20, 60):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(cluster.query, values(steps), MODEL, DEFENDER, CONFIGS["label"])
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        await trio.testing.wait_all_tasks_blocked()


def test_a_cancelled_call_leaves_whole_events() -> None:
    recorder = Recorder()
    trio.run(cancelled, recorder)
    sent, taken = (
        Counter(
            (m.sender, m.receiver, m.encode())
            for m in recorder.events()
            if isinstance(m, Message) and m.received is received
        )
        for received in (False, True)
    )
    assert taken
    assert not taken - sent


@pytest.mark.parametrize("policy", CONFIGS)
def test_every_step_of_a_call_has_its_path(policy: str) -> None:
    for corrupted in CORRUPTED_SETS:
        steps = {event.step for event in recorded(policy).view(str(corrupted)).events}
        assert not [step for step in steps if step.startswith("#")], str(corrupted)
    (session,) = recorded(policy).sessions
    sent = {m.step for m in recorded(policy).view("S0").sent if m.session == session}
    assert sent <= set(recorded(policy).results[session].traffic.by_step())


def test_a_step_that_was_not_learned_is_a_digest() -> None:
    recorder = Recorder(names=StepNames())

    async def without_draws() -> None:  # which would tell steps
        async with siguard.open_cluster(seed=1, wrap_link=recorder.wrap_link) as cluster:
            await call(cluster, "query", CONFIGS["label"], 0)

    trio.run(without_draws)
    unknown = {event.step for event in recorder.events() if event.step.startswith("#")}
    assert unknown
    assert all(len(step) == 17 for step in unknown)


def test_lengths_are_those_of_the_traffic() -> None:
    made = recorded("siguard")
    session = made.sessions[0]
    sent = [m for m in made.recorder.events() if isinstance(m, Message) and not m.received and m.session == session]
    traffic = made.results[session].traffic
    assert len(sent) == traffic.messages
    assert sum(len(m.payload) + HEADER_BYTES for m in sent) == traffic.bytes_total
    assert max(m.round for m in sent) == traffic.rounds


def test_the_source_keeps_what_it_is_asked_for() -> None:
    """Keys, session, dealer and party reach the recorded source as they are."""
    asked = []

    def source(keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        asked.append((session, dealer, party, sorted(keys)))
        return PairwiseRandomness(keys, session, dealer, party)

    made = trio.run(lambda: record(CONFIGS["label"], randomness=source))
    call_of_user = [one for one in asked if one[2] == USER]
    assert call_of_user == [(made.sessions[0], "S2", USER, ["user+S0S1", "user+S0S2", "user+S1S2"])]
