"""The command line: parse, call, print.  The only place that sets up logging or ends the process.

cli_prove.py has `siguard prove`, cli_deploy.py `siguard keygen`, cli_party.py and cli_query.py the commands of a
deployment that runs; cli_common.py and cli_shared.py have what they share, cli_result.py what a query says.

Exit status: 0 done; 1 a proof does not hold; 2 bad input or a failed protocol (one clear message on stderr);
130 stopped with Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from siguard.cli_common import INTERRUPTED, check_writable, one_message, shown_progress
from siguard.cli_deploy import keygen
from siguard.cli_party import doctor, party, share_model
from siguard.cli_prove import prove, prove_scenario
from siguard.cli_query import query

if TYPE_CHECKING:
    from siguard.scenario.report import Report

# Local variables in a traceback may be shares or keys: the plain traceback of Python shows none.
app = typer.Typer(
    help="Guarded secure inference: three servers perturb a model's confidences inside MPC, "
    "and only the user sees them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the ``siguard`` command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"siguard {version('siguard')}")
        raise typer.Exit


@app.callback()
def _setup(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the parties' events on stderr.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@app.command()
def run(
    scenario: Annotated[Path, typer.Argument(help="A scenario file in TOML, see docs/scenarios.md.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.json.", show_default="runs/<name of the scenario file>"),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, for example guard.inner=5; repeatable."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
) -> None:
    """Run a scenario: train, share, infer, guard, attack before and after; or, with [prove], prove."""
    from siguard.scenario.overrides import parse_overrides
    from siguard.scenario.proof import ProofScenario, load_any
    from siguard.scenario.runner import ScenarioRun

    folder = Path("runs") / scenario.stem if out is None else out
    with one_message("stopped before anything was measured; no report was written"):
        loaded = load_any(scenario, parse_overrides(overrides or ()))
        if isinstance(loaded, ProofScenario):
            prove_scenario(loaded, folder, json=json)
            return
        job = ScenarioRun(loaded)
        check_writable("--out", folder, folder / "report.json")
        with shown_progress() as progress:
            try:
                report = job.execute(progress)
            except KeyboardInterrupt:
                report = job.interrupted()
        written = report.write(folder)
    _print(report, written, json)
    if report.partial:
        raise typer.Exit(INTERRUPTED)


app.command()(prove)
app.command()(keygen)
app.command()(party)
app.command()(share_model)
app.command()(query)
app.command()(doctor)


def _print(report: Report, written: Path, json: bool) -> None:
    """The result on stdout; what has to be known about it on stderr."""
    if json:
        typer.echo(report.to_json(), nl=False)
    else:
        from rich.console import Console

        console = Console()
        for table in report.tables():
            console.print(table)
            console.print()
    for warning in report.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if report.partial:
        typer.echo(f"partial report: {report.reason}", err=True)
    typer.echo(f"wrote {written}", err=True)
