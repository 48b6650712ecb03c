"""The guard on MP-SPDZ: compiles siguard_guard.mpc in an existing MP-SPDZ home and runs its three parties.

    python mp_spdz_guard.py INPUT.npz OUTPUT.npz POLICY MP_SPDZ_HOME

Speaks with `peers.py` as told in `peer_process.py`.  Needs the home's compile.py and replicated-ring-party.x.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from serving import FloatArray, Layers, read_input, serve

SOURCE = Path(__file__).with_name("siguard_guard.mpc")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


def compiled(home: Path, policy: str, logits: FloatArray, layers: Layers) -> str:
    """Compile for these shapes; returns the program's name."""
    if len(layers) != 3:
        raise SystemExit(f"peer program: h has {len(layers)} layers; the MP-SPDZ program is written for 3")
    shutil.copy(SOURCE, home / "Programs" / "Source" / SOURCE.name)
    shapes = [policy, *map(str, (*logits.shape, layers[0][0].shape[1], layers[1][0].shape[1]))]
    run([sys.executable, "./compile.py", "-R", "64", SOURCE.stem, *shapes], home)
    return "-".join([SOURCE.stem, *shapes])


def write_inputs(prefix: Path, logits: FloatArray, layers: Layers) -> None:
    """What party 0 enters, in the order of the program: weights transposed, then the logits, class by class."""
    values = [part.ravel() for W, b in layers for part in (W.T, b)] + [logits.T.ravel()]
    text = " ".join(f"{value:.12f}" for value in np.concatenate(values))
    prefix.with_name(prefix.name + "-P0-0").write_text(text + "\n", encoding="ascii")


def run(command: list[str], home: Path) -> str:
    """What a command prints, or an end with its last lines."""
    ran = subprocess.run(  # noqa: S603 - the user named this home
        command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ran.returncode:
        last = " | ".join(ran.stdout.strip().splitlines()[-3:])
        raise SystemExit(f"peer program: {' '.join(command[:2])} ended with status {ran.returncode}: {last}")
    return ran.stdout


def parsed(printed: str, batch: int) -> tuple[FloatArray, dict[str, Any]]:
    """Confidences (batch, classes) and figures, from what party 0 prints."""
    lines = re.findall(r"^confidences (\d+): (.*)$", printed, re.MULTILINE)
    columns = [[float(number) for number in re.findall(_NUMBER, values)] for _, values in lines]
    timed = re.search(
        rf"^Time1 = ({_NUMBER}) seconds(?: \({_NUMBER} MB(?:, (\d+) rounds)?\))?", printed, re.MULTILINE
    )
    sent = re.search(rf"^Global data sent = ({_NUMBER}) MB", printed, re.MULTILINE)
    if timed is None or not columns or any(len(column) != batch for column in columns):
        raise SystemExit(f"peer program: no answer for {batch} rows in what MP-SPDZ printed: {printed[-300:]!r}")
    figures: dict[str, Any] = {"seconds": float(timed[1])}
    if timed[2]:
        figures["rounds"] = int(timed[2])
    if sent:
        figures["bytes_total"] = round(float(sent[1]) * 1e6)
    return np.array(columns).T, figures


def main(input_path: str, answer_path: str, policy: str, home_path: str) -> None:
    """Compile once, then run the three parties for each call."""
    home = Path(home_path)
    logits, layers = read_input(input_path, policy)
    prefix = Path(input_path).resolve().with_name("mp-spdz-input")
    write_inputs(prefix, logits, layers)
    name = compiled(home, policy, logits, layers)
    serve(
        answer_path,
        lambda: parsed(run(["Scripts/ring.sh", name, "-IF", str(prefix)], home), len(logits)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:5])
