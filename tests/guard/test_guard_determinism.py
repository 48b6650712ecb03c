"""Same seed, same transcript and answers, whatever the scheduler does; and no mask serves two calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from siguard import Cluster, Defender, GuardConfig, Model, open_cluster
from siguard.nn.model import FloatArray
from siguard.prf import PairwiseRandomness
from siguard.ring import Ring, RingArray
from siguard.transport.frame import Kind, decode_frame
from siguard.transport.link import Link
from siguard.transport.wrapped import WrappedLink

SHORT, LABEL, NONE = GuardConfig(outer=2, inner=2), GuardConfig("label"), GuardConfig("none")
CONFIGS = [LABEL, NONE, GuardConfig("linesearch"), SHORT, GuardConfig("decay", inner=2)]
SERVERS = {"S0", "S1", "S2"}


def _layers(*widths: int) -> list[tuple[FloatArray, FloatArray]]:
    rng = np.random.default_rng(sum(widths))
    return [(rng.normal(size=(m, n)), rng.normal(size=n)) for m, n in pairwise(widths)]


DEFENDERS = [Defender(_layers(4, 8, 6, 1)), Defender(_layers(4, 5, 1))]
MODELS = [Model(_layers(5, 7, 4)), Model(_layers(5, 4))]
LOGITS = np.random.default_rng(1).normal(size=(12, 2, 4)) * 3
FEATURES = np.random.default_rng(2).normal(size=(12, 2, 5))

Transcript = list[tuple[str, str, bytes]]


class Recorder(WrappedLink):
    """A link that notes what is sent."""

    def __init__(self, link: Link, owner: str, transcript: Transcript) -> None:
        super().__init__(link)
        self._owner, self._transcript = owner, transcript

    async def send(self, data: bytes) -> None:
        self._transcript.append((self._owner, self.peer, bytes(data)))
        await self.link.send(data)


def _run(
    story: Callable[[Cluster], Awaitable[Any]], seed: int | None, scheduler: int, threads: bool = False
) -> tuple[Any, Transcript]:
    """Answers and transcript of a story under a scheduler with this seed; with threads, on the real clock."""
    transcript: Transcript = []

    async def main() -> Any:
        async with open_cluster(seed, wrap_link=lambda link, owner: Recorder(link, owner, transcript)) as cluster:
            return await story(cluster)

    trio._core._run._r.seed(scheduler)
    answers = trio.run(main, clock=None if threads else MockClock(autojump_threshold=0))
    return answers, sorted(transcript)


async def _one(cluster: Cluster, index: int, same_content: bool = False) -> bytes:
    content = 0 if same_content else index
    config, defender = CONFIGS[index % len(CONFIGS)], DEFENDERS[index // 4 % 2]
    if same_content:
        config, defender = SHORT, DEFENDERS[0]
    if index % 3 == 0 and not same_content:
        result = await cluster.query(FEATURES[content], MODELS[index % 2], defender, config)
    else:
        result = await cluster.guard(LOGITS[content], defender, config)
    return result.confidences.tobytes()


async def _in_turn(cluster: Cluster) -> list[bytes]:
    return [await _one(cluster, index) for index in range(8)]


async def _equal_in_turn(cluster: Cluster) -> list[bytes]:
    return [await _one(cluster, index, same_content=True) for index in range(3)]


async def _at_once(cluster: Cluster, same_content: bool = False) -> list[bytes]:
    """Eight calls, with their set-ups, side by side."""
    answers: dict[int, bytes] = {}

    async def call(index: int) -> None:
        answers[index] = await _one(cluster, index, same_content)

    async with trio.open_nursery() as nursery:
        for index in range(8):
            nursery.start_soon(call, index)
    return [answers[index] for index in range(8)]


async def _equal_at_once(cluster: Cluster) -> list[bytes]:
    return await _at_once(cluster, same_content=True)


async def _chains(cluster: Cluster) -> list[bytes]:
    """Three tasks, each with calls of different length in turn: which call ends first is up to the scheduler."""
    answers: dict[tuple[int, int], bytes] = {}

    async def chain(first: int) -> None:
        for turn in range(3):
            answers[first, turn] = await _one(cluster, first + 4 * turn)

    async with trio.open_nursery() as nursery:
        for first in range(3):
            nursery.start_soon(chain, first)
    return [answers[key] for key in sorted(answers)]


STORIES = [_in_turn, _equal_in_turn, _at_once, _equal_at_once, _chains]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.strip("_"))
def test_same_seed_same_transcript_and_answers(story: Callable[[Cluster], Awaitable[Any]]) -> None:
    answers, transcript = _run(story, seed=7, scheduler=0)
    for scheduler in range(1, 4):
        again, transcript_again = _run(story, seed=7, scheduler=scheduler)
        if story is _equal_at_once:
            # Nothing tells equal calls apart but their order: as a whole they get the same answers.
            answers, again = sorted(answers), sorted(again)
        assert transcript_again == transcript, f"scheduler seed {scheduler}: the transcript differs"
        assert again == answers, f"scheduler seed {scheduler}: some call has another answer"


def test_threads_change_neither_transcript_nor_answers() -> None:
    """A batch large enough for the worker threads, against the same inline."""
    logits = np.random.default_rng(3).normal(size=(9000, 4)) * 3

    async def large(cluster: Cluster) -> bytes:
        return (await cluster.guard(logits, DEFENDERS[0], CONFIGS[2])).confidences.tobytes()

    assert _run(large, 7, 0, threads=True) == _run(large, 7, 0)


@pytest.mark.parametrize(("first", "second"), [(7, 8), (0, None), (None, None), (1, -1)])
def test_other_seeds_share_nothing(first: int | None, second: int | None) -> None:
    _, one = _run(_equal_in_turn, first, 0)
    _, two = _run(_equal_in_turn, second, 0)
    assert len(one) == len(two)
    payloads = [{data[80:] for _, _, data in frames if len(data) >= 80 + 16} for frames in (one, two)]
    public = {data[80:] for _, _, data in one + two if decode_frame(data).kind is not Kind.DATA}
    assert not (payloads[0] & payloads[1]) - public, "two seeds give an equal protocol message"
    sessions = [{decode_frame(data).session for _, _, data in frames} for frames in (one, two)]
    assert not sessions[0] & sessions[1]


@pytest.mark.parametrize("seed", [7, None])
@pytest.mark.parametrize("story", [_equal_in_turn, _equal_at_once])
def test_equal_calls_never_share_a_mask(
    story: Callable[[Cluster], Awaitable[Any]], seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses: dict[tuple[str, bytes, str, str, str], bytes] = {}
    streams: dict[bytes, tuple[bytes, str, str, str]] = {}
    original = PairwiseRandomness.draw

    def draw(
        self: PairwiseRandomness, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]
    ) -> RingArray:
        drawn = original(self, pair, purpose, path, ring, shape)
        address = (self._session, pair, purpose, path)
        key = (self._party, *address)
        assert key not in addresses, f"{address} is drawn twice at {self._party}"
        addresses[key] = drawn.tobytes()
        if drawn.nbytes >= 16:  # long enough never to repeat by chance
            assert streams.setdefault(drawn.tobytes(), address) == address, f"{address} repeats another mask"
        return drawn

    monkeypatch.setattr(PairwiseRandomness, "draw", draw)
    _, transcript = _run(story, seed, 0)
    inputs = [
        data for sender, _, data in transcript if sender == "upstream" and decode_frame(data).kind is Kind.DATA
    ]
    assert len({data[80:] for data in inputs}) == len(inputs) // 2, "two calls sent an equal masked input"
    for party, *address in addresses:
        holders = {name for name in (*SERVERS, "user", "upstream", "owner") if (name, *address) in addresses}
        drawn_equal = {addresses[name, *address] for name in holders}  # type: ignore[index]
        assert len(drawn_equal) == 1, f"{party} and its partner draw different masks at {address}"


@pytest.mark.parametrize("seed", [7, None])
def test_the_dealer_rotates_over_calls_in_turn(seed: int | None) -> None:
    """The dealer sends no part of the answer."""
    order: list[str] = []

    async def story(cluster: Cluster) -> None:
        for _ in range(6):
            result = await cluster.guard(LOGITS[0], DEFENDERS[0], LABEL)
            senders = {sender for sender, receiver in result.traffic.by_link() if receiver == "user"}
            (dealer,) = SERVERS - senders
            order.append(dealer)

    _run(story, seed, 0)
    assert set(order[:3]) == SERVERS, order
    assert order[:3] == order[3:], order
    assert all(one != other for one, other in pairwise(order)), order


def test_load_of_calls_at_once_is_shared() -> None:
    """Thirty calls at once: no server deals for nearly all of them."""
    dealers: list[str] = []

    async def story(cluster: Cluster) -> None:
        async def call(index: int) -> None:
            result = await cluster.guard(LOGITS[index % 12] + index, DEFENDERS[0], LABEL)
            senders = {sender for sender, receiver in result.traffic.by_link() if receiver == "user"}
            dealers.extend(SERVERS - senders)

        async with trio.open_nursery() as nursery:
            for index in range(30):
                nursery.start_soon(call, index)

    _run(story, None, 0)
    assert max(dealers.count(server) for server in SERVERS) <= 12, dealers


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.policy)
def test_answers_do_not_depend_on_calls_before(config: GuardConfig) -> None:
    """Up to the coins of truncation, a call gives the same after any history."""

    async def alone(cluster: Cluster) -> FloatArray:
        return (await cluster.guard(LOGITS[3], DEFENDERS[0], config)).confidences

    async def after_others(cluster: Cluster) -> FloatArray:
        await _at_once(cluster)
        return await alone(cluster)

    first, _ = _run(alone, 7, 0)
    second, _ = _run(after_others, 7, 0)
    assert np.abs(first - second).max() < 1e-3
