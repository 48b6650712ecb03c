"""The step along a vector, in one exchange, against exact integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from mpc_helpers import FEW, run, seeds, share, share_from, terms_of, uniform

from siguard.actors.compute import THREAD_THRESHOLD
from siguard.mpc.cubic import cubic, length_product
from siguard.mpc.share import Additive
from siguard.ring import Z64, RingArray
from siguard.transport.frame import decode_frame


def by_hand(v: Any, linear: Any) -> Any:
    """In Python integers, modulo 2^64: the definition with the further entry -sum v written out."""
    v = v.astype(object)
    last = -v.sum(-1, keepdims=True)
    squared = (v * v).sum(-1, keepdims=True) + last * last
    return (v - last) * (np.asarray(linear, object) - squared) % 2**64


def moved(V: Any, linear: Any, **options: Any) -> tuple[RingArray, Any]:
    done = run(lambda party: cubic(party, V[party.role], linear), **options)
    return terms_of(done.results), done


@pytest.mark.parametrize("n", range(1, 13))
@FEW
@given(seed=seeds)
def test_it_is_exact(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.integers(-(2**63), 2**63 - 1, (2, 3, n))
    v[0, 0], v[0, 1], v[1, 0] = 0, rng.integers(-(2**20), 2**20, n), -(2**63)
    linear = rng.integers(-(2**62), 2**62, (3, 1))
    found, done = moved(share(v, seed=seed), linear, seed=seed)
    assert found.shape == v.shape
    assert found.tolist() == by_hand(v, linear).tolist(), f"seed {seed}"
    assert (done.traffic.messages, done.traffic.rounds) == (1, 1)


@pytest.mark.parametrize(
    "linear", [7, -(2**40), np.array([[3], [-5]]), np.array([[[2]], [[-9]], [[1 << 40]]]), np.arange(4)]
)
def test_a_public_factor_for_all_for_each_lane_row_or_entry(linear: Any) -> None:
    v = np.random.default_rng(1).integers(-(2**30), 2**30, (3, 2, 4))
    found, _ = moved(share(v), linear)
    assert found.tolist() == by_hand(v, linear).tolist()


def test_a_vector_without_lanes() -> None:
    v = np.array([5, -7, 11])
    found, _ = moved(share(v), 1000)
    assert Z64.signed(found).tolist() == [(x + 9) * (1000 - (25 + 49 + 121 + 81)) for x in (5, -7, 11)]


@pytest.mark.parametrize("part", ["a", "x0", "x2"])
def test_every_part_of_the_sharing_alone(part: str) -> None:
    """All of v in one part and 0 in the two others: no term is forgotten, and none belongs to a wrong role."""
    v = Z64.constant(np.random.default_rng(3).integers(-(2**63), 2**63 - 1, (2, 5)))
    zero = Z64.zeros(2, 5)
    x0, x2 = (v if part == name else zero for name in ("x0", "x2"))
    found, _ = moved(share_from(Z64, v, x0, x2), 12345)
    assert found.tolist() == by_hand(v, 12345).tolist()


def test_newton_shortens_a_long_vector_and_lengthens_a_short_one() -> None:
    """As the guard uses it: V (3 - |V|^2) / 2 takes |V| from within 4.4 % of 1 to within 0.3 %."""
    rng = np.random.default_rng(5)
    direction = rng.normal(size=(50, 9))
    full = np.concatenate([direction, -direction.sum(1, keepdims=True)], axis=1)
    lengths = rng.uniform(0.957, 1.043, (50, 1))
    v = np.rint(full / np.linalg.norm(full, axis=1, keepdims=True) * lengths * 2**12)[:, :9].astype(np.int64)
    found, _ = moved(share(v), 3 << 24)
    relative = Z64.signed(found) / 2**37
    # v' = v - (the last entry), so that v and the last come back from v' and sum v = sum v' / 10.
    total = relative.sum(1, keepdims=True) / 10
    step = np.concatenate([relative - total, -total], axis=1)
    assert np.abs(np.linalg.norm(step, axis=1) - 1).max() < 0.003
    turned = (step * full).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(step, axis=1)
    assert turned.min() > 0.999999


def test_lengths_are_products_with_the_further_entry() -> None:
    rng = np.random.default_rng(2)
    x, y = uniform(rng, Z64, (3, 4)), uniform(rng, Z64, (3, 4))
    with_last = [np.concatenate([v, -v.sum(1, keepdims=True)], axis=1).astype(object) for v in (x, y)]
    expected = (with_last[0] * with_last[1]).sum(1, keepdims=True) % 2**64
    assert length_product(x, y).tolist() == expected.tolist()


def test_large_batches_go_through_threads_and_are_exact() -> None:
    n = 12
    rows = THREAD_THRESHOLD // (n * n * 4) + 3
    v = np.random.default_rng(1).integers(-(2**20), 2**20, (rows, n))
    found, _ = moved(share(v), 1 << 24)
    last = -v.sum(1, keepdims=True)
    expected = (v - last) * ((1 << 24) - (v * v).sum(1, keepdims=True) - last * last)
    np.testing.assert_array_equal(Z64.signed(found), expected)
    alone, _ = moved([part[:5] for part in share(v)], 1 << 24)
    np.testing.assert_array_equal(alone, found[:5])


def test_seeds_decide_the_frame_and_values_do_not_change_its_shape() -> None:
    def frames(scale: int, seed: int, masks: int) -> tuple[list[Any], list[bytes], list[Additive]]:
        seen: list[tuple[Any, bytes]] = []

        def note(sender: str, receiver: str, data: bytes) -> None:
            frame = decode_frame(data)
            seen.append(((sender, receiver, frame.step, frame.depth, frame.payload.shape), bytes(data)))

        V = share(np.arange(12).reshape(2, 6) * scale, seed=masks)
        _, done = moved(V, 5, seed=seed, observe_frame=note)
        return [header for header, _ in seen], [data for _, data in seen], done.results

    headers, content, results = frames(1, 3, 0)
    # n (n + 1) / 2 products of masks for each row, from the dealer to role 1.
    assert [(header[:2], header[4]) for header in headers] == [(("S2", "S1"), (2, 21))]
    again = frames(1, 3, 0)
    assert again[:2] == (headers, content)
    for one, other in zip(results, again[2], strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    # With the same masks the dealer, who does not know v, sends the same whatever v is.
    assert frames(-999, 3, 0)[0] == headers
    for seed, masks in ((4, 0), (3, 1), (5, 2)):
        other_headers, other_content, _ = frames(7, seed, masks)
        assert other_headers == headers
        assert other_content != content
