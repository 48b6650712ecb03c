"""The commands of a deployment that runs: `siguard party`, `share-model`, `query` and `doctor`."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from siguard.cli_common import BAD_INPUT, one_message, replacing
from siguard.errors import InputError, without_groups

if TYPE_CHECKING:
    import numpy.typing as npt

    from siguard.deploy.file import DeploymentFile
    from siguard.guard.config import GuardConfig

Config = Annotated[Path, typer.Option(help="The deployment file, the same on every host.")]
Key = Annotated[
    Path | None, typer.Option(help="The key file.", show_default="keys/NAME.key beside the deployment file")
]
_DEFAULT_CONFIG = Path("deployment.toml")
#: A server that has ended its last session is linked this much longer: the others are a step behind, and a client
#: asks what the session has cost.
_PARTING_SECONDS = 0.5


def party(
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Which server to be: S0, S1 or S2.")],
    config: Config = _DEFAULT_CONFIG,
    key: Key = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder where the server keeps its shares, as secret as its key; in memory only without."
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File for the log.", show_default="stderr")] = None,
    level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    drain: Annotated[float, typer.Option(min=0, help="Seconds that sessions may still take after SIGTERM.")] = 30.0,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where to listen, if not at the address by which the others reach it: 0.0.0.0:7100 behind a NAT.",
            show_default="its address in the deployment file",
        ),
    ] = None,
    listen_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run one of the three servers until SIGTERM or Ctrl-C, which let sessions end; a second one stops at once."""
    from siguard.deploy.logs import configure_logs

    with one_message("stopped"):
        deployment = _load(config)
        identity = deployment.identity(name, key)
        configure_logs(log or sys.stderr, level)

        async def serve() -> None:
            from siguard.deploy.party import listen_at, open_party
            from siguard.transport.dial import listener_from_fd

            listeners = None if listen is None else await listen_at(*_host_and_port(listen))
            if listen_fd is not None:
                listeners = [listener_from_fd(listen_fd)]
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async with open_party(deployment, identity, listeners=listeners, state=state) as server:
                    await anext(signals)
                    async with trio.open_nursery() as nursery:

                        async def stop_at_once() -> None:
                            await anext(signals)
                            nursery.cancel_scope.cancel()

                        nursery.start_soon(stop_at_once)
                        with trio.move_on_after(drain):
                            await server.drain()
                            if server.has_clients:
                                await trio.sleep(_PARTING_SECONDS)
                        nursery.cancel_scope.cancel()

        _run(serve)


def share_model(
    model: Annotated[Path, typer.Argument(help="The target model, an .npz file as siguard.Model.save writes it.")],
    defender: Annotated[Path, typer.Argument(help="The membership classifier h, from siguard.Defender.save.")],
    policies: Annotated[
        list[str],
        typer.Option("--allow", help="A guard to sign, for example siguard or siguard:inner=5; repeatable."),
    ],
    label: Annotated[str, typer.Option(help="What users call the model.")] = "",
    config: Config = _DEFAULT_CONFIG,
    key: Key = None,
) -> None:
    """Share a model and its membership classifier with the servers, and sign which guards may run with them."""
    from siguard.nn.model import Defender, Model

    with one_message("stopped; nothing is offered to users"):
        deployment = _load(config)
        identity = deployment.identity("owner", key)
        configs = [_guard(text) for text in policies]
        networks = Model.load(model), Defender.load(defender)

        async def share() -> None:
            from siguard.deploy.owner import connect_owner

            async with connect_owner(deployment, identity) as owner:
                name, _ = await owner.share(*networks, configs, label)
            typer.echo(f"shared {model} ({networks[0]!r}) as {label!r}, name {name.hex()}")
            for one in configs:
                typer.echo(f"signed {one.described()}")

        _run(share)


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
    config: Config = _DEFAULT_CONFIG,
    key: Key = None,
) -> None:
    """Share rows of features with the servers; the guarded confidences come back, one row for each."""
    with one_message("stopped before an answer came"):
        deployment = _load(config)
        name = _only_user(deployment) if user is None else user
        identity = deployment.identity(name, key)
        rows = _read_rows(features)
        wanted = policy if policy is None or ":" not in policy else _guard(policy)

        async def ask() -> None:
            from siguard.deploy.user import connect

            async with connect(deployment, identity) as service:
                result = await service.query(rows, wanted, model=model)
            _write_rows(result.confidences, out)
            traffic = result.traffic
            typer.echo(
                f"{len(rows)} rows in {result.seconds:.3g} s: {traffic.rounds} rounds, "
                f"{traffic.bytes_total / 1e6:.3g} MB, {traffic.messages} messages",
                err=True,
            )

        _run(ask)


def doctor(
    config: Config = _DEFAULT_CONFIG,
    name: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="Who asks: a user, or owner.", show_default="whose key file is here"
        ),
    ] = None,
    key: Key = None,
) -> None:
    """Probe every link and key of a deployment, and name what is blocked or differs."""
    from siguard.deploy.doctor import examine

    with one_message("stopped"):
        deployment = _load(config)
        identity = deployment.identity(name or _whose_key(deployment), key)

        async def probe() -> None:
            findings = await examine(deployment, identity)
            for one in findings:
                typer.echo(f"{'ok  ' if one.good else 'FAIL'}  {one.source} -> {one.target}  {one.text}")
            bad = [one for one in findings if not one.good]
            if bad:
                typer.echo(f"siguard: {len(bad)} of {len(findings)} links are not as they should be", err=True)
                raise typer.Exit(BAD_INPUT)

        _run(probe)


# What they share ------------------------------------------------------------------------------------------------


def _run(main: Callable[[], Any]) -> None:
    """Run to the end; what went wrong comes out without the task groups through which it came."""
    with without_groups():
        trio.run(main)


def _load(config: Path) -> DeploymentFile:
    """The deployment, with what everybody who takes part must know of it said on stderr, whatever the log level."""
    from siguard.deploy.file import load_deployment

    deployment = load_deployment(config)
    for warning in deployment.warnings():
        typer.echo(f"warning: {warning}", err=True)
    return deployment


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise InputError(f"--listen: found {text!r}; allowed: HOST:PORT, for example 0.0.0.0:7100")
    return host.strip("[]"), int(port)


def _guard(text: str) -> GuardConfig:
    """A configuration from ``policy`` or ``policy:inner=5,outer=2``."""
    from siguard.guard.config import GuardConfig

    policy, _, rest = text.partition(":")
    fields: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        name, equals, value = item.partition("=")
        number: int | float | None = None
        for kind in (int, float):
            with suppress(ValueError):
                number = kind(value) if number is None else number
        if not equals or number is None:
            raise InputError(f"found {item!r} in {text!r}; allowed: NAME=NUMBER, for example siguard:inner=5")
        fields[name.strip()] = number
    try:
        return GuardConfig(policy=policy, **fields)
    except TypeError:
        known = "outer, inner, learning_rate, c1, c2, c3"
        raise InputError(f"found {', '.join(fields)} in {text!r}; a guard has {known}") from None


def _only_user(deployment: DeploymentFile) -> str:
    if len(deployment.users) > 1:
        raise InputError(f"{deployment.file} has several users ({', '.join(deployment.users)}); say --as NAME")
    return next(iter(deployment.users))


def _whose_key(deployment: DeploymentFile) -> str:
    from siguard.deploy.keys import default_key_file

    clients = [*deployment.users, "owner"]
    for name in clients:
        if default_key_file(deployment.file, name).exists():
            return name
    folder = default_key_file(deployment.file, "NAME").parent
    raise InputError(f"no key of {', '.join(clients)} in {folder}; say --as NAME --key FILE")


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
