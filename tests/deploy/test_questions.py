"""Questions to a server are no sessions: they keep no query out, and are answered when no query would be."""

from __future__ import annotations

import trio
from deploy_helpers import assert_right, deployed, nothing_left, some_features


async def test_questions_count_for_no_session() -> None:
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(sessions=1) as here,
            here.connect() as user,
            here.connect() as curious,
        ):
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            async with trio.open_nursery() as nursery:
                for _ in range(30):
                    nursery.start_soon(curious.services)
                assert_right(await user.query(some_features(), service=service))


async def test_status_counts_sessions_only() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user:
            await user.services()
            server = here.servers["S1"]
            status = await user._client.inquire("S1", "status")
            # Nobody is told who else is a client.
            assert sorted(status["links"]) == ["S0", "S2"]
            assert all(0 < seconds < 2 for seconds in status.pop("links").values())
            assert status == {
                "party": "S1",
                "problems": {},
                "sessions": 0,
                "draining": False,
                "networks": 2,
            }
            await server.drain()
            assert (await user._client.inquire("S1", "status"))["draining"] is True
            assert len(await user.services()) == 2
