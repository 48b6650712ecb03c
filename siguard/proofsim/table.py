"""A proof report for a terminal: claims, a line for each family of them, and the controls with their catcher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from siguard.proofsim.claims import ALL, CORRUPTED_SETS, Claim, ProofReport, failures

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_SETS = (ALL, *map(str, CORRUPTED_SETS))


class Line(NamedTuple):
    """One line of the table: a claim, or those of one rung and family that hold.

    cases: of all of them.  detectable: the largest, so that each of them would have seen that effect.
    """

    claim: str
    rung: str
    corrupted: str
    cases: int
    holds: bool
    detectable: float
    problem: str = ""


def family(claim: str) -> str:
    """The text before the first ``": "``: what a claim is about, without the instance."""
    return claim.partition(": ")[0]


def lines(claims: Iterable[Claim], *, every: bool = False) -> list[Line]:
    """What holds, together by rung and family; what fails, each on its own, like everything with ``every``."""
    groups: dict[tuple[str, str, int | None], list[Claim]] = {}
    for number, claim in enumerate(claims):
        alone = number if every or not claim.holds else None
        groups.setdefault((claim.rung, family(claim.claim), alone), []).append(claim)
    return [_line(group) for group in groups.values()]


def _line(group: Sequence[Claim]) -> Line:
    first = group[0]
    # One claim against several sets keeps its whole text.
    texts = list(dict.fromkeys(claim.claim for claim in group))
    return Line(
        claim=texts[0] if len(texts) == 1 else f"{family(first.claim)} ({len(texts)} instances)",
        rung=first.rung,
        corrupted=" ".join(sorted({claim.corrupted for claim in group}, key=_place)),
        cases=sum(claim.cases for claim in group),
        holds=first.holds,
        detectable=max(claim.detectable for claim in group),
        problem=first.problem,
    )


def _place(corrupted: str) -> int:
    return _SETS.index(corrupted) if corrupted in _SETS else len(_SETS)


def tables(report: ProofReport, *, every: bool = False) -> list[Table]:
    """The claims, and the controls if there are any; ``every`` leaves nothing out."""
    shown = [_claim_table(report, every), _control_table(report, every)]
    return [table for table in shown if table.row_count]


def closing(report: ProofReport) -> str:
    """What was found, how long it took, and against whom."""
    claims, controls = len(report.claims), len(report.controls)
    missed = sum(not control.caught for control in report.controls)
    found = (
        f"All {claims} claims hold and all {controls} controls are caught"
        if report.holds
        else f"Not proved: of {claims} claims {len(failures(report.claims))} do not hold, "
        f"of {controls} controls {missed} were missed"
    )
    return (
        f"{found} ({report.seconds:.0f} s). Threat model: semi-honest and static; "
        "at most one server, together with the user."
    )


def complaints(report: ProofReport) -> list[str]:
    """Why the report does not hold, one line for each reason; none where it does."""
    failed = [
        f"does not hold ({claim.rung}, {claim.corrupted}): {claim.claim}{_after(claim.problem)}"
        for claim in failures(report.claims)
    ]
    missed = [
        f"control missed: {control.control}: expected to be caught by {control.expected_rung}, "
        f"caught by {control.caught_by or 'no rung'}{_after(control.finding)}"
        for control in report.controls
        if not control.caught
    ]
    return [*([] if report.claims else ["no claim was tested"]), *failed, *missed]


def _after(text: str) -> str:
    return f": {text}" if text else ""


def _claim_table(report: ProofReport, every: bool) -> Table:
    scope = report.scope
    table = _empty_table(
        f"{'full' if scope.full else 'quick'} proof, seed {scope.seed}: policies {', '.join(scope.policies)}",
        "claim",
    )
    table.add_column("rung", no_wrap=True)
    table.add_column("corrupted", max_width=14)
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("smallest\neffect", justify="right", no_wrap=True)
    rung = None
    for line in lines(report.claims, every=every):
        if rung not in (None, line.rung):
            table.add_section()
        rung = line.rung
        table.add_row(
            _with_reason(line.claim, line.problem),
            line.rung,
            line.corrupted,
            f"{line.cases:,}",
            _verdict("holds" if line.holds else "fails", line.holds),
            f"{line.detectable:.3g}" if line.detectable else "exact",
        )
    return table


def _control_table(report: ProofReport, every: bool) -> Table:
    table = _empty_table("controls: the shipped code, broken on purpose", "control")
    table.add_column("expected", no_wrap=True)
    table.add_column("caught by", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for control in report.controls:
        table.add_row(
            _with_reason(control.control, control.finding if every or not control.caught else ""),
            control.expected_rung,
            control.caught_by or "no rung",
            _verdict("caught" if control.caught else "missed", control.caught),
        )
    return table


def _verdict(text: str, good: bool) -> Text:
    from rich.text import Text

    return Text(text, style="green" if good else "bold red")


def _with_reason(text: str, reason: str) -> Text:
    from rich.text import Text

    # Text objects: a bracket in a claim must not be read as a style.
    return Text(f"{text}\n  {reason}" if reason else text)


def _empty_table(title: str, first: str) -> Table:
    """A table whose first column wraps: what is left of 80 columns is narrow for a sentence."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    return table
