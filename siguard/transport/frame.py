"""The frame codec: one array of ring elements with a header of fixed width.  Sans-IO.

    | header, HEADER_BYTES | payload: the array's bytes, little-endian, C order |

The header is msgpack, padded: [version, kind, session, step, depth, element type, shape, payload bytes].
Its width is fixed so that traffic figures are exact and cannot depend on a value.  ``step`` is an 8-byte
digest of the step path: both ends compute the path, so it needs no more than to be told apart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import Any

import msgpack
import numpy as np

from siguard.errors import FrameError
from siguard.prf import PROTOCOL_VERSION
from siguard.ring import RingArray
from siguard.transport.link import Data

HEADER_BYTES = 80
SESSION_BYTES = 16
STEP_BYTES = 8
MAX_AXES = 6
#: Refused before anything is allocated for it.
MAX_PAYLOAD_BYTES = 1 << 32

_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}


class Kind(IntEnum):
    """What a frame is for."""

    START = 1  # a request opens a session at a server
    DATA = 2  # protocol data of a session
    ABORT = 3  # the session failed at the party named in the payload
    GRANT = 4  # the model owner permits a guard configuration
    CREDIT = 5  # a server has taken so many bytes of the dealer's frames
    ASK = 6  # a client asks a server for something public, outside the protocol
    PING = 8  # somebody asks whether the link works
    WAIT = 7  # a server tells for whom it waits, shortly before its deadline or when another one does


_KINDS = tuple(Kind)
#: One for all headers: it keeps nothing between two of them, runs no Python in between, and a new one begins with
#: 256 KiB.
_PACKER = msgpack.Packer()


@dataclass(frozen=True, slots=True)
class Frame:
    """One message.  ``depth`` is 1 + the largest depth among the messages its value was computed from."""

    kind: Kind
    session: bytes
    step: bytes
    depth: int
    payload: RingArray

    @property
    def size(self) -> int:
        """Bytes with the header."""
        return HEADER_BYTES + self.payload.nbytes


@lru_cache(maxsize=1 << 16)
def step_digest(path: str) -> bytes:
    """The 8 bytes that stand for a step path in a header."""
    return hashlib.blake2b(path.encode(), digest_size=STEP_BYTES).digest()


def encode_frame(frame: Frame) -> bytes:
    """Bytes of a frame; the payload is copied once.  Raises `FrameError` for what no peer would take."""
    if frame.payload.ndim > MAX_AXES:
        raise FrameError(f"payload has {frame.payload.ndim} axes; a frame carries at most {MAX_AXES}")
    if frame.payload.nbytes > MAX_PAYLOAD_BYTES:
        raise FrameError(f"payload of {frame.payload.nbytes} bytes; a frame carries at most {MAX_PAYLOAD_BYTES}")
    # Joined from the array's own memory, so that the payload is copied once.
    return b"".join((_encode_header(frame), np.ascontiguousarray(frame.payload).data))


def _encode_header(frame: Frame) -> bytes:
    payload = frame.payload
    header: bytes = _PACKER.pack(
        (
            PROTOCOL_VERSION,
            int(frame.kind),
            frame.session,
            frame.step,
            frame.depth,
            payload.itemsize,
            payload.shape,
            payload.nbytes,
        )
    )
    if len(header) > HEADER_BYTES:
        raise FrameError(f"header of {len(header)} bytes does not fit {HEADER_BYTES}")
    return header.ljust(HEADER_BYTES, b"\0")


def decode_frame(data: Data) -> Frame:
    """The frame in ``data``; the payload is a read-only view of it.  Raises `FrameError` on anything else."""
    if len(data) < HEADER_BYTES:
        raise FrameError(f"{len(data)} bytes are shorter than a frame header ({HEADER_BYTES})")
    header = bytes(data[:HEADER_BYTES])
    try:
        unpacker = msgpack.Unpacker(max_buffer_size=HEADER_BYTES)
        unpacker.feed(header)
        fields: Any = unpacker.unpack()
        version, kind, session, step, depth, itemsize, shape, size = fields
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise FrameError(f"not a frame header ({type(error).__name__})") from None
    if version != PROTOCOL_VERSION:
        raise FrameError(f"protocol version {version!r}; this side speaks {PROTOCOL_VERSION}")
    _check(fields)
    if size != len(data) - HEADER_BYTES or size != prod(shape) * itemsize or size > MAX_PAYLOAD_BYTES:
        raise FrameError(f"payload of {len(data) - HEADER_BYTES} bytes; the header says {size!r}")
    try:
        payload: RingArray = np.ndarray(shape, _TYPES[itemsize], memoryview(data).toreadonly(), HEADER_BYTES)
    except ValueError:  # an empty payload with an axis beyond all memory
        raise FrameError("the header says an impossible shape") from None
    frame = Frame(_KINDS[_KINDS.index(kind)], session, step, depth, payload)
    # One frame has one header: no other spelling of the same fields, and nothing in the padding.
    if _encode_header(frame) != header:
        raise FrameError("the header is not in its canonical form")
    return frame


def _check(fields: Any) -> None:
    """Types and ranges of every header field, so that nothing later has to ask."""
    _, kind, session, step, depth, itemsize, shape, size = fields
    good = (
        kind in _KINDS
        and isinstance(session, bytes)
        and len(session) == SESSION_BYTES
        and isinstance(step, bytes)
        and len(step) == STEP_BYTES
        and _is_count(depth)
        and _is_count(size)
        and _is_count(itemsize)
        and itemsize in _TYPES
        and isinstance(shape, list)
        and len(shape) <= MAX_AXES
        and all(map(_is_count, shape))
    )
    if not good:
        raise FrameError("a header field has the wrong type or range")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0
