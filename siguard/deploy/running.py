"""Run an actor and its connections together, and end them in the order that tells the other ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import trio

from siguard.actors.actor import Actor
from siguard.actors.background import background_nursery
from siguard.actors.blas import single_threaded_blas
from siguard.deploy.connections import Connections

#: Seconds in which links close and say so.
_STOP_SECONDS = 3.0


@asynccontextmanager
async def running(
    actor: Actor, connections: Connections, dial: Iterable[str], listeners: Sequence[trio.SocketListener] = ()
) -> AsyncIterator[None]:
    """The actor runs, dials and accepts inside the block; leaving it ends every task, socket and link."""
    ended = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await actor.run(task_status=task_status)
        finally:
            ended.set()

    with single_threaded_blas():
        async with background_nursery() as nursery:
            await nursery.start(run)
            for server in dial:
                nursery.start_soon(connections.keep_dialling, server)
            if listeners:
                nursery.start_soon(trio.serve_listeners, connections.accept, list(listeners))
            try:
                yield
            finally:
                # Before its connections end: the other ends are told.
                actor.stop()
                with trio.move_on_after(_STOP_SECONDS, shield=True):
                    await ended.wait()
