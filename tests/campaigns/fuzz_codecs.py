"""Fuzz targets that take bytes apart: frames, hellos, messages, files, counts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import numpy as np
from fuzz_bytes import hostile, number, raw, spoiled, text, value
from nacl.signing import SigningKey

from siguard import GuardConfig
from siguard.actors.messages import (
    Abort,
    Ask,
    Grant,
    Load,
    Offer,
    Request,
    error_from,
    grant_bytes,
    read_grant,
)
from siguard.deploy.file import DeploymentFile, Endpoint, load_deployment
from siguard.deploy.hello import Hello
from siguard.deploy.keys import read_key, write_key
from siguard.errors import FrameError, InputError, ProtocolError, SiguardError
from siguard.guard.plan import Plan
from siguard.prf import KEY_BYTES, PROTOCOL_VERSION
from siguard.transport.accountant import Traffic
from siguard.transport.frame import Frame, Kind, decode_frame, encode_frame

_TYPES = ("<u1", "<u2", "<u4", "<u8")


def frame(rng: Random) -> None:
    """A frame decodes to what was encoded; anything else is a FrameError or the one encoding of its frame."""
    shape = tuple(rng.randrange(4) for _ in range(rng.randrange(7)))
    size = int(np.prod(shape, dtype=np.int64))
    kind = np.dtype(rng.choice(_TYPES))
    payload = np.frombuffer(rng.randbytes(size * kind.itemsize), kind).reshape(shape)
    depth = rng.choice((0, 1, rng.randrange(2**20), 2**32))
    sent = Frame(rng.choice(list(Kind)), rng.randbytes(16), rng.randbytes(8), depth, payload)
    data = encode_frame(sent)
    got = decode_frame(data)
    assert (got.kind, got.session, got.step, got.depth) == (sent.kind, sent.session, sent.step, sent.depth)
    assert got.payload.dtype == payload.dtype
    assert np.array_equal(got.payload, payload)
    wild = _header_of_anything(rng) if rng.random() < 0.4 else spoiled(rng, data)
    try:
        strange = decode_frame(wild)
    except FrameError:
        return
    assert encode_frame(strange) == wild, "two encodings of one frame"


def _header_of_anything(rng: Random) -> bytes:
    """A header whose fields are almost right."""
    fields: list[Any] = [PROTOCOL_VERSION, 2, rng.randbytes(16), rng.randbytes(8), 1, 8, [0], 0]
    for _ in range(rng.randrange(1, 4)):
        fields[rng.randrange(8)] = rng.choice(
            (value(rng), number(rng), [number(rng) for _ in range(rng.randrange(7))])
        )
    if rng.random() < 0.5:
        fields[6], fields[7] = [0, *(abs(number(rng)) for _ in range(rng.randrange(6)))], 0
    try:
        header: bytes = msgpack.packb(fields)
    except OverflowError:
        header = b""
    return header.ljust(80, b"\0") + raw(rng, 16)


def hello(rng: Random) -> None:
    """Anything but a hello is a ProtocolError."""
    digests = {text(rng): text(rng) for _ in range(rng.randrange(5))}
    sent = Hello(
        digests, rng.randbytes(8).hex(), {text(rng): rng.randbytes(KEY_BYTES) for _ in range(rng.randrange(3))}
    )
    assert Hello.decode(sent.encode()) == sent
    try:
        got = Hello.decode(hostile(rng, sent.encode()))
    except ProtocolError:
        return
    assert Hello.decode(got.encode()) == got
    # What `exchange_hellos` does with it.
    assert sorted(got.digests.keys() | digests.keys()) is not None


def messages(rng: Random) -> None:
    """Requests, grants, aborts and the like: a ProtocolError, or what encodes to the same meaning again."""
    config = rng.choice((GuardConfig(), GuardConfig("label"), GuardConfig("linesearch"), GuardConfig(inner=3)))
    statement = grant_bytes(rng.randbytes(16), rng.randbytes(16), config)
    samples = (
        Request("query", "S1", rng.randbytes(16), b"", config.to_dict(), Plan().to_dict(), 3, 5),
        Load("model", rng.randbytes(16), text(rng), [[5, 7], [7]], [1.0, 2.0]),
        Grant(statement, rng.randbytes(64)),
        Ask("traffic", rng.randbytes(16)),
        Offer(statement, rng.randbytes(64), text(rng), [5, 7], [4, 1], [3], 100.0),
        Abort(text(rng), "DeadlineError", "S1", text(rng)),
    )
    sample = rng.choice(samples)
    data = hostile(rng, sample.encode().tobytes())
    if rng.random() < 0.2:
        fields = sample.as_dict()
        fields[rng.choice(list(fields))] = value(rng)
        data = msgpack.packb(fields)
    kind = rng.choice(_TYPES) if len(data) % 8 == 0 else "<u1"
    try:
        got = type(sample).decode(np.frombuffer(data, kind))
    except ProtocolError:
        pass
    else:
        assert type(got).decode(got.encode()).encode().tobytes() == got.encode().tobytes()
        if isinstance(got, Abort):
            error = error_from(got, bytes(16))
            assert isinstance(error, SiguardError)
            assert str(error)
    try:
        defender, model, read = read_grant(hostile(rng, statement))
    except ProtocolError:
        return
    # The owner signs the bytes: two spellings of one permission would be two permissions.
    assert read_grant(grant_bytes(defender, model, read)) == (defender, model, read)


def traffic(rng: Random) -> None:
    """What a server tells of its traffic: counts, or a ValueError."""
    plain = [[[text(rng), 1, 2, 3, 4][: rng.randrange(3, 6)]], [["S0", "S1", 1, 2, 3]], rng.randrange(4)]
    told = rng.choice(
        (plain, value(rng, 5), [value(rng), value(rng), value(rng)], [[[value(rng) for _ in range(4)]], [], 0])
    )
    try:
        Traffic.from_plain(told).to_plain()
    except ValueError:
        return


class Files:
    """Targets that read a file; the folder goes with the object."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="siguard-fuzz-")
        folder = Path(self._temporary.name)
        self._file, self._key_file = folder / "deployment.toml", folder / "S0.key"
        keys = [SigningKey(bytes([number]) * 32) for number in range(1, 6)]
        public = [key.verify_key for key in keys]
        servers = {f"S{i}": Endpoint("10.0.0.1", 7100 + i, public[i]) for i in range(3)}
        self._deployment = DeploymentFile("fuzz", servers, public[3], {"user": public[4]})
        self._toml = self._deployment.to_toml().encode()
        self._key = keys[0]
        write_key(self._key_file, "S0", self._key)
        self._key_text = self._key_file.read_bytes()

    def close(self) -> None:
        self._temporary.cleanup()

    def deployment(self, rng: Random) -> None:
        """A deployment file loads, to what is written back and loads to the same, or is an InputError."""
        self._file.write_bytes(self._wild_toml(rng))
        try:
            got = load_deployment(self._file)
        except InputError:
            return
        self._file.write_text(got.to_toml(), encoding="utf-8")
        assert load_deployment(self._file) == got
        assert got.digests() == replace(got, file=Path("elsewhere")).digests()
        assert isinstance(got.warnings(), list)

    def _wild_toml(self, rng: Random) -> bytes:
        kind = rng.random()
        if kind < 0.5:
            return spoiled(rng, self._toml)
        lines = self._toml.decode().splitlines()
        where = rng.randrange(len(lines))
        key = lines[where].partition("=")[0] if "=" in lines[where] else "limits.deadline "
        lines[where] = f"{key}= {self._wild_value(rng)}" if kind < 0.9 else text(rng)
        if rng.random() < 0.3:
            lines.append(f"{rng.choice(('[limits]', '[network]', '[users.x]', '[[servers]]', '[a.b]'))}")
            lines.append(f"{rng.choice(('deadline', 'profile', 'key', 'latency_ms'))} = {self._wild_value(rng)}")
        return "\n".join(lines).encode()

    def _wild_value(self, rng: Random) -> str:
        makers: Sequence[Callable[[], str]] = (
            lambda: str(number(rng)),
            lambda: repr(text(rng)),
            lambda: f'"{text(rng)}"',
            lambda: rng.choice(("nan", "inf", "-inf", "1e400", "true", "1979-05-27", "07:32:00", "0x" + "f" * 99)),
            lambda: "9" * rng.choice((20, 400, 5_000)),
            lambda: "[" * rng.choice((1, 30, 3_000)) + "]" * rng.choice((0, 1, 30, 3_000)),
            lambda: "{a = " * rng.choice((1, 30, 3_000)),
            lambda: f'"10.0.0.{number(rng)}:{number(rng)}"',
            lambda: '"ed25519:' + rng.choice(("AA", "A" * 43 + "=", "/" * 44, "é")) + '"',
        )
        return rng.choice(makers)()

    def key_file(self, rng: Random) -> None:
        """A key file gives the key that was written, or is an InputError that does not show what is in it."""
        data = spoiled(rng, self._key_text) if rng.random() < 0.9 else raw(rng, 5000)
        self._key_file.write_bytes(data)
        try:
            got = read_key(self._key_file, "S0", self._key.verify_key, self._file)
        except InputError as error:
            told = str(error)
        else:
            assert bytes(got.signing_key) == bytes(self._key)
            return
        assert self._key_text.split()[-1].decode() not in told, "the message holds the secret"
