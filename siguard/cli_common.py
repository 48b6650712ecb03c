"""What the commands share: exit statuses, one message for what went wrong, checks before the work, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from siguard.errors import InputError, SiguardError

if TYPE_CHECKING:
    from siguard.scenario.progress import Progress

NOT_PROVED = 1
BAD_INPUT = 2
INTERRUPTED = 130


@contextmanager
def one_message(stopped: str) -> Iterator[None]:
    """End the command with one message on stderr where it cannot go on; ``stopped`` is the one for Ctrl-C."""
    try:
        yield
    except SiguardError as error:
        typer.echo(f"siguard: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except KeyboardInterrupt:
        typer.echo(f"siguard: {stopped}", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A draft beside ``file`` that takes its place at the end: a reader never finds half a file."""
    draft = file.with_name(f"{file.name}.tmp")
    try:
        yield draft
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(option: str, asked: Path, file: Path) -> None:
    """Before hours of work, not after them: ``file`` is what ``option`` with the value ``asked`` will write."""
    try:
        if file.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f"{file.name}.tmp")
        draft.write_text("", encoding="utf-8")
        draft.unlink()
    except OSError as error:
        raise InputError(f"{option} {asked}: cannot be written ({error.strerror})") from None


def _itself(stage: str) -> str:
    return stage


@contextmanager
def shown_progress(group: Callable[[str], str] = _itself) -> Iterator[Progress]:
    """A bar on a terminal; otherwise one plain line for each stage, so that a log file stays readable.

    group: stages of the same group are parts of one bar, which names the one that is being done.
    """
    if not sys.stderr.isatty():
        begun = set()

        def line(stage: str, done: int, total: int) -> None:
            if stage not in begun:
                begun.add(stage)
                typer.echo(f"{stage} ...", err=True)

        yield line
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def bar(stage: str, done: int, total: int) -> None:
            name = group(stage)
            if name not in tasks:
                tasks[name] = bars.add_task(escape(stage), total=total)
            bars.update(tasks[name], completed=done, description=escape(stage))

        yield bar
