"""What bench/peers.py takes for the same function, and how peer programs find the largest and read MP-SPDZ."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1] / "bench"

SAME_FUNCTION = """
import numpy as np
from peer_process import Call
from peer_rows import agreement, truth
import siguard

for batch in (1, 40):
    rows = truth("siguard", batch, 3)
    def judged(confidences):
        return agreement(rows, [Call(rows.confidences, 1.0), Call(confidences, 1.0)])
    def guarded(**changes):
        config = siguard.GuardConfig("siguard", **changes)
        return siguard.reference.guard(rows.logits, rows.defender, config).confidences
    assert rows.changed.mean() > 0.5
    assert judged(guarded()).right
    assert judged(guarded() + 0.015).right
    undefended = agreement(rows, [Call(siguard.reference.softmax(rows.logits), 1.0)])
    assert not undefended.right
    assert undefended.within < 0.5
    for changes in (dict(inner=9), dict(c3=0.0), dict(learning_rate=0.7)):
        assert not agreement(rows, [Call(guarded(**changes), 1.0)]).right, changes
    other_label = guarded()[:, ::-1]
    assert not judged(other_label).right
    assert not judged(np.full_like(other_label, np.nan)).right
again = truth("siguard", 40, 3)
assert (again.logits == rows.logits).all() and (again.confidences == rows.confidences).all()
"""

PROGRAMS = """
import numpy as np
from serving import free_ports, pairs
from mp_spdz_guard import parsed

rng = np.random.default_rng(5)
for count in (2, 3, 10):
    compared, tally, offset = pairs(count)
    x = rng.integers(0, 4, (200, count))  # with ties
    bits = np.stack([x[:, i] >= x[:, j] for i, j in compared], axis=1).astype(int)
    wins = bits @ tally + offset
    assert ((wins == count - 1).sum(axis=1) == 1).all()
    assert (wins.argmax(axis=1) == x.argmax(axis=1)).all()
assert 20_000 <= free_ports(3) < 60_000

printed = '''Using security parameter 40
confidences 0: [0.25, 0.5]
confidences 1: [0.75, 5e-1]
The following benchmarks are including preprocessing (offline phase).
Time = 0.9 seconds
Time1 = 0.76 seconds (0.7 MB, 3593 rounds)
Data sent = 0.9 MB in ~3700 rounds (party 0 only)
Global data sent = 2.1 MB (all parties)
'''
answer, figures = parsed(printed, 2)
assert answer.tolist() == [[0.25, 0.75], [0.5, 0.5]]
assert figures == {"seconds": 0.76, "rounds": 3593, "bytes_total": 2_100_000}
older = printed.replace(" (0.7 MB, 3593 rounds)", " (0.7 MB)").replace("Global", "Local")
assert parsed(older, 2)[1] == {"seconds": 0.76}
for broken in (printed.replace("Time1", "Time2"), printed.replace(", 0.5]", "]")):
    try:
        parsed(broken, 2)
    except SystemExit as error:
        assert "no answer for 2 rows" in str(error)
    else:
        raise AssertionError(broken)
"""


def run_in(folder: Path, code: str) -> None:
    """Scripts import what lies beside them, so they run where they are."""
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_the_float64_guard_agrees_and_its_neighbours_do_not() -> None:
    run_in(BENCH, SAME_FUNCTION)


def test_largest_by_pairs_and_what_mp_spdz_prints() -> None:
    run_in(BENCH / "peer_programs", PROGRAMS)


def test_the_mp_spdz_program_is_python() -> None:
    path = BENCH / "peer_programs" / "siguard_guard.mpc"
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
