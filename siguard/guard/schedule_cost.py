"""Declared frames and bytes of the guard's schedule; what waits for what is in `siguard.guard.schedule_rounds`."""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.answer import BITS, COUNTS, TABLE_LANES, kept_ring
from siguard.guard.choice import choose_cost
from siguard.guard.closer import DIFFERENCE_RING
from siguard.guard.config import GuardConfig
from siguard.guard.iteration import UNDEFENDED_BELOW, WEIGHTS_RING, WIDE_INDEX_BITS, weight_pieces
from siguard.guard.lanes import Lane
from siguard.guard.move import NORM_RING, PER_OCTAVE
from siguard.guard.plan import Plan
from siguard.guard.shape import Shape
from siguard.guard.start import floored_cost
from siguard.guard.step_ranges import NORM_RANGE, Reach
from siguard.guard.terms import SCALE_RING, SUM_RING, X_COMPARED, sum_pieces
from siguard.mpc.arithmetic import deal_cost, exchange_cost, product_cost
from siguard.mpc.compare import ranked_cost, win_counts_cost
from siguard.mpc.cubic import cubic_cost
from siguard.mpc.curves import at_places_cost, exponential_cost, piecewise_cost, scaled_steps_cost
from siguard.mpc.gate import Cost
from siguard.mpc.splines import ARGUMENT_BITS, EXP_WINDOW, inverse_root_steps
from siguard.mpc.tabled import tabled_exponential_cost
from siguard.mpc.thresholds import Way, at_least_cost
from siguard.ring import Z64


def exponentials_cost(elements: int, bits: int, by: Way = Way.KEY, below: int = EXP_WINDOW[1]) -> Cost:
    """`siguard.guard.iteration.exponentials`."""
    if by is Way.ADDER:
        return tabled_exponential_cost(elements, bits)
    return exponential_cost(elements, bits, below) + product_cost(elements, 8)


def first_step_cost(shape: Shape) -> Cost:
    """`siguard.guard.iteration.first_step`."""
    batch, classes = shape.batch, shape.classes
    log = piecewise_cost(batch, SUM_RING.bits, len(sum_pieces().slopes), shape.plan.curves) + product_cost(batch, 8)
    return (
        exponentials_cost(2 * batch * classes, WIDE_INDEX_BITS, below=UNDEFENDED_BELOW)
        + shape.gradient(batch)
        + _lag_cost(batch, shape.plan)
        + floored_cost(batch * (classes + 1), shape.plan)
        + log
    )


def walk_cost(shape: Shape, config: GuardConfig, lanes: Sequence[Lane], *, chosen: bool = False) -> Cost:
    """`siguard.guard.iteration.walk`, in all lanes or in a chosen one."""
    assert config.inner is not None  # noqa: S101 - for the type checker
    batch, classes = shape.batch, shape.classes
    rows = batch if chosen else batch * len(lanes)
    reach = Reach(config, lanes)
    pace = product_cost(rows * classes, 8) if chosen else Cost()
    terms = _terms_cost(shape, rows, config, reach)
    if chosen and config.c3:
        terms += product_cost(rows * classes, 8)
    later = (
        exponentials_cost(rows * (2 * classes + 1), reach.index_bits, shape.plan.curves)
        + shape.gradient(rows)
        + terms
        + _lag_cost(rows, shape.plan)
        + _move_cost(shape, rows, rows, terms=bool(config.c2 or config.c3))
        + pace
    )
    return _move_cost(shape, batch, rows, terms=False) + pace + later * (config.inner - 1)


def sequential_cost(shape: Shape, config: GuardConfig, lanes: Sequence[Lane]) -> Cost:
    """`siguard.guard.sequential.sequential_answer`."""
    batch, classes = shape.batch, shape.classes
    outer = max(lane.run for lane in lanes) + 1
    run = walk_cost(shape, config, lanes, chosen=True) + _validated_cost(shape, config, lanes, 1)
    total = run * outer + exchange_cost(batch, 1) * outer
    for before in range(1, outer + 1):
        total += deal_cost(2 * batch * classes, 8) + deal_cost(2 * batch * before, 8)
        total += exchange_cost(batch * (classes + before), 8)
    return total


def _lag_cost(rows: int, plan: Plan) -> Cost:
    pieces = len(weight_pieces().slopes)
    return piecewise_cost(rows, WEIGHTS_RING.bits, pieces, plan.curves) + product_cost(rows, 8)


def _move_cost(shape: Shape, rows: int, moved: int, *, terms: bool) -> Cost:
    classes = shape.classes
    wires = 2 * classes + 1 if terms else classes
    # An adder has run beside the gradient, see `gradient_cost`.
    signed = at_least_cost(rows, shape.sign_bits, 1, wires, Z64)
    if shape.plan.direct is not Way.KEY:
        signed = deal_cost(rows * (1 + wires), 8)
    if terms:
        signed += deal_cost(rows, 8)
    thresholds = len(inverse_root_steps(*NORM_RANGE, PER_OCTAVE)[0])
    curves = shape.plan.curves
    if shape.plan.joined:
        once = scaled_steps_cost(rows, NORM_RING.bits, thresholds, classes, curves) + cubic_cost(moved, classes)
    else:
        root = scaled_steps_cost(rows, NORM_RING.bits, thresholds, 1, curves) + exchange_cost(moved, 8)
        once = root + product_cost(moved, 8)
    opened = exchange_cost(rows * classes, 8) + exchange_cost(rows, 8)
    return signed + opened + once + product_cost(moved * classes, 8) * 2


def _terms_cost(shape: Shape, rows: int, config: GuardConfig, reach: Reach) -> Cost:
    bits = reach.ring(X_COMPARED).bits
    total = Cost()
    if config.c3:
        total += _close_cost(shape, rows, bits)
    if config.c2:
        total += _keep_cost(shape, rows, bits)
    return total


def _close_cost(shape: Shape, rows: int, x_bits: int) -> Cost:
    n = rows * shape.classes
    log = piecewise_cost(rows, SUM_RING.bits, len(sum_pieces().slopes), shape.plan.curves)
    compare = log + exchange_cost(n + rows, 8)
    return (
        product_cost(n, 8)
        + compare
        + at_least_cost(n + rows, x_bits, 1, 1, Z64, shape.plan.beside)
        + exchange_cost(n + rows, 8)
        + product_cost(n, 8)
    )


def _keep_cost(shape: Shape, rows: int, x_bits: int) -> Cost:
    classes, by = shape.classes, shape.plan.beside
    n = rows * classes
    ahead = at_least_cost(n, x_bits, 1, 0, Z64, by) + exchange_cost(n, 8)
    lost = (
        win_counts_cost(rows, classes, x_bits, by) + ahead + ranked_cost(rows, classes, 1, 1) + exchange_cost(n, 8)
    )
    cap = at_least_cost(rows, SCALE_RING.bits, 1, 1, Z64, by) + exchange_cost(rows, 8)
    return lost + product_cost(rows, 8) * 2 + cap + product_cost(n, 8)


def _kept_cost(shape: Shape, rows: int, reach: Reach, itemsize: int) -> Cost:
    n, by = rows * shape.classes, shape.plan.beside
    counts = kept_ring(shape.classes)
    target = BITS if itemsize == 1 else Z64
    inside = at_least_cost(n, 64, 2, 0, COUNTS, by)
    ahead = at_least_cost(n, reach.ring(ARGUMENT_BITS).bits, 1, 0, COUNTS, by)
    return (
        inside
        + ahead
        + exchange_cost(rows, counts.itemsize)
        + at_places_cost(rows, counts.bits, 1, target)
        + exchange_cost(rows, itemsize)
    )


def _validated_cost(shape: Shape, config: GuardConfig, lanes: Sequence[Lane], count: int) -> Cost:
    batch, rows = shape.batch, shape.batch * count
    reach = Reach(config, lanes)
    own = at_least_cost(batch, shape.sign_bits, 2, 0, BITS, shape.plan.beside) + exchange_cost(2 * batch, 1)
    return (
        exponentials_cost(rows * shape.classes, reach.index_bits, shape.plan.curves)
        + shape.logit(rows)
        + _kept_cost(shape, rows, reach, 1)
        + own
        + product_cost(2 * rows, 1)
        + at_least_cost(rows, shape.sign_bits, 2, 2, BITS, shape.plan.direct)
    )


def chosen_answer_cost(shape: Shape, config: GuardConfig, lanes: Sequence[Lane]) -> Cost:
    """`siguard.guard.answer.chosen_answer`, without the reveal."""
    batch, classes, count = shape.batch, shape.classes, len(lanes)
    total = _validated_cost(shape, config, lanes, count)
    if count <= TABLE_LANES:
        return total + exchange_cost(batch, 1) + at_places_cost(batch, count, 1 + count * classes, Z64, 1 << count)
    outer = max(lane.run for lane in lanes) + 1
    rows = batch * count
    return total + exchange_cost(rows, 1) + choose_cost(batch, outer) + deal_cost(2 * rows * classes, 8)


def closer_answer_cost(shape: Shape, config: GuardConfig, lanes: Sequence[Lane]) -> Cost:
    """`siguard.guard.closer.closer_answer`, without the reveal."""
    batch, classes, by = shape.batch, shape.classes, shape.plan.direct
    reach = Reach(config.resolved(), lanes)
    own = (
        deal_cost(batch, 8)
        + at_least_cost(batch, shape.sign_bits, 1, 1, Z64, shape.plan.beside)
        + exchange_cost(batch, 8)
    )
    difference = (
        deal_cost(batch, 8) * 2 + at_least_cost(batch, shape.sign_bits, 1, 3, Z64, by) + exchange_cost(batch, 8)
    )
    return (
        exponentials_cost(batch * classes, reach.index_bits, shape.plan.curves)
        + shape.logit(batch)
        + _kept_cost(shape, batch, reach, 8)
        + product_cost(batch * classes, 8)
        + own
        + difference
        + at_least_cost(batch, DIFFERENCE_RING.bits, 1, classes, Z64, by)
    )
