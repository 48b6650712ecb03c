"""The two other terms of the gradient on shares against float64: keep the label, stay close."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, floats_of, run, share_floats

from siguard import GuardConfig
from siguard.guard import terms as gates
from siguard.guard.lanes import lanes_of
from siguard.guard.plan import Plan
from siguard.guard.step_ranges import LARGEST_SCALE, Reach, TermWeights
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.nn.model import FloatArray
from siguard.ring import FRACTION_BITS

plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
CONFIG = GuardConfig().resolved()
LANES = lanes_of(3)
REACH = Reach(CONFIG, LANES)
GRADIENT_BITS = 10
ROWS = 30


class State:
    """Rows in all lanes, somewhat moved from where they started; the label's entry is 0 in E and far below in x."""

    def __init__(self, classes: int, *, lost: bool) -> None:
        rng = np.random.default_rng([classes, lost])
        self.label = rng.integers(classes, size=ROWS)
        shape = (ROWS, len(LANES), classes)
        self.own = -np.abs(rng.normal(size=(ROWS, 1, classes))) * 3 - 0.3
        self.x = self.own + rng.normal(size=shape) * (2.0 if lost else 0.1)
        self.hot = np.eye(classes)[self.label][:, None]
        self.others = np.exp(self.x) * (1 - self.hot)
        self.E = self.others + self.hot
        self.S = self.E.sum(-1, keepdims=True)
        self.lag = np.log(self.others.sum(-1, keepdims=True)) + rng.normal(size=(*shape[:2], 1)) * 0.2
        self.w = self.others * np.exp(-self.lag)
        self.own_S = (np.exp(self.own) * (1 - self.hot)).sum(-1, keepdims=True) + 1

    def computed(self, weights: TermWeights, plan: Plan, c3: float | None = None) -> FloatArray:
        """`other_terms` of it."""
        below = self.hot * REACH.offset
        x, own = self.x * (1 - self.hot) - below, self.own * (1 - self.hot) - below
        values = [
            *((value, FRACTION_BITS) for value in (self.E, self.others, self.S, self.w, np.exp(-self.lag))),
            *((value, ARGUMENT_BITS) for value in (x, own, np.log(self.own_S))),
            (np.full((ROWS, 1, 1), c3 or 0.0), 0),
        ]
        shares = [share_floats(value, bits, seed) for seed, (value, bits) in enumerate(values)]

        async def protocol(party: Any) -> Any:
            mine = [part[party.role] for part in shares]
            secret = None if c3 is None else mine[8]
            return await gates.other_terms(
                party,
                mine[5],
                gates.Softmax(*mine[:5]),
                gates.Reference(*mine[6:8]),
                REACH,
                weights,
                GRADIENT_BITS,
                plan,
                secret,
            )

        return floats_of(run(protocol).results, GRADIENT_BITS)

    def close(self) -> tuple[FloatArray, Any]:
        """w_i (S s_i - sum E_k s_k), s = sign(q - p); and the lanes where no sign is decided by rounding."""
        q, p = self.E / self.S, (np.exp(self.own) * (1 - self.hot) + self.hot) / self.own_S
        s = np.where(q >= p, 1.0, -1.0)
        clear = (np.abs(np.log(q / p)) > 4e-3).all(-1)
        return self.w * (self.S * s - (self.E * s).sum(-1, keepdims=True)), clear

    def kept(self) -> FloatArray:
        """S^2 exp(-lag) at the largest of the others, where it has overtaken the label."""
        others = np.where(self.hot == 1, -np.inf, self.x)
        top = others == others.max(-1, keepdims=True)
        scale = np.minimum(self.S**2 * np.exp(-self.lag), LARGEST_SCALE)
        return np.asarray(top * (others.max(-1, keepdims=True) > 0) * scale)


def weights_of(c1: float, c2: float, c3: float) -> TermWeights:
    return TermWeights(GuardConfig(c1=c1, c2=c2, c3=c3).resolved(), LANES)


@plans
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_stay_close(classes: int, plan: Plan) -> None:
    state, weights = State(classes, lost=False), weights_of(1.0, 0.0, 0.1)
    expected, clear = state.close()
    found = state.computed(weights, plan)
    scaled = np.abs(found - expected * weights.c3).max(-1) / weights.c3[:, 0]
    assert clear.mean() > 0.5
    assert scaled[clear].max() < 2e-2 * state.S.max() + 2.0**-GRADIENT_BITS


@plans
@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_keep_the_label(classes: int, lost: bool, plan: Plan) -> None:
    state, weights = State(classes, lost=lost), weights_of(1.0, 1.0, 0.0)
    expected = state.kept() * weights.c2
    found = state.computed(weights, plan)
    near = np.abs(np.where(state.hot == 1, -9.0, state.x).max(-1)) < 2e-3
    assert (expected.any(-1).mean() > 0.1) == lost
    off = np.abs(found - expected) / (1 + np.abs(expected))
    assert off.max(-1)[~near].max() < 4e-3


def test_both_and_a_secret_weight() -> None:
    state = State(4, lost=False)
    weights = weights_of(1.0, 10.0, 0.1)
    expected = state.close()[0] * weights.c3 + state.kept() * weights.c2
    clear = state.close()[1]
    assert np.abs(state.computed(weights, Plan()) - expected).max(-1)[clear].max() < 3.0
    together = TermWeights.together(CONFIG, LANES)
    secret = state.close()[0] * 7 + state.kept() * together.c2
    found = state.computed(together, Plan(), c3=7.0)
    assert np.abs(found - secret).max(-1)[clear].max() < 0.3


def test_no_weight_is_no_term() -> None:
    none = State(3, lost=False)
    shares = [share_floats(np.zeros((2, 6, 3)), 16) for _ in range(8)]

    async def protocol(party: Any) -> Any:
        mine = [part[party.role] for part in shares]
        soft, own = gates.Softmax(*mine[:5]), gates.Reference(*mine[6:8])
        weights = weights_of(1.0, 0.0, 0.0)
        return await gates.other_terms(party, mine[5], soft, own, REACH, weights, GRADIENT_BITS, Plan())

    done = run(protocol)
    assert done.results == [None] * 3
    assert done.traffic.messages == 0
    assert none.S.min() > 1
