"""What is enumerated of gates on function keys, in the hybrid model (`siguard.proofsim.keys`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from siguard.mpc.thresholds import Way
from siguard.proofsim import key_gates as run
from siguard.proofsim.enumeration import GateUnderTest, Instance, Values
from siguard.proofsim.functionalities import (
    Right,
    at_places_of,
    cubic_step,
    equals,
    not_below,
    ranked_of_two,
    relu_of_two_bits,
    selected,
    times,
    wins_of_two,
)
from siguard.ring import Z2, Ring, ring

Z4, Z8 = ring(2), ring(3)


def one(
    name: str, gates: str, rings: Sequence[Ring], run: GateUnderTest, right: Right, **options: Ring
) -> Instance:
    """An instance; gates: their names, with spaces between."""
    return Instance(name, tuple(gates.split()), tuple(rings), run, right, **options)  # type: ignore[arg-type]


def named(R: Ring) -> str:
    """As mathematicians write it."""
    return f"Z_{1 << R.bits}"


def gates_on_keys(full: bool) -> list[Instance]:
    """Gates on function keys, in the hybrid model (`siguard.proofsim.keys`): a key is its whole truth table."""
    compared, placed = "thresholds.at_least", "curves.at_places"
    found = []
    cases: list[tuple[Sequence[Ring], Ring, Sequence[int]]] = [
        ([Z4], Z2, [0]),
        ([Z4], Z2, [0, 1, -1]),
        ([Z4], Z4, [1]),
        ([Z8], Z2, [0, 2]),
        ([Z4, Z2], Z2, [1]),
        ([Z4, Z2], Z2, [0, 1]),
    ]
    if full:
        cases += [([Z8], Z4, [1]), ([ring(4)], Z2, [0, 3]), ([Z8, Z2], Z2, [0, 1]), ([Z4, Z4], Z4, [0])]
        cases += [([Z4, Z2, Z2], Z2, [1])]
    for rings, target, thresholds in cases:
        wires = f" and {len(rings) - 1} wire(s)" if len(rings) > 1 else ""
        name = f"at_least by key: {named(rings[0])}{wires} into {named(target)}, thresholds {[*thresholds]}"
        right = selected(rings[0].bits, thresholds, target.bits)
        gate = partial(run.compared, thresholds=thresholds, target=target)
        found.append(one(name, f"{compared} keyed.comparison", rings, gate, right))
    for by in (Way.BIT_KEY, Way.ADDER):
        ahead = partial(run.compared_ahead, by=by)
        found += [
            one(
                f"bits_at_least by {by}: Z_4",
                "thresholds.bits_at_least",
                [Z4],
                partial(run.bits_of, thresholds=[1], by=by),
                selected(2, [1], 1),
            ),
            one(f"at_least by {by}, bits ahead: Z_4 and Z_2", compared, [Z4, Z2], ahead, selected(2, [1], 1)),
        ]
    both = run.compared_and_exchanged
    found += [
        one("bit and value in one exchange: Z_4 and Z_2", compared, [Z4, Z2], both, selected(2, [1], 1)),
        one("bit and value in one exchange: Z_4, mod 2", compared, [Z4], run.compared_and_low, equals(_low_relu)),
        one("win_counts: 2 of Z_4", "compare.win_counts", [Z4, Z4], run.wins, wins_of_two, values_in=Z2),
        one("cubic: 2 of Z_2", "cubic.cubic", [Z2] * 2, _cubic(3), cubic_step(1, 3), values_in=Z2),
        one("cubic: 2 of Z_4", "cubic.cubic", [Z4] * 2, _cubic(3), cubic_step(2, 3), values_in=Z4),
        one("piecewise: Z_4", "curves.piecewise", [Z4], run.piecewise_of, equals(_pieces), values_in=Z4),
        one("scaled_steps: Z_4 and Z_2", "curves.scaled_steps", [Z4, Z2], run.steps_of, _steps, values_in=Z2),
    ]
    windows: list[tuple[Sequence[Ring], Ring, int, int]] = [
        ([Z2], Z2, 0, 2),
        ([Z4], Z4, -1, 3),
        ([Z4], Z2, 0, 4),
        ([Z2, Z2], Z2, 0, 2),
        ([Z4, Z2], Z2, -2, 2),
    ]
    windows += [([Z8], Z2, -3, 8), ([Z4, Z4], Z4, 0, 2)] if full else []
    for rings, target, first, count in windows:
        wires = f" and {len(rings) - 1} wire(s)" if len(rings) > 1 else ""
        name = f"at_places: {count} from {first} on of {named(rings[0])}{wires} into {named(target)}"
        right = at_places_of(rings[0].bits, first, count, target.bits)
        gate = partial(run.placed, first=first, count=count, target=target)
        found.append(one(name, f"{placed} keyed.window", rings, gate, right))
    for ranks, rings in ((1, [Z2] * 2), (2, [Z2] * 2), *(((2, [Z2] * 4),) if full else ())):
        name = f"ranked: {ranks} of 2 counts{', with values' if len(rings) > 2 else ''}, Z_2"
        gate = partial(run.ranked_of, ranks=ranks, wires=len(rings) > 2)
        found.append(one(name, "compare.ranked", rings, gate, ranked_of_two(ranks), values_in=Z2))
    if full:
        found.append(one("relu: Z_4", "compare.relu", [Z4], run.relu_of, relu_of_two_bits, values_in=Z4))
    return found


def _low_relu(x: Values) -> Values:
    taken = not_below(x[:, 0], 1, 2)
    return np.stack([taken, taken * (x[:, 0] % 2)], axis=1)


def _cubic(linear: int) -> GateUnderTest:
    return partial(run.cubic_of, linear=linear)


def _pieces(x: Values) -> Values:
    constants, slopes, value = run.PIECES.constants, run.PIECES.slopes, x[:, 0]
    total = np.full(len(x), constants[0])
    for threshold, jump, bend in zip(run.PIECES.thresholds, np.diff(constants), np.diff(slopes), strict=True):
        total = total + not_below(value, threshold, 2) * (jump + bend * value)
    return np.asarray(total % 4)


def _steps(inputs: Values, outputs: Values, openings: Values) -> npt.NDArray[np.bool_]:
    chosen = run.STEPS[:, 0][:, None] + sum(
        np.diff(run.STEPS, axis=1)[:, number][:, None] * not_below(inputs[:, 0], threshold, 2)
        for number, threshold in enumerate((0, 1))
    )
    return np.asarray((outputs == (chosen * inputs[:, 1] % 2).T).all(axis=1))


def sequences_on_keys() -> list[Instance]:
    """A key after a product, a product after a key, two keys."""
    pair = "pair of gates"
    return [
        one(
            f"{pair}: product, its place, Z_2",
            "",
            [Z2, Z2],
            run.places_of_product,
            equals(lambda x: np.stack([1 - times(x), times(x)], axis=1)),
        ),
        one(
            f"{pair}: place, times a wire, Z_2",
            "",
            [Z2, Z2],
            run.places_times_wire,
            equals(times),
        ),
        one(
            f"{pair}: product, comparison by key, Z_4",
            "",
            [Z4, Z4],
            run.compared_product,
            equals(lambda x: not_below(times(x), 0, 2)),
        ),
        one(
            f"{pair}: comparison by key, times a wire, Z_4 and Z_2",
            "",
            [Z4, Z2],
            run.bit_times_wire,
            equals(lambda x: not_below(x[:, 0], 0, 2) * x[:, 1]),
        ),
        one(
            f"{pair}: two comparisons by key, Z_4",
            "",
            [Z4, Z4],
            run.compared_twice,
            equals(lambda x: np.stack([not_below(x[:, i], 0, 2) for i in range(2)], axis=1)),
        ),
        one(
            f"{pair}: two comparisons by key, of x and 2 x, Z_4",
            "",
            [Z4],
            run.compared_twice,
            equals(lambda x: np.stack([not_below(x[:, 0] * factor % 4, 0, 2) for factor in (1, 2)], axis=1)),
        ),
        one(
            f"{pair}: cubic, its exchange, 2 of Z_2",
            "",
            [Z2] * 2,
            partial(run.cubic_opened, linear=3),
            cubic_step(1, 3),
            values_in=Z2,
        ),
    ]
