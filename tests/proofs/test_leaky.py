"""The leaky guard: what it answers, what it shows, that the shape rung notices, and that nobody can ask for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trio

import siguard
from siguard import GuardConfig, InputError, open_cluster
from siguard.guard.config import POLICIES as CONFIGURED
from siguard.guard.policy import POLICIES
from siguard.privacy.metrics import auc
from siguard.proofsim.claims import Scope, failures
from siguard.proofsim.leaky import leaky_guard
from siguard.proofsim.rungs.shape import QUICK, battery
from siguard.proofsim.shape_cases import find_cases
from siguard.proofsim.shape_leak import attack_counts, iteration_leak, loop_counts, observed_counts

CASES = find_cases(QUICK[0], 1)
LIMIT = 10


def test_the_shape_rung_fails_on_it() -> None:
    with leaky_guard(LIMIT):
        failed = failures(battery(1, Scope(("siguard",))))
    assert "shape of siguard: same for members and non-members" in [claim.claim for claim in failed]
    assert "optimise/inner" in failed[0].problem
    assert "only the" in failed[0].problem


def test_other_policies_are_as_shipped_beside_it() -> None:
    with leaky_guard(LIMIT):
        assert not failures(battery(1, Scope(("label",))))


def test_servers_see_the_counts_of_the_float64_loop() -> None:
    expected = loop_counts(CASES.logits, CASES.defender, LIMIT)
    assert len({*expected.tolist()}) >= 3, f"rows that all stop at {expected} would show nothing"
    assert trio.run(observed_counts, CASES.logits, CASES.defender, LIMIT, 1) == expected.tolist()


async def test_answers_are_confidences_and_keep_the_label() -> None:
    with leaky_guard(LIMIT):
        async with open_cluster(1) as cluster:
            guarded = (await cluster.guard(CASES.logits, CASES.defender)).confidences
            frames = [(await cluster.guard(row[None], CASES.defender)).traffic.messages for row in CASES.logits[:4]]
    np.testing.assert_array_equal(guarded.argmax(axis=1), CASES.label)
    stopped = loop_counts(CASES.logits, CASES.defender, LIMIT + 1) <= LIMIT
    before = siguard.reference.softmax(CASES.logits)
    crossed = CASES.defender(guarded)[:, 0] * CASES.defender(before)[:, 0]
    assert (crossed[stopped] <= 1e-3).all()
    assert np.abs(guarded - before)[~stopped].max() < 1e-3
    assert len({*frames}) > 1


def test_nothing_but_the_harness_can_reach_it() -> None:
    package = Path(siguard.__file__).parent
    outside = [path for path in package.rglob("*.py") if "proofsim" not in path.relative_to(package).parts]
    assert len(outside) > 50
    assert not [path for path in outside if "leaky" in path.read_text()]
    assert {*POLICIES} == {*CONFIGURED}
    with pytest.raises(InputError, match="unknown policy 'leaky'"):
        GuardConfig("leaky")


def test_the_shipped_guard_is_back_afterwards() -> None:
    shipped, softmax = POLICIES["siguard"], siguard.guard.iteration._softmax
    with leaky_guard():
        assert POLICIES["siguard"] is not shipped
    with pytest.raises(RuntimeError, match="inside"), leaky_guard():
        raise RuntimeError("inside")
    assert POLICIES["siguard"] is shipped
    assert siguard.guard.policies.siguard.protect is shipped.protect
    assert siguard.guard.iteration._softmax is softmax


def test_iteration_counts_give_members_away() -> None:
    leak = iteration_leak(1)
    assert leak.interval[0] > 0.5, leak
    assert leak.interval[0] <= leak.auc <= leak.interval[1]
    assert leak.agreeing == len(leak.compared) == 3
    assert len({seen for _, seen in leak.compared}) == 3
    assert f"AUC {leak.auc:.2f}" in str(leak)


def test_the_attack_finds_nothing_in_nothing_and_everything_in_everything() -> None:
    rng = np.random.default_rng(1)
    member, group = np.tile([0, 1], 300), np.repeat([0, 1, 2], 200)
    chance = auc(attack_counts(rng.integers(1, 50, 600), member, group), member)
    assert abs(chance - 0.5) < 0.08, f"{chance} of 600 rows, seed 1"
    assert auc(attack_counts(20 + 20 * member, member, group), member) == 1.0
