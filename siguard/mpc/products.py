"""Products that each role computes alone: the summands of x y, before anything is sent.

Source: ABY3 (Mohassel, Rindal, CCS 2018), read as masked wires (`siguard.mpc.share`).
"""

from __future__ import annotations

from math import prod

from siguard.mpc.share import Additive, Share


def product(x: Share, y: Share) -> Additive:
    """Elementwise x * y as an additive sharing; shapes broadcast.  Local.

    (a + alpha)(b + beta) = x1 y0 + y1 x0  [role 0]  +  x1 y1 + x1 y2 + y1 x2  [role 1]  +  alpha beta  [role 2].
    """
    ring, mul = x.ring, x.ring.mul
    if x.role == 0:
        value = ring.add(mul(x.second, y.first), mul(x.first, y.second))
    elif x.role == 1:
        value = ring.add(mul(x.first, ring.add(y.first, y.second)), mul(x.second, y.first))
    else:
        value = mul(x.mask(), y.mask())
    return Additive(x.role, ring, value, max(x.depth, y.depth))


def dot_product(x: Share, y: Share) -> Additive:
    """Inner products over the last axis as an additive sharing; the result keeps it with length 1.  Local."""
    terms = product(x, y)
    return terms.map(lambda value: terms.ring.sum(value, -1)[..., None])


def matrix_product(x: Share, weights: Share) -> Additive:
    """x @ weights for x of shape (..., n) and weights of shape (n, p), additive.  Local, exact."""
    ring = x.ring
    rows = (prod(x.shape[:-1]), x.shape[-1])
    first, second = x.first.reshape(rows), x.second.reshape(rows)
    if x.role == 0:
        value = ring.add(
            ring.matmul(second, weights.prepared("first")), ring.matmul(first, weights.prepared("second"))
        )
    elif x.role == 1:
        value = ring.add(
            ring.matmul(first, weights.prepared("sum")), ring.matmul(second, weights.prepared("first"))
        )
    else:
        value = ring.matmul(ring.add(first, second), weights.prepared("sum"))
    shape = (*x.shape[:-1], weights.shape[1])
    return Additive(x.role, ring, value.reshape(shape), max(x.depth, weights.depth))
