"""Declared cost of `siguard.guard.optimisation.optimise`, step for step as the protocol runs."""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SIGN_BITS, activations_cost, backward_cost, logit_cost
from siguard.guard.lanes import Lane
from siguard.guard.optimisation import log_domain, norm_steps
from siguard.guard.relative import lead_cost
from siguard.mpc.arithmetic import deal_cost, exchange_cost, product_cost
from siguard.mpc.boolean import sign_cost
from siguard.mpc.compare import one_hot_cost
from siguard.mpc.gate import Cost
from siguard.mpc.softmax import exp_cost, log_cost
from siguard.mpc.steps import steps_cost


def optimise_cost(batch: int, shape: Sequence[int], config: GuardConfig, lanes: Sequence[Lane]) -> Cost:
    """All steps: the first in one lane, the others in all."""
    full = config.resolved()
    assert full.inner is not None  # noqa: S101 - for the type checker
    rate = max(lane.learning_rate(full) for lane in lanes)
    first = _step_cost(batch, batch * len(lanes), shape, log_domain(shape[0], rate, True), first=True)
    rows = batch * len(lanes)
    later = _step_cost(rows, rows, shape, log_domain(shape[0], rate, False), first=False)
    return lead_cost(batch) + first + later * (full.inner - 1)


def _step_cost(rows: int, result_rows: int, shape: Sequence[int], domain: int, *, first: bool) -> Cost:
    classes = shape[0]
    n = rows * classes
    logs = log_cost(2 * rows, domain)
    branches = _towards_cost(rows, shape).beside(logs if first else _close_cost(rows, classes, logs))
    if not first:
        branches = branches.beside(_keep_cost(rows, classes))
    return (
        exp_cost(rows * (2 * classes + 1))
        + branches
        + exchange_cost(n, 8)
        + _newton_cost(rows, result_rows, classes)
    )


def _towards_cost(rows: int, shape: Sequence[int]) -> Cost:
    n = rows * shape[0]
    jacobian = backward_cost(rows, shape) + product_cost(n, 8) * 2
    sign = logit_cost(rows, shape) + sign_cost(rows, SIGN_BITS)
    return activations_cost(rows, shape) + jacobian.beside(sign) + deal_cost(2 * n, 8)


def _keep_cost(rows: int, classes: int) -> Cost:
    n = rows * classes
    lost = one_hot_cost(rows, classes, 64, 1) + product_cost(n, 8)
    return lost.beside(product_cost(rows, 8) * 2) + product_cost(n, 8)


def _close_cost(rows: int, classes: int, logs: Cost) -> Cost:
    n = rows * classes
    return (
        logs
        + deal_cost(n, 4)
        + sign_cost(n, 32)
        + deal_cost(2 * n, 8) * 2
        + exchange_cost(n, 8)
        + product_cost(n, 8)
    )


def _newton_cost(rows: int, result_rows: int, classes: int) -> Cost:
    n = rows * classes
    return (
        exchange_cost(rows + n, 8)
        + deal_cost(n, 8)
        + steps_cost(rows, norm_steps(), 64)
        + product_cost(2 * n, 8)
        + product_cost(rows, 8)
        + product_cost(result_rows * classes, 8)
    )
