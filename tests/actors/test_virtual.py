"""Virtual time: payments, contention for processors, and toy protocols whose seconds were computed by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import date
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from fault_links import seed_scheduler

from siguard.actors.cost_table import TABLE_VERSION, CostTable, Fit, FrameCost, load_table, shipped_table
from siguard.actors.virtual import (
    WORKING_FOR,
    MeasuredMeter,
    Meter,
    TableMeter,
    VirtualMachine,
    WorkTimer,
    virtual_clock,
)
from siguard.errors import InputError
from siguard.transport.link import Link
from siguard.transport.memory import memory_link_pair
from siguard.transport.profiles import Direction, NetworkProfile
from siguard.transport.shape import shaper


def table(send: tuple[float, float] = (0, 0), receive: tuple[float, float] = (0, 0)) -> CostTable:
    """Seconds per frame and per byte."""
    costs = [FrameCost(per_frame_seconds=frame, per_byte_seconds=byte) for frame, byte in (send, receive)]
    fit = Fit(rows=1, median_error=0, largest_error=0)
    return CostTable(
        version=TABLE_VERSION,
        machine="by hand",
        measured=date(2026, 1, 1),
        send=costs[0],
        receive=costs[1],
        network=FrameCost(per_frame_seconds=1000, per_byte_seconds=0),
        fit=fit,
    )


class Toy:
    """Parties with a shaped link between each two, and a message per (sender, receiver, path), as sessions have."""

    def __init__(self, names: str, profile: NetworkProfile | None, meter: Meter, nursery: trio.Nursery) -> None:
        self.meter = meter
        self.log: list[tuple[float, str, str, str]] = []
        self._links: dict[tuple[str, str], Link] = {}
        self._came: dict[tuple[str, str, str], trio.Event] = {}
        wrap = shaper(profile, nursery, seed=1)
        for one, other in permutations(names, 2):
            if one < other:
                ends = memory_link_pair(one, other)
                self._links[one, other], self._links[other, one] = wrap(ends[0], one), wrap(ends[1], other)
        for owner, peer in self._links:
            nursery.start_soon(self._pump, owner, peer)

    async def _pump(self, owner: str, peer: str) -> None:
        while True:
            data = await self._links[owner, peer].receive()
            path = data.rstrip(b"\0").decode()
            self.log.append((trio.current_time(), peer, owner, path))
            self._event(peer, owner, path).set()

    def _event(self, sender: str, receiver: str, path: str) -> trio.Event:
        return self._came.setdefault((sender, receiver, path), trio.Event())

    async def send(self, sender: str, receiver: str, path: str, size: int = 1000) -> None:
        await self.meter.sending(sender, path, size, receiver)
        await self._links[sender, receiver].send(path.encode().ljust(size, b"\0"))

    async def receive(self, sender: str, receiver: str, path: str, size: int = 1000) -> None:
        await self._event(sender, receiver, path).wait()
        await self.meter.received(receiver, path, size, sender)


def simulate(
    names: str,
    costs: CostTable,
    protocol: Callable[[Toy], Awaitable[None]],
    profile: NetworkProfile | None = None,
    cores: int | None = None,
) -> tuple[float, list[tuple[float, str, str, str]]]:
    """Virtual seconds of a protocol, and what arrived when."""

    async def main() -> tuple[float, list[tuple[float, str, str, str]]]:
        machine = VirtualMachine(list(names), cores)
        async with trio.open_nursery() as nursery:
            await nursery.start(machine.run)
            toy = Toy(names, profile, TableMeter(costs, machine), nursery)
            await protocol(toy)
            seconds = trio.current_time()
            nursery.cancel_scope.cancel()
        return seconds, sorted(toy.log)

    return trio.run(main, clock=virtual_clock())


async def together(*branches: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for branch in branches:
            nursery.start_soon(branch)


# By hand --------------------------------------------------------------------------------------------------


async def ping_pong(toy: Toy, turns: int = 3, size: int = 1000) -> None:
    async def a() -> None:
        for turn in range(turns):
            await toy.send("a", "b", f"ping{turn}", size)
            await toy.receive("b", "a", f"pong{turn}", size)

    async def b() -> None:
        for turn in range(turns):
            await toy.receive("a", "b", f"ping{turn}", size)
            await toy.send("b", "a", f"pong{turn}", size)

    await together(a, b)


def test_a_chain_costs_its_work_and_its_way() -> None:
    costs = table(send=(0.5, 0), receive=(0.25, 1 / 4000))
    profile = NetworkProfile("mine", Direction(2, 8000), {("b", "a"): Direction(1)})
    seconds, log = simulate("ab", costs, ping_pong, profile)
    # Each way: send 0.5, receive 0.25 + 1000/4000; there 1 s of bits and 2 s, back 1 s.
    assert seconds == 3 * (2 * (0.5 + 0.5) + 3 + 1)
    assert [when for when, *_ in log] == [3.5, 5.5, 9.5, 11.5, 15.5, 17.5]


def test_work_of_one_party_is_done_one_after_another_and_its_messages_overlap() -> None:
    async def protocol(toy: Toy) -> None:
        async def branch(path: str) -> None:
            await toy.send("a", "b", path)
            await toy.receive("a", "b", path)

        await together(*(partial(branch, path) for path in "zyxw"))

    seconds, log = simulate("ab", table(send=(1, 0)), protocol, NetworkProfile("mine", Direction(10)))
    assert log == [(11, "a", "b", "w"), (12, "a", "b", "x"), (13, "a", "b", "y"), (14, "a", "b", "z")]
    assert seconds == 14


def test_a_slow_line_is_what_counts() -> None:
    async def protocol(toy: Toy) -> None:
        async def branch(path: str) -> None:
            await toy.send("a", "b", path)
            await toy.receive("a", "b", path)

        await together(*(partial(branch, path) for path in "wxyz"))

    seconds, _ = simulate("ab", table(send=(1, 0)), protocol, NetworkProfile("mine", Direction(10, 4000)))
    assert seconds == 1 + 4 * 2 + 10


async def all_at_once(toy: Toy) -> None:
    """Everybody sends to the next, all at the same instant, twice."""

    async def party(name: str, after: str, before: str) -> None:
        for turn in "12":
            await toy.send(name, after, turn)
            await toy.receive(before, name, turn)

    await together(partial(party, "a", "b", "c"), partial(party, "b", "c", "a"), partial(party, "c", "a", "b"))


@pytest.mark.parametrize(("cores", "expected"), [(None, 2), (3, 2), (2, 3), (1, 6)])
def test_parties_share_the_cores_of_a_machine(cores: int | None, expected: float) -> None:
    # Six seconds of work in all.  On two cores: a and b, then c and b (which has the frame of a), then a and c.
    seconds, _ = simulate("abc", table(send=(1, 0)), all_at_once, None, cores)
    assert seconds == expected


def test_processes_cost_what_the_network_costs_too() -> None:
    async def main() -> float:
        machine = VirtualMachine(["a"])
        async with trio.open_nursery() as nursery:
            await nursery.start(machine.run)
            meter = TableMeter(table(send=(1, 0), receive=(2, 0)), machine, processes=True)
            await meter.sending("a", "step", 10)
            await meter.received("a", "step", 10)
            nursery.cancel_scope.cancel()
        assert machine.busy_seconds == {"a": 2003}
        return trio.current_time()

    assert trio.run(main, clock=virtual_clock()) == 2003


# The scheduler does not matter ----------------------------------------------------------------------------


async def crowded(toy: Toy) -> None:
    """Branches of each party start together, wait for each other, and differ in size."""

    async def branch(name: str, index: int, after: str, before: str) -> None:
        for turn in range(4):
            path = f"{index}/{turn}"
            await toy.send(name, after, path, 100 + 70 * index)
            if turn % 2:
                await toy.send(name, before, path, 90)
                await toy.receive(after, name, path, 90)
            await toy.receive(before, name, path, 100 + 70 * index)

    ring = {"a": "bc", "b": "ca", "c": "ab"}
    await together(*(partial(branch, name, index, *ring[name]) for name in "abc" for index in range(5)))


@pytest.mark.parametrize("cores", [None, 2, 1])
@pytest.mark.parametrize(
    "costs",
    [table((1e-4, 1e-8), (1e-4, 1e-8)), table((1e-4, 0)), table()],
    ids=["all costs", "frames sent cost", "nothing costs"],
)
def test_seconds_repeat_to_the_bit_whatever_the_scheduler_does(cores: int | None, costs: CostTable) -> None:
    profile = NetworkProfile("mine", Direction(1e-3, 1e6, 1e-4), {("a", "b"): Direction(3e-3)})
    runs = []
    for seed in range(20):
        seed_scheduler(seed)
        runs.append(simulate("abc", costs, crowded, profile, cores))
    assert len(runs[0][1]) == 5 * 3 * (4 + 2)
    assert all(run == runs[0] for run in runs[1:]), "seconds or arrivals depend on the scheduler's seed"


# Payments -------------------------------------------------------------------------------------------------


async def test_who_is_cancelled_leaves_the_queue_or_stops(autojump_clock: trio.testing.MockClock) -> None:
    machine = VirtualMachine(["a"])
    done = []

    async def pay(seconds: float, path: str, patience: float = 100) -> None:
        with trio.move_on_after(patience):
            await machine.pay("a", seconds, path)
            done.append((path, trio.current_time()))

    async with trio.open_nursery() as nursery:
        await nursery.start(machine.run)
        await together(
            partial(pay, 5, "1 stops", 2),
            partial(pay, 1, "2 leaves", 1),
            partial(pay, 1, "3 waits"),
            partial(pay, 0, "4 costs nothing"),
        )
        nursery.cancel_scope.cancel()
    assert done == [("3 waits", 3), ("4 costs nothing", 3)]
    assert machine.busy_seconds == {"a": 3}


async def test_who_asked_first_is_served_first(autojump_clock: trio.testing.MockClock) -> None:
    machine = VirtualMachine(["a", "b"], cores=1)
    done = []

    async def pay(party: str, path: str, after: float) -> None:
        await trio.sleep(after)
        await machine.pay(party, 1, path)
        done.append(party + path)

    async with trio.open_nursery() as nursery:
        await nursery.start(machine.run)
        await together(
            partial(pay, "b", "z", 0),
            partial(pay, "a", "y", 0.5),
            partial(pay, "a", "a", 0.75),
            partial(pay, "b", "x", 0.5),
        )
        nursery.cancel_scope.cancel()
    assert done == ["bz", "bx", "ay", "aa"]


async def test_a_machine_needs_virtual_time_and_known_parties() -> None:
    with pytest.raises(InputError, match="needs virtual time"):
        await VirtualMachine(["a"]).run()
    with pytest.raises(InputError, match="party: found 'x'; there are a, b"):
        await VirtualMachine(["a", "b"]).pay("x", 1, "")
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="seconds: found"):
            await VirtualMachine(["a", "b"]).pay("a", seconds, "")


@pytest.mark.parametrize("arguments", [([],), ("ab",), (["a", "a"],), (["a"], 0), (["a"], True), (["a"], 1.5)])
def test_bad_machines_are_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match=r"^(parties|cores): found"):
        VirtualMachine(*arguments)


# Measured work --------------------------------------------------------------------------------------------


class FakeTime:
    """A timer that moves only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_parties_pay_what_their_steps_took(autojump_clock: trio.testing.MockClock) -> None:
    fake = FakeTime()
    timer = WorkTimer(fake)
    trio.lowlevel.add_instrument(timer)
    machine = VirtualMachine(["a", "b"])
    meter = MeasuredMeter(machine, timer)
    when = {}

    async def party(name: str, seconds: float) -> None:
        WORKING_FOR.set(name)
        async with trio.open_nursery() as children:
            children.start_soon(child, seconds)  # whose work is its party's
        fake.now += seconds  # of this step
        await meter.sending(name, "step", 0)
        when[name] = trio.current_time()
        await meter.received(name, "step", 0)
        assert trio.current_time() == when[name], "nothing was done in between"

    async def child(seconds: float) -> None:
        fake.now += seconds
        await trio.lowlevel.checkpoint()
        fake.now += seconds

    async with trio.open_nursery() as nursery:
        await nursery.start(machine.run)
        fake.now += 1000  # nobody's
        await together(partial(party, "a", 1), partial(party, "b", 10))
        nursery.cancel_scope.cancel()
    assert when == {"a": 3, "b": 30}


async def test_what_a_payment_itself_takes_is_not_paid(autojump_clock: trio.testing.MockClock) -> None:
    fake = FakeTime()
    timer = WorkTimer(fake)
    trio.lowlevel.add_instrument(timer)

    class SlowMachine(VirtualMachine):
        async def pay(self, party: str, seconds: float, path: str, tie: str = "") -> None:
            paid.append(seconds)
            for _ in range(3):
                fake.now += 100
                await trio.lowlevel.checkpoint()
            fake.now += 100

    paid: list[float] = []
    meter = MeasuredMeter(SlowMachine(["a"]), timer)
    WORKING_FOR.set("a")
    await trio.lowlevel.checkpoint()
    timer.take("a")
    fake.now += 1
    await meter.sending("a", "step", 0)
    fake.now += 2
    await meter.received("a", "step", 0)
    assert paid == [1, 2]


async def test_the_default_timer_counts_work_and_not_waiting() -> None:
    timer = WorkTimer()
    trio.lowlevel.add_instrument(timer)

    async def work() -> None:
        WORKING_FOR.set("a")
        await trio.sleep(0.05)
        sum(range(300_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
    seconds = timer.take("a")
    assert 1e-4 < seconds < 0.04
    assert timer.take("a") < 1e-4


# Tables ---------------------------------------------------------------------------------------------------


def test_the_shipped_table_says_where_it_comes_from() -> None:
    shipped = shipped_table()
    assert shipped.machine
    assert shipped.fit.rows >= 12
    for cost in (shipped.send, shipped.receive):
        assert 1e-6 < cost.per_frame_seconds < 1e-2
        assert cost.per_byte_seconds > 0


def test_a_table_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text(table((1, 2), (3, 4)).model_dump_json())
    assert load_table(file) == table((1, 2), (3, 4))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (('"per_frame_seconds":1.0', '"per_frame_seconds":-1.0'), "send.per_frame_seconds"),
        (('"version":1', '"version":2'), "version"),
        (('"machine":"by hand",', ""), "machine"),
        (('"send"', '"sent"'), "sent"),
        (("{", "["), "file: Invalid JSON"),
    ],
)
def test_a_bad_table_is_named_with_its_field(tmp_path: Path, change: tuple[str, str], part: str) -> None:
    file = tmp_path / "table.json"
    text = table((1, 2), (3, 4)).model_dump_json()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(InputError, match=f"table.json: .*{part}"):
        load_table(file)
    with pytest.raises(InputError, match="cannot be read"):
        load_table(tmp_path / "missing.json")


def test_calibration_writes_a_table_that_says_how_well_it_fits(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "bench" / "calibrate.py"
    file = tmp_path / "table.json"
    options = ["--repeats", "1", "--batches", "1", "4", "--policies", "label", "none", "--network-frame", "0.5"]
    ran = subprocess.run(
        [sys.executable, script, *options, "--machine", "here", "--write", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    written = load_table(file)
    assert (written.machine, written.fit.rows) == ("here", 12)
    assert written.network == FrameCost(per_frame_seconds=0.5, per_byte_seconds=0)
    assert written.send.per_frame_seconds + written.receive.per_frame_seconds > 0
    assert 0 < written.fit.median_error <= written.fit.largest_error
