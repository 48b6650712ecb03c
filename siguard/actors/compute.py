"""The one door for heavy numpy work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import trio

from siguard.transport.shape import is_virtual_clock

T = TypeVar("T")

#: Work on fewer elements than this is done at once: a thread would cost more than it frees.
THREAD_THRESHOLD = 1 << 17


class ComputeDoor:
    """Runs local work inline when it is small, in a worker thread when it is large.

    Under a virtual clock everything runs inline: with an autojump clock, time would jump while a thread runs.
    In a thread the event loop goes on, so that the deadlines of other sessions hold.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._limiter = trio.CapacityLimiter(threads or os.cpu_count() or 1)
        self._inline = is_virtual_clock()

    async def run(self, work: Callable[[], T], elements: int) -> T:
        """The result of ``work()``, which touches about ``elements`` array elements."""
        if elements < THREAD_THRESHOLD or self._inline:
            return work()
        return await trio.to_thread.run_sync(work, limiter=self._limiter)
