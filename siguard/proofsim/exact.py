"""Enumerate one instance for one corrupted set: real views against each other and against simulated ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from siguard.proofsim.claims import Corrupted
from siguard.proofsim.enumeration import Digits, Instance, Values, columns
from siguard.proofsim.histograms import Distances, distances
from siguard.proofsim.keys import values_in, whole_tables
from siguard.proofsim.worlds import Batch, Case

#: Cases in one run, as a power of two.
BATCH_BITS = 17
#: Above this many bits of inputs, sharings and randomness an instance is refused.
MAX_BITS = 30


@dataclass(frozen=True)
class ExactResult:
    """What the enumeration of one instance for one corrupted set found; wrong: cases with a wrong value."""

    cases: int
    distances: Distances
    wrong: int


async def enumerate_views(instance: Instance, corrupted: Corrupted, *, coins: bool = True) -> ExactResult:
    """Run through everything; raises ValueError when there are more than 2^`MAX_BITS` cases.

    coins: whether the simulator is given the coins of truncation, as the claim has it.
    """
    with _hybrid(instance):
        return await _enumerate(instance, corrupted, coins)


@contextmanager
def _hybrid(instance: Instance) -> Iterator[None]:
    """Function keys are their truth tables, and the ring of values is the instance's."""
    with ExitStack() as stack:
        if instance.values_in is not None:
            stack.enter_context(values_in(instance.values_in))
        stack.enter_context(whole_tables())
        yield


async def _enumerate(instance: Instance, corrupted: Corrupted, coins: bool) -> ExactResult:
    case = Case(instance, corrupted, coins)
    real, simulated = Digits(), Digits()
    for name in case.own:
        simulated.note(name, case.bits_of(name), 1)
    await Batch(case, real, None).real()
    await Batch(case, simulated, None).simulated()
    if real.bits > MAX_BITS:
        raise ValueError(f"{instance.name}: 2^{real.bits} cases; allowed: 2^{MAX_BITS}")
    for digits in (real, simulated):
        digits.arrange(last=case.own)
    # Both worlds go through the same values of what the corrupted set holds, one group of them at a time.
    own_bits = sum(case.bits_of(name) for name in case.own)
    group_bits = max(0, min(own_bits, BATCH_BITS + own_bits - max(real.bits, simulated.bits)))
    worst, wrong = np.zeros(2), 0
    for group in range(1 << (own_bits - group_bits)):
        batch = Batch(case, real, _cases(real, own_bits, group_bits, group))
        world = await batch.real()
        ideal = await Batch(case, simulated, _cases(simulated, own_bits, group_bits, group)).simulated()
        names = sorted({*world.view, *ideal.view}, key=repr)
        for name in names:
            if name not in world.view or name not in ideal.view:
                kind = "simulated" if name in ideal.view else "real"
                raise AssertionError(f"{instance.name}: only the {kind} view of {{{corrupted}}} has {name!r}")
        found = distances(
            columns(world.given, world.cases),
            batch.hidden,
            world.columns(names),
            columns(ideal.given, ideal.cases),
            ideal.columns(names),
        )
        worst = np.maximum(worst, found)
        wrong += int(np.count_nonzero(~world.right))
    return ExactResult(1 << real.bits, Distances(*worst.tolist()), wrong)


def _cases(digits: Digits, own_bits: int, group_bits: int, group: int) -> Values:
    """Case numbers in which the slowest bits, of what the corrupted set holds, begin with ``group``."""
    size = digits.bits - own_bits + group_bits
    return np.arange(1 << size, dtype=np.int64) + (group << size)
