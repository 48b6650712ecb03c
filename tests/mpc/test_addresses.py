"""Addresses: reuse raises; one seed gives one transcript whatever the scheduler does; every server may deal."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio
import trio._core._run as trio_run
from cost_cases import classifier, wire
from mpc_helpers import F, Shares, floats_of, run, share, share_opened, share_terms, value_of
from trio.testing import MockClock

from siguard.actors.local import run_three
from siguard.actors.session import SERVERS, roles_for
from siguard.errors import DeadlineError, ProtocolError, RandomnessReuseError, SiguardError
from siguard.guard.config import GuardConfig
from siguard.guard.plan import Plan
from siguard.guard.policy import POLICIES
from siguard.mpc import arithmetic, boolean, compare, conversion, curves
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.party import Party
from siguard.mpc.share import Share, as_opened
from siguard.mpc.splines import ARGUMENT_BITS, EXP_BITS, EXP_WINDOW
from siguard.mpc.thresholds import Way, at_least
from siguard.ring import Z2, Z64, RingArray, ring
from siguard.transport.frame import decode_frame

Frames = list[tuple[str, str, bytes]]
VALUES = np.array([[3, -1, 7, 7], [0, 5, -2, 1]]) << F
BITS = np.array([[1, 0, 1, 1], [0, 0, 1, 0]])


async def protocol(party: Party, x: Shares, b: Shares) -> Any:
    """Gates of every family, some of them side by side."""
    mine, bit = x[party.role], b[party.role]

    async def argmax() -> Share:
        counts = await compare.win_counts(party.at("argmax"), mine, Z64)
        places = await compare.ranked(party.at("hot"), counts, 1)
        return await arithmetic.remask(party.at("hot"), places[..., 0, 0])

    async def exp() -> Share:
        small = await arithmetic.view(party.at("small"), as_opened(mine), F - ARGUMENT_BITS)
        terms = await curves.exponential(party.at("exp"), small, 12)
        opened = await arithmetic.open_additive(party.at("exp"), terms)
        return await arithmetic.view(party.at("exp"), opened, EXP_BITS - F)

    hot, power = await side_by_side(argmax, exp)
    chosen, product = await side_by_side(
        lambda: conversion.select(party.at("select"), bit, power, mine),
        lambda: arithmetic.multiply(party.at("product"), power, power, F),
    )
    return hot, power, chosen, product


def transcript(seed: int = 3, dealer: str = "S2") -> tuple[list[Any], Frames]:
    frames: Frames = []
    x, b = share(VALUES, seed=1), share(BITS, Z2, seed=2)
    done = run(
        lambda party: protocol(party, x, b),
        seed=seed,
        dealer=dealer,
        observe_frame=lambda sender, receiver, data: frames.append((sender, receiver, data)),
    )
    return done.results, frames


def parts(results: list[Any]) -> list[list[int]]:
    """Every share of every party, as numbers."""
    return [
        [int(element) for element in np.ravel(array)]
        for result in results
        for part in result
        for array in (part.first, part.second)
    ]


def by_link(frames: Frames) -> dict[tuple[str, str], list[bytes]]:
    links: dict[tuple[str, str], list[bytes]] = {}
    for sender, receiver, data in frames:
        links.setdefault((sender, receiver), []).append(data)
    return links


def schedule(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Let trio order its tasks by this seed."""
    monkeypatch.setattr(trio_run, "_r", random.Random(seed))  # noqa: S311 - no secret
    monkeypatch.setattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)


def test_a_seed_gives_one_transcript() -> None:
    # Which of two links is read first is the scheduler's choice; what is on them is not.
    results, frames = transcript()
    again, frames_again = transcript()
    assert Counter(frames) == Counter(frames_again)
    assert parts(results) == parts(again)
    assert len(set(frames)) == len(frames), "no frame is sent twice"


def test_the_scheduler_changes_no_frame_and_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    results, frames = transcript()
    orders = {tuple(frames)}
    for order in range(12):
        schedule(monkeypatch, order)
        others, other_frames = transcript()
        assert Counter(other_frames) == Counter(frames), f"scheduler seed {order}"
        assert parts(others) == parts(results), f"scheduler seed {order}"
        orders.add(tuple(other_frames))
    assert len(orders) > 1, "the schedules did not differ: this test shows nothing"


def test_without_concurrency_every_link_carries_the_same_bytes_in_the_same_order() -> None:
    x = share(VALUES, seed=1)
    links = []
    for _ in range(3):
        frames: Frames = []
        run(
            lambda party: compare.relu(party, x[party.role], by=Way.ADDER),
            observe_frame=lambda sender, receiver, data: frames.append((sender, receiver, data)),  # noqa: B023
        )
        links.append(by_link(frames))
    assert links[0] == links[1] == links[2]


def test_another_seed_or_dealer_gives_other_masks() -> None:
    payloads = [
        {data[80:] for _, _, data in transcript(seed, dealer)[1]}
        for seed, dealer in ((3, "S2"), (4, "S2"), (3, "S0"))
    ]
    for one in range(3):
        for other in range(one):
            # Payloads of a few bits may agree by chance.
            common = {payload for payload in payloads[one] & payloads[other] if len(payload) >= 16}
            assert not common


@pytest.mark.parametrize("dealer", SERVERS)
def test_every_server_may_deal(dealer: str) -> None:
    results, frames = transcript(dealer=dealer)
    hot, power, chosen, product = ([result[index] for result in results] for index in range(4))
    x = VALUES / 2**F
    assert value_of(hot).tolist() == np.eye(4, dtype=int)[x.argmax(1)].tolist()
    exact = np.where(x < EXP_WINDOW[1], np.exp(x), 0)
    # The bound of the exponential, and a unit of the view.  The square doubles it, and adds a unit.
    bound = 1.0e-4 * exact + 1.0e-5 + 2.0**-F
    assert (np.abs(floats_of(power) - exact) <= bound).all()
    assert (np.abs(floats_of(chosen) - np.where(BITS, exact, x)) <= bound).all()
    assert (np.abs(floats_of(product) - exact**2) <= 2.1 * exact * bound + 2.0**-F).all()
    # Nothing is sent to the dealer; it deals keys to both, and wires to role 1.
    first, second, _ = roles_for(dealer)
    assert set(by_link(frames)) == {(first, second), (second, first), (dealer, first), (dealer, second)}


# --- reuse ------------------------------------------------------------------------------------------------

Gate = Callable[[Party], Awaitable[Any]]


def gates() -> dict[str, Gate]:
    x, b, i = share(VALUES, seed=1), share(BITS, Z2, seed=2), share_opened(BITS, ring(3), seed=3)
    t = share_terms(VALUES, seed=4)

    def compared(by: Way) -> Gate:
        return lambda p: at_least(p, as_opened(x[p.role]), [0, 5], by=by)

    return {
        "multiply": lambda p: arithmetic.multiply(p, x[p.role], x[p.role]),
        "open": lambda p: arithmetic.open_additive(p, t[p.role]),
        "remask": lambda p: arithmetic.remask(p, t[p.role]),
        "truncate": lambda p: arithmetic.truncate(p, x[p.role], F, ring(32)),
        "deal": lambda p: arithmetic.deal(p, Z64, (2,), lambda: Z64.zeros(2), 0),
        "and": lambda p: boolean.and_bits(p, b[p.role], b[p.role]),
        "sign": lambda p: boolean.sign_bit(p, x[p.role]),
        "select": lambda p: conversion.select(p, b[p.role], x[p.role], x[p.role]),
        "places": lambda p: curves.at_places(p, i[p.role], 0, 4),
        "exponential": lambda p: curves.exponential(p, x[p.role], 12),
        **{str(by): compared(by) for by in Way},
    }


def failure(protocol: Gate, **options: Any) -> SiguardError:
    """The first error of this package that a run ends with."""
    try:
        run(protocol, **options)
    except* SiguardError as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        assert isinstance(leaf, SiguardError)
        found = leaf
    else:
        pytest.fail("nothing was raised")
    return found


@pytest.mark.parametrize("name", gates())
def test_two_gates_at_one_step_raise(name: str) -> None:
    gate = gates()[name]

    async def twice(party: Party) -> None:
        step = party.at("guard").at("inner", 3)
        await gate(step)
        await gate(step)

    error = failure(twice)
    assert isinstance(error, RandomnessReuseError)
    assert error.party in SERVERS
    assert error.session
    assert (error.step or "").startswith("guard/inner[3]")
    assert "party.at(name)" in str(error)


@pytest.mark.parametrize("name", gates())
def test_two_gates_at_steps_of_their_own_are_fine(name: str) -> None:
    gate = gates()[name]

    async def both(party: Party) -> None:
        await side_by_side(lambda: gate(party.at("loop", 0)), lambda: gate(party.at("loop", 1)))

    run(both)


POLICY_CONFIGS = [
    GuardConfig("siguard", outer=2, inner=2),
    GuardConfig("decay", inner=2),
    *map(GuardConfig, ("linesearch", "label", "none")),
]


PLANS = {
    "keys": Plan(),
    "bit keys": Plan(Way.BIT_KEY, Way.KEY, Way.BIT_KEY),
    "adders": Plan(Way.ADDER, Way.ADDER, Way.ADDER, Way.ADDER, folded=False, joined=False),
    "in turn": Plan(sequential=True),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("config", POLICY_CONFIGS, ids=lambda config: config.policy)
def test_no_two_frames_of_a_policy_share_a_link_and_a_step(config: GuardConfig, plan: Plan) -> None:
    seen: Counter[tuple[str, str, bytes]] = Counter()

    def observe(sender: str, receiver: str, data: bytes) -> None:
        seen[sender, receiver, decode_frame(data).step] += 1

    shape = (3, 4, 2, 1)
    protect = POLICIES[config.policy].protect
    run(lambda p: protect(p, wire(p, 2, 3), classifier(p, shape), config, plan), observe_frame=observe)
    assert set(seen.values()) == {1}


async def test_a_second_frame_for_a_step_fails_the_run(autojump_clock: MockClock) -> None:
    async def repeats(party: Party) -> None:
        if party.role == 2:
            for _ in range(2):
                await party.channel.send(1, "view", 1, Z64.zeros(1))
        if party.role == 1:
            await trio.sleep(1)
            for _ in range(2):
                await party.channel.receive(2, "view", Z64, (1,), 0)

    with pytest.RaisesGroup(
        pytest.RaisesExc(ProtocolError, match="two frames", check=lambda error: error.party == "S2"),
        flatten_subgroups=True,
        allow_unwrapped=True,
    ):
        await run_three(repeats, deadline=5)


# --- peers that send something else -----------------------------------------------------------------------

WRONG: dict[str, RingArray] = {
    "another shape": Z64.zeros(3),
    "fewer axes": Z64.zeros(8),
    "more axes": Z64.zeros(1, 2, 4),
    "swapped axes": Z64.zeros(4, 2),
    "a smaller ring": ring(32).zeros(2, 4),
    "bytes": ring(8).zeros(2, 4),
    "nothing": Z64.zeros(0),
}


@pytest.mark.parametrize("sender", [0, 1, 2])
@pytest.mark.parametrize("payload", WRONG.values(), ids=WRONG)
def test_a_wrong_shape_or_ring_names_party_session_and_step(payload: RingArray, sender: int) -> None:
    x = share(VALUES, seed=1)

    async def honest_but_one(party: Party) -> Share | None:
        step = party.at("layer", 2)
        if party.role != sender:
            return await arithmetic.multiply(step, x[party.role], x[party.role])
        await party.channel.send(1 if sender != 1 else 0, step.path, 1, payload)
        return None

    error = failure(honest_but_one, dealer="S1", deadline=0.5)
    assert isinstance(error, ProtocolError)
    assert not isinstance(error, DeadlineError)
    assert error.party == roles_for("S1")[sender]
    assert len(error.session or "") == 32
    assert error.step == "layer[2]"
    assert str(payload.shape) in str(error)


def test_a_peer_that_sends_nothing_is_named_after_the_deadline() -> None:
    x = share(VALUES, seed=1)

    async def silent(party: Party) -> None:
        if party.role != 0:
            await arithmetic.multiply(party.at("layer"), x[party.role], x[party.role])

    error = failure(silent, deadline=0.2)
    assert isinstance(error, DeadlineError)
    assert (error.party, error.step) == ("S0", "layer")
