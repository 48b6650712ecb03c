"""Exact views of the shipped gates on tiny rings; what truncation does, counted; leaks that are seen exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from siguard.actors import windows
from siguard.actors.local import run_three
from siguard.mpc import arithmetic
from siguard.mpc.arithmetic import open_additive
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Opened, Share
from siguard.prf import PairwiseRandomness
from siguard.proofsim.claims import CORRUPTED_SETS, Corrupted
from siguard.proofsim.enumeration import Digits, Instance, Layout, Values, layout_of, recombine
from siguard.proofsim.exact import ExactResult, enumerate_views
from siguard.proofsim.histograms import Distances, codes, distances
from siguard.proofsim.instances import queries, sequences, single_gates
from siguard.proofsim.patching import replaced, replaced_method
from siguard.proofsim.walk import gates_of_the_package
from siguard.ring import PACKED, Z2, Ring, RingArray, ring

SERVERS = [one for one in CORRUPTED_SETS if not one.user]
EXACT = Distances(0.0, 0.0)


def instance(name: str) -> Instance:
    (found,) = [one for one in [*single_gates(False), *sequences(False), *queries(False)] if one.name == name]
    return found


async def distances_of(name: str) -> dict[str, ExactResult]:
    return {str(one): await enumerate_views(instance(name), one) for one in SERVERS}


async def test_the_product_in_z4_is_run_through_as_planned() -> None:
    """262,144 cases: all inputs, sharings and masks, whichever server is corrupted."""
    for corrupted, found in (await distances_of("multiply: Z_4")).items():
        assert found == ExactResult(1 << 18, EXACT, 0), corrupted


def without_masks(purposes: set[str]) -> object:
    """A `PairwiseRandomness.draw` that gives 0 for some purposes."""
    shipped = PairwiseRandomness.draw

    def draw(
        self: PairwiseRandomness, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]
    ) -> RingArray:
        return ring.zeros(*shape) if purpose in purposes else shipped(self, pair, purpose, path, ring, shape)

    return draw


async def test_a_product_without_its_zero_share_shows_the_other_summand() -> None:
    """r0 = r2 = 0, as a published framework had it: some of its own inputs let a server tell hidden ones apart."""
    with replaced_method(PairwiseRandomness, "draw", without_masks({"open"})):
        found = await distances_of("multiply: Z_4")
    assert found["S0"].distances.hidden == found["S1"].distances.hidden == 1.0
    assert found["S2"].distances == EXACT, "the dealer receives nothing, with or without masks"


async def test_a_remask_without_masks_shows_everything() -> None:
    with replaced_method(PairwiseRandomness, "draw", without_masks({"remask"})):
        found = await distances_of("remask: Z_4")
    assert found["S0"].distances == Distances(1.0, 0.75)


async def test_a_view_without_its_mask_tells_role_1_the_mask_of_the_wire() -> None:
    with replaced_method(PairwiseRandomness, "draw", without_masks({"view"})):
        found = await distances_of("multiply: Z_4")
    assert found["S1"].distances.hidden > 0


async def test_credit_that_so_many_cases_at_once_give_the_dealer_is_no_part_of_a_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large enumerations deal more than a window's piece in one call."""
    shipped, credited = windows.TakenBytes.take, set()

    def take(self: windows.TakenBytes, peer: str, size: int) -> int:
        due = shipped(self, peer, size)
        credited.update([peer] * (due > 0))
        return due

    case = instance("query: product, Z_2")
    before = [await enumerate_views(case, one) for one in CORRUPTED_SETS]
    monkeypatch.setattr(windows, "CREDIT_BYTES", 64)
    monkeypatch.setattr(windows.TakenBytes, "take", take)
    assert [await enumerate_views(case, one) for one in CORRUPTED_SETS] == before
    assert credited == {"S2"}


async def test_a_message_to_the_dealer_has_no_simulator() -> None:
    """An opening that the dealer is told of too: the simulated view does not have this message."""

    async def told(party: Party, x: Additive) -> Opened:
        opened = await shipped(party, x)
        step = party.at("also")
        if party.role == 0:
            await step.channel.send(2, step.path, 1, opened.value)
        elif party.is_dealer:
            await step.channel.receive(0, step.path, x.ring, x.shape, 0)
        return opened

    shipped = open_additive
    with replaced(open_additive, told), pytest.raises(Exception, match="S2"):
        await enumerate_views(instance("open: Z_4"), Corrupted.parse("S2"))


@pytest.mark.parametrize("corrupted", [one for one in CORRUPTED_SETS if one.user and one.server], ids=str)
async def test_given_the_answer_without_the_coins_the_claim_is_false(corrupted: Corrupted) -> None:
    query = instance("query: truncated product, Z_4")
    assert (await enumerate_views(query, corrupted)).distances == EXACT
    assert (await enumerate_views(query, corrupted, coins=False)).distances.hidden > 0


async def test_the_user_alone_needs_no_coins() -> None:
    query = instance("query: truncated product, Z_4")
    assert (await enumerate_views(query, Corrupted.parse("U"), coins=False)).distances == EXACT


async def test_a_wrong_value_is_counted() -> None:
    found = await enumerate_views(
        Instance("wrong", (), (Z2,), instance("remask: Z_2").run, lambda x, y, c: y[:, 0] == 0), SERVERS[0]
    )
    assert found.wrong == found.cases // 2
    assert found.distances == EXACT


async def test_low_bits_left_in_the_answer_are_wrong_values() -> None:
    """A truncation that is noted and not used: its view tells no more than the answer, which is the wrong one."""
    query = instance("answer: truncated secret, Z_4")

    async def untruncated(party: Party, opened: Opened, shift: int = 0, ring: Ring | None = None) -> Share:
        return await shipped(party, opened, 0, ring)

    shipped = arithmetic.view
    with replaced(arithmetic.view, untruncated):
        found = await enumerate_views(query, Corrupted.parse("S0,U"))
    assert found.wrong > 0


async def test_too_many_cases_are_refused() -> None:
    small = instance("multiply: Z_4")
    big = replace(small, name="big", rings=(ring(8),) * 2)
    with pytest.raises(ValueError, match="cases"):
        await enumerate_views(big, SERVERS[0])


# --- truncation, counted case by case ---------------------------------------------------------------------


async def truncated(bits: int, shift: int, target: Ring) -> tuple[Values, Values]:
    """Values z and results of a view, for all z and all masks r = r0 + r2 of its opening."""
    z, r = np.divmod(np.arange(1 << 2 * bits), 1 << bits)

    class Masks:
        def __init__(self, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None: ...

        def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
            return ring.constant(r) if (pair, purpose) == ("S0S2", "open") else ring.zeros(*shape)

    async def protocol(party: Party) -> Share:
        value = ring(bits).constant(z if party.role == 0 else z * 0)
        terms = Additive(party.role, ring(bits), value, 0, dealer_part=False)
        return await arithmetic.view(party, await open_additive(party, terms), shift, target)

    return z, recombine((await run_three(protocol, randomness=Masks)).results)


@pytest.mark.parametrize(("bits", "shift"), [(2, 1), (3, 1), (3, 2), (8, 3)])
async def test_truncated_view_is_floor_or_one_more(bits: int, shift: int) -> None:
    """Gate 2 (b): into the small ring there is no wrap, whatever z and whatever the mask."""
    z, result = await truncated(bits, shift, ring(bits - shift))
    excess = (result - (z >> shift)) % 2 ** (bits - shift)
    assert set(np.unique(excess)) <= {0, 1}
    rate = [float(excess[z == value].mean()) for value in range(2**bits)]
    assert rate == pytest.approx([(value % 2**shift) / 2**shift for value in range(2**bits)], abs=0)


@pytest.mark.parametrize(("bits", "shift"), [(3, 1), (3, 2), (8, 3)])
async def test_full_ring_view_wraps_exactly_as_often_as_stated(bits: int, shift: int) -> None:
    """Gate 2 (a): P[wrap] = |z| / 2^k."""
    z, result = await truncated(bits, shift, ring(bits))
    value, signed = (ring(bits).signed(array.astype(np.uint8)) for array in (z, result))
    wrapped = ~np.isin(signed - (value >> shift), [0, 1])
    for number in range(-(2 ** (bits - 1)), 2 ** (bits - 1)):
        assert wrapped[value == number].mean() == abs(number) / 2**bits, f"z = {number}"


# --- the machinery ----------------------------------------------------------------------------------------


def table(*rows: Sequence[int]) -> list[Values]:
    return list(np.array(rows, np.int64).T)


def test_distances_of_known_distributions() -> None:
    given, hidden = table(*[[0]] * 8), table(*[[h] for h in (0, 0, 0, 0, 1, 1, 1, 1)])
    uniform_given, uniform = table(*[[0]] * 4), table([0], [1], [2], [3])

    def found(*views: int) -> Distances:
        return distances(given, hidden, table(*[[v] for v in views]), uniform_given, uniform)

    assert found(0, 1, 2, 3, 3, 2, 1, 0) == EXACT
    assert found(0, 0, 1, 1, 0, 0, 0, 1) == Distances(0.25, 0.5)
    assert found(0, 0, 0, 0, 1, 1, 1, 1) == Distances(1.0, 0.75)
    assert found(0, 0, 1, 1, 0, 0, 1, 1) == Distances(0.0, 0.5), "equal views that no simulator makes"


def test_a_given_value_with_one_hidden_value_only_is_still_compared_with_the_simulated_view() -> None:
    found = distances(table([0], [1]), table([0], [0]), table([7], [8]), table([0], [1]), table([7], [7]))
    assert found == Distances(0.0, 1.0)


def test_codes_are_equal_exactly_for_equal_rows() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 3, (200, 40))
    (one, other) = codes(list(rows[:150].T), list(rows[150:].T))
    whole = np.concatenate([one, other])
    for i in range(0, 200, 7):
        assert np.array_equal(whole == whole[i], (rows == rows[i]).all(axis=1))


def test_digits_run_through_every_combination_once() -> None:
    digits = Digits()
    for name, bits, elements in (("a", 1, 2), ("b", 2, 1), ("a", 1, 1)):
        digits.note(name, bits, elements)
    assert digits.bits == 4
    digits.arrange(last=["a"])
    cases = np.arange(16)
    rows = np.concatenate([digits.values("a", cases), digits.values("b", cases)], axis=1)
    assert len({tuple(row) for row in rows.tolist()}) == 16
    assert np.array_equal(digits.values("b", cases)[:, 0], cases % 4), "what comes last changes slowest"


@pytest.mark.parametrize(
    ("R", "shape", "bits", "elements"),
    [(ring(2), (100,), 2, 1), (ring(3), (3, 100, 2), 3, 6), (PACKED, (5, 2), 1, 5), (PACKED, (100, 1), 4, 1)],
)
def test_layouts_are_their_own_inverse(R: Ring, shape: tuple[int, ...], bits: int, elements: int) -> None:
    layout = layout_of(R, shape, 100, word_bits=4)
    assert (layout.bits, layout.elements) == (bits, elements)
    values = np.random.default_rng(2).integers(0, 1 << bits, (100, elements))
    array = layout.array(values)
    assert array.shape == shape
    assert np.array_equal(layout.values(array), values)


def test_a_shape_without_the_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="no axis"):
        layout_of(ring(2), (99,), 100, 64)
    assert isinstance(layout_of(ring(2), (100,), 100, 64), Layout)


def test_every_gate_named_by_an_instance_exists() -> None:
    known = {gate.name for gate in gates_of_the_package()}
    for one in [*single_gates(True), *sequences(True), *queries(True)]:
        assert set(one.gates) <= known, one.name


def test_instance_names_are_unique() -> None:
    names = [one.name for one in [*single_gates(True), *sequences(True), *queries(True)]]
    assert len(names) == len(set(names))
