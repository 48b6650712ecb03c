"""What servers and this process hold when nobody asks anything, to compare with after each disturbance."""

from __future__ import annotations

import os
from dataclasses import dataclass

import trio
from campaign_deployment import SERVERS, Fleet
from campaign_resources import MIB, Resources, is_alive, resources, settles

#: Seconds in which links that were lost are closed for good and made again; handshakes may take 10.
_SETTLING = 20.0
#: A server's memory may grow by this much, or by this part, until its tables are full.
_MEMORY, _MEMORY_PART = 24 * MIB, 0.2


@dataclass(frozen=True)
class Baseline:
    """descriptors, threads: of each server and of this process.  tasks: of this process."""

    counts: dict[str, tuple[int, int]]
    memory: dict[str, int]
    tasks: int

    async def left_behind(self, fleet: Fleet, *, threads: bool = True) -> list[str]:
        """What there is more (or less) of than at the start, once everything had time to settle.

        threads: those too, which takes ten seconds: so long they wait for more work.
        """
        wrong = []
        if not await settles(lambda: self._is_back(_counts(fleet), threads), _SETTLING):
            wrong.append(f"(descriptors, threads) were {self.counts}, and are {_counts(fleet)}")
        if not await settles(lambda: _tasks() == self.tasks, _SETTLING):
            wrong.append(f"tasks of the user were {self.tasks}, and are {_tasks()}")
        for name, one in _samples(fleet).items():
            allowed = self.memory[name] + max(_MEMORY, _MEMORY_PART * self.memory[name])
            if one.rss > allowed:
                wrong.append(f"{name} holds {one.rss / MIB:.1f} MiB; it began with {self.memory[name] / MIB:.1f}")
        return wrong

    def _is_back(self, counts: dict[str, tuple[int, int]], threads: bool) -> bool:
        """As many descriptors, and no more threads: there may be fewer, when those without work have ended."""
        return all(
            descriptors == self.counts[name][0] and (not threads or alive <= self.counts[name][1])
            for name, (descriptors, alive) in counts.items()
        )


async def take_baseline(fleet: Fleet) -> Baseline:
    """Wait until the figures stand still for a second, and keep them."""
    counts = _counts(fleet)
    still = 0
    with trio.fail_after(_SETTLING):
        while still < 10:
            await trio.sleep(0.1)
            again = _counts(fleet)
            still = still + 1 if again == counts else 0
            counts = again
    return Baseline(counts, {name: one.rss for name, one in _samples(fleet).items()}, _tasks())


def dead_servers(fleet: Fleet) -> list[str]:
    """Servers whose process does not run."""
    return [server for server in SERVERS if not is_alive(fleet.processes.pid(server))]


def _samples(fleet: Fleet) -> dict[str, Resources]:
    return {name: resources(pid) for name, pid in {**fleet.pids(), "user": os.getpid()}.items()}


def _counts(fleet: Fleet) -> dict[str, tuple[int, int]]:
    return {name: (one.descriptors, one.threads) for name, one in _samples(fleet).items()}


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
