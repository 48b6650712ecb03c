"""Training and attacks on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Numerical libraries use one thread inside: networks and trees of this size gain nothing from more.

    With several, a machine that has other work spends minutes waiting for seconds of work; and sums are added
    up in another order for each number of cores, so that a seed would not repeat elsewhere.
    """
    from threadpoolctl import threadpool_limits

    import siguard.privacy.attacks  # noqa: F401 - only libraries that are loaded can be limited

    with threadpool_limits(limits=1):
        yield
