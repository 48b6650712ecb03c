"""Dialling: errors in plain words, waits between attempts, listeners that a parent process opened."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pytest
import trio

from siguard.errors import InputError, SiguardError
from siguard.transport.dial import Cause, DialError, backoff, dial, listener_from_fd


async def failed_dial(host: str, port: int, deadline: float = 5.0) -> DialError:
    with trio.fail_after(10), pytest.raises(DialError) as caught:
        await dial(host, port, deadline=deadline)
    assert isinstance(caught.value, SiguardError)
    assert caught.value.address in str(caught.value)
    return caught.value


def closed_port() -> int:
    with stdlib.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def open_descriptors() -> int:
    """How many, or 0 where they cannot be counted."""
    return len(list(Path("/proc/self/fd").glob("*")))


async def test_a_listener_is_reached() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(5):
        async with (
            listener,
            await dial("127.0.0.1", listener.socket.getsockname()[1], deadline=3) as one,
            await listener.accept() as other,
        ):
            await one.send_all(b"hello")
            assert await other.receive_some() == b"hello"


async def test_nobody_listens() -> None:
    port = closed_port()
    error = await failed_dial("127.0.0.1", port)
    assert error.cause == "refused"
    assert f"127.0.0.1:{port}: connection refused: nothing listens there" in str(error)


async def test_nobody_answers() -> None:
    # A listener whose queue is full drops what knocks, as a firewall does.
    with stdlib.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        knocking = [stdlib.socket() for _ in range(8)]
        try:
            for socket in knocking:
                socket.setblocking(False)
                socket.connect_ex(server.getsockname())
            descriptors = open_descriptors()
            start = trio.current_time()
            error = await failed_dial("127.0.0.1", server.getsockname()[1], deadline=0.2)
            assert 0.2 <= trio.current_time() - start < 2
            assert open_descriptors() == descriptors
        finally:
            for socket in knocking:
                socket.close()
    assert error.cause == "silent"
    assert "no answer within 0.2 s" in str(error)
    assert "firewall" in str(error)


async def test_an_unknown_name() -> None:
    class Resolver(trio.abc.HostnameResolver):
        async def getaddrinfo(self, *arguments: object) -> list[object]:  # type: ignore[override]
            raise stdlib.gaierror(stdlib.EAI_NONAME, "Name or service not known")

        async def getnameinfo(self, *arguments: object) -> tuple[str, str]:
            raise NotImplementedError

    trio.socket.set_custom_hostname_resolver(Resolver())
    error = await failed_dial("s1.example", 4711)
    assert error.cause == "unknown name"
    assert "s1.example:4711: the name cannot be resolved (Name or service not known)" in str(error)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("numbers", "cause", "words"),
    [
        ([errno.EHOSTUNREACH], "unreachable", "no route"),
        ([errno.ENETUNREACH], "unreachable", "no route"),
        ([errno.ETIMEDOUT], "silent", "no answer"),
        ([errno.ENETUNREACH, errno.ECONNREFUSED], "refused", "nothing listens"),
        ([errno.EACCES, errno.EMFILE], "other", "Permission denied; Too many open files"),
    ],
)
async def test_what_the_kernel_says_in_plain_words(
    numbers: Sequence[int], cause: Cause, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(host: str, port: int) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        raise OSError("all attempts failed") from ExceptionGroup("tried", list(map(os_error, numbers)))

    monkeypatch.setattr(trio, "open_tcp_stream", fail)
    error = await failed_dial("2001:db8::1", 4711)
    assert error.cause == cause
    assert words in str(error)
    assert error.address == "[2001:db8::1]:4711"


async def test_a_socket_that_connects_to_itself_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reach_oneself(host: str, port: int) -> trio.SocketStream:
        socket = trio.socket.socket()
        await socket.bind((host, 0))
        try:
            await socket.connect(socket.getsockname())
        except OSError:
            socket.close()
            pytest.skip("the platform does not connect a socket to itself")
        return trio.SocketStream(socket)

    monkeypatch.setattr(trio, "open_tcp_stream", reach_oneself)
    assert (await failed_dial("127.0.0.1", 4711)).cause == "refused"


# --- waits ------------------------------------------------------------------------------------------------


def test_waits_grow_to_the_most_and_never_end() -> None:
    waits = list(islice(backoff(0.1, 3.0, 2.0, jitter=0), 100))
    assert waits[:3] == pytest.approx([0.1, 0.3, 0.9])
    assert set(waits[3:]) == {2.0}
    assert list(islice(backoff(5.0, 2.0, 2.0, jitter=0), 2)) == [2.0, 2.0]


def test_waits_are_spread_below_their_length() -> None:
    plain = list(islice(backoff(jitter=0), 200))
    spread = list(islice(backoff(jitter=0.25, seed=3), 200))
    assert all(0.75 * full <= wait <= full for wait, full in zip(spread, plain, strict=True))
    assert max(spread[10:]) - min(spread[10:]) > 0.4
    assert list(islice(backoff(seed=3), 200)) == spread
    assert list(islice(backoff(), 5)) != list(islice(backoff(), 5))


# --- inherited listeners ----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_inherited_listener_accepts(address: str) -> None:
    family = stdlib.AF_INET6 if ":" in address else stdlib.AF_INET
    try:
        server = stdlib.create_server((address, 0), family=family)
    except OSError:
        pytest.skip(f"no {address} here")
    with server:
        fd = os.dup(server.fileno())
        os.set_inheritable(fd, True)
        async with listener_from_fd(fd) as listener:
            assert listener.socket.fileno() == fd
            assert not os.get_inheritable(fd), "children would keep the port open"
            with trio.fail_after(5):
                stream = await dial(address, server.getsockname()[1], deadline=3)
                async with stream, await listener.accept() as other:
                    await other.send_all(b"x")
                    assert await stream.receive_some() == b"x"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: os.open(os.devnull, os.O_RDONLY), "is not a socket"),
        (lambda: stdlib.socket(type=stdlib.SOCK_DGRAM).detach(), "not a TCP one"),
        (lambda: stdlib.socket(stdlib.AF_UNIX).detach(), "not a TCP one"),
        (lambda: stdlib.socket().detach(), "does not listen"),
    ],
    ids=["file", "UDP", "unix", "not listening"],
)
async def test_another_descriptor_is_refused_and_left_open(make: Callable[[], int], words: str) -> None:
    fd = make()
    try:
        with pytest.raises(InputError, match=f"file descriptor {fd} .*{words}.*listening TCP socket"):
            listener_from_fd(fd)
        os.fstat(fd)
    finally:
        os.close(fd)


async def test_a_descriptor_that_is_not_open_is_refused() -> None:
    for fd in (-1, 1_000_000):
        with pytest.raises(InputError, match=f"file descriptor {fd} is not open"):
            listener_from_fd(fd)
