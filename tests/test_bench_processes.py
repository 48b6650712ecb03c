"""bench/processes.py: JSON lines and a table, and the same frames in memory as between processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "bench" / "processes.py"


def test_a_row_in_memory_and_over_processes() -> None:
    command = [sys.executable, str(BENCH), "--quick"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    line, _, table = ran.stdout.partition("\n")
    row = json.loads(line)
    assert (row["policy"], row["batch"], row["repeats"], row["rounds"]) == ("label", 1, 2, 4)
    assert 0 < row["processes_min"] <= row["processes_seconds"] <= row["processes_max"]
    assert row["ratio"] == row["processes_seconds"] / row["memory_seconds"]
    assert row["plan"] == row["memory_plan"]
    assert set(row["server_cpu_seconds"]) == set(row["server_peak_bytes"]) == {"S0", "S1", "S2"}
    if Path("/proc/self/stat").exists():
        assert all(0 <= used < 1 for used in row["server_cpu_seconds"].values())
        assert all(1e7 < peak < 1e9 for peak in row["server_peak_bytes"].values())
    assert "label" in table
