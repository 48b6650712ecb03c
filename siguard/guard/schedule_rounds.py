"""Rounds of the guard's schedule: the longest chain of exchanges, followed value by value.

Sums of declared costs count an exchange for everything that has to wait; this says what has to wait for what.
Each figure is the depth at which a value is known, in exchanges after what the function is given.
"""

from __future__ import annotations

from typing import NamedTuple

from siguard.guard.answer import TABLE_LANES
from siguard.guard.choice import choose_cost
from siguard.guard.classifier import sign_ring_bits
from siguard.guard.closer import DIFFERENCE_RING
from siguard.guard.config import GuardConfig
from siguard.guard.defender import can_be_folded
from siguard.guard.iteration import WEIGHTS_RING
from siguard.guard.move import NORM_RING
from siguard.guard.shape import Shape
from siguard.guard.start import FLOOR_RING
from siguard.guard.step_ranges import Reach
from siguard.guard.terms import SCALE_RING, SUM_RING, X_COMPARED
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.mpc.thresholds import Way, bits_cost
from siguard.ring import ring

#: Ring in which `linesearch` compares |h|, at 16 bits.
LEAST_RING = ring(48)


def _rounds(by: Way, bits: int) -> int:
    return 0 if by is Way.KEY else bits_cost(1, bits, 1, by).rounds


class FirstDepths(NamedTuple):
    """Depths of what the first step gives; see `siguard.guard.iteration.FirstStep`."""

    logit: int
    gradient: int
    x: int
    lag: int
    log_sum: int


class Depths:
    """The schedule of one shape and plan; with the reach of its optimisation, where there is one."""

    def __init__(self, shape: Shape, reach: Reach | None = None) -> None:
        self._shape = shape
        self._plan = shape.plan
        self._x = 0 if reach is None else _rounds(shape.plan.beside, reach.ring(X_COMPARED).bits)
        self._ahead = 0 if reach is None else _rounds(shape.plan.beside, reach.ring(ARGUMENT_BITS).bits)

    def _direct(self, bits: int) -> int:
        """Of a comparison that everything waits for, in a ring of so many bits, before its exchange."""
        return _rounds(self._plan.direct, bits)

    def _curve(self, bits: int) -> int:
        """Of a logarithm or an inverse root, before its exchange."""
        return _rounds(self._plan.curves, bits)

    def _exponential(self, x: int) -> int:
        """E, where x is bounded."""
        return x + (3 if self._plan.curves is Way.ADDER else 1)

    def _beside(self, bits: int) -> int:
        return _rounds(self._plan.beside, bits)

    def _relu(self, layer: int, at: int) -> int:
        bits = sign_ring_bits(self._shape.magnitude_bits[layer], self._shape.classes)
        return at + 1 + _rounds(self._plan.hidden, bits) + 1

    def start(self) -> int:
        """Label and x."""
        return self._direct(64) + 2

    def logit(self, at: int) -> int:
        """h, from exponentials."""
        for layer in range(len(self._shape.widths) - 2):
            at = self._relu(layer, at)
        return at + 1

    def _gradient(self, at: int) -> int:
        """The gradient of h, from exponentials."""
        hidden = len(self._shape.widths) - 2
        if self._plan.folded and can_be_folded(self._shape.widths):
            first = self._relu(0, at)
            return max(first + 2, self._relu(1, first)) + 1
        return self.logit(at) - 1 + 2 * (hidden - 1) + 3

    def first_step(self) -> FirstDepths:
        """`siguard.guard.iteration.first_step`."""
        start = self.start()
        e = start + 1
        floored = start + self._beside(FLOOR_RING.bits) + 1
        lag = max(floored, e + self._curve(WEIGHTS_RING.bits) + 1)
        log_sum = e + self._curve(SUM_RING.bits) + 1
        return FirstDepths(self.logit(e), self._gradient(e), floored, lag, log_sum)

    def walk(self, config: GuardConfig, first: FirstDepths, chosen: int) -> int:
        """x after the last step.  chosen: when the lane is known, one that is chosen; 0 for all lanes."""
        assert config.inner is not None  # noqa: S101 - for the type checker
        sign = self._direct(self._shape.sign_bits)
        # V and the step from U; without joining, a product more for each.
        more = 0 if self._plan.joined else 1
        pace = 1 if chosen else 0
        more_squared = more + self._curve(NORM_RING.bits)
        moved = max(first.gradient + 1 + more_squared, max(first.logit + sign, first.gradient) + 1) + 2 + more
        x = max(max(moved, chosen) + pace, first.x)
        lag = first.lag
        for _ in range(1, config.inner):
            e = self._exponential(max(x, lag))
            close = max(self._close(x, e, first.log_sum), chosen) + pace if config.c3 else 0
            H = max(close, self._keep(x, e) if config.c2 else 0)
            R, logit = self._gradient(e), self.logit(e) + sign
            signed = max(logit, R, H) + 1
            squared = signed if H else R + 1
            x = max(max(squared + more_squared, signed) + 2 + more, chosen) + pace
            lag = max(lag, e + self._curve(WEIGHTS_RING.bits) + 1)
        return x

    def sequential(self, config: GuardConfig, first: FirstDepths, outer: int) -> int:
        """The answer of `siguard`, runs one after another."""
        hot = 1
        for _ in range(outer):
            hot = self._validated(self.walk(config, first, hot), first) + 2
        return hot

    def _close(self, x: int, e: int, log_sum: int) -> int:
        change = max(e + self._curve(SUM_RING.bits), log_sum) + 1
        return change + self._x + 2

    def _keep(self, x: int, e: int) -> int:
        lost = x + self._x + 2
        scale = e + 2 + self._beside(SCALE_RING.bits) + 1
        return max(lost, scale) + 1

    def _kept(self, x: int, e: int) -> int:
        return max(e + self._beside(64), x + self._ahead) + 2

    def _validated(self, x: int, first: FirstDepths) -> int:
        """Whether a lane is accepted, before its exchange."""
        e = self._exponential(x)
        own = first.logit + self._beside(self._shape.sign_bits) + 1
        conditions = max(self._kept(x, e), own) + 1
        return max(self.logit(e) + self._direct(self._shape.sign_bits), conditions)

    def chosen_answer(self, x: int, first: FirstDepths, lanes: int, outer: int) -> int:
        """The answer of `siguard`, additive."""
        accepted = self._validated(x, first) + 1
        return accepted if lanes <= TABLE_LANES else accepted + choose_cost(1, outer).rounds

    def closer_answer(self, x: int, first: FirstDepths) -> int:
        """The answer of `decay`, additive."""
        sign = self._direct(self._shape.sign_bits)
        e = self._exponential(x)
        own = first.logit + self._beside(self._shape.sign_bits) + 1
        difference = max(self.logit(e) + sign, own) + 1
        return max(difference + self._direct(DIFFERENCE_RING.bits), self._kept(x, e) + 1)

    def linesearch(self) -> int:
        """The answer of `linesearch`, additive."""
        w = self.start() + 1
        levels = w + 1
        # The first layer is opened where the candidates are mixed, an exchange after the levels.
        magnitude = self.logit(levels) + self._direct(self._shape.sign_bits) + 1
        return magnitude + self._direct(LEAST_RING.bits) + 1
