"""Inputs for codecs: arbitrary values, arbitrary bytes, and valid bytes with something wrong in them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

import msgpack

T = TypeVar("T")

#: Lengths and counts at which codecs change their mind.
EDGES = (0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 80, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**31)
_BIG = (2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**31), -(2**63))


def number(rng: Random) -> int:
    """Mostly small, sometimes at an edge."""
    kind = rng.random()
    if kind < 0.5:
        return rng.randrange(10)
    return rng.choice(EDGES) if kind < 0.8 else rng.choice(_BIG)


def text(rng: Random, longest: int = 20) -> str:
    """Letters, or anything that has a UTF-8 form."""
    if rng.random() < 0.6:
        return "".join(rng.choices("abcS012_-./", k=rng.randrange(longest)))
    points = (rng.choice((0, 10, 34, 39, 92, 127, 0xE9, 0x2028, 0xFFFD, 0x1F600)) for _ in range(rng.randrange(8)))
    return "".join(map(chr, points))


def raw(rng: Random, longest: int = 200) -> bytes:
    """Random bytes of a random length."""
    return rng.randbytes(rng.randrange(longest + 1))


def value(rng: Random, depth: int = 3) -> Any:
    """Anything that msgpack can carry."""
    if depth and rng.random() < 0.35:
        size = rng.randrange(5)
        if rng.random() < 0.5:
            return [value(rng, depth - 1) for _ in range(size)]
        return {rng.choice((text, raw))(rng, 8): value(rng, depth - 1) for _ in range(size)}
    makers: Sequence[Callable[[], Any]] = (
        lambda: number(rng),
        lambda: text(rng),
        lambda: raw(rng, 40),
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice((0.0, -0.0, 1.5, float("inf"), float("nan"), 1e308, -1.0)),
        lambda: msgpack.ExtType(rng.randrange(128), raw(rng, 12)),
        lambda: msgpack.Timestamp(rng.randrange(2**34), rng.randrange(10**9)),
    )
    return rng.choice(makers)()


def bomb(rng: Random) -> bytes:
    """msgpack that promises more than it holds, or nests deeply."""
    deep = rng.choice((10, 600, 5_000, 100_000))
    return rng.choice(
        (
            b"\x91" * deep,
            b"\x81\xa1a" * deep,
            b"\xdd" + struct.pack(">I", rng.choice((2**16, 2**31, 2**32 - 1))) + raw(rng, 30),
            b"\xdf" + struct.pack(">I", rng.choice((2**16, 2**31, 2**32 - 1))) + raw(rng, 30),
            b"\xc6" + struct.pack(">I", rng.choice((2**16, 2**31, 2**32 - 1))) + raw(rng, 30),
            b"\xc7\x0c\xff" + rng.randbytes(12),
            b"\xdb" + struct.pack(">I", 2**32 - 1),
        )
    )


def spoiled(rng: Random, data: bytes) -> bytes:
    """The same bytes with one to four things wrong; by chance they may be as they were."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind, where = rng.randrange(7), rng.randrange(len(changed) + 1)
        if kind == 0 and where < len(changed):
            changed[where] ^= 1 << rng.randrange(8)
        elif kind == 1 and where < len(changed):
            changed[where] = rng.choice((0, 1, 0x7F, 0x80, 0xC0, 0xC1, 0xFF, rng.randrange(256)))
        elif kind == 2:
            del changed[where:]
        elif kind == 3:
            del changed[where : where + rng.randrange(1, 9)]
        elif kind == 4:
            changed[where:where] = raw(rng, 12)
        elif kind == 5:
            changed += raw(rng, 100)
        else:
            end = where + rng.randrange(1, 17)
            changed[where:where] = changed[where:end]
    return bytes(changed)


def hostile(rng: Random, valid: bytes) -> bytes:
    """Bytes for a msgpack codec, of which ``valid`` are some that it takes."""
    kind = rng.random()
    if kind < 0.55:
        return spoiled(rng, valid)
    if kind < 0.85:
        packed: bytes = msgpack.packb(value(rng))
        return packed
    return bomb(rng) if kind < 0.92 else raw(rng)


def pieces(rng: Random, data: bytes) -> list[bytes]:
    """The same bytes in random pieces."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if start < end]
