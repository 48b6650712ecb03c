"""Parties that are missing, or are not who the deployment file says: no link, and an error that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import pytest
import trio
from deploy_helpers import (
    DEADLINE,
    GRACE,
    SHORT,
    Deployed,
    assert_right,
    deployed,
    failure_of,
    nothing_left,
    settled,
    some_features,
    with_server,
)
from middleman import Middle, Passed, unchanged
from nacl.signing import SigningKey

from siguard import InputError, PartyFailedError, SiguardError
from siguard.actors.session import SERVERS
from siguard.deploy.owner import connect_owner
from siguard.deploy.party import open_party
from siguard.deploy.user import connect
from siguard.transport.secure import Identity


def fresh_identity(name: str) -> Identity:
    return Identity(name, SigningKey.generate())


async def refusal_of(here: Deployed, identity: Identity) -> SiguardError:
    """Why a user gets no answer; every server is asked, so that each is to blame."""
    async with connect(here.deployment, identity) as user:
        failure = await failure_of(user.services())
    assert isinstance(failure.error, PartyFailedError)
    assert failure.seconds < DEADLINE + GRACE
    assert here.users_of("S0") == []
    return failure.error


@pytest.mark.parametrize("missing", SERVERS)
async def test_a_server_that_never_starts_is_named(missing: str) -> None:
    with trio.fail_after(20):
        present = [server for server in SERVERS if server != missing]
        async with nothing_left(), deployed(start=present, connect=0.4) as here:
            async with here.connect() as user:
                failure = await failure_of(user.query(some_features(), SHORT))
            address = here.deployment.servers[missing].address
            assert failure.error.party == missing
            assert f"has no link to {missing} ({address}): " in failure.error.message
            assert "connection refused: nothing listens there (yet)" in failure.error.message
            assert failure.seconds < DEADLINE + GRACE
            failure = await failure_of(here.share())
            assert failure.error.party == missing
            assert failure.error.session is not None
            # It comes at last.
            await here.start(missing)
            await here.linked()
            await here.share()
            async with here.connect() as user:
                assert_right(await user.query(some_features(), SHORT))


@pytest.mark.parametrize("order", list(permutations(SERVERS)))
async def test_parties_start_in_any_order(order: Sequence[str]) -> None:
    """The user first, and the servers while it waits."""
    with trio.fail_after(20):
        async with nothing_left(), deployed(start=(), connect=5.0) as here, here.connect() as user:

            async def start_all() -> None:
                for server in order:
                    await trio.sleep(0.02)
                    await here.start(server)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(start_all)
                await here.share()
            assert_right(await user.query(some_features(), SHORT))


async def test_users_with_a_wrong_key() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(users=("user", "other"), connect=0.4) as here:
            keys = {name: identity.signing_key for name, identity in here.loopback.identities.items()}
            for key in (SigningKey.generate(), keys["other"], keys["owner"], keys["S0"]):
                error = await refusal_of(here, Identity("user", key))
                assert error.party in SERVERS
                assert "pins another key" in error.message
            async with connect(here.deployment, here.loopback.identities["user"]) as user:
                assert_right(await user.query(some_features(), SHORT))


async def test_a_user_whom_the_servers_do_not_know() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(connect=0.4) as here:
            stranger = fresh_identity("mallory")
            with pytest.raises(InputError, match=r"mallory is no user of deployment\.toml; there are user"):
                await connect(here.deployment, stranger).__aenter__()
            with pytest.raises(InputError, match="mallory is not the model owner; use the key of owner"):
                await connect_owner(here.deployment, stranger).__aenter__()
            with pytest.raises(InputError, match=r"mallory is no server of deployment\.toml; there are S0, S1, S2"):
                await open_party(here.deployment, stranger).__aenter__()
            users = {**here.deployment.users, "mallory": stranger.signing_key.verify_key}
            here.loopback = here.loopback.changed(users=users)
            error = await refusal_of(here, stranger)
            assert "that name is not in its deployment file" in error.message


@pytest.mark.parametrize("whose", ["nobody", "S2", "user"])
async def test_a_server_with_a_wrong_key(whose: str) -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(start=["S0", "S2"], connect=0.4) as here:
            key = here.loopback.identities[whose].signing_key if whose in here.loopback.identities else None
            await here.start("S1", identity=Identity("S1", key or SigningKey.generate()))
            async with here.connect() as user:
                failure = await failure_of(user.services())
            assert failure.error.party == "S1"
            assert "S1 proved another key" in failure.error.message
            assert await settled(lambda: "S1" in here.servers["S2"].problems)
            assert "S1 proved another key" in here.servers["S2"].problems["S1"]
            # With its own key it is let in.
            await here.stop("S1")
            await here.start("S1")
            await here.linked()
            await here.share()
            async with here.connect() as user:
                assert_right(await user.query(some_features(), SHORT))


async def test_a_server_at_anothers_address() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(start=["S0", "S1"], connect=0.4) as here:
            ports = here.ports["S0"], here.ports["S1"]
            wrong = with_server(with_server(here.deployment, "S0", port=ports[1]), "S1", port=ports[0])
            async with connect(wrong, here.loopback.identities["user"]) as user:
                failure = await failure_of(user.services())
                assert failure.error.party in SERVERS
                assert "reached S1 where S0 was expected" in user.problems["S0"]
                assert "reached S0 where S1 was expected" in user.problems["S1"]


async def test_a_server_with_another_deployment_file() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(start=["S0", "S2"], connect=0.4) as here:
            limits = here.deployment.limits.model_copy(update={"deadline": 2.0})
            other = replace(here.deployment, limits=limits, name="another")
            await here.start("S1", deployment=other)
            async with here.connect() as user:
                failure = await failure_of(user.services())
            assert failure.error.party == "S1"
            said = "S1 has another deployment file: limits.deadline, name differ; copy one file to every host"
            assert said in failure.error.message
            assert await settled(lambda: said in here.servers["S2"].problems.get("S1", ""))


async def test_a_client_with_another_deployment_file() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(connect=0.4) as here:
            mine = with_server(here.deployment, "S2", key=SigningKey.generate().verify_key)
            async with connect(mine, here.loopback.identities["user"]) as user:
                failure = await failure_of(user.services())
                assert "S2 proved another key" in user.problems["S2"]
                assert "S0 has another deployment file: servers.S2.key differ" in user.problems["S0"]
                assert failure.error.party in SERVERS


async def test_another_protocol_version() -> None:
    """As if S1 were of a later release: whoever meets it says so, on both sides."""

    def later(passed: Passed) -> list[bytes]:
        # The length, 7 bytes of magic, the kind, and two bytes of version.
        if passed.connection.server == "S1" and passed.data[4:11] == b"siguard":
            return [passed.data[:12] + b"\0\x7f" + passed.data[14:]]
        return [passed.data]

    middle = Middle(change=later)
    with trio.fail_after(20):
        async with nothing_left(), deployed(start=["S0"], between=middle.stand, connect=0.4) as here:
            await here.start("S1")
            await here.start("S2")
            async with here.connect() as user:
                failure = await failure_of(user.services())
            assert failure.error.party == "S1"
            said = "the other end speaks protocol version 127, this side 1: install the same release at both ends"
            assert said in failure.error.message
            assert said in here.servers["S2"].problems["S1"]
            middle.change = unchanged
            await here.linked()
            await here.share()
            async with here.connect() as user:
                assert_right(await user.query(some_features(), SHORT))
