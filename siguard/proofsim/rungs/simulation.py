"""Rung 2 at the rings in use: what a simulator makes is like what the corrupted set receives.

On tiny rings the exact rung counts both.  Here are thousands of elements of every gate at 2^64, real and simulated
messages compared by tests, and values and masks under several orders of tasks.  Whole queries are for the content
rung.

All tests of one check, or of one battery, are one family, decided by Holm at `LEVEL`.  One `siguard prove` runs one
check and some 30 batteries: by the union bound a false alarm in any of them has probability 31e-7, if p-values are
exact.  They are approximate: of 1.2 million null samples of each of five sizes (512 to 4,096 observations, 32 to
256 bins) at most three had p below 1e-6, where 1.2 are expected.  Were the tail ten times too heavy further out, it
would still be one proof in 30,000.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from siguard.proofsim.claims import CORRUPTED_SETS, Claim, Corrupted, Scope
from siguard.proofsim.gate_samples import samples
from siguard.proofsim.gate_tests import compare, decide
from siguard.proofsim.gate_worlds import GateWorld
from siguard.proofsim.schedules import schedule_claims

#: Family level of all tests of one check; see above.
LEVEL = 1e-7


def check(scope: Scope) -> Iterator[Claim]:
    """Every gate for every corrupted set in scope; full: each server deals in turn.  Policies play no part."""
    dealers = ("S2", "S0", "S1") if scope.full else ("S2",)
    elements, orders = (1 << 16, 24) if scope.full else (1 << 14, 8)
    yield from schedule_claims(scope.seed, orders)
    yield from _claims(scope.seed, scope.corrupted, elements, dealers)


def battery(seed: int) -> Iterator[Claim]:
    """What a negative control is shown: fewer elements, and the largest corrupted sets only."""
    yield from schedule_claims(seed, 3)
    yield from _claims(seed, CORRUPTED_SETS[:3], 1 << 11, ("S2",))


def _claims(seed: int, corrupted: Sequence[Corrupted], elements: int, dealers: Sequence[str]) -> Iterator[Claim]:
    comparisons = [
        comparison
        for dealer in dealers
        for sample in samples()
        for comparison in compare(GateWorld(sample, elements, seed, dealer), corrupted)
    ]
    return decide(comparisons, LEVEL)
