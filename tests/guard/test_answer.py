"""What `siguard` releases: which noise is accepted, and the oblivious choice, for every accept pattern."""

from __future__ import annotations

from itertools import product as combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from guard_helpers import (
    PLANS,
    floats_of,
    random_defender,
    run,
    share,
    share_floats,
    share_opened,
    share_terms,
    shared_defender,
    value_of,
)

from siguard import Defender, GuardConfig
from siguard.guard import answer as gates
from siguard.guard.choice import choose
from siguard.guard.classifier import OPENED_BITS, SIGN_FRACTION_BITS, Classifier
from siguard.guard.lanes import Lane, lanes_of
from siguard.guard.plan import Plan
from siguard.guard.step_ranges import Reach
from siguard.mpc.arithmetic import multiply
from siguard.mpc.share import Share
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.ring import FRACTION_BITS, Z2, Z64

plans = pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
CONFIG = GuardConfig().resolved()
LANES = lanes_of(3)
REACH = Reach(CONFIG, LANES)
ONE = 1 << FRACTION_BITS


# --- the label --------------------------------------------------------------------------------------------


@plans
@pytest.mark.parametrize("target", [gates.BITS, Z64], ids=repr)
@pytest.mark.parametrize("classes", [2, 3, 10, 30])
def test_the_label_is_kept_exactly_where_it_is(classes: int, target: Any, plan: Plan) -> None:
    """At the last unit of each bound, and for every value that a wrap could leave behind."""
    edge = ONE + (ONE >> 13)
    inside = [0, 1, ONE - 1, ONE, edge]
    beyond = [-1, edge + 1, 2 * ONE, -ONE, 2**31, 2**32 + 5, 2**47, 2**62, 2**63 - 1, -(2**63), -(2**62), -(2**40)]
    rng = np.random.default_rng(classes)
    E = rng.choice(inside, size=(60, 2, classes))
    x = rng.choice([0, -1, -5, -(100 << ARGUMENT_BITS), -(200 << ARGUMENT_BITS)], size=E.shape)
    for row, value in enumerate(beyond):
        E[row, 0, row % classes] = value
        E[row, 1, (row + 1) % classes] = value
    for row, value in enumerate((1, 2, 1 << ARGUMENT_BITS, 200 << ARGUMENT_BITS)):
        x[20 + row, 0, row % classes] = value
    shares = share(x), share(E.astype(np.int64), seed=1)

    async def protocol(party: Any) -> Share:
        mine, others = (part[party.role] for part in shares)
        return await gates.label_kept(party, mine, others, REACH, plan, target)

    found = value_of(run(protocol).results)
    expected = ((E >= 0) & (edge >= E) & (x <= 0)).all(-1)
    np.testing.assert_array_equal(found, expected)
    assert 0.3 < expected.mean() < 0.9


# --- accepted ---------------------------------------------------------------------------------------------


@plans
def test_noise_is_accepted_where_h_has_left_its_side(plan: Plan) -> None:
    """Every pair of signs of h before and after, 0 being on both sides, with the label kept and lost."""
    unit = 1 << (OPENED_BITS - SIGN_FRACTION_BITS)
    sizes = [-(1 << 33), -unit, 0, unit, 1 << 33]
    cases = np.array(list(combinations(sizes, sizes, (0, 1))))
    own, after, kept = (cases[:, column] for column in range(3))
    logits = share_opened(own[:, None], Z64), share_opened(after[:, None], Z64, seed=1)
    label = share(kept[:, None], gates.BITS, seed=2)
    networks = shared_defender(random_defender(4, 8, 6, 1))

    async def protocol(party: Any) -> Any:
        classifier = Classifier(networks[party.role], plan)
        before, then = (logit[party.role] for logit in logits)
        mine = label[party.role]
        signs = await gates.own_signs(party.at("own"), before, classifier)
        conditions = Share.concatenate([mine[None], await multiply(party.at("sides"), mine, signs)])
        return await gates._accepted(party.at("ok"), classifier.sign_of(then), conditions, plan)

    found = value_of(run(protocol).results)[:, 0]
    expected = (kept == 1) & (np.sign(own) * np.sign(after) <= 0)
    np.testing.assert_array_equal(found, expected)


# --- the choice -------------------------------------------------------------------------------------------


def published_loop(ok: npt.NDArray[np.bool_], lanes: list[Lane], outer: int) -> int | None:
    """The lane whose noise the loop ends with; ok: whether the noise of a lane's parameters is accepted."""
    config = GuardConfig(outer=outer, learning_rate=0.5, c3=0.01).resolved()
    c3, rate, best = config.c3, float(config.learning_rate or 0), None
    for run_ in range(outer):
        (position,) = (
            index
            for index, lane in enumerate(lanes)
            if lane.run == run_
            and lane.c3(config) == pytest.approx(c3)
            and lane.learning_rate(config) == pytest.approx(rate)
        )
        if ok[position]:
            best, c3 = position, c3 * 10
        else:
            rate *= 1.1
    return best


def patterns(lanes: int) -> npt.NDArray[np.bool_]:
    """All accept patterns; lane j is accepted in pattern v where bit j of v is set."""
    return (np.arange(1 << lanes)[:, None] >> np.arange(lanes) & 1).astype(bool)


def expected_choice(outer: int) -> npt.NDArray[np.int64]:
    lanes = lanes_of(outer)
    one_hot = np.zeros((1 << len(lanes), len(lanes)), np.int64)
    for value, ok in enumerate(patterns(len(lanes))):
        best = published_loop(ok, lanes, outer)
        if best is not None:
            one_hot[value, best] = 1
    return one_hot


@pytest.mark.parametrize("outer", [1, 2, 3])
def test_the_table_is_the_published_loop_for_every_pattern(outer: int) -> None:
    np.testing.assert_array_equal(gates.choice_table(tuple(lanes_of(outer))), expected_choice(outer))


@pytest.mark.parametrize("outer", [1, 2, 3])
def test_the_table_selects_the_gain_of_the_chosen_lane(outer: int) -> None:
    lanes = lanes_of(outer)
    ok = patterns(len(lanes))
    gains = np.random.default_rng(outer).integers(-(2**62), 2**62, (len(ok), len(lanes), 5))
    shares = share_terms(ok.astype(np.int64), gates.BITS), share(gains, seed=1)

    async def protocol(party: Any) -> Any:
        return await gates._from_table(party, shares[0][party.role], shares[1][party.role], lanes)

    done = run(protocol)
    expected = (expected_choice(outer)[:, :, None] * gains).sum(1)
    np.testing.assert_array_equal(Z64.signed(value_of(done.results)), expected)
    assert done.traffic.rounds == 1, "that in which the pattern is opened"


@pytest.mark.parametrize("outer", [1, 2, 3, 4])
def test_the_loop_of_more_runs_is_the_published_one_too(outer: int) -> None:
    lanes = lanes_of(outer)
    shares = share(patterns(len(lanes)), Z2)
    found = value_of(run(lambda party: choose(party, shares[party.role], lanes, outer)).results)
    np.testing.assert_array_equal(found, expected_choice(outer))


# --- all of it --------------------------------------------------------------------------------------------


def centred_defender(classes: int) -> Defender:
    """h that is as often above 0 as below, on random confidences, and seldom near it."""
    defender = random_defender(classes, 8, 6, 1, seed=4, last=20.0)
    *layers, (W, b) = defender.layers
    h = defender(np.random.default_rng(0).dirichlet(np.full(classes, 0.5), 500))
    return Defender([*layers, (W, b - np.median(h))])


@plans
@pytest.mark.parametrize("outer", [2, 4])
def test_the_answer_is_the_candidate_that_was_chosen(outer: int, plan: Plan) -> None:
    """From x of all lanes to E of one of them, or to the undefended E: each row is one of these."""
    lanes = lanes_of(outer)
    rng = np.random.default_rng(outer)
    batch, classes = 40, 4
    reach = Reach(GuardConfig(outer=outer, c3=0.01).resolved(), lanes)
    defender = centred_defender(classes)
    label = rng.integers(classes, size=batch)
    hot = np.eye(classes)[label]
    own = -np.abs(rng.normal(size=(batch, 1, classes))) * 2 * (1 - hot[:, None])
    # Some lanes lose the label.
    moved = (own + rng.normal(size=(batch, len(lanes), classes)) * 1.2 - 1) * (1 - hot[:, None])
    E0, E = np.exp(own), np.where(hot[:, None] == 1, 1.0, np.exp(moved))
    x = moved - hot[:, None] * reach.offset
    networks = shared_defender(defender)
    shares = [
        share_floats(E0, FRACTION_BITS),
        share_floats(x, ARGUMENT_BITS, seed=1),
        share(hot.astype(np.int64), seed=2),
        share_floats(E0.sum(-1, keepdims=True), FRACTION_BITS, seed=3),
    ]

    async def protocol(party: Any) -> Any:
        own_E, mine, one_hot, S = (part[party.role] for part in shares)
        classifier = Classifier(networks[party.role], plan)
        first: Any = lambda: None  # noqa: E731 - what chosen_answer takes of a first step
        first.E, first.logit = own_E, lambda: None
        first.logit.opened = await classifier.logit(party.at("own"), own_E, S)
        return await gates.chosen_answer(party.at("answer"), first, mine, one_hot, classifier, lanes, reach)

    found = floats_of(run(protocol).results, FRACTION_BITS)
    margin = hot * gates.LABEL_MARGIN / ONE

    def h(values: Any) -> Any:
        flat = (values / values.sum(-1, keepdims=True)).reshape(-1, classes)
        return defender(flat)[:, 0].reshape(values.shape[:-1])

    before, after = h(E0), h(E)
    clear = (np.abs(after) > 3e-2).all(1) & (np.abs(before[:, 0]) > 3e-2)
    ok = (moved <= 0).all(-1) & (before * after <= 0)
    one_of = [published_loop(row, lanes, outer) for row in ok]
    expected = np.array([E0[row, 0] if best is None else E[row, best] for row, best in enumerate(one_of)]) + margin
    assert clear.mean() > 0.8
    assert np.abs(found - expected)[clear].max() < 3e-4
    assert 0.2 < np.mean([best is None for best in one_of]) < 0.9, "both outcomes occur"
