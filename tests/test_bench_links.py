"""The benchmark of links measures what it prints; how fast this machine is does not matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "bench" / "links.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_a_json_line_for_each_link_and_job_then_a_table() -> None:
    ran = bench("--repeats", "2", "--megabytes", "3", "--messages", "50")
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    kinds = ["memory", "raw", "plain", "sealed"]
    assert [(row["what"], row["link"]) for row in rows] == [
        (what, kind) for what in ("large", "small", "ping") for kind in kinds
    ]
    for row in rows:
        assert 0 < row["value_min"] <= row["value"] <= row["value_max"]
        assert row["repeats"] == 2
        assert row["messages"] == (3 if row["what"] == "large" else 50)
        assert row["cpu_us"] >= 0
        assert (row["peer_cpu_us"] is None) == (row["link"] == "memory")
        if row["link"] == "raw":
            assert row["to_raw"] == 1
    table = ran.stdout.rpartition("}")[2]
    assert "sealed" in table
    assert "ping" in table


@pytest.mark.parametrize(
    ("options", "part"), [(["--repeats", "0"], "--repeats"), (["--links", "seled"], "'seled'")]
)
def test_bad_options_are_named(options: list[str], part: str) -> None:
    ran = bench(*options)
    assert ran.returncode != 0
    assert part in ran.stderr
    assert "Traceback" not in ran.stderr
