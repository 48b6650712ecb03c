"""Each campaign at its smallest size: it runs, finds nothing, and says what it did; and it can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGNS = Path(__file__).parent / "campaigns"
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="campaigns read /proc")


def campaign(name: str, *options: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, the JSON lines that were printed, and all of the output."""
    command = [sys.executable, str(CAMPAIGNS / f"{name}.py"), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return ran.returncode, lines, ran.stdout + ran.stderr


def test_chaos_kills_a_server_and_mends() -> None:
    status, lines, output = campaign("chaos", "--kills", "1", "--scenarios", "garbage", "--seed", "1")
    assert status == 0, output
    found = {line["found"]: line for line in lines if "found" in line}
    assert list(found) == ["garbage", "kill 0", "after the kills", "clean-up"]
    assert len(found["kill 0"]["queries"]) == 2
    assert found["kill 0"]["victim"] in ("S0", "S1", "S2")


def test_soak_asks_and_samples() -> None:
    status, lines, output = campaign(
        "soak", "--sessions", "20", "--burst", "5", "--samples", "1", "--idle", "0", "--seed", "3"
    )
    assert status == 0, output
    found = [line for line in lines if "found" in line]
    assert [line["found"] for line in found] == ["soak of 20 sessions", "burst of 5 linesearch"]
    assert sum(found[0]["policies"].values()) == 20
    assert [set(line["held"]) for line in lines if "held" in line] == [{"S0", "S1", "S2", "user"}] * 2


def test_fuzz_runs_every_target() -> None:
    status, lines, output = campaign("fuzz", "--cases", "60", "--seed", "3")
    assert status == 0, output
    found = [line for line in lines if "found" in line]
    assert {line["found"] for line in found} == {
        "frame",
        "hello",
        "messages",
        "traffic",
        "deployment",
        "keys",
        "tcp",
        "handshake",
        "records",
    }
    assert all(line["cases"] == 60 for line in found)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("chaos", ["--scenarios", "plague"], "plague; there are stopped-long"),
        ("soak", ["--policy", "plague"], "plague; there are label"),
        ("fuzz", ["--targets", "plague"], "plague; there are frame"),
    ],
)
def test_bad_options_are_named(name: str, options: list[str], part: str) -> None:
    status, _, output = campaign(name, *options)
    assert status == 2
    assert part in " ".join(output.replace("│", " ").split())
    assert "Traceback" not in output
