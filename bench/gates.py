"""Time, rounds and bytes of each gate, at several sizes, between three servers in memory.

    python bench/gates.py [--gates at_least exponential ...] [--sizes 1 100 1000 10000] [--repeats 5] [--quick]
                          [--out FILE]

The figures are of one call of many in a run, without what the run takes that makes none.  Prints one JSON object a
line as it goes, then a table.  bench/NOTES.md says how to read the figures.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import trio
from measuring import Report, Spread, parsed, parser_of, positive, report, short
from measuring import table as empty_table
from rich.console import Console
from rich.table import Table

from siguard.actors.local import run_three
from siguard.guard.iteration import WIDE_INDEX_BITS
from siguard.guard.step_ranges import NORM_RANGE
from siguard.mpc.arithmetic import matmul, multiply
from siguard.mpc.compare import count_ring, ranked, win_counts
from siguard.mpc.cubic import cubic
from siguard.mpc.curves import exponential, piecewise, scaled_steps
from siguard.mpc.party import Party
from siguard.mpc.share import Opened, Share
from siguard.mpc.splines import inverse_root_steps, logarithm_pieces
from siguard.mpc.tabled import tabled_exponential
from siguard.mpc.thresholds import Way, at_least
from siguard.ring import Z64, Ring, ring

#: Entries of a row: that of `cubic`, `win_counts` and `ranked`, and the products' common one.
WIDTH = 10
#: Bits in which a layer of h is compared, and of an index of the exponential during the optimisation.
COMPARED = 24
TABLE_INDEX_BITS = 12


def shared(party: Party, *shape: int, of: Ring = Z64) -> Share:
    """A sharing of zeros: the time of a gate does not depend on values."""
    return Share(party.role, of, of.zeros(*shape), of.zeros(*shape), 0)


def opened(party: Party, *shape: int, of: Ring) -> Opened:
    """An opened wire of zeros."""
    return Opened(party.role, of, of.zeros(*shape), 0)


def at_least_by(way: Way, thresholds: int) -> Callable[[Party, int], Awaitable[object]]:
    """A comparison with so many thresholds, of n elements, with a wire each."""

    def call(party: Party, n: int) -> Awaitable[object]:
        x = opened(party, n, of=ring(COMPARED))
        return at_least(party, x, range(thresholds), shared(party, n, 1), by=way)

    return call


def piecewise_call(party: Party, n: int, by: Way = Way.KEY) -> Awaitable[object]:
    """The logarithm of a sum."""
    pieces = logarithm_pieces(0, 8, 8, 16, 12)
    return piecewise(party, shared(party, n), opened(party, n, of=ring(32)), pieces, by)


def scaled_steps_call(party: Party, n: int, by: Way = Way.KEY) -> Awaitable[object]:
    """A vector divided by its length."""
    thresholds, values = inverse_root_steps(*NORM_RANGE, 4)
    steps = np.rint(values * 2.0**16).astype(np.int64)[None]
    compared = opened(party, n, 1, of=ring(48))
    return scaled_steps(party, compared, thresholds, steps, shared(party, n, 1, WIDTH), by)


@dataclass(frozen=True)
class Gate:
    """How to call a gate with n elements or rows, and how many of those it still makes sense to ask for."""

    call: Callable[[Party, int], Awaitable[object]]
    most: int = 10_000


GATES: dict[str, Gate] = {
    **{f"at_least, {way}": Gate(at_least_by(way, 1)) for way in Way},
    **{f"at_least 16, {way}": Gate(at_least_by(way, 16), 1_000) for way in Way},
    "exponential": Gate(lambda p, n: exponential(p, shared(p, n), WIDE_INDEX_BITS), 1_000),
    "exponential, tables": Gate(lambda p, n: tabled_exponential(p, shared(p, n), TABLE_INDEX_BITS)),
    "piecewise": Gate(piecewise_call, 1_000),
    "piecewise, adder": Gate(partial(piecewise_call, by=Way.ADDER)),
    "scaled_steps": Gate(scaled_steps_call, 1_000),
    "scaled_steps, adder": Gate(partial(scaled_steps_call, by=Way.ADDER), 1_000),
    "cubic": Gate(lambda p, n: cubic(p, shared(p, n, WIDTH), 3)),
    "win_counts": Gate(lambda p, n: win_counts(p, shared(p, n, WIDTH), ring(COMPARED)), 1_000),
    "win_counts, adder": Gate(lambda p, n: win_counts(p, shared(p, n, WIDTH), ring(COMPARED), Way.ADDER), 1_000),
    "ranked": Gate(
        lambda p, n: ranked(p, opened(p, n, WIDTH, of=count_ring(WIDTH)), 1, shared(p, n, WIDTH, 1)), 1_000
    ),
    "multiply": Gate(lambda p, n: multiply(p, shared(p, n), shared(p, n)), 1_000_000),
    "matmul": Gate(lambda p, n: matmul(p, shared(p, n, 128), shared(p, 128, 64), 16)),
}


@dataclass(frozen=True)
class Gates:
    """One gate at one size; times are of one call of ``calls``, over ``repeats`` runs.

    size: elements, or rows of 10 entries (``matmul``: of 128, by 64).  cpu_seconds: of all three, the least.
    rounds: 1 also where nothing but the dealer's message is sent.
    """

    gate: str
    size: int
    calls: int
    repeats: int
    rounds: int
    bytes: int
    messages: int
    seconds: float
    seconds_min: float
    seconds_max: float
    cpu_seconds: float


def timed(gate: Gate, size: int, calls: int) -> tuple[float, float, tuple[int, int, int]]:
    """Seconds, processor seconds and (rounds, bytes, messages) of a run of so many calls, one after another."""

    async def protocol(party: Party) -> None:
        for number in range(calls):
            await gate.call(party.at("call", number), size)

    started, used = time.perf_counter(), time.process_time()
    run = trio.run(run_three, protocol)
    spent = time.perf_counter() - started, time.process_time() - used
    return *spent, (run.traffic.rounds, run.traffic.bytes_total, run.traffic.messages)


def measure(name: str, size: int, repeats: int, seconds: float) -> Gates:
    """One row: as many calls in a run as take about so many seconds."""
    gate = GATES[name]
    timed(gate, size, 1)
    # By the processor's clock: the other one also counts what other programs do.
    one = max(timed(gate, size, 1)[1], 1e-4)
    calls = max(1, min(100, round(seconds / one)))
    wall, cpu = [], []
    for _ in range(repeats):
        empty, idle, _ = timed(gate, size, 0)
        whole, used, (depth, total, messages) = timed(gate, size, calls)
        wall.append(max(0.0, whole - empty) / calls)
        cpu.append(max(0.0, used - idle) / calls)
    spread = Spread.of(wall)
    # Every call starts at depth 0, so the run is as deep as one; what is dealt is at depth 1.
    return Gates(
        gate=name,
        size=size,
        calls=calls,
        repeats=repeats,
        rounds=depth if messages else 0,
        bytes=total // calls,
        messages=messages // calls,
        seconds=spread.median,
        seconds_min=spread.least,
        seconds_max=spread.most,
        cpu_seconds=min(cpu),
    )


def table(rows: Sequence[Gates]) -> Table:
    """The rows for a terminal."""
    headings = ("gate", "size", "rounds", "kB", "ms", "min-max", "us each")
    result = empty_table("one call, three servers in memory", headings, left=("gate",))
    for row in rows:
        result.add_row(
            row.gate,
            str(row.size),
            str(row.rounds),
            short(row.bytes / 1e3),
            short(1e3 * row.seconds),
            f"{short(1e3 * row.seconds_min)}-{short(1e3 * row.seconds_max)}",
            short(1e6 * row.cpu_seconds / row.size),
        )
    return result


def run(names: Sequence[str], sizes: Sequence[int], repeats: int, seconds: float, found: Report) -> None:
    """Measure every gate whose name contains one of ``names``."""
    for name, gate in GATES.items():
        if any(part in name for part in names):
            for size in sizes:
                if size <= gate.most:
                    found.add(measure(name, size, repeats, seconds))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the options and measure."""
    parser = parser_of("Time of each gate on this machine.")
    parser.add_argument("--gates", nargs="+", default=[""], help="names, or parts of them")
    parser.add_argument("--sizes", type=positive, nargs="+", default=[1, 100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=0.1, help="about how long a run of calls takes")
    options = parsed(parser, arguments, {"repeats": 2, "sizes": [1, 8], "seconds": 0.005})
    unknown = [part for part in options.gates if not any(part in name for name in GATES)]
    if unknown:
        parser.error(f"--gates: no gate is called {unknown[0]!r}; there are {', '.join(GATES)}")
    with report(options.out) as found:
        run(options.gates, options.sizes, options.repeats, options.seconds, found)
    Console().print(table(found.rows))


if __name__ == "__main__":
    main()
