"""Keys between roles: the definition through three parties, who receives what, chunks, seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import run, seeds, terms_of, uniform

from siguard.mpc import fss, fss_layout, keyed
from siguard.mpc.gate import gate_info
from siguard.mpc.party import Party
from siguard.prf import PairwiseRandomness
from siguard.ring import Z2, Z64, Ring, RingArray, ring
from siguard.transport.frame import Frame, decode_frame, step_digest

FEW = settings(deadline=None, max_examples=4, derandomize=True)
TARGETS = [Z2, ring(5), ring(8), ring(32), Z64]


def evaluated(
    gate: Any,
    target: Ring,
    shape: tuple[int, int, int],
    bits: int,
    secrets: tuple[RingArray, RingArray],
    points: RingArray,
    **options: Any,
) -> list[Any]:
    """What the three roles get of a gate; each is given what it may know and nothing else."""

    async def protocol(party: Party) -> Any:
        known = (lambda: secrets) if party.is_dealer else None
        where = None if party.is_dealer else (lambda: points)
        return await gate(party.at("key"), target, shape, bits, known, where, 0)

    results: list[Any] = run(protocol, **options).results
    return results


def secrets_of(
    rng: np.random.Generator, target: Ring, keys: int, words: int, bits: int
) -> tuple[RingArray, RingArray]:
    alpha = uniform(rng, ring(bits), (keys,)).copy()
    alpha[0], alpha[-1] = 0, (1 << bits) - 1
    return alpha, uniform(rng, target, (keys, words))


# --- the definition ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("bits", [1, 4, 7, 19, 31, 63, 64])
@FEW
@given(seed=seeds, words=st.integers(1, 4), count=st.integers(1, 5))
def test_comparisons(bits: int, target: Ring, seed: int, words: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    alpha, payload = secrets_of(rng, target, 6, words, bits)
    points = uniform(rng, ring(bits), (6, count)).copy()
    # alpha itself and its neighbours.
    points[:, 0] = ring(bits).add(alpha, ring(bits).constant(rng.integers(-1, 2, 6)))
    found = terms_of(evaluated(keyed.comparison, target, (6, count, words), bits, (alpha, payload), points))
    assert found.shape == (6, count, words)
    below = (points < alpha[:, None])[..., None]
    np.testing.assert_array_equal(found, np.where(below, payload[:, None], 0), err_msg=f"seed {seed}")


@pytest.mark.parametrize("target", TARGETS, ids=repr)
@pytest.mark.parametrize("bits", [1, 4, 7, 19, 43, 64])
@FEW
@given(seed=seeds, words=st.integers(1, 4), count=st.integers(1, 20))
def test_windows(bits: int, target: Ring, seed: int, words: int, count: int) -> None:
    rng, R, count = np.random.default_rng(seed), ring(bits), min(count, 1 << bits)
    alpha, payload = secrets_of(rng, target, 6, words, bits)
    # Windows around alpha; those at 0 and at the last place go round the end.
    start = R.sub(alpha, R.constant(rng.integers(-1, count + 1, 6)))
    found = terms_of(evaluated(keyed.window, target, (6, count, words), bits, (alpha, payload), start))
    assert found.shape == (6, count, words)
    places = R.add(start[:, None], R.constant(np.arange(count)))
    here = (places == alpha[:, None])[..., None]
    np.testing.assert_array_equal(found, np.where(here, payload[:, None], 0), err_msg=f"seed {seed}")


@pytest.mark.parametrize("first", [-5, 0, 3])
def test_a_window_of_values_starts_where_the_mask_puts_it(first: int) -> None:
    R = ring(4)
    alpha, index = (grid.ravel() for grid in np.meshgrid(np.arange(16), np.arange(16)))
    start = keyed.signed_window(R, first, R.sub(R.constant(index), R.constant(alpha)))
    place = R.sub(R.constant(alpha), start)
    np.testing.assert_array_equal(place, R.constant(index - first))


# --- frames -----------------------------------------------------------------------------------------------

CASES = [
    pytest.param(keyed.comparison, 20, 3, Z64, (5, 2), id="comparison"),
    pytest.param(keyed.comparison, 12, 1, Z2, (5, 2), id="bit comparison"),
    pytest.param(keyed.window, 12, 2, ring(8), (5,), id="window"),
]


class Posted:
    """A simulation that notes what is posted."""

    def __init__(self) -> None:
        self.messages: list[tuple[int, str, RingArray]] = []

    def uniform(self, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        return uniform(np.random.default_rng(3), ring, shape)

    def receives(self, sender: int, path: str, message: RingArray) -> None:
        self.messages.append((sender, path, message))


def frames_of(
    gate: Any, bits: int, words: int, target: Ring, where: tuple[int, ...], seed: int = 0, secrets: int = 0
) -> tuple[list[tuple[str, str, Frame]], list[Any]]:
    frames: list[tuple[str, str, Frame]] = []
    rng = np.random.default_rng(secrets)
    known = secrets_of(rng, target, 5, words, bits)
    results = evaluated(
        gate,
        target,
        (5, 2, words),
        bits,
        known,
        uniform(rng, ring(bits), where),
        seed=seed,
        observe_frame=lambda sender, receiver, data: frames.append((sender, receiver, decode_frame(data))),
    )
    return sorted(frames, key=lambda frame: frame[:2]), results


@pytest.mark.parametrize(("gate", "bits", "words", "target", "where"), CASES)
def test_the_dealer_sends_one_frame_to_each_and_the_others_none(
    gate: Any, bits: int, words: int, target: Ring, where: tuple[int, ...]
) -> None:
    frames, results = frames_of(gate, bits, words, target, where)
    assert [frame[:2] for frame in frames] == [("S2", "S0"), ("S2", "S1")]
    np.testing.assert_array_equal(frames[0][2].payload, frames[1][2].payload)
    assert [part.depth for part in results] == [1, 1, 0]
    assert not results[0].dealer_part
    info = gate_info(gate)
    assert info is not None
    for role, received in enumerate(([frames[0][2]], [frames[1][2]], [])):
        simulation = Posted()
        party = Party(role, None, "key")  # type: ignore[arg-type]
        info.simulator(simulation, party, target, (5, 2, words), bits, None, None, 0)
        assert len(simulation.messages) == len(received)
        for (sender, path, message), frame in zip(simulation.messages, received, strict=True):
            assert (sender, step_digest(path)) == (2, frame.step)
            assert (message.shape, message.dtype) == (frame.payload.shape, frame.payload.dtype)


@pytest.mark.parametrize(("gate", "bits", "words", "target", "where"), CASES)
def test_seeds_decide_frames_and_secrets_their_content_only(
    gate: Any, bits: int, words: int, target: Ring, where: tuple[int, ...]
) -> None:
    def payloads(**options: int) -> tuple[list[bytes], list[Any], RingArray]:
        frames, results = frames_of(gate, bits, words, target, where, **options)
        headers = [(sender, receiver, f.kind, f.step, f.depth, f.payload.shape) for sender, receiver, f in frames]
        return [f.payload.tobytes() for _, _, f in frames], headers, results[0].value

    same = [payloads(seed=4), payloads(seed=4)]
    assert same[0][:2] == same[1][:2]
    np.testing.assert_array_equal(same[0][2], same[1][2])
    for options in ({"seed": 5}, {"seed": 4, "secrets": 1}, {"seed": 5, "secrets": 2}):
        content, headers, _ = payloads(**options)
        assert headers == same[0][1]
        assert content[0] != same[0][0][0]


def test_every_key_has_roots_of_its_own_with_either_party() -> None:
    drawn: list[tuple[str, str, str, int, RingArray]] = []

    def noting(keys: Any, session: bytes, dealer: str, name: str) -> Any:
        source = PairwiseRandomness(keys, session, dealer, name)

        class Noting:
            def draw(self, pair: str, purpose: str, path: str, kind: Ring, shape: tuple[int, ...]) -> RingArray:
                found = source.draw(pair, purpose, path, kind, shape)
                drawn.append((name, pair, purpose, len(shape), found))
                return found

        return Noting()

    rng = np.random.default_rng(1)
    evaluated(
        keyed.comparison, Z64, (5, 1, 1), 9, secrets_of(rng, Z64, 5, 1, 9), ring(9).zeros(5, 1), randomness=noting
    )
    pairs = {(name, pair): roots for name, pair, purpose, _, roots in drawn if purpose == "root"}
    assert sorted(pairs) == [("S0", "S0S2"), ("S1", "S1S2"), ("S2", "S0S2"), ("S2", "S1S2")]
    assert len(pairs) == len(drawn)
    for pair in ("S0S2", "S1S2"):
        assert pairs["S2", pair].shape == (5, fss.ROOT_BYTES)
        np.testing.assert_array_equal(pairs["S2", pair], pairs[pair[:2], pair])
    assert len({row.tobytes() for roots in pairs.values() for row in roots}) == 10


# --- batches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "where"), [(keyed.comparison, lambda keys: (keys, 3)), (keyed.window, lambda keys: (keys,))]
)
@pytest.mark.parametrize(("target", "words"), [(Z64, 3), (Z2, 1)])
def test_chunks_change_nothing(
    gate: Any,
    where: Callable[[int], tuple[int, ...]],
    target: Ring,
    words: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = fss_layout._NODES // 3 + 5
    rng = np.random.default_rng(7)
    secrets, points = secrets_of(rng, target, keys, words, 10), uniform(rng, ring(10), where(keys))
    frames: list[list[bytes]] = []
    values = []
    for nodes in (fss_layout._NODES, 61, 1 << 20):
        monkeypatch.setattr(fss_layout, "_NODES", nodes)
        sent: list[bytes] = []
        results = evaluated(
            gate,
            target,
            (keys, 3, words),
            10,
            secrets,
            points,
            observe_frame=lambda sender, receiver, data, sent=sent: sent.append(data),
        )
        frames.append(sorted(sent))
        values.append([part.value for part in results[:2]])
    assert frames[0] == frames[1] == frames[2]
    for other in values[1:]:
        np.testing.assert_array_equal(values[0], other)
    alpha, payload = secrets
    places = points if gate is keyed.comparison else ring(10).add(points[:, None], ring(10).constant(np.arange(3)))
    true = places < alpha[:, None] if gate is keyed.comparison else places == alpha[:, None]
    expected = np.where(true[..., None], payload[:, None], 0)
    np.testing.assert_array_equal(target.add(*values[0]), expected)
