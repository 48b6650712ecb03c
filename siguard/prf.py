"""Pairwise pseudorandomness, addressed and used once.

Every mask comes from a key that exactly two parties (or one party and two servers) hold, at an address:

    (protocol version, session id, dealer, key pair, purpose, step path with loop indices)

and never from a counter or from call order, so that concurrency cannot change it and a test can enumerate
or replay it (`docs/protocol.md`, section "Randomness").  A second use of an address raises.

The generator is AES-128-CTR from OpenSSL.  Session keys come from the pair keys by keyed BLAKE2b over
version, session and dealer; an address selects the 128-bit initial counter by keyed BLAKE2b.  With 2^20
addresses of 2^20 blocks in a session, two ranges of the counter overlap with probability below 2^-67.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from siguard.errors import RandomnessReuseError
from siguard.ring import Ring, RingArray

#: Part of every address: another protocol version never shares a stream with this one.
PROTOCOL_VERSION = 1

KEY_BYTES = 32
#: Above this many bytes a draw has a cipher object of its own, so that it can run beside others in a thread.
_SHARED_CIPHER_LIMIT = 1 << 17
#: What is encrypted to have the stream itself.
_ZEROS = memoryview(bytes(_SHARED_CIPHER_LIMIT))
_BLOCK_BYTES = 16


def derive_key(key: bytes, *context: str | bytes | int) -> bytes:
    """A 32-byte key from another one and an unambiguous context (keyed BLAKE2b; types and lengths prefixed)."""
    digest = hashlib.blake2b(key=key, digest_size=KEY_BYTES)
    for part in context:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(type(part).__name__[:1].encode() + len(data).to_bytes(8, "little") + data)
    return digest.digest()


def fresh_key(seed_key: bytes | None, *context: str | bytes | int) -> bytes:
    """A new key: from the operating system, or, for a repeatable run, derived from ``seed_key``."""
    return secrets.token_bytes(KEY_BYTES) if seed_key is None else derive_key(seed_key, *context)


class RandomnessSource(Protocol):
    """Where a protocol takes its masks from: the PRF in use, an enumeration in exact tests."""

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Ring elements that the members of ``pair`` share, uniform to all others; at most once per address."""
        ...


class PairwiseRandomness:
    """The streams of one party in one session.

    keys: pair name -> 32-byte key, only the pairs this party belongs to.
    """

    def __init__(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None:
        self._party = party
        self._session = session
        self._keys: dict[str, bytes] = {}
        self._ciphers: dict[str, CipherContext] = {}
        for pair, key in keys.items():
            session_key = derive_key(key, "siguard session", PROTOCOL_VERSION, session, dealer, pair)
            self._keys[pair] = session_key
            self._ciphers[pair] = _counter_mode(session_key, bytes(16))
        self._used: set[tuple[str, str, str]] = set()
        # Large gates draw in worker threads: setting the counter and reading the stream must not interleave.
        self._lock = threading.Lock()

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Uniform elements of ``ring``; the range of an address is the whole draw.

        Raises `RandomnessReuseError` when the address was drawn before, whatever the shape.
        """
        address = (pair, purpose, path)
        if address in self._used:
            raise RandomnessReuseError(
                f"randomness {purpose!r} of {pair} is drawn twice; give the second use a step of its own "
                "(party.at(name))",
                party=self._party,
                session=self._session.hex(),
                step=path,
            )
        self._used.add(address)
        # The length keeps apart what the separator could not.
        point = f"{len(purpose)}|{purpose}|{path}".encode()
        start = hashlib.blake2b(point, key=self._keys[pair], digest_size=16).digest()
        return self._expand(pair, start, ring, shape)

    def _expand(self, pair: str, start: bytes, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """The stream of a pair from an initial counter on, as ring elements."""
        size = ring.itemsize
        for length in shape:
            size *= length
        if size > _SHARED_CIPHER_LIMIT:
            return ring.from_bytes(_long_stream(_counter_mode(self._keys[pair], start), size), shape)
        with self._lock:
            stream = self._ciphers[pair]
            stream.reset_nonce(start)
            data = stream.update(_ZEROS[:size])
        return ring.from_bytes(data, shape)


#: Makes the randomness of one party in one session: (pair keys, session, dealer, party).  `PairwiseRandomness`
#: itself; recorders wrap it, exact tests replace it.
RandomnessFactory = Callable[[Mapping[str, bytes], bytes, str, str], RandomnessSource]


def _long_stream(stream: CipherContext, size: int) -> memoryview:
    """The next ``size`` bytes, from zeros that stay in the cache: as many of one's own would be as slow as AES."""
    # OpenSSL's interface asks for room for all but one byte of a further block.
    found = memoryview(bytearray(size + _BLOCK_BYTES - 1))
    for begin in range(0, size, len(_ZEROS)):
        zeros = _ZEROS[: size - begin]
        stream.update_into(zeros, found[begin : begin + len(zeros) + _BLOCK_BYTES - 1])
    return found[:size].toreadonly()


def _counter_mode(key: bytes, start: bytes) -> CipherContext:
    # The upper half of the session key is not used: AES-128 takes 16 bytes.
    return Cipher(algorithms.AES(key[:16]), modes.CTR(start)).encryptor()
