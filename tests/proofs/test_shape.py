"""The shape rung: it holds for what is shipped, and notices a length that depends on a value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio

from siguard import GuardConfig, open_cluster
from siguard.guard import answer
from siguard.guard.lanes import Lane, lanes_of
from siguard.guard.policy import POLICIES
from siguard.mpc.arithmetic import remask
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.proofsim.claims import ALL, Scope, failures
from siguard.proofsim.leaky import open_bit
from siguard.proofsim.patching import replaced
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.rungs.shape import QUICK, battery
from siguard.proofsim.shape_cases import all_patterns, find_cases, walk_lanes
from siguard.proofsim.shapes import first_difference
from siguard.proofsim.view import ShapeLine
from siguard.ring import BYTES

SETTING = QUICK[0]


@pytest.mark.parametrize("policy", list(POLICIES))
def test_the_shipped_policies_have_one_shape(policy: str) -> None:
    claims = battery(1, Scope((policy,)))
    assert not failures(claims), [claim.problem for claim in failures(claims)]
    assert {(claim.rung, claim.corrupted, claim.detectable) for claim in claims} == {("shape", ALL, 0.0)}
    details = [claim.claim.partition(": ")[2] for claim in claims]
    assert {"same for members and non-members", "same for all labels", "same for all scheduler seeds"} < {*details}
    assert min(claim.cases for claim in claims) >= (2 if policy == "decay" else 4)  # its accept patterns
    assert ("same for all accept patterns" in details) == (policy in ("siguard", "decay"))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cases_cover_what_they_say(seed: int) -> None:
    cases = find_cases(SETTING, seed)
    assert {*cases.patterns} == {*all_patterns(2)} == {"00", "01", "10", "11"}
    assert {*cases.decays.tolist()} == {False, True}
    members = {(label, member) for label, member in zip(cases.label, cases.member, strict=True)}
    assert members == {(label, member) for label in range(4) for member in (False, True)}, f"seed {seed}"
    assert (cases.logits == cases.model(cases.features)).all()


def test_lanes_are_walked_as_the_published_loop_goes() -> None:
    """A run that was accepted moves to the next number of acceptances; other lanes say nothing."""
    assert lanes_of(2) == [Lane(0, 0), Lane(1, 0), Lane(1, 1)]
    bits = np.array([[b >> 2 & 1, b >> 1 & 1, b & 1] for b in range(8)], dtype=np.bool_)
    assert walk_lanes(bits, 2) == ["00", "00", "01", "01", "10", "11", "10", "11"]


def patched_choice(leak: Callable[[Party, Share], Awaitable[None]]) -> Any:
    """The shipped choice, patched to leak the accept bits before it chooses."""
    choose = answer._from_table

    async def leaking(party: Party, ok: Additive, gains: Share, lanes: Sequence[Lane]) -> Additive:
        await leak(party.at("leak"), await remask(party.at("leak"), ok))
        return await choose(party, ok, gains, lanes)

    return replaced(choose, leaking)


async def length_of_the_value(party: Party, ok: Share, constant: int | None) -> None:
    """Role 0 sends role 1 as many bytes as there are accepted lanes, or always as many."""
    bits = [await open_bit(party.at("bit", lane), ok[:, lane]) for lane in range(ok.shape[1])]
    length = sum(bits) if constant is None else constant
    if party.role == 0:
        await party.channel.send(1, party.at("frame").path, 1, BYTES.zeros(length))
    elif party.role == 1:
        await party.channel.receive(0, party.at("frame").path, BYTES, (length,), 1)


def test_a_length_that_depends_on_the_value_is_caught() -> None:
    with patched_choice(partial(length_of_the_value, constant=None)):
        failed = failures(battery(1, Scope(("siguard",))))
    assert "shape of siguard: same for all accept patterns" in [claim.claim for claim in failed]
    assert "guard/answer/choice/leak/frame" in failed[0].problem
    assert "bytes: only the" in failed[0].problem


def test_the_same_patch_with_a_constant_length_is_not() -> None:
    """It is the length that was noticed; that the bits are opened is for other rungs to see."""
    with patched_choice(partial(length_of_the_value, constant=2)):
        assert not failures(battery(1, Scope(("siguard",))))


def test_a_frame_that_is_cut_fails_by_name() -> None:
    async def cut(party: Party, ok: Share) -> None:
        if party.role == 0:
            await party.channel.send(1, party.path, 1, BYTES.zeros(1))
        elif party.role == 1:
            await party.channel.receive(0, party.path, BYTES, (2,), 1)

    with patched_choice(cut):
        failed = failures(battery(1, Scope(("siguard",))))
    assert failed
    assert "expected 1-byte elements of shape (2,)" in failed[0].problem


def test_the_first_difference_is_named() -> None:
    lines = [ShapeLine("role 0>role 1", f"step {n}", n, 2, 8) for n in range(4)]
    longer = [*lines[:2], lines[2]._replace(length=16), lines[3]]
    assert "DATA step 2, round 2, 8 bytes: only the former has this frame" in first_difference(lines, longer)
    assert "only the former has this frame (4 frames against 3)" in first_difference(lines, lines[:3])
    assert "only the latter has this frame (3 frames against 4)" in first_difference(lines[:3], lines)
    assert first_difference([*lines, lines[0]], lines) == "the same frames, but 5 of them, not 4"


async def test_schedulers_differ() -> None:
    """Seeds of the scheduler are worth something: the order in which frames pass is another one."""
    cases = find_cases(SETTING, 1)
    state = trio._core._run._r.getstate()
    orders = set()
    for seed in range(3):
        recorder = Recorder()
        async with open_cluster(1, wrap_link=recorder.wrap_link) as cluster:
            trio._core._run._r.seed(seed)
            await cluster.guard(cases.logits[:1], cases.defender, GuardConfig(outer=1, inner=1))
        orders.add(tuple(str(event) for event in recorder.events()))
    trio._core._run._r.setstate(state)
    assert len(orders) == 3


def test_the_scheduler_is_put_back() -> None:
    before = trio._core._run._r.getstate()
    battery(1, Scope(("label",)))
    assert trio._core._run._r.getstate() == before
