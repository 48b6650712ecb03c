"""Comparison and point keys: the definition over whole and wide domains, what one party sees, sizes, errors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from siguard.mpc import fss_layout
from siguard.mpc.fss import (
    ROOT_BYTES,
    comparison_key_bytes,
    comparison_keys,
    evaluate_comparison,
    evaluate_window,
    point_key_bytes,
    point_keys,
)
from siguard.mpc.prg import Blocks, Generator
from siguard.ring import PACKED, Z2, Z64, Ring, RingArray, ring

FEW = settings(deadline=None, max_examples=40, derandomize=True)
SEED = 20_240_607
WIDE = [24, 32, 54, 63, 64]
RINGS = [Z2, ring(4), ring(8), ring(32), Z64]
WORDS = [1, 2, 3, 11]
CASES = [pytest.param(kind, words, id=f"{kind}-{words}") for kind in RINGS for words in WORDS]

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.uint64]
MakeKeys = Callable[[tuple[Bytes, Bytes], Numbers, RingArray, int, Ring], Bytes]


def draw_roots(rng: np.random.Generator, count: int) -> tuple[Bytes, Bytes]:
    first, second = rng.integers(0, 256, (2, count, ROOT_BYTES), dtype=np.uint8)
    return first, second


def draw_elements(rng: np.random.Generator, kind: Ring, *shape: int) -> RingArray:
    return kind.convert(rng.integers(0, 2**64, shape, dtype=np.uint64))


def numbers(*values: int) -> Numbers:
    return np.array(values, np.uint64)


def sum_of_comparison(
    roots: tuple[Bytes, Bytes], keys: Bytes, points: Numbers, bits: int, words: int, kind: Ring
) -> RingArray:
    return kind.add(
        *(evaluate_comparison(party, roots[party], keys, points, bits, words, kind) for party in (0, 1))
    )


def sum_of_window(
    roots: tuple[Bytes, Bytes], keys: Bytes, start: Numbers, count: int, bits: int, words: int, kind: Ring
) -> RingArray:
    return kind.add(
        *(evaluate_window(party, roots[party], keys, start, count, bits, words, kind) for party in (0, 1))
    )


def every_alpha(kind: Ring, words: int, bits: int) -> tuple[tuple[Bytes, Bytes], Numbers, RingArray]:
    """Roots, every alpha three times, and the payloads 1, -1 and random elements."""
    size = 1 << bits
    rng = np.random.default_rng([SEED, kind.bits, words, bits])
    signs = [kind.constant(np.full((size, words), value)) for value in (1, -1)]
    payload = np.concatenate([*signs, draw_elements(rng, kind, size, words)])
    alpha = np.tile(np.arange(size, dtype=np.uint64), 3)
    return draw_roots(rng, len(alpha)), alpha, payload


# --- the definition ---------------------------------------------------------------------------------------


def check_comparisons(kind: Ring, words: int, bits: int) -> None:
    roots, alpha, payload = every_alpha(kind, words, bits)
    keys = comparison_keys(roots, alpha, payload, bits, kind)
    points = np.broadcast_to(np.arange(1 << bits, dtype=np.uint64), (len(alpha), 1 << bits))
    found = sum_of_comparison(roots, keys, points, bits, words, kind)
    expected = np.where((points < alpha[:, None])[..., None], payload[:, None], 0)
    assert found.dtype == kind.dtype
    np.testing.assert_array_equal(found, expected, err_msg=f"{bits} bits")


@pytest.mark.parametrize(("kind", "words"), CASES)
def test_comparison_keys_are_the_definition_for_every_alpha_and_point(kind: Ring, words: int) -> None:
    for bits in range(1, 9):
        check_comparisons(kind, words, bits)


def test_one_bit_keys_with_levels_above_the_packed_leaf() -> None:
    check_comparisons(Z2, 1, 9)


@pytest.mark.parametrize(("kind", "words"), CASES)
def test_windows_are_the_definition_for_every_alpha(kind: Ring, words: int) -> None:
    for bits in range(1, 9):
        size = 1 << bits
        roots, alpha, payload = every_alpha(kind, words, bits)
        keys = point_keys(roots, alpha, payload, bits, kind)
        rng = np.random.default_rng([SEED, bits])
        for count in sorted({1, 2, max(1, size // 3), size - 1, size}):
            # One third of the windows starts anywhere, one third at 0, one third at the last leaf.
            start = rng.integers(0, size, len(alpha), dtype=np.uint64)
            start[:size], start[size : 2 * size] = 0, size - 1
            found = sum_of_window(roots, keys, start, count, bits, words, kind)
            leaves = (start[:, None] + np.arange(count, dtype=np.uint64)) % np.uint64(size)
            expected = np.where((leaves == alpha[:, None])[..., None], payload[:, None], 0)
            np.testing.assert_array_equal(found, expected, err_msg=f"{bits} bits, {count} leaves")


@st.composite
def wide_keys(draw: st.DrawFn) -> tuple[int, int, list[int], Ring, int]:
    """Bits, alpha, points in the domain, ring and words; alphas at the ends, in runs of bits, and anywhere."""
    bits = draw(st.sampled_from(WIDE))
    top = (1 << bits) - 1
    power = st.integers(0, bits - 1).map(lambda bit: 1 << bit)
    anywhere = st.one_of(st.integers(0, top), power, power.map(lambda value: top ^ value), st.just(0), st.just(top))
    alpha = draw(anywhere)
    near = st.integers(-300, 300).map(lambda step: (alpha + step) & top)
    flipped = power.map(lambda value: alpha ^ value)
    points = draw(st.lists(st.one_of(near, flipped, anywhere), min_size=1, max_size=12))
    return bits, alpha, points, draw(st.sampled_from(RINGS)), draw(st.sampled_from([1, 2, 3, 5, 11]))


@FEW
@given(wide_keys(), st.integers(0, 2**32))
@example((64, 0, [0, 2**64 - 1], Z64, 2), 0)
@example((64, 2**64 - 1, [2**64 - 1, 2**64 - 2], Z64, 2), 0)
@example((64, 2**63, [2**63 - 1, 2**63], Z2, 1), 0)
def test_comparison_keys_of_wide_domains(case: tuple[int, int, list[int], Ring, int], seed: int) -> None:
    bits, alpha, others, kind, words = case
    points = sorted({0, (1 << bits) - 1, alpha, max(alpha - 1, 0), min(alpha + 1, (1 << bits) - 1), *others})
    rng = np.random.default_rng(seed)
    roots, payload = draw_roots(rng, 1), draw_elements(rng, kind, 1, words)
    keys = comparison_keys(roots, numbers(alpha), payload, bits, kind)
    found = sum_of_comparison(roots, keys, numbers(*points)[None], bits, words, kind)
    expected = [payload[0].tolist() if point < alpha else [0] * words for point in points]
    assert found[0].tolist() == expected


@FEW
@given(wide_keys(), st.integers(1, 300), st.integers(0, 2**32))
@example((64, 2**64 - 1, [2**64 - 3], Z64, 1), 5, 0)
@example((64, 1, [2**64 - 3], Z2, 1), 300, 0)
def test_windows_of_wide_domains(case: tuple[int, int, list[int], Ring, int], count: int, seed: int) -> None:
    bits, alpha, starts, kind, words = case
    rng = np.random.default_rng(seed)
    chosen = [*starts, alpha, (alpha - count + 1) % (1 << bits), (alpha - count) % (1 << bits)]
    roots, payload = draw_roots(rng, len(chosen)), draw_elements(rng, kind, len(chosen), words)
    keys = point_keys(roots, numbers(*[alpha] * len(chosen)), payload, bits, kind)
    found = sum_of_window(roots, keys, numbers(*chosen), count, bits, words, kind)
    expected = kind.zeros(len(chosen), count, words)
    for row, start in enumerate(chosen):
        place = (alpha - start) % (1 << bits)
        if place < count:
            expected[row, place] = payload[row]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "words"), [(Z64, 200), (ring(8), 130), (ring(32), 77), (Z2, 300)])
def test_payloads_of_hundreds_of_words(kind: Ring, words: int) -> None:
    rng = np.random.default_rng([SEED, words])
    roots, payload = draw_roots(rng, 5), draw_elements(rng, kind, 5, words)
    alpha = numbers(0, 1, 17, 4094, 4095)
    points = np.array([[alpha[row], max(int(alpha[row]), 1) - 1, 0, 4095] for row in range(5)], np.uint64)
    keys = comparison_keys(roots, alpha, payload, 12, kind)
    found = sum_of_comparison(roots, keys, points, 12, words, kind)
    np.testing.assert_array_equal(found, np.where((points < alpha[:, None])[..., None], payload[:, None], 0))
    keys = point_keys(roots, alpha, payload, 12, kind)
    window = sum_of_window(roots, keys, numbers(4090, 0, 10, 4094, 4080), 16, 12, words, kind)
    expected = kind.zeros(5, 16, words)
    for row, place in enumerate((6, 1, 7, 0, 15)):
        expected[row, place] = payload[row]
    np.testing.assert_array_equal(window, expected)


# --- the equations of the docstring, one node at a time ----------------------------------------------------

PUBLIC_KEY = hashlib.sha256(b"siguard: fixed-key generator of function keys, 1").digest()[:16]


def slow_generator(seed: int, tweak: int) -> int:
    """G_j(s) on Python integers."""
    block = (seed ^ tweak).to_bytes(16, "little")
    encrypted = Cipher(algorithms.AES(PUBLIC_KEY), modes.ECB()).encryptor().update(block)  # noqa: S305
    return int.from_bytes(encrypted, "little") ^ seed ^ tweak


def test_the_generator_is_its_equation() -> None:
    inputs = np.random.default_rng(SEED).integers(0, 2**64, (3, 5, 2), dtype=np.uint64)
    outputs = Generator(20)(inputs)
    assert outputs.shape == inputs.shape
    for given_block, found in zip(inputs.reshape(-1, 2), outputs.reshape(-1, 2), strict=True):
        number = int.from_bytes(given_block.tobytes(), "little")
        assert int.from_bytes(found.tobytes(), "little") == slow_generator(number, 0)


def slow_evaluation(party: int, root: bytes, key: bytes, point: int, bits: int) -> int:
    """A comparison key of one word of Z_2^64 at a point, by the equations; e = 2, v_d(s) is half of G_(2+d)."""
    clear, word = -4, 2**64
    seed, control, share = int.from_bytes(root, "little") & clear, party, 0
    for level in range(bits - 2):
        at = 24 * level
        block = int.from_bytes(key[at : at + 16], "little")
        correction = int.from_bytes(key[at + 16 : at + 24], "little")
        direction = point >> (bits - 1 - level) & 1
        share += slow_generator(seed, 2 + direction) % word + control * correction
        child = slow_generator(seed, direction) ^ control * block
        seed, control = child & clear, child >> direction & 1
    place = point & 3
    at = 24 * (bits - 2) + 8 * place
    share += (slow_generator(seed, place // 2) >> 64 * (place % 2)) + control * int.from_bytes(
        key[at : at + 8], "little"
    )
    return (-share if party else share) % word


def test_evaluation_follows_the_equations_and_the_layout() -> None:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 8), draw_elements(rng, Z64, 8, 1)
    alpha = rng.integers(0, 2**9, 8, dtype=np.uint64)
    points = rng.integers(0, 2**9, (8, 4), dtype=np.uint64)
    keys = comparison_keys(roots, alpha, payload, 9, Z64)
    for party in (0, 1):
        found = evaluate_comparison(party, roots[party], keys, points, 9, 1, Z64)
        for row in range(8):
            root, key = roots[party][row].tobytes(), keys[row].tobytes()
            expected = [slow_evaluation(party, root, key, int(point), 9) for point in points[row]]
            assert found[row, :, 0].tolist() == expected


# --- sizes, batches and what a walk depends on -------------------------------------------------------------


@pytest.mark.parametrize(
    ("bits", "words", "kind", "comparison", "point"),
    [
        # W = 16 bytes: e = 2 for comparisons, 1 for points.
        (20, 2, Z64, 18 * (16 + 16) + 4 * 16, 19 * 16 + 2 * 16),
        (24, 2, Z64, 22 * (16 + 16) + 4 * 16, 23 * 16 + 2 * 16),
        (54, 11, Z64, 53 * (16 + 88) + 2 * 88, 54 * 16 + 88),
        (12, 3, Z64, 11 * (16 + 24) + 2 * 24, 12 * 16 + 24),
        (64, 1, Z64, 62 * (16 + 8) + 4 * 8, 62 * 16 + 4 * 8),
        (4, 1, ring(8), 16, 16),
        (8, 1, ring(4), 3 * (16 + 1) + 32, 3 * 16 + 32),
        (24, 1, Z2, 17 * 16 + 16, 17 * 16 + 16),
        (7, 1, Z2, 16, 16),
        (4, 1, Z2, 2, 2),
        (1, 1, Z2, 1, 1),
        (1, 2, Z64, 2 * 16, 2 * 16),
    ],
)
def test_key_sizes(bits: int, words: int, kind: Ring, comparison: int, point: int) -> None:
    assert comparison_key_bytes(bits, words, kind) == comparison
    assert point_key_bytes(bits, words, kind) == point
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 3), draw_elements(rng, kind, 3, words)
    for make, size in ((comparison_keys, comparison), (point_keys, point)):
        keys = make(roots, numbers(0, 1, 1), payload, bits, kind)
        assert (keys.dtype, keys.shape) == (np.dtype(np.uint8), (3, size))


@pytest.mark.parametrize(("kind", "words"), [(Z64, 2), (Z64, 11), (Z2, 1), (ring(8), 3)])
@pytest.mark.parametrize(("nodes", "chunk_bytes"), [(1, 1 << 24), (7, 1 << 24), (1 << 12, 5000)])
def test_chunks_change_nothing(
    kind: Ring, words: int, nodes: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 20), draw_elements(rng, kind, 20, words)
    alpha = rng.integers(0, 2**13, 20, dtype=np.uint64)
    points = rng.integers(0, 2**13, (20, 9), dtype=np.uint64)

    def everything() -> list[npt.NDArray[Any]]:
        comparisons = comparison_keys(roots, alpha, payload, 13, kind)
        tables = point_keys(roots, alpha, payload, 13, kind)
        return [
            comparisons,
            tables,
            evaluate_comparison(1, roots[1], comparisons, points, 13, words, kind),
            evaluate_window(1, roots[1], tables, alpha, 10, 13, words, kind),
        ]

    whole = everything()
    monkeypatch.setattr(fss_layout, "_NODES", nodes)
    monkeypatch.setattr(fss_layout, "_CHUNK_BYTES", chunk_bytes)
    for one, other in zip(whole, everything(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_many_points_of_a_key_are_the_points_one_by_one() -> None:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 6), draw_elements(rng, Z64, 6, 11)
    keys = comparison_keys(roots, rng.integers(0, 2**54, 6, dtype=np.uint64), payload, 54, Z64)
    points = rng.integers(0, 2**54, (6, 31), dtype=np.uint64)
    together = evaluate_comparison(0, roots[0], keys, points, 54, 11, Z64)
    for column in range(31):
        alone = evaluate_comparison(0, roots[0], keys, points[:, column : column + 1], 54, 11, Z64)
        np.testing.assert_array_equal(together[:, column : column + 1], alone)


def test_keys_may_lie_anywhere_in_a_received_buffer_and_are_not_written_to() -> None:
    rng = np.random.default_rng(SEED)
    for kind, words in ((Z64, 2), (Z2, 1), (ring(32), 3)):
        roots, payload = draw_roots(rng, 4), draw_elements(rng, kind, 4, words)
        alpha = numbers(0, 5, 600, 1023)
        for root in roots:
            root.setflags(write=False)
        for make in (comparison_keys, point_keys):
            keys = make(roots, alpha, payload, 10, kind)
            received = np.frombuffer(b"abc" + keys.tobytes(), np.uint8, offset=3).reshape(keys.shape)
            points = np.broadcast_to(np.arange(1024, dtype=np.uint16), (4, 1024))
            for party in (0, 1):
                if make is comparison_keys:
                    one, other = (
                        evaluate_comparison(party, roots[party], each, points, 10, words, kind)
                        for each in (keys, received)
                    )
                else:
                    one, other = (
                        evaluate_window(party, roots[party], each, alpha, 40, 10, words, kind)
                        for each in (keys, received)
                    )
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("kind", "words"), [(Z64, 2), (Z2, 1)])
def test_empty_batches(kind: Ring, words: int) -> None:
    none = np.zeros((0, ROOT_BYTES), np.uint8)
    keys = comparison_keys((none, none), numbers(), kind.zeros(0, words), 20, kind)
    assert keys.shape == (0, comparison_key_bytes(20, words, kind))
    assert evaluate_comparison(0, none, keys, np.zeros((0, 4), np.uint64), 20, words, kind).shape == (0, 4, words)
    keys = point_keys((none, none), numbers(), kind.zeros(0, words), 20, kind)
    assert evaluate_window(0, none, keys, numbers(), 5, 20, words, kind).shape == (0, 5, words)
    roots = draw_roots(np.random.default_rng(SEED), 3)
    keys = comparison_keys(roots, numbers(1, 2, 3), kind.zeros(3, words), 20, kind)
    assert evaluate_comparison(1, roots[1], keys, np.zeros((3, 0), np.uint64), 20, words, kind).shape == (
        3,
        0,
        words,
    )


@pytest.mark.parametrize(("kind", "words"), [(Z64, 2), (Z2, 1), (ring(8), 1)])
def test_the_walk_does_not_depend_on_alpha_payload_roots_or_start(
    kind: Ring, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[list[tuple[int, ...]]] = []
    plain = Generator.__call__

    def recorded(generator: Generator, inputs: Blocks) -> Blocks:
        walks[-1].append(inputs.shape)
        return plain(generator, inputs)

    monkeypatch.setattr(Generator, "__call__", recorded)
    rng = np.random.default_rng(SEED)
    for alpha in (0, 1, 511, 512, 1023):
        walks.append([])
        roots, payload = draw_roots(rng, 3), draw_elements(rng, kind, 3, words)
        secret, points = numbers(alpha, alpha, alpha), rng.integers(0, 1024, (3, 2), dtype=np.uint64)
        keys = comparison_keys(roots, secret, payload, 10, kind)
        evaluate_comparison(0, roots[0], keys, points, 10, words, kind)
        evaluate_window(1, roots[1], point_keys(roots, secret, payload, 10, kind), secret, 300, 10, words, kind)
    assert len(walks[0]) > 3
    assert all(walk == walks[0] for walk in walks)


def test_a_window_costs_about_two_expansions_per_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = 0
    plain = Generator.__call__

    def counted(generator: Generator, inputs: Blocks) -> Blocks:
        nonlocal blocks
        blocks += inputs.size // 2
        return plain(generator, inputs)

    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 1), draw_elements(rng, Z64, 1, 3)
    keys = point_keys(roots, numbers(70), payload, 12, Z64)
    monkeypatch.setattr(Generator, "__call__", counted)
    evaluate_window(0, roots[0], keys, numbers(4000), 136, 12, 3, Z64)
    # Two blocks for each of 136 payloads of 24 bytes; at most 2 * 136 nodes and two a level more.
    assert 2 * 136 < blocks <= 2 * 136 + 2 * 136 + 2 * 12


# --- what one party sees ----------------------------------------------------------------------------------

#: The chi-square checks of this file, fewer than 200, together raise an alarm for one seed in a million; the seed
#: is fixed.
FALSE_ALARM = 1e-6
SAMPLES = 1 << 14


def smallest_probability(columns: Bytes, values: int = 256) -> float:
    """Chi-square of each column against the uniform distribution on 0 .. values - 1; Bonferroni-corrected."""
    expected = len(columns) / values
    counts = np.stack([np.bincount(column, minlength=values) for column in columns.T])
    statistics = ((counts - expected) ** 2 / expected).sum(axis=1)
    return float(stats.chi2.sf(statistics.max(), values - 1) * columns.shape[1])


SEEN = [
    (20, 2, Z64, 0),
    (20, 2, Z64, 0x5A5A5),
    (20, 2, Z64, (1 << 20) - 1),
    (9, 1, ring(8), 100),
    (12, 1, Z2, 0),
    (12, 1, Z2, 0xABC),
    (3, 1, Z2, 5),
]


@pytest.mark.parametrize(("bits", "words", "kind", "alpha"), SEEN)
@pytest.mark.parametrize("make", [comparison_keys, point_keys])
def test_corrections_alone_look_uniform(bits: int, words: int, kind: Ring, alpha: int, make: MakeKeys) -> None:
    """Each byte of a key over roots, for one alpha and payload; and combined with the party's own root."""
    rng = np.random.default_rng([SEED, bits, alpha])
    roots = draw_roots(rng, SAMPLES)
    payload = np.repeat(kind.constant(np.ones((1, words), np.int64)), SAMPLES, axis=0)
    keys = make(roots, np.full(SAMPLES, alpha, np.uint64), payload, bits, kind)
    assert smallest_probability(keys) > FALSE_ALARM / 200
    width = min(ROOT_BYTES, keys.shape[1])
    for root in roots:
        assert smallest_probability(keys[:, :width] ^ root[:, :width]) > FALSE_ALARM / 200
    # The check sees two constant bits of one byte.
    keys[:, -1] &= 0xFC
    assert smallest_probability(keys) < FALSE_ALARM / 200


def test_corrections_of_narrow_rings_are_reduced_and_uniform() -> None:
    rng = np.random.default_rng(SEED)
    roots = draw_roots(rng, SAMPLES)
    keys = comparison_keys(roots, np.full(SAMPLES, 300, np.uint64), ring(4).zeros(SAMPLES, 3) + 1, 10, ring(4))
    level = 16 + 3
    words = np.concatenate([keys[:, :level][:, 16:], keys[:, -3:]], axis=1)
    assert words.max() == 15
    assert smallest_probability(words, 16) > FALSE_ALARM / 200


@pytest.mark.parametrize("words", [1, 2, 5, 11])
@pytest.mark.parametrize("make", [comparison_keys, point_keys])
def test_no_pad_serves_twice(make: MakeKeys, words: int) -> None:
    """With payloads of 1, a pad used for two words of a key would leave a small difference, or sum."""
    rng = np.random.default_rng([SEED, words])
    alpha, payload = rng.integers(0, 2**20, 50, dtype=np.uint64), Z64.zeros(50, words) + np.uint64(1)
    found = make(draw_roots(rng, 50), alpha, payload, 20, Z64).view(np.uint64)
    ordered = np.sort(np.concatenate([found, Z64.neg(found)], axis=1), axis=1)
    # Among 50 times 600 uniform words and their negatives, a gap below 2^10 has probability below 2^-29.
    assert (ordered[:, 1:] - ordered[:, :-1]).min() > 1 << 10


@pytest.mark.parametrize(("bits", "words", "kind", "alpha"), SEEN)
def test_an_evaluation_alone_looks_uniform(bits: int, words: int, kind: Ring, alpha: int) -> None:
    """Shares of either party at points below, at, above and far from alpha, over roots."""
    rng = np.random.default_rng([SEED, bits, alpha])
    roots = draw_roots(rng, SAMPLES)
    payload = np.repeat(kind.constant(np.ones((1, words), np.int64)), SAMPLES, axis=0)
    secret, top = np.full(SAMPLES, alpha, np.uint64), (1 << bits) - 1
    near = sorted({0, max(alpha - 1, 0), alpha, min(alpha + 1, top), alpha ^ 1 << (bits - 1), top})
    points = np.broadcast_to(numbers(*near), (SAMPLES, len(near)))
    comparisons = comparison_keys(roots, secret, payload, bits, kind)
    tables = point_keys(roots, secret, payload, bits, kind)
    start = np.full(SAMPLES, (alpha - 2) & top, np.uint64)
    for party in (0, 1):
        for shares in (
            evaluate_comparison(party, roots[party], comparisons, points, bits, words, kind),
            evaluate_window(party, roots[party], tables, start, 5, bits, words, kind),
        ):
            columns = shares.reshape(SAMPLES, -1)
            seen = columns.view(np.uint8) if kind.bits >= 8 else columns
            assert smallest_probability(seen, min(256, 1 << kind.bits)) > FALSE_ALARM / 200


def test_keys_of_two_alphas_differ_from_the_level_on_where_the_alphas_part() -> None:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 50), draw_elements(rng, Z64, 50, 2)
    alpha = rng.integers(0, 2**20, 50, dtype=np.uint64)
    for make, level_bytes, leaf_bits in ((comparison_keys, 32, 2), (point_keys, 16, 1)):
        keys = make(roots, alpha, payload, 20, Z64)
        for level in (0, 7, 19 - leaf_bits):
            other = make(roots, alpha ^ np.uint64(1 << (19 - level)), payload, 20, Z64)
            same, parted = level_bytes * level, level_bytes * (level + 1)
            np.testing.assert_array_equal(keys[:, :same], other[:, :same])
            assert (keys[:, same:parted] != other[:, same:parted]).any(axis=1).all()
        # Within one leaf, all levels are those of the other alpha.
        inside = make(roots, alpha ^ np.uint64(1), payload, 20, Z64)
        leaf = level_bytes * (20 - leaf_bits)
        np.testing.assert_array_equal(keys[:, :leaf], inside[:, :leaf])
        assert (keys[:, leaf:] != inside[:, leaf:]).any(axis=1).all()


def test_payloads_change_values_and_leaves_only() -> None:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 50), draw_elements(rng, Z64, 50, 2)
    alpha = rng.integers(1, 2**20, 50, dtype=np.uint64)
    one, other = (comparison_keys(roots, alpha, each, 20, Z64) for each in (payload, payload + np.uint64(1)))
    blocks = np.s_[:, : 18 * 32]
    np.testing.assert_array_equal(
        one[blocks].reshape(50, 18, 32)[..., :16], other[blocks].reshape(50, 18, 32)[..., :16]
    )
    assert (one != other).any(axis=1).all()
    one, other = (point_keys(roots, alpha, each, 20, Z64) for each in (payload, payload + np.uint64(1)))
    np.testing.assert_array_equal(one[:, : 19 * 16], other[:, : 19 * 16])
    # Only the leaf's payload at alpha moves, by +1 or -1 as the control bit says.
    moved = (other[:, 19 * 16 :].copy().view(np.uint64) - one[:, 19 * 16 :].copy().view(np.uint64)).reshape(
        50, 2, 2
    )
    at, beside = (alpha & np.uint64(1)).astype(np.intp), (~alpha & np.uint64(1)).astype(np.intp)
    assert not moved[np.arange(50), beside].any()
    assert set(Z64.signed(moved[np.arange(50), at]).reshape(-1).tolist()) == {1, -1}


# --- errors -----------------------------------------------------------------------------------------------


def made(bits: int = 20, words: int = 2) -> tuple[tuple[Bytes, Bytes], Bytes, Bytes]:
    rng = np.random.default_rng(SEED)
    roots, payload = draw_roots(rng, 3), draw_elements(rng, Z64, 3, words)
    alpha = numbers(1, 2, 3)
    return roots, comparison_keys(roots, alpha, payload, bits, Z64), point_keys(roots, alpha, payload, bits, Z64)


@pytest.mark.parametrize("make", [comparison_keys, point_keys])
def test_key_generation_names_what_does_not_fit(make: MakeKeys) -> None:
    roots, payload, alpha = made()[0], Z64.zeros(3, 2), numbers(1, 2, 3)
    with pytest.raises(ValueError, match="domain of 0 bits; allowed: 1 to 64"):
        make(roots, alpha, payload, 0, Z64)
    with pytest.raises(ValueError, match="domain of 65 bits"):
        make(roots, alpha, payload, 65, Z64)
    with pytest.raises(ValueError, match="payload of 0 words"):
        make(roots, alpha, Z64.zeros(3, 0), 20, Z64)
    with pytest.raises(ValueError, match=r"payload of uint64 and shape \(6,\)"):
        make(roots, alpha, Z64.zeros(6), 20, Z64)
    with pytest.raises(ValueError, match=r"payload of uint64 .* of Z_2\^8"):
        make(roots, alpha, payload, 20, ring(8))
    with pytest.raises(ValueError, match="use Z2"):
        make(roots, alpha, payload, 20, PACKED)
    with pytest.raises(ValueError, match=r"roots of party 1: uint8 of shape \(2, 16\)"):
        make((roots[0], roots[1][:2]), alpha, payload, 20, Z64)
    with pytest.raises(ValueError, match=r"alpha: uint64 of shape \(2,\)"):
        make(roots, alpha[:2], payload, 20, Z64)
    with pytest.raises(ValueError, match="alpha: int64"):
        make(roots, alpha.astype(np.int64), payload, 20, Z64)
    with pytest.raises(ValueError, match=r"alpha: a number is not below 2\^20") as caught:
        make(roots, numbers(1, 2, 1 << 20), payload, 20, Z64)
    assert str(1 << 20) not in str(caught.value)


def test_evaluation_names_what_does_not_fit() -> None:
    roots, comparisons, tables = made()
    points, start = np.zeros((3, 4), np.uint64), numbers(1, 2, 3)
    with pytest.raises(ValueError, match="party 2 evaluates no keys"):
        evaluate_comparison(2, roots[0], comparisons, points, 20, 2, Z64)
    with pytest.raises(ValueError, match=r"roots of party 0: uint8 of shape \(3, 15\)"):
        evaluate_comparison(0, roots[0][:, :15], comparisons, points, 20, 2, Z64)
    with pytest.raises(
        ValueError, match=r"corrections: uint8 of shape \(3, 639\); needed: uint8 of shape \(3, 640\)"
    ):
        evaluate_comparison(0, roots[0], comparisons[:, :-1], points, 20, 2, Z64)
    with pytest.raises(ValueError, match=r"points of shape \(3,\)"):
        evaluate_comparison(0, roots[0], comparisons, points[:, 0], 20, 2, Z64)
    with pytest.raises(ValueError, match=r"points: uint64 of shape \(2, 4\)"):
        evaluate_comparison(0, roots[0], comparisons, points[:2], 20, 2, Z64)
    with pytest.raises(ValueError, match=r"points: a number is not below 2\^20"):
        evaluate_comparison(0, roots[0], comparisons, points + np.uint64(1 << 20), 20, 2, Z64)
    with pytest.raises(ValueError, match="party -1 evaluates no keys"):
        evaluate_window(-1, roots[0], tables, start, 4, 20, 2, Z64)
    with pytest.raises(ValueError, match=r"start: uint64 of shape \(2,\)"):
        evaluate_window(0, roots[0], tables, start[:2], 4, 20, 2, Z64)
    with pytest.raises(ValueError, match=r"start: a number is not below 2\^20"):
        evaluate_window(0, roots[0], tables, start << np.uint64(40), 4, 20, 2, Z64)
    for count in (0, (1 << 20) + 1):
        with pytest.raises(ValueError, match=f"window of {count} leaves in a domain of 20 bits"):
            evaluate_window(0, roots[0], tables, start, count, 20, 2, Z64)
