"""Negative controls: each one changes what the shipped code does, keeps the answer, and is gone afterwards.

That each is caught by its rung is what `siguard prove` tests, which the documents run (docs/security.md).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import structlog.testing
import trio

import siguard
from siguard.actors.local import run_three
from siguard.actors.mailbox import Mailbox
from siguard.actors.session import roles_for
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, Planned, plan_for
from siguard.guard.shape import Shape
from siguard.mpc.arithmetic import remask
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.mpc.thresholds import Way
from siguard.proofsim.claims import RUNGS, Claim, Corrupted
from siguard.proofsim.controls import BATTERIES, CONTROLS, Control, control, run_control
from siguard.proofsim.controls.catalogue import KEYS, PLANNED, RECORDED
from siguard.proofsim.controls.control import _load
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.rungs import exact
from siguard.proofsim.view import View
from siguard.ring import Z64, RingArray
from siguard.transport.frame import Frame, Kind, decode_frame

BY_NAME = {one.name: one for one in CONTROLS}

#: What the plan of the harness demands, in its order.
PLAN = (
    "product without its zero share",
    "constant mask",
    "mask with one random bit per byte",
    "mask used in two steps",
    "loop that stops when the noise is good",
    "condition opened",
    "c3 and learning rate updated in the clear",
    "noise revealed to the servers",
    "message whose length depends on the value",
    "a secret in a log line",
    "randomness addressed by call order",
    "output mask equal to an input's mask",
    "one mask for value and bit",
    "two purposes at one address",
    "one address in two sessions",
    "role-free addresses after the dealer rotates",
    "truncation revealed with the answer alone",
    "answer sent to a server",
)
#: These change nothing that an honest run sends or draws; they have tests of their own.
UNSEEN = {
    "a secret in a log line",
    "truncation revealed with the answer alone",
    "second frame for one step taken",
}
#: Of gates on bits, which a guard in few rounds does without.
ON_BITS = {"condition opened", "one mask for value and bit", "skewed random bits", "bit of a threshold opened"}
#: Of gates that serve large batches.
ON_TABLES = {"digit of a mask told with its table"}
#: The loop gives another guard's answer, and draws in an order of one's own give none.
OTHER_ANSWERS = {"loop that stops when the noise is good", "randomness addressed by call order"}

each_control = pytest.mark.parametrize("one", CONTROLS, ids=lambda one: one.name)


# The list ---------------------------------------------------------------------------------------------------


def test_every_control_of_the_plan_is_there_once() -> None:
    assert tuple(one.name for one in PLANNED) == PLAN
    assert len(BY_NAME) == len(CONTROLS) == len(PLANNED) + len(RECORDED) + len(KEYS)


@each_control
def test_a_control_says_what_it_is_and_where_it_should_be_caught(one: Control) -> None:
    assert one.expected_rung in RUNGS
    assert one.expected_rung in BATTERIES
    assert one.why.startswith("Plan") == (one in PLANNED)
    assert one.why.endswith(".")


def test_controls_are_spread_over_the_ladder() -> None:
    assert {one.expected_rung for one in CONTROLS} >= {"exact", "simulation", "shape", "taint", "active"}


# Really there, and gone afterwards ----------------------------------------------------------------------------


def _tables(config: siguard.GuardConfig, shape: Shape, conditions: Conditions) -> Planned:
    return Planned(Plan(curves=Way.ADDER), 0, 0, 0.0)


async def _queries(rounds: str = "few") -> tuple[View, list[np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(8)
    model = siguard.Model([(rng.normal(size=(4, 5)), np.zeros(5)), (rng.normal(size=(5, 3)), np.zeros(3))])
    # Three hidden layers go back bit by bit, and four outer runs are chosen bit by bit.
    widths, outer = ((3, 4, 4, 4, 1), 4) if rounds == "bytes" else ((3, 4, 1), 2)
    mode, planner = ("auto", _tables) if rounds == "tables" else (rounds, plan_for)
    defender = siguard.Defender([(rng.normal(size=(m, n)), np.zeros(n)) for m, n in pairwise(widths)])
    config = siguard.GuardConfig(outer=outer, inner=2, rounds=mode)
    recorder = Recorder()
    answers = []
    async with siguard.open_cluster(
        7, deadline=10, wrap_link=recorder.wrap_link, randomness=recorder.randomness
    ) as cluster:
        with patch("siguard.actors.cluster.plan_for", planner):
            for _ in range(2):  # two dealers
                result = await cluster.query(rng.normal(size=(2, 4)), model, defender, config)
                answers.append(result.confidences)
    return View(Corrupted(None, False), recorder.events()), answers


@cache
def _as_shipped(rounds: str) -> tuple[View, list[np.ndarray[Any, Any]]]:
    return trio.run(_queries, rounds)


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in UNSEEN])
def test_a_patch_changes_what_is_sent_or_drawn_but_not_the_answer(name: str) -> None:
    """Two queries under one seed, to the last bit of every frame and mask."""
    rounds = "bytes" if name in ON_BITS else "tables" if name in ON_TABLES else "few"
    shipped, right = _as_shipped(rounds)
    patched: View | None = None
    answers: list[np.ndarray[Any, Any]] = []
    with BY_NAME[name].patch():
        try:
            patched, answers = trio.run(_queries, rounds)
        except siguard.ProtocolError:  # of what is no answer at all
            assert name in OTHER_ANSWERS
    assert patched is None or shipped.diff(patched), "nothing differs: the patch is not active"
    if name not in OTHER_ANSWERS:
        # Other masks round differently, and what is rounded decides where noise ends.
        np.testing.assert_allclose(answers, right, atol=2e-2)
    again, answers = trio.run(_queries, rounds)
    assert shipped.diff(again) == []
    np.testing.assert_array_equal(answers, right)


def _bindings() -> dict[tuple[str, ...], int]:
    """Everything that a name in the package, or in a class of it, stands for."""
    found: dict[tuple[str, ...], int] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "siguard":
            continue
        for name, value in list(vars(module).items()):
            found[module_name, name] = id(value)
            if inspect.isclass(value) and value.__module__ == module_name:
                for member, method in list(vars(value).items()):
                    found[module_name, name, member] = id(method)
    policies = siguard.guard.policy.POLICIES
    return found | {
        ("POLICIES", name, part): id(getattr(policies[name], part))
        for name in policies
        for part in ("protect", "cost")
    }


@each_control
def test_a_patch_is_gone_afterwards_also_when_something_is_raised(one: Control) -> None:
    _load()
    before = _bindings()
    with one.patch():
        changed = {name for name, value in _bindings().items() if before.get(name) != value}
    assert changed
    assert _bindings() == before
    with pytest.raises(ZeroDivisionError), one.patch():
        raise ZeroDivisionError
    assert _bindings() == before


# Those that an honest run does not show -----------------------------------------------------------------------


def test_the_log_line_has_a_part_of_the_secret() -> None:
    with BY_NAME["a secret in a log line"].patch(), structlog.testing.capture_logs() as logs:
        trio.run(_queries)
    lines = [line for line in logs if line["event"] == "ranking"]
    assert {line["role"] for line in lines} == {0, 1, 2}
    assert all(any(len(word) > 15 for word in line["part"].strip("[] ").split()) for line in lines)
    with structlog.testing.capture_logs() as logs:
        trio.run(_queries)
    assert not [line for line in logs if line["event"] == "ranking"]


def test_the_control_of_the_claim_withholds_the_coins() -> None:
    given = [exact.COINS_ARE_GIVEN]
    with BY_NAME["truncation revealed with the answer alone"].patch():
        given.append(exact.COINS_ARE_GIVEN)
    assert [*given, exact.COINS_ARE_GIVEN] == [True, False, True]


async def test_a_second_frame_takes_the_place_of_the_first() -> None:
    def deliver_twice() -> Mailbox:
        mailbox = Mailbox(bytes(16), "S0")
        for value in (1, 2):
            mailbox.deliver("S1", Frame(Kind.DATA, bytes(16), bytes(8), 1, Z64.constant([value])))
        return mailbox

    with BY_NAME["second frame for one step taken"].patch():
        mailbox = deliver_twice()
    assert mailbox.failure is None
    assert mailbox._arrived["S1", bytes(8)].payload[0] == 2
    assert deliver_twice().failure is not None


# What a leak gives away, by hand ------------------------------------------------------------------------------


def _sent(secret: int, receiver: str, session: bytes, dealer: str) -> RingArray:
    """What ``receiver`` gets when role 0 and role 1 re-mask ``secret`` and 0."""
    frames: list[RingArray] = []

    async def protocol(party: Party) -> Share:
        value = Z64.constant([secret if party.role == 0 else 0])
        return await remask(party, Additive(party.role, Z64, value, 0, dealer_part=False))

    def observe(sender: str, to: str, data: bytes) -> None:
        if to == receiver:
            frames.append(decode_frame(data).payload)

    trio.run(partial(run_three, protocol, session=session, dealer=dealer, observe_frame=observe))
    return frames[0]


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("one address in two sessions", (b"b" * 16, "S2")),
        ("one key for all pairs", None),
        ("constant mask", (b"a" * 16, "S2")),
    ],
)
def test_messages_differ_by_the_difference_of_secrets(name: str, second: tuple[bytes, str] | None) -> None:
    """role 1 is sent v0 - y0 twice: under one mask the difference is that of the values."""
    first = (b"a" * 16, "S2")
    receiver = roles_for("S2")[1]

    def difference() -> int:
        one, other = (_sent(secret, receiver, *run) for secret, run in ((12345, first), (345, second or first)))
        return int((one - other)[0])

    if second is not None and second != first:
        assert difference() != 12000
    with BY_NAME[name].patch():
        assert difference() == 12000


def test_masks_of_one_dealer_are_those_of_another_in_other_roles() -> None:
    """S1 is sent v0 - y0 by S0 under dealer S2, and v1 - y2 by S2 under dealer S0: both masks are of key S0S2."""
    session = b"a" * 16

    def messages() -> tuple[int, int]:
        dealt_by_2 = _sent(12345, "S1", session, "S2")
        dealt_by_0 = _sent(0, "S1", session, "S0")
        return int(dealt_by_2[0]), int(dealt_by_0[0])

    one, other = messages()
    assert one - other != 12345
    with BY_NAME["role-free addresses after the dealer rotates"].patch():
        one, other = messages()
    assert (one - other) % 2**64 == 12345


# The climb ----------------------------------------------------------------------------------------------------


def test_the_climb_stops_at_the_first_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = BY_NAME["constant mask"]
    never: Callable[[int], Any] = lambda seed: pytest.fail("climbed too far")  # noqa: E731
    holding = Claim("of exact", "exact", "all", 1, True)
    failing = Claim("of shape", "shape", "S0", 1, False, problem="too long")
    ladder = {"exact": lambda seed: [holding], "shape": lambda seed: [failing], "content": never}
    monkeypatch.setattr(control, "BATTERIES", ladder)
    outcome = run_control(constant, 1)
    assert (outcome.control, outcome.expected_rung) == (constant.name, "exact")
    assert (outcome.caught_by, outcome.finding) == ("shape", "of shape {S0}: too long")
    assert not outcome.caught


def test_within_a_battery_the_lowest_rung_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = [Claim(rung, rung, "all", 1, False) for rung in ("simulation", "exact")]
    monkeypatch.setattr(control, "BATTERIES", {"exact": lambda seed: claims})
    assert run_control(BY_NAME["constant mask"], 1).caught_by == "exact"
    monkeypatch.setattr(control, "BATTERIES", {"exact": lambda seed: claims[:1]})
    assert run_control(BY_NAME["constant mask"], 1).caught_by == "simulation"


def test_what_the_protocol_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(seed: int) -> Iterator[Claim]:
        yield Claim("of exact", "exact", "all", 1, True)
        raise ExceptionGroup(
            "", [siguard.RandomnessReuseError("drawn twice"), siguard.RandomnessReuseError("drawn twice")]
        )

    monkeypatch.setattr(control, "BATTERIES", {"exact": raises})
    outcome = run_control(BY_NAME["constant mask"], 1)
    assert (outcome.caught_by, outcome.finding) == ("exact", "RandomnessReuseError: drawn twice")


def test_a_rung_that_cannot_be_loaded_has_found_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(seed: int) -> Iterator[Claim]:
        raise ModuleNotFoundError("no such rung")

    monkeypatch.setattr(control, "BATTERIES", {"exact": missing})
    with pytest.raises(ModuleNotFoundError):
        run_control(BY_NAME["constant mask"], 1)


def test_what_no_rung_notices_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "BATTERIES", {rung: lambda seed: [] for rung in RUNGS})
    outcome = run_control(BY_NAME["constant mask"], 1)
    assert outcome.caught_by is None
    assert outcome.to_dict()["verdict"] == "missed"


# With the rungs themselves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rung", BATTERIES)
def test_nothing_is_found_in_the_code_as_shipped(rung: str) -> None:
    assert [claim for claim in BATTERIES[rung](1) if not claim.holds] == []
