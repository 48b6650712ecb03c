"""Plots of what the other scripts wrote: seconds against round-trip time, against batch, and growth.

    python bench/plots.py FILE.jsonl [FILE.jsonl ...] [--to FOLDER]

Takes the JSON lines of ``--out`` of bench/run.py, bench/networks.py and bench/growth.py.  Draws a PNG for each kind
of row that it finds, lines by policy and mode; names the files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

#: One style for each mode, one colour for each policy.
_STYLES = {"auto": "-", "few": "--", "bytes": ":"}


@dataclass(frozen=True)
class Plot:
    """One figure: which rows it takes, what stands on its axes; x and y are keys of a row."""

    name: str
    row: str
    where: dict[str, Any]
    x: str
    y: str
    title: str
    x_label: str
    y_label: str = "seconds"


PLOTS = (
    Plot(
        "rtt",
        "Network",
        {"network": "rtt"},
        "rtt_milliseconds",
        "measured_seconds",
        "one call against the round-trip time, virtual seconds",
        "round-trip time, ms",
    ),
    Plot("batch", "Policy", {}, "batch", "seconds", "one call in memory against its rows", "rows"),
    Plot(
        "classes",
        "Growth",
        {"along": "classes"},
        "classes",
        "seconds",
        "one call in memory against the classes",
        "classes",
    ),
)


def read_rows(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """All rows; ValueError naming file and line where there is none."""
    for file in files:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict) or "row" not in row:
                raise ValueError(f"{file}, line {number}: not a row of a benchmark; --out writes them")
            yield row


def lines_of(plot: Plot, rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Points by (policy, mode), in the order of x; rows without a figure are left out."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        wanted = {"row": plot.row} | plot.where
        if all(row.get(key) == value for key, value in wanted.items()) and row[plot.y] is not None:
            lines[row["policy"], row["mode"]].append((row[plot.x], row[plot.y]))
    return {key: sorted(points) for key, points in lines.items()}


def draw(plot: Plot, lines: dict[tuple[str, str], list[tuple[float, float]]], file: Path) -> None:
    """Write one figure, both axes logarithmic."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    policies = list(dict.fromkeys(policy for policy, _ in lines))
    for (policy, mode), points in lines.items():
        colour = f"C{policies.index(policy)}"
        x, y = zip(*points, strict=True)
        axes.plot(x, y, _STYLES.get(mode, "-."), color=colour, marker="o", label=f"{policy}, {mode}")
    axes.set(xscale="log", yscale="log", xlabel=plot.x_label, ylabel=plot.y_label, title=plot.title)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and draw."""
    parser = argparse.ArgumentParser(description="Plots of benchmarks.")
    parser.add_argument("files", type=Path, nargs="+", help="JSON lines of --out")
    parser.add_argument("--to", type=Path, default=Path("runs/bench"), help="the folder for the plots")
    options = parser.parse_args(arguments)
    mpl.use("Agg")
    try:
        rows = list(read_rows(options.files))
    except (OSError, ValueError) as error:
        sys.exit(f"plots: {error}")
    drawn = 0
    for plot in PLOTS:
        lines = lines_of(plot, rows)
        if lines:
            file = options.to / f"{plot.name}.png"
            draw(plot, lines, file)
            print(file)
            drawn += 1
    if not drawn:
        sys.exit("plots: no rows to draw; bench/run.py, networks.py and growth.py write them with --out")


if __name__ == "__main__":
    main()
