"""The generator behind comparison and point keys: AES-128 under one public key, many blocks to a call.

    G_j(s) = AES_K(s ^ j) ^ s ^ j        (Matyas-Meyer-Oseas)

for 128-bit strings s with their lowest bits 0 and small public tweaks j; K is 16 bytes of SHA-256 over a name.

Assumption: AES_K behaves as an ideal permutation that is independent of all seeds.  Then the blocks G_j(s) of
secret, uniform seeds cannot be told from uniform ones: after b blocks and p computations of AES of its own, a
distinguisher has an advantage of the order of b (p + b) / 2^124.  K serves all keys, so b counts the blocks of
all of them.  Source: Guo, Katz, Wang, Yu (IEEE S&P 2020), 'Efficient and secure multiparty computation from
fixed-key block ciphers'.
"""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Blocks are pairs of little-endian words: the last axis has length 2, and bit 0 of word 0 is bit 0 of the block.
Blocks = npt.NDArray[np.uint64]

BLOCK_BYTES = 16
#: Nothing up my sleeve: the key is the hash of what it is for.
_PUBLIC_KEY = hashlib.sha256(b"siguard: fixed-key generator of function keys, 1").digest()[:BLOCK_BYTES]


class _Encryption(threading.local):
    """AES under the public key; one to a thread, as making it takes longer than the blocks of a few keys."""

    def __init__(self) -> None:
        # The blocks of one call are independent inputs of a permutation, not a message under a secret key.
        mode = modes.ECB()  # noqa: S305
        self.write = Cipher(algorithms.AES(_PUBLIC_KEY), mode).encryptor().update_into


_ENCRYPTION = _Encryption()


class Generator:
    """G on batches of at most ``blocks`` blocks.  For the thread that made it: it owns its buffer."""

    def __init__(self, blocks: int, room: Blocks | None = None) -> None:
        """room: the buffer, contiguous, one block larger than ``blocks``."""
        self._write = _ENCRYPTION.write
        # OpenSSL's interface asks for all but one byte of a further block.
        buffer = np.empty((blocks + 1, 2), np.uint64) if room is None else room
        self._target = buffer.data.cast("B")
        self._words: Blocks = buffer.reshape(-1)
        self._outputs: Blocks = self._words

    def __call__(self, inputs: Blocks) -> Blocks:
        """G of ``inputs`` = s ^ j, shape (..., 2), contiguous.  The result is overwritten by the next call."""
        outputs = self._outputs
        if outputs.shape != inputs.shape:
            outputs = self._outputs = self._words[: inputs.size].reshape(inputs.shape)
        self._write(inputs.data.cast("B"), self._target)
        return np.bitwise_xor(outputs, inputs, outputs)
