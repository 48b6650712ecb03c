"""Evaluation of point keys at windows of neighbouring points.

Equations and names are those of `siguard.mpc.fss`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.mpc.fss_layout import (
    LAST_BIT,
    ONE,
    SIGN_SHIFT,
    Bytes,
    KeyLayout,
    Unsigned,
    blocks_together,
    carve,
    check_keys,
    check_numbers,
    copy_blocks,
    items,
    key_layout,
    leaf_pads,
    leaf_rows,
    level_rows,
    packed_leaf,
    repeat,
    slices,
    windows_together,
)
from siguard.mpc.prg import BLOCK_BYTES, Blocks, Generator
from siguard.ring import Ring, RingArray

_Points = npt.NDArray[np.uint64]

#: Where the children of so many nodes are is kept from call to call, in at most 8 MiB for 256 shapes.
_FEW = 1 << 10


def evaluate_window(
    party: int,
    roots: Bytes,
    corrections: Bytes,
    start: Unsigned,
    count: int,
    bits: int,
    words: int,
    ring: Ring,
) -> RingArray:
    """Party ``party``'s share of f at start, start + 1, ..., start + count - 1 mod 2^bits: (n, count, words).

    roots: this party's, (n, 16).  corrections: from `point_keys`.  start: (n,), below 2^bits, public to the party.
    Cost: for each key about 2 count / 2^e blocks and two a level for the tree, and the blocks of the leaves.  A
    level has as many neighbouring nodes as cover a window wherever it starts.
    """
    layout = key_layout(bits, words, ring, values=False)
    keys = check_keys(party, layout, roots, corrections)
    check_numbers(start, (keys,), bits, "start")
    if not 1 <= count <= 1 << bits:
        raise ValueError(f"window of {count} leaves in a domain of {bits} bits; allowed: 1 to 2^{bits}")
    results = np.empty((keys, count, words), ring.dtype)
    seeds, rows = np.ascontiguousarray(roots).view(np.uint64), np.ascontiguousarray(corrections)
    together = windows_together(_covering(layout, count, layout.levels))
    for part in slices(keys, together):
        first = start[part].astype(np.uint64)
        _window(layout, party, seeds[part], rows[part], first, results[part])
    return results


def _window(layout: KeyLayout, party: int, roots: Blocks, rows: Bytes, start: _Points, results: RingArray) -> None:
    """One chunk of `evaluate_window`: ``width`` neighbouring nodes of each key side by side, level by level."""
    ring, (keys, count, _) = layout.ring, results.shape
    most = keys * _covering(layout, count, layout.levels)
    leaves = max(1, min(keys, blocks_together() * keys // (most * layout.leaf_blocks)))
    wide = max(most, -(-most // keys) * leaves * layout.leaf_blocks)
    room, inputs, masks, moved, keep = carve((wide + 1,), (most,), (most,), (most,), (most,))
    generator = Generator(wide, room)
    layout.write_keep(keep)
    nodes, control, width = roots & keep[:keys], masks[:keys], 1
    control[...] = ~np.uint64(0) if party else 0
    own = np.arange(keys)[:, None]
    above = level_rows(layout, rows)[..., :BLOCK_BYTES]
    for level in range(layout.levels):
        correction = moved[: len(nodes)]
        copy_blocks(correction[None], above[:, level : level + 1], width)
        np.bitwise_and(correction, control, correction)
        odd = (start >> np.uint64(layout.bits - level - 1) & ONE).astype(np.intp)
        wider = _covering(layout, count, level + 1)
        places, ways = (_few_children if wider <= _FEW else _children)(width, wider, width == 1 << level)
        parents = (places.take(odd, axis=0) + own * width).reshape(-1)
        directions = ways.take(odd, axis=0).reshape(-1)
        chosen = inputs[: len(parents)]
        items(nodes).take(parents, out=items(chosen), mode="clip")
        chosen[:, 0] |= directions
        nodes, control, width = generator(chosen), masks[: len(parents)], wider
        nodes ^= items(correction).take(parents).view(np.uint64).reshape(-1, 2)
        np.subtract(LAST_BIT, directions, directions)
        low = np.left_shift(nodes[:, 0], directions, directions).view(np.int64)
        np.right_shift(low, SIGN_SHIFT, low)
        control[:, 0], control[:, 1] = directions, directions
        np.bitwise_and(nodes, keep[: len(nodes)], nodes)
    # The next outputs of the generator are written over these.
    final = moved[: len(nodes)]
    final[...] = nodes
    first = (start & np.uint64(layout.leaf_points - 1)).astype(np.intp)
    for part in slices(keys, leaves):
        of_nodes = slice(part.start * width, part.stop * width)
        leaf = repeat(leaf_rows(layout, rows)[part], width)
        values = _leaves(layout, generator, final[of_nodes], control[of_nodes], leaf)
        values = values.reshape(-1, width * layout.leaf_points, layout.words)
        cut = _cut(layout, values, first[part], count)
        results[part] = ring.neg(cut) if party else ring.convert(cut)


def _leaves(layout: KeyLayout, generator: Generator, nodes: Blocks, control: Blocks, leaf: Bytes) -> RingArray:
    """L_j(s) + t z_j for all points j of the leaf, (n, 2^e, words); not reduced."""
    if layout.packed:
        packed = packed_leaf(layout, generator, nodes, control, leaf)
        return np.unpackbits(packed, axis=1, count=layout.leaf_points, bitorder="little")
    values, ring = leaf_pads(layout, generator, nodes), layout.ring
    corrected = np.repeat(control[:, 0].astype(ring.dtype), values[0].size).reshape(values.shape)
    corrected &= leaf.view(ring.dtype).reshape(values.shape)
    corrected += values
    return corrected


def _cut(layout: KeyLayout, values: RingArray, first: npt.NDArray[np.intp], count: int) -> RingArray:
    """``count`` neighbouring payloads of each key from ``first`` on; a whole domain goes round."""
    keys, size, words = values.shape
    whole = size == 1 << layout.bits
    if size == count and not whole:
        return values
    points = first[:, None] + np.arange(count)
    if whole:
        points &= size - 1
    points += np.arange(0, keys * size, size)[:, None]
    return items(values.reshape(-1, words)).take(points).view(values.dtype).reshape(keys, count, words)


def _children(width: int, wider: int, whole: bool) -> tuple[npt.NDArray[np.intp], _Points]:
    """Parents, among ``width`` neighbours, and directions of ``wider`` neighbouring children: (2, wider) each.

    Row d if the first is its parent's child in direction d.  whole: the nodes are a whole level, which goes round.
    """
    children = np.arange(2)[:, None] + np.arange(wider)
    parents = children >> 1
    return parents & (width - 1) if whole else parents, (children & 1).astype(np.uint64)


_few_children = lru_cache(maxsize=256)(_children)


def _covering(layout: KeyLayout, count: int, level: int) -> int:
    """How many neighbouring nodes of a level cover any ``count`` neighbouring points, cyclically."""
    below = 1 << (layout.bits - level)
    return min(1 << level, 1 + -(-(count - 1) // below))
