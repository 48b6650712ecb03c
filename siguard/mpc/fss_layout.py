"""Where things are in a function key, and how its blocks are moved: what making and evaluating keys share.

Equations and names are those of `siguard.mpc.fss`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.mpc.prg import BLOCK_BYTES, Blocks, Generator
from siguard.ring import BooleanRing, Ring, RingArray

Bytes = npt.NDArray[np.uint8]
Unsigned = npt.NDArray[np.unsignedinteger[Any]]

#: Bytes of a party's root.
ROOT_BYTES = BLOCK_BYTES
#: Nodes that are walked side by side: one level's blocks stay in the second-level cache.
_NODES = 1 << 12
#: Bound of the temporaries of one chunk, which long payloads would exceed.
_CHUNK_BYTES = 1 << 24
#: A block has 2^7 bits.
_PACKED_LEAF_BITS = 7
# Arrays without axes: numpy takes longer to convert a number than to work on a small batch.
ONE, LAST_BIT, SIGN_SHIFT = np.array(1, np.uint64), np.array(63, np.uint64), np.array(63, np.int64)


@dataclass(frozen=True)
class KeyLayout:
    """The correction bytes of one key: for each level a block and the words of w, then the leaf's z_j.

    values: whether the key has values at each level, as comparison keys have.
    """

    bits: int
    words: int
    ring: Ring
    values: bool

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise ValueError(f"domain of {self.bits} bits; allowed: 1 to 64")
        if self.words < 1:
            raise ValueError(f"payload of {self.words} words; at least 1 is needed")
        if isinstance(self.ring, BooleanRing):
            raise ValueError(f"payload ring {self.ring} packs many elements into a word; use Z2")

    @cached_property
    def packed(self) -> bool:
        """Payloads of one bit: a leaf is one block, bit j for point j."""
        return self.ring.bits == 1 and self.words == 1

    @cached_property
    def value_bit(self) -> bool:
        """Whether v is bit 2 of the child's block, and w bit 2 of the correction block."""
        return self.values and self.packed

    @cached_property
    def value_words(self) -> int:
        """Words of w at each level."""
        return self.words if self.values and not self.packed else 0

    @cached_property
    def level_bytes(self) -> int:
        """Correction bytes of a level."""
        return BLOCK_BYTES + self.value_words * self.ring.itemsize

    @cached_property
    def leaf_bits(self) -> int:
        """e: the e-th level inside the leaf adds 2^(e-1) payloads and saves the bytes of a level."""
        width = self.words * self.ring.itemsize
        return min(self.bits, _PACKED_LEAF_BITS if self.packed else (self.level_bytes // width).bit_length())

    @cached_property
    def leaf_points(self) -> int:
        """Points of one leaf, 2^e."""
        return 1 << self.leaf_bits

    @cached_property
    def leaf_bytes(self) -> int:
        """Correction bytes of the leaf."""
        if self.packed:
            return max(1, self.leaf_points // 8)
        return self.leaf_points * self.words * self.ring.itemsize

    @cached_property
    def levels(self) -> int:
        """Levels above the leaf."""
        return self.bits - self.leaf_bits

    @cached_property
    def key_bytes(self) -> int:
        """All correction bytes."""
        return self.levels * self.level_bytes + self.leaf_bytes

    @cached_property
    def lanes(self) -> int:
        """Ring elements in a block."""
        return BLOCK_BYTES // self.ring.itemsize

    @cached_property
    def payload_blocks(self) -> int:
        """Blocks of which one payload's pads are made."""
        return -(-self.words // self.lanes)

    @cached_property
    def leaf_share(self) -> int:
        """Points of the leaf that one block serves; 1 if a payload takes a block or more."""
        return max(1, self.lanes // self.words)

    @cached_property
    def leaf_blocks(self) -> int:
        """Blocks of which the leaf's pads are made."""
        return 1 if self.packed else -(-self.leaf_points // self.leaf_share) * self.payload_blocks

    @cached_property
    def shifts(self) -> npt.NDArray[np.uint64]:
        """How far right each level's bit of a point is from bit 0: (levels, 1)."""
        return np.arange(self.bits - 1, self.leaf_bits - 1, -1).astype(np.uint64)[:, None]

    def write_keep(self, blocks: Blocks) -> None:
        """Write masks that clear the control bits of blocks, and the value bit where there is one."""
        blocks[...] = ~np.uint64(0)
        blocks[..., 0] = 2**64 - (8 if self.value_bit else 4)


@lru_cache(maxsize=256)
def key_layout(bits: int, words: int, ring: Ring, values: bool) -> KeyLayout:
    """The layout of a kind of key; ValueError if there is none."""
    return KeyLayout(bits, words, ring, values)


# --- parts of keys ----------------------------------------------------------------------------------------


def level_rows(layout: KeyLayout, corrections: Bytes) -> Bytes:
    """A view (n, levels, level_bytes) of corrections."""
    above = corrections[:, : layout.levels * layout.level_bytes]
    return above.reshape(len(corrections), layout.levels, layout.level_bytes)


def copy_blocks(blocks: Blocks, rows: Bytes, each: int = 1) -> None:
    """Copy ``rows``, (n, levels, up to 16), ``each`` times to the beginnings of ``blocks``, (levels, n each, 2)."""
    target = items(blocks.view(np.uint8)[..., : rows.shape[-1]])
    target.reshape(len(blocks), len(rows), each)[...] = items(rows).T[..., None]


def copy_back(rows: Bytes, blocks: Blocks) -> None:
    """The inverse of `copy_blocks`."""
    items(rows)[...] = items(blocks.view(np.uint8)[..., : rows.shape[-1]]).T


def leaf_rows(layout: KeyLayout, corrections: Bytes) -> Bytes:
    """A view (n, leaf_bytes) of corrections."""
    return corrections[:, layout.levels * layout.level_bytes :]


def directions_of(layout: KeyLayout, points: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Bit of each point at each level: (levels, n)."""
    bits = np.right_shift(points, layout.shifts)
    return np.bitwise_and(bits, ONE, bits)


def leaf_pads(layout: KeyLayout, generator: Generator, seeds: Blocks) -> RingArray:
    """L_j(s) for all points j of the leaf: (n, 2^e, words) for seeds (n, 2).  Not for packed keys."""
    inputs = np.empty((layout.leaf_blocks, *seeds.shape), np.uint64)
    for index, block in enumerate(inputs):
        block[...] = seeds
        if index:
            block[:, 0] ^= np.uint64(index)
    width = layout.words * layout.ring.itemsize
    pads = np.empty((len(seeds), layout.leaf_points * width), np.uint8)
    of_group = layout.leaf_share * width
    for index, block in enumerate(generator(inputs).view(np.uint8)):
        group, part = divmod(index, layout.payload_blocks)
        begin = group * of_group + part * BLOCK_BYTES
        target = pads[:, begin : min(begin + BLOCK_BYTES, (group + 1) * of_group)]
        if target.size:
            items(target)[...] = items(block[:, : target.shape[1]])
    return pads.view(layout.ring.dtype).reshape(len(seeds), layout.leaf_points, layout.words)


def packed_leaf(
    layout: KeyLayout, generator: Generator, seeds: Blocks, control: Blocks, corrections: Bytes
) -> Bytes:
    """L(s) ^ t z for packed leaves: (n, leaf_bytes), bit j for point j."""
    leaf = generator(seeds).view(np.uint8)[:, : layout.leaf_bytes]
    leaf ^= corrections & control.view(np.uint8)[:, : layout.leaf_bytes]
    return leaf


# --- moving blocks ----------------------------------------------------------------------------------------


def carve(*shapes: tuple[int, ...]) -> list[Blocks]:
    """Arrays of blocks, not initialised, out of one allocation.

    The allocator would give many large ones back to the system, and each page would fault in again at every call.
    """
    sizes = [2 * prod(shape) for shape in shapes]
    whole, arrays, end = np.empty(sum(sizes), np.uint64), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        begin, end = end, end + size
        arrays.append(whole[begin:end].reshape(*shape, 2))
    return arrays


def items(rows: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """A view with each run along the last axis as one item, which numpy moves faster than its parts."""
    return rows.view(f"V{rows.shape[-1] * rows.itemsize}")[..., 0]


def repeat(rows: Any, times: int) -> Any:
    """Each row ``times`` times, side by side."""
    return rows if times == 1 else np.repeat(rows, times, axis=0)


def side_by_side(blocks: RingArray) -> RingArray:
    """(blocks, n, lanes) to (n, elements)."""
    return blocks.transpose(1, 0, 2).reshape(blocks.shape[1], -1)


# --- chunks -----------------------------------------------------------------------------------------------


def slices(count: int, step: int) -> Iterator[slice]:
    """0 .. count - 1 in slices of ``step``."""
    return (slice(begin, begin + step) for begin in range(0, count, step))


def walked_together(blocks_each: int) -> int:
    """How many keys or points make a chunk, if each needs so many blocks of temporaries."""
    return max(1, min(_NODES, _CHUNK_BYTES // (BLOCK_BYTES * blocks_each)))


def windows_together(nodes: int) -> int:
    """How many keys make a chunk, if the widest level has so many nodes of each."""
    return max(1, 8 * _NODES // nodes)


def blocks_together() -> int:
    """How many blocks of values or of leaves make one call of the generator."""
    return 2 * _NODES


def value_groups(layout: KeyLayout, count: int) -> tuple[int, int]:
    """How many blocks of a payload, and how many levels, of ``count`` nodes make one call for values; or (0, 0)."""
    if not layout.value_words or not layout.levels:
        return 0, 0
    most = blocks_together() // count
    together = max(1, min(layout.levels, most))
    return max(1, min(layout.payload_blocks, most // together)), together


# --- checks -----------------------------------------------------------------------------------------------


def check_bytes(data: Bytes, shape: tuple[int, ...], what: str) -> None:
    """Raise ValueError unless ``data`` are bytes of this shape."""
    if data.dtype != np.uint8 or data.shape != shape:
        raise ValueError(f"{what}: {data.dtype} of shape {data.shape}; needed: uint8 of shape {shape}")


def check_numbers(numbers: Unsigned, shape: tuple[int, ...], bits: int, what: str) -> None:
    """Raise ValueError unless ``numbers`` have this shape and are in the domain; none is named, for secrecy."""
    if numbers.dtype.kind != "u" or numbers.shape != shape:
        raise ValueError(f"{what}: {numbers.dtype} of shape {numbers.shape}; needed: unsigned of shape {shape}")
    if 8 * numbers.itemsize > bits and (numbers >> numbers.dtype.type(bits)).any():
        raise ValueError(f"{what}: a number is not below 2^{bits}, the size of the domain; reduce it first")


def check_keys(party: int, layout: KeyLayout, roots: Bytes, corrections: Bytes) -> int:
    """The number of keys; raises ValueError unless the arrays are those of one party."""
    if party not in (0, 1):
        raise ValueError(f"party {party} evaluates no keys; allowed: 0 and 1")
    count = len(roots)
    check_bytes(roots, (count, ROOT_BYTES), f"roots of party {party}")
    check_bytes(corrections, (count, layout.key_bytes), "corrections")
    return count
