"""Rings Z_2^k on numpy arrays, fixed-point encoding, and exact matrix products through float64 BLAS.

Pure numpy, no randomness, no secrets policy: the types that guard secrets are in `siguard.mpc.share`.

Elements are unsigned and reduced; the element types are uint8 for k <= 8, then the smallest that fits.
k = 1 to 8 exist for exhaustive tests of the very code that runs at k = 64, and for counts, table indices
and bits.  Signed values are read in two's complement.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

RingArray = npt.NDArray[np.unsignedinteger[Any]]
FloatArray = npt.NDArray[np.float64]

#: Bits of one centred limb: three limbs of 22, 22 and 20 bits make a 64-bit element.
_LIMB_BITS = 22
#: Longest inner dimension of one exact block.  The middle sum A0 B1 + A1 B0 has 2n products of size at most
#: 2^21 * 2^21, and float64 is exact up to 2^53: n <= 2^53 / 2^43.  The other two sums are smaller.
INNER_LIMIT = 1 << 10
#: From this many elements on, bits are transposed plane by plane.
_PLANE_THRESHOLD = 1 << 10
#: Below this many multiply-adds numpy's integer product beats the limbs.
_LIMB_THRESHOLD = 1 << 20


class Ring:
    """The ring of integers modulo 2^bits, 1 <= bits <= 64.

    All methods take and return arrays of `dtype` with at least one axis; results are reduced.
    """

    def __init__(self, bits: int) -> None:
        if not 1 <= bits <= 64:
            raise ValueError(f"ring of {bits} bits; allowed: 1 to 64")
        self.bits = bits
        width = next(size for size in (8, 16, 32, 64) if bits <= size)
        self.dtype: np.dtype[Any] = np.dtype(f"<u{width // 8}")
        self.itemsize = width // 8
        self.name = f"Z_2^{bits}"
        # The machine word wraps by itself where the ring fills it.
        self._mask: np.unsignedinteger[Any] | None = None if bits == width else self.dtype.type((1 << bits) - 1)

    def __repr__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ring) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def _reduce(self, values: Any) -> RingArray:
        return values if self._mask is None else values & self._mask  # type: ignore[no-any-return]

    def add(self, x: RingArray, y: RingArray) -> RingArray:
        """x + y."""
        return self._reduce(x + y)

    def sub(self, x: RingArray, y: RingArray) -> RingArray:
        """x - y."""
        return self._reduce(x - y)

    def neg(self, x: RingArray) -> RingArray:
        """-x."""
        return self._reduce(self.zeros(1) - x)

    def mul(self, x: RingArray, y: RingArray) -> RingArray:
        """x * y, elementwise."""
        return self._reduce(x * y)

    def sum(self, x: RingArray, axis: int) -> RingArray:
        """Sum over one axis; at least one axis must remain."""
        return self._reduce(np.sum(x, axis=axis, dtype=self.dtype))

    def shift_right(self, x: RingArray, shift: int) -> RingArray:
        """Logical shift of the reduced element."""
        return x if shift == 0 else x >> self.dtype.type(shift)

    def convert(self, x: RingArray) -> RingArray:
        """Reduce elements of another ring (at least as large) into this one."""
        return self._reduce(x.astype(self.dtype, copy=False))

    def zeros(self, *shape: int) -> RingArray:
        """An array of zeros."""
        return np.zeros(shape, self.dtype)

    def constant(self, values: npt.ArrayLike) -> RingArray:
        """Ring elements of (signed) public integers, with at least one axis."""
        array = np.atleast_1d(np.asarray(values))
        if array.dtype.kind not in "iub":
            raise TypeError(f"constants must be whole numbers, found {array.dtype}")
        return self._reduce(array.astype(np.int64 if array.dtype.kind != "u" else np.uint64).astype(self.dtype))

    def from_bytes(self, data: bytes | memoryview, shape: tuple[int, ...]) -> RingArray:
        """Elements from little-endian words, surplus bits dropped: uniform bytes give uniform elements."""
        return self._reduce(np.frombuffer(data, self.dtype).reshape(shape))

    def signed(self, x: RingArray) -> npt.NDArray[np.int64]:
        """Two's-complement value, in [-2^(bits-1), 2^(bits-1))."""
        left = 64 - self.bits
        return (x.astype(np.uint64) << np.uint64(left)).view(np.int64) >> np.int64(left)

    def matmul(self, x: RingArray, y: RingArray | PreparedMatrix) -> RingArray:
        """Exact x @ y for x of shape (m, n), y of shape (n, p)."""
        plain = y.matrix if isinstance(y, PreparedMatrix) else y
        if self.bits <= 32 or x.shape[0] * plain.size < _LIMB_THRESHOLD:
            return self._reduce(x @ plain)
        prepared = y if isinstance(y, PreparedMatrix) else PreparedMatrix(y)
        return self._reduce(limb_matmul(x.astype(np.uint64, copy=False), prepared))


class BooleanRing(Ring):
    """Z_2, packed 64 to a word: addition is XOR, multiplication is AND, on every lane of a uint64.

    The gates are the ones of `Ring` at k = 1; only the packing differs.
    """

    def __init__(self) -> None:
        super().__init__(64)
        self.name = "Z_2 x 64"

    def add(self, x: RingArray, y: RingArray) -> RingArray:  # noqa: D102 - as in Ring
        return x ^ y

    def sub(self, x: RingArray, y: RingArray) -> RingArray:  # noqa: D102 - as in Ring
        return x ^ y

    def neg(self, x: RingArray) -> RingArray:  # noqa: D102 - as in Ring
        return x

    def mul(self, x: RingArray, y: RingArray) -> RingArray:  # noqa: D102 - as in Ring
        return x & y

    def sum(self, x: RingArray, axis: int) -> RingArray:  # noqa: D102 - as in Ring
        total: RingArray = np.bitwise_xor.reduce(x, axis=axis)
        return total

    def matmul(self, x: RingArray, y: RingArray | PreparedMatrix) -> RingArray:  # noqa: D102 - as in Ring
        matrix = y.matrix if isinstance(y, PreparedMatrix) else y
        return self.sum(x[:, :, None] & matrix[None], 1)


@cache
def ring(bits: int) -> Ring:
    """The ring Z_2^bits; one object per width."""
    return Ring(bits)


#: Fraction bits of values in fixed point, unless said otherwise.
FRACTION_BITS = 16

#: The ring in use for values.
Z64 = ring(64)
#: Single bits, one to a byte.
Z2 = ring(1)
#: Bytes, for payloads that mix rings.
BYTES = ring(8)
#: Single bits, 64 to a word, for the adders.
PACKED = BooleanRing()


# --- fixed point ------------------------------------------------------------------------------------------


def encode(values: npt.ArrayLike, fraction_bits: int, limit: float | None = None) -> RingArray:
    """Fixed-point elements of Z_2^64, rounded to nearest; at least one axis.

    Saturates: values beyond +-limit (default 2^(62 - fraction_bits), a factor 2 inside the ring) become
    +-limit, so that nothing wraps.  NaN is refused.
    """
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if np.isnan(array).any():
        raise ValueError("NaN has no fixed-point encoding")
    bound = 2.0 ** (62 - fraction_bits) if limit is None else limit
    return np.rint(np.clip(array, -bound, bound) * 2.0**fraction_bits).astype(np.int64).view(np.uint64)


def decode(elements: RingArray, fraction_bits: int) -> FloatArray:
    """Float64 value of fixed-point elements of Z_2^64."""
    return Z64.signed(elements).astype(np.float64) / 2.0**fraction_bits


# --- exact 64-bit matrix product --------------------------------------------------------------------------


def _limbs(x: RingArray) -> list[FloatArray]:
    """Three centred limbs: x = l0 + l1 2^22 + l2 2^44 mod 2^64, |l0|, |l1| <= 2^21, |l2| <= 2^19."""
    rest = x.view(np.int64)
    limbs: list[FloatArray] = []
    for bits in (_LIMB_BITS, _LIMB_BITS, 64 - 2 * _LIMB_BITS):
        left = np.int64(64 - bits)
        limb = (rest << left) >> left
        limbs.append(limb.astype(np.float64))
        rest = (rest - limb) >> np.int64(bits)
    return limbs


class PreparedMatrix:
    """A right operand whose limbs are computed once and reused, for weights that serve many products.

    Holds, per block of the inner dimension, the limbs stacked as [B2; B1; B0], so that
    [A0 A1 A2] @ [B2; B1; B0] = A0 B2 + A1 B1 + A2 B0 and its trailing parts give the lower sums.
    """

    def __init__(self, matrix: RingArray) -> None:
        self.matrix = matrix
        self._blocks: list[FloatArray] | None = None

    @property
    def blocks(self) -> list[FloatArray]:
        """Stacked limbs per block of at most `INNER_LIMIT` rows; computed at first use."""
        if self._blocks is None:
            y = self.matrix.astype(np.uint64, copy=False)
            self._blocks = [
                np.concatenate(_limbs(np.ascontiguousarray(y[start : start + INNER_LIMIT]))[::-1])
                for start in range(0, y.shape[0], INNER_LIMIT)
            ]
        return self._blocks


def limb_matmul(x: RingArray, y: PreparedMatrix) -> RingArray:
    """x @ y mod 2^64 with three float64 BLAS products per block; exact (see `INNER_LIMIT`)."""
    total = np.zeros((x.shape[0], y.matrix.shape[1]), np.uint64)
    for index, stacked in enumerate(y.blocks):
        block = np.ascontiguousarray(x[:, index * INNER_LIMIT : (index + 1) * INNER_LIMIT])
        n = block.shape[1]
        left = np.concatenate(_limbs(block), axis=1)
        for weight in range(3):
            partial = left[:, : (weight + 1) * n] @ stacked[(2 - weight) * n :]
            total += partial.astype(np.int64).view(np.uint64) << np.uint64(weight * _LIMB_BITS)
    return total


# --- bits -------------------------------------------------------------------------------------------------


def bit_slices(elements: RingArray, bits: int) -> RingArray:
    """Transpose the low ``bits`` bits of n elements into packed words: (bits, ceil(n / 64)) of uint64.

    Lane j of row i is bit i of element j; spare lanes are 0.
    """
    flat = np.ascontiguousarray(elements).reshape(-1, 1).view(np.uint8)
    if len(flat) < _PLANE_THRESHOLD:
        return pack_bits(np.unpackbits(flat, axis=1, count=bits, bitorder="little").T)
    # Plane by plane: one pass over a byte column per bit, instead of a transposition of single bits.
    planes = np.zeros((bits, 8 * -(-len(flat) // 64)), np.uint8)
    for byte in range(-(-bits // 8)):
        column = np.ascontiguousarray(flat[:, byte])
        for bit in range(8 * byte, min(bits, 8 * byte + 8)):
            plane = np.packbits(column & np.uint8(1 << bit % 8), bitorder="little")
            planes[bit, : len(plane)] = plane
    return planes.view("<u8")


def pack_bits(planes: npt.NDArray[np.uint8]) -> RingArray:
    """Rows of 0/1 bytes (rows, n) to packed words (rows, ceil(n / 64))."""
    packed = np.packbits(planes, axis=1, bitorder="little")
    short = -packed.shape[1] % 8
    if short:
        packed = np.concatenate([packed, np.zeros((packed.shape[0], short), np.uint8)], axis=1)
    return np.ascontiguousarray(packed).view("<u8")


def unpack_bits(words: RingArray, count: int) -> npt.NDArray[np.uint8]:
    """The inverse of `pack_bits`: packed words (rows, w) to 0/1 bytes (rows, count)."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, count=count, bitorder="little")


#: A local, linear rearrangement of an array (reshape, slice, transpose, ...), applied to every share alike.
Rearrangement = Callable[[Any], Any]
