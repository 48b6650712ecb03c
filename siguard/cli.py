"""The command line: parse, call, print.  The only place that sets up logging or ends the process.

Exit status: 0 done; 2 bad input or a failed protocol (one clear message on stderr); 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

if TYPE_CHECKING:
    from siguard.scenario.progress import Progress
    from siguard.scenario.report import Report

BAD_INPUT = 2
INTERRUPTED = 130

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
    """Run a scenario: load data, train, share, infer, guard, attack before and after, and report."""
    from siguard.errors import SiguardError
    from siguard.scenario.load import load_scenario
    from siguard.scenario.overrides import parse_overrides
    from siguard.scenario.runner import ScenarioRun

    folder = Path("runs") / scenario.stem if out is None else out
    try:
        job = ScenarioRun(load_scenario(scenario, parse_overrides(overrides or ())))
        _check_writable(folder)
        with _shown_progress() as progress:
            try:
                report = job.execute(progress)
            except KeyboardInterrupt:
                report = job.interrupted()
        written = report.write(folder)
    except SiguardError as error:
        typer.echo(f"siguard: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        typer.echo("siguard: stopped before anything was measured; no report was written", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print(report, written, json)
    if report.partial:
        raise typer.Exit(INTERRUPTED)


def _check_writable(folder: Path) -> None:
    """Before hours of work, not after them."""
    from siguard.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json.tmp").write_text("", encoding="utf-8")
        (folder / "report.json.tmp").unlink()
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from None


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


@contextmanager
def _shown_progress() -> Iterator[Progress]:
    """A bar on a terminal; otherwise one plain line for each stage, so that a log file stays readable."""
    if not sys.stderr.isatty():

        def line(stage: str, done: int, total: int) -> None:
            if done == 0:
                typer.echo(f"{stage} ...", err=True)

        yield line
        return

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield bar
