"""bench/peers.py: peers answer in turn, are checked, limited, and leave nothing behind.  Here they are scripts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"

#: Knows the guard `label`: the one-hot of the largest logit.
GUARD = """
import sys
sys.path.insert(0, {programs!r})
import numpy as np
from serving import POLICIES, read_input, serve
import serving
serving.POLICIES = (*POLICIES, "label")
logits, layers = read_input(sys.argv[1], sys.argv[3])
assert [W.shape for W, b in layers] == [(10, 128), (128, 64), (64, 1)], layers
answer = np.eye(10)[{row}]
serve(sys.argv[2], lambda: (answer, {figures}))
"""
RIGHT = "logits.argmax(axis=1)"


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "peers.py"), "--policy", "label", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def rows_of(ran: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert ran.returncode == 0, ran.stderr
    rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {row["peer"]: row for row in rows}


def script(folder: Path, name: str, text: str) -> list[str]:
    path = folder / f"{name}.py"
    path.write_text(text, encoding="utf-8")
    return ["--program", f"{name}={path}"]


def guard(row: str = RIGHT, figures: str = '{"seconds": 0.5}') -> str:
    return GUARD.format(programs=str(BENCH / "peer_programs"), row=row, figures=figures)


def test_right_wrong_and_broken_peers_beside_siguard(tmp_path: Path) -> None:
    counted = "dict(seconds=0.25 + 0.25 * next(turn), rounds=7, bytes_total=1_500_000)"
    ran = bench(
        *("--repeats", "3", "--batch", "2"),
        *script(tmp_path, "right", "from itertools import count\nturn = count()\n" + guard(figures=counted)),
        *script(tmp_path, "another", guard(row="logits.argmin(axis=1)")),
        *script(tmp_path, "shapeless", guard(row="0")),
        *script(tmp_path, "silent", guard(figures="{}")),
        *script(tmp_path, "ending", "import sys\nsys.exit('no such library')"),
        *script(tmp_path, "babbling", "print('hello')\nprint('peer: [1]')\ninput()"),
    )
    rows = rows_of(ran)
    own, right = rows["siguard"], rows["right"]
    assert own["status"] == right["status"] == "ok"
    assert (own["ratio"], own["repeats"], own["within"], own["rounds"] > 0) == (1.0, 3, 1.0, True)
    assert (right["seconds"], right["seconds_min"], right["seconds_max"]) == (0.5, 0.25, 0.75)
    assert right["ratio"] == pytest.approx(0.5 / own["seconds"])
    assert (right["rounds"], right["bytes_total"], right["label_kept"]) == (7, 1_500_000, 1.0)

    another, shapeless = rows["another"], rows["shapeless"]
    assert another["status"] == shapeless["status"] == "wrong"
    assert (another["within"], another["label_kept"], another["largest_difference"]) == (0.0, 0.0, 1.0)
    assert (shapeless["within"], another["rounds"], another["bytes_total"]) == (0.0, None, None)

    for name, part in (
        ("silent", "its answer cannot be read: KeyError: 'seconds'"),
        ("ending", "it ended with status 1: no such library"),
        ("babbling", "it said b'[1]'; expected a JSON object"),
    ):
        assert (rows[name]["status"], rows[name]["seconds"]) == ("failed", None)
        assert part in rows[name]["detail"]
        assert f"{name}: failed: " in ran.stdout


def test_a_call_over_the_limit_has_no_figure_and_its_processes_are_gone(tmp_path: Path) -> None:
    child = tmp_path / "child"
    slow = f"""
import pathlib, subprocess, sys
print('peer: {{"ready": true}}', flush=True)
input()
started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
pathlib.Path({str(child)!r}).write_text(str(started.pid))
started.wait()
"""
    ran = bench("--repeats", "2", "--limit", "3", *script(tmp_path, "slow", slow))
    rows = rows_of(ran)
    assert rows["siguard"]["status"] == "ok"
    assert rows["slow"] | {"detail": ""} == rows["slow"] | {
        "status": "over the limit",
        "detail": "",
        "seconds": None,
        "ratio": None,
    }
    assert rows["slow"]["detail"] == "call took longer than 3 s"
    for _ in range(100):
        if is_gone(int(child.read_text())):
            return
        time.sleep(0.05)
    pytest.fail("the slow program's child is still there")


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have collected it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def test_peers_that_are_not_here_are_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    options = ["--repeats", "1", "--environments", str(tmp_path / "none")]
    rows = rows_of(bench(*options))
    assert {name: row["status"] for name, row in rows.items()} == {
        "siguard": "ok",
        "spu": "missing",
        "mpyc": "missing",
        "mp-spdz": "missing",
    }
    assert "--install" in rows["spu"]["detail"]
    assert "spu==" in rows["spu"]["detail"]
    assert "--mp-spdz HOME" in rows["mp-spdz"]["detail"]
    assert not (tmp_path / "none").exists()
    # An interpreter that is none: as where a platform has no wheels.
    failed = rows_of(bench(*options, "--peer", "mpyc", "--install", "--python", str(tmp_path / "no-python")))
    assert failed["mpyc"]["status"] == "missing"
    assert "venv with" in failed["mpyc"]["detail"]
    there = rows_of(bench(*options, "--peer", "mp-spdz", "--mp-spdz", str(tmp_path / "home")))
    assert "no compile.py in" in there["mp-spdz"]["detail"]


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--peer", "spdz"], "unknown peer 'spdz'"),
        (["--program", "x"], "NAME=PATH"),
        (["--program", "siguard=x.py"], "NAME=PATH"),
        (["--program", "x=/no/such/file.py"], "no file"),
        (["--batch", "0"], "--batch"),
        (["--policy", "sigard"], "unknown policy 'sigard'"),
    ],
)
def test_bad_options_are_named(options: list[str], part: str) -> None:
    ran = bench(*options)
    assert ran.returncode != 0
    assert part in " ".join(ran.stderr.replace("│", " ").split())
    assert "Traceback" not in ran.stderr
