"""bench/virtual_vs_wall.py measures what it prints; how close the two are does not matter here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_row_has_real_seconds_and_each_prediction() -> None:
    command = [sys.executable, str(ROOT / "bench" / "virtual_vs_wall.py"), "--repeats", "2", "--networks", "wan"]
    ran = subprocess.run(
        [*command, "--policies", "label", "--cores", "1"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    line, _, table = ran.stdout.partition("\n")
    row = json.loads(line)
    assert (row["policy"], row["network"], row["repeats"], row["cores"]) == ("label", "wan", 2, 1)
    least = row["rounds"] * 0.02  # each round crosses the line
    for how in ("wall", "table", "measured", "table_cores", "measured_cores"):
        seconds = row[how]
        assert least <= seconds["least"] <= seconds["median"] <= seconds["most"], how
    assert row["table"]["median"] <= row["table_cores"]["median"]
    error = 100 * (row["table"]["median"] / row["wall"]["median"] - 1)
    assert f"{error:+.1f} %" in table
    assert "table, 1 cores" in table
