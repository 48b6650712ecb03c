"""What every peer program shares: its input and output files, and the loop that answers `peer_process.py`.

Imports nothing but numpy, so that it runs under any peer's interpreter.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Layers = list[tuple[FloatArray, FloatArray]]

PREFIX = "peer: "

# The guards' public parameters.  A change in siguard's shows, as answers are compared with the float64 guard.
POLICIES = ("siguard", "decay", "linesearch")
C1, C2, C3 = 1.0, 10.0, 0.1
OUTER, INNER, RATE = 3, 10, 0.8
RATE_GROWTH, C3_GROWTH = 1.1, 10.0
DECAY_RATES = [2.5 * 0.6**step for step in range(6)]
DECAY_TOLERANCE = 2.0**-9
CANDIDATES = [0.3 + 0.68 * k / 7 for k in range(8)]
MARGIN = 1.02


def read_input(path: str, policy: str) -> tuple[FloatArray, Layers]:
    """The logits (batch, classes), relative to the largest of each row, and the layers [(W, b), ...] of h.

    Ends the program for a policy that the peer programs do not have.
    """
    if policy not in POLICIES:
        raise SystemExit(
            f"peer program: policy {policy!r} is not written for peers; there are {', '.join(POLICIES)}"
        )
    with np.load(path, allow_pickle=False) as stored:
        count = sum(name.startswith("W") for name in stored.files)
        logits = stored["logits"]
        return logits - logits.max(axis=1, keepdims=True), [
            (stored[f"W{index}"], stored[f"b{index}"]) for index in range(count)
        ]


def write_answer(path: str, confidences: npt.ArrayLike) -> None:
    """Confidences (batch, classes), replaced as a whole: a reader never sees half a file."""
    unfinished = Path(path).with_suffix(".part.npz")
    np.savez(unfinished, confidences=np.asarray(confidences, dtype=np.float64))
    unfinished.replace(path)


def say(message: Mapping[str, Any]) -> None:
    """One line for the driver."""
    print(PREFIX + json.dumps(message), flush=True)


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody uses at the moment."""
    for base in range(20_000, 60_000, 97):
        held = []
        try:
            for port in range(base, base + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for each in held:
                each.close()
        return base
    raise SystemExit(f"peer program: no {count} free ports in a row on this machine")


def pairs(count: int) -> tuple[list[tuple[int, int]], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """How the largest of ``count`` numbers is found with all comparisons in one call.

    Returns the pairs (i, j), i < j, to compare with x_i >= x_j; and ``tally``, ``offset`` such that
    ``bits @ tally + offset`` counts each number's wins.  The largest, lowest index first, has count - 1.
    """
    compared = [(i, j) for i in range(count) for j in range(i + 1, count)]
    tally = np.zeros((len(compared), count), dtype=np.int32)
    offset = np.zeros(count, dtype=np.int32)
    for row, (i, j) in enumerate(compared):
        tally[row, i], tally[row, j] = 1, -1
        offset[j] += 1
    return compared, tally, offset


def serve(answer_path: str, call: Callable[[], tuple[FloatArray, Mapping[str, Any]]]) -> None:
    """Say that the program is ready, then run ``call`` for each line ``call`` on standard input, until its end.

    call: returns the confidences, and ``seconds`` with ``bytes_total``, ``rounds`` where the framework counts them.
    """
    say({"ready": True})
    for line in sys.stdin:
        if line.strip() != "call":
            raise SystemExit(f"peer program: found the command {line.strip()!r}; expected 'call'")
        confidences, figures = call()
        write_answer(answer_path, confidences)
        say(figures)
