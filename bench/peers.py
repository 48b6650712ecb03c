"""siguard beside other frameworks for three-party computation, on the same guard, the same rows, in the same run.

    python bench/peers.py [--peer spu --peer mpyc] [--policy siguard] [--batch 1] [--repeats 5] [--install]

Everybody is set up first and then called in turn, so that ratios mean something on a busy machine.  Answers are
compared with the float64 guard.  Prints one JSON object a line as it goes, then a table.  bench/NOTES.md says how
to read the figures, and what the peers are.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import structlog
import trio
import typer
from peer_environments import PeerMissingError, default_folder, interpreter
from peer_process import Call, OverTheLimitError, PeerFailedError, open_peer
from peer_rows import Row, Truth, measured, table, truth
from rich.console import Console

import siguard

PROGRAMS = Path(__file__).resolve().with_name("peer_programs")
#: Whose median the ratios are relative to.
BASELINE = "siguard"
#: siguard's own modes: what `GuardConfig` has beside the policy.  One line makes another row of every table.
MODES: dict[str, dict[str, Any]] = {BASELINE: {}}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Peer:
    """A program to run: interpreter and file, and what follows the policy on its command line."""

    name: str
    command: tuple[str, ...]
    extra: tuple[str, ...] = ()


@asynccontextmanager
async def open_own(
    cluster: siguard.Cluster, mode: str, policy: str, expected: Truth, limit: float
) -> AsyncIterator[Callable[[], Awaitable[Call]]]:
    """One of siguard's modes, in memory; h is shared when the block begins."""
    config = siguard.GuardConfig(policy=policy, **MODES[mode])

    async def call() -> Call:
        with trio.move_on_after(limit):
            result = await cluster.guard(expected.logits, expected.defender, config)
            return Call(result.confidences, result.seconds, result.traffic.rounds, result.traffic.bytes_total)
        raise OverTheLimitError(f"call took longer than {limit:g} s")

    await call()
    yield call


async def compare(
    cluster: siguard.Cluster, peers: Sequence[Peer], policy: str, batch: int, repeats: int, limit: float, seed: int
) -> list[Row]:
    """Everybody on one policy and batch: set up, then ``repeats`` turns."""
    expected = truth(policy, batch, seed)
    calls: dict[str, list[Call]] = {}
    lost: dict[str, Row] = {}
    with tempfile.TemporaryDirectory(prefix="siguard-peers-") as scratch:
        async with AsyncExitStack() as stack:
            contestants: dict[str, Callable[[], Awaitable[Call]]] = {}
            for mode in MODES:
                contestants[mode] = await stack.enter_async_context(
                    open_own(cluster, mode, policy, expected, limit)
                )
            for peer in peers:
                folder = expected.save(Path(scratch, peer.name))
                opened = open_peer(peer.command, policy, folder, limit, peer.extra)
                try:
                    contestants[peer.name] = await stack.enter_async_context(opened)
                except (OverTheLimitError, PeerFailedError) as error:
                    lost[peer.name] = without_figures(peer.name, policy, batch, error)
            for _ in range(repeats):
                for name, contestant in contestants.items():
                    if name in lost:
                        continue
                    try:
                        calls.setdefault(name, []).append(await contestant())
                    except (OverTheLimitError, PeerFailedError) as error:
                        lost[name] = without_figures(name, policy, batch, error)
    own = None if BASELINE in lost else statistics.median(call.seconds for call in calls[BASELINE])
    names = [*MODES, *(peer.name for peer in peers)]
    return [lost.get(name) or measured(name, policy, expected, calls[name], own) for name in names]


def without_figures(name: str, policy: str, batch: int, error: Exception) -> Row:
    """The row of a contestant that did not get through all its calls, or is not here."""
    status = {OverTheLimitError: "over the limit", PeerMissingError: "missing"}.get(type(error), "failed")
    return Row(peer=name, policy=policy, batch=batch, status=status, detail=str(error))


async def run(
    peers: Sequence[Peer],
    missing: Sequence[tuple[str, PeerMissingError]],
    policies: Sequence[str],
    batches: Sequence[int],
    repeats: int,
    limit: float,
    seed: int,
) -> None:
    """Measure, print a JSON line for each row as it comes, then the table and what there is to explain."""
    rows: list[Row] = []
    async with siguard.open_cluster(seed=seed) as cluster:
        for policy in policies:
            for batch in batches:
                some = await compare(cluster, peers, policy, batch, repeats, limit, seed)
                some += [without_figures(name, policy, batch, error) for name, error in missing]
                for row in some:
                    print(json.dumps(asdict(row)), flush=True)
                rows += some
    console = Console(soft_wrap=True)
    console.print(table(rows))
    for told in dict.fromkeys(f"{row.peer}: {row.status}: {row.detail}" for row in rows if row.detail):
        console.print(told, markup=False)


def find_peer(name: str, environments: Path, python: str, install: bool, home: Path | None) -> Peer:
    """A peer by name.  Raises `PeerMissingError` when it is not installed here."""
    if name == "mp-spdz":
        if home is None:
            raise PeerMissingError("no home is given; pass --mp-spdz HOME, a compiled MP-SPDZ")
        for needed in ("compile.py", "replicated-ring-party.x", "Scripts/ring.sh"):
            if not (home / needed).is_file():
                raise PeerMissingError(f"no {needed} in {home}; compile it there (make replicated-ring-party.x)")
        program = PROGRAMS / "mp_spdz_guard.py"
        return Peer(name, (sys.executable, str(program)), (str(home.resolve()),))
    if install:
        typer.echo(f"{name}: looking for its environment in {environments}", err=True)
    found = interpreter(name, environments, python=python, install=install)
    return Peer(name, (str(found), str(PROGRAMS / f"{name}_guard.py")))


def own_program(text: str) -> Peer:
    """A peer given as NAME=PATH, run by this Python."""
    name, equals, path = text.partition("=")
    if not equals or not name or name in MODES or "/" in name:
        raise typer.BadParameter(f"found {text!r}; expected NAME=PATH, the name not one of {', '.join(MODES)}")
    if not Path(path).is_file():
        raise typer.BadParameter(f"no file {path}")
    return Peer(name, (sys.executable, path))


_KNOWN = ("spu", "mpyc", "mp-spdz")


@app.command()
def main(
    peer: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(_KNOWN)}; repeat it. Default: all.")
    ] = None,
    program: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: a program of yours that speaks as peer_process.py tells.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Repeat it. Default: siguard, decay, linesearch.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Rows in a call; repeat it. Default: 1.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed calls for each row.")] = 5,
    limit: Annotated[float, typer.Option(min=0.0, help="Seconds for one call, and for a peer's set-up.")] = 300.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    environments: Annotated[
        Path | None, typer.Option(help="Where the peers' environments are. Default: below the user's cache folder.")
    ] = None,
    install: Annotated[bool, typer.Option(help="Make environments that are missing, with pip.")] = False,
    python: Annotated[str, typer.Option(help="Python to make environments with.")] = sys.executable,
    mp_spdz: Annotated[Path | None, typer.Option(help="Home of a compiled MP-SPDZ.")] = None,
) -> None:
    """Time siguard's guard and its peers' in turn."""
    policies = policy or ["siguard", "decay", "linesearch"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))  # servers that start are no news
    peers, missing = [own_program(text) for text in program or ()], []
    for name in _KNOWN if peer is None and not program else peer or ():
        if name not in _KNOWN:
            raise typer.BadParameter(f"unknown peer {name!r}; allowed: {', '.join(_KNOWN)}", param_hint="--peer")
        try:
            peers.append(find_peer(name, environments or default_folder(), python, install, mp_spdz))
        except PeerMissingError as error:
            missing.append((name, error))
    try:
        for each in policies:
            siguard.GuardConfig(each)
        trio.run(run, peers, missing, policies, batch or [1], repeats, limit, seed)
    except siguard.SiguardError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    app()
