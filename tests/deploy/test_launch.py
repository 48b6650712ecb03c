"""Three real processes on this machine: one is killed, comes back with its state, and nothing stays in the end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import trio
from deploy_helpers import SHORT, assert_right, failure_of, nothing_left, some_features, tiny_defender, tiny_model

from siguard import PartyFailedError
from siguard.actors.session import SERVERS
from siguard.deploy.file import load_deployment
from siguard.deploy.keys import default_key_file
from siguard.deploy.launch import open_processes
from siguard.deploy.loopback import make_loopback
from siguard.deploy.owner import connect_owner
from siguard.deploy.user import connect

#: Seconds until three processes have started, on a machine that does other things too.
STARTED = 30.0


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_server_is_killed_and_comes_back() -> None:
    with trio.fail_after(90):
        async with nothing_left():
            loopback = await make_loopback()
            limits = loopback.deployment.limits.model_copy(update={"deadline": 5.0, "connect": STARTED})
            loopback = loopback.changed(limits=limits)
            deployment, identities = loopback.deployment, loopback.identities
            async with open_processes(loopback) as processes:
                assert load_deployment(processes.config) == deployment
                for server in SERVERS:
                    key_file = default_key_file(processes.config, server)
                    assert deployment.identity(server, key_file).name == server
                async with connect_owner(deployment, identities["owner"]) as owner:
                    await owner.share(tiny_model(), tiny_defender(), [SHORT], "tiny")
                async with connect(deployment, identities["user"]) as user:
                    expected = (await user.query(some_features())).confidences
                    killed = processes.pid("S1")
                    async with trio.open_nursery() as nursery:
                        failures = []

                        async def ask() -> None:
                            failures.append(await failure_of(user.query(some_features(2000))))

                        nursery.start_soon(ask)
                        await trio.sleep(0.1)
                        processes.signal("S1", signal.SIGKILL)
                    assert isinstance(failures[0].error, PartyFailedError)
                    assert failures[0].error.party == "S1"
                    assert failures[0].seconds < 5
                    assert await processes.wait("S1") == -signal.SIGKILL
                    await processes.start("S1")
                    assert processes.pid("S1") != killed
                    # Its shares were in its folder: nobody has to share again.
                    assert_right(await user.query(some_features()), expected)
                pids = [processes.pid(server) for server in SERVERS]
                folder = processes.folder
                secrets = [identity.signing_key.encode().hex() for identity in identities.values()]
                for server in SERVERS:
                    text = processes.log(server).read_text(encoding="utf-8")
                    lines = [json.loads(line) for line in text.splitlines()]
                    assert [line["party"] for line in lines] == [server] * len(lines)
                    assert {"timestamp", "level", "event"} <= lines[0].keys()
                    assert any(line["event"] == "link open" for line in lines)
                    assert not any(secret in text for secret in secrets)
                    assert processes.end_of_log(server, 1) == text.splitlines()[-1]
            assert not any(is_there(pid) for pid in [*pids, killed])
            assert not folder.exists()
    for server in SERVERS:
        endpoint = deployment.servers[server]
        with pytest.raises(OSError, match=r"refused|connect"):
            await trio.open_tcp_stream(endpoint.host, endpoint.port)


async def test_a_server_that_cannot_start_is_named(tmp_path: Path) -> None:
    """Its log says why; the others are ended."""
    with trio.fail_after(60):
        async with nothing_left():
            loopback = await make_loopback()
            async with open_processes(loopback) as processes:
                await processes.stop("S1")
                default_key_file(processes.config, "S1").chmod(0o644)
                await processes.start("S1")
                with pytest.raises(PartyFailedError, match="S1 ended with status 2") as caught:
                    await processes.watch()
                assert "run: chmod 600" in caught.value.message
                assert caught.value.party == "S1"
                folder = processes.folder
            assert not folder.exists()
