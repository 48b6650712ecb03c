"""BLAS on one thread while a cluster is open.

Parties compute side by side in worker threads, one to a core.  A BLAS that splits each product over all cores on
top of that spends its time waiting for itself: measured here, five to twenty times slower under load.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


class _Limit:
    """The setting is one per process, so clusters that overlap share it: the last to leave restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limits: threadpool_limits | None = None

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limits = threadpool_limits(limits=1, user_api="blas")

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._limits is not None:
                self._limits.restore_original_limits()
                self._limits = None


_LIMIT = _Limit()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS at one thread inside the block; nests, and restores the process's own setting at the end."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
