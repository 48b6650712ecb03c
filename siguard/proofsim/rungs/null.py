"""The null control: each kind of test, on a class against itself, must alarm as often as its level says.

A test that alarms more often makes findings of chance; one that alarms less often finds less than it claims.  The
views are those of `siguard.proofsim.gate_worlds`, cut into blocks of elements with masks of their own, so that each
pair of blocks is an independent null experiment.  A control is never run here: a leak does not show in a class
compared with itself.

Each claim holds unless its number of alarms lies outside an interval of `CONFIDENCE`: the false alarms of this rung
itself have probability below 5e-6 in one proof.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from siguard.proofsim.claims import Claim, Corrupted, Scope
from siguard.proofsim.distinguisher import distinguish, features_of_words
from siguard.proofsim.gate_samples import samples
from siguard.proofsim.gate_tests import Comparison, TwoViews
from siguard.proofsim.gate_views import GateView
from siguard.proofsim.gate_worlds import GateWorld
from siguard.proofsim.statistics import POWER, binomial_interval, holm
from siguard.ring import RingArray

#: Level of every test here, much above that of the ladder: alarms have to come to be counted.
LEVEL = 0.1
#: Of the interval in which a number of alarms must lie.
CONFIDENCE = 1 - 1e-6
#: Elements of a block, and blocks of one pair of runs.
_BLOCK, _BLOCKS = 1024, 25
#: Rows of each class that the classifiers get.
_ROWS = 50
_SAMPLE = "open_additive of a product, 2^64"
_CORRUPTED = Corrupted("S0", False)


@dataclass
class Alarms:
    """How often a test alarmed in ``runs`` null experiments.

    exact: whether the level is its rate, so that too few alarms are wrong too; else it is an upper bound.
    """

    text: str
    exact: bool
    runs: int = 0
    count: int = 0

    def add(self, alarm: bool) -> None:
        """One experiment."""
        self.runs += 1
        self.count += bool(alarm)

    def holds(self, count: int) -> bool:
        """Whether so many alarms agree with the level."""
        low, high = binomial_interval(count, self.runs, CONFIDENCE)
        return low <= LEVEL and (not self.exact or high >= LEVEL)

    @property
    def detectable(self) -> float:
        """The excess of the rate over the level that is found with probability `POWER`."""
        # The largest number that holds; with the rate that is found, more than that come with probability POWER.
        most = int(stats.binom.isf((1 - CONFIDENCE) / 2, self.runs, LEVEL))
        return float(stats.beta.ppf(POWER, most + 1, self.runs - most)) - LEVEL

    def claim(self) -> Claim:
        """What the count says."""
        holds = self.runs > 0 and self.holds(self.count)
        bound = "as often as" if self.exact else "at most as often as"
        return Claim(
            f"false alarms {bound} the level {LEVEL} says: {self.text}",
            "null",
            str(_CORRUPTED),
            self.runs,
            holds,
            self.detectable,
            "" if holds else f"{self.count} alarms in {self.runs} null experiments",
        )


def check(scope: Scope) -> Iterator[Claim]:
    """200 null experiments for each test; full: 1,000."""
    yield from experiments(scope.seed, 40 if scope.full else 8)


def experiments(seed: int, pairs: int) -> Iterator[Claim]:
    """25 null experiments on each of some pairs of runs."""
    uniform = Alarms("uniformity of a simulated message", exact=True)
    simulated = Alarms("joint bins of two simulated views", exact=True)
    real = Alarms("joint bins of two real views of one input", exact=True)
    family = Alarms("Holm's decision on all tests of two simulated views", exact=False)
    trained = Alarms("classifiers trained on two real views of one input", exact=False)
    for number in range(pairs):
        world = _world(seed, number)
        made = [world.simulated(_CORRUPTED, which) for which in (0, 1)]
        seen = [world.real(which, same_input=True) for which in (0, 1)]
        for view in seen:  # what the messages are made of: the simulator says
            view.layouts = made[0].layouts
        for block in range(_BLOCKS):
            p_values = _p_values([_block(view, block) for view in made])
            uniform.add(p_values[0] <= LEVEL)
            simulated.add(p_values[1] <= LEVEL)
            family.add(bool(holm(p_values, LEVEL).rejected.any()))
            blocks = [_block(view, block) for view in seen]
            real.add(_p_values(blocks, most=2)[1] <= LEVEL)
            features = [_features(view) for view in blocks]
            outcome = distinguish(features[0], features[1], number * _BLOCKS + block, alpha=LEVEL)
            if outcome.lacks:
                raise ValueError(f"the distinguisher of the null control lacks data: {outcome.lacks}")
            trained.add(outcome.p_value <= LEVEL)
    for alarms in (uniform, simulated, real, family, trained):
        yield alarms.claim()


def _world(seed: int, number: int) -> GateWorld:
    sample = next(one for one in samples() if one.name == _SAMPLE)
    return GateWorld(sample, _BLOCK * _BLOCKS, seed * 1000 + number)


def _block(view: GateView, number: int) -> GateView:
    return view.block(number * _BLOCK, (number + 1) * _BLOCK)


def _p_values(views: Sequence[GateView], most: int | None = None) -> list[float]:
    """Of the first ``most`` tests of the simulation rung on a pair of views: uniformity, then joint bins."""
    comparison = Comparison("", "", _BLOCK)
    rng = np.random.default_rng(0)  # no choice is made: a block is not too long
    TwoViews(comparison, views[0], views[1], _CORRUPTED.parties, _BLOCK, rng).compare()
    if comparison.problems:
        raise AssertionError(f"views that cannot be compared: {comparison.problems}")
    return [test(LEVEL).p_value for _, test in comparison.tests[:most]]


def _features(view: GateView) -> npt.NDArray[np.float32]:
    """Bits of the ends of a share, of the message beside it, and of their sum, of some elements."""
    (place,) = (place for place in view.received if place[1] in _CORRUPTED.parties)
    own, received = view.beside(place, _CORRUPTED.parties)[0].array[:_ROWS], view.received[place][:_ROWS]
    words = [own, received, own + received]
    ends: list[RingArray] = [(word >> np.uint64(shift)).astype(np.uint8) for word in words for shift in (0, 56)]
    return features_of_words(ends)
