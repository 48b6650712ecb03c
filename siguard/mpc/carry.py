"""The carry out of many blocks of an adder: a tree with up to four blocks to a node, one exchange a level."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from siguard.mpc.arithmetic import deal, deal_cost, exchange_cost, remask
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.ring import PACKED, RingArray

#: Blocks to a node.
_BLOCKS = 4
_ONES = ~np.uint64(0)

Indices = npt.NDArray[np.intp]


class _Node(NamedTuple):
    """What a node computes from bits y = (g of its blocks, lowest first, then p), each y_i = a_i xor mu_i.

    A product of bits is the sum over its subsets S of (product of a outside S) (product of mu in S), so with the
    products of masks dealt it needs no exchange before that of the result.

    masked: (products, 4), which masks each dealt product has.  outputs: for each output the public factors
    (terms, 4) and the factor with masks (terms,) of its terms: a mask itself, a dealt product, or 1, in this order.
    Rows of factors are filled up with the index of a row of ones.
    """

    masked: Indices
    outputs: tuple[tuple[Indices, Indices], ...]


@lru_cache(maxsize=16)
def _node(blocks: int, *, propagates: bool) -> _Node:
    """G = g_3 + p_3 g_2 + p_3 p_2 g_1 + p_3 p_2 p_1 g_0, and P = p_3 p_2 p_1 p_0 where the block above needs it."""
    g, p = range(blocks), range(blocks, 2 * blocks)
    sums = [[(g[j], *p[j + 1 :]) for j in range(blocks)]]
    if propagates:
        sums.append([tuple(p)])
    bits = 2 * blocks
    dealt = sorted({masks for products in sums for factors in products for masks in _subsets(factors, 2)})
    place = {(bit,): bit for bit in range(bits)} | {masks: bits + i for i, masks in enumerate(dealt)}
    place[()] = bits + len(dealt)

    def padded(factors: tuple[int, ...]) -> tuple[int, ...]:
        return factors + (bits,) * (_BLOCKS - len(factors))

    outputs = []
    for products in sums:
        terms = [
            (padded(tuple(bit for bit in factors if bit not in masks)), place[masks])
            for factors in products
            for masks in _subsets(factors, 0)
        ]
        outputs.append((np.array([public for public, _ in terms]), np.array([part for _, part in terms])))
    return _Node(np.array([padded(masks) for masks in dealt]), tuple(outputs))


def _subsets(factors: tuple[int, ...], least: int) -> Iterator[tuple[int, ...]]:
    """All subsets of at least so many."""
    return chain.from_iterable(combinations(factors, size) for size in range(least, len(factors) + 1))


class _Level(NamedTuple):
    """One level: blocks in the lowest node, the number of full nodes above it, and all nodes but one of one block.

    Rows of a level are what its blocks generate, lowest first, and what all but the lowest propagate.
    nodes: each kind of node with the rows of its bits, (bits, nodes).
    """

    lowest: int
    full: int
    nodes: tuple[tuple[_Node, Indices], ...]


@lru_cache(maxsize=32)
def _levels(blocks: int) -> tuple[_Level, ...]:
    levels = []
    while blocks > 1:
        full = -(-blocks // _BLOCKS) - 1
        lowest = blocks - _BLOCKS * full
        # What the lowest block propagates is not looked at: row 0 is a place holder.
        rows = np.concatenate([np.arange(blocks), [0], np.arange(blocks, 2 * blocks - 1)]).reshape(2, blocks)
        nodes = []
        if lowest > 1:
            nodes.append((_node(lowest, propagates=False), rows[:, :lowest].reshape(-1, 1)))
        if full:
            above = rows[:, lowest:].reshape(2, full, _BLOCKS).swapaxes(1, 2).reshape(-1, full)
            nodes.append((_node(_BLOCKS, propagates=True), above))
        levels.append(_Level(lowest, full, tuple(nodes)))
        blocks = full + 1
    return tuple(levels)


def carry_cost(blocks: int, words: int) -> Cost:
    """For each level the products of masks and one exchange; nothing for a node of one block."""
    total = Cost()
    for lowest, full, _ in _levels(blocks):
        products = outputs = 0
        if lowest > 1:
            products, outputs = len(_node(lowest, propagates=False).masked), 1
        if full:
            products += full * len(_node(_BLOCKS, propagates=True).masked)
            outputs += 2 * full
        total += deal_cost(products * words, 8) + exchange_cost(outputs * words, 8)
    return total


async def carry_out(party: Party, blocks: Share) -> Share:
    """Carry out of n blocks: (2 n - 1, words) over `PACKED` to (1, words).

    blocks: whether each generates a carry, lowest first, then whether each but the lowest, which receives none,
    passes one on.  G = g_hi xor p_hi g_lo of neighbours (Kogge and Stone, 1973).
    Cost: ceil(log4(n)) rounds (`carry_cost`).
    """
    for number, level in enumerate(_levels((blocks.shape[0] + 1) // 2)):
        step = party.at("level", number)
        found = await remask(step, await _nodes(step, [(node, blocks[rows]) for node, rows in level.nodes]))
        # Rows: the lowest node's carry, unless it is a block that passes through; then G and P of the others.
        blocks = found if level.lowest > 1 else Share.concatenate([blocks[:1], found])
    return blocks


async def _nodes(party: Party, nodes: list[tuple[_Node, Share]]) -> Additive:
    """Outputs of all nodes, one row after another, additive; bits of a node: (bits, nodes, words)."""
    words = nodes[0][1].shape[-1]
    sizes = [len(node.masked) * bits.shape[1] for node, bits in nodes]
    depth = max(bits.depth for _, bits in nodes)

    def products() -> RingArray:
        found = [np.bitwise_and.reduce(_with_ones(bits.mask())[node.masked], axis=1) for node, bits in nodes]
        return np.concatenate([part.reshape(-1, words) for part in found])

    dealt = await deal(party, PACKED, (sum(sizes), words), products, depth)
    rows = sum(len(node.outputs) * bits.shape[1] for node, bits in nodes)
    if party.is_dealer:
        return Additive(2, PACKED, PACKED.zeros(rows, words), depth, dealer_part=False)

    def combined() -> RingArray:
        ends, results = np.cumsum(sizes), []
        for (node, bits), size, end in zip(nodes, sizes, ends, strict=True):
            mask_products = dealt.value[end - size : end].reshape(-1, *bits.shape[1:])
            one = np.full((1, *bits.shape[1:]), _ONES if party.role == 1 else np.uint64(0))
            factors = np.concatenate([bits.mask_part(), mask_products, one])
            public = _with_ones(bits.masked())
            for known, masked in node.outputs:
                terms = np.bitwise_and.reduce(public[known], axis=1) & factors[masked]
                results.append(np.bitwise_xor.reduce(terms, axis=0))
        return np.concatenate(results)

    value = await party.compute(combined, rows * words * 64)
    return Additive(party.role, PACKED, value, max(depth, dealt.depth), dealer_part=False)


def _with_ones(bits: RingArray) -> RingArray:
    return np.concatenate([bits, np.full((1, *bits.shape[1:]), _ONES)])
