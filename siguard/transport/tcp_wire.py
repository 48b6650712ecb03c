"""What both directions of a TCP link share: lengths, options of the socket, and how a link ends."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from contextlib import suppress
from dataclasses import dataclass

from siguard.transport.link import LinkBrokenError, LinkClosedError

PREFIX_BYTES = 4
#: In place of a length: no more messages come; none are read any more either.
ENDED, CLOSED = 0xFFFF_FFFF, 0xFFFF_FFFE
LONGEST = CLOSED - 1
#: Seconds after which a peer counts as gone: one that acknowledges nothing, or that leaves its receive buffer full.
SILENCE = 30


def prefix(length: int) -> bytes:
    """The bytes before a message of this length."""
    return length.to_bytes(PREFIX_BYTES, "little")


@dataclass(frozen=True, slots=True)
class Over:
    """Why one direction of a link is over.

    broken: the other end did not say so.  both: the other direction is over too.
    """

    why: str
    broken: bool = False
    both: bool = False

    def error(self, peer: str) -> LinkClosedError:
        """To raise for a link to ``peer``."""
        if self.broken:
            return LinkBrokenError(f"link to {peer} broke: {self.why}")
        return LinkClosedError(f"link to {peer} is closed: {self.why}")


def broken(error: OSError) -> Over:
    """The end of a connection on which the kernel reported ``error``."""
    known = {
        errno.ECONNRESET: "the connection was reset; the other process may have died",
        errno.ETIMEDOUT: f"the other end has been silent for {SILENCE} s; it may hang, or the network be cut",
    }
    why = known.get(error.errno or 0) or os.strerror(error.errno or 0)
    return Over(why, broken=True, both=True)


def set_options(socket: stdlib.socket) -> None:
    """Send at once, and notice a silent peer; an option that the platform lacks stays as it is."""
    options = [(stdlib.SOL_SOCKET, "SO_KEEPALIVE", 1)]
    options += [
        (stdlib.IPPROTO_TCP, name, value)
        for name, value in (
            ("TCP_NODELAY", 1),
            # trio's 16 KiB cost a quarter of the throughput of large messages; this is the system's default.
            ("TCP_NOTSENT_LOWAT", 0),
            ("TCP_KEEPIDLE", SILENCE // 3),
            ("TCP_KEEPINTVL", SILENCE // 6),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", 1000 * SILENCE),
        )
    ]
    for level, name, value in options:
        with suppress(OSError, AttributeError):
            socket.setsockopt(level, getattr(stdlib, name), value)
