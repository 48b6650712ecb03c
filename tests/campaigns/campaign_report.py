"""What a campaign finds: a JSON line at once, a table and an exit status in the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


class Report:
    """Findings in the order in which they were made.  ``failures`` are those where something did not hold."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.findings = 0

    def line(self, **values: Any) -> None:
        """A JSON line that is no finding: settings, samples."""
        sys.stdout.write(json.dumps(values, default=str) + "\n")
        sys.stdout.flush()

    def found(self, what: str, wrong: Sequence[str], **values: Any) -> None:
        """One finding; ``wrong`` says what did not hold, empty when all did."""
        self.findings += 1
        self.failures += [f"{what}: {text}" for text in wrong]
        self.line(found=what, ok=not wrong, wrong=list(wrong), **values)

    def end(self, title: str, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
        """Print the table and what did not hold; the exit status of the campaign."""
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in rows:
            table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
        console = Console()
        console.print()
        console.print(table)
        for failure in self.failures:
            console.print(f"FAIL {failure}", markup=False, highlight=False)
        if not self.findings:
            console.print("FAIL nothing was examined")
        else:
            console.print(f"{self.findings} findings, {len(self.failures)} did not hold")
        return 1 if self.failures or not self.findings else 0


def quantile(values: Sequence[float], part: float) -> float:
    """The nearest-rank quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
