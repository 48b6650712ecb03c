"""How values enter and leave: input of a client, reveal to it alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpc_helpers import User, client_randomness, run, share, share_terms, uniform, value_of

from siguard.actors.session import SERVERS, client_pair, pair_name
from siguard.mpc.io import mask_input, open_answer, receive_input, reveal
from siguard.mpc.share import as_additive
from siguard.ring import Z2, Z64, Ring, ring

FEW = settings(deadline=None, max_examples=6, derandomize=True)
RINGS = [pytest.param(R, id=repr(R)) for R in (Z2, ring(8), ring(16), ring(31), Z64)]
dealers = pytest.mark.parametrize("dealer", SERVERS)


@dealers
@pytest.mark.parametrize("R", RINGS)
def test_an_input_becomes_a_sharing(R: Ring, dealer: str) -> None:
    value = uniform(np.random.default_rng(1), R, (3, 4))
    user = User(dealer)

    async def protocol(party: Any) -> Any:
        user.attach(party)
        step = party.at("input")
        if not party.is_dealer:
            await user.send(step, user.masked(value, R, "input"))
        return await receive_input(step, R, value.shape, 5)

    done = run(protocol, dealer=dealer, randomness=user.randomness)
    np.testing.assert_array_equal(value_of(done.results), value)
    # The dealer waits for the request only; the others for the input, a frame of depth 1.
    assert [part.depth for part in done.results] == [1, 1, 5]
    assert set(done.traffic.by_link()) == {("user", user.roles[0]), ("user", user.roles[1])}


def test_input_masks_come_from_the_clients_own_keys() -> None:
    pairs: list[tuple[int, int]] = []
    masks = {(0, 2): Z64.constant([7]), (1, 2): Z64.constant([100])}

    def draw(roles: tuple[int, int], R: Ring, shape: tuple[int, ...]) -> Any:
        pairs.append(roles)
        return masks[roles]

    assert mask_input(Z64.constant([1000]), Z64, draw).tolist() == [1000 - 107]
    assert pairs == [(0, 2), (1, 2)]
    # No stream of two servers alone is known to the client.
    for one, other in (("S0", "S1"), ("S0", "S2"), ("S1", "S2")):
        pair = pair_name(one, other)
        with pytest.raises(KeyError):
            client_randomness("user").draw(pair, "input", "input", Z64, (1,))
        mine = client_randomness("user").draw(client_pair("user", pair), "input", "input", Z64, (9,))
        np.testing.assert_array_equal(
            mine, client_randomness(one).draw(client_pair("user", pair), "input", "input", Z64, (9,))
        )


@dealers
@pytest.mark.parametrize("R", RINGS)
@FEW
@given(seed=st.integers(0, 2**32))
def test_only_the_receiver_learns_a_revealed_value(R: Ring, dealer: str, seed: int) -> None:
    value = uniform(np.random.default_rng(seed), R, (2, 5))
    shares = share(value, R, seed=seed, depth=4)
    user = User(dealer)

    async def protocol(party: Any) -> Any:
        user.attach(party)
        await reveal(party, as_additive(shares[party.role]))
        return None if party.is_dealer else await user.receive(party)

    done = run(protocol, dealer=dealer, randomness=user.randomness)
    first, second, nothing = done.results
    assert nothing is None
    np.testing.assert_array_equal(open_answer((first.payload, second.payload), R), value, err_msg=f"seed {seed}")
    # One message from each of roles 0 and 1, none from or to the dealer, none between servers.
    assert list(done.traffic.by_link()) == sorted([(user.roles[0], "user"), (user.roles[1], "user")])
    assert (done.traffic.messages, first.depth, second.depth) == (2, 5, 5)
    if R.bits > 8:
        # Neither part is a share or a sum of shares: the receiver learns no mask.
        raw = [part for share_ in shares for part in (share_.first, share_.second, share_.mask())]
        for part in (first.payload, second.payload):
            assert not any(np.array_equal(part, held) for held in raw)


def test_the_parts_of_two_answers_are_masked_independently() -> None:
    shares = share(np.arange(6))
    user = User()

    async def protocol(party: Any) -> Any:
        user.attach(party)
        await reveal(party.at("one"), as_additive(shares[party.role]))
        await reveal(party.at("two"), as_additive(shares[party.role]))
        return None if party.is_dealer else [(await user.receive(party)).payload for _ in range(2)]

    first, second, _ = run(protocol, randomness=user.randomness).results
    for answer in range(2):
        assert open_answer((first[answer], second[answer]), Z64).tolist() == list(range(6))
    assert not np.array_equal(first[0], first[1])


async def test_what_the_dealer_holds_a_part_of_is_not_revealed() -> None:
    """The dealer sends nothing to the receiver, so its part would be missing."""
    terms = share_terms([1, 2], dealer=True)
    with pytest.raises(AssertionError, match="dealer"):
        await reveal(None, terms[0])  # type: ignore[arg-type]
