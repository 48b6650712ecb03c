"""Frames that are lost, doubled, bent or replayed: an error in time that names the sender, or the right answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import trio
from fault_links import (
    DEADLINE,
    SERVERS,
    SHORT,
    Sent,
    Wire,
    failure_of,
    open_sessions,
    seed_scheduler,
    session_tasks,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import Cluster, DeadlineError, GuardResult, SiguardError, open_cluster
from siguard.transport.frame import Frame, Kind, encode_frame

MODEL, DEFENDER = tiny_model(), tiny_defender()
#: A client waits longer than a server for one frame: servers notice a failure and tell, within their deadline.
PATIENCE = 20 * DEADLINE


#: By keys, so that the number of its frames does not follow the stored costs by which ``auto`` chooses.
CONFIG = SHORT.with_values(rounds="few")


async def _call(cluster: Cluster, path: str) -> GuardResult:
    if path == "guard":
        return await cluster.guard(some_logits(), DEFENDER, CONFIG)
    return await cluster.query(some_features(), MODEL, DEFENDER, CONFIG)


def _bent(sent: Sent, payload: Any) -> list[bytes]:
    frame = sent.frame
    return [encode_frame(Frame(frame.kind, frame.session, frame.step, frame.depth, payload))]


def _other_type(sent: Sent) -> list[bytes]:
    payload = sent.frame.payload
    return _bent(sent, payload.astype(np.uint32 if payload.itemsize != 4 else np.uint16))


def _one_more(sent: Sent) -> list[bytes]:
    flat = sent.frame.payload.reshape(-1)
    return _bent(sent, np.concatenate([flat, flat[:1]]))


def _one_axis_more(sent: Sent) -> list[bytes]:
    return _bent(sent, sent.frame.payload[None])


def _empty(sent: Sent) -> list[bytes]:
    return _bent(sent, sent.frame.payload.reshape(-1)[:0])


def _raw(*fields: Any) -> Callable[[Sent], list[bytes]]:
    import msgpack

    header = msgpack.packb([1, 2, b"x" * 16, b"y" * 8, 1, *fields])
    return lambda sent: [header.ljust(80, b"\0") + bytes(8)]


#: What a receiver can tell from the frame itself.
BENT: dict[str, Callable[[Sent], list[bytes]]] = {
    "another type": _other_type,
    "one element more": _one_more,
    "one axis more": _one_axis_more,
    "empty": _empty,
    "random bytes": lambda sent: [np.random.default_rng(0).bytes(len(sent.data))],
    "no bytes": lambda sent: [b""],
    "a byte less": lambda sent: [sent.data[:-1]],
    "a byte more": lambda sent: [sent.data + b"\0"],
    "header only": lambda sent: [sent.data[:80]],
    "padding set": lambda sent: [sent.data[:79] + b"\1" + sent.data[80:]],
    "another version": lambda sent: [sent.data[:1] + b"\x02" + sent.data[2:]],
    "a list for the element size": _raw([], [1], 8),
    "a list for the shape's entry": _raw(8, [[1]], 8),
    "an impossible axis": _raw(8, [0, 2**63], 8),
    "a huge shape": _raw(8, [2**40, 2**40], 8),
    "a text for the size": _raw(8, [1], "8"),
}


class Where(NamedTuple):
    """One data frame of a call, chosen by a seed."""

    path: str
    calls_before: int
    link: tuple[str, str]
    nth: int

    @classmethod
    def of(cls, seed: int, *, to_user: bool = False) -> Where:
        rng = np.random.default_rng(seed)
        path, calls = ("guard", "query")[rng.integers(2)], int(rng.integers(1, 4))
        # Server i deals in call 2 - i: keys to both others, wires to role 1; those two exchange.
        dealer = (2 + calls) % 3
        one, two = SERVERS[(dealer + 1) % 3], SERVERS[(dealer + 2) % 3]
        links = [((one, two), 35), ((two, one), 35), ((SERVERS[dealer], two), 55), ((SERVERS[dealer], one), 19)]
        if to_user:
            return cls(path, calls, [(one, "user"), (two, "user")][rng.integers(2)], 1)
        link, frames = links[rng.integers(4)]
        return cls(path, calls, link, int(rng.integers(1, frames, endpoint=True)))


async def _outcome(
    where: Where, change: Callable[[Sent], list[bytes]], seed: int
) -> tuple[SiguardError | None, float, Sent, dict[str, int]]:
    wire = Wire()
    seed_scheduler(seed)
    async with open_cluster(seed=seed, deadline=DEADLINE, wrap_link=wire) as cluster:
        for _ in range(where.calls_before):
            result = await _call(cluster, where.path)
        hit = wire.nth(where.link, where.nth, change)
        started = trio.current_time()
        error: SiguardError | None = None
        try:
            again = await _call(cluster, where.path)
        except SiguardError as problem:
            error = problem
        else:
            assert np.abs(again.confidences - result.confidences).max() < 1e-3, (
                f"seed {seed}, {where}: wrong answer"
            )
        seconds = trio.current_time() - started
        assert hit, f"seed {seed}, {where}: the call has no such frame"
        await trio.sleep(0.01)
        left = {**open_sessions(cluster), **session_tasks(cluster)}
    return error, seconds, hit[0], left


@pytest.mark.parametrize("seed", range(4))
async def test_a_lost_frame_ends_the_call_within_the_deadline(seed: int, autojump_clock: Any) -> None:
    where = Where.of(seed)
    error, seconds, _, left = await _outcome(where, lambda sent: [], seed)
    assert isinstance(error, DeadlineError), f"seed {seed}, {where}: {error!r}"
    assert seconds <= DEADLINE + 2, f"seed {seed}, {where}: {seconds} s"
    assert error.session is not None
    assert error.step is not None
    assert left == {}, f"seed {seed}, {where}: {left}"


@pytest.mark.parametrize("seed", [*range(8), 19, 49, 69, 139, 174, 179])
async def test_a_lost_frame_names_its_sender(seed: int, autojump_clock: Any) -> None:
    """Whoever waits for a frame that depends on the lost one must not be the one that is heard."""
    where = Where.of(seed)
    error, _, lost, _ = await _outcome(where, lambda sent: [], seed)
    assert error is not None
    assert error.party == lost.sender, f"seed {seed}, {where}: {error}"


@pytest.mark.parametrize("seed", range(9))
async def test_a_silent_server_is_named(seed: int, autojump_clock: Any) -> None:
    """It runs, its links are open, but nothing comes any more."""
    rng = np.random.default_rng(seed)
    silent, n = SERVERS[seed % 3], int(rng.integers(1, 36))
    wire = Wire()
    seed_scheduler(seed)
    async with open_cluster(seed=seed, deadline=DEADLINE, wrap_link=wire) as cluster:
        await _call(cluster, "query")
        left = n

        def mute(sent: Sent) -> list[bytes]:
            nonlocal left
            if sent.sender == silent:
                left -= 1
            return [] if sent.sender == silent and left <= 0 else [sent.data]

        wire.change = mute
        failure = await failure_of(_call(cluster, "query"))
    where = f"seed {seed}: {silent} silent from its frame {n} on"
    assert isinstance(failure.error, DeadlineError), f"{where}: {failure.error!r}"
    assert failure.seconds <= DEADLINE + 2, where
    assert failure.error.party == silent, f"{where}: {failure.error}"


@pytest.mark.parametrize("seed", range(4))
async def test_a_lost_part_of_the_answer(seed: int, autojump_clock: Any) -> None:
    where = Where.of(seed, to_user=True)
    error, seconds, lost, left = await _outcome(where, lambda sent: [], seed)
    assert isinstance(error, DeadlineError), f"seed {seed}: {error!r}"
    assert error.party == lost.sender
    assert error.step == "reveal"
    assert seconds <= PATIENCE + 1
    assert left == {}


@pytest.mark.parametrize("lost", ["start", "input"])
@pytest.mark.parametrize("path", ["guard", "query"])
async def test_a_lost_request(path: str, lost: str, autojump_clock: Any) -> None:
    wire = Wire()
    kind = Kind.START if lost == "start" else Kind.DATA
    client = "upstream" if path == "guard" else "user"
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await _call(cluster, path)
        wire.change = lambda sent: (
            [] if (sent.sender, sent.receiver) == (client, "S1") and sent.frame.kind is kind else [sent.data]
        )
        failure = await failure_of(_call(cluster, path))
        assert isinstance(failure.error, DeadlineError)
        assert failure.seconds <= DEADLINE + 2
        wire.change = lambda sent: [sent.data]
        await trio.sleep(2)
        assert {**open_sessions(cluster), **session_tasks(cluster)} == {}
        assert (await _call(cluster, path)).confidences.shape == (2, 4)


@pytest.mark.parametrize("to_user", [False, True])
@pytest.mark.parametrize("seed", range(5))
async def test_a_doubled_frame(seed: int, to_user: bool, autojump_clock: Any) -> None:
    """Noticed or not, which depends on timing: a prompt error that names the sender, or the right answer."""
    where = Where.of(seed, to_user=to_user)
    error, seconds, doubled, left = await _outcome(where, lambda sent: [sent.data, sent.data], seed)
    if error is not None:
        assert error.party == doubled.sender, f"seed {seed}, {where}: {error}"
        assert seconds <= 1, f"seed {seed}, {where}: noticed at once but told after {seconds} s: {error}"
    assert left == {}, f"seed {seed}, {where}: {left}"


@pytest.mark.parametrize("kind", BENT)
@pytest.mark.parametrize("seed", range(2))
async def test_a_bent_frame(seed: int, kind: str, autojump_clock: Any) -> None:
    where = Where.of(seed + 100)
    error, seconds, bent, left = await _outcome(where, BENT[kind], seed)
    assert error is not None, f"seed {seed}, {where}: answered in spite of {kind}"
    assert error.party == bent.sender, f"seed {seed}, {where}, {kind}: {error}"
    assert error.session is not None
    assert seconds <= 1, f"seed {seed}, {where}, {kind}: noticed at once but told after {seconds} s: {error}"
    assert left == {}, f"seed {seed}, {where}, {kind}: {left}"


@pytest.mark.parametrize("kind", BENT)
async def test_a_bent_answer(kind: str, autojump_clock: Any) -> None:
    where = Where.of(3, to_user=True)
    error, seconds, bent, left = await _outcome(where, BENT[kind], 3)
    assert error is not None, f"answered in spite of {kind}"
    assert error.party == bent.sender, f"{kind}: {error}"
    assert seconds <= 1
    assert left == {}, f"{kind}: {left}"


async def test_frames_of_a_finished_session_change_nothing(autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        for path in ("guard", "query"):
            first = await _call(cluster, path)
            old = list(wire.frames)
            for sent in old:
                await wire.ends[sent.sender, sent.receiver].link.send(sent.data)
                await trio.sleep(0.001)
            sent_before = len(wire.frames)
            await trio.sleep(1)
            assert len(wire.frames) == sent_before, "a replay made somebody send"
            assert open_sessions(cluster) == {}
            assert np.abs((await _call(cluster, path)).confidences - first.confidences).max() < 1e-3


@pytest.mark.parametrize("seed", range(4))
async def test_old_frames_under_the_name_of_a_running_session(seed: int, autojump_clock: Any) -> None:
    """Frames of a call with other shapes, their session replaced: no step takes a wrong one unnoticed."""
    wire = Wire()
    seed_scheduler(seed)
    async with open_cluster(seed=seed, deadline=DEADLINE, wrap_link=wire) as cluster:
        expected = (await _call(cluster, "guard")).confidences
        await _call(cluster, "guard")
        wire.frames.clear()
        await cluster.guard(some_logits(3), DEFENDER, SHORT)
        old = [sent.frame for sent in wire.frames if (sent.sender, sent.receiver) == ("S0", "S2")][20::7]
        assert old
        for _ in range(2):  # the third call from here has the same dealer again
            await _call(cluster, "guard")

        def with_old(sent: Sent) -> list[bytes]:
            frame = sent.frame
            if (sent.sender, sent.receiver) != ("S0", "S2") or not old or frame.kind is not Kind.DATA:
                return [sent.data]
            past = old.pop()
            return [encode_frame(Frame(past.kind, frame.session, past.step, past.depth, past.payload)), sent.data]

        wire.change = with_old
        failure = await failure_of(_call(cluster, "guard"))
        assert failure.error.party == "S0", f"seed {seed}: {failure.error}"
        assert failure.seconds <= 1, f"seed {seed}: {failure.error}"
        wire.change = lambda sent: [sent.data]
        assert np.abs((await _call(cluster, "guard")).confidences - expected).max() < 1e-3
