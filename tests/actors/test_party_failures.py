"""A party that stops: the session ends everywhere, the error names it, later calls fail fast, nothing is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio
from fault_links import (
    DEADLINE,
    LABEL,
    SERVERS,
    SHORT,
    Wire,
    failure_of,
    open_sessions,
    parties,
    seed_scheduler,
    session_tasks,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)

from siguard import Cluster, GuardResult, PartyFailedError, open_cluster

MODEL, DEFENDER = tiny_model(), tiny_defender()


async def _call(cluster: Cluster, path: str) -> GuardResult:
    if path == "guard":
        return await cluster.guard(some_logits(), DEFENDER, SHORT)
    return await cluster.query(some_features(), MODEL, DEFENDER, SHORT)


@pytest.mark.parametrize("seed", range(18))
async def test_a_server_killed_at_a_random_step(seed: int, autojump_clock: Any) -> None:
    rng = np.random.default_rng(seed)
    victim, path = SERVERS[rng.integers(3)], ("guard", "query")[rng.integers(2)]
    wire = Wire()
    seed_scheduler(seed)
    async with open_cluster(seed=seed, deadline=DEADLINE, wrap_link=wire) as cluster:
        for _ in range(rng.integers(1, 4)):  # so that each server deals in some of the runs
            frames = (await _call(cluster, path)).traffic.messages
        at = int(rng.integers(1, frames - 8))
        wire.count_down(at, lambda: cluster.kill(victim))
        where = f"seed {seed}: {victim} killed at frame {at} of {frames} of a {path}"
        failure = await failure_of(_call(cluster, path))
        assert failure.error.party == victim, f"{where}: {failure.error}"
        assert failure.error.session is not None, where
        assert failure.error.step is not None, where
        assert failure.seconds <= DEADLINE, f"{where}: took {failure.seconds} s"
        await trio.sleep(0.01)
        assert open_sessions(cluster) == {}, where
        assert session_tasks(cluster) == {}, where

        later = await failure_of(_call(cluster, path))
        assert later.error.party == victim, f"{where}: a later call says {later.error}"
        assert later.seconds <= 1, where


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("path", ["guard", "query"])
async def test_the_user_killed_at_a_random_step(seed: int, path: str, autojump_clock: Any) -> None:
    rng = np.random.default_rng(seed)
    wire = Wire()
    seed_scheduler(seed)
    async with open_cluster(seed=seed, deadline=DEADLINE, wrap_link=wire) as cluster:
        frames = (await _call(cluster, path)).traffic.messages
        at = int(rng.integers(4, frames - 8))
        wire.count_down(at, lambda: cluster.kill("user"))
        where = f"seed {seed}: user killed at frame {at} of a {path}"
        failure = await failure_of(_call(cluster, path))
        assert failure.error.party == "user", f"{where}: {failure.error}"
        assert failure.seconds <= DEADLINE, where
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}, where


@pytest.mark.parametrize("victim", SERVERS)
@pytest.mark.parametrize("wait", [0, 1])
async def test_calls_after_a_server_was_killed(victim: str, wait: int, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await _call(cluster, "guard")
        await _call(cluster, "query")
        cluster.kill(victim)
        await trio.sleep(wait)
        for path in ("guard", "query", "guard"):
            failure = await failure_of(_call(cluster, path))
            assert isinstance(failure.error, PartyFailedError), f"{path}: {failure.error!r}"
            assert failure.error.party == victim, f"{path}: {failure.error}"
            assert failure.seconds <= 1, f"{path} took {failure.seconds} s"
        await trio.sleep(1)
        assert open_sessions(cluster) == {}, "aborted sessions that a server never began are kept for ever"


@pytest.mark.parametrize("path", ["guard", "query"])
@pytest.mark.parametrize("wait", [0, 1])
async def test_calls_after_the_user_was_killed(path: str, wait: int, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await _call(cluster, path)
        cluster.kill("user")
        await trio.sleep(wait)
        failure = await failure_of(_call(cluster, path))
        assert failure.seconds <= DEADLINE, f"waited {failure.seconds} s for: {failure.error}"
        assert failure.error.party == "user", str(failure.error)


@pytest.mark.parametrize("wait", [0, 1])
async def test_calls_after_upstream_was_killed(wait: int, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await _call(cluster, "guard")
        cluster.kill("upstream")
        await trio.sleep(wait)
        failure = await failure_of(_call(cluster, "guard"))
        assert failure.seconds <= DEADLINE
        assert failure.error.party == "upstream", str(failure.error)
        assert (await _call(cluster, "query")).confidences.shape == (2, 4), "queries do not need upstream"


async def test_calls_after_the_owner_was_killed(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await _call(cluster, "guard")
        cluster.kill("owner")
        await trio.sleep(1)
        assert (await _call(cluster, "guard")).confidences.shape == (2, 4), "what is shared and signed still serves"
        failure = await failure_of(cluster.guard(some_logits(), tiny_defender(5), SHORT))
        assert failure.seconds <= DEADLINE
        assert failure.error.party == "owner", str(failure.error)


@pytest.mark.parametrize("victim", [*SERVERS, "owner"])
@pytest.mark.parametrize("at", [1, 3, 5, 6, 8, 10])
async def test_killed_while_a_network_is_shared(victim: str, at: int, autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        wire.count_down(at, lambda: cluster.kill(victim))
        failure = await failure_of(cluster.guard(some_logits(), DEFENDER, LABEL))
        where = f"{victim} killed at frame {at} of the set-up: {failure.error}"
        assert failure.error.party == victim, where
        assert failure.seconds <= DEADLINE, where
        later = await failure_of(cluster.guard(some_logits(), DEFENDER, LABEL))
        assert later.seconds <= DEADLINE, where
        await trio.sleep(1)
        assert session_tasks(cluster) == {}, where


async def test_all_servers_killed_at_once(autojump_clock: Any) -> None:
    wire = Wire()

    def kill_all() -> None:
        for server in SERVERS:
            cluster.kill(server)

    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await _call(cluster, "query")
        wire.count_down(20, kill_all)
        failure = await failure_of(_call(cluster, "query"))
        assert failure.error.party in SERVERS
        assert failure.seconds <= DEADLINE
        await trio.sleep(0.01)
        assert all(parties(cluster)[name].nursery is None for name in SERVERS)


async def test_killing_twice_is_harmless(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        for _ in range(3):
            cluster.kill("S1")
            await trio.sleep(0.1)
        assert (await failure_of(_call(cluster, "guard"))).error.party == "S1"


@pytest.mark.parametrize("path", ["guard", "query"])
async def test_a_cluster_that_was_left_says_so(path: str, autojump_clock: Any) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await _call(cluster, path)
    failure = await failure_of(_call(cluster, path))
    assert failure.seconds <= 1
    assert isinstance(failure.error, PartyFailedError)


@pytest.mark.parametrize("victim", SERVERS)
async def test_sessions_of_a_killed_server_all_end(victim: str, autojump_clock: Any) -> None:
    """Ten calls in flight: each gets its own error, with its own session."""
    wire = Wire()
    errors = []

    async def one(index: int) -> None:
        call: Callable[[], Any] = lambda: cluster.guard(some_logits(seed=index), DEFENDER, SHORT)  # noqa: E731
        errors.append((await failure_of(call())).error)

    async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
        await _call(cluster, "guard")
        wire.count_down(400, lambda: cluster.kill(victim))
        async with trio.open_nursery() as nursery:
            for index in range(10):
                nursery.start_soon(one, index)
        assert len(errors) == 10
        assert {error.party for error in errors} == {victim}, [str(error) for error in errors]
        assert len({error.session for error in errors}) == 10
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}
