"""Public tables at a secret index, for small index rings.

The dealer knows the mask alpha of the index i = a + alpha mod 2^t, deals a unit vector with its 1 at alpha,
and roles 0 and 1 take the inner product with the table rotated by a.  The unit vector serves any number of
tables.  Point-function keys can replace the dealt vector behind the same call.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.mpc.arithmetic import deal, deal_cost, exchange_cost, remask
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.ring import PACKED, Z2, Z64, Ring, RingArray, pack_bits

#: Index rings above this would need more dealt bytes than any other way to the same value.
MAX_INDEX_BITS = 12
_BLOCK_ROWS = 1 << 13


def terms_cost(elements: int, index_bits: int, itemsize: int) -> Cost:
    """A unit vector of 2^t elements for each index."""
    return deal_cost(elements << index_bits, itemsize)


@gate(cost=terms_cost, simulator=composed)
async def lookup_terms(party: Party, index: Share, tables: RingArray, target: Ring = Z64) -> Additive:
    """tables[:, index] as an additive sharing of shape (m, *index.shape), before any exchange.

    index: a wire of the ring Z_2^t.  tables: public, (m, 2^t), elements of ``target``; entry i serves the index
    whose unsigned value is i.  [T(i)] = sum_j T(a + j mod 2^t) [j = alpha].  Exact.
    Cost: 0 rounds, 2^t elements of ``target`` dealt per index, however many tables.  Source: gates.md, 6 and 7.
    """
    size = _table_size(index, tables)
    shape = (prod(index.shape), size)

    def unit_vectors() -> RingArray:
        vectors = target.zeros(*shape)
        vectors[np.arange(shape[0]), index.mask().reshape(-1)] = 1
        return vectors

    dealt = await deal(party, target, shape, unit_vectors, index.depth)
    result_shape = (tables.shape[0], *index.shape)
    if party.is_dealer:
        return Additive(2, target, target.zeros(*result_shape), dealt.depth, dealer_part=False)

    def inner_products() -> RingArray:
        start = index.masked().reshape(-1)
        rows = []
        for table in tables:
            rotated = _rotations(table)
            row = target.zeros(shape[0])
            for block in _blocks(shape[0]):
                row[block] = target.sum(target.mul(rotated[start[block]], dealt.value[block]), 1)
            rows.append(row)
        return np.stack(rows).reshape(result_shape)

    value = await party.compute(inner_products, prod(shape) * len(tables))
    return Additive(party.role, target, value, max(index.depth, dealt.depth), dealer_part=False)


def _table_size(index: Share, tables: npt.NDArray[Any]) -> int:
    """2^t for an index ring Z_2^t; raises ValueError unless the tables have as many entries and t is small."""
    bits = index.ring.bits
    if bits > MAX_INDEX_BITS or tables.shape[1:] != (1 << bits,):
        raise ValueError(f"tables of shape {tables.shape} for an index of {bits} bits")
    return 1 << bits


def _rotations(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Row a: the table rotated by a, so that entry j is T(a + j); a view, not a copy."""
    return np.lib.stride_tricks.sliding_window_view(np.concatenate([table, table[:-1]]), len(table))


def _blocks(rows: int) -> Iterator[slice]:
    """Blocks of rows, so that gathered tables stay small whatever the batch."""
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, rows, _BLOCK_ROWS))


def lookup_cost(elements: int, index_bits: int, tables: int, itemsize: int) -> Cost:
    """Dealt unit vectors, then one exchange of all results."""
    return terms_cost(elements, index_bits, itemsize) + exchange_cost(elements * tables, itemsize)


@gate(cost=lookup_cost, simulator=composed)
async def lookup(party: Party, index: Share, tables: RingArray, target: Ring = Z64) -> Share:
    """tables[:, index] as wires of ``target``, shape (m, *index.shape).  Exact.  Cost: 1 round."""
    return await remask(party, await lookup_terms(party, index, tables, target))


def bit_terms_cost(elements: int, index_bits: int) -> Cost:
    """A packed unit vector of 2^t bits for each index."""
    return deal_cost(elements * _bit_words(index_bits), 8)


def _bit_words(index_bits: int) -> int:
    return max(1, (1 << index_bits) // 64)


@gate(cost=bit_terms_cost, simulator=composed)
async def lookup_bit_terms(party: Party, index: Share, tables: npt.NDArray[np.uint8]) -> Additive:
    """0/1 tables (m, 2^t) at the index, as an additive sharing over Z_2 of shape (m, *index.shape).

    As `lookup_terms`, with the unit vector packed 64 to a word: 64 times fewer bytes.
    Cost: 0 rounds, 2^t bits (at least a word) dealt per index, however many tables.
    """
    size = _table_size(index, tables)
    shape = (prod(index.shape), _bit_words(index.ring.bits))

    def unit_vectors() -> RingArray:
        position = index.mask().reshape(-1).astype(np.uint64)
        vectors = PACKED.zeros(*shape)
        word = (position >> np.uint64(6)).astype(np.intp)
        vectors[np.arange(shape[0]), word] = np.uint64(1) << (position & np.uint64(63))
        return vectors

    dealt = await deal(party, PACKED, shape, unit_vectors, index.depth)
    result_shape = (tables.shape[0], *index.shape)
    if party.is_dealer:
        return Additive(2, Z2, Z2.zeros(*result_shape), dealt.depth, dealer_part=False)

    def parities() -> RingArray:
        start = index.masked().reshape(-1)
        rows = []
        for table in tables:
            # Row a: the table rotated by a, packed like the unit vectors.
            packed = pack_bits(_rotations(table))
            row = Z2.zeros(shape[0])
            for block in _blocks(shape[0]):
                common = np.bitwise_count(packed[start[block]] & dealt.value[block])
                row[block] = np.bitwise_xor.reduce(common, axis=1) & 1
            rows.append(row)
        return np.stack(rows).reshape(result_shape)

    value = await party.compute(parities, prod(shape) * len(tables) + size * size)
    return Additive(party.role, Z2, value, max(index.depth, dealt.depth), dealer_part=False)


def signed_indices(bits: int) -> npt.NDArray[np.int64]:
    """The signed value of each table entry: 0 .. 2^(t-1) - 1, then -2^(t-1) .. -1."""
    index = np.arange(1 << bits)
    return np.where(index < 1 << (bits - 1), index, index - (1 << bits))
