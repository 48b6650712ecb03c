"""How plans compare on this machine, and the costs with which `rounds="auto"` chooses (`siguard.guard.planner`).

    python bench/plans.py [--policies siguard decay linesearch] [--batches 1 10 100] [--plans 24] [--repeats 3]
                          [--write siguard/guard/local_costs.json] [--quick] [--out FILE]

Runs calls in memory with every plan, or with as many of them by chance, and those that the modes choose.  Fits the
seconds of a call = frames, bytes and blocks times a cost each; costs are 0 or more, relative errors
count, and most those of the better plans.  Says how far the plan that ``auto`` would choose is from the best of
those that were measured.
"""

from __future__ import annotations

import platform
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import trio
from measuring import Report, parsed, parser_of, plan_name, positive, report, short
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table
from run import MODES, random_inputs
from scipy.optimize import nnls

import siguard
import siguard.actors.cluster as cluster_module
from siguard.actors.planning import IN_MEMORY
from siguard.guard.config import GuardConfig
from siguard.guard.defender import encode_defender
from siguard.guard.local_costs import LocalCosts
from siguard.guard.plan import SWITCHES, WAYS, Plan
from siguard.guard.planner import Planned, plan_for, plans_of
from siguard.guard.policy import policy_cost
from siguard.guard.shape import Shape
from siguard.mpc.gate import Cost


@dataclass(frozen=True)
class Case:
    """A policy at a batch size: its inputs and the plans to run, each with its declared cost."""

    policy: str
    batch: int
    shape: Shape
    plans: dict[Plan, Cost]
    chosen: Plan

    @property
    def config(self) -> GuardConfig:
        """What is asked."""
        return GuardConfig(self.policy)


@dataclass(frozen=True)
class Measured:
    """One plan: what it costs, the least of its processor and wall seconds, and whether ``auto`` chooses it."""

    policy: str
    batch: int
    plan: str
    chosen: bool
    repeats: int
    rounds: int
    messages: int
    payload_bytes: int
    blocks: int
    cpu_seconds: float
    seconds: float

    @property
    def counts(self) -> tuple[int, int, int]:
        """What the costs are multiplied with."""
        return self.messages, self.payload_bytes, self.blocks


def cases(policies: Sequence[str], batches: Sequence[int], count: int, seed: int) -> Iterator[Case]:
    """All cases; of more plans than ``count``, those that the modes choose and others by chance."""
    for policy in policies:
        for batch in batches:
            _, defender = random_inputs(batch, seed)
            shape = Shape(batch, defender.shape, encode_defender(defender).magnitude_bits, Plan())
            modes = [plan_for(GuardConfig(policy, rounds=mode), shape, IN_MEMORY).plan for mode in MODES]
            others = [plan for plan in plans_of(policy, shape.widths) if plan not in modes]
            some = random.Random(seed).sample(others, min(len(others), max(0, count - len(modes))))  # noqa: S311
            costs = {plan: policy_cost(shape._replace(plan=plan), GuardConfig(policy)) for plan in [*modes, *some]}
            yield Case(policy, batch, shape, costs, modes[MODES.index("auto")])


@contextmanager
def planned_as(plan: Plan, cost: Cost) -> Iterator[None]:
    """Calls of a cluster run with this plan, also where no mode would choose it."""
    planned = Planned(plan, cost.rounds, cost.bytes, 0.0)
    with mock.patch.object(cluster_module, "plan_for", return_value=planned):
        yield


async def measure(cluster: siguard.Cluster, case: Case, repeats: int, seed: int) -> list[Measured]:
    """All plans of a case, in turn and in another order each time, so that load meets all of them."""
    logits, defender = random_inputs(case.batch, seed)
    spent: dict[Plan, list[float]] = {plan: [] for plan in case.plans}
    taken: dict[Plan, list[float]] = {plan: [] for plan in case.plans}
    order, rng = list(case.plans), random.Random(seed)  # noqa: S311 - no secret
    with planned_as(order[0], case.plans[order[0]]):
        await cluster.guard(logits[:1], defender, case.config)
    for _ in range(repeats):
        rng.shuffle(order)
        for plan in order:
            with planned_as(plan, case.plans[plan]):
                started = time.process_time()
                result = await cluster.guard(logits, defender, case.config)
                spent[plan].append(time.process_time() - started)
                taken[plan].append(result.seconds)
    return [
        Measured(
            case.policy,
            case.batch,
            plan_name(plan),
            plan == case.chosen,
            repeats,
            cost.rounds,
            cost.messages,
            cost.payload_bytes,
            cost.blocks,
            min(spent[plan]),
            min(taken[plan]),
        )
        for plan, cost in case.plans.items()
    ]


def fit(rows: Sequence[Measured]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Costs of (frame, byte, block), and each row's predicted / measured."""
    counts = np.array([row.counts for row in rows], dtype=float)
    relative = counts / np.array([[row.seconds] for row in rows])
    largest = np.maximum(relative.max(axis=0), 1e-300)  # columns of one size, for the solver
    weights = np.array([_weight(row, rows) for row in rows])
    costs = nnls(relative / largest * weights[:, None], weights)[0] / largest
    return costs, relative @ costs


def _weight(row: Measured, rows: Sequence[Measured]) -> float:
    """All cases count alike, and in each most the plans near the best: between these is the choice."""
    case = [other.seconds for other in rows if (other.policy, other.batch) == (row.policy, row.batch)]
    return float((min(case) / row.seconds) ** 2 / np.sqrt(len(case)))


def costs_of(rows: Sequence[Measured], machine: str) -> LocalCosts:
    """The fitted costs."""
    costs, ratios = fit(rows)
    errors = np.abs(ratios - 1)
    frame, byte, block = (float(f"{cost:.3g}") for cost in costs)
    return LocalCosts(
        frame,
        byte,
        block,
        machine=machine,
        measured=datetime.now(UTC).date().isoformat(),
        rows=len(rows),
        median_error=round(float(np.median(errors)), 3),
        largest_error=round(float(errors.max()), 3),
    )


@dataclass(frozen=True)
class Choice:
    """What ``auto`` chooses for a policy and batch, and the best of what was measured, by seconds."""

    policy: str
    batch: int
    plans: int
    chosen: str
    best: str
    chosen_seconds: float
    best_seconds: float

    @property
    def ratio(self) -> float:
        """How much longer the chosen one takes."""
        return self.chosen_seconds / self.best_seconds


def choices(rows: Sequence[Measured], found: Sequence[Case], local: LocalCosts) -> list[Choice]:
    """For each case, the plan that ``local`` makes cheapest among those measured, and the best of these."""
    result = []
    for case in found:
        named = {row.plan: row for row in rows if (row.policy, row.batch) == (case.policy, case.batch)}
        chosen = named[plan_name(min(case.plans, key=lambda plan: local.seconds(case.plans[plan])))]
        best = min(named.values(), key=lambda row: row.seconds)
        result.append(
            Choice(case.policy, case.batch, len(named), chosen.plan, best.plan, chosen.seconds, best.seconds)
        )
    return result


def code(plan: str) -> str:
    """A plan's name in a few letters."""
    ways, *more = re.split(f" (?={'|'.join(SWITCHES)})", plan)
    return " ".join(["".join(way[0] for way in ways.split("/")), *(word[:4] for word in more)])


def table(rows: Sequence[Measured], ratios: npt.NDArray[np.float64]) -> Table:
    """The rows with what the fit says of them."""
    headings = ("policy", "batch", "plan", "rounds", "MB", "cpu", "seconds", "fit")
    title = f"one call in memory, by plan: {', '.join(WAYS)} by key (k), bit key (b), adder (a); * auto"
    result = empty_table(title, headings, left=("policy", "plan"))
    for row, ratio in zip(rows, ratios, strict=True):
        result.add_row(
            row.policy,
            str(row.batch),
            code(row.plan) + (" *" if row.chosen else ""),
            str(row.rounds),
            short(row.payload_bytes / 1e6),
            short(row.cpu_seconds),
            short(row.seconds),
            f"{ratio:.2f}",
        )
    return result


async def run(found: Sequence[Case], repeats: int, seed: int, to: Report) -> list[Measured]:
    """Measure, and add rows to the report."""
    rows: list[Measured] = []
    async with siguard.open_cluster(seed=seed) as cluster:
        for case in found:
            for row in await measure(cluster, case, repeats, seed):
                rows.append(row)
                to.add(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("Fit the costs with which plans are chosen.")
    parser.set_defaults(repeats=3)
    parser.add_argument("--policies", nargs="+", default=["siguard", "decay", "linesearch"])
    parser.add_argument("--batches", type=positive, nargs="+", default=[1, 10, 100])
    parser.add_argument("--plans", type=positive, default=24, help="plans of each policy and batch")
    parser.add_argument("--machine", default=f"{platform.machine()}, Python {platform.python_version()}")
    parser.add_argument("--write", type=Path, help="where the costs go")
    options = parsed(parser, arguments, {"repeats": 1, "policies": ["linesearch"], "batches": [1, 2], "plans": 4})
    try:
        with report(options.out) as to:
            found = list(cases(options.policies, options.batches, options.plans, options.seed))
            rows = trio.run(run, found, options.repeats, options.seed, to)
            costs = costs_of(rows, options.machine)
            Console().print(table(rows, fit(rows)[1]))
            for choice in choices(rows, found, costs):
                to.add(choice)
                print(
                    f"{choice.policy}, batch {choice.batch}: auto takes {choice.ratio:.2f} of the best plan's time"
                )
    except siguard.SiguardError as error:
        sys.exit(f"plans: {error}")
    print(costs.to_json())
    if options.write:
        options.write.write_text(costs.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
