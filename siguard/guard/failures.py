"""How likely a call fails: the declared probability that a truncation in the full ring wraps, step by step.

A `view` of an opened value z in the full ring is off by 2^(64 - shift) with probability |z| / 2^64, z at the scale
at which it was opened (`siguard.mpc.arithmetic.view`); comparisons, tables and views into smaller rings never fail.
So the sum of |z| over the views of a step, times 2^-64, bounds the probability that one of them wraps.  Here are
all views of the guard, each with a bound of that sum for rows whose

- logits differ by at most `LOGIT_RANGE`;
- label is kept along the optimisation, so that S = sum exp(x) <= C.  The term that brings a lost label back is
  bounded where it is lost; elsewhere it is multiplied by 0, exactly, whatever wrapped.

Bounds of h are those that the owner publishes (`Shape.magnitude_bits`, interval bounds over all inputs, per unit of
S); a trained classifier stays far below them.  Inference of the target comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import cbrt, log, sqrt
from typing import NamedTuple

from siguard.guard.classifier import OPENED_BITS
from siguard.guard.config import LINESEARCH_CANDIDATES, GuardConfig
from siguard.guard.defender import FOLDED_BITS, GROWTH_BITS, WEIGHT_BITS, can_be_folded
from siguard.guard.iteration import PACE_BITS
from siguard.guard.lanes import Lane, lanes_of
from siguard.guard.shape import Shape
from siguard.guard.start import LOGIT_BITS
from siguard.guard.step_ranges import largest_sum
from siguard.mpc.splines import ARGUMENT_BITS, CELL_BITS, EXP_BITS, EXP_WINDOW, HIGH_BITS, LOG_BITS, LOW_BITS
from siguard.mpc.tabled import FACTOR_BITS, LARGEST_FACTOR
from siguard.mpc.thresholds import Way
from siguard.ring import FRACTION_BITS

#: Differences of logits for which the figures hold.
LOGIT_RANGE = 2.0**12
#: Fraction bits of a product, of a product with a folded matrix, of a direction, a step, a level of `linesearch`.
_PRODUCT = 2 * FRACTION_BITS
_FOLDED = FRACTION_BITS + FOLDED_BITS
_DIRECTION, _STEP, _LEVEL = 37, 36, 32
#: x this far below the label has the exponential 0, whatever a wrap, which keeps the index, has made of it.
_WINDOW = -EXP_WINDOW[0] + 2 * 2.0**-CELL_BITS
#: Exponentials are rounded, a normalised vector has length 1 within 10 %, a step its length within 2 %.
_ROUNDED, _NORMALISED, _STEPPED = 1.001, 1.1, 1.02
#: Logarithms of sums are held from 2^10 on.
_LARGEST_LOG = 10 * log(2)


class Views(NamedTuple):
    """All views of one step in a call: the bound of the sum of |z|, z as a number, and its fraction bits."""

    total: float
    bits: int

    @property
    def wraps(self) -> float:
        """Probability that one of them wraps, at most."""
        return self.total * 2.0 ** (self.bits - 64)


@dataclass(frozen=True)
class Failures:
    """Declared probabilities of one call, all its rows together.

    wrong_answer: some row's answer is not what was computed for it.  noise_lost: some row's noise is not what was
    computed for it, or not judged as it should be; its answer is then another one with the same label.
    by_step: by the name of a step, without the loop or phase around it.
    """

    wrong_answer: float
    noise_lost: float
    by_step: dict[str, float]


def failure_probabilities(shape: Shape, config: GuardConfig) -> Failures:
    """Declared failure probabilities of a call, from public sizes only.

    ``wrong_answer`` counts what nothing validates: the relative logits and exponentials of the undefended answer,
    and the candidates of ``linesearch``.  Optimised noise is validated in the full ring (`siguard.guard.answer`),
    so that a wrap on the way there loses noise only.
    """
    call = _Call(shape)
    full = config.resolved()
    if config.policy == "linesearch":
        call.linesearch()
    elif config.policy != "label":
        call.undefended()
    if full.outer is not None:
        call.optimised(full)
    by_step = {step: views.wraps for step, views in call.views.items()}
    return Failures(call.wrong_answer, call.noise_lost, by_step)


@dataclass
class _Call:
    """Adds up one call.  Totals of exponentials, of w and of V are taken over the classes, not class by class."""

    shape: Shape
    wrong_answer: float = 0.0
    noise_lost: float = 0.0
    views: dict[str, Views] = field(default_factory=dict)

    @property
    def _sum(self) -> float:
        """sum exp(x) of a row that keeps its label."""
        return self.shape.classes * _ROUNDED

    @property
    def _bounds(self) -> list[float]:
        """Of the layers of h, per unit of S."""
        return [2.0**bits for bits in self.shape.magnitude_bits]

    def _add(self, step: str, total: float, bits: int, *, released: bool = False) -> None:
        before = self.views.get(step, Views(0.0, bits))
        self.views[step] = Views(before.total + total, bits)
        wraps = Views(total, bits).wraps
        if released:
            self.wrong_answer += wraps
        else:
            self.noise_lost += wraps

    # What is released without validation ------------------------------------------------------------------

    def undefended(self) -> None:
        """Relative logits and their exponentials: the answer where no noise was accepted."""
        rows, C = self.shape.batch, self.shape.classes
        self._add("start/scale", rows * C * _WINDOW, LOGIT_BITS, released=True)
        self._add("exp", rows * (C - 1) * _ROUNDED, EXP_BITS, released=True)

    def linesearch(self) -> None:
        """Candidates are released as they are; what passes through h only decides which."""
        rows, C, K = self.shape.batch, self.shape.classes, len(LINESEARCH_CANDIDATES)
        # w_i = exp(x_i - runner-up) <= 1, 0 at the label.
        W = (C - 1) * _ROUNDED
        self._add("start/scale", rows * (C + 1) * LOGIT_RANGE, LOGIT_BITS, released=True)
        self._add("rest", rows * W, EXP_BITS, released=True)
        self._add("levels", rows * K * (1 + W), _LEVEL, released=True)
        # (1 - c) w and c' W at the label: W in all.
        self._add("mix", rows * K * 2 * W, _PRODUCT, released=True)
        self._add("rows", rows * self.shape.widths[1] * self._bounds[0] * (W + 1), OPENED_BITS)
        self._layers(rows * K, W, first_bits=_PRODUCT)
        self._add("value", rows * K * self._bounds[-1] * W, OPENED_BITS)

    # Optimised noise --------------------------------------------------------------------------------------

    def optimised(self, config: GuardConfig) -> None:
        """The first direction, in one lane; then steps and validation, in all lanes or in one of each run."""
        assert config.outer is not None  # noqa: S101 - for the type checker
        batch, C = self.shape.batch, self.shape.classes
        # What the undefended answer does not depend on: logits outside the window, the runner-up's.
        self._add("start/scale", batch * ((C + 1) * LOGIT_RANGE - C * _WINDOW), LOGIT_BITS)
        self._gradient(batch, W=C - 1)
        self._add("log", batch * _LARGEST_LOG, LOG_BITS)
        self._add("exp", batch * (C - 1) * _ROUNDED, EXP_BITS)
        lanes = lanes_of(config.outer)
        if self._is_sequential(config):
            for run in range(config.outer):
                own = [lane for lane in lanes if lane.run == run]
                self._walk(config, own, [max(own, key=lambda lane: lane.learning_rate(config))])
        else:
            self._walk(config, lanes, lanes)
        if config.policy == "decay":
            for step in ("own/value", "closer/value"):
                self._add(step, batch * self._bounds[-1] * self._sum, OPENED_BITS)

    def _is_sequential(self, config: GuardConfig) -> bool:
        return self.shape.plan.sequential and config.policy == "siguard"

    def _walk(self, config: GuardConfig, lanes: Sequence[Lane], walked: Sequence[Lane]) -> None:
        """All steps and the validation.  walked: one for all ``lanes`` where it is secret which of them it is."""
        assert config.inner is not None  # noqa: S101 - for the type checker
        C, rows = self.shape.classes, self.shape.batch * len(walked)
        for step in range(config.inner):
            if step > 0:
                W = largest_sum(config, lanes, step)
                # E, w, and where the label is lost exp(-lag) <= W: others together are as likely as the label.
                self._exponentials("exp", rows * (2 * C + 1), rows * (C - 1 + 2 * W))
                self._gradient(rows, W)
                if config.c3:
                    self._add("terms/close/weights", rows * W * self._sum, _PRODUCT)
                    self._add("terms/close/product", rows * 2 * W * self._sum, _PRODUCT)
                if config.c2:
                    self._keep_label(rows, W)
            self._move(config, walked, step)
        self._exponentials("candidates", rows * C, rows * (C - 1))
        self._layers(rows, self._sum)

    def _exponentials(self, step: str, count: int, total: float) -> None:
        """By keys, or by the tables of the plan; total: the sum of all."""
        if self.shape.plan.curves is not Way.ADDER:
            self._add(step, total * _ROUNDED, EXP_BITS)
            return
        self._add(f"{step}/factors", count * LARGEST_FACTOR, LOW_BITS)
        self._add(f"{step}/product", total * _ROUNDED, HIGH_BITS + FACTOR_BITS)

    def _layers(self, rows: int, S: float, first_bits: int = OPENED_BITS) -> None:
        """The hidden layers of h."""
        for layer, width in enumerate(self.shape.widths[1:-1]):
            bits = OPENED_BITS if layer else first_bits
            self._add(f"h/layer[{layer}]/value", rows * width * self._bounds[layer] * S, bits)

    def _gradient(self, rows: int, W: float) -> None:
        """h and its gradient; sum_i w_i |S v_i - <v, E>| <= W S G, and G at most twice the bound of h."""
        S, h = self._sum, self._bounds[-1]
        self._layers(rows, S)
        self._add("lag", rows * _LARGEST_LOG, LOG_BITS)
        hidden = len(self.shape.widths) - 2
        if self.shape.plan.folded and can_be_folded(self.shape.widths):
            self._add("h/weights", rows * W * S, _PRODUCT)
            # The bound of h is one of sum_k |sum_j y_j W2_jk w3_k|, whatever ReLUs are active.
            self._add("h/onward", rows * h * S, _FOLDED)
            self._add("h/Q", rows * 2 * W * S * h, _FOLDED)
            self._add("h/gradient", rows * 2 * W * S * h, FOLDED_BITS)
            return
        # Gradients of hidden values are taken to be within the bound of h: so they are where a unit of the first
        # layer reaches 1.
        for layer in range(hidden):
            self._add(f"h/back[{layer}]", rows * self.shape.widths[layer] * h, 2 * WEIGHT_BITS)
        self._add("h/centre", rows * self.shape.classes * 2 * S * h, FRACTION_BITS + WEIGHT_BITS)
        self._add("h/gradient", rows * 2 * W * S * h, _PRODUCT)

    def _keep_label(self, rows: int, W: float) -> None:
        """S^2 exp(-lag), where the label is lost: S < 4 C, and S exp(-lag) <= W S / (S - 1) <= 2 W."""
        S = self._sum * 2**GROWTH_BITS
        self._add("terms/label/scale[0]", rows * 2 * W, _PRODUCT)
        self._add("terms/label/scale[1]", rows * 2 * W * S, _PRODUCT)
        self._add("terms/label/product", rows * 2 * W * S, FRACTION_BITS)

    def _move(self, config: GuardConfig, lanes: Sequence[Lane], step: int) -> None:
        """V of length (length / 2)^(1/3), and the step, which moves the difference of two entries by sqrt 2."""
        batch, C = self.shape.batch, self.shape.classes
        lengths = [lane.step_length(config, step) for lane in lanes]
        directions = sum(cbrt(length / 2) for length in lengths)
        moves = batch * C * sqrt(2) * _STEPPED * sum(lengths)
        self._add("direction", batch * sqrt(C) * _NORMALISED * directions, _DIRECTION)
        self._add("move", moves, _STEP)
        if self._is_sequential(config):
            self._add("pace", moves, ARGUMENT_BITS + PACE_BITS)
