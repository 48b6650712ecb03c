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

from siguard.actors.local import run_three
from siguard.mpc.arithmetic import matmul, open_matmul
from siguard.mpc.compare import maximum, one_hot_ranks, relu, win_counts
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS, exp, log, reciprocal
from siguard.mpc.steps import step_function
from siguard.proofsim.ideal import FreshParts, TrustedParty, hybrid, same_parts
from siguard.proofsim.queries import NoRandomness
from siguard.ring import Z64, RingArray, encode

Protocol = Callable[[Party, Sequence[Share]], Awaitable[Any]]


@dataclass(frozen=True)
class WideCase:
    """A gate at its real ring: how to call it, and values of its wires for several hidden inputs."""

    name: str
    gates: tuple[str, ...]
    run: Protocol
    hidden: tuple[tuple[RingArray, ...], ...]


@dataclass(frozen=True)
class Coupled:
    """Runs compared, and in words what differs; empty where nothing does."""

    runs: int
    problem: str


async def coupled(run: Protocol, hidden: Sequence[Sequence[RingArray]], role: int, seed: int) -> Coupled:
    """Run with each hidden value and the same own inputs and fresh parts of the server in ``role``."""
    logs = [await _handed_out(run, values, role, seed) for values in hidden]
    return Coupled(len(hidden), first_difference(logs))


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
    rng = np.random.default_rng([seed, role])
    wires = [_shares(value, role, rng) for value in values]
    trusted = TrustedParty(role, FreshParts(seed))
    with hybrid(trusted):
        ran = await run_three(
            lambda party: run(party, [wire[party.role] for wire in wires]), randomness=NoRandomness
        )
    if ran.traffic.messages:
        raise AssertionError(f"{ran.traffic.messages} frames were sent outside the primitive gates")
    return {(gate, path): output for gate, path, output in trusted.handed_out}


def _shares(value: RingArray, role: int, rng: np.random.Generator) -> list[Share]:
    """A sharing in which the parts of the server in ``role`` do not depend on the value."""
    parts = [Z64.zeros(*value.shape)] * 3
    for part in (role, (role + 1) % 3):
        parts[part] = Z64.from_bytes(rng.bytes(8 * value.size), value.shape)
    parts[(role + 2) % 3] = Z64.sub(value, Z64.add(parts[role], parts[(role + 1) % 3]))
    return [Share(i, Z64, parts[i], parts[(i + 1) % 3], 0) for i in range(3)]


def wide_cases() -> list[WideCase]:
    """Every gate that no enumeration covers; some of the others again, at 64 bits."""
    f = FRACTION_BITS

    def floats(*values: Any) -> tuple[tuple[RingArray, ...], ...]:
        return tuple((encode(value, f),) for value in values)

    columns = floats([[1, -2, 3.5]], [[0, 0, 0]], [[-7, 9, 1e-4]])
    numbers = floats([0.5, 2, 3.75], [1, 1, 1], [1.25, 0.01, 3])
    matrices = tuple(
        (encode(x, f), encode(np.reshape(w, (2, 2)), f))
        for x, w in (([[1, -2]], [1, 0, 0, 1]), ([[0, 0]], [5, -5, 0.5, 2]), ([[3, 1]], [0, 0, 0, 0]))
    )
    thresholds, values = np.array([1, 2]) << f, np.array([0, 1, 5])
    return [
        WideCase("matmul, truncated", ("arithmetic.matmul",), partial(_matmul, shift=f), matrices),
        WideCase("open_matmul", ("arithmetic.open_matmul",), _open_matmul, matrices),
        WideCase("win_counts", ("compare.win_counts",), _one(win_counts), columns),
        WideCase("one_hot_ranks", ("compare.one_hot_ranks",), _one(one_hot_ranks, ranks=2), columns),
        WideCase("maximum", ("compare.maximum",), _one(maximum), columns),
        WideCase("relu", ("compare.relu",), _one(relu, bits=32, shift=8), columns),
        WideCase("exp", ("softmax.exp",), _one(exp), floats([0, -3.3], [2.5, -12], [-200, 7])),
        WideCase("log", ("softmax.log",), _one(log, domain_bits=2), numbers),
        WideCase("reciprocal", ("softmax.reciprocal",), _one(reciprocal, domain_bits=2), numbers),
        WideCase(
            "step_function",
            ("steps.step_function",),
            _one(step_function, thresholds=thresholds, values=values),
            floats([[0.5], [1]], [[2], [3]], [[-4], [1.5]]),
        ),
    ]


def _one(gate: Callable[..., Awaitable[Any]], **options: Any) -> Protocol:
    # By name when it runs: a replaced gate must be found.
    name = gate.__name__

    async def run(party: Party, wires: Sequence[Share]) -> Any:
        return await globals()[name](party, wires[0], **options)

    return run


async def _matmul(party: Party, wires: Sequence[Share], shift: int) -> Any:
    return await matmul(party, wires[0], wires[1], shift)


async def _open_matmul(party: Party, wires: Sequence[Share]) -> Any:
    return await open_matmul(party, wires[0], wires[1])
