"""The commands of a deployment that runs: `siguard party`, `share-model` and `doctor`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import trio
import typer

from siguard.cli_common import BAD_INPUT, one_message
from siguard.cli_shared import DEFAULT_CONFIG, Config, Key, deployment_at, guard_from, run_to_end
from siguard.errors import InputError

if TYPE_CHECKING:
    from siguard.deploy.file import DeploymentFile

#: A server that has ended its last session is linked this much longer: the others are a step behind, and a client
#: asks what the session has cost.
_PARTING_SECONDS = 0.5


def party(
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Which server to be: S0, S1 or S2.")],
    config: Config = DEFAULT_CONFIG,
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
        deployment = deployment_at(config)
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

        run_to_end(serve)


def share_model(
    model: Annotated[Path, typer.Argument(help="The target model, an .npz file as siguard.Model.save writes it.")],
    defender: Annotated[Path, typer.Argument(help="The membership classifier h, from siguard.Defender.save.")],
    policies: Annotated[
        list[str],
        typer.Option("--allow", help="A guard to sign, for example siguard or siguard:inner=5; repeatable."),
    ],
    label: Annotated[str, typer.Option(help="What users call the model.")] = "",
    config: Config = DEFAULT_CONFIG,
    key: Key = None,
) -> None:
    """Share a model and its membership classifier with the servers, and sign which guards may run with them."""
    from siguard.nn.model import Defender, Model

    with one_message("stopped; nothing is offered to users"):
        deployment = deployment_at(config)
        identity = deployment.identity("owner", key)
        configs = [guard_from(text) for text in policies]
        networks = Model.load(model), Defender.load(defender)

        async def share() -> None:
            from siguard.deploy.owner import connect_owner

            async with connect_owner(deployment, identity) as owner:
                name, _ = await owner.share(*networks, configs, label)
            typer.echo(f"shared {model} ({networks[0]!r}) as {label!r}, name {name.hex()}")
            for one in configs:
                typer.echo(f"signed {one.described()}")

        run_to_end(share)


def doctor(
    config: Config = DEFAULT_CONFIG,
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
        deployment = deployment_at(config)
        identity = deployment.identity(name or _whose_key(deployment), key)

        async def probe() -> None:
            findings = await examine(deployment, identity)
            for one in findings:
                typer.echo(f"{'ok  ' if one.good else 'FAIL'}  {one.source} -> {one.target}  {one.text}")
            bad = [one for one in findings if not one.good]
            if bad:
                typer.echo(f"siguard: {len(bad)} of {len(findings)} links are not as they should be", err=True)
                raise typer.Exit(BAD_INPUT)

        run_to_end(probe)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise InputError(f"--listen: found {text!r}; allowed: HOST:PORT, for example 0.0.0.0:7100")
    return host.strip("[]"), int(port)


def _whose_key(deployment: DeploymentFile) -> str:
    from siguard.deploy.keys import default_key_file

    clients = [*deployment.users, "owner"]
    for name in clients:
        if default_key_file(deployment.file, name).exists():
            return name
    folder = default_key_file(deployment.file, "NAME").parent
    raise InputError(f"no key of {', '.join(clients)} in {folder}; say --as NAME --key FILE")
