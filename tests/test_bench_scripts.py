"""The smaller benchmarks measure what they print, in quick mode; how fast this machine is does not matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


def ran(script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / f"{script}.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def rows_of(script: str, file: Path, *options: str) -> list[dict[str, Any]]:
    """What a script writes with ``--quick --out``, which is what it prints before its table."""
    done = ran(script, "--quick", "--out", file, *options)
    assert done.returncode == 0, done.stderr
    written = file.read_text(encoding="utf-8").splitlines()
    assert [line for line in done.stdout.splitlines() if line.startswith('{"row"')] == written
    table = done.stdout.rpartition("}")[2]
    assert "seconds" in table or "ms" in table or script == "plans"
    return [json.loads(line) for line in written]


def test_gates_are_measured_at_several_sizes(tmp_path: Path) -> None:
    rows = rows_of("gates", tmp_path / "gates.jsonl")
    names = {row["gate"] for row in rows}
    for gate in ("exponential", "piecewise", "scaled_steps", "cubic", "win_counts", "ranked", "multiply", "matmul"):
        assert gate in names
    found = {(row["gate"], row["size"]): row for row in rows}
    key, bit_key, adder = (found[f"at_least, {way}", 8] for way in ("key", "bit key", "adder"))
    assert key["rounds"] < bit_key["rounds"] < adder["rounds"]
    assert key["bytes"] > bit_key["bytes"] > adder["bytes"]
    for name in names:
        one, eight = found[name, 1], found[name, 8]
        assert one["rounds"] == eight["rounds"]
        assert one["messages"] == eight["messages"]
        assert one["bytes"] < eight["bytes"] <= 8 * one["bytes"]
        for row in (one, eight):
            assert 0 <= row["seconds_min"] <= row["seconds"] <= row["seconds_max"]


def test_an_unknown_gate_is_named() -> None:
    done = ran("gates", "--gates", "exponentail")
    assert done.returncode != 0
    assert "no gate is called 'exponentail'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def test_growth_follows_classes_rows_and_iterations(folder: Path) -> None:
    rows = rows_of("growth", folder / "growth.jsonl")
    for along in ("classes", "batch", "iterations"):
        small, large = (row for row in rows if row["along"] == along)
        assert small["bytes_total"] < large["bytes_total"]
        assert (small["rounds"] < large["rounds"]) == (along == "iterations")
        assert 0 < small["seconds_min"] <= small["seconds"] <= small["seconds_max"]


def test_networks_are_as_slow_as_their_rounds(folder: Path) -> None:
    wan, near = rows_of("networks", folder / "networks.jsonl")
    assert (wan["network"], wan["rtt_milliseconds"]) == ("wan", 40)
    assert (near["network"], near["rtt_milliseconds"]) == ("rtt", 2)
    assert wan["rounds"] == near["rounds"]
    assert wan["bytes_total"] == near["bytes_total"]
    waited = wan["rounds"] * (0.040 - 0.002) / 2
    for seconds in ("table_seconds", "measured_seconds"):
        assert wan[seconds] > near[seconds]
    assert wan["table_seconds"] - near["table_seconds"] == pytest.approx(waited, rel=0.35)


def test_rows_are_drawn(folder: Path) -> None:
    files = [folder / "growth.jsonl", folder / "networks.jsonl"]
    done = ran("plots", *files, "--to", folder)
    assert done.returncode == 0, done.stderr
    assert [Path(line).name for line in done.stdout.splitlines()] == ["rtt.png", "classes.png"]
    for name in ("rtt.png", "classes.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("text", "part"), [("", "no rows to draw"), ("seconds 3\n", "line 1: not JSON"), ("[1]\n", "not a row")]
)
def test_what_cannot_be_drawn_is_named(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    done = ran("plots", file, "--to", tmp_path)
    assert done.returncode != 0
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def test_a_call_beyond_the_limit_is_skipped_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    done = ran(
        "run", "--policies", "decay", "--modes", "few", "--batches", "1", "2", "--limit", "0.001", "--out", file
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(row["batch"], row["detail"], row["seconds"]) for row in rows] == [
        (1, "longer than 0.001 s", None),
        (2, "longer than 0.001 s", None),
    ]
