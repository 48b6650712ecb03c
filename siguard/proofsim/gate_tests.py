"""Tests of real against simulated views of a gate, collected first, so that one family decides on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from siguard.errors import SiguardError
from siguard.proofsim.claims import CORRUPTED_SETS, Claim, Corrupted
from siguard.proofsim.gate_samples import GateSample
from siguard.proofsim.gate_views import GateView, Held, Place, elements_of, parts_of
from siguard.proofsim.gate_worlds import GateWorld
from siguard.proofsim.statistics import Outcome, g_test, holm, low_bits, top_bits, uniformity
from siguard.ring import BooleanRing, RingArray

#: Bins of an element in a joint test: its two top bits and its lowest bit.
_TOP_BITS = 2


@dataclass
class Comparison:
    """A claim in the making: what was found without statistics, and tests that wait for their level.

    tests: (what is tested, level -> outcome).
    """

    claim: str
    corrupted: str
    cases: int
    problems: list[str] = field(default_factory=list)
    tests: list[tuple[str, Callable[[float], Outcome]]] = field(default_factory=list)


def decide(comparisons: Sequence[Comparison], level: float) -> Iterator[Claim]:
    """One claim for each comparison; all tests together are one family at ``level``."""
    size = sum(len(one.tests) for one in comparisons)
    outcomes = [[test(level / size) for _, test in one.tests] for one in comparisons]
    rejected = iter(holm([o.p_value for row in outcomes for o in row if not o.lacks], level).rejected)
    for comparison, row in zip(comparisons, outcomes, strict=True):
        problems = list(comparison.problems)
        for (what, _), outcome in zip(comparison.tests, row, strict=True):
            if outcome.lacks:
                problems.append(f"{what}: {outcome.lacks}")
            elif next(rejected):
                problems.append(f"{what}: p {outcome.p_value:.1e}, {outcome.what}")
        detectable = max((outcome.detectable for outcome in row), default=0.0)
        yield Claim(
            comparison.claim,
            "simulation",
            comparison.corrupted,
            comparison.cases,
            not problems,
            detectable,
            "; ".join(problems[:3]),
        )


# Samples ----------------------------------------------------------------------------------------------------


def compare(world: GateWorld, corrupted: Sequence[Corrupted]) -> Iterator[Comparison]:
    """The values of one real run, and its view against a simulated one for every corrupted set."""
    sample = world.sample
    where = f"{sample.name}{'' if world.dealer == 'S2' else f', dealer {world.dealer}'}"
    real = world.real()
    wrong = int(np.count_nonzero(~real.right))
    values = Comparison(f"right values: {where}", "all", real.right.size)
    if wrong:
        values.problems.append(f"{wrong} of {real.right.size} values are wrong")
    yield values
    for one in sets_for(sample, corrupted):
        comparison = Comparison(f"real and simulated messages alike: {where}", str(one), world.elements)
        try:
            simulated = world.simulated(one)
        except SiguardError as error:
            comparison.problems.append(f"the simulated run ends with {type(error).__name__}: {error}")
        else:
            rng = np.random.default_rng(world.seed)
            TwoViews(comparison, real, simulated, one.parties, world.elements, rng).compare()
        yield comparison


def sets_for(sample: GateSample, corrupted: Sequence[Corrupted]) -> list[Corrupted]:
    """Corrupted sets to try: without a user in the protocol, {S_i, U} is {S_i}."""
    if sample.user_ring is not None:
        return list(corrupted)
    return [one for one in CORRUPTED_SETS if not one.user and one.server in {c.server for c in corrupted}]


@dataclass
class TwoViews:
    """A real and a simulated view of the same parties; ``most``: elements of a message that are tested."""

    comparison: Comparison
    real: GateView
    simulated: GateView
    parties: Sequence[str]
    most: int
    rng: np.random.Generator

    def compare(self) -> None:
        """The same messages, of the same sizes and contents that look the same."""
        inside = self.parties
        places = [place for place in self.real.received if place[1] in inside and place[0] not in inside]
        made = [place for place in self.simulated.received if place[0] not in inside]
        for place in sorted({*places, *made}):
            if place not in made:
                self.comparison.problems.append(f"no simulator makes {self._name(place)}")
            elif place not in places:
                self.comparison.problems.append(f"only the simulator makes {self._name(place)}")
            else:
                self._compare_message(place)

    def _name(self, place: Place) -> str:
        steps = self.real.steps | self.simulated.steps
        return f"{place[0]} > {place[1]} at {steps.get(place[2], place[2].hex())}"

    def _compare_message(self, place: Place) -> None:
        """Each part of a message alone, and jointly with each thing that the parties have beside it."""
        name, problems, tests = self._name(place), self.comparison.problems, self.comparison.tests
        layout = self.simulated.layouts[place]
        try:
            parts, made_parts = (parts_of(view.received[place], layout) for view in (self.real, self.simulated))
        except ValueError as error:
            problems.append(f"{name}: {error}")
            return
        mine, theirs = (view.beside(place, self.parties) for view in (self.real, self.simulated))
        if [held.name for held in mine] != [held.name for held in theirs]:
            problems.append(f"{name}: what is held beside it differs between the real and the simulated run")
            return
        for part, made in zip(parts, made_parts, strict=True):
            label = name if len(parts) == 1 else f"{name}, {part.name}"
            elements, bits = elements_of(part)
            tests.append((f"{label}: uniform", uniform_test(elements, bits, self.rng, self.most)))
            joint = [
                (f"joint with {held.name}", one, another)
                for held, other in zip(mine, theirs, strict=True)
                for one, another in zip(_joint_bins(held, part), _joint_bins(other, made), strict=True)
            ]
            for what, one, another in joint or [("alone", _bins(elements, bits), _bins(*elements_of(made)))]:
                chosen = _choice(self.rng, one.size, self.most)
                tests.append((f"{label}: {what}", partial(_alike, one[chosen], another[chosen])))


def uniform_test(elements: RingArray, bits: int, rng: np.random.Generator, most: int) -> Callable[[float], Outcome]:
    """Whether elements, or a random choice of ``most``, are uniform, at a level that comes later."""
    chosen = elements[_choice(rng, elements.size, most)]
    return lambda alpha: uniformity(chosen, bits, alpha=alpha)


def _alike(one: RingArray, another: RingArray, alpha: float) -> Outcome:
    return g_test(one, another, alpha=alpha)


def _choice(rng: np.random.Generator, size: int, most: int) -> slice | npt.NDArray[np.int64]:
    """All places, or a random choice of ``most``."""
    return slice(None) if size <= most else rng.choice(size, most, replace=False)


def _bins(elements: RingArray, bits: int) -> RingArray:
    """A number below 8 for each element: top bits and lowest bit."""
    if bits <= _TOP_BITS:
        return elements.astype(np.uint8)
    return (top_bits(elements, bits, _TOP_BITS) * 2 + low_bits(elements, 1)).astype(np.uint8)


def _joint_bins(held: Held, part: Held) -> list[RingArray]:
    """(own, received) by element, where each element of the message has one of what is held beside it.

    An element that is held and stands beside several of a message is compared with one of them at a time: the rows
    of one test are independent.
    """
    if isinstance(held.ring, BooleanRing) != isinstance(part.ring, BooleanRing):
        return []
    own, received = held.array, part.array
    if own.shape == received.shape:
        slices = [received]
    elif own.shape == received.shape[1:]:
        slices = list(received)
    elif own.shape == received.shape[:-1]:
        slices = [received[..., 0]]
    else:
        return []
    bins = _bins(*elements_of(held))
    return [bins * np.uint8(8) + _bins(*elements_of(part._replace(array=one))) for one in slices]
