"""Gates too wide to enumerate: in the hybrid model, at 64 bits.

Every primitive gate is replaced by its functionality, which hands the corrupted server fresh uniform parts.  What
is left of the gate must not show anything: between the primitive gates nothing is sent or drawn, and which of them
are called, at which steps and on which shapes is the same for all hidden inputs.  Then the server's view, given its
own inputs, is those uniform parts, and has one distribution.  Hidden inputs are sampled.  The primitive gates
themselves are enumerated in `siguard.proofsim.instances`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from siguard.mpc.arithmetic import matmul, open_matmul
from siguard.mpc.compare import ranked, relu, win_counts
from siguard.mpc.cubic import cubic
from siguard.mpc.curves import exponential, piecewise, scaled_steps
from siguard.mpc.party import Party
from siguard.mpc.share import Share, as_opened
from siguard.mpc.splines import ARGUMENT_BITS, inverse_root_steps, logarithm_pieces
from siguard.mpc.tabled import tabled_exponential
from siguard.mpc.thresholds import Way
from siguard.proofsim.ideal import FreshParts, TrustedParty, same_parts, shared_with
from siguard.proofsim.queries import run_hybrid
from siguard.proofsim.simulation import uniform_from
from siguard.ring import FRACTION_BITS, Z64, RingArray, encode, ring

Protocol = Callable[[Party, Sequence[Share]], Awaitable[Any]]


@dataclass(frozen=True)
class WideCase:
    """A gate at its real ring: how to call it, and values of its wires for several hidden inputs."""

    name: str
    gates: tuple[str, ...]
    run: Protocol
    hidden: tuple[tuple[RingArray, ...], ...]


async def coupled(run: Protocol, hidden: Sequence[Sequence[RingArray]], role: int, seed: int) -> str:
    """Run with each hidden value and the same own inputs and fresh parts of the server in ``role``.

    Returns in words where the runs differ; empty where they do not.
    """
    return first_difference([await _handed_out(run, values, role, seed) for values in hidden])


def first_difference(logs: Sequence[dict[tuple[str, str], Any]]) -> str:
    """Where what a server was handed out differs between runs, in words."""
    for log_of_run in logs[1:]:
        for key in sorted({*logs[0], *log_of_run}):
            gate, path = key
            if key not in logs[0] or key not in log_of_run:
                return f"{gate} at {path!r} is called for some hidden inputs only"
            if not same_parts(logs[0][key], log_of_run[key]):
                return f"what {gate} gives at {path!r} depends on the hidden input"
    return ""


async def _handed_out(
    run: Protocol, values: Sequence[RingArray], role: int, seed: int
) -> dict[tuple[str, str], Any]:
    # The parts that the server holds do not depend on the values.
    uniform = uniform_from(np.random.default_rng([seed, role]))
    wires = [
        shared_with(value, Z64, role, uniform(Z64, value.shape), uniform(Z64, value.shape)) for value in values
    ]
    trusted = TrustedParty(role, FreshParts(seed))
    await run_hybrid(trusted, lambda party: run(party, [wire[party.role] for wire in wires]))
    return {(gate, path): output for gate, path, output in trusted.handed_out}


def wide_cases() -> list[WideCase]:
    """Every gate that no enumeration covers; some of the others again, at 64 bits."""
    f = FRACTION_BITS

    def floats(*values: Any) -> tuple[tuple[RingArray, ...], ...]:
        return tuple((encode(value, f),) for value in values)

    columns = floats([[1, -2, 3.5]], [[0, 0, 0]], [[-7, 9, 1e-4]])
    numbers = floats([[0.5], [2]], [[1], [1]], [[1.25], [3]])
    matrices = tuple(
        (encode(x, f), encode(np.reshape(w, (2, 2)), f))
        for x, w in (([[1, -2]], [1, 0, 0, 1]), ([[0, 0]], [5, -5, 0.5, 2]), ([[3, 1]], [0, 0, 0, 0]))
    )
    arguments = tuple((encode(x, ARGUMENT_BITS),) for x in ([0, -3.3], [2.5, -12], [-200, 7]))
    scaled = tuple(
        (encode([[x]], 0), encode([[y]], f)) for x, y in ((300, [1, 2]), (1 << 40, [0, -5]), (0, [3, 3]))
    )
    return [
        WideCase("matmul, truncated", ("arithmetic.matmul",), partial(_matmul, shift=f), matrices),
        WideCase("open_matmul", ("arithmetic.open_matmul",), _open_matmul, matrices),
        WideCase("win_counts", ("compare.win_counts",), partial(_ranks, by=Way.KEY), columns),
        WideCase("win_counts by adders", ("compare.win_counts",), partial(_ranks, by=Way.ADDER), columns),
        *(WideCase(f"relu by {by}", ("compare.relu",), _one(relu, bits=32, shift=8, by=by), columns) for by in Way),
        WideCase("exponential", ("curves.exponential",), _one(exponential, index_bits=16), arguments),
        WideCase(
            "exponential by tables",
            ("tabled.tabled_exponential",),
            _one(tabled_exponential, index_bits=12),
            arguments,
        ),
        WideCase("logarithm", ("curves.piecewise",), partial(_logarithm, by=Way.KEY), numbers),
        WideCase("logarithm by adders", ("curves.piecewise",), partial(_logarithm, by=Way.ADDER), numbers),
        WideCase("inverse root times a wire", ("curves.scaled_steps",), partial(_scaled, by=Way.KEY), scaled),
        WideCase("the same by adders", ("curves.scaled_steps",), partial(_scaled, by=Way.ADDER), scaled),
        WideCase("cubic", ("cubic.cubic",), _one(cubic, linear=1 << f), columns),
    ]


def _one(gate: Callable[..., Awaitable[Any]], **options: Any) -> Protocol:
    # By name when it runs: a replaced gate must be found.
    name = gate.__name__

    async def run(party: Party, wires: Sequence[Share]) -> Any:
        return await globals()[name](party, wires[0], **options)

    return run


async def _ranks(party: Party, wires: Sequence[Share], by: Way) -> Any:
    """Win counts, then the two largest entries."""
    counts = await win_counts(party.at("counts"), wires[0], Z64, by)
    return await ranked(party.at("ranks"), counts, 2, wires[0][..., None])


async def _logarithm(party: Party, wires: Sequence[Share], by: Way) -> Any:
    compared = as_opened(wires[0]).reduce(4, ring(32))
    return await piecewise(party, wires[0], compared, logarithm_pieces(0, 3, 2, FRACTION_BITS, 12), by)


async def _scaled(party: Party, wires: Sequence[Share], by: Way) -> Any:
    thresholds, values = inverse_root_steps(0, 8, 1)
    steps = np.rint(values * (1 << 8)).astype(np.int64)[None]
    return await scaled_steps(party, as_opened(wires[0]), thresholds, steps, wires[1], by)


async def _matmul(party: Party, wires: Sequence[Share], shift: int) -> Any:
    return await matmul(party, wires[0], wires[1], shift)


async def _open_matmul(party: Party, wires: Sequence[Share]) -> Any:
    return await open_matmul(party, wires[0], wires[1])
