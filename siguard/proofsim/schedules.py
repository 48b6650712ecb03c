"""Masks depend on their address and on nothing else: not on the scheduler, and no two addresses have one stream.

A small protocol of gates side by side runs under several orders of tasks; trio orders ready tasks at random, so the
order of draws, frames and results differs between servers and between runs.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import trio

from siguard.actors.local import run_three
from siguard.mpc.arithmetic import multiply, truncate
from siguard.mpc.boolean import sign_bit
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_multiply
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.prf import PairwiseRandomness, RandomnessSource, derive_key
from siguard.proofsim.claims import ALL, Claim
from siguard.proofsim.enumeration import recombine
from siguard.proofsim.gate_samples import hidden_values, share
from siguard.ring import Z64, Ring, RingArray, ring

#: Elements of each wire: as many as give every draw `_CHUNK` bytes, packed words included.
_ELEMENTS = 1024
#: Bytes of a stream whose low bits are its 128-bit fingerprint; every ring keeps the low bit of an element.
_CHUNK = 128
_Z32 = ring(32)

#: Session, dealer, pair, purpose, path.
Address = tuple[bytes, str, str, str, str]
#: Sessions and dealers: the first two differ in the session only, the first and the last in the dealer only.
SESSIONS = ((b"session of test 1", "S2"), (b"session of test 2", "S2"), (b"session of test 1", "S0"))


@contextmanager
def task_order(seed: int) -> Iterator[None]:
    """Let trio order its tasks by this seed; afterwards it is as before."""
    # There is no public way: trio's own tests of its scheduler do this.
    scheduler: Any = trio._core._run
    kept = scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING = random.Random(seed), True  # noqa: S311 - no secret
    try:
        yield
    finally:
        scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING = kept


@dataclass
class ScheduledRun:
    """One run: draws by address and party, in the order in which they were made; frames; what is wrong."""

    draws: dict[tuple[Address, str], bytes] = field(default_factory=dict)
    frames: Counter[tuple[str, str, bytes]] = field(default_factory=Counter)
    problem: str = ""


class _Tape:
    """The shipped randomness of one party, which notes what it draws."""

    def __init__(self, source: RandomnessSource, where: tuple[bytes, str, str], run: ScheduledRun) -> None:
        self._source = source
        self._where = where
        self._run = run

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        values = self._source.draw(pair, purpose, path, ring, shape)
        session, dealer, party = self._where
        self._run.draws[(session, dealer, pair, purpose, path), party] = values.tobytes()
        return values


async def _branches(party: Party, x: Share, y: Share) -> list[Share]:
    """Three branches of several gates, at servers that reach them in an order of their own."""

    async def products() -> Share:
        return await multiply(party.at("again"), await multiply(party.at("product"), x, y), y)

    async def positive_part() -> Share:
        return await bit_multiply(party.at("take"), await sign_bit(party.at("sign"), x), y)

    async def small() -> Share:
        return await truncate(party.at("small"), await multiply(party.at("square"), x, x), 0, _Z32)

    return await side_by_side(products, positive_part, small)


def run_branches(seed: int, order: int, session: bytes = SESSIONS[0][0], dealer: str = "S2") -> ScheduledRun:
    """The branches on inputs that follow from ``seed``, with tasks ordered by ``order``."""
    run = ScheduledRun()
    rng = np.random.default_rng([seed, 0x0D])
    x, y = (hidden_values(rng, Z64, _ELEMENTS) for _ in range(2))
    wires = [share(rng, value, Z64) for value in (x, y)]

    def observe(sender: str, receiver: str, data: bytes) -> None:
        run.frames[sender, receiver, data] += 1

    with task_order(order):
        ran = trio.run(
            partial(
                run_three,
                lambda party: _branches(party, *(wire[party.role] for wire in wires)),
                seed=seed,
                session=derive_key(bytes(32), session)[:16],
                dealer=dealer,
                randomness=lambda *where: _Tape(PairwiseRandomness(*where), where[1:], run),
                observe_frame=observe,
            )
        )
    right = x * y * y, np.where(Z64.signed(x) < 0, y, np.uint64(0)), _Z32.convert(x * x)
    try:
        values = [recombine(same).astype(np.uint64) for same in zip(*ran.results, strict=True)]
    except AssertionError as error:
        run.problem = str(error)
    else:
        wrong = sum(np.count_nonzero(value != expected) for value, expected in zip(values, right, strict=True))
        run.problem = f"{wrong} of {3 * _ELEMENTS} values are wrong" if wrong else ""
    return run


# Claims -----------------------------------------------------------------------------------------------------


def schedule_claims(seed: int, orders: int) -> Iterator[Claim]:
    """The same masks, frames and values under every order of tasks; no stream at two addresses."""
    runs = [run_branches(seed, order) for order in range(orders)]
    problems = []
    if len({tuple(run.draws) for run in runs}) == 1:
        problems.append("the orders of draws do not differ: this shows nothing")
    for order, run in enumerate(runs):
        problems += [f"order {order}: {problem}" for problem in _disagreements(run)]
        if run.problem:
            problems.append(f"order {order}: {run.problem}")
        if run.draws != runs[0].draws:
            problems.append(f"order {order}: other masks than under order 0")
        if run.frames != runs[0].frames:
            problems.append(f"order {order}: other frames than under order 0")
    yield _claim("masks, frames and values do not depend on the order of tasks", orders, problems)
    others = [run_branches(seed, 0, session, dealer) for session, dealer in SESSIONS[1:]]
    streams = {address: data for run in (runs[0], *others) for (address, _), data in run.draws.items()}
    problem = _meeting(streams)
    text = "no stream of masks at two addresses, of two sessions and two dealers"
    yield _claim(text, len(streams), [problem] if problem else [])


def _claim(text: str, cases: int, problems: Sequence[str]) -> Claim:
    return Claim(text, "simulation", ALL, cases, not problems, problem="; ".join(problems[:3]))


def _disagreements(run: ScheduledRun) -> list[str]:
    """Addresses that are not drawn alike by both servers of their pair."""
    holders: dict[Address, list[bytes]] = defaultdict(list)
    for (address, _), data in run.draws.items():
        holders[address].append(data)
    return [
        f"both servers of {address[2]} must draw alike for {address[3]!r} at {address[4]}"
        for address, drawn in holders.items()
        if len(drawn) != 2 or drawn[0] != drawn[1]
    ]


def _meeting(streams: dict[Address, bytes]) -> str:
    """The first two places that have the same 128 bits, in words; empty if there are none."""
    seen: dict[bytes, Address] = {}
    for address, data in streams.items():
        low = np.frombuffer(data, np.uint8) & 1
        if low.size < _CHUNK:
            return (
                f"the draw for {address[3]!r} at {address[4]} has {low.size} bytes: too few to tell streams apart"
            )
        for row in low[: low.size // _CHUNK * _CHUNK].reshape(-1, _CHUNK):
            fingerprint = np.packbits(row).tobytes()
            if fingerprint in seen:
                return f"{_named(address)} draws what {_named(seen[fingerprint])} draws"
            seen[fingerprint] = address
    return ""


def _named(address: Address) -> str:
    session, dealer, pair, purpose, path = address
    return f"{purpose!r} of {pair} at {path} in session {session.hex()[:8]} of dealer {dealer}"
