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


def _levels(blocks: int) -> list[tuple[int, int]]:
    """By level: blocks in the lowest node, and the number of full nodes above it."""
    levels = []
    while blocks > 1:
        nodes = -(-blocks // _BLOCKS)
        levels.append((blocks - _BLOCKS * (nodes - 1), nodes - 1))
        blocks = nodes
    return levels


def carry_cost(blocks: int, words: int) -> Cost:
    """For each level the products of masks and one exchange; nothing for a node of one block."""
    total = Cost()
    for lowest, full in _levels(blocks):
        products = outputs = 0
        if lowest > 1:
            products, outputs = len(_node(lowest, propagates=False).masked), 1
        if full:
            products += full * len(_node(_BLOCKS, propagates=True).masked)
            outputs += 2 * full
        total += deal_cost(products * words, 8) + exchange_cost(outputs * words, 8)
    return total


async def carry_out(party: Party, generate: Share, propagate: Share) -> Share:
    """Carry out of all blocks, lowest first: (blocks, words) over `PACKED` to (1, words).

    Block i gives a carry by itself or passes one on; G = g_hi xor p_hi g_lo of neighbours (Kogge and Stone, 1973).
    No carry enters: what the lowest block propagates is not looked at.
    Cost: ceil(log4(blocks)) rounds (`carry_cost`).
    """
    words = generate.shape[1]
    for number, (lowest, full) in enumerate(_levels(generate.shape[0])):
        step = party.at("level", number)
        nodes: list[tuple[_Node, Share]] = []
        if lowest > 1:
            both = Share.concatenate([generate[:lowest], propagate[:lowest]])
            nodes.append((_node(lowest, propagates=False), both.reshape(2 * lowest, 1, words)))
        if full:
            rows = [part[lowest:].reshape(full, _BLOCKS, words) for part in (generate, propagate)]
            both = Share.concatenate(rows, axis=1).map(lambda part: part.swapaxes(0, 1))
            nodes.append((_node(_BLOCKS, propagates=True), both))
        found = await remask(step, await _nodes(step, nodes))
        # Rows: the lowest node's carry, unless it is a block that passes through; then G and P of the others.
        start = 0 if lowest == 1 else 1
        first = generate[:1] if lowest == 1 else found[:1]
        generate = Share.concatenate([first, found[start : start + full]])
        propagate = Share.concatenate([first, found[start + full :]])
    return generate


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
