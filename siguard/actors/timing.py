"""Virtual time for a whole deployment in one process: which clock, which costs, how many processors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import trio

from siguard.actors.actor import Actor
from siguard.actors.background import background_nursery
from siguard.actors.session import SERVERS
from siguard.actors.virtual import MeasuredMeter, Meter, TableMeter, VirtualMachine, WorkTimer
from siguard.errors import InputError
from siguard.transport.shape import is_virtual_clock

if TYPE_CHECKING:
    from siguard.actors.cost_table import CostTable


@dataclass(frozen=True)
class VirtualTime:
    """How long local work takes in a run under `siguard.actors.virtual.virtual_clock`.

    costs: ``"table"`` takes the costs of frames from a stored table, so that a run repeats to the bit;
    ``"measured"`` takes what the work takes here and now, so that runs differ.
    table: instead of the one of the package.
    cores: how many of the parties compute at once on one machine; None gives each a machine of its own.
    processes: parties are processes with sealed connections (table only).
    """

    costs: Literal["table", "measured"] = "table"
    table: CostTable | None = None
    cores: int | None = None
    processes: bool = True

    def __post_init__(self) -> None:
        if self.costs not in ("table", "measured"):
            raise InputError(f"costs: found {self.costs!r}; allowed: 'table' or 'measured'")
        if self.cores is not None and (isinstance(self.cores, bool) or not isinstance(self.cores, int)):
            raise InputError(f"cores: found {self.cores!r}; allowed: a whole number of 1 or more, or None")


@asynccontextmanager
async def metered(actors: Collection[Actor], time: VirtualTime) -> AsyncIterator[VirtualMachine]:
    """Make ``actors`` pay for their work inside the block.  Raises `InputError` on a clock that is not virtual."""
    if not is_virtual_clock():
        raise InputError(
            "time: virtual time needs a virtual clock: trio.run(main, clock=siguard.virtual_clock()); "
            "on the real clock leave it out"
        )
    machine = VirtualMachine(sorted((actor.name for actor in actors), key=_servers_first), time.cores)
    timer = WorkTimer() if time.costs == "measured" else None
    meter: Meter
    if timer is None:
        from siguard.actors.cost_table import shipped_table  # needs a validator, which the core does without

        meter = TableMeter(time.table or shipped_table(), machine, processes=time.processes)
    else:
        meter = MeasuredMeter(machine, timer)
        trio.lowlevel.add_instrument(timer)
    try:
        async with background_nursery() as nursery:
            await nursery.start(machine.run)
            for actor in actors:
                actor.meter = meter
            yield machine
    finally:
        if timer is not None:
            trio.lowlevel.remove_instrument(timer)


def _servers_first(name: str) -> tuple[bool, str]:
    return name not in SERVERS, name
