"""Ideal functionalities: F(inputs; coins) is what the protocol computes, coin for coin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from proof_helpers import CONFIGS, DEFENDER, MODEL, ROUNDING, at_once, values

import siguard
from siguard.actors.local import run_three
from siguard.errors import ProtocolError, RandomnessReuseError, SiguardError
from siguard.mpc import arithmetic
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share, as_additive
from siguard.proofsim.ideal import (
    IDEALS,
    FreshParts,
    OwnParts,
    RecordedParts,
    TrustedParty,
    hybrid,
    same_parts,
    value_of,
)
from siguard.proofsim.patching import replaced
from siguard.proofsim.queries import (
    Networks,
    NoRandomness,
    Query,
    WorldRun,
    run_ideal,
    run_real,
    share_networks,
)
from siguard.ring import FRACTION_BITS, Z64, RingArray, decode

DEALERS = ("S0", "S1", "S2")
ROLES = (0, 1, 2)


@cache
def query_of(policy: str, kind: str = "query") -> Query:
    config = CONFIGS[policy]
    if kind == "query":
        return Query.of_features(values(11, 2), MODEL, DEFENDER, config)
    return Query.of_logits(values(11, 2), DEFENDER, config)


@cache
def real_run(policy: str, dealer: str, kind: str = "query") -> tuple[dict[str, Networks], WorldRun]:
    query = query_of(policy, kind)
    networks = share_networks(query, 1)
    run: WorldRun = trio.run(partial(run_real, query, networks, seed=3, dealer=dealer))
    return networks, run


def ideal(query: Query, networks: dict[str, Networks], role: int, own: OwnParts, dealer: str) -> TrustedParty:
    trusted: TrustedParty = trio.run(partial(run_ideal, query, networks, role, own, dealer=dealer))
    return trusted


def confidences(answer: RingArray) -> Any:
    scaled = decode(answer, FRACTION_BITS)
    return scaled / scaled.sum(axis=1, keepdims=True)


# Whole queries ----------------------------------------------------------------------------------------------------


#: Every role with every dealer for two policies; for the largest and the smallest one dealer for each role.
CASES = [
    (policy, dealer, role)
    for policy in CONFIGS
    for dealer in DEALERS
    for role in ROLES
    if policy in ("linesearch", "label") or role == DEALERS.index(dealer)
]


@pytest.mark.parametrize(("policy", "dealer", "role"), CASES)
def test_with_the_coins_of_a_real_run_the_answer_is_the_real_one(policy: str, dealer: str, role: int) -> None:
    networks, real = real_run(policy, dealer)
    trusted = ideal(query_of(policy), networks, role, RecordedParts(real.results[role]), dealer)
    np.testing.assert_array_equal(trusted.answers["reveal"], real.answer)
    handed_out = {(gate, path): output for gate, path, output in trusted.handed_out}
    assert len(handed_out) == len(trusted.handed_out)
    for (gate, path), output in handed_out.items():
        if output is not None and not (gate == "arithmetic.deal" and role == 2):
            assert same_parts(output, real.results[role][gate, path]), (gate, path)
    primitive = {key for key in real.results[role] if key[0] in IDEALS}
    inner = {(gate, path) for gate, path in primitive if "/part[" in path}
    assert primitive - inner == set(handed_out)


@pytest.mark.parametrize("role", ROLES)
def test_several_steps_and_outer_runs_are_answered_alike(role: int) -> None:
    config = siguard.GuardConfig(policy="siguard", outer=2, inner=2)
    query = Query.of_features(values(12, 2), MODEL, DEFENDER, config)
    networks = share_networks(query, 1)
    real: WorldRun = trio.run(partial(run_real, query, networks, seed=4, dealer="S1"))
    trusted = ideal(query, networks, role, RecordedParts(real.results[role]), "S1")
    np.testing.assert_array_equal(trusted.answers["reveal"], real.answer)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("policy", CONFIGS)
def test_logits_from_upstream_are_answered_alike(policy: str, role: int) -> None:
    networks, real = real_run(policy, "S2", "guard")
    trusted = ideal(query_of(policy, "guard"), networks, role, RecordedParts(real.results[role]), "S2")
    np.testing.assert_array_equal(trusted.answers["reveal"], real.answer)


@pytest.mark.parametrize(
    ("policy", "role"),
    [("siguard", 1), ("none", 2), *((policy, role) for policy in ("linesearch", "label") for role in ROLES)],
)
def test_with_fresh_coins_the_answer_is_right_up_to_rounding(policy: str, role: int) -> None:
    query = query_of(policy)
    expected = siguard.reference.guard(MODEL(values(11, 2)), DEFENDER, query.config).confidences
    networks = share_networks(query, 5)
    answers = [ideal(query, networks, role, FreshParts(seed), "S1").answers["reveal"] for seed in (0, 0, 1)]
    for answer in answers:
        np.testing.assert_allclose(confidences(answer), expected, atol=4 * ROUNDING)
    np.testing.assert_array_equal(answers[0], answers[1])
    if policy != "label":
        assert (answers[0] != answers[2]).any(), "other coins round otherwise"


def test_how_the_networks_are_shared_does_not_matter() -> None:
    """Given the coins, F depends on the networks and on no share of them."""
    networks, real = real_run("linesearch", "S2")
    own = RecordedParts(real.results[0])
    server = "S0"  # in role 0 when S2 deals
    for seed in (8, 9):
        held = {server: networks[server]}
        fresh = share_networks(query_of("linesearch"), seed, held)
        for mine, theirs in zip(fresh[server].defender.matrices, networks[server].defender.matrices, strict=True):
            assert same_parts(mine, theirs)
        trusted = ideal(query_of("linesearch"), fresh, 0, own, "S2")
        np.testing.assert_array_equal(trusted.answers["reveal"], real.answer)


@pytest.mark.parametrize("server", DEALERS)
def test_shared_networks_add_up_and_keep_what_one_server_holds(server: str) -> None:
    query = query_of("none")
    first = share_networks(query, 1)
    second = share_networks(query, 2, {server: first[server]})
    for networks in (first, second):
        _check_networks(networks, query)
    assert not same_parts(first["S0"].defender.matrices[0], share_networks(query, 3)["S0"].defender.matrices[0])
    for one, other in zip(_shares(first[server]), _shares(second[server]), strict=True):
        assert same_parts(one, other)


def _shares(networks: Networks) -> list[Share]:
    assert networks.model is not None
    defender = networks.defender
    return [*defender.matrices, *defender.folded, *(share for layer in networks.model.layers for share in layer)]


def _check_networks(networks: dict[str, Networks], query: Query) -> None:
    from siguard.guard.defender import encode_defender
    from siguard.nn.shared import encode_model

    assert query.model is not None
    plain = [*encode_defender(query.defender).matrices, *encode_model(query.model).arrays]
    for index, array in enumerate(plain):
        parts = [_shares(networks[name])[index] for name in DEALERS]
        np.testing.assert_array_equal(value_of(parts), array)
        for role, part in enumerate(parts):
            np.testing.assert_array_equal(part.second, parts[(role + 1) % 3].first)


# What is not a primitive gate is refused --------------------------------------------------------------------------


def run_with(protect: Callable[..., Awaitable[Additive]]) -> TrustedParty:
    """A query whose policy ``none`` does something else first."""
    from siguard.guard import query as module
    from siguard.guard.policy import POLICIES

    policies = {**POLICIES, "none": POLICIES["none"]._replace(protect=protect)}
    query = query_of("none")
    networks = share_networks(query, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POLICIES", policies)
        return ideal(query, networks, 0, FreshParts(1), "S2")


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


async def shipped(party: Party, *arguments: Any) -> Additive:
    from siguard.guard.policies import none

    return await none.protect(party, *arguments)


def test_a_policy_that_only_uses_gates_is_not_refused() -> None:
    assert set(run_with(shipped).answers) == {"reveal"}


def test_a_draw_outside_the_primitive_gates_is_refused() -> None:
    async def draws(party: Party, *arguments: Any) -> Additive:
        if party.role != 1:
            party.draw(2 - party.role, "own", Z64, (1,))
        return await shipped(party, *arguments)

    with pytest.raises(BaseException) as raised:  # noqa: PT011 - what it is, is looked at below
        run_with(draws)
    messages = {str(leaf) for leaf in leaves(raised.value)}
    assert messages == {"'own' is drawn at 'guard' outside a primitive gate"}


def test_a_frame_outside_the_primitive_gates_is_refused() -> None:
    async def sends(party: Party, *arguments: Any) -> Additive:
        if party.role == 0:
            await party.channel.send(1, party.path, 0, Z64.zeros(1))
        return await shipped(party, *arguments)

    with pytest.raises(AssertionError, match="1 frames were sent outside the primitive gates"):
        run_with(sends)


def test_a_gate_that_is_called_twice_at_one_step_is_refused() -> None:
    async def twice(party: Party, logits: Share, *arguments: Any) -> Additive:
        for _ in range(2):
            await arithmetic.remask(party.at("again"), as_additive(logits))
        return await shipped(party, logits, *arguments)

    with pytest.raises(BaseException) as raised:  # noqa: PT011
        run_with(twice)
    assert all(isinstance(leaf, (ProtocolError, RandomnessReuseError)) for leaf in leaves(raised.value))
    assert any("guard/again" in str(leaf) for leaf in leaves(raised.value))


@pytest.mark.parametrize("role", ROLES)
def test_a_gate_that_only_two_servers_call_ends_in_bounded_time(role: int) -> None:
    """On a clock that skips waiting."""
    trusted = TrustedParty(role, FreshParts(1))

    async def protocol(party: Party) -> None:
        if party.role != role:
            nothing = Additive(party.role, Z64, Z64.zeros(1), 0, dealer_part=False)
            await arithmetic.remask(party.at("alone"), nothing)

    async def run() -> SiguardError:
        with hybrid(trusted), trio.fail_after(30):
            try:
                await run_three(protocol, randomness=NoRandomness)
            except BaseException as error:  # a group, or what is in it
                return leaves(error)[0]  # type: ignore[return-value]
        pytest.fail("nothing was raised")

    error, seconds = at_once(run)
    assert isinstance(error, ProtocolError)
    assert error.step == "alone"
    others = [one for one in ROLES if one != role]
    assert error.message == f"only roles {others} called arithmetic.remask"
    assert seconds <= 21


def test_patience_is_on_the_real_clock_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siguard.proofsim.ideal._PATIENCE", 0.1)

    async def alone() -> None:
        trusted = TrustedParty(0, FreshParts(1))
        await trusted.call("gate", Party(0, None, "here"), (), lambda *arguments: [None] * 3)  # type: ignore[arg-type]

    with pytest.raises(ProtocolError, match=r"only roles \[0\] called gate"):
        trio.run(alone)


def test_an_input_that_nobody_gave_is_an_error() -> None:
    trusted = TrustedParty(0, FreshParts(1), {})
    with pytest.raises(KeyError, match="elsewhere"):
        IDEALS["io.receive_input"](trusted, "elsewhere", [(Z64, (1,), 0)] * 3)


def test_a_leak_in_the_shipped_code_changes_what_is_handed_out() -> None:
    """The comparison above is not blind: with another product the parts of the real run do not fit."""
    from siguard.mpc.products import matrix_product

    def doubled(x: Share, y: Share) -> Additive:
        return matrix_product(x, y) * 2

    networks, real = real_run("none", "S2")
    with replaced(matrix_product, doubled):
        trusted = ideal(query_of("none"), networks, 0, RecordedParts(real.results[0]), "S2")
    assert (trusted.answers["reveal"] != real.answer).any()
