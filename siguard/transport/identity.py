"""Identities, and the proof of one inside a handshake: SIGMA's sign-and-MAC.

    proof   block, Ed25519(context, role, h, block), MAC(h, block)
    block   name (its length, padded to 64 bytes), Ed25519 public key, SHA-256(prologue)

h is the hash of everything that was sent before; the MAC's key is of this run and role, and comes from the caller.
The signature says that the key's holder takes part in this run, the MAC that it knows who it claims to be there.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b, sha256
from typing import TypeAlias

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from siguard.errors import InputError
from siguard.transport.records import HoldsKeys

NAME_BYTES = 64

_KEY = 32
_BLOCK = 1 + NAME_BYTES + 2 * _KEY
_SIGNATURE = 64
PROOF_BYTES = _BLOCK + _SIGNATURE + 32

#: (h, block) to 32 bytes.
Mac: TypeAlias = Callable[[bytes, bytes], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Identity(HoldsKeys):
    """A party's name (1 to 64 bytes of UTF-8) and its long-term signing key."""

    name: str
    signing_key: SigningKey = field(repr=False)

    def __post_init__(self) -> None:
        # Printable first: what is not printable may have no UTF-8.
        if not self.name.isprintable() or not 1 <= len(self.name.encode()) <= NAME_BYTES:
            raise InputError(f"a party's name has 1 to {NAME_BYTES} printable bytes, not {self.name[:80]!r}")


class Verdict(IntEnum):
    """What one end thinks of the other's proof."""

    ACCEPTED = 0
    NOT_PROVED = 1
    OWN_NAME = 2
    UNKNOWN_NAME = 3
    OTHER_KEY = 4
    OTHER_PROLOGUE = 5


#: What each verdict tells the end that it is about.
TOLD: dict[int, str] = {
    Verdict.NOT_PROVED: "it could not verify this side's proof",
    Verdict.OWN_NAME: "it has the same name: two processes run as one party",
    Verdict.UNKNOWN_NAME: "that name is not in its deployment file",
    Verdict.OTHER_KEY: "its deployment file pins another key: compare the deployment files and this key file",
    Verdict.OTHER_PROLOGUE: "the two ends describe the channel differently: compare the deployment files",
}


class ProofError(Exception):
    """A proof is refused; the text is for this side only."""

    def __init__(self, verdict: Verdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


def fingerprint(key: VerifyKey) -> str:
    """16 hex digits of the public key's BLAKE2b (64 bits): for people to compare, not for programs to trust."""
    return blake2b(bytes(key), digest_size=32).hexdigest()[:16]


def prove(identity: Identity, role: bytes, transcript: bytes, prologue: bytes, mac: Mac) -> bytes:
    """The proof of an identity, `PROOF_BYTES` long."""
    name = identity.name.encode()
    public = bytes(identity.signing_key.verify_key)
    block = bytes([len(name)]) + name.ljust(NAME_BYTES, b"\0") + public + sha256(prologue).digest()
    return block + identity.signing_key.sign(_signed(role, transcript, block)).signature + mac(transcript, block)


def verify(
    proof: bytes,
    role: bytes,
    transcript: bytes,
    prologue: bytes,
    mac: Mac,
    own: str,
    known: Mapping[str, VerifyKey],
) -> str:
    """The name that a proof proves, one of ``known`` with the key pinned there; raises `ProofError`."""
    block, signature, tag = proof[:_BLOCK], proof[_BLOCK:][:_SIGNATURE], proof[_BLOCK + _SIGNATURE :]
    public = VerifyKey(block[1 + NAME_BYTES :][:_KEY])
    try:
        public.verify(_signed(role, transcript, block), signature)
    except BadSignatureError:
        reason = "the other end's signature does not verify: it does not hold the key that it names"
        raise ProofError(Verdict.NOT_PROVED, reason) from None
    if not hmac.compare_digest(tag, mac(transcript, block)):
        reason = "the other end's MAC does not verify: it does not know who it claims to be in this run"
        raise ProofError(Verdict.NOT_PROVED, reason)
    name = _name(block)
    if name == own:
        reason = f"the other end is {name} as well: two processes run as one party, or it called itself"
        raise ProofError(Verdict.OWN_NAME, reason)
    if name not in known:
        raise ProofError(Verdict.UNKNOWN_NAME, f"{name} is not in the deployment file: add it, with its public key")
    if bytes(known[name]) != bytes(public):
        raise ProofError(
            Verdict.OTHER_KEY,
            f"{name} proved another key ({fingerprint(public)}) than the one pinned for it "
            f"({fingerprint(known[name])}): compare the deployment files, and its key file",
        )
    if block[-_KEY:] != sha256(prologue).digest():
        reason = f"{name} describes the channel differently (another prologue): compare the deployment files"
        raise ProofError(Verdict.OTHER_PROLOGUE, reason)
    return name


def _signed(role: bytes, transcript: bytes, block: bytes) -> bytes:
    return b"siguard sealed link, signature of the " + role + transcript + block


def _name(block: bytes) -> str:
    """The name in a block, if it is in its one spelling."""
    length, padded = block[0], block[1:][:NAME_BYTES]
    try:
        name = padded[:length].decode()
    except UnicodeDecodeError:
        name = ""
    if not name or not name.isprintable() or length > NAME_BYTES or any(padded[length:]):
        raise ProofError(Verdict.NOT_PROVED, "the other end gives no proper name: it does not follow the protocol")
    return name
