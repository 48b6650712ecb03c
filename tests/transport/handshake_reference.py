"""The handshake and the records once more, from their description alone, on hashlib, hmac and the primitives.

Shares no code with the package.  Plays either part of a handshake, also one that deviates.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.signing import SigningKey

HELLO, ANSWER, PROOF, VERDICT, REFUSAL = (b"siguard" + bytes([kind]) + b"\0\1" for kind in range(1, 6))


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def expand(secret: bytes, label: bytes, length: int = 32) -> bytes:
    """RFC 5869, 2.3, for at most one block."""
    return hmac.new(secret, b"siguard " + label + b"\1", hashlib.sha256).digest()[:length]


@dataclass
class Party:
    """Honest unless told otherwise."""

    name: bytes
    key: SigningKey
    ephemeral: bytes
    nonce: bytes
    prologue: bytes = b""
    block: bytes | None = None
    change_signature: Callable[[bytes], bytes] = bytes
    change_mac: Callable[[bytes], bytes] = bytes

    def point(self) -> bytes:
        return crypto_scalarmult_base(self.ephemeral)

    def proof(self, role: bytes, secret: bytes, h: bytes) -> bytes:
        block = self.block
        if block is None:
            public = bytes(self.key.verify_key)
            block = bytes([len(self.name)]) + self.name + bytes(64 - len(self.name)) + public + sha(self.prologue)
        signature = self.key.sign(b"siguard sealed link, signature of the " + role + h + block).signature
        mac = hmac.new(expand(secret, role + b" mac" + h), h + block, hashlib.sha256).digest()
        return block + self.change_signature(signature) + self.change_mac(mac)


@dataclass
class Run:
    """All messages of a run between two parties, and what comes out."""

    hello: bytes
    answer: bytes
    proof: bytes
    verdict: bytes
    initiator_records: bytes
    responder_records: bytes
    exporter: bytes


def encrypt(secret: bytes, label: bytes, h: bytes, text: bytes) -> bytes:
    return AESGCM(expand(secret, label + h)).encrypt(bytes(12), text, h)


def run(initiator: Party, responder: Party, verdict: int = 0) -> Run:
    hello = HELLO + initiator.point() + initiator.nonce
    clear = ANSWER + responder.point() + responder.nonce
    h1 = sha(b"siguard SIGMA-I X25519 Ed25519 HKDF-SHA256 AES-256-GCM", hello, clear)
    shared = crypto_scalarmult(initiator.ephemeral, responder.point())
    secret = hmac.new(h1, shared, hashlib.sha256).digest()
    sealed = encrypt(secret, b"responder proof", h1, responder.proof(b"responder", secret, h1))
    h2 = sha(h1, sealed)
    proof = PROOF + encrypt(secret, b"initiator proof", h2, initiator.proof(b"initiator", secret, h2))
    h3 = sha(h2, proof)
    return Run(
        hello,
        clear + sealed,
        proof,
        VERDICT + encrypt(secret, b"verdict", h3, bytes([verdict])),
        expand(secret, b"initiator records" + h3),
        expand(secret, b"responder records" + h3),
        expand(secret, b"exporter" + h3),
    )


def record(secret: bytes, counter: int, text: bytes, kind: bytes, rekey_records: int) -> bytes:
    for _ in range(counter // rekey_records):
        secret = expand(secret, b"next records")
    iv = int.from_bytes(expand(secret, b"record iv", 12), "big")
    nonce = (iv ^ counter).to_bytes(12, "big")
    return AESGCM(expand(secret, b"record key")).encrypt(nonce, text, kind)
