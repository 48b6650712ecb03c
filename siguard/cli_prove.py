"""`siguard prove`, and scenarios with ``[prove]``: test every claim, run every control, print, write."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siguard.cli_common import NOT_PROVED, check_writable, one_message, replacing, shown_progress
from siguard.errors import InputError

if TYPE_CHECKING:
    from siguard.proofsim.claims import Corrupted, ProofReport, Scope
    from siguard.scenario.proof import ProofScenario

_EXTRA = ("scipy", "statsmodels", "sklearn", "jinja2")
_STOPPED = "stopped before every claim was tested; no report was written"


def prove(
    policy: Annotated[
        list[str] | None, typer.Option(metavar="P", help="A policy to prove; repeatable.", show_default="all")
    ] = None,
    corrupt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET",
            help="Who is corrupted: S0,U (a server and the user), S0 or U; repeatable.",
            show_default="each that the threat model allows",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full/--quick", help="The whole campaign, or at most two minutes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Fixes every draw.")] = 1,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as one HTML page.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every claim, not one line for those of a family that hold.")
    ] = False,
) -> None:
    """Test the security claim: what a corrupted server and the user see can be simulated without secrets.

    Exit status 0 only if every claim holds and every control, a deliberate leak, is caught by the expected rung.
    """
    from siguard.proofsim.claims import Scope

    with one_message(_STOPPED):
        scope = Scope(_policies(policy or ()), _corrupted_sets(corrupt or ()), full, seed)
        if html is not None:
            check_writable("--html", html, html)
        _run(scope, page=html, json=json, every=every)


def prove_scenario(scenario: ProofScenario, folder: Path, *, json: bool) -> None:
    """The proof of a scenario file, with ``report.json`` and what else it asks for in ``folder``."""
    with one_message(_STOPPED):
        report, page = folder / "report.json", folder / "report.html" if scenario.html else None
        for file in (report, page):
            if file is not None:
                check_writable("--out", folder, file)
        _run(scenario.scope, report_file=report, page=page, json=json)


def _policies(names: Sequence[str]) -> tuple[str, ...]:
    from siguard.explain import unknown
    from siguard.guard.config import POLICIES

    for name in names:
        if name not in POLICIES:
            raise InputError(f"--policy: found {name!r}: {unknown(name, POLICIES, 'policy')}")
    return tuple(dict.fromkeys(names)) or tuple(POLICIES)


def _corrupted_sets(texts: Sequence[str]) -> tuple[Corrupted, ...]:
    from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted

    try:
        sets = [Corrupted.parse(text) for text in texts]
    except InputError as error:
        raise InputError(f"--{error.message}") from None
    return tuple(dict.fromkeys(sets)) or CORRUPTED_SETS


def _run(
    scope: Scope, *, report_file: Path | None = None, page: Path | None = None, json: bool, every: bool = False
) -> None:
    _check_extra()
    from siguard.errors import without_groups
    from siguard.proofsim.prove import prove as prove_all
    from siguard.scenario.stopping import ctrl_c_is_not_swallowed

    # prove() names a rung or a control and says which one it is of how many: a bar for rungs, one for controls.
    with (
        shown_progress(lambda stage: stage.partition(": ")[0]) as progress,
        ctrl_c_is_not_swallowed(),
        without_groups(),
    ):
        report = prove_all(scope, progress)
    if report_file is not None:
        with replacing(report_file) as draft:
            draft.write_text(report.to_json(), encoding="utf-8")
        typer.echo(f"wrote {report_file}", err=True)
    _print(report, json=json, every=every)
    if page is not None:
        _write_page(report, page)
    if not report.holds:
        raise typer.Exit(NOT_PROVED)


def _check_extra() -> None:
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise InputError(f"proofs need what is not installed ({', '.join(missing)}): pip install 'siguard[proofs]'")


def _print(report: ProofReport, *, json: bool, every: bool) -> None:
    """The result on stdout; what does not hold also on stderr, whatever the form of the result."""
    from siguard.proofsim.table import closing, complaints, tables

    if json:
        typer.echo(report.to_json(), nl=False)
    else:
        from rich.console import Console

        console = Console()
        for table in tables(report, every=every):
            console.print(table)
            console.print()
        console.print(closing(report), markup=False, highlight=False)
    for line in complaints(report):
        typer.echo(f"siguard: {line}", err=True)


def _write_page(report: ProofReport, page: Path) -> None:
    from siguard.errors import without_groups
    from siguard.proofsim.exhibits import exhibits
    from siguard.proofsim.page import write_page

    with shown_progress() as progress, without_groups():
        progress("recording views to show", 0, 1)
        shown = exhibits(report.scope)
    with replacing(page) as draft:
        write_page(report, shown, draft)
    typer.echo(f"wrote {page}", err=True)
