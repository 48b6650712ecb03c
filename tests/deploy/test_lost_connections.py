"""Connections that are cut or swallow what is sent: the session ends in time, a later one works on a new link."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from deploy_helpers import (
    DEADLINE,
    GRACE,
    SHORT,
    Deployed,
    Failure,
    assert_right,
    deals,
    deployed,
    failure_of,
    no_sessions,
    nothing_left,
    settled,
    some_features,
)
from middleman import Connection, Middle, Passed, swallow

from siguard import DeadlineError, GuardResult, PartyFailedError
from siguard.actors.session import SERVERS
from siguard.deploy.user import User


def when_under_way(connection: Connection, action: Callable[[], None], after: int = 5) -> None:
    """Run ``action`` in the middle of a session: when this connection has passed some more frames."""
    left = after

    def count(passed: Passed) -> list[bytes]:
        nonlocal left
        left -= 1
        if left == 0:
            action()
        return [passed.data]

    connection.change = count


async def works_again(here: Deployed, user: User, seconds: float = 5.0) -> GuardResult:
    """A later query is answered: links come back by themselves."""
    with trio.fail_after(seconds):
        await here.linked()
        return await user.query(some_features(), SHORT)


async def test_a_connection_between_servers_is_reset() -> None:
    middle = Middle()
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand) as here, here.connect() as user:
            expected = (await user.query(some_features(), SHORT)).confidences
            link = await middle.link(here, "S2", "S1")
            deals(user, "S0")  # S1 and S2 exchange
            when_under_way(link, link.reset)
            failure = await failure_of(user.query(some_features(), SHORT))
            assert not link.open
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party in ("S1", "S2")
            assert failure.error.session is not None
            assert failure.error.step is not None
            assert "S1" in failure.error.message
            assert "S2" in failure.error.message
            assert failure.seconds < DEADLINE
            assert await settled(lambda: no_sessions(*here.servers.values()))
            assert_right(await works_again(here, user), expected)


@pytest.mark.parametrize("server", SERVERS)
async def test_a_users_connection_is_reset(server: str) -> None:
    middle = Middle()
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand) as here, here.connect() as user:
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            link = await middle.link(here, user, server)
            deals(user, next(other for other in SERVERS if other != server))
            # The request passes; with the user's part of the input the connection is gone.
            when_under_way(link, link.reset, after=2)
            failure = await failure_of(user.query(some_features(), service=service))
            assert not link.open
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party in (server, user._client.name)
            assert failure.error.session is not None
            assert failure.seconds < DEADLINE
            assert await settled(lambda: no_sessions(*here.servers.values()))
            assert_right(await works_again(here, user))


async def test_a_session_beside_goes_on_when_another_users_link_is_cut() -> None:
    middle = Middle()
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(between=middle.stand) as here,
            here.connect() as one,
            here.connect() as other,
        ):
            [service] = [found for found in await one.services() if found.config.policy == "siguard"]
            links = [await middle.link(here, other, server) for server in SERVERS]
            answers: list[GuardResult] = []
            failures: list[Failure] = []

            async def ask() -> None:
                answers.append(await one.query(some_features(64), service=service))

            async def be_cut_off() -> None:
                failures.append(await failure_of(other.query(some_features(64), service=service)))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                nursery.start_soon(be_cut_off)
                assert await settled(lambda: all(len(server._serving) == 2 for server in here.servers.values()))
                for link in links:
                    link.reset()
            assert_right(answers[0])
            assert isinstance(failures[0].error, PartyFailedError)
            assert_right(await works_again(here, other))


@pytest.mark.parametrize("dealer", ["S0", "S2"])
async def test_a_connection_between_servers_swallows_everything(dealer: str) -> None:
    """The kernels at both ends acknowledge, so that only the deadline tells."""
    middle = Middle()
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand) as here, here.connect() as user:
            await user.services()
            link = await middle.link(here, "S2", "S1")
            deals(user, dealer)
            when_under_way(link, lambda: setattr(link, "change", swallow), after=3)
            failure = await failure_of(user.query(some_features(), SHORT))
            assert isinstance(failure.error, DeadlineError)
            assert failure.error.party in ("S1", "S2")
            assert failure.error.session is not None
            assert failure.error.step is not None
            assert DEADLINE <= failure.seconds < DEADLINE + GRACE
            assert await settled(lambda: no_sessions(*here.servers.values()))
            # The way is open again, but what was lost is missed by the seal: a new connection.
            link.change = lambda passed: [passed.data]
            deals(user, dealer)
            again = await failure_of(user.query(some_features(), SHORT))
            assert again.error.party in ("S1", "S2")
            assert not link.open or await settled(lambda: not link.open)
            assert_right(await works_again(here, user))


async def test_a_users_connection_swallows_everything() -> None:
    middle = Middle()
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand) as here, here.connect() as user:
            await user.services()
            link = await middle.link(here, user, "S1")
            link.change = swallow
            service = (await failure_of(user.services())).error
            assert isinstance(service, DeadlineError)
            assert service.party == "S1"


async def test_a_connection_that_is_not_made_again_is_named() -> None:
    middle = Middle()
    with trio.fail_after(20):
        async with nothing_left(), deployed(between=middle.stand, connect=0.5) as here, here.connect() as user:
            await user.services()
            middle.refuse.add("S1")
            (await middle.link(here, "S2", "S1")).reset()
            assert await settled(lambda: not here.servers["S2"].has_link("S1"))
            failure = await failure_of(user.query(some_features(), SHORT))
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party in ("S1", "S2")
            assert "no link to" in failure.error.message
            assert failure.seconds < DEADLINE + GRACE
            middle.refuse.clear()
            assert_right(await works_again(here, user))
