"""How links come about: hellos, keys that both ends know, and parties that come back."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
import structlog.testing
import trio
from deploy_helpers import SHORT, assert_right, deployed, nothing_left, settled, some_features
from hypothesis import given
from hypothesis import strategies as st

from siguard import ProtocolError
from siguard.actors.session import SERVERS
from siguard.deploy.hello import (
    MAX_HELLO_BYTES,
    ClientKeys,
    Hello,
    RefusedError,
    exchange_hellos,
    key_between_servers,
    keys_from_client,
)
from siguard.deploy.loopback import LOOPBACK, make_loopback
from siguard.deploy.party import open_party
from siguard.transport.link import LinkClosedError
from siguard.transport.memory import memory_link_pair

KEY = bytes(range(32))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=4),
    max_leaves=12,
)


# Hellos -----------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(st.text(), st.text()),
    st.just("") | st.text("0123456789abcdef", min_size=16, max_size=16),
    st.dictionaries(st.text(), st.binary(min_size=len(KEY), max_size=len(KEY))),
)
def test_a_hello_comes_back(digests: dict[str, str], instance: str, keys: dict[str, bytes]) -> None:
    hello = Hello(digests, instance, keys)
    assert Hello.decode(hello.encode()) == hello


@given(st.binary() | PLAIN.map(msgpack.packb) | st.tuples(PLAIN, PLAIN, PLAIN).map(msgpack.packb))
def test_anything_else_is_no_hello(data: bytes) -> None:
    try:
        hello = Hello.decode(data)
    except ProtocolError:
        return
    assert Hello.decode(hello.encode()) == hello
    assert all(len(key) == len(KEY) for key in hello.keys.values())


@pytest.mark.parametrize(
    "values",
    [
        [{}, "", {"S0S1": KEY[1:]}],
        [{}, "", {"S0S1": KEY.hex()}],
        [{}, "x" * 33, {}],
        [{}, b"", {}],
        [{"name": 1}, "", {}],
        [{}, ""],
        [{}, "", {}, {}],
        [[], "", {}],
        "abc",
        None,
    ],
)
def test_hellos_that_are_nearly_right(values: Any) -> None:
    with pytest.raises(ProtocolError, match="the first message is not a hello"):
        Hello.decode(msgpack.packb(values))


def test_keys_are_not_shown() -> None:
    assert KEY.hex() not in repr(Hello({}, "", {"S0S1": KEY}))
    assert "1f" not in repr(Hello({}, "", {"S0S1": KEY}))
    assert repr(KEY) not in repr(Hello({}, "", {"S0S1": KEY}))


async def test_a_hello_of_a_large_deployment_fits() -> None:
    loopback = await make_loopback(users=tuple(f"{number:04}{'u' * 28}" for number in range(500)))
    for listener in loopback.listeners.values():
        await listener.aclose()
    hello = ClientKeys("user").hello_to("S0", loopback.deployment)
    assert len(hello.encode()) < MAX_HELLO_BYTES


async def test_hellos_are_exchanged_in_time(autojump_clock: Any) -> None:
    one, other = memory_link_pair("S0", "S1")
    started = trio.current_time()
    with pytest.raises(LinkClosedError, match="did not say hello within 3 s"):
        await exchange_hellos(one, Hello({}), 3)
    assert trio.current_time() - started == 3
    await other.send(Hello({"name": "a", "x": "b", **{f"u{n}": "c" for n in range(9)}}).encode())
    with pytest.raises(RefusedError) as caught:
        await exchange_hellos(one, Hello({"name": "other", "x": "b"}), 3)
    assert "has another deployment file: name, u0, u1, u2, u3, ... differ; copy one file to every host" in str(
        caught.value
    )


def test_what_a_client_has_to_send() -> None:
    hello = Hello({}, "ab", {"S0S1": KEY, "S0S2": KEY})
    assert keys_from_client(hello, "user", "S0") == {"user/ab+S0S1": KEY, "user/ab+S0S2": KEY}
    with pytest.raises(ProtocolError, match="user did not send the keys of S0S1, S1S2"):
        keys_from_client(hello, "user", "S1")
    with pytest.raises(ProtocolError, match="did not send the keys"):
        keys_from_client(Hello({}, "", hello.keys), "user", "S0")


async def test_a_client_tells_each_server_its_own_keys_only() -> None:
    keys = ClientKeys("user")
    loopback = await make_loopback()
    for listener in loopback.listeners.values():
        await listener.aclose()
    told = {
        server: keys_from_client(keys.hello_to(server, loopback.deployment), "user", server) for server in SERVERS
    }
    for server, known in told.items():
        assert len(known) == 2
        assert all(keys.held[name] == key and server in name for name, key in known.items())
    assert set(keys.held) == set().union(*told.values())
    assert len(set(keys.held.values())) == 3
    assert set(keys.held.values()).isdisjoint(ClientKeys("user").held.values())


def test_the_key_of_two_servers() -> None:
    assert key_between_servers("S1", "S0", KEY, {}) == {"S0S1": KEY}
    assert key_between_servers("S1", "S0", KEY, {"S0S1": bytes(32)}) == {"S0S1": KEY}
    assert key_between_servers("S1", "S0", None, {"S0S1": KEY}) == {"S0S1": KEY}
    with pytest.raises(ProtocolError, match="no pair key for S0S1"):
        key_between_servers("S1", "S0", None, {"S1S2": KEY})


# Links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True])
async def test_both_ends_hold_the_same_keys(plaintext: bool) -> None:
    with trio.fail_after(10):
        async with nothing_left(), deployed(fields={"plaintext": plaintext}) as here, here.connect() as user:
            await user.services()
            held = {name: server._keys for name, server in here.servers.items()}
            pairs = [f"{pair[0]}{pair[1]}" for pair in (("S0", "S1"), ("S0", "S2"), ("S1", "S2"))]
            for pair in pairs:
                one, other = pair[:2], pair[2:]
                third = next(server for server in SERVERS if server not in (one, other))
                assert held[one][pair] == held[other][pair]
                assert pair not in held[third]
                name = f"{user._client.name}+{pair}"
                assert held[one][name] == held[other][name] == user._client._keys[name]
                assert name not in held[third]
            keys = [held[pair[:2]][pair] for pair in pairs] + list(user._client._keys.values())
            assert len(set(keys)) == 6


async def test_two_processes_that_run_as_one_server() -> None:
    """Each takes the links of the other; they do so now and then, not as fast as they can."""
    with trio.fail_after(20), structlog.testing.capture_logs() as logged:
        async with nothing_left(), deployed() as here:
            listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
            identity = here.loopback.identities["S2"]
            async with open_party(here.deployment, identity, listeners=listeners) as second:
                assert await settled(lambda: second.has_link("S0"))
                logged.clear()
                await trio.sleep(1.0)
                replaced = [entry for entry in logged if entry["event"] == "link replaced"]
                assert 0 < len(replaced) < 20
            async with here.connect() as user:
                await here.linked()
                assert_right(await user.query(some_features(), SHORT))
