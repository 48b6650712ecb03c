"""Prepared queries in a deployment: as in memory; what is prepared ends with a link or a process."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from deploy_helpers import (
    LINESEARCH,
    SHORT,
    assert_right,
    deployed,
    failure_of,
    no_sessions,
    nothing_left,
    settled,
    some_features,
    tiny_defender,
    tiny_model,
)

import siguard
from siguard import InputError
from siguard.actors.limits import MOST_PREPARED
from siguard.actors.prepared import PREPARE
from siguard.actors.session import SERVERS


async def test_the_same_as_in_memory() -> None:
    model, defender = tiny_model(), tiny_defender()
    with trio.fail_after(20):
        async with nothing_left(), siguard.open_cluster() as cluster, deployed() as here, here.connect() as user:
            # Planned for the links at hand, so for comparison planned the same.
            for config in (one.with_values(rounds="few") for one in (SHORT, LINESEARCH)):
                await cluster.prepare(defender, config, 2, model=model)
                await user.prepare(2, config, 2)
                there = await cluster.query(some_features(), model, defender, config)
                for _ in range(2):
                    answer = await user.query(some_features(), config)
                    assert_right(answer, there.confidences)
                    for count in ("rounds", "messages", "bytes_total", "prepare", "online"):
                        assert getattr(answer.traffic, count) == getattr(there.traffic, count), count
                    assert answer.traffic.by_step().keys() == there.traffic.by_step().keys()
                assert PREPARE not in (await user.query(some_features(), config)).traffic.by_step()


async def test_a_server_that_is_started_again_knows_nothing_of_them(tmp_path: Path) -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(state=tmp_path) as here, here.connect() as user:
            await user.prepare(2, SHORT, 3)
            assert PREPARE in (await user.query(some_features(), SHORT)).traffic.by_step()
            await here.stop("S1")
            others = [here.servers[server] for server in SERVERS if server != "S1"]
            assert await settled(lambda: no_sessions(*others) and len(user._client._stock) == 0)
            await here.start("S1")
            await here.linked()
            result = await user.query(some_features(), SHORT)
            assert PREPARE not in result.traffic.by_step()
            await user.prepare(2, SHORT)
            assert PREPARE in (await user.query(some_features(), SHORT)).traffic.by_step()


async def test_a_user_who_leaves_takes_them_along() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here:
            async with here.connect() as user:
                await user.prepare(2, LINESEARCH, 3)
                assert not no_sessions(*here.servers.values())
            assert await settled(lambda: no_sessions(*here.servers.values()))


async def test_half_of_a_servers_sessions_may_be_prepared() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(sessions=5) as here, here.connect() as user, here.connect() as other:
            await user.prepare(2, LINESEARCH, 2)
            failure = await failure_of(other.prepare(2, LINESEARCH))
            assert "limits.sessions" in failure.error.message
            assert_right(await other.query(some_features(), LINESEARCH))
            with pytest.raises(InputError, match="count"):
                await other.prepare(2, LINESEARCH, MOST_PREPARED + 1)
            assert PREPARE in (await user.query(some_features(), LINESEARCH)).traffic.by_step()
