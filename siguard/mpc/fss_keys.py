"""The dealer's side of function keys: both parties' trees are walked down to alpha, for all keys at once.

Equations and names are those of `siguard.mpc.fss`.  Bits of alpha and control bits act as masks, 0 or all ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat as repeated
from math import prod

import numpy as np
import numpy.typing as npt

from siguard.mpc.fss_layout import (
    LAST_BIT,
    ONE,
    ROOT_BYTES,
    SIGN_SHIFT,
    Bytes,
    KeyLayout,
    Unsigned,
    carve,
    check_bytes,
    check_numbers,
    copy_back,
    copy_blocks,
    directions_of,
    key_layout,
    leaf_pads,
    leaf_rows,
    level_rows,
    side_by_side,
    slices,
    value_groups,
    walked_together,
)
from siguard.mpc.prg import BLOCK_BYTES, Blocks, Generator
from siguard.ring import Ring, RingArray

_Bits = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Path:
    """The walk of both parties to alpha.  Axes: level, direction towards alpha or away, party, key, word.

    seeds: the generator's inputs for both children, (levels + 1, 2, 2, n, 2); last come the final seeds.
    control: control bits as masks, (levels + 1, 2, n, 2).  corrections: c, (levels, n, 2).
    gaps: g_0 ^ g_1 of every level where values are bits, (levels, n, 2); else of one level at a time, (1, n, 2).
    along: the bits of alpha, (levels, n).
    """

    seeds: Blocks
    control: Blocks
    corrections: Blocks
    gaps: Blocks
    along: _Bits


@dataclass(frozen=True)
class _ValueWork:
    """Room for the values of ``together`` levels and ``groups`` of the payload's blocks."""

    groups: int
    together: int
    inputs: Blocks
    differences: Blocks
    words: Blocks


def comparison_keys(
    roots: tuple[Bytes, Bytes], alpha: Unsigned, payload: RingArray, bits: int, ring: Ring
) -> Bytes:
    """Corrections (n, `comparison_key_bytes`) of n keys with f(x) = payload if x < alpha else 0.

    roots: of party 0 and of party 1, (n, 16) uniform bytes each, never used for another key.
    alpha: (n,), below 2^bits; 0 gives the zero function.  payload: (n, words), elements of ``ring``.
    Cost: per key and level 4 + 4 ceil(W / 16) blocks for W bytes of payload (4 in keys of one bit); 2 for each
    block of the leaf.
    """
    return _keys(roots, alpha, payload, bits, ring, values=True)


def point_keys(roots: tuple[Bytes, Bytes], alpha: Unsigned, payload: RingArray, bits: int, ring: Ring) -> Bytes:
    """Corrections (n, `point_key_bytes`) of n keys with f(x) = payload if x == alpha else 0.

    Arguments as `comparison_keys`.  Cost: per key and level 4 blocks; 2 for each block of the leaf.
    """
    return _keys(roots, alpha, payload, bits, ring, values=False)


def _keys(
    roots: tuple[Bytes, Bytes], alpha: Unsigned, payload: RingArray, bits: int, ring: Ring, values: bool
) -> Bytes:
    if payload.ndim != 2 or payload.dtype != ring.dtype:
        raise ValueError(f"payload of {payload.dtype} and shape {payload.shape}; needed: (n, words) of {ring}")
    count, words = payload.shape
    layout = key_layout(bits, words, ring, values)
    for party, root in enumerate(roots):
        check_bytes(root, (count, ROOT_BYTES), f"roots of party {party}")
    check_numbers(alpha, (count,), bits, "alpha")
    keys = np.empty((count, layout.key_bytes), np.uint8)
    both = np.stack([np.ascontiguousarray(root).view(np.uint64) for root in roots])
    together = walked_together(9 * layout.levels + 10 * layout.leaf_blocks + 4 * layout.payload_blocks)
    # Four children to a key.
    for part in slices(count, max(1, together // 2)):
        _fill(layout, both[:, part], alpha[part].astype(np.uint64), payload[part], keys[part])
    return keys


def _fill(layout: KeyLayout, roots: Blocks, alpha: _Bits, payload: RingArray, keys: Bytes) -> None:
    """Write the corrections of one chunk."""
    levels, count = layout.levels, len(alpha)
    groups, together = value_groups(layout, count)
    wide = groups * together * count
    room, seeds, control, corrections, gaps, inputs, differences, words = carve(
        (max(4 * count, 4 * wide, 2 * count * layout.leaf_blocks) + 1,),
        (levels + 1, 2, 2, count),
        (levels + 1, 2, count),
        (levels, count),
        (levels if layout.value_bit else 1, count),
        (4 * wide,),
        (2 * wide,),
        (wide,),
    )
    generator = Generator(len(room) - 1, room)
    along = directions_of(layout, alpha)
    path = _Path(seeds, control, corrections, gaps, along)
    _walk(layout, generator, path, roots)
    total = _write_value_bits(path, payload) if layout.value_bit else None
    copy_back(level_rows(layout, keys)[..., :BLOCK_BYTES], corrections)
    hits = np.arange(layout.leaf_points, dtype=np.uint64)
    place = (alpha & np.uint64(layout.leaf_points - 1))[:, None]
    wanted = (hits < place if layout.values else hits == place).astype(payload.dtype)
    if layout.packed:
        pads = generator(seeds[-1, 0]).view(np.uint8)[..., : layout.leaf_bytes]
        leaf = np.packbits(wanted & payload, axis=1, bitorder="little")
        if total is not None:
            leaf ^= np.uint8(0) - total.astype(np.uint8)[:, None]
        np.bitwise_xor(pads[0] ^ pads[1], leaf, out=leaf_rows(layout, keys))
        return
    leaf = wanted[..., None] * payload[:, None]
    if wide:
        work = _ValueWork(groups, together, inputs, differences, words)
        leaf -= _write_values(layout, generator, path, payload, keys, work)[:, None]
    pads = leaf_pads(layout, generator, seeds[-1, 0].reshape(-1, 2))
    leaf += pads[count:]
    leaf -= pads[:count]
    signs = control[-1, 1, :, :1].astype(payload.dtype)[..., None]
    leaf ^= signs
    leaf -= signs
    leaf_rows(layout, keys)[...] = layout.ring.convert(leaf).reshape(count, -1).view(np.uint8)


def _walk(layout: KeyLayout, generator: Generator, path: _Path, roots: Blocks) -> None:
    """Walk to alpha and fill all of ``path`` but ``along``, which says where."""
    seeds, control, corrections, along = path.seeds, path.control, path.corrections, path.along
    levels, count = along.shape
    child, gap, keep, bit_0 = np.empty((4, 2, count, 2), np.uint64)
    layout.write_keep(keep)
    bit_0[..., 0], bit_0[..., 1] = 1, 0
    # Before a level is reached, its nodes have the direction alone, its masks are shifts of the bit to the sign,
    # and its correction has the bit of the direction towards alpha.
    seeds[:levels, 0, :, :, 0] = along[:, None]
    seeds[:levels, 0, :, :, 1] = 0
    seeds[levels, 0] = 0
    np.subtract(LAST_BIT, seeds[:levels, 0], control[1:])
    np.add(along, ONE, corrections[..., 0])
    corrections[..., 1] = 0
    np.bitwise_and(roots, keep, child)
    seeds[0, 0] |= child
    np.bitwise_xor(seeds[0, 0], bit_0, seeds[0, 1])
    control[0, 0], control[0, 1] = 0, ~np.uint64(0)
    gaps: Iterable[Blocks] = path.gaps if len(path.gaps) == levels else repeated(path.gaps[0])
    below, signed, low, high = control[1:], control.view(np.int64)[1:], control[1:, ..., 0], control[1:, ..., 1]
    steps = zip(  # noqa: B905 - the final nodes have no level
        seeds, control, corrections, gaps, seeds[1:, 0], seeds[1:, 1], below, signed, low, high
    )
    for pair, mask, correction, both, toward, away, below_mask, sign, first, second in steps:
        children = generator(pair)
        np.bitwise_xor(children[:, 0], children[:, 1], gap)
        # c is the gap away from alpha, but for the bit towards alpha: that is the flipped one of the other gap.
        np.bitwise_xor(gap[0], gap[1], both)
        np.bitwise_and(both, correction, child[0])
        np.bitwise_xor(correction, child[0], correction)
        np.bitwise_xor(correction, gap[1], correction)
        np.bitwise_and(mask, correction, child)
        np.bitwise_xor(child, children[0], child)
        np.left_shift(child, below_mask, below_mask)
        np.right_shift(sign, SIGN_SHIFT, sign)
        np.copyto(second, first)
        np.bitwise_and(child, keep, child)
        np.bitwise_or(toward, child, toward)
        np.bitwise_xor(toward, bit_0, away)


def _write_value_bits(path: _Path, payload: RingArray) -> _Bits:
    """Write w of all levels where it is a bit: c has D_(1-a) there from the walk.  Returns V at the leaf, (n,)."""
    gain = path.along & payload[:, 0]
    after = path.gaps[..., 0] >> np.uint64(2) & ONE
    after ^= gain
    gain[1:] ^= after[:-1]
    path.corrections[..., 0] ^= gain << np.uint64(2)
    return after[-1] if len(after) else np.zeros(len(payload), np.uint64)


def _write_values(
    layout: KeyLayout, generator: Generator, path: _Path, payload: RingArray, keys: Bytes, work: _ValueWork
) -> RingArray:
    """Write w of all levels; returns V at the leaf, (n, words).  An axis of the payload's blocks comes first."""
    ring, count, blocks = layout.ring, len(payload), layout.payload_blocks
    padded = ring.zeros(count, blocks * layout.lanes)
    padded[:, : layout.words] = payload
    payloads = np.empty((blocks, 1, count, 2), np.uint64)
    copy_blocks(payloads[:, 0], padded.view(np.uint8).reshape(count, blocks, BLOCK_BYTES))
    tweaks = np.zeros((blocks, 1, 1, 1, count, 2), np.uint64)
    tweaks[..., 0] = np.arange(2, 2 * blocks + 2, 2, dtype=np.uint64).reshape(blocks, 1, 1, 1, 1)
    rows = level_rows(layout, keys)[..., BLOCK_BYTES:]
    total = ring.zeros(blocks, count, layout.lanes)
    toward = np.empty((work.together, count, 2), np.uint64)
    for part in slices(layout.levels, work.together):
        nodes = path.seeds[:-1][part]
        signs, along = path.control[:-1][part, 1].view(ring.dtype), toward[: len(nodes)]
        np.negative(path.along[part], along[..., 0])
        along[..., 1] = along[..., 0]
        for group in slices(blocks, work.groups):
            before = total[group]
            shape = (len(before), len(nodes), count, 2)
            size = prod(shape[:3])
            inputs = work.inputs[: 4 * size].reshape(*shape[:2], 2, 2, count, 2)
            values = generator(np.bitwise_xor(nodes, tweaks[group], inputs)).view(ring.dtype)
            gap = work.differences[: 2 * size].reshape(*shape[:2], 2, count, 2).view(ring.dtype)
            np.subtract(values[:, :, :, 0], values[:, :, :, 1], gap)
            after, lost = gap[:, :, 0], gap[:, :, 1]
            blocks_of_w = work.words[:size].reshape(shape)
            words = np.bitwise_and(payloads[group], along, blocks_of_w).view(ring.dtype)
            words -= lost
            after += words
            words[:, 0] -= before
            words[:, 1:] -= after[:, :-1]
            before[...] = after[:, -1]
            words ^= signs
            words -= signs
            reduced = ring.convert(words).view(np.uint64)
            for index, block in enumerate(reduced, group.start):
                copy_back(rows[:, part, index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES], block)
    return side_by_side(total)[:, : layout.words]
