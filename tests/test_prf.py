"""Addressed pairwise randomness: the same for both holders, different for every other address, drawn once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from siguard import prf
from siguard.errors import RandomnessReuseError
from siguard.prf import KEY_BYTES, PairwiseRandomness, derive_key, fresh_key
from siguard.ring import BYTES, Z2, Z64, RingArray, ring

FEW = settings(deadline=None, max_examples=40, derandomize=True)
SESSION = bytes(range(16))
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
#: Draws longer than this many bytes have a cipher of their own.
LARGE = prf._SHARED_CIPHER_LIMIT


def source(
    party: str = "S0",
    *,
    key: bytes = KEY,
    session: bytes = SESSION,
    dealer: str = "S2",
) -> PairwiseRandomness:
    return PairwiseRandomness({"S0S1": key, "S0S2": OTHER_KEY, "S1S2": KEY}, session, dealer, party)


def stream(
    randomness: PairwiseRandomness, path: str = "a/b[0]", purpose: str = "open", pair: str = "S0S1"
) -> bytes:
    return randomness.draw(pair, purpose, path, BYTES, (64,)).tobytes()


@pytest.mark.parametrize("elements", [1, 100, LARGE // 8, LARGE // 8 + 1, LARGE])
def test_both_members_of_a_pair_draw_the_same(elements: int) -> None:
    one = source("S0").draw("S0S1", "open", "x", Z64, (elements,))
    other = source("S1").draw("S0S1", "open", "x", Z64, (elements,))
    np.testing.assert_array_equal(one, other)
    assert one.dtype == np.uint64


def test_the_order_of_draws_does_not_matter() -> None:
    paths = [f"step[{index}]" for index in range(20)]
    one, other = source("S0"), source("S1")
    forwards = [stream(one, path) for path in paths]
    backwards = [stream(other, path) for path in reversed(paths)]
    assert forwards == backwards[::-1]


def test_every_part_of_an_address_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {
        "reference": stream(source()),
        "path": stream(source(), "a/b[1]"),
        "purpose": stream(source(), purpose="view"),
        "pair, of the same key": stream(source(), pair="S1S2"),
        "key": stream(source(key=OTHER_KEY)),
        "session": stream(source(session=bytes(16))),
        "dealer": stream(source(dealer="S1")),
    }
    monkeypatch.setattr(prf, "PROTOCOL_VERSION", 2)
    streams["version"] = stream(source())
    assert len(set(streams.values())) == len(streams), streams


names = st.text(alphabet="ab|/[0]", max_size=6)


@FEW
@given(one=st.tuples(names, names), other=st.tuples(names, names))
@example(one=("a|b", "c"), other=("a", "b|c"))
def test_different_addresses_have_different_streams(one: tuple[str, str], other: tuple[str, str]) -> None:
    assume(one != other)
    randomness = source()
    drawn = [stream(randomness, path, purpose) for purpose, path in (one, other)]
    assert drawn[0] != drawn[1], (one, other)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1000,), ()])
def test_a_second_draw_raises_whatever_its_shape(shape: tuple[int, ...]) -> None:
    randomness = source("S1")
    stream(randomness, "guard/inner[3]")
    with pytest.raises(RandomnessReuseError, match="drawn twice") as caught:
        randomness.draw("S0S1", "open", "guard/inner[3]", Z64, shape)
    error = caught.value
    assert (error.party, error.session, error.step) == ("S1", SESSION.hex(), "guard/inner[3]")
    for part in ("S1", SESSION.hex(), "guard/inner[3]", "party.at(name)"):
        assert part in str(error)


def test_a_reuse_by_one_party_does_not_bother_the_other() -> None:
    one, other = source("S0"), source("S1")
    expected = stream(one)
    with pytest.raises(RandomnessReuseError):
        stream(one)
    assert stream(other) == expected


@pytest.mark.parametrize("length", [1, 15, 16, 17, 1000, LARGE, LARGE + 1, 2 * LARGE])
def test_a_shorter_draw_is_a_prefix_of_a_longer_one(length: int) -> None:
    longest = source().draw("S0S1", "open", "x", BYTES, (2 * LARGE,))
    drawn = source().draw("S0S1", "open", "x", BYTES, (length,))
    np.testing.assert_array_equal(drawn, longest[:length])


@pytest.mark.parametrize("bits", [1, 3, 8, 9, 31, 64])
def test_draws_are_reduced_and_have_the_shape_asked_for(bits: int) -> None:
    R = ring(bits)
    drawn = source().draw("S0S1", "open", "x", R, (5, 7, 11))
    assert drawn.shape == (5, 7, 11)
    assert drawn.dtype == R.dtype
    assert int(drawn.max()) < 1 << bits
    assert source().draw("S0S1", "open", "x", R, (0, 3)).shape == (0, 3)


def test_draws_in_threads_do_not_disturb_each_other() -> None:
    # Small draws share one cipher, whose counter is set and read; large ones run beside them.
    sizes = {f"step[{index}]": 64 + 97 * index if index % 8 else LARGE + index for index in range(400)}
    alone, shared = source("S0"), source("S1")
    expected = {path: alone.draw("S0S1", "open", path, BYTES, (size,)) for path, size in sizes.items()}
    start = threading.Barrier(8)

    def work(worker: int) -> dict[str, RingArray]:
        start.wait()
        mine = list(sizes.items())[worker::8]
        return {path: shared.draw("S0S1", "open", path, BYTES, (size,)) for path, size in mine}

    with ThreadPoolExecutor(8) as pool:
        for drawn in pool.map(work, range(8)):
            for path, elements in drawn.items():
                np.testing.assert_array_equal(elements, expected[path], err_msg=path)


def test_bytes_look_uniform() -> None:
    count = 1 << 18
    drawn = source().draw("S0S1", "open", "x", BYTES, (count,))
    expected = count / 256
    chi_square = float(((np.bincount(drawn, minlength=256) - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: mean 255, standard deviation 22.6; five of them either way.
    assert abs(chi_square - 255) < 5 * np.sqrt(2 * 255), chi_square
    bits = source().draw("S0S1", "open", "bits", Z2, (count,))
    assert abs(float(bits.mean()) - 0.5) < 5 * 0.5 / np.sqrt(count)


# --- keys -------------------------------------------------------------------------------------------------

contexts = st.one_of(st.lists(st.text(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))


@FEW
@given(one=contexts, other=contexts)
@example(one=["ab", "c"], other=["a", "bc"])
@example(one=["", "a"], other=["a", ""])
@example(one=[], other=[""])
@example(one=["a\0\0\0\1", "b"], other=["a", "b"])
def test_different_contexts_give_different_keys(one: list[str | bytes], other: list[str | bytes]) -> None:
    encoded = [[part.encode() if isinstance(part, str) else part for part in context] for context in (one, other)]
    assume(encoded[0] != encoded[1])
    assert derive_key(KEY, *one) != derive_key(KEY, *other)
    assert derive_key(KEY, *one) != derive_key(OTHER_KEY, *one)


def test_numbers_text_and_bytes_are_different_contexts() -> None:
    keys = {derive_key(KEY, 1), derive_key(KEY, "1"), derive_key(KEY, b"1")}
    assert len(keys) == 3


def test_fresh_keys_repeat_only_with_a_seed() -> None:
    assert fresh_key(KEY, "pair", "S0S1") == fresh_key(KEY, "pair", "S0S1") == derive_key(KEY, "pair", "S0S1")
    assert fresh_key(None, "pair") != fresh_key(None, "pair")
    assert len(fresh_key(None)) == len(fresh_key(KEY)) == KEY_BYTES
