"""How a TCP connection comes about: dialling, waits between attempts, listeners that a parent process opened."""

from __future__ import annotations

import errno
import os
import random
import socket as stdlib
import stat
from collections.abc import Iterator
from typing import Literal, TypeAlias

import trio

from siguard.errors import InputError, SiguardError, leaves_of

#: Why a dial failed: nobody listens; no route; nobody answers; no such name; the text says what else.
Cause: TypeAlias = Literal["refused", "unreachable", "silent", "unknown name", "other"]

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}


class DialError(SiguardError):
    """No connection to ``address``; ``cause`` says why, to act on."""

    def __init__(self, address: str, cause: Cause, why: str) -> None:
        super().__init__(f"cannot connect to {address}: {why}")
        self.address = address
        self.cause = cause


async def dial(host: str, port: int, *, deadline: float) -> trio.SocketStream:
    """Connect to a listener within ``deadline`` seconds; tries each address of a name.  Raises `DialError`."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        with trio.fail_after(deadline):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        raise DialError(
            address,
            "silent",
            f"no answer within {deadline:g} s; is the host up, and does a firewall drop connections to this port?",
        ) from None
    except OSError as error:
        cause, why = _explain(error)
        raise DialError(address, cause, why) from error
    try:
        # TCP lets a socket connect to itself, if the port dialled is the one that the kernel just chose for it.
        itself = stream.socket.getsockname() == stream.socket.getpeername()
    except OSError:  # reset already
        itself = True
    if itself:
        await trio.aclose_forcefully(stream)
        raise DialError(address, "refused", _REFUSED)
    return stream


_REFUSED = "connection refused: nothing listens there (yet), or a firewall rejects it"


def _explain(error: OSError) -> tuple[Cause, str]:
    if isinstance(error, stdlib.gaierror):
        return "unknown name", f"the name cannot be resolved ({error.strerror}); is it spelled right, is DNS up?"
    tried = [leaf for leaf in leaves_of(error.__cause__ or error) if isinstance(leaf, OSError)]
    numbers = {leaf.errno for leaf in tried}
    # A name has several addresses: the answer that came from furthest says most.
    if errno.ECONNREFUSED in numbers:
        return "refused", _REFUSED
    if errno.ETIMEDOUT in numbers:
        return "silent", "no answer; is the host up, and does a firewall drop connections to this port?"
    if numbers & _UNREACHABLE:
        return "unreachable", "no route to the host; are the address and this machine's network right?"
    return "other", "; ".join(sorted({leaf.strerror or str(leaf) for leaf in tried}))


def backoff(
    first: float = 0.05, factor: float = 2.0, most: float = 2.0, jitter: float = 0.25, seed: int | None = None
) -> Iterator[float]:
    """Seconds to wait before each further attempt, without end: growing by ``factor`` up to ``most``.

    jitter: each wait is shortened at random by up to this part, so that parties that lost each other at once do not
    come back at once.
    """
    shorter = random.Random(seed)  # noqa: S311 - spreads load, protects nothing
    wait = min(first, most)
    while True:
        yield wait * (1 - jitter * shorter.random())
        wait = min(wait * factor, most)


def listener_from_fd(fd: int) -> trio.SocketListener:
    """The listening TCP socket that the parent process left open as ``fd``, which is then the listener's to close.

    Raises `InputError` for anything else, and leaves it open.
    """
    found = _listening(fd)
    if isinstance(found, str):
        raise InputError(f"file descriptor {fd} {found}; pass the number of a listening TCP socket")
    os.set_inheritable(fd, False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(found))


def _listening(fd: int) -> stdlib.socket | str:
    """The socket, or what is wrong with the descriptor."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return "is not a socket"
    except OSError:
        return "is not open"
    socket = stdlib.socket(fileno=fd)
    wrong = None
    if socket.family not in (stdlib.AF_INET, stdlib.AF_INET6) or socket.type != stdlib.SOCK_STREAM:
        wrong = "is a socket, but not a TCP one"
    elif not socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
        wrong = "is a TCP socket that does not listen"
    if wrong is not None:
        socket.detach()
        return wrong
    return socket
