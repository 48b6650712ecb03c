"""Function secret sharing: keys for comparisons and points, in batches.

Party b in {0, 1} holds a root of 16 uniform bytes, and correction bytes that both hold; it expands them along the
bits of a public point x, highest first, to f_b(x) with f_0(x) + f_1(x) = f(x) in the ring:

    comparison key    f(x) = payload if x < alpha else 0
    point key         f(x) = payload if x == alpha else 0

A node of the tree is a seed s (a block with its lowest bits 0) and a control bit t.  Off the path to alpha both
parties hold the same node; on it the seeds are independent and t_0 ^ t_1 = 1; at the root, t_b = b.  The step in
direction d in {0, 1}, with the level's correction block c, the same for all its nodes:

    u = G_d(s) ^ t c,    t' = bit d of u,    s' = u with its lowest bits cleared

Let a be the level's bit of alpha, and g_d = G_d(s_0) ^ G_d(s_1) on the path.  The seed bits of c are those of
g_(1-a), so that seeds agree where the path is left; bit 0 is that of g_0 ^ a ^ 1 and bit 1 that of g_1 ^ a, so
that t_0 ^ t_1 = [d = a] below.  A comparison key has at each level also elements v_d(s), from further blocks of
G, and a correction w.  With D_d = v_d(s_0) - v_d(s_1), and V the sum of both shares so far (0 at the root),

    share += (-1)^b (v_d(s) + t w),    w = (-1)^(t_1) (a payload - D_(1-a) - V),    V' = D_a - D_(1-a) + a payload

and the sum is a payload where the path is left: f, for all of that subtree, to which nothing is added below.  The
last e levels are one leaf (early termination): the final seed is expanded to L_j(s) for all its 2^e points j, and

    share += (-1)^b (L_j(s) + t z_j),    z_j = (-1)^(t_1) (f(j) - V - L_j(s_0) + L_j(s_1))

In keys of one bit (Z_2, one word) a leaf is a block of 128 points, and comparison keys have v as bit 2 of G_d(s)
and w as bit 2 of c.

Tweaks of G: 0 and 1 for children, 2 i + 2 + d for block i of v_d, and i for block i of a leaf, whose seed has no
children.  Seeds have 126 bits, in comparison keys of one bit 125.  To either party alone its key is pseudorandom
(on the ground stated in `siguard.mpc.prg`): whatever is known of alpha and payload, each correction is masked by
outputs of G at seeds of the other party that it never learns.  No branch, index or size depends on alpha, payload,
roots or control bits; points are public to the parties.

Source: Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar, Rathee (EUROCRYPT 2021) for comparisons with one correction
of values a level; Boyle, Gilboa, Ishai (CCS 2016) for points and early termination.
"""

from __future__ import annotations

from math import prod

import numpy as np
import numpy.typing as npt

from siguard.mpc.fss_keys import comparison_keys, point_keys
from siguard.mpc.fss_layout import (
    LAST_BIT,
    ROOT_BYTES,
    SIGN_SHIFT,
    Bytes,
    KeyLayout,
    Unsigned,
    carve,
    check_keys,
    check_numbers,
    copy_blocks,
    directions_of,
    items,
    key_layout,
    leaf_rows,
    level_rows,
    packed_leaf,
    repeat,
    side_by_side,
    slices,
    value_groups,
    walked_together,
)
from siguard.mpc.fss_windows import evaluate_window
from siguard.mpc.prg import BLOCK_BYTES, Blocks, Generator
from siguard.ring import Ring, RingArray

__all__ = [
    "ROOT_BYTES",
    "comparison_key_bytes",
    "comparison_keys",
    "evaluate_comparison",
    "evaluate_window",
    "point_key_bytes",
    "point_keys",
]

_Points = npt.NDArray[np.uint64]

#: From so many points of a key on, its corrections are summed by products of floats.
_BY_FLOATS = 8


def comparison_key_bytes(bits: int, words: int, ring: Ring) -> int:
    """Correction bytes of one comparison key; the root comes on top.

    With W bytes of payload: (bits - e) (16 + W) + 2^e W, e <= bits being the largest with 2^(e-1) W <= 16 + W, so
    that no smaller e gives a smaller key.  One word of Z_2: 16 (bits - 6) from 7 bits on, else max(1, 2^bits / 8).
    """
    return key_layout(bits, words, ring, values=True).key_bytes


def point_key_bytes(bits: int, words: int, ring: Ring) -> int:
    """Correction bytes of one point key; the root comes on top.

    With W bytes of payload: 16 (bits - e) + 2^e W, e <= bits being the largest with 2^(e-1) W <= 16, or 0.  One
    word of Z_2: as `comparison_key_bytes`.
    """
    return key_layout(bits, words, ring, values=False).key_bytes


# --- comparisons ------------------------------------------------------------------------------------------


def evaluate_comparison(
    party: int,
    roots: Bytes,
    corrections: Bytes,
    points: Unsigned,
    bits: int,
    words: int,
    ring: Ring,
) -> RingArray:
    """Party ``party``'s share of f at each point, (n, m, words); the two parties' results add to f.

    roots: this party's, (n, 16).  corrections: from `comparison_keys`.  points: (n, m), below 2^bits, m for each
    key.  Cost: for each point 1 + ceil(W / 16) blocks a level (1 in keys of one bit), and in the leaf those of one
    payload.
    """
    layout = key_layout(bits, words, ring, values=True)
    count = check_keys(party, layout, roots, corrections)
    if points.ndim != 2:
        raise ValueError(f"points of shape {points.shape}; needed: (n, m)")
    check_numbers(points, (count, points.shape[1]), bits, "points")
    results = np.empty((*points.shape, words), ring.dtype)
    seeds, rows = np.ascontiguousarray(roots).view(np.uint64), np.ascontiguousarray(corrections)
    together = walked_together(5 * layout.levels + 10 * layout.payload_blocks)
    for columns in slices(points.shape[1], together):
        part = points[:, columns].astype(np.uint64)
        for keys in slices(count, max(1, together // part.shape[1])):
            results[keys, columns] = _compare(layout, party, seeds[keys], rows[keys], part[keys])
    return results


def _compare(layout: KeyLayout, party: int, roots: Blocks, rows: Bytes, points: _Points) -> RingArray:
    """One chunk of `evaluate_comparison`; the nodes of all points side by side."""
    ring, levels, (keys, each) = layout.ring, layout.levels, points.shape
    count = keys * each
    wide = prod(value_groups(layout, count)) * count
    room, seeds, control, corrections, keep, total, inputs = carve(
        (max(wide, count * layout.payload_blocks) + 1,),
        (levels + 1, count),
        (levels + 1, count),
        (levels, count),
        (count,),
        (count,),
        (wide,),
    )
    generator = Generator(len(room) - 1, room)
    seeds[:levels, :, 0], seeds[:levels, :, 1] = directions_of(layout, points.reshape(-1)), 0
    np.subtract(LAST_BIT, seeds[:levels], control[1:])
    copy_blocks(corrections, level_rows(layout, rows)[..., :BLOCK_BYTES], each)
    layout.write_keep(keep)
    seeds[levels], total[...], control[0] = 0, 0, ~np.uint64(0) if party else 0
    seeds[0] |= repeat(roots, each) & keep
    # Before a level is reached, its node has the direction alone, its mask is a shift of the bit to the sign.
    first, second, value_bit = control[1:, :, 0], control[1:, :, 1], layout.value_bit
    ways = zip(  # noqa: B905 - the final nodes have no level
        seeds, control, corrections, seeds[1:], control[1:], control[1:].view(np.int64), first, second
    )
    for node, mask, correction, below, below_mask, signed, low, high in ways:
        child = generator(node)
        np.bitwise_and(correction, mask, correction)
        np.bitwise_xor(child, correction, child)
        if value_bit:
            np.bitwise_xor(total, child, total)
        np.left_shift(child, below_mask, below_mask)
        np.right_shift(signed, SIGN_SHIFT, signed)
        np.copyto(high, low)
        np.bitwise_and(child, keep, child)
        np.bitwise_or(below, child, below)
    places = (points & np.uint64(layout.leaf_points - 1)).astype(np.intp)
    if layout.packed:
        leaf = packed_leaf(layout, generator, seeds[-1], control[-1], repeat(leaf_rows(layout, rows), each))
        at = places.reshape(-1)
        found = np.take_along_axis(leaf, (at >> 3)[:, None], 1)[:, 0] >> (at & 7).astype(np.uint8)
        found ^= (total[:, 0] >> np.uint64(2)).astype(np.uint8)
        return ring.convert(found).reshape(keys, each, 1)
    leaves = items(np.ascontiguousarray(leaf_rows(layout, rows)).reshape(keys * layout.leaf_points, -1))
    values = leaves.take(places + np.arange(0, len(leaves), layout.leaf_points)[:, None]).view(ring.dtype)
    values = values.reshape(keys, each, layout.words)
    values &= control[-1, :, :1].astype(ring.dtype).reshape(keys, each, 1)
    if levels:
        values += _sum_of_values(layout, generator, seeds[:-1], control[:-1], rows, inputs)
    values += _pads_at(layout, generator, seeds[-1], places.reshape(-1)).reshape(values.shape)
    return ring.neg(values) if party else ring.convert(values)


def _sum_of_values(
    layout: KeyLayout, generator: Generator, nodes: Blocks, control: Blocks, rows: Bytes, inputs: Blocks
) -> RingArray:
    """Sum of v + t w over the levels, (keys, points, words); ``nodes`` have their direction in bit 0.

    inputs: room for the inputs of one call.
    """
    ring, blocks, (levels, count, _) = layout.ring, layout.payload_blocks, nodes.shape
    groups, together = value_groups(layout, count)
    tweaks = np.zeros((blocks, 1, count, 2), np.uint64)
    tweaks[..., 0] = np.arange(2, 2 * blocks + 2, 2, dtype=np.uint64)[:, None, None]
    totals = ring.zeros(blocks, count, layout.lanes)
    for part in slices(levels, together):
        some = nodes[part]
        for group in slices(blocks, groups):
            tweak = tweaks[group]
            shape = (len(tweak), len(some), count, 2)
            chosen = np.bitwise_xor(some, tweak, inputs[: prod(shape[:3])].reshape(shape))
            totals[group] += np.add.reduce(generator(chosen).view(ring.dtype), axis=1, dtype=ring.dtype)
    sums = side_by_side(totals)[:, : layout.words].reshape(len(rows), -1, layout.words)
    masks = control[..., 0].reshape(levels, len(rows), -1).transpose(1, 2, 0)
    sums += _masked_words(ring, masks, level_rows(layout, rows)[..., BLOCK_BYTES:])
    return sums


def _masked_words(ring: Ring, masks: _Points, rows: Bytes) -> RingArray:
    """Sum of t w over the levels, (keys, points, words), for masks (keys, points, levels)."""
    if masks.shape[1] < _BY_FLOATS:
        # Masks are 0 or -1 in every ring.
        total: RingArray = np.ascontiguousarray(masks.astype(ring.dtype)) @ rows.view(ring.dtype)
        return ring.neg(total)
    # Exact: the sums of at most 64 pieces of at most 32 bits are below 2^38.
    pieces = rows.view(np.uint32 if ring.itemsize == 8 else ring.dtype).astype(np.float64)
    negative = pieces.transpose(0, 2, 1) @ masks.view(np.int64).astype(np.float64).transpose(0, 2, 1)
    sums = np.negative(negative, negative).astype(np.uint64)
    if ring.itemsize == 8:
        sums = sums[:, ::2] + (sums[:, 1::2] << np.uint64(32))
    return sums.astype(ring.dtype, copy=False).transpose(0, 2, 1)


def _pads_at(layout: KeyLayout, generator: Generator, seeds: Blocks, places: npt.NDArray[np.intp]) -> RingArray:
    """L_j(s) at one place j for each seed: (n, words)."""
    blocks, share = layout.payload_blocks, layout.leaf_share
    inputs = np.empty((blocks, *seeds.shape), np.uint64)
    inputs[...] = seeds
    inputs[..., 0] ^= (places // share * blocks + np.arange(blocks)[:, None]).astype(np.uint64)
    pads = generator(inputs).view(layout.ring.dtype)
    if share == 1:
        return side_by_side(pads)[:, : layout.words]
    first = np.arange(0, pads.size, layout.lanes) + places % share * layout.words
    return pads.reshape(-1).take(first[:, None] + np.arange(layout.words))
