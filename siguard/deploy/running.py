"""Run an actor and its connections together, and end them in the order that tells the other ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from siguard.actors.actor import Actor
from siguard.actors.blas import single_threaded_blas
from siguard.deploy.connections import Connections

#: Seconds in which links close and say so.
_STOP_SECONDS = 3.0


@asynccontextmanager
async def running(
    actor: Actor, connections: Connections, dial: Iterable[str], listeners: Sequence[trio.SocketListener] = ()
) -> AsyncIterator[None]:
    """The actor runs, dials and accepts inside the block; leaving it ends every task, socket and link."""
    failure: BaseException | None = None
    ended = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await actor.run(task_status=task_status)
        finally:
            ended.set()

    with single_threaded_blas():
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            for server in dial:
                nursery.start_soon(connections.keep_dialling, server)
            if listeners:
                nursery.start_soon(_serve, connections, listeners)
            try:
                yield
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                # Leaves below, outside the nursery, which would wrap it in a group.
                failure = error
            actor.stop()
            with trio.move_on_after(_STOP_SECONDS, shield=True):
                await ended.wait()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(connections: Connections, listeners: Sequence[trio.SocketListener]) -> None:
    await trio.serve_listeners(connections.accept, list(listeners))
