"""The benchmark measures what it prints; how fast this machine is does not matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "run.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def output() -> str:
    ran = bench("--quick", "--recorded")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def rows(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def test_a_json_line_for_each_policy_and_batch_then_a_table(output: str, rows: list[dict[str, Any]]) -> None:
    assert [(row["policy"], row["batch"]) for row in rows] == [
        ("none", 1),
        ("none", 4),
        ("linesearch", 1),
        ("linesearch", 4),
    ]
    table = output.rpartition("}")[2]
    assert "linesearch" in table
    assert str(rows[-1]["rounds"]) in table


def test_costs_are_of_one_call_and_follow_the_batch(rows: list[dict[str, Any]]) -> None:
    for one, four in (rows[:2], rows[2:]):
        assert one["rounds"] == four["rounds"] > 0
        assert 0 < one["messages"] <= four["messages"] <= one["messages"] + 4, "room given back beyond 4 MB"
        assert one["bytes_total"] < four["bytes_total"] < 5 * one["bytes_total"]
    for row in rows:
        assert 0 < row["seconds_min"] <= row["seconds"] <= row["seconds_max"]
        assert row["times_reference"] == pytest.approx(row["seconds"] / row["reference_seconds"])
        assert row["bytes_dealt"] + row["bytes_online"] == row["bytes_total"] == sum(row["bytes_by_link"].values())
        assert row["times_recorded"] == pytest.approx(row["recorded_seconds"] / row["seconds"])
        assert row["online_seconds"] > 0
        assert row["prepare_seconds"] > 0
        assert row["cpu_seconds"] > 0
        assert row["iterations"] == (1 if row["policy"] == "linesearch" else 0)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--batches", "0"], "--batches"),
        (["--repeats", "-1"], "--repeats"),
        (["--policies", "sigard"], "unknown policy 'sigard'"),
        (["--modes", "fast"], "'fast'"),
    ],
)
def test_bad_options_are_named(options: list[str], part: str) -> None:
    ran = bench(*options)
    assert ran.returncode != 0
    assert part in ran.stderr
    assert "Traceback" not in ran.stderr
