"""A party that stops, leaves, falls behind or has too much to do: its sessions end in time, the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.lowlevel
from deploy_helpers import (
    DEADLINE,
    GRACE,
    SHORT,
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
from frame_taps import Sent, Tap

from siguard import DeadlineError, GuardResult, PartyFailedError, ProtocolError
from siguard.actors.inquiries import TRAFFIC
from siguard.actors.messages import Ask
from siguard.actors.session import SERVERS
from siguard.deploy.connections import BoundedLink
from siguard.deploy.user import User
from siguard.transport.frame import Kind
from siguard.transport.link import Link
from siguard.transport.secure import SealedLink
from siguard.transport.tcp import TcpLink
from siguard.transport.wrapped import WrappedLink


@pytest.mark.parametrize("victim", SERVERS)
async def test_a_server_stops_in_the_middle_of_a_session(victim: str, tmp_path: Path) -> None:
    """Stopped, and started again from its folder: what the owner shared is still there."""
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed(wrap_link=tap, state=tmp_path) as here, here.connect() as user:
            expected = (await user.query(some_features(), SHORT)).confidences

            async def stop(sent: Sent) -> list[bytes]:
                here.stop_soon(victim)
                return [sent.data]

            others = [server for server in SERVERS if server != victim]
            deals(user, others[0])
            # The victim and the last one exchange.
            hit = tap.at(victim, others[1], 10, stop)
            failure = await failure_of(user.query(some_features(), SHORT))
            assert len(hit) == 1
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party == victim, failure.error
            assert failure.error.session is not None
            assert failure.error.step is not None
            assert failure.seconds < DEADLINE
            assert await settled(lambda: no_sessions(*here.servers.values()))
            gone = await failure_of(user.query(some_features(), SHORT))
            assert gone.error.party == victim
            assert gone.seconds < DEADLINE + GRACE
            await here.start(victim)
            await here.linked()
            assert_right(await user.query(some_features(), SHORT), expected)


async def test_a_user_who_loses_patience() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(user.query, some_features(64), SHORT)
                    assert await settled(lambda: all(server._serving for server in here.servers.values()))
                    # Not the questions before the query.
                    assert await settled(lambda: bool(user._client._mailboxes))
                    scope.cancel()
            assert scope.cancelled_caught
            assert await settled(lambda: no_sessions(*here.servers.values()), DEADLINE / 2)
            assert_right(await user.query(some_features(), SHORT))


async def test_a_users_process_that_is_gone() -> None:
    """Its sockets close without a word, as the kernel does it for a killed process."""
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user, here.connect() as other:
            [service] = [one for one in await other.services() if one.config.policy == "siguard"]
            async with trio.open_nursery() as nursery:
                failures: list[Failure] = []

                async def ask() -> None:
                    failures.append(await failure_of(other.query(some_features(64), service=service)))

                nursery.start_soon(ask)
                assert await settled(lambda: all(server._serving for server in here.servers.values()))
                nursery.start_soon(user.query, some_features(), SHORT)
                for link in other._client._links.values():
                    die(link)
            assert failures[0].seconds < DEADLINE
            assert await settled(lambda: no_sessions(*here.servers.values()))


def die(link: Link) -> None:
    """Close the socket under a link."""
    assert isinstance(link, BoundedLink)
    assert isinstance(link.link, SealedLink)
    assert isinstance(link.link._inner, TcpLink)
    socket = link.link._inner._socket
    trio.lowlevel.notify_closing(socket)
    socket.close()


class Stuck(WrappedLink):
    """An end of a link that takes nothing while it is stuck, as when the other end reads no more."""

    def __init__(self, link: Link, owner: str, clog: Clog) -> None:
        super().__init__(link)
        self._ends = {owner, link.peer}
        self._clog = clog

    async def send(self, data: bytes) -> None:
        if self._clog.victim in self._ends:
            self._clog.left -= 1
            if self._clog.left < 0:
                await self._clog.open.wait()
        await self.link.send(data)


class Clog:
    """Makes all links of one party stick after some more frames on them; pass it as ``wrap_link``."""

    def __init__(self) -> None:
        self.victim = ""
        self.left = 0
        self.open = trio.Event()

    def __call__(self, link: Link, owner: str) -> Link:
        return Stuck(link, owner, self)


@pytest.mark.parametrize("victim", SERVERS)
async def test_a_server_that_stands_still(victim: str) -> None:
    """It neither reads nor sends.  The others and the user are told, though what is for it goes nowhere."""
    clog = Clog()
    with trio.fail_after(20):
        async with nothing_left(), deployed(wrap_link=clog) as here, here.connect() as user:
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            deals(user, next(server for server in SERVERS if server != victim))
            clog.victim, clog.left = victim, 10
            failure = await failure_of(user.query(some_features(), service=service))
            assert isinstance(failure.error, DeadlineError)
            assert failure.error.party == victim, failure.error
            assert failure.error.session is not None
            assert failure.error.step is not None
            assert failure.seconds < DEADLINE + GRACE
            clog.open.set()
            assert await settled(lambda: no_sessions(*here.servers.values()))
            assert_right(await user.query(some_features(), SHORT))


async def test_no_more_sessions_than_agreed() -> None:
    """Questions are no sessions: any number of them keeps no query out."""
    with trio.fail_after(20):
        async with nothing_left(), deployed(sessions=2) as here, here.connect() as user:
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            answers: list[GuardResult] = []
            refused: list[ProtocolError] = []

            async def ask() -> None:
                try:
                    answers.append(await user.query(some_features(), service=service))
                except ProtocolError as error:
                    refused.append(error)

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(ask)
            assert len(answers) + len(refused) == 6
            assert refused
            for error in refused:
                assert isinstance(error, PartyFailedError)
                assert "already serves 2 sessions at once; ask again later" in error.message
                assert error.party in SERVERS
                assert error.session is not None
            for answer in answers:
                assert_right(answer)
            assert await settled(lambda: no_sessions(*here.servers.values()))
            async with trio.open_nursery() as nursery:
                answers.clear()
                for _ in range(20):
                    nursery.start_soon(user.services)
                nursery.start_soon(ask)
                nursery.start_soon(ask)
            assert len(answers) == 2


async def test_draining_lets_sessions_end() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user:
            [service] = [one for one in await user.services() if one.config.policy == "siguard"]
            answers: list[GuardResult] = []
            refused: list[Failure] = []

            async def ask() -> None:
                answers.append(await user.query(some_features(32), service=service))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                server = here.servers["S1"]
                assert await settled(lambda: bool(server._serving))
                nursery.start_soon(server.drain)
                await trio.lowlevel.checkpoint()
                assert not answers
                refused.append(await failure_of(user.query(some_features(), service=service)))
            assert isinstance(refused[0].error, PartyFailedError)
            assert refused[0].error.party == "S1"
            assert "S1 is shutting down and takes no more requests" in refused[0].error.message
            assert_right(answers[0])


async def test_a_server_that_goes_after_the_answer_takes_nothing_with_it() -> None:
    """The user has its answer, and does not learn what that server sent."""
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect(wrap_link=tap) as user:
            whole = await user.query(some_features(), SHORT)

            async def stop(sent: Sent) -> list[bytes]:
                asked = sent.frame.kind is Kind.ASK and Ask.decode(sent.frame.payload).what == TRAFFIC
                if asked and sent.receiver == "S1":
                    await here.stop("S1")
                return [sent.data]

            tap.change = stop
            result = await user.query(some_features(), SHORT)
            assert_right(result, whole.confidences)
            assert 0 < result.traffic.messages < whole.traffic.messages


async def test_two_processes_of_one_user_and_another_user() -> None:
    with trio.fail_after(20):
        async with (
            nothing_left(),
            deployed(users=("alice", "bob")) as here,
            here.connect("alice") as one,
            here.connect("alice") as two,
            here.connect("bob") as other,
        ):
            answers: list[GuardResult] = []

            async def ask(user: User, seed: int) -> None:
                result = await user.query(some_features(seed=seed), SHORT)
                answers.append(result)

            for seed in (1, 2):
                answers.clear()
                async with trio.open_nursery() as nursery:
                    for user in (one, two, other):
                        nursery.start_soon(ask, user, seed)
                for answer in answers:
                    assert_right(answer, answers[0].confidences)
            assert [len(here.users_of(server)) for server in SERVERS] == [3, 3, 3]
            keys = [name for name in here.servers["S0"]._keys if name.startswith("alice/")]
            assert len(keys) == 4


async def test_keys_of_clients_who_have_left_are_dropped() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here:
            for _ in range(3):
                async with here.connect() as user:
                    await user.query(some_features(), SHORT)
            assert await settled(lambda: [len(server._keys) for server in here.servers.values()] == [2, 2, 2])
            assert [here.users_of(server) for server in SERVERS] == [[], [], []]
