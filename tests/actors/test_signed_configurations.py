"""The owner signs what servers may run: nobody can ask for less, with or without the check on the user's side."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fault_links import (
    LABEL,
    LINESEARCH,
    NONE,
    SERVERS,
    SHORT,
    Wire,
    failure_of,
    open_sessions,
    owner_of,
    some_features,
    some_logits,
    tiny_defender,
    tiny_model,
)
from nacl.signing import SigningKey

from siguard import Cluster, GuardConfig, PolicyError, open_cluster
from siguard.actors.messages import Grant, Request, grant_bytes
from siguard.ring import FRACTION_BITS, encode
from siguard.transport.frame import Kind

SESSION = b"forged session 1"


def _forged(wire: Wire, config: GuardConfig) -> Request:
    """The user's last request, with another configuration."""
    return replace(wire.last_request(), config=config.to_dict())


async def _ask_directly(cluster: Cluster, request: Request) -> Any:
    """What a user does who leaves out every check on its own side."""
    return await cluster.user.ask(SESSION, request, encode(some_features(), FRACTION_BITS), (2, 4))


def _protocol_frames(wire: Wire) -> list[tuple[str, str]]:
    return [
        (sent.sender, sent.receiver)
        for sent in wire.of_session(SESSION)
        if sent.sender in SERVERS and sent.frame.kind is Kind.DATA
    ]


@pytest.mark.parametrize("refused", [NONE, LINESEARCH, LABEL, GuardConfig(inner=9), GuardConfig(c1=0.5)])
async def test_what_is_not_signed_is_refused_before_anything_is_sent(
    refused: GuardConfig, autojump_clock: Any
) -> None:
    wire = Wire()
    async with open_cluster(seed=1, allow=[GuardConfig()], wrap_link=wire) as cluster:
        calls = {
            "guard": cluster.guard(some_logits(), tiny_defender(), refused),
            "query": cluster.query(some_features(), tiny_model(), tiny_defender(), refused),
        }
        for name, call in calls.items():
            failure = await failure_of(call)
            assert isinstance(failure.error, PolicyError), f"{name}: {failure.error!r}"
            assert "policy" in str(failure.error)
            assert wire.frames == [], f"{name}: {len(wire.frames)} frames were sent before the refusal"
        assert cluster.setup_traffic.messages == 0


async def test_equal_parameters_are_the_same_permission(autojump_clock: Any) -> None:
    spelled_out = GuardConfig(outer=3, inner=10, learning_rate=0.8)
    async with open_cluster(seed=1, allow=[spelled_out]) as cluster:
        result = await cluster.guard(some_logits(), tiny_defender(), GuardConfig())
    assert result.iterations == 30


async def test_an_empty_allow_signs_nothing(autojump_clock: Any) -> None:
    wire = Wire()
    async with open_cluster(seed=1, allow=[], wrap_link=wire) as cluster:
        failure = await failure_of(cluster.guard(some_logits(), tiny_defender(), GuardConfig()))
    assert isinstance(failure.error, PolicyError)
    assert wire.frames == []


async def test_allow_may_be_any_iterable(autojump_clock: Any) -> None:
    async with open_cluster(seed=1, allow=(config for config in [LABEL])) as cluster:
        result = await cluster.guard(some_logits(), tiny_defender(), LABEL)
    assert result.confidences.shape == (2, 4)


@pytest.mark.parametrize("forged", [NONE, LINESEARCH, GuardConfig(outer=1, inner=2)])
async def test_servers_refuse_a_request_that_was_not_signed(forged: GuardConfig, autojump_clock: Any) -> None:
    wire = Wire()
    model, defender = tiny_model(), tiny_defender()
    async with open_cluster(seed=1, allow=[LABEL], wrap_link=wire) as cluster:
        await cluster.query(some_features(), model, defender, LABEL)
        failure = await failure_of(_ask_directly(cluster, _forged(wire, forged)))
        assert isinstance(failure.error, PolicyError), repr(failure.error)
        assert failure.error.session == SESSION.hex()
        assert _protocol_frames(wire) == [], "a server sent protocol data for a refused request"
        again = await cluster.query(some_features(), model, defender, LABEL)
        assert again.confidences.shape == (2, 4)
        assert open_sessions(cluster) == {}


async def test_a_permission_is_for_one_classifier_and_one_model(autojump_clock: Any) -> None:
    wire = Wire()
    model, other_model = tiny_model(), tiny_model(7)
    defender, other_defender = tiny_defender(), tiny_defender(7)
    async with open_cluster(seed=1, wrap_link=wire) as cluster:
        await cluster.query(some_features(), model, defender, NONE)
        signed = wire.last_request()
        await cluster.query(some_features(), other_model, other_defender, LABEL)
        mixed = replace(signed, defender=wire.last_request().defender)
        failure = await failure_of(_ask_directly(cluster, mixed))
        assert isinstance(failure.error, PolicyError), repr(failure.error)
        assert _protocol_frames(wire) == []


async def _send_grant(cluster: Cluster, statement: bytes, signature: bytes) -> None:
    owner = owner_of(cluster)

    async def body() -> None:
        for server in SERVERS:
            payload = Grant(statement, signature).encode()
            await owner.outbox(b"forged grant 000").send(server, Kind.GRANT, "grant", 0, payload)
        await owner._all_done(b"forged grant 000")

    await owner._raise(b"forged grant 000", body)


@pytest.mark.parametrize("kind", ["another key", "another statement", "flipped bit", "empty", "short", "long"])
async def test_a_forged_signature_is_refused(kind: str, autojump_clock: Any) -> None:
    wire = Wire()
    model, defender = tiny_model(), tiny_defender()
    async with open_cluster(seed=1, allow=[LABEL], wrap_link=wire) as cluster:
        await cluster.query(some_features(), model, defender, LABEL)
        names = wire.last_request().defender, wire.last_request().model
        wanted, signed = grant_bytes(*names, NONE), grant_bytes(*names, LABEL)
        own = owner_of(cluster)._signing_key
        signature = {
            "another key": SigningKey(bytes(32)).sign(wanted).signature,
            "another statement": own.sign(signed).signature,
            "flipped bit": bytes([own.sign(wanted).signature[0] ^ 1]) + own.sign(wanted).signature[1:],
            "empty": b"",
            "short": own.sign(wanted).signature[:-1],
            "long": own.sign(wanted).signature + b"\0",
        }[kind]
        failure = await failure_of(_send_grant(cluster, wanted, signature))
        assert isinstance(failure.error, PolicyError), f"{kind}: {failure.error!r}"
        assert "signed" in str(failure.error)
        refused = await failure_of(_ask_directly(cluster, _forged(wire, NONE)))
        assert isinstance(refused.error, PolicyError)
        assert _protocol_frames(wire) == []


async def test_the_user_cannot_pass_on_a_grant_of_the_owner(autojump_clock: Any) -> None:
    """Not even a genuine one: permissions come over the owner's own link."""
    wire = Wire()
    async with open_cluster(seed=1, allow=[LABEL], wrap_link=wire) as cluster:
        await cluster.query(some_features(), tiny_model(), tiny_defender(), LABEL)
        statement = grant_bytes(wire.last_request().defender, wire.last_request().model, NONE)
        payload = Grant(statement, owner_of(cluster)._signing_key.sign(statement).signature).encode()

        async def body() -> None:
            for server in SERVERS:
                await cluster.user.outbox(b"user's grant 000").send(server, Kind.GRANT, "grant", 0, payload)
            await cluster.user.mailbox(b"user's grant 000").take("S0", "done")

        assert await cluster.user.within_session(b"user's grant 000", SERVERS, body) is not None
        refused = await failure_of(_ask_directly(cluster, _forged(wire, NONE)))
        assert isinstance(refused.error, PolicyError)


async def test_a_genuine_grant_is_accepted_and_serves_queries(autojump_clock: Any) -> None:
    model, defender = tiny_model(), tiny_defender()
    async with open_cluster(seed=1, allow=[LABEL, SHORT]) as cluster:
        one = await cluster.query(some_features(), model, defender, LABEL)
        two = await cluster.query(some_features(), model, defender, SHORT)
    assert (one.confidences.argmax(axis=1) == two.confidences.argmax(axis=1)).all()
