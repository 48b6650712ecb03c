"""Parts of the guard run by three parties on shares of known values, and plans to run them by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trio

import siguard.actors.cluster as cluster_module
from siguard import Defender, GuardConfig
from siguard.actors.local import LocalRun, run_three
from siguard.guard.defender import SharedDefender, encode_defender
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, Planned
from siguard.guard.shape import Shape
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.mpc.thresholds import Way
from siguard.nn.model import FloatArray
from siguard.ring import Z64, Ring, RingArray, encode

Shares = list[Share]

#: A plan for each way to compare, folded and joined or not, runs side by side and in turn.
PLANS = {
    "keys": Plan(),
    "bit keys": Plan(Way.BIT_KEY, Way.KEY, Way.BIT_KEY),
    "bit keys everywhere": Plan(Way.BIT_KEY, Way.BIT_KEY, Way.BIT_KEY, Way.BIT_KEY),
    "adders": Plan(Way.ADDER, Way.ADDER, Way.ADDER, Way.ADDER, folded=False, joined=False),
    "in turn": Plan(Way.KEY, Way.ADDER, Way.ADDER, Way.ADDER, joined=False, sequential=True),
}
TWO_PLANS = {name: PLANS[name] for name in ("keys", "in turn")}


def force_plan(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    """Whatever a cluster is asked, it plans this."""

    def planned(config: GuardConfig, shape: Shape, conditions: Conditions) -> Planned:
        return Planned(plan, 0, 0, 0.0)

    monkeypatch.setattr(cluster_module, "plan_for", planned)


def run(protocol: Callable[[Party], Awaitable[Any]], seed: int = 0) -> LocalRun:
    """Three parties."""
    return trio.run(partial(run_three, protocol, seed=seed, deadline=60.0))


def _uniform(seed: int, R: Ring, shape: tuple[int, ...]) -> tuple[RingArray, RingArray]:
    rng = np.random.default_rng([seed, *shape])
    count = int(np.prod(shape)) * R.itemsize
    return R.from_bytes(rng.bytes(count), shape), R.from_bytes(rng.bytes(count), shape)


def share(value: RingArray | npt.NDArray[Any], R: Ring = Z64, seed: int = 0) -> Shares:
    """A sharing of ring elements or whole numbers."""
    elements = R.constant(value)
    x0, x2 = _uniform(seed, R, elements.shape)
    parts = [x0, R.sub(R.sub(elements, x0), x2), x2]
    return [Share(role, R, parts[role], parts[(role + 1) % 3], 0) for role in range(3)]


def share_floats(value: npt.ArrayLike, bits: int, seed: int = 0) -> Shares:
    """A sharing of real numbers in fixed point."""
    return share(encode(value, bits), seed=seed)


def share_opened(value: npt.ArrayLike, R: Ring, seed: int = 0) -> list[Opened]:
    """An opened wire of whole numbers."""
    mask, _ = _uniform(seed, R, np.shape(value))
    masked = R.add(R.constant(value), mask)
    return [Opened(role, R, part, 0) for role, part in enumerate((masked, masked, mask))]


def share_terms(value: npt.ArrayLike, R: Ring = Z64, seed: int = 0) -> list[Additive]:
    """An additive sharing without a dealer's part."""
    first, _ = _uniform(seed, R, np.shape(value))
    parts = (first, R.sub(R.constant(value), first), R.zeros(*np.shape(value)))
    return [Additive(role, R, part, 0, dealer_part=False) for role, part in enumerate(parts)]


def shared_defender(defender: Defender) -> list[SharedDefender]:
    """The classifier at each role."""
    encoded = encode_defender(defender)
    parts = [share(matrix, seed=1 + number) for number, matrix in enumerate(encoded.matrices)]
    return [
        SharedDefender([part[role] for part in parts], encoded.magnitude_bits, encoded.gradient_bits)
        for role in range(3)
    ]


def value_of(results: Sequence[Any]) -> RingArray:
    """What three parties hold: shares, an additive sharing or an opened wire."""
    ring = results[0].ring
    if isinstance(results[0], Opened):
        np.testing.assert_array_equal(results[0].value, results[1].value)
        return ring.sub(results[0].value, results[2].value)  # type: ignore[no-any-return]
    if isinstance(results[0], Additive):
        return ring.add(ring.add(results[0].value, results[1].value), results[2].value)  # type: ignore[no-any-return]
    for role in range(3):
        np.testing.assert_array_equal(results[role].second, results[(role + 1) % 3].first)
    return ring.add(ring.add(results[0].first, results[1].first), results[2].first)  # type: ignore[no-any-return]


def floats_of(results: Sequence[Any], bits: int) -> FloatArray:
    """The same as real numbers."""
    return np.asarray(results[0].ring.signed(value_of(results)) / 2.0**bits)


def random_defender(*widths: int, seed: int = 0, last: float = 1.0) -> Defender:
    """h with values of both signs on the simplex; ``last``: a factor of its last layer."""
    rng = np.random.default_rng([seed, *widths])
    layers = [(rng.normal(size=(m, n)) * 3 / np.sqrt(m), rng.normal(size=n) * 0.3) for m, n in pairwise(widths)]
    W, b = layers.pop()
    return Defender([*layers, (W * last, b * last)])


def relative(logits: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """The label, and logits relative to it."""
    label = logits.argmax(-1)
    return label, logits - np.take_along_axis(logits, label[..., None], -1)
