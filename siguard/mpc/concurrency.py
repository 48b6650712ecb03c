"""Branches of one protocol that run side by side; their step names keep randomness and frames apart."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio


async def side_by_side(*branches: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Run all branches at once and return their results in order; the first failure cancels the others."""
    results: list[Any] = [None] * len(branches)

    async def run(index: int, branch: Callable[[], Awaitable[Any]]) -> None:
        results[index] = await branch()

    async with trio.open_nursery() as nursery:
        for index, branch in enumerate(branches):
            nursery.start_soon(run, index, branch)
    return results
