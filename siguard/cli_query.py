"""`siguard query`: rows of features in, guarded confidences out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from siguard.cli_common import one_message, replacing
from siguard.cli_result import as_json, in_words
from siguard.cli_shared import DEFAULT_CONFIG, Config, Key, deployment_at, guard_from, run_to_end
from siguard.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from siguard.deploy.file import DeploymentFile


def query(
    features: Annotated[Path, typer.Argument(help="Rows of features: .npy, or .csv with numbers only.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the confidences go: .npy or .csv.", show_default="stdout, as CSV")
    ] = None,
    policy: Annotated[str | None, typer.Option(help="A signed guard; needed if several are signed.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The owner's label of the model, or its name; needed if there are several.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Which user to be; needed if several.")
    ] = None,
    rounds: Annotated[
        str | None,
        typer.Option(
            help="How it is computed: auto (fastest for the network), few (rounds) or bytes.", show_default="auto"
        ),
    ] = None,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With --rounds few: bytes that the guard may take on all links.", show_default="any"
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print figures as JSON, with the confidences unless they go to --out.")
    ] = False,
    config: Config = DEFAULT_CONFIG,
    key: Key = None,
) -> None:
    """Share rows of features with the servers; the guarded confidences come back, one row for each."""
    with one_message("stopped before an answer came"):
        deployment = deployment_at(config)
        name = _only_user(deployment) if user is None else user
        identity = deployment.identity(name, key)
        rows = _read_rows(features)
        wanted = policy if policy is None or ":" not in policy else guard_from(policy)
        execution = _execution(rounds, max_bytes)

        async def ask() -> None:
            from siguard.deploy.user import connect

            async with connect(deployment, identity) as connected:
                service = await connected.service(wanted, model)
                # What was signed does not say how it is computed.
                result = await connected.query(rows, service.config.with_values(**execution), service=service)
            if out is not None or not json:
                _write_rows(result.confidences, out)
            if json:
                typer.echo(as_json(result, with_confidences=out is None))
            typer.echo(in_words(result), err=True)

        with _options_named():
            run_to_end(ask)


def _only_user(deployment: DeploymentFile) -> str:
    if len(deployment.users) > 1:
        raise InputError(f"{deployment.file} has several users ({', '.join(deployment.users)}); say --as NAME")
    return next(iter(deployment.users))


# How a query is computed ----------------------------------------------------------------------------------------


def _execution(rounds: str | None, max_bytes: int | None) -> dict[str, Any]:
    """The fields of a configuration that say how it is computed, checked before anybody is asked."""
    from siguard.guard.config import GuardConfig

    given: dict[str, Any] = {"rounds": rounds, "max_bytes": max_bytes}
    execution = {name: value for name, value in given.items() if value is not None}
    with _options_named():
        GuardConfig("none", **execution)
    return execution


@contextmanager
def _options_named() -> Iterator[None]:
    """What is wrong with a field of a configuration is told of the option that set it."""
    try:
        yield
    except InputError as error:
        for field, option in (("rounds", "--rounds"), ("max_bytes", "--max-bytes")):
            if error.message.startswith(f"{field}:"):
                raise InputError(option + error.message[len(field) :]) from None
        raise


# Files -------------------------------------------------------------------------------------------------------


def _read_rows(file: Path) -> npt.NDArray[Any]:
    import numpy as np

    try:
        if file.suffix == ".npy":
            with file.open("rb") as stream:
                rows = np.load(stream, allow_pickle=False)
        else:
            with file.open(encoding="utf-8") as stream, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file without content: it gets an error below
                rows = np.loadtxt(stream, delimiter=",", ndmin=2)
        if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "iufb" or rows.size == 0:
            raise ValueError
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror or 'not an .npy file'})") from None
    except (ValueError, EOFError):
        raise InputError(f"{file}: not rows of numbers; expected .npy, or CSV without a heading") from None
    return np.atleast_2d(rows)


def _write_rows(rows: npt.NDArray[Any], out: Path | None) -> None:
    import numpy as np

    if out is None:
        np.savetxt(sys.stdout, rows, fmt="%.6f", delimiter=",")
        return
    try:
        with replacing(out) as draft:
            if out.suffix == ".npy":
                with draft.open("wb") as stream:
                    np.save(stream, rows, allow_pickle=False)
            else:
                np.savetxt(draft, rows, fmt="%.9g", delimiter=",")
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
