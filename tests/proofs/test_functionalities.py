"""Each ideal functionality on its own, against whole numbers; where its parts come from; the hybrid model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.actors.local import run_three
from siguard.errors import ProtocolError, RandomnessReuseError
from siguard.mpc import arithmetic, io, keyed
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share, as_additive
from siguard.proofsim.ideal import (
    IDEALS,
    FreshParts,
    RecordedParts,
    TrustedParty,
    hybrid,
    same_parts,
    value_of,
)
from siguard.proofsim.queries import (
    NoRandomness,
)
from siguard.ring import PACKED, Z2, Z64, Ring, RingArray, ring

ROLES = (0, 1, 2)


# Where parts come from --------------------------------------------------------------------------------------------


def test_recorded_parts_must_fit() -> None:
    share = Share(0, Z64, Z64.constant([1, 2]), Z64.constant([3, 4]), 0)
    parts = RecordedParts({("gate", "step"): share, ("many", "step"): [share, share * 2], ("none", "step"): None})
    np.testing.assert_array_equal(parts.part("gate", "step", "second", Z64, (2,)), share.second)
    np.testing.assert_array_equal(parts.part("many", "step#1", "first", Z64, (2,)), 2 * share.first)
    wrong: list[tuple[str, str, str, Ring, tuple[int, ...]]] = [
        ("gate", "other", "first", Z64, (2,)),
        ("other", "step", "first", Z64, (2,)),
        ("gate", "step", "value", Z64, (2,)),
        ("gate", "step", "first", PACKED, (2,)),
        ("gate", "step", "first", Z64, (1,)),
        ("none", "step", "first", Z64, (2,)),
    ]
    for asked in wrong:
        with pytest.raises(ProtocolError, match="the recorded run has no"):
            parts.part(*asked)


def test_fresh_parts_follow_from_seed_and_address_and_serve_once() -> None:
    def part(seed: int, *where: str) -> bytes:
        return FreshParts(seed).part(*where, Z64, (4,)).tobytes()  # type: ignore[call-arg, arg-type]

    places = [("gate", "a", "first"), ("gate", "a", "second"), ("gate", "b", "first"), ("other", "a", "first")]
    drawn = [part(seed, *where) for seed in (1, 2) for where in places]
    assert len(set(drawn)) == len(drawn)
    assert part(1, *places[0]) == drawn[0]
    source = FreshParts(1)
    source.part(*places[0], Z64, (4,))
    with pytest.raises(RandomnessReuseError):
        source.part(*places[0], Z64, (4,))


# Each functionality against integers ------------------------------------------------------------------------------

RINGS = st.sampled_from([Z2, ring(3), ring(8), ring(32), Z64])


@st.composite
def elements(draw: st.DrawFn, kind: Ring, size: int) -> RingArray:
    return kind.constant(draw(st.lists(st.integers(0, 2**63 - 1), min_size=size, max_size=size)))


def integers(array: RingArray) -> list[int]:
    return [int(x) for x in array.reshape(-1)]


def terms_of(kind: Ring, value: RingArray, seed: int, dealer_part: bool) -> list[Additive]:
    rng = np.random.default_rng(seed)
    first, third = (kind.from_bytes(rng.bytes(value.nbytes), value.shape) for _ in range(2))
    third = third if dealer_part else kind.zeros(*value.shape)
    parts = (first, kind.sub(kind.sub(value, first), third), third)
    return [Additive(role, kind, part, 0, dealer_part=dealer_part) for role, part in enumerate(parts)]


def opened_of(kind: Ring, value: RingArray, seed: int) -> list[Opened]:
    mask = kind.from_bytes(np.random.default_rng(seed).bytes(value.nbytes), value.shape)
    c = kind.add(value, mask)
    return [Opened(0, kind, c, 0), Opened(1, kind, c, 0), Opened(2, kind, mask, 0)]


def check_wire(shares: Sequence[Share], kind: Ring) -> RingArray:
    for role, share in enumerate(shares):
        assert (share.role, share.ring) == (role, kind)
        np.testing.assert_array_equal(share.second, shares[(role + 1) % 3].first)
        for part in (share.first, share.second):
            np.testing.assert_array_equal(part, kind.convert(part))
    return value_of(shares)


CASES = {"data": st.data(), "kind": RINGS, "role": st.sampled_from(ROLES), "seed": st.integers(0, 1000)}
few = settings(max_examples=40, deadline=None)


@few
@given(**CASES)
def test_open_gives_the_sum_under_a_mask(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    value = data.draw(elements(kind, 3))
    terms = terms_of(kind, value, seed, dealer_part=data.draw(st.booleans()))
    trusted = TrustedParty(role, FreshParts(seed))
    opened = IDEALS["arithmetic.open_additive"](trusted, "p", [(one,) for one in terms])
    np.testing.assert_array_equal(opened[0].value, opened[1].value)
    expected = [
        (c - r) % 2**kind.bits for c, r in zip(integers(opened[0].value), integers(opened[2].value), strict=True)
    ]
    assert expected == integers(value)
    own = FreshParts(seed).part("arithmetic.open_additive", "p", "value", kind, value.shape)
    np.testing.assert_array_equal(opened[role].value, own)


@few
@given(**CASES)
def test_view_shifts_both_parts(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    """c >> f - (r >> f), in the same ring or a smaller one: floor(z / 2^f) or one more while nothing wraps."""
    small = data.draw(
        st.sampled_from([one for one in (Z2, ring(3), ring(8), ring(32), Z64) if one.bits <= kind.bits])
    )
    shift = data.draw(st.integers(0, kind.bits - 1 if small is kind else kind.bits - small.bits))
    value = data.draw(elements(kind, 3))
    opened = opened_of(kind, value, seed)
    arguments = (shift,) if small is kind else (shift, small)
    trusted = TrustedParty(role, FreshParts(seed))
    shares = IDEALS["arithmetic.view"](trusted, "p", [(one, *arguments) for one in opened])
    found = check_wire(shares, small)
    cs, rs = integers(opened[0].value), integers(opened[2].value)
    assert integers(found) == [((c >> shift) - (r >> shift)) % 2**small.bits for c, r in zip(cs, rs, strict=True)]
    for z, c, r, result in zip(integers(value), cs, rs, integers(found), strict=True):
        if small is not kind or c >= r:
            assert (result - (z >> shift)) % 2**small.bits in (0, 1)
        if shift == 0:
            assert result == z % 2**small.bits
    assert not (shares[2].first == 0).all() or kind is Z2 or small.bits < 8 or role != 0 or not any(integers(value))


@few
@given(**CASES)
def test_view_without_arguments_is_exact(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    value = data.draw(elements(kind, 3))
    trusted = TrustedParty(role, FreshParts(seed))
    shares = IDEALS["arithmetic.view"](trusted, "p", [(one,) for one in opened_of(kind, value, seed)])
    np.testing.assert_array_equal(check_wire(shares, kind), value)


@few
@given(**CASES)
def test_remask_keeps_the_value(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    value = data.draw(elements(kind, 3))
    terms = terms_of(kind, value, seed, dealer_part=False)
    trusted = TrustedParty(role, FreshParts(seed))
    shares = IDEALS["arithmetic.remask"](trusted, "p", [(one,) for one in terms])
    np.testing.assert_array_equal(check_wire(shares, kind), value)
    for name in ("first", "second"):
        own = FreshParts(seed).part("arithmetic.remask", "p", name, kind, value.shape)
        np.testing.assert_array_equal(getattr(shares[role], name), own)


@few
@given(data=st.data(), kinds=st.lists(RINGS, min_size=1, max_size=3), role=st.sampled_from(ROLES))
def test_remask_together_keeps_each_value(data: st.DataObject, kinds: list[Ring], role: int) -> None:
    given_values = [data.draw(elements(kind, n + 1)) for n, kind in enumerate(kinds)]
    terms = [terms_of(kind, value, 1, False) for kind, value in zip(kinds, given_values, strict=True)]
    trusted = TrustedParty(role, FreshParts(1))
    outputs = IDEALS["arithmetic.remask_together"](trusted, "p", [([one[i] for one in terms],) for i in ROLES])
    for n, (kind, value) in enumerate(zip(kinds, given_values, strict=True)):
        np.testing.assert_array_equal(check_wire([outputs[i][n] for i in ROLES], kind), value)
    masks = [output.first.tobytes() for output in outputs[role] if output.ring is Z64]
    assert len(set(masks)) == len(masks), "each has a mask of its own"


@few
@given(**CASES)
def test_deal_shares_what_the_dealer_knows(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    value = data.draw(elements(kind, 3))
    arguments: list[Sequence[Any]] = [
        (kind, value.shape, None, 0),
        (kind, value.shape, None, 0),
        (kind, value.shape, lambda: value, 0),
    ]
    terms = IDEALS["arithmetic.deal"](TrustedParty(role, FreshParts(seed)), "p", arguments)
    assert not any(one.dealer_part for one in terms)
    assert not terms[2].value.any()
    np.testing.assert_array_equal(value_of(terms), value)
    wire = IDEALS["arithmetic.deal_wire"](TrustedParty(role, FreshParts(seed)), "p", arguments)
    np.testing.assert_array_equal(check_wire(wire, kind), value)
    assert not wire[0].second.any(), "the public part of a dealt wire is 0"


@few
@given(**CASES)
def test_input_and_reveal_pass_the_value(data: st.DataObject, kind: Ring, role: int, seed: int) -> None:
    value = data.draw(elements(kind, 3))
    trusted = TrustedParty(role, FreshParts(seed), {"in": value})
    shares = IDEALS["io.receive_input"](trusted, "in", [(kind, value.shape, 0)] * 3)
    np.testing.assert_array_equal(check_wire(shares, kind), value)
    assert IDEALS["io.reveal"](trusted, "out", [(one,) for one in shares]) == [None] * 3
    np.testing.assert_array_equal(trusted.answers["out"], value)


@pytest.mark.parametrize("role", ROLES)
def test_what_honest_servers_get_varies_with_the_coins_and_not_what_the_corrupted_one_gets(role: int) -> None:
    """The corrupted server's parts do not depend on the value."""
    outputs = []
    for number in (1, 2**63):
        terms = terms_of(Z64, Z64.constant(np.array([number], np.uint64)), 3, False)
        trusted = TrustedParty(role, FreshParts(4))
        outputs.append(IDEALS["arithmetic.remask"](trusted, "p", [(one,) for one in terms]))
    assert same_parts(outputs[0][role], outputs[1][role])
    assert not same_parts(outputs[0][(role + 1) % 3], outputs[1][(role + 1) % 3])


# The hybrid model -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("bits", [1, 8, 64])
def test_a_product_in_the_hybrid_model_is_exact(bits: int, role: int) -> None:
    kind = ring(bits)
    rng = np.random.default_rng([bits, role])
    x, y = (kind.from_bytes(rng.bytes(5 * kind.itemsize), (5,)) for _ in range(2))
    trusted = TrustedParty(role, FreshParts(1), {"x": x, "y": y})

    async def protocol(party: Party) -> Share:
        a = await io.receive_input(party.at("x"), kind, x.shape, 0)
        b = await io.receive_input(party.at("y"), kind, y.shape, 0)
        return await arithmetic.multiply(party.at("product"), a, b)

    async def run() -> Any:
        with hybrid(trusted):
            return await run_three(protocol, randomness=NoRandomness)

    ran = trio.run(run)
    assert ran.traffic.messages == 0
    expected = [(a * b) % 2**bits for a, b in zip(integers(x), integers(y), strict=True)]
    assert integers(check_wire(ran.results, kind)) == expected
    assert [gate for gate, _, _ in trusted.handed_out] == [
        "io.receive_input",
        "io.receive_input",
        "arithmetic.open_additive",
        "arithmetic.view",
    ]


def test_an_argument_that_is_passed_by_name_counts() -> None:
    value = Z64.constant([5 << 8])
    trusted = TrustedParty(0, FreshParts(1), {"x": value})

    async def protocol(party: Party) -> Share:
        share = await io.receive_input(party.at("x"), Z64, value.shape, 0)
        opened = await arithmetic.open_additive(party.at("open"), as_additive(share))
        return await arithmetic.view(party.at("view"), opened, shift=8)

    async def run() -> Any:
        with hybrid(trusted):
            return await run_three(protocol, randomness=NoRandomness)

    assert integers(value_of(trio.run(run).results))[0] in (5, 6)


@pytest.mark.parametrize("limited", [True, False])
def test_a_hybrid_model_of_one_session_leaves_others_as_they_are(limited: bool) -> None:
    """Two runs side by side: only servers in the named session call the trusted party."""
    sessions = [bytes([n] * 16) for n in range(2)]
    x = Z64.constant([5, 7])
    trusted = TrustedParty(0, FreshParts(1))
    ran: dict[bytes, Any] = {}

    async def protocol(party: Party) -> Share:
        nothing = Additive(party.role, Z64, x if party.role == 0 else Z64.zeros(2), 0, dealer_part=False)
        name = "same" if limited else party.channel.mailbox.session.hex()  # type: ignore[attr-defined]
        return await arithmetic.remask(party.at(name), nothing)

    async def run(session: bytes) -> None:
        ran[session] = await run_three(protocol, session=session)

    async def both() -> None:
        with hybrid(trusted, sessions[0] if limited else None):
            async with trio.open_nursery() as nursery:
                for session in sessions:
                    nursery.start_soon(run, session)

    trio.run(both)
    for session in sessions:
        np.testing.assert_array_equal(check_wire(ran[session].results, Z64), x)
    assert [ran[session].traffic.messages > 0 for session in sessions] == [False, limited]
    assert len(trusted.handed_out) == (1 if limited else 2)


def test_every_functionality_is_a_gate_and_is_put_back() -> None:
    before = standing()
    with hybrid(TrustedParty(0, FreshParts(1))):
        assert all(standing()[name] is not gate for name, gate in before.items())
    assert standing() == before


def standing() -> dict[str, Any]:
    """What the names of the primitive gates stand for."""
    return {name: vars(_module(name))[name.split(".")[1]] for name in IDEALS}


def _module(name: str) -> Any:
    return {"arithmetic": arithmetic, "io": io, "keyed": keyed}[name.split(".")[0]]


def test_same_parts_compares_elements() -> None:
    one = Share(0, Z64, Z64.constant([1]), Z64.constant([2]), 0)
    assert same_parts(one, Share(0, Z64, Z64.constant([1]), Z64.constant([2]), 9))
    assert not same_parts(one, Share(0, Z64, Z64.constant([1]), Z64.constant([3]), 0))
    assert same_parts([one], [one])
    assert not same_parts([one], [one, one])
    assert same_parts(None, None)
