"""What `decay` accepts, on shares: two |h| of different factors, compared as in float64, and the range of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from guard_helpers import PLANS, floats_of, run, share, share_floats, shared_defender

from siguard import Defender, GuardConfig, InputError
from siguard.guard.answer import LABEL_MARGIN
from siguard.guard.classifier import Classifier
from siguard.guard.closer import check_closer, closer_answer
from siguard.guard.config import DECAY_TOLERANCE
from siguard.guard.lanes import lanes_of
from siguard.guard.plan import Plan
from siguard.guard.shape import Shape
from siguard.guard.step_ranges import Reach
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.nn.model import FloatArray
from siguard.ring import FRACTION_BITS

ROWS = 150
REACH = Reach(GuardConfig("decay").resolved(), lanes_of(1))


def _answered(
    x: FloatArray, label: npt.NDArray[np.intp], defender: Defender, plan: Plan = PLANS["keys"]
) -> FloatArray:
    """The released row for the state before and after, (rows, 2, C)."""
    hot = np.eye(x.shape[-1])[label]
    E0 = np.where(hot == 1, 1.0, np.exp(x[:, 0]))[:, None]
    after = x[:, 1:] * (1 - hot[:, None]) - REACH.offset * hot[:, None]
    networks = shared_defender(defender)
    shares = [
        share_floats(E0, FRACTION_BITS),
        share_floats(after, ARGUMENT_BITS, seed=1),
        share(hot.astype(np.int64), seed=2),
    ]

    async def protocol(party: Any) -> Any:
        own, mine, one_hot = (part[party.role] for part in shares)
        classifier = Classifier(networks[party.role], plan)
        first: Any = lambda: None  # noqa: E731 - what closer_answer takes of a first step
        first.E, first.logit = own, lambda: None
        first.logit.opened = await classifier.logit(party.at("own"), own, own.sum(-1)[..., None])
        return await closer_answer(party.at("answer"), first, mine, one_hot, classifier, REACH)

    released = floats_of(run(protocol).results, FRACTION_BITS)
    return np.asarray(released - hot * LABEL_MARGIN / 2**FRACTION_BITS)


def _accepted(x: FloatArray, label: npt.NDArray[np.intp], released: FloatArray) -> npt.NDArray[np.bool_]:
    """Which of the two states was released; it must be one of them."""
    E = np.exp(x)
    np.put_along_axis(E, np.broadcast_to(label[:, None, None], (*E.shape[:2], 1)), 1.0, -1)
    off = np.abs(released[:, None] - E).max(-1)
    assert off.min(1).max() < 3e-4, f"a row that is neither of the two, {off.min(1).max():.2g} off"
    return np.asarray(off[:, 1] < off[:, 0])


def _defender(classes: int, size: float) -> Defender:
    """h of both signs over the simplex, with values of about ``size``."""
    rng = np.random.default_rng([0, classes])
    layers = [(rng.normal(size=(classes, 12)), rng.normal(size=12) / 9), (rng.normal(size=(12, 1)), np.zeros(1))]
    rows = rng.dirichlet(np.full(classes, 0.3), 500)
    h = Defender(layers)(rows)[:, 0]
    scale = size / np.abs(h - np.median(h)).mean()
    return Defender([layers[0], (layers[1][0] * scale, np.full(1, -np.median(h) * scale))])


def _states(classes: int, seed: int) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    """Each row unguarded and guarded, flat ones and confident ones, the label's entry 0."""
    rng = np.random.default_rng([seed, classes])
    label = rng.integers(classes, size=ROWS)
    spread = rng.choice([0.01, 1.0, 6.0], size=(ROWS, 2, 1))
    x = -np.abs(rng.normal(size=(ROWS, 2, classes))) * spread
    x[np.arange(ROWS), :, label] = 0.0
    return x, label


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize(("classes", "size"), [(2, 1e-3), (2, 30.0), (10, 0.1), (10, 1.0), (10, 1e3), (100, 1.0)])
def test_the_comparison_agrees_with_float64(classes: int, size: float, plan: Plan) -> None:
    defender = _defender(classes, size)
    x, label = _states(classes, seed=3)
    E = np.exp(x)
    h = defender((E / E.sum(-1, keepdims=True)).reshape(-1, classes)).reshape(ROWS, 2)
    excess = np.abs(h[:, 1]) - np.abs(h[:, 0]) - DECAY_TOLERANCE
    # What fixed point and the exponential resolve: 2^-13 in each entry of a layer.
    slope = sum(float(np.abs(W).sum(axis=0).max()) for W, _ in defender.layers[1:])
    clear = np.abs(excess) > 2.0**-13 * (1 + slope)
    assert clear.mean() > 0.7, f"{clear.mean():.0%} of the rows are clear"
    found = _accepted(x, label, _answered(x, label, defender, plan))
    wrong = np.flatnonzero((found != (excess < 0)) & clear)
    assert wrong.size == 0, f"rows {wrong.tolist()}, excess {excess[wrong].tolist()}"
    if size >= 0.1:
        assert 0.1 < found.mean() < 0.9, "both outcomes occur"


@pytest.mark.parametrize("lost", [2.0**-ARGUMENT_BITS, 0.5, 5.0, 6.5, 100.0])
def test_an_answer_that_lost_its_label_is_not_accepted(lost: float) -> None:
    """Whatever the exponential says of it: beyond its window it is 0."""
    defender = _defender(6, 1e-3)  # |h| below the tolerance: the label alone decides
    x, label = _states(6, seed=4)
    x[:, 1] = x[:, 0] - 0.25 * (x[:, 0] < 0)
    assert _accepted(x, label, _answered(x, label, defender)).all()
    x[np.arange(ROWS), 1, (label + 1) % 6] = lost
    released = _answered(x, label, defender)
    own = np.exp(x[:, 0])
    assert np.abs(released - own).max() < 3e-4


def test_a_classifier_whose_products_could_leave_the_ring_is_refused() -> None:
    """2^9 (|S h| S0 + |S0 h0| S) and S S0, at 32 fraction bits, with S up to C (1 + 2^-13)."""
    for classes in (2, 3, 10, 30, 100, 512):
        for bits in range(31):
            shape = Shape(1, (classes, 4, 1), (3, bits), Plan())
            S = classes * (1 + 2.0**-13)
            largest = S**2 * (2 * 2.0**bits / DECAY_TOLERANCE + 1) * 2.0 ** (2 * FRACTION_BITS)
            if largest >= 2.0**63:
                with pytest.raises(InputError, match=rf"^defender: \|h\| can reach 2\^{bits}; policy 'decay'"):
                    check_closer(shape)
            elif largest < 2.0**60:
                check_closer(shape)
