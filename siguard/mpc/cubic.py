"""A step along a vector, corrected for its length, in one exchange: cubic in wires whose masks the dealer knows."""

from __future__ import annotations

from math import prod

import numpy as np

from siguard.mpc.arithmetic import deal_cost, deal_wire
from siguard.mpc.gate import Cost, composed, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Public, Share
from siguard.ring import Z64, RingArray


def cubic_cost(rows: int, n: int) -> Cost:
    """The products of the masks of each two entries."""
    return deal_cost(rows * n * (n + 1) // 2, 8)


@gate(cost=cubic_cost, simulator=composed)
async def cubic(party: Party, v: Share, linear: Public) -> Additive:
    """v'_i (linear - |v|^2), v'_i = v_i + sum v, |v|^2 = sum v_i^2 + (sum v)^2: additive, before its exchange.

    v: (..., n).  linear: broadcasts to v's shape.  With one more entry, -sum v, v is a vector of length |v|, and v'
    its entries relative to that one.  v = a + mu: all terms but the dealer's own are linear in mu_i mu_j, which are
    dealt, i <= j.
    Exact.  Cost: 0 rounds, n (n + 1) / 2 elements for each row.  Source: schedule.md, row 9.
    """
    n = v.shape[-1]
    rows, columns = np.triu_indices(n)

    def pairs() -> RingArray:
        mu = v.mask()
        return Z64.mul(mu[..., rows], mu[..., columns])

    shape = (*v.shape[:-1], len(rows))
    dealt = await deal_wire(party.at("pairs"), Z64, shape, pairs, v.depth)
    depth = max(v.depth, dealt.depth)
    relative = v + v.sum(-1)[..., None]

    if party.is_dealer:

        def own() -> RingArray:
            mu = v.mask()
            return Z64.neg(Z64.mul(relative.mask(), length_product(mu, mu)))

        return Additive(2, Z64, await party.compute(own, prod(shape)), depth)

    def combine() -> RingArray:
        a, mu = v.masked(), v.mask_part()
        a_relative, mu_relative = relative.masked(), relative.mask_part()
        # G_ij = [mu_i mu_j]; [mu'_i mu_j] = G_ij + sum_k G_kj.
        G = Z64.zeros(*v.shape[:-1], n, n)
        G[..., rows, columns] = dealt.mask_part()
        G[..., columns, rows] = dealt.mask_part()
        totals = G.sum(-2, dtype=np.uint64)
        crossed = G + totals[..., None, :]
        squared = np.trace(G, axis1=-2, axis2=-1)[..., None] + totals.sum(-1, dtype=np.uint64)[..., None]
        # |v|^2 = |a|^2 + 2 (<a, mu> + sum a sum mu) + |mu|^2.
        public = length_product(a, a)
        mixed = 2 * length_product(a, mu)
        by_mask = (crossed * a[..., None, :]).sum(-1, dtype=np.uint64)
        by_sum = a.sum(-1, dtype=np.uint64)[..., None] * crossed.sum(-1, dtype=np.uint64)
        square = a_relative * (mixed + squared) + public * mu_relative + 2 * (by_mask + by_sum)
        if party.role == 1:
            square = square + a_relative * public
        scaled = relative * linear
        first = scaled.mask_part() + (scaled.masked() if party.role == 1 else Z64.zeros(1))
        return Z64.sub(first, square)

    value = await party.compute(combine, prod(v.shape) * n * 4)
    return Additive(party.role, Z64, value, depth)


def length_product(x: RingArray, y: RingArray) -> RingArray:
    """<x, y> + sum x sum y over the last axis, kept with length 1."""
    sums = x.sum(-1, keepdims=True, dtype=np.uint64) * y.sum(-1, keepdims=True, dtype=np.uint64)
    total: RingArray = (x * y).sum(-1, keepdims=True, dtype=np.uint64) + sums
    return total
