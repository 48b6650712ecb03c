"""h and its gradient on shares against float64, by every plan and for one, two and three hidden layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from guard_helpers import PLANS, floats_of, random_defender, run, share_floats, shared_defender

from siguard import Defender, InputError
from siguard.guard.classifier import OPENED_BITS, Classifier
from siguard.guard.defender import FOLDED_LIMIT, can_be_folded, encode_defender
from siguard.guard.plan import Plan
from siguard.guard.reference import defender_gradient
from siguard.nn.model import FloatArray
from siguard.ring import FRACTION_BITS

plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
SHAPES = [(5, 9, 1), (5, 9, 6, 1), (5, 7, 6, 4, 1), (30, 6, 4, 1)]
shapes = pytest.mark.parametrize("widths", SHAPES, ids=lambda widths: "-".join(map(str, widths)))
GRADIENT_BITS = 13
#: Rounding: 2^-14 in each weight, 2^-16 in each value, over all layers of these networks.
CLOSE = 4e-3


def answers(classes: int, seed: int = 0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E (rows, lanes, C) with 1 at the label, w proportional to it and 0 there, and q."""
    rng = np.random.default_rng([seed, classes])
    label = rng.integers(classes, size=(12, 2))
    E = np.exp(-np.abs(rng.normal(size=(12, 2, classes))) * rng.choice([0.1, 1.0, 3.0], size=(12, 1, 1)))
    np.put_along_axis(E, label[..., None], 0.0, -1)
    w = E / E.sum(-1, keepdims=True)
    np.put_along_axis(E, label[..., None], 1.0, -1)
    E = np.rint(E * 2.0**FRACTION_BITS) / 2.0**FRACTION_BITS
    return E, w, E / E.sum(-1, keepdims=True)


def computed(defender: Defender, E: FloatArray, w: FloatArray, plan: Plan) -> tuple[FloatArray, FloatArray, Any]:
    """S h and w_i (S v_i - <v, E>), and the bits [h > 0] where the plan asks for them."""
    S = E.sum(-1, keepdims=True)
    shares = [share_floats(value, FRACTION_BITS, seed) for seed, value in enumerate((E, S, w))]
    networks = shared_defender(defender)

    async def protocol(party: Any) -> Any:
        classifier = Classifier(networks[party.role], plan)
        mine = [part[party.role] for part in shares]
        E, S, w = mine
        logit = await classifier.logit(party.at("logit"), E, S)
        return logit, *await classifier.with_gradient(party.at("gradient"), E, S, w, GRADIENT_BITS)

    alone, logits, gradients = zip(*run(protocol).results, strict=True)
    h = floats_of([logit.opened for logit in logits], OPENED_BITS)
    assert np.abs(h - floats_of(alone, OPENED_BITS)).max() < CLOSE, "alone and with its gradient"
    positive = None if logits[0].positive is None else floats_of([logit.positive for logit in logits], 0)
    return h, floats_of(gradients, GRADIENT_BITS), positive


@plans
@shapes
def test_logit_and_gradient_are_those_of_float64(widths: tuple[int, ...], plan: Plan) -> None:
    defender = random_defender(*widths)
    E, w, q = answers(widths[0])
    h, gradient, positive = computed(defender, E, w, plan)
    S = E.sum(-1)
    own, v = defender_gradient(defender, q.reshape(-1, widths[0]))
    expected = own.reshape(S.shape) * S
    v = (v * np.where(own > 0, 1.0, -1.0)[:, None]).reshape(E.shape)  # of h, where that is of |h|
    assert np.abs(h - expected).max() < CLOSE * S.max(), np.abs(h - expected).max()
    centred = w * (S[..., None] * v - (v * E).sum(-1, keepdims=True))
    # A ReLU whose input rounding moves over 0 changes the gradient of its row: rare.
    rows = np.abs(gradient - centred).max(-1) < 5 * CLOSE * np.abs(v).max()
    assert rows.mean() >= 0.95, f"{rows.mean():.1%} of the rows"
    assert np.abs(gradient[w == 0]).max() <= 2.0**-GRADIENT_BITS, "at the label"
    if positive is not None:
        clear = np.abs(expected) > CLOSE * S.max()
        np.testing.assert_array_equal(positive[..., 0][clear] != 0, expected[clear] > 0)


@pytest.mark.parametrize("widths", SHAPES[1::2], ids=lambda widths: "-".join(map(str, widths)))
def test_folded_and_layered_agree(widths: tuple[int, ...]) -> None:
    defender = random_defender(*widths, seed=3)
    E, w, _ = answers(widths[0], seed=3)
    folded = computed(defender, E, w, Plan())
    layered = computed(defender, E, w, Plan(folded=False))
    assert can_be_folded(widths)
    assert np.abs(folded[0] - layered[0]).max() < 1e-3
    assert np.median(np.abs(folded[1] - layered[1])) < 2.0**-10
    assert np.abs(folded[1] - layered[1]).max() < 0.05 * np.abs(layered[1]).max()


def test_only_two_hidden_layers_that_are_not_too_wide_are_folded() -> None:
    for widths, matrices in (((4, 5, 1), 2), ((4, 5, 6, 1), 3 + 2), ((4, 5, 6, 7, 1), 4)):
        assert len(encode_defender(random_defender(*widths)).matrices) == matrices, widths
        assert can_be_folded(widths) == (len(widths) == 4)
    assert can_be_folded((8, 512, 512, 1))
    assert FOLDED_LIMIT == 8 * 512 * 512
    assert not can_be_folded((9, 512, 512, 1))
    wide = encode_defender(Defender([(np.zeros((9, 512)), np.zeros(512)), *random_defender(512, 512, 1).layers]))
    assert len(wide.matrices) == 3


def test_a_classifier_beyond_the_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"^defender: its layers can reach .*weight decay"):
        encode_defender(random_defender(4, 16, 8, 1, last=1e9))
