"""The costs that plans are compared with: how they are fitted, stored and read, and the work that they weigh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from siguard import GuardConfig, InputError
from siguard.guard.local_costs import LocalCosts, read_costs, shipped_costs
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, plan_for, plans_of
from siguard.guard.policy import policy_cost
from siguard.guard.shape import Shape
from siguard.mpc import fss
from siguard.mpc.fss_layout import key_layout
from siguard.mpc.gate import Cost
from siguard.mpc.keyed import comparison_blocks, window_blocks
from siguard.mpc.prg import Blocks, Generator
from siguard.ring import ring

BENCH = Path(__file__).resolve().parents[1] / "bench"

FIT = """
import numpy as np
from plans import Measured, costs_of
rng = np.random.default_rng(7)
rows = [
    Measured("decay", 1, str(n), False, 1, 9, *counts, 1.0, float(counts @ [2e-4, 3e-9, 1e-8]))
    for n, counts in enumerate(rng.integers(1, [2000, 10**8, 10**7], (12, 3)))
]
costs = costs_of(rows, "a machine")
assert np.allclose([costs.frame, costs.byte, costs.block], [2e-4, 3e-9, 1e-8], rtol=1e-2), costs
assert costs.rows == 12 and costs.largest_error < 0.01
"""


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=BENCH)


def test_costs_are_found_again_from_what_they_predict() -> None:
    done = python("-c", FIT)
    assert done.returncode == 0, done.stderr


def test_plans_are_measured_and_their_costs_written(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    done = python("plans.py", "--quick", "--machine", "this one", "--write", file)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"row"')]
    plans = [row for row in rows if row["row"] == "Measured"]
    choices = [row for row in rows if row["row"] == "Choice"]
    assert {row["batch"] for row in plans} == {1, 2}
    assert sum(row["chosen"] for row in plans) == 2, "auto chooses one for each batch"
    assert len({row["plan"] for row in plans}) >= 3
    for choice in choices:
        assert choice["best_seconds"] <= choice["chosen_seconds"]
    costs = read_costs(file.read_text(encoding="utf-8"), "costs.json")
    assert (costs.machine, costs.rows) == ("this one", len(plans))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"frame": -1e-5}, r"frame: found -1e-05; allowed: a finite number of 0 or more"),
        ({"byte": "2"}, r"byte: found '2'"),
        ({"block": True}, r"block: found True"),
        ({"rows": 0}, r"rows: found 0; allowed: a whole number of 1 or more"),
        ({"machine": 3}, r"machine: found 3"),
        ({"measured": "November"}, r"measured: found 'November'"),
        ({"version": 2}, r"version: found 2; allowed: 1"),
        ({"color": 1}, r"expected the fields block, byte, frame"),
    ],
)
def test_a_wrong_table_is_refused_by_file_and_field(changes: dict[str, Any], part: str) -> None:
    values = json.loads(shipped_costs().to_json()) | changes
    with pytest.raises(InputError, match=f"^costs.json: {part}.*bench/plans.py --write"):
        read_costs(json.dumps(values), "costs.json")


def test_a_table_that_is_no_json_is_refused() -> None:
    with pytest.raises(InputError, match=r"^costs.json: not JSON"):
        read_costs("{", "costs.json")
    assert read_costs(shipped_costs().to_json(), "again") == shipped_costs()


def test_seconds_are_linear_in_what_is_counted() -> None:
    costs = LocalCosts(frame=3.0, byte=0.5, block=0.25)
    assert costs.seconds(Cost(9, messages=2, payload_bytes=8, blocks=4)) == 3.0 * 2 + 0.5 * 8 + 0.25 * 4


# --- the search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "plans"), [("siguard", 648), ("decay", 324), ("linesearch", 9), ("label", 3)])
def test_the_search_finds_what_looking_at_every_plan_finds(policy: str, plans: int) -> None:
    """Exactly for rounds and bytes; within 5 % of the least seconds, on links from memory to a continent."""
    shape = Shape(5, (10, 24, 12, 1), (3, 5, 6), Plan())
    costs = {
        plan: policy_cost(shape._replace(plan=plan), GuardConfig(policy)) for plan in plans_of(policy, shape.widths)
    }
    assert len(costs) == plans
    least = min((cost.rounds, cost.bytes) for cost in costs.values())
    few = plan_for(GuardConfig(policy, rounds="few"), shape, Conditions())
    assert (few.rounds - 3, few.bytes) == least
    smallest = min((cost.bytes, cost.rounds) for cost in costs.values())
    small = plan_for(GuardConfig(policy, rounds="bytes"), shape, Conditions())
    assert (small.bytes, small.rounds - 3) == smallest
    for latency in (3e-5, 1e-2):
        for rate in (1e6, 5e9):
            for block in (3e-9, 1e-7):
                local = LocalCosts(1e-4, 2e-9, block)
                best = min(
                    (cost.rounds + 3) * latency + cost.bytes / 2 / rate + local.seconds(cost)
                    for cost in costs.values()
                )
                found = plan_for(GuardConfig(policy), shape, Conditions(latency, rate), local)
                assert best * (1 - 1e-9) <= found.seconds <= 1.05 * best, (latency, rate, block)


# --- blocks -----------------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[list[int]]:
    """The blocks that the generator makes inside."""
    blocks = [0]
    make = Generator.__call__

    def call(generator: Generator, inputs: Blocks) -> Blocks:
        blocks[0] += inputs.size // 2
        return make(generator, inputs)

    with mock.patch.object(Generator, "__call__", call):
        yield blocks


SIZES = [
    (1, 1, 1, 1, 64),
    (3, 5, 2, 20, 64),
    (2, 4, 1, 9, 1),
    (4, 2, 3, 63, 8),
    (2, 1, 11, 40, 32),
    (2, 145, 3, 12, 64),
]


def roots_of(rng: np.random.Generator, keys: int) -> tuple[Any, Any]:
    first, second = rng.integers(0, 256, (2, keys, fss.ROOT_BYTES), np.uint8)
    return first, second


@pytest.mark.parametrize(("keys", "points", "words", "bits", "k"), SIZES)
def test_blocks_of_comparison_keys_are_declared(keys: int, points: int, words: int, bits: int, k: int) -> None:
    rng, of = np.random.default_rng(3), ring(k)
    roots, alpha = roots_of(rng, keys), rng.integers(0, 1 << bits, keys, np.uint64)
    with counted() as blocks:
        corrections = fss.comparison_keys(roots, alpha, of.zeros(keys, words), bits, of)
        for party, root in enumerate(roots):
            at = np.zeros((keys, points), np.uint64)
            fss.evaluate_comparison(party, root, corrections, at, bits, words, of)
    assert blocks[0] == keys * comparison_blocks(key_layout(bits, words, of, values=True), points)


@pytest.mark.parametrize(
    ("keys", "count", "words", "bits", "k"), [size for size in SIZES if size[1] <= 1 << size[3]]
)
def test_blocks_of_point_keys_are_declared(keys: int, count: int, words: int, bits: int, k: int) -> None:
    rng, of = np.random.default_rng(4), ring(k)
    roots, alpha = roots_of(rng, keys), rng.integers(0, 1 << bits, keys, np.uint64)
    with counted() as blocks:
        corrections = fss.point_keys(roots, alpha, of.zeros(keys, words), bits, of)
        for party, root in enumerate(roots):
            fss.evaluate_window(party, root, corrections, np.zeros(keys, np.uint64), count, bits, words, of)
    assert blocks[0] == keys * window_blocks(key_layout(bits, words, of, values=False), count)
