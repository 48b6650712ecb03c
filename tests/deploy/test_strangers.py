"""Whoever knocks on an open port: refused, forgotten, and no trouble for the others."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
import trio
from deploy_helpers import SHORT, Deployed, assert_right, deployed, nothing_left, settled, some_features

from siguard.deploy import connections
from siguard.deploy.loopback import LOOPBACK

#: What knocks on an open port of the internet.
GARBAGE: dict[str, bytes] = {
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: scanner\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100f8010000f40303") + bytes(range(240)),
    "an SSH banner": b"SSH-2.0-OpenSSH_9.6\r\n",
    "noise": np.random.default_rng(0).bytes(4096),
    "nothing, and gone": b"",
    "an empty message": bytes(4),
    "a handshake of noise": struct.pack("<I", 74) + np.random.default_rng(1).bytes(74),
    "a handshake with a key of zeros": struct.pack("<I", 74) + b"siguard\x01\x00\x01" + bytes(64),
    "a message too long": struct.pack("<I", 1 << 31) + bytes(100),
    "the mark of an end": b"\xff\xff\xff\xff",
    "half a length": b"\x01\x02",
}


async def knock(here: Deployed, server: str, data: bytes) -> bytes:
    """Send, and read until the server closes; what it answered."""
    stream = await trio.open_tcp_stream(LOOPBACK, here.ports[server])
    answer = b""
    async with stream:
        try:
            await stream.send_all(data)
            if not data or data == GARBAGE["half a length"]:
                return b""
            async for chunk in stream:
                answer += chunk
        except trio.BrokenResourceError:
            pass
    return answer


async def test_garbage_is_refused_without_a_word() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user:
            expected = (await user.query(some_features(), SHORT)).confidences
            for name, data in GARBAGE.items():
                answer = await knock(here, "S0", data)
                # At most: the version, and that the link is closed.
                assert len(answer) <= 18, f"{name}: {answer!r}"
            assert_right(await user.query(some_features(), SHORT), expected)
            assert await settled(lambda: len(here.users_of("S0")) == 1)


async def test_hundreds_at_once_while_a_query_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some send garbage, the others nothing, and hold their connection open; links that are open do not mind."""
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.5)
    with trio.fail_after(30):
        async with nothing_left(), deployed() as here, here.connect() as user:
            expected = (await user.query(some_features(16), SHORT)).confidences
            async with trio.open_nursery() as nursery:
                streams = [await trio.open_tcp_stream(LOOPBACK, here.ports["S0"]) for _ in range(300)]
                for number, stream in enumerate(streams):
                    if number % 3 == 0:
                        await stream.send_all(GARBAGE["noise"])
                answers = []

                async def ask() -> None:
                    answers.append(await user.query(some_features(16), SHORT))

                for _ in range(2):
                    nursery.start_soon(ask)
            for answer in answers:
                assert_right(answer, expected)
            # Those who hold on are gone when their time for a handshake is over.
            for stream in streams:
                with trio.fail_after(2), suppress(trio.BrokenResourceError):
                    while await stream.receive_some():
                        pass
                stream.socket.close()
            async with here.connect() as another:
                assert_right(await another.query(some_features(16), SHORT), expected)


async def test_callers_who_say_nothing_keep_nobody_out() -> None:
    """They have ten seconds, and there is room for `MOST_UNKNOWN`: a party still gets in at once."""
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here:
            number = connections.MOST_UNKNOWN + 10
            streams = [await trio.open_tcp_stream(LOOPBACK, here.ports["S0"]) for _ in range(number)]
            async with here.connect() as user:
                assert_right(await user.query(some_features(), SHORT))
            for stream in streams:
                await stream.aclose()
