"""Who is at the other end, and keys that only the two know.  Sans-IO: bytes in, bytes out, `HandshakeError`.

SIGMA-I (H. Krawczyk, "SIGMA: the SIGn-and-MAc approach to authenticated Diffie-Hellman", CRYPTO 2003, 5.2) with
long-term Ed25519 and ephemeral X25519 keys, and one message more in which the responder says whether it agrees:

    I -> R   hello     header, ephemeral key, nonce
    R -> I   answer    header, ephemeral key, nonce, {proof of R}
    I -> R   proof     header, {proof of I}
    R -> I   verdict   header, {one byte}

    {x}     AES-256-GCM under a key used for this one text, with the transcript h before it as associated data
    h       SHA-256, running over the protocol's name and every byte of every message so far
    keys    HKDF-SHA256 of the X25519 secret with the first h as salt; label and present h make each of them
    proof   name, public key, hash of the prologue, signed and MACed with h and the role (see `identity.py`)

Every message has a fixed size.  The initiator's identity is hidden from everybody but the peer it accepts, the
responder's from those who only listen.  Until the other end has proved itself it is told nothing but a `refusal`: a
header, which holds the protocol version.  Old keys do not open old channels: the ephemeral ones are dropped.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import TypeAlias

import nacl.utils
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from siguard.prf import PROTOCOL_VERSION
from siguard.transport.identity import (
    PROOF_BYTES,
    TOLD,
    Identity,
    Mac,
    ProofError,
    Verdict,
    fingerprint,
    prove,
    verify,
)
from siguard.transport.link import Data, LinkBrokenError
from siguard.transport.records import HoldsKeys, expand

__all__ = [
    "LONGEST_MESSAGE",
    "Agreed",
    "HandshakeError",
    "Identity",
    "Steps",
    "fingerprint",
    "initiate",
    "respond",
]

_PROTOCOL = b"siguard SIGMA-I X25519 Ed25519 HKDF-SHA256 AES-256-GCM"
_MAGIC = b"siguard"
_HEADER = struct.Struct(">7sBH")  # magic, kind, protocol version
_KEY = 32
_CLEAR = _HEADER.size + 2 * _KEY  # header, ephemeral key, nonce
_TAG = 16
_INITIATOR, _RESPONDER = b"initiator", b"responder"


class _Kind(IntEnum):
    HELLO = 1
    ANSWER = 2
    PROOF = 3
    VERDICT = 4
    REFUSAL = 5


_SIZES = {
    _Kind.HELLO: _CLEAR,
    _Kind.ANSWER: _CLEAR + PROOF_BYTES + _TAG,
    _Kind.PROOF: _HEADER.size + PROOF_BYTES + _TAG,
    _Kind.VERDICT: _HEADER.size + 1 + _TAG,
}

#: The longest handshake message: a link need take no longer ones before its other end is known.
LONGEST_MESSAGE = max(_SIZES.values())


class HandshakeError(LinkBrokenError):
    """No sealed link came about; the text says what differs and the cure.

    ``reply`` is what the other end may be told before the link is closed, if anything.
    """

    reply: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Agreed(HoldsKeys):
    """What a handshake ends with: the authenticated name of the other end, and secrets."""

    peer: str
    sending: bytes = field(repr=False)
    receiving: bytes = field(repr=False)
    exporter: bytes = field(repr=False)


#: Yields what to send (the responder first yields nothing: b""), is sent what arrived, returns the last message to
#: send (of the initiator: b"") and the result.  Raises `HandshakeError`, and can then not go on.
Steps: TypeAlias = Generator[bytes, Data, tuple[bytes, Agreed]]
Entropy: TypeAlias = Callable[[int], bytes]


def initiate(
    identity: Identity,
    known: Mapping[str, VerifyKey],
    expect: str | None = None,
    prologue: bytes = b"",
    entropy: Entropy = nacl.utils.random,
) -> Steps:
    """The end that dialled; ``entropy`` gives uniform bytes (ephemeral key, then nonce)."""
    if expect is not None and expect not in known:
        raise HandshakeError(f"{expect} is not in the deployment file: add it, with its public key")
    ephemeral = entropy(_KEY)
    hello = _header(_Kind.HELLO) + crypto_scalarmult_base(ephemeral) + entropy(_KEY)
    answer = _read((yield hello), _Kind.ANSWER)
    whom = expect or "the other end"
    transcript = _hash(_PROTOCOL, hello, answer[:_CLEAR])
    try:
        keys = _Keys(ephemeral, answer[_HEADER.size :][:_KEY], transcript)
        del ephemeral
        proof = keys.open(b"responder proof", transcript, answer[_CLEAR:], whom)
        peer = verify(proof, _RESPONDER, transcript, prologue, keys.mac(_RESPONDER), identity.name, known)
        if expect is not None and peer != expect:
            raise HandshakeError(f"reached {peer} where {expect} was expected: compare the addresses and ports")
    except (HandshakeError, ProofError) as error:
        raise _refused(error, _header(_Kind.REFUSAL)) from None
    transcript = _hash(transcript, answer[_CLEAR:])
    proof = prove(identity, _INITIATOR, transcript, prologue, keys.mac(_INITIATOR))
    message = _header(_Kind.PROOF) + keys.seal(b"initiator proof", transcript, proof)
    transcript = _hash(transcript, message)
    told = _read((yield message), _Kind.VERDICT)
    verdict = keys.open(b"verdict", transcript, told[_HEADER.size :], peer)[0]
    if verdict != Verdict.ACCEPTED:
        reason = TOLD.get(verdict, f"for a reason that this side does not know ({verdict})")
        raise HandshakeError(f"{peer} refused {identity.name}: {reason}")
    return b"", keys.agreed(peer, transcript, sending=_INITIATOR, receiving=_RESPONDER)


def respond(
    identity: Identity,
    known: Mapping[str, VerifyKey],
    prologue: bytes = b"",
    entropy: Entropy = nacl.utils.random,
) -> Steps:
    """The end that was called, and learns by whom."""
    hello = _read((yield b""), _Kind.HELLO)
    ephemeral = entropy(_KEY)
    answer = _header(_Kind.ANSWER) + crypto_scalarmult_base(ephemeral) + entropy(_KEY)
    transcript = _hash(_PROTOCOL, hello, answer)
    keys = _Keys(ephemeral, hello[_HEADER.size :][:_KEY], transcript)
    del ephemeral
    proof = prove(identity, _RESPONDER, transcript, prologue, keys.mac(_RESPONDER))
    sealed = keys.seal(b"responder proof", transcript, proof)
    transcript = _hash(transcript, sealed)
    message = _read((yield answer + sealed), _Kind.PROOF)
    proof = keys.open(b"initiator proof", transcript, message[_HEADER.size :], "the other end")
    signed, transcript = transcript, _hash(transcript, message)
    try:
        peer = verify(proof, _INITIATOR, signed, prologue, keys.mac(_INITIATOR), identity.name, known)
    except ProofError as error:
        # The initiator knows by now who refuses it, and nobody else can read why.
        raise _refused(error, _verdict(keys, transcript, error.verdict)) from None
    last = _verdict(keys, transcript, Verdict.ACCEPTED)
    return last, keys.agreed(peer, transcript, sending=_RESPONDER, receiving=_INITIATOR)


def _refused(error: Exception, reply: bytes) -> HandshakeError:
    refusal = HandshakeError(str(error))
    refusal.reply = reply
    return refusal


class _Keys:
    """The key schedule of one run."""

    def __init__(self, ephemeral: bytes, theirs: bytes, transcript: bytes) -> None:
        try:
            shared = crypto_scalarmult(ephemeral, theirs)
        except CryptoError:  # how libsodium reports the all-zero result
            shared = bytes(_KEY)
        if hmac.compare_digest(shared, bytes(_KEY)):
            raise HandshakeError(
                "the other end's ephemeral key has low order, so that anybody could compute the secret: it does "
                "not follow the protocol, or the message was changed on the way"
            )
        self._secret = hmac.digest(transcript, shared, "sha256")  # HKDF-Extract

    def _derive(self, label: bytes, transcript: bytes) -> bytes:
        return expand(self._secret, label + transcript)

    def mac(self, role: bytes) -> Mac:
        return lambda transcript, block: hmac.digest(
            self._derive(role + b" mac", transcript), transcript + block, "sha256"
        )

    def seal(self, label: bytes, transcript: bytes, text: bytes) -> bytes:
        # The key depends on all messages before and encrypts this one text, so that the nonce can be constant.
        return AESGCM(self._derive(label, transcript)).encrypt(bytes(12), text, transcript)

    def open(self, label: bytes, transcript: bytes, sealed: bytes, whom: str) -> bytes:
        try:
            return AESGCM(self._derive(label, transcript)).decrypt(bytes(12), sealed, transcript)
        except InvalidTag:
            raise HandshakeError(
                f"a handshake message of {whom} does not authenticate: something on the way changed or replayed one"
            ) from None

    def agreed(self, peer: str, transcript: bytes, *, sending: bytes, receiving: bytes) -> Agreed:
        return Agreed(
            peer,
            sending=self._derive(sending + b" records", transcript),
            receiving=self._derive(receiving + b" records", transcript),
            exporter=self._derive(b"exporter", transcript),
        )


def _hash(*parts: bytes) -> bytes:
    """Each part but the protocol's name has a fixed size, so that plain concatenation is unambiguous."""
    return sha256(b"".join(parts)).digest()


def _header(kind: _Kind) -> bytes:
    return _HEADER.pack(_MAGIC, kind, PROTOCOL_VERSION)


def _verdict(keys: _Keys, transcript: bytes, verdict: Verdict) -> bytes:
    return _header(_Kind.VERDICT) + keys.seal(b"verdict", transcript, bytes([verdict]))


def _read(data: Data, kind: _Kind) -> bytes:
    """The message, if it is one of this kind, version and size."""
    if len(data) < _HEADER.size or data[: len(_MAGIC)] != _MAGIC:
        raise HandshakeError(
            f"a frame of {len(data)} bytes is not a handshake message: does something else speak on that port, or "
            "is one end set to plaintext?"
        )
    message = bytes(data[: LONGEST_MESSAGE + 1])
    _, found, version = _HEADER.unpack_from(message)
    if version != PROTOCOL_VERSION:
        error = HandshakeError(
            f"the other end speaks protocol version {version}, this side {PROTOCOL_VERSION}: install the same "
            "release at both ends"
        )
        if found == _Kind.HELLO:
            error.reply = _header(_Kind.REFUSAL)
        raise error
    if found == _Kind.REFUSAL:
        raise HandshakeError("the other end refused this side's name, key or deployment file: its log says which")
    if found == _Kind.HELLO != kind:
        raise HandshakeError("the other end dialled as well: one end has to accept")
    if found != kind:
        raise HandshakeError(f"a handshake message of kind {found} came where kind {int(kind)} was expected")
    if len(data) != _SIZES[kind]:
        raise HandshakeError(
            f"a frame of {len(data)} bytes is not a handshake message of kind {int(kind)}, which has {_SIZES[kind]}"
        )
    return message
