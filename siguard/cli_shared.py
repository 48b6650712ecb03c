"""What the commands of a deployment that runs share: its file and keys, guards as texts, the event loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import trio
import typer

from siguard.errors import InputError, without_groups

if TYPE_CHECKING:
    from siguard.deploy.file import DeploymentFile
    from siguard.guard.config import GuardConfig

Config = Annotated[Path, typer.Option(help="The deployment file, the same on every host.")]
Key = Annotated[
    Path | None, typer.Option(help="The key file.", show_default="keys/NAME.key beside the deployment file")
]
DEFAULT_CONFIG = Path("deployment.toml")


def run_to_end(main: Callable[[], Any]) -> None:
    """Run to the end; what went wrong comes out without the task groups through which it came."""
    with without_groups():
        trio.run(main)


def deployment_at(config: Path) -> DeploymentFile:
    """The deployment, with what everybody who takes part must know of it said on stderr, whatever the log level."""
    from siguard.deploy.file import load_deployment

    deployment = load_deployment(config)
    for warning in deployment.warnings():
        typer.echo(f"warning: {warning}", err=True)
    return deployment


def guard_from(text: str) -> GuardConfig:
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
