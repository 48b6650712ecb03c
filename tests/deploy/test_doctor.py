"""`siguard doctor` from inside: each link and key is probed, and the one that is blocked or differs is named."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import trio
from deploy_helpers import Deployed, deployed, nothing_left, settled
from middleman import Middle, Passed, swallow, unchanged
from nacl.signing import SigningKey

from siguard.actors.session import SERVERS
from siguard.deploy import connections
from siguard.deploy.doctor import Finding, examine
from siguard.transport.secure import Identity

#: From the user to each server, and between servers as the one that dials tells it.
LINKS = [("user", "S0"), ("user", "S1"), ("S1", "S0"), ("user", "S2"), ("S2", "S0"), ("S2", "S1")]


async def examined(here: Deployed, patience: float = 0.5) -> dict[tuple[str, str], Finding]:
    findings = await examine(here.deployment, here.loopback.identities["user"], patience)
    assert [(one.source, one.target) for one in findings] == LINKS
    return {(one.source, one.target): one for one in findings}


def bad(findings: dict[tuple[str, str], Finding]) -> set[tuple[str, str]]:
    return {link for link, one in findings.items() if not one.good}


@pytest.mark.parametrize("name", ["user", "owner"])
async def test_all_is_well(name: str) -> None:
    with trio.fail_after(10):
        async with nothing_left(), deployed() as here:
            findings = await examine(here.deployment, here.loopback.identities[name])
            assert [one.source for one in findings if one.target == "S0"] == [name, "S1", "S2"]
            assert all(one.good for one in findings)
            for one in findings:
                if one.source == name:
                    assert one.text.startswith(f"{here.deployment.servers[one.target].address}: ")
                    assert one.text.endswith(" ms there and back, 2 networks, 0 sessions")
                else:
                    assert one.text.endswith("ms there and back")


@pytest.mark.parametrize("missing", SERVERS)
@pytest.mark.parametrize("connect", [0.2, 5.0])
async def test_a_server_that_does_not_run(missing: str, connect: float) -> None:
    with trio.fail_after(10):
        present = [server for server in SERVERS if server != missing]
        async with nothing_left(), deployed(start=present, connect=connect) as here:
            await here.linked()
            findings = await examined(here)
            assert bad(findings) == {link for link in LINKS if missing in link}
            assert "connection refused" in findings["user", missing].text
            assert here.deployment.servers[missing].address in findings["user", missing].text
            for link in bad(findings) - {("user", missing)}:
                known = "connection refused" if link[1] == missing else f"not known: {missing} cannot be asked"
                assert known in findings[link].text


async def test_a_key_that_differs() -> None:
    with trio.fail_after(10):
        async with nothing_left(), deployed(start=["S0", "S2"]) as here:
            await here.start("S1", identity=Identity("S1", SigningKey.generate()))
            assert await settled(lambda: "S1" in here.servers["S2"].problems)
            findings = await examined(here)
            assert bad(findings) == {("user", "S1"), ("S1", "S0"), ("S2", "S1")}
            assert "S1 proved another key" in findings["user", "S1"].text
            assert "S1 proved another key" in findings["S2", "S1"].text


async def test_a_file_that_differs() -> None:
    with trio.fail_after(10):
        async with nothing_left(), deployed(start=["S0", "S1"]) as here:
            await here.start("S2", deployment=replace(here.deployment, name="another"))
            findings = await examined(here)
            assert bad(findings) == {("user", "S2"), ("S2", "S0"), ("S2", "S1")}
            assert "S2 has another deployment file: name differ" in findings["user", "S2"].text


async def test_a_link_that_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything on the way from S2 to the two others is dropped, and only there."""
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.3)
    middle = Middle()
    with trio.fail_after(10):
        async with nothing_left(), deployed(start=["S0", "S1"], between=middle.stand) as here:
            await here.linked()
            # S2 calls once, in vain, and not again.
            middle.change = swallow
            monkeypatch.setattr(connections, "backoff", lambda: repeat(60.0))
            await here.start("S2")
            assert await settled(lambda: {"S0", "S1"} <= here.servers["S2"].problems.keys())
            middle.change = unchanged
            findings = await examined(here)
            assert bad(findings) == {("S2", "S0"), ("S2", "S1")}
            said = "did not finish the handshake in 0.3 s: is it running, and does it speak this protocol?"
            assert findings["S2", "S1"].text == f"S1 {said}"


async def test_a_server_that_does_not_answer() -> None:
    middle = Middle()

    def drop(passed: Passed) -> list[bytes]:
        return [] if passed.connection.server == "S1" and passed.after_hello else [passed.data]

    with trio.fail_after(10):
        async with nothing_left(), deployed(between=middle.stand) as here:
            middle.change = drop
            findings = await examined(here)
            assert ("user", "S1") in bad(findings)
            assert findings["user", "S1"].text.endswith(": connected, but no answer in 0.5 s")
            assert bad(findings) == {("user", "S1"), ("S1", "S0")}


async def test_a_server_that_shuts_down() -> None:
    with trio.fail_after(10):
        async with nothing_left(), deployed() as here:
            await here.servers["S2"].drain()
            findings = await examined(here)
            assert bad(findings) == {("user", "S2")}
            assert findings["user", "S2"].text.endswith(", shutting down")
