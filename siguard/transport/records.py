"""The record layer of a sealed link: one message, one AES-256-GCM record.  Sans-IO: bytes in, bytes out.

    record  c  of one direction   AES-256-GCM(key, nonce = iv XOR c, message, kind)      message + SEAL_BYTES
    kind                          b"data", b"end" (after the last message), b"skip" + its header

The counter c is implicit: both ends count, so a record that was changed, replayed, reordered, left out or made for
another connection or direction does not authenticate.  The nonce is built as in TLS 1.3 (RFC 8446, 5.3).

After every `REKEY_RECORDS` records both ends take the next key and iv by HKDF-Expand and drop the old ones.

A *skip* is sent only after a send was cancelled and nobody knows whether its record left.  That record's counter is
never used again; the skip says, authenticated, which counters may be missing, and reading goes on behind it.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from siguard.transport.link import Data

#: What sealing adds to each message: the authentication tag.
SEAL_BYTES = 16
#: Records under one key.  Nonces cannot repeat: they come from a counter of 64 bits that never goes back.  The
#: bound on AES-GCM under one key is (blocks)^2 / 2^129: below 2^-64 with messages of 1 MiB throughout, which are
#: 2^32 blocks, below 2^-42 with messages of `MAX_MESSAGE_BYTES`; TLS 1.3 stops at 2^-57 (RFC 8446, 5.5).
REKEY_RECORDS = 1 << 16
#: The largest message: OpenSSL takes 2^31 - 1 bytes at once.
MAX_MESSAGE_BYTES = (1 << 31) - 1 - SEAL_BYTES
#: So many records may be in doubt at once; bounds what an unauthenticated skip makes the receiver compute.
MAX_SKIP = 1 << 16

SECRET_BYTES = 32
_IV_BYTES = 12
_DATA, _END, _SKIP = b"data", b"end", b"skip"
_SKIP_HEADER = struct.Struct(">QQ")  # first counter in doubt, the skip's own counter
_SKIP_BYTES = _SKIP_HEADER.size + SEAL_BYTES


class RecordError(Exception):
    """A record does not authenticate; nothing more is known about it."""


class Mark(Enum):
    """What a record can be besides a message."""

    END = "end"
    SKIP = "skip"


class HoldsKeys:
    """Refuses to be pickled or copied."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds keys and is not pickled or copied")


def expand(secret: bytes, label: bytes, length: int = SECRET_BYTES) -> bytes:
    """HKDF-Expand with SHA-256 (RFC 5869)."""
    return HKDFExpand(SHA256(), length, b"siguard " + label).derive(secret)


class _Direction(HoldsKeys):
    """Key, iv and counter of one direction; `_until` is the first counter that needs the next key."""

    __slots__ = ("_aead", "_counter", "_iv", "_rekey_records", "_secret", "_until")

    def __init__(self, secret: bytes, rekey_records: int = REKEY_RECORDS) -> None:
        self._rekey_records = rekey_records
        self._counter = 0
        self._until = 0
        self._take(secret)

    def _take(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = AESGCM(expand(secret, b"record key"))
        self._iv = int.from_bytes(expand(secret, b"record iv", _IV_BYTES))
        self._until += self._rekey_records

    def _rekey(self) -> None:
        """The key of this counter; the old secret is dropped and cannot be computed from the new one."""
        while self._counter >= self._until:
            self._take(expand(self._secret, b"next records"))

    def _nonce(self) -> bytes:
        return (self._iv ^ self._counter).to_bytes(_IV_BYTES)

    @property
    def counter(self) -> int:
        """Records so far, in this direction."""
        return self._counter

    def forget(self) -> None:
        """Drop the keys, harmless the second time; nothing can be sealed or opened afterwards."""
        for name in ("_secret", "_aead", "_iv"):
            if hasattr(self, name):
                delattr(self, name)


class Sealer(_Direction):
    """The sending half."""

    __slots__ = ("_doubt",)

    def __init__(self, secret: bytes, rekey_records: int = REKEY_RECORDS) -> None:
        super().__init__(secret, rekey_records)
        self._doubt: int | None = None

    def seal(self, message: Data) -> bytes:
        """The next record.  Records must leave in the order in which they were sealed."""
        return self._seal(message, _DATA)

    def seal_end(self) -> bytes:
        """The record after the last message."""
        return self._seal(b"", _END)

    def _seal(self, message: Data, kind: bytes) -> bytes:
        if self._counter >= self._until:
            self._rekey()
        record = self._aead.encrypt((self._iv ^ self._counter).to_bytes(_IV_BYTES), message, kind)
        self._counter += 1
        return record

    def doubt(self) -> None:
        """Nobody knows whether the record sealed last has left."""
        if self._doubt is None:
            self._doubt = self._counter - 1

    @property
    def in_doubt(self) -> int:
        """How many of the last records are not known to have left; if any, a skip must go first."""
        return 0 if self._doubt is None else self._counter - self._doubt

    def seal_skip(self) -> bytes:
        """The record that lets the receiver go on without those in doubt."""
        header = _SKIP_HEADER.pack(self._counter if self._doubt is None else self._doubt, self._counter)
        return header + self._seal(b"", _SKIP + header)

    def settle(self) -> None:
        """The skip has left: nothing is in doubt any more."""
        self._doubt = None


class Opener(_Direction):
    """The receiving half."""

    __slots__ = ("_ended",)

    def __init__(self, secret: bytes, rekey_records: int = REKEY_RECORDS) -> None:
        super().__init__(secret, rekey_records)
        self._ended = False

    def open(self, record: Data) -> bytes | Mark:
        """The message in the next record.  Raises `RecordError`; the opener is then of no more use."""
        if self._ended:
            raise RecordError
        if self._counter >= self._until:
            self._rekey()
        try:
            message = self._aead.decrypt((self._iv ^ self._counter).to_bytes(_IV_BYTES), record, _DATA)
        except InvalidTag:
            return self._open_mark(record)
        except OverflowError:
            raise RecordError from None
        self._counter += 1
        return message

    def _open_mark(self, record: Data) -> Mark:
        """The rare kinds; a data record is never taken for one, nor one for data, as the tag covers the kind."""
        try:
            if len(record) == _SKIP_BYTES:
                header, tag = bytes(record[: _SKIP_HEADER.size]), record[_SKIP_HEADER.size :]
                first, counter = _SKIP_HEADER.unpack(header)
                if first <= self._counter <= counter <= self._counter + MAX_SKIP:
                    self._counter = counter
                    self._rekey()
                    self._aead.decrypt(self._nonce(), tag, _SKIP + header)
                    self._counter += 1
                    return Mark.SKIP
            elif len(record) == SEAL_BYTES:
                self._aead.decrypt(self._nonce(), record, _END)
                self._counter += 1
                self._ended = True
                return Mark.END
        except InvalidTag:
            pass
        raise RecordError
