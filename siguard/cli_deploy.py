"""`siguard keygen`: the keys of a deployment, and a first deployment.toml."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from siguard.cli_common import one_message
from siguard.errors import InputError

if TYPE_CHECKING:
    from nacl.signing import SigningKey

_FIRST_USER = "user"


def keygen(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="Parties whose keys to make: S0, S1, S2, owner, or a user's name.  Without: a whole deployment.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[Path, typer.Option(help="The deployment file.")] = Path("deployment.toml"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the key files.", show_default="keys beside the deployment file")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Where the servers are reached.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port of the first server; the next ones follow.")
    ] = 7100,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Make secret keys, one file for each party, and print what is public about them.

    With names, as each of several hosts does it for its own party: only these keys; their public lines, to paste
    into deployment.toml, are all there is on stdout.  Without names: a deployment for one machine.
    """
    folder = config.parent / "keys" if out is None else out
    with one_message("stopped; no new file was left behind"):
        if names:
            _some(names, config, folder, host, port, force=force)
        else:
            _all(config, folder, host or "127.0.0.1", port, force=force)


def _some(names: Sequence[str], config: Path, folder: Path, host: str | None, port: int, *, force: bool) -> None:
    from siguard.deploy.keys import public_text
    from siguard.deploy.schema import SERVER_NAMES
    from siguard.transport.identity import fingerprint

    tables = [_table(name) for name in names]
    servers = [name for name in names if name in SERVER_NAMES]
    addresses = {name: _address(host, port + offset) for offset, name in enumerate(servers)}
    with ExitStack() as undo:
        keys = _write_keys(names, folder, undo, force=force)
        undo.pop_all()
    _tell_written(names, folder)
    for name, table in zip(names, tables, strict=True):
        public = keys[name].verify_key
        typer.echo(f"[{table}]  # fingerprint {fingerprint(public)}")
        if name in addresses:
            typer.echo(f'address = "{addresses[name]}"')
        typer.echo(f'key = "{public_text(public)}"\n')
    typer.echo(f"Paste the lines above into {config}, the same on every host; they are not secret.", err=True)
    if not config.exists():
        typer.echo(f'There is no {config} yet; its first line is a name, for example: name = "clinic"', err=True)
    if servers and host is None:
        typer.echo(f"Put the address at which the others reach {', '.join(servers)} for HOST.", err=True)


def _table(name: str) -> str:
    """The table of the deployment file that the key of ``name`` belongs to."""
    from siguard.deploy.schema import OWNER_NAME, SERVER_NAMES, USER_NAMES_ALLOWED, check_user_name

    if name in SERVER_NAMES:
        return f"servers.{name}"
    if name == OWNER_NAME:
        return name
    try:
        return f"users.{check_user_name(name)}"
    except ValueError:
        parties = ", ".join((*SERVER_NAMES, OWNER_NAME))
        raise InputError(f"found {name!r}; allowed: {parties}, or a user's name, {USER_NAMES_ALLOWED}") from None


def _address(host: str | None, port: int) -> str:
    from siguard.deploy.schema import join_address, parse_address

    if host is None:
        return f"<HOST>:{port}"  # refused where it is read, so that it cannot be forgotten
    try:
        return join_address(*parse_address(join_address(host.strip("[]"), port)))
    except InputError as error:
        raise InputError(f"--host, --port: {error.message}") from None


def _all(config: Path, folder: Path, host: str, port: int, *, force: bool) -> None:
    from siguard.deploy.file import on_one_machine
    from siguard.deploy.schema import OWNER_NAME, SERVER_NAMES

    if config.exists() and not force:
        raise InputError(
            f"{config}: exists; name the parties whose keys you want (siguard keygen S0), or pass --force for a "
            "new deployment, in which no old key is valid"
        )
    names = (*SERVER_NAMES, OWNER_NAME, _FIRST_USER)
    addresses = [_address(host, port + offset) for offset in range(len(SERVER_NAMES))]
    name = config.stem if config.stem.isprintable() and len(config.stem) <= 64 else "deployment"
    with ExitStack() as undo:
        keys = _write_keys(names, folder, undo, force=force)
        public = {party: key.verify_key for party, key in keys.items()}
        on_one_machine(name, host, port, public).write(config, force=force)
        undo.pop_all()
    _tell_written(names, folder)
    typer.echo(_next_steps(config, folder, names, addresses))


def _write_keys(names: Sequence[str], folder: Path, undo: ExitStack, *, force: bool) -> dict[str, SigningKey]:
    """One key file for each name.  ``undo`` removes new ones; what ``force`` replaced stays replaced."""
    from nacl.signing import SigningKey

    from siguard.deploy.keys import already_there, write_key

    if len(set(names)) != len(names):
        raise InputError(f"found {' '.join(names)}; allowed: each name once")
    files = {name: _key_file(folder, name) for name in names}
    for file in files.values():
        if file.exists() and not force:
            raise already_there(file)
    keys = {}
    for name, file in files.items():
        keys[name] = SigningKey.generate()
        write_key(file, name, keys[name], force=force)
        if not force:
            undo.callback(file.unlink, missing_ok=True)
    return keys


def _key_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.key"


def _tell_written(names: Sequence[str], folder: Path) -> None:
    for name in names:
        typer.echo(f"wrote {_key_file(folder, name)}: the secret key of {name}, for its host only", err=True)


def _next_steps(config: Path, folder: Path, names: Sequence[str], addresses: Sequence[str]) -> str:
    servers, file = names[: len(addresses)], shlex.quote(str(config))
    made = ", ".join(f"{name} at {address}" for name, address in zip(servers, addresses, strict=True))
    starts = "\n".join(f"    siguard party --config {file} --as {name}" for name in servers)
    copies = "\n".join(
        f"    scp {shlex.quote(str(_key_file(folder, name)))} HOST:keys/  # the host of {name}" for name in names
    )
    expected = config.parent / "keys"
    move = "" if folder == expected else f"\nKeys are looked for in {expected}: move them there."
    return f"""\
wrote {config}: {made}{move}

On this machine, each in a terminal of its own:
{starts}

On several machines: put their addresses into {config}, and copy it to every host; nothing in it is secret.
Each key file goes to its party's host, into keys/ beside the copy of {config.name}, and is then deleted here:
{copies}
Whoever makes all the keys in one place could have copied them.  For real data each host makes its own, with
siguard keygen S0 on the host of S0 and so on, and sends only what that prints."""
