"""Time that is computed: how long parties take on their own machines, found on one small machine.

A run under `virtual_clock` is a discrete-event simulation.  Messages take virtual time in
`siguard.transport.shape`; local work takes none by itself, so a `Meter` makes parties pay for it: for what was done
for a frame before it leaves, for what a frame brought before the party goes on.  A party pays one thing at a time,
as it computes one thing at a time.  The virtual seconds of an answer are then its longest chain of both.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import trio

from siguard.errors import InputError
from siguard.transport.shape import is_virtual_clock

if TYPE_CHECKING:
    from siguard.actors.cost_table import CostTable

#: The party whose work a task does; tasks inherit it from the task that starts them.
WORKING_FOR: ContextVar[str | None] = ContextVar("WORKING_FOR", default=None)


class Meter(Protocol):
    """Makes parties pay for their work.  Both calls are made by the party's own task, which they hold up.

    path: the step of the frame; nbytes: its size with the header; tie: what tells frames of one path and party
    apart (session, other end), so that their order does not depend on the scheduler.
    """

    async def sending(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for the work up to now; the frame leaves afterwards."""
        ...

    async def received(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for the work up to now, this frame's arrival included; the party uses the frame afterwards."""
        ...


def virtual_clock() -> trio.abc.Clock:
    """A clock that stands still while anybody can go on, then jumps: ``trio.run(main, clock=virtual_clock())``."""
    from trio.testing import MockClock  # slow to import, and `is_virtual_clock` asks whether anybody did

    return MockClock(autojump_threshold=0)


@dataclass(order=True, slots=True)
class _Request:
    """One payment that waits; the order in which payments are served."""

    at: float
    path: str
    tie: str
    rank: int
    number: int
    granted: trio.Event = field(compare=False, default_factory=trio.Event)
    withdrawn: bool = field(compare=False, default=False)


class VirtualMachine:
    """The processors that ``parties`` compute on, in virtual time.

    cores: how many parties compute at the same time; None: each has a machine of its own.  A party computes one
    thing at a time.  Who waited longest is next; of requests made at one instant the one with the least step path,
    then ``tie``, then the first of ``parties``: never the one whose task happened to run first.
    """

    def __init__(self, parties: Sequence[str], cores: int | None = None) -> None:
        _check_machine(parties, cores)
        self._ranks = {party: rank for rank, party in enumerate(parties)}
        self._free = dict.fromkeys(parties, True)
        self._cores = math.inf if cores is None else cores
        self._waiting: dict[str, list[_Request]] = {party: [] for party in parties}
        self._changed = trio.Event()
        self._numbers = 0
        #: Virtual seconds that each party has computed.
        self.busy_seconds = dict.fromkeys(parties, 0.0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve payments until cancelled; needs the virtual clock."""
        if not is_virtual_clock():
            raise InputError(
                "a VirtualMachine needs virtual time; run under siguard.actors.virtual.virtual_clock()"
            )
        from trio.testing import wait_all_tasks_blocked

        task_status.started()
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            # Everybody who asks at this instant has asked, in whatever order their tasks ran.
            await wait_all_tasks_blocked()
            self._grant()

    async def pay(self, party: str, seconds: float, path: str, tie: str = "") -> None:
        """Compute ``seconds`` of virtual time, when it is this party's and this request's turn.

        Cancelled: leaves the queue, or stops computing.
        """
        if party not in self._free:
            raise InputError(f"party: found {party!r}; there are {', '.join(self._free)}")
        if not 0 <= seconds < math.inf:
            raise InputError(f"seconds: found {seconds!r}; allowed: finite, 0 or more")
        self._numbers += 1
        request = _Request(trio.current_time(), path, tie, self._ranks[party], self._numbers)
        heapq.heappush(self._waiting[party], request)
        self._changed.set()
        started = math.inf
        try:
            await request.granted.wait()
            started = trio.current_time()
            await trio.sleep(seconds)
        finally:
            if request.granted.is_set():
                self.busy_seconds[party] += max(0.0, trio.current_time() - started)
                self._free[party] = True
                self._changed.set()
            request.withdrawn = True

    def _grant(self) -> None:
        """Let the first requests begin, as many as there are free parties and cores."""
        first = []
        for party, queue in self._waiting.items():
            while queue and queue[0].withdrawn:
                heapq.heappop(queue)
            if queue and self._free[party]:
                first.append((queue[0], party))
        busy = sum(not free for free in self._free.values())
        for request, party in sorted(first):
            if busy >= self._cores:
                return
            busy += 1
            self._free[party] = False
            heapq.heappop(self._waiting[party])
            request.granted.set()


def _check_machine(parties: Any, cores: Any) -> None:
    if isinstance(parties, str) or not parties or len(set(parties)) != len(parties):
        raise InputError(f"parties: found {parties!r}; allowed: different names, at least one")
    if cores is not None and (isinstance(cores, bool) or not isinstance(cores, int) or cores < 1):
        raise InputError(f"cores: found {cores!r}; allowed: a whole number of 1 or more, or None: one per party")


class TableMeter:
    """Every frame costs what a stored table says: one scenario always takes the same virtual seconds, to the bit.

    processes: parties are processes, so that a frame also passes the operating system.
    """

    def __init__(self, table: CostTable, machine: VirtualMachine, *, processes: bool = False) -> None:
        self._table = table
        self._machine = machine
        self._processes = processes

    async def sending(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for one frame that leaves."""
        await self._machine.pay(party, self._table.send_seconds(nbytes, self._processes), path, tie)

    async def received(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for one frame that came."""
        await self._machine.pay(party, self._table.receive_seconds(nbytes, self._processes), path, tie)


class WorkTimer(trio.abc.Instrument):
    """Measures the processor time of every step of every task, and charges it to the task's party (`WORKING_FOR`).

    timer: seconds; the default counts this thread's own time, which other processes of the machine do not prolong.
    The time of trio's loop between steps, of this instrument, of payments and of worker threads is nobody's.
    Add it with ``trio.lowlevel.add_instrument``.
    """

    def __init__(self, timer: Callable[[], float] = time.thread_time) -> None:
        self._timer = timer
        #: When the counted part of the running step began; None: it is nobody's.
        self._since: float | None = timer()
        self._unpaid: dict[str, float] = defaultdict(float)
        self._paying: set[trio.lowlevel.Task] = set()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._since = None if task in self._paying else self._timer()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task waits, or is over."""
        party = task.context.get(WORKING_FOR)
        if party is not None and self._since is not None:
            self._unpaid[party] += self._timer() - self._since

    def take(self, party: str) -> float:
        """Seconds of work of a party since the last call, the running step's included, which is this party's."""
        seconds = self._unpaid.pop(party, 0.0)
        if self._since is not None:
            seconds += self._timer() - self._since
            self._since = self._timer()
        return seconds

    @contextmanager
    def paying(self) -> Iterator[None]:
        """Within this block the running task does nobody's work: a simulation's, that would not be there."""
        task = trio.lowlevel.current_task()
        self._paying.add(task)
        self._since = None
        try:
            yield
        finally:
            self._paying.discard(task)
            self._since = self._timer()


class MeasuredMeter:
    """Parties pay what their work really took here, by ``timer``; runs differ from each other.

    Add ``timer`` to the run's instruments, and set `WORKING_FOR` in each party's task.
    """

    def __init__(self, machine: VirtualMachine, timer: WorkTimer) -> None:
        self._machine = machine
        self._timer = timer

    async def sending(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for the work since the last payment."""
        await self._pay(party, path, tie)

    async def received(self, party: str, path: str, nbytes: int, tie: str = "") -> None:
        """Pay for the work since the last payment."""
        await self._pay(party, path, tie)

    async def _pay(self, party: str, path: str, tie: str) -> None:
        seconds = self._timer.take(party)
        with self._timer.paying():
            await self._machine.pay(party, seconds, path, tie)
