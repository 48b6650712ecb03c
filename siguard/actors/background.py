"""Tasks that run beside a block of code and end with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def background_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery that is cancelled when the block ends; an error of the block leaves as it is, not in a group."""
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        try:
            yield nursery
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Leaves below, outside the nursery, which would wrap it.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
