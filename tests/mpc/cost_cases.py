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
from siguard.ring import Z2, Z64, Ring, ring

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
    await g(p, wire(p, n, R=ring(bits)))


def bytes_of(n: int, bits: int) -> Size:
    return n, ring(bits).itemsize


def zeros(R: Ring, n: int) -> Callable[[], Any]:
    return lambda: R.zeros(n)


STEPS = {n: (np.arange(n), np.arange(n + 1)) for n in (1, 4, 12)}
BY_RING: list[Size] = [(1, 1), (7, 16), (70, 64), (5, 8), (9, 31)]
BY_BITS: list[Size] = [(1, 2), (65, 3), (7, 8), (130, 32), (3, 33), (64, 64)]
BATCHES: list[Size] = [(1, 2, 4), (3, 5, 32), (2, 17, 64)]
LOOKUPS: list[Size] = [(1, 1, 1, 8), (5, 4, 3, 64), (2, 9, 2, 16)]

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
    "compare.is_positive": Case(lambda g, p, n, k: g(p, wire(p, n, R=ring(k))), lambda n, k: (n, k), BY_BITS),
    "compare.is_negative": Case(lambda g, p, n, k: g(p, wire(p, n, R=ring(k))), lambda n, k: (n, k), BY_BITS),
    "compare.relu": Case(
        lambda g, p, n, k, K: g(p, wire(p, n, R=ring(K)), k),
        lambda n, k, K: (n, k, ring(K).itemsize),
        [(1, 2, 8), (65, 32, 64), (9, 16, 32), (3, 64, 64), (4, 48, 64)],
    ),
    "compare.win_counts": Case(
        lambda g, p, b, c, k: g(p, wire(p, b, c, R=ring(k))), lambda b, c, k: (b, c, k), BATCHES
    ),
    "compare.one_hot_ranks": Case(
        lambda g, p, b, c, k, r: g(p, wire(p, b, c, R=ring(k)), r),
        lambda b, c, k, r: (b, c, k, r),
        [(1, 2, 4, 1), (3, 5, 32, 2), (2, 17, 64, 3)],
    ),
    "compare.maximum": Case(
        lambda g, p, b, c: g(p, wire(p, b, c)), lambda b, c: (b, c, 64), [(1, 2), (3, 5), (2, 17)]
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
    "io.receive_input": Case(input_call, bytes_of, BY_RING, start=0),
    "io.reveal": Case(reveal_call, bytes_of, BY_RING),
    "softmax.exp": Case(lambda g, p, n: g(p, wire(p, n)), lambda n: (n,), [(1,), (9,), (70,)]),
    "softmax.log": Case(lambda g, p, n, d: g(p, wire(p, n), d), lambda n, d: (n, d), [(1, 0), (9, 4), (20, 7)]),
    "softmax.reciprocal": Case(
        lambda g, p, n, d: g(p, wire(p, n), d), lambda n, d: (n, d), [(1, 0), (9, 4), (20, 7)]
    ),
    "steps.step_function": Case(
        lambda g, p, n, t, k: g(p, wire(p, n, 1, R=ring(k)), *STEPS[t]),
        lambda n, t, k: (n, t, k),
        [(1, 1, 8), (9, 4, 32), (3, 12, 64)],
    ),
    "tables.lookup_terms": Case(
        lambda g, p, n, t, m, k: g(p, wire(p, n, R=ring(t)), ring(k).zeros(m, 1 << t), ring(k)),
        lambda n, t, m, k: (n, t, ring(k).itemsize),
        LOOKUPS,
    ),
    "tables.lookup": Case(
        lambda g, p, n, t, m, k: g(p, wire(p, n, R=ring(t)), ring(k).zeros(m, 1 << t), ring(k)),
        lambda n, t, m, k: (n, t, m, ring(k).itemsize),
        LOOKUPS,
    ),
    "tables.lookup_bit_terms": Case(
        lambda g, p, n, t: g(p, wire(p, n, R=ring(t)), Z2.zeros(2, 1 << t)),
        lambda n, t: (n, t),
        [(1, 1), (5, 6), (3, 9)],
    ),
}
