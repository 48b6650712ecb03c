"""Ring laws, written once and applied to every ring; fixed point; exact limb products; packed bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from siguard.ring import (
    INNER_LIMIT,
    PACKED,
    Z64,
    PreparedMatrix,
    Ring,
    RingArray,
    bit_slices,
    decode,
    encode,
    limb_matmul,
    pack_bits,
    ring,
    unpack_bits,
)

FEW = settings(deadline=None, max_examples=15, derandomize=True)

WIDTHS = [*range(1, 9), 16, 31, 32, 48, 64]
MODULAR = [pytest.param(ring(bits), id=f"k={bits}") for bits in WIDTHS]


@dataclass(frozen=True)
class Case:
    """A ring and the Python integers that say what it must compute."""

    ring: Ring
    add: Callable[[int, int], int]
    mul: Callable[[int, int], int]
    neg: Callable[[int], int]

    def elements(self, *values: int) -> RingArray:
        return np.array(values, self.ring.dtype)


def modular(bits: int) -> Case:
    size = 1 << bits
    return Case(ring(bits), lambda x, y: (x + y) % size, lambda x, y: x * y % size, lambda x: -x % size)


CASES = [
    *(pytest.param(modular(bits), id=f"k={bits}") for bits in WIDTHS),
    pytest.param(Case(PACKED, int.__xor__, int.__and__, lambda x: x), id="packed"),
]


def numbers(case: Case, data: st.DataObject, count: int) -> list[int]:
    largest = (1 << case.ring.bits) - 1
    edges = [0, 1, largest, largest // 2, min(largest // 2 + 1, largest)]
    number = st.one_of(st.sampled_from(edges), st.integers(0, largest))
    return data.draw(st.lists(number, min_size=count, max_size=count), label="elements")


@pytest.mark.parametrize("case", CASES)
@FEW
@given(data=st.data())
def test_operations_are_those_of_integers(case: Case, data: st.DataObject) -> None:
    R, count = case.ring, 6
    x, y = numbers(case, data, count), numbers(case, data, count)
    X, Y = case.elements(*x), case.elements(*y)
    difference = [case.add(a, case.neg(b)) for a, b in zip(x, y, strict=True)]
    for result, expected in (
        (R.add(X, Y), [case.add(a, b) for a, b in zip(x, y, strict=True)]),
        (R.mul(X, Y), [case.mul(a, b) for a, b in zip(x, y, strict=True)]),
        (R.sub(X, Y), difference),
        (R.neg(X), [case.neg(a) for a in x]),
    ):
        assert result.dtype == R.dtype
        assert result.tolist() == expected


@pytest.mark.parametrize("case", CASES)
@FEW
@given(data=st.data())
def test_ring_laws(case: Case, data: st.DataObject) -> None:
    R = case.ring
    x, y, z = (case.elements(*numbers(case, data, 4)) for _ in range(3))
    one = case.elements((1 << 64) - 1) if R is PACKED else R.constant(1)
    laws = [
        (R.add(x, y), R.add(y, x)),
        (R.mul(x, y), R.mul(y, x)),
        (R.add(R.add(x, y), z), R.add(x, R.add(y, z))),
        (R.mul(R.mul(x, y), z), R.mul(x, R.mul(y, z))),
        (R.mul(x, R.add(y, z)), R.add(R.mul(x, y), R.mul(x, z))),
        (R.add(x, R.zeros(1)), x),
        (R.mul(x, one), x),
        (R.add(x, R.neg(x)), R.zeros(4)),
        (R.add(R.sub(x, y), y), x),
    ]
    for number, (left, right) in enumerate(laws):
        np.testing.assert_array_equal(left, right, err_msg=f"law {number} in {R}")


@pytest.mark.parametrize("case", CASES)
@FEW
@given(data=st.data(), axis=st.sampled_from([0, 1, -1]))
def test_sum_is_repeated_addition(case: Case, data: st.DataObject, axis: int) -> None:
    x = case.elements(*numbers(case, data, 12)).reshape(3, 4)
    total = case.ring.sum(x, axis)
    assert total.dtype == case.ring.dtype
    np.testing.assert_array_equal(total, reduce(case.ring.add, np.moveaxis(x, axis, 0)))


@pytest.mark.parametrize("case", CASES)
@FEW
@given(data=st.data())
def test_matmul_is_sums_of_products(case: Case, data: st.DataObject) -> None:
    R = case.ring
    x = case.elements(*numbers(case, data, 6)).reshape(2, 3)
    y = case.elements(*numbers(case, data, 12)).reshape(3, 4)
    expected = R.sum(R.mul(x[:, :, None], y[None]), 1)
    np.testing.assert_array_equal(R.matmul(x, y), expected)
    np.testing.assert_array_equal(R.matmul(x, PreparedMatrix(y)), expected)


@pytest.mark.parametrize("R", MODULAR)
@FEW
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
@example(values=[-(2**63), 2**63 - 1, -1, 0, 1])
def test_constants_and_signed_values_are_twos_complement(R: Ring, values: list[int]) -> None:
    half, size = 1 << (R.bits - 1), 1 << R.bits
    elements = R.constant(values)
    assert elements.dtype == R.dtype
    assert elements.tolist() == [value % size for value in values]
    assert R.signed(elements).tolist() == [(value + half) % size - half for value in values]


@pytest.mark.parametrize("R", MODULAR)
def test_constants_take_whole_numbers_only(R: Ring) -> None:
    for bad in (0.5, [1.0], "1", 2**64):
        with pytest.raises(TypeError, match="whole numbers"):
            R.constant(bad)
    assert R.constant(np.uint64(2**64 - 1)).tolist() == [(1 << R.bits) - 1]


@pytest.mark.parametrize("R", MODULAR)
@FEW
@given(data=st.data())
def test_shift_and_convert(R: Ring, data: st.DataObject) -> None:
    case = modular(R.bits)
    x = numbers(case, data, 5)
    shift = data.draw(st.integers(0, R.bits), label="shift")
    assert R.shift_right(case.elements(*x), shift).tolist() == [value >> shift for value in x]
    smaller = ring(data.draw(st.integers(1, R.bits), label="smaller"))
    converted = smaller.convert(case.elements(*x))
    assert converted.dtype == smaller.dtype
    assert converted.tolist() == [value % (1 << smaller.bits) for value in x]


@pytest.mark.parametrize("R", MODULAR)
def test_bytes_become_reduced_elements(R: Ring) -> None:
    data = bytes(range(256)) * R.itemsize
    elements = R.from_bytes(data, (16, 16))
    words = np.frombuffer(data, R.dtype).astype(object)
    assert elements.dtype == R.dtype
    assert elements.ravel().tolist() == [int(word) % (1 << R.bits) for word in words]


def test_rings_have_1_to_64_bits_and_are_equal_by_name() -> None:
    for bits in (-1, 0, 65):
        with pytest.raises(ValueError, match="1 to 64"):
            Ring(bits)
    assert ring(64) == Ring(64)
    assert hash(ring(64)) == hash(Ring(64))
    assert ring(64) != PACKED
    assert ring(63) != ring(64)


# --- fixed point ------------------------------------------------------------------------------------------

FRACTIONS = st.sampled_from([0, 1, 14, 16, 24, 30])


@FEW
@given(f=FRACTIONS, values=st.lists(st.floats(-(2.0**32), 2.0**32), min_size=1, max_size=8))
def test_encoding_rounds_to_nearest(f: int, values: list[float]) -> None:
    back = decode(encode(values, f), f)
    error = np.abs(back - np.array(values))
    # Half a unit in the last place, exactly: everything below 2^53 units is exact in float64.
    assert (error <= 2.0 ** -(f + 1)).all(), (values, back)


@FEW
@given(f=FRACTIONS, value=st.floats(allow_nan=False), limit=st.one_of(st.none(), st.floats(1, 2.0**20)))
@example(f=16, value=float("inf"), limit=None)
@example(f=16, value=float("-inf"), limit=1024.0)
@example(f=24, value=2.0**63, limit=None)
def test_encoding_saturates_and_never_wraps(f: int, value: float, limit: float | None) -> None:
    bound = 2.0 ** (62 - f) if limit is None else limit
    back = float(decode(encode([value], f, limit), f)[0])
    clipped = max(-bound, min(bound, value))
    # Half a unit of rounding, and half a unit of float64 where the clipped value has more than 53 bits.
    assert abs(back - clipped) <= 2.0 ** -(f + 1) + abs(clipped) * 2.0**-53


def test_nan_has_no_encoding_and_scalars_get_an_axis() -> None:
    with pytest.raises(ValueError, match="NaN"):
        encode([0.0, float("nan")], 16)
    assert encode(-1.0, 16).tolist() == [2**64 - 2**16]


# --- exact products through float64 -----------------------------------------------------------------------


def from_limbs(low: int, middle: int, high: int) -> np.uint64:
    return np.uint64((low + (middle << 22) + (high << 44)) % (1 << 64))


#: All limbs at their extreme with one sign: every product in a sum has the same sign.
EXTREMES = {
    "negative": from_limbs(-(1 << 21), -(1 << 21), -(1 << 19)),
    "positive": from_limbs((1 << 21) - 1, (1 << 21) - 1, (1 << 19) - 1),
    "odd": from_limbs(-(1 << 21) + 1, -(1 << 21) + 1, -(1 << 19) + 1),
}


@pytest.mark.parametrize("n", [1, INNER_LIMIT - 1, INNER_LIMIT, INNER_LIMIT + 1, 2 * INNER_LIMIT + 3])
@pytest.mark.parametrize("left", EXTREMES)
@pytest.mark.parametrize("right", EXTREMES)
def test_limb_products_are_exact_at_the_bound(n: int, left: str, right: str) -> None:
    x, y = np.full((2, n), EXTREMES[left]), np.full((n, 3), EXTREMES[right])
    x[1, ::2] = EXTREMES["odd"]
    exact = (x.astype(object) @ y.astype(object)) % (1 << 64)
    assert limb_matmul(x, PreparedMatrix(y)).tolist() == exact.tolist()


def test_the_inner_limit_is_tight() -> None:
    # The middle sum A0 B1 + A1 B0 of an odd value, as float64 computes it and as it is.
    def middle_sum(inner: int) -> tuple[float, int]:
        limbs = [-(1 << 21)] * (2 * inner)
        limbs[0] += 1
        row = np.array(limbs, np.float64)
        return float(row @ row), sum(limb * limb for limb in limbs)

    computed, exact = middle_sum(INNER_LIMIT)
    assert int(computed) == exact
    assert exact % 2 == 1
    computed, exact = middle_sum(2 * INNER_LIMIT)
    assert exact > 2**53
    assert int(computed) != exact


@FEW
@given(seed=st.integers(0, 2**32), m=st.integers(1, 5), n=st.integers(1, 40), p=st.integers(1, 5))
def test_limb_products_of_random_matrices(seed: int, m: int, n: int, p: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, 2**64, shape, np.uint64) for shape in ((m, n), (n, p)))
    exact = (x.astype(object) @ y.astype(object)) % (1 << 64)
    assert limb_matmul(x, PreparedMatrix(y)).tolist() == exact.tolist()


@pytest.mark.parametrize("R", [ring(48), Z64], ids=["k=48", "k=64"])
@pytest.mark.parametrize("rows", [1, 16])
def test_prepared_matrices_serve_many_products(R: Ring, rows: int) -> None:
    rng = np.random.default_rng(5)
    matrix = R.convert(rng.integers(0, 2**64, (INNER_LIMIT + 7, 70), np.uint64))
    prepared = PreparedMatrix(matrix)
    for _ in range(2):
        x = R.convert(rng.integers(0, 2**64, (rows, INNER_LIMIT + 7), np.uint64))
        np.testing.assert_array_equal(R.matmul(x, prepared), R.convert(x @ matrix))
        np.testing.assert_array_equal(R.matmul(x, matrix), R.convert(x @ matrix))
    assert prepared.blocks is prepared.blocks


# --- bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("R", MODULAR)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 130, 1023, 1024, 1025, 1100])
def test_bit_slices_transpose(R: Ring, count: int) -> None:
    elements = R.from_bytes(np.random.default_rng(count).bytes(count * R.itemsize), (count,))
    words = bit_slices(elements, R.bits)
    assert words.shape == (R.bits, -(-count // 64))
    planes = unpack_bits(words, words.shape[1] * 64)
    for row, plane in enumerate(planes):
        assert plane[:count].tolist() == (R.shift_right(elements, row) & R.dtype.type(1)).tolist()
    assert not planes[:, count:].any(), "spare lanes must be 0"


@FEW
@given(rows=st.integers(1, 4), count=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_packed_bits_come_back(rows: int, count: int, seed: int) -> None:
    planes = np.random.default_rng(seed).integers(0, 2, (rows, count), np.uint8)
    words = pack_bits(planes)
    assert words.dtype == np.uint64
    np.testing.assert_array_equal(unpack_bits(words, count), planes)
