"""How to call every gate, with shares of zeros, and the arguments of its cost formula, at three sizes each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from mpc_helpers import User

from siguard.guard.defender import SharedDefender
from siguard.mpc.party import DEALER, Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.mpc.splines import logarithm_pieces
from siguard.mpc.thresholds import Way
from siguard.ring import Z2, Z64, Ring, RingArray, ring

Size = tuple[Any, ...]
Call = Callable[..., Awaitable[Any]]


def depth_of(party: Party, depth: int) -> int:
    return 0 if party.role == DEALER else depth


def wire(party: Party, *shape: int, R: Ring = Z64, depth: int = 1) -> Share:
    """A sharing of zeros; costs do not depend on values."""
    return Share(party.role, R, R.zeros(*shape), R.zeros(*shape), depth_of(party, depth))


def terms(party: Party, *shape: int, R: Ring = Z64, dealer: bool = False) -> Additive:
    return Additive(party.role, R, R.zeros(*shape), depth_of(party, 1), dealer_part=dealer)


def opened(party: Party, *shape: int, R: Ring = Z64) -> Opened:
    return Opened(party.role, R, R.zeros(*shape), depth_of(party, 1))


def classifier(p: Party, shape: Size) -> SharedDefender:
    """A membership classifier of these widths with weights of 0."""
    matrices = [wire(p, n + (layer > 0), m, depth=0) for layer, (n, m) in enumerate(pairwise(shape))]
    return SharedDefender(matrices, [3] * len(matrices), gradient_bits=5)


@dataclass(frozen=True)
class Case:
    """How to call a gate with shares of one size, the arguments of its formula for it, and three sizes."""

    call: Callable[..., Awaitable[Any]]
    arguments: Callable[..., Size]
    sizes: list[Size]
    #: Depth of what the call starts from.
    start: int = 1


async def input_call(g: Call, p: Party, n: int, bits: int) -> None:
    user = User()
    user.attach(p)
    if not p.is_dealer:
        await user.send(p, ring(bits).zeros(n))
    await g(p, ring(bits), (n,), 0)


async def reveal_call(g: Call, p: Party, n: int, bits: int) -> None:
    User().attach(p)
    await g(p, terms(p, n, R=ring(bits)))


def bytes_of(n: int, bits: int) -> Size:
    return n, ring(bits).itemsize


def zeros(R: Ring, n: int) -> Callable[[], Any]:
    return lambda: R.zeros(n)


def keyed_call(points: Callable[[int, int], tuple[int, ...]]) -> Call:
    """A gate on keys whose alphas, payloads and points are all 0; ``points``: their shape for (keys, points)."""

    def call(g: Call, p: Party, keys: int, count: int, words: int, bits: int, k: int) -> Awaitable[Any]:
        def secrets() -> tuple[RingArray, RingArray]:
            return ring(bits).zeros(keys), ring(k).zeros(keys, words)

        def where() -> RingArray:
            return ring(bits).zeros(*points(keys, count))

        return g(p, ring(k), (keys, count, words), bits, secrets, where, depth_of(p, 1))

    return call


def keyed_sizes(keys: int, count: int, words: int, bits: int, k: int) -> Size:
    return keys, bits, words, ring(k), count


def selected(p: Party, n: int, wires: int, k: int) -> Share | None:
    """Wires of a comparison of n elements."""
    return wire(p, n, wires, R=ring(k)) if wires else None


BY_RING: list[Size] = [(1, 1), (7, 16), (70, 64), (5, 8), (9, 31)]
BY_BITS: list[Size] = [(1, 2), (65, 3), (7, 8), (130, 32), (3, 33), (64, 64)]
LOGARITHMS = {octaves * 2 + 2: logarithm_pieces(0, octaves, 2, 16, 12) for octaves in (1, 2, 8)}
#: Keys, points, words, bits, ring.
KEYED: list[Size] = [(1, 1, 1, 1, 64), (3, 5, 2, 20, 64), (2, 4, 1, 9, 1), (4, 2, 3, 63, 8), (2, 1, 11, 40, 32)]

CASES: dict[str, Case] = {
    "arithmetic.deal": Case(
        lambda g, p, n, k: g(p, ring(k), (n,), zeros(ring(k), n), depth_of(p, 1)), bytes_of, BY_RING
    ),
    "arithmetic.deal_wire": Case(
        lambda g, p, n, k: g(p, ring(k), (n,), zeros(ring(k), n), depth_of(p, 1)), bytes_of, BY_RING
    ),
    "arithmetic.open_additive": Case(
        lambda g, p, n, k: g(p, terms(p, n, R=ring(k), dealer=True)), bytes_of, BY_RING
    ),
    "arithmetic.remask": Case(lambda g, p, n, k: g(p, terms(p, n, R=ring(k))), bytes_of, BY_RING),
    "arithmetic.remask_together": Case(
        lambda g, p, *parts: g(p, [terms(p, n, R=ring(k)) for n, k in parts]),
        lambda *parts: tuple(bytes_of(n, k) for n, k in parts),
        [((3, 64),), ((2, 1), (5, 64)), ((7, 16), (1, 8), (4, 31))],
    ),
    "arithmetic.view": Case(lambda g, p, n, k: g(p, opened(p, n), 3, ring(k)), bytes_of, BY_RING),
    "arithmetic.truncate": Case(lambda g, p, n, k: g(p, wire(p, n), 64 - k, ring(k)), bytes_of, BY_RING),
    "arithmetic.multiply": Case(
        lambda g, p, n, k: g(p, wire(p, n, R=ring(k)), wire(p, n, R=ring(k))), bytes_of, BY_RING
    ),
    "arithmetic.dot": Case(
        lambda g, p, n, k: g(p, wire(p, n, 5, R=ring(k)), wire(p, n, 5, R=ring(k))), bytes_of, BY_RING
    ),
    "arithmetic.matmul": Case(
        lambda g, p, m, n, o: g(p, wire(p, m, n), wire(p, n, o), 16),
        lambda m, n, o: (m * o, 8),
        [(1, 1, 1), (2, 9, 4), (3, 40, 2)],
    ),
    "arithmetic.open_matmul": Case(
        lambda g, p, m, n, o: g(p, wire(p, m, 1, n), wire(p, n, o)),
        lambda m, n, o: (m * o, 8),
        [(1, 1, 1), (2, 9, 4), (3, 40, 2)],
    ),
    "boolean.and_bits": Case(
        lambda g, p, n: g(p, wire(p, n, R=Z2), wire(p, n, R=Z2)), lambda n: (n,), [(1,), (8,), (300,)]
    ),
    "boolean.sign_bit": Case(lambda g, p, n, k: g(p, wire(p, n, R=ring(k))), lambda n, k: (n, k), BY_BITS),
    "compare.relu": Case(
        lambda g, p, n, k, shift, by: g(p, wire(p, n), k, shift, by),
        lambda n, k, shift, by: (n, k, by),
        [(n, k, shift, by) for by in Way for n, k, shift in ((1, 2, 0), (65, 32, 4), (9, 21, 16), (3, 64, 0))],
    ),
    "compare.win_counts": Case(
        lambda g, p, b, c, k, by: g(p, wire(p, b, c), ring(k), by, 64 - k),
        lambda b, c, k, by: (b, c, k, by),
        [(b, c, k, by) for by in Way for b, c, k in ((1, 2, 4), (3, 5, 32), (2, 17, 64))],
    ),
    "compare.ranked": Case(
        lambda g, p, b, c, k, ranks, wires: g(
            p, opened(p, b, c, R=ring(k)), ranks, wire(p, b, c, wires) if wires else None
        ),
        lambda b, c, k, ranks, wires: (b, c, ranks, wires),
        [(1, 2, 1, 1, 0), (3, 5, 3, 2, 1), (2, 17, 5, 17, 3)],
    ),
    "conversion.bit_terms": Case(lambda g, p, n, k: g(p, wire(p, n, R=Z2), ring(k)), bytes_of, BY_RING),
    "conversion.bit_to_arithmetic": Case(lambda g, p, n, k: g(p, wire(p, n, R=Z2), ring(k)), bytes_of, BY_RING),
    "conversion.bit_product": Case(
        lambda g, p, n, k: g(p, wire(p, 1, R=Z2), wire(p, n, R=ring(k))), bytes_of, BY_RING
    ),
    "conversion.bit_multiply": Case(
        lambda g, p, n, k: g(p, wire(p, n, R=Z2), wire(p, n, R=ring(k))), bytes_of, BY_RING
    ),
    "conversion.select": Case(
        lambda g, p, n, k: g(p, wire(p, n, R=Z2), wire(p, n, R=ring(k)), wire(p, n, R=ring(k))), bytes_of, BY_RING
    ),
    "cubic.cubic": Case(
        lambda g, p, rows, n: g(p, wire(p, rows, n), 3), lambda rows, n: (rows, n), [(1, 1), (4, 5), (3, 12)]
    ),
    "curves.at_places": Case(
        lambda g, p, n, t, m, w, k: g(p, opened(p, n, R=ring(t)), -1, m, w, zeros(ring(k), n * w), ring(k)),
        lambda n, t, m, w, k: (n, t, w, ring(k), m),
        [(1, 2, 3, 1, 64), (5, 4, 16, 3, 8), (3, 12, 7, 2, 64), (9, 8, 1, 1, 1)],
    ),
    "curves.exponential": Case(
        lambda g, p, n, t: g(p, wire(p, n), t), lambda n, t: (n, t), [(1, 8), (5, 12), (3, 43)]
    ),
    "curves.piecewise": Case(
        lambda g, p, n, k, pieces, by: g(p, wire(p, n), opened(p, n, R=ring(k)), LOGARITHMS[pieces], by),
        lambda n, k, pieces, by: (n, k, pieces, by),
        [(*size, by) for by in Way for size in ((1, 32, 4), (5, 28, 6), (3, 64, 18))],
    ),
    "curves.scaled_steps": Case(
        lambda g, p, n, k, t, wires, by: g(
            p, opened(p, n, 1, R=ring(k)), np.arange(t), np.zeros((3, t + 1), np.int64), wire(p, n, 1, wires), by
        ),
        lambda n, k, t, wires, by: (n, k, t, wires, by),
        [(*size, by) for by in Way for size in ((1, 8, 1, 1), (4, 56, 9, 3), (2, 64, 30, 10))],
    ),
    "io.receive_input": Case(input_call, bytes_of, BY_RING, start=0),
    "io.reveal": Case(reveal_call, bytes_of, BY_RING),
    "keyed.comparison": Case(keyed_call(lambda *shape: shape), keyed_sizes, KEYED),
    "keyed.window": Case(
        keyed_call(lambda keys, _: (keys,)), keyed_sizes, [size for size in KEYED if size[1] <= 1 << size[3]]
    ),
    "tabled.tabled_exponential": Case(
        lambda g, p, n, t: g(p, wire(p, n), t), lambda n, t: (n, t), [(1, 10), (5, 12), (3, 13)]
    ),
    "thresholds.at_least": Case(
        lambda g, p, n, k, t, w, K, by: g(
            p, opened(p, n, R=ring(k)), range(t), selected(p, n, w, K), ring(K), by=by
        ),
        lambda n, k, t, w, K, by: (n, k, t, w, ring(K), by),
        [
            (n, k, t, w, K, by)
            for by in Way
            for n, k, t, w, K in ((1, 2, 1, 0, 64), (7, 20, 3, 2, 64), (66, 33, 2, 1, 8), (3, 64, 9, 0, 1))
        ],
    ),
    "thresholds.bits_at_least": Case(
        lambda g, p, n, k, t, by: g(p, opened(p, n, R=ring(k)), range(t), by),
        lambda n, k, t, by: (n, k, t, by),
        [(n, k, t, by) for by in (Way.BIT_KEY, Way.ADDER) for n, k, t in ((1, 2, 1), (7, 20, 3), (65, 64, 2))],
    ),
}
