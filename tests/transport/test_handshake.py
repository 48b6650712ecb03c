"""The handshake between ends that follow it: keys for both, refusals that say what differs, and one vector."""

from __future__ import annotations

import copy
import hashlib
import inspect
import pickle
import traceback
from dataclasses import replace

import handshake_reference as reference
import pytest
from handshake_helpers import (
    CALLED,
    CALLER,
    KEYS,
    KNOWN,
    SIZES,
    answer,
    converse,
    dial,
    fixed,
    identity,
    says,
)
from handshake_reference import REFUSAL

from siguard.errors import InputError
from siguard.transport.handshake import Agreed, HandshakeError, Identity, fingerprint, initiate, respond
from siguard.transport.link import LinkBrokenError

# Two honest ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expect", ["S1", None])
def test_two_ends_agree_and_know_each_other(expect: str | None) -> None:
    outcome = converse(dial(expect=expect), answer())
    one, other = outcome.initiator, outcome.responder
    assert isinstance(one, Agreed)
    assert isinstance(other, Agreed)
    assert (one.peer, other.peer) == ("S1", "S0")
    assert (one.sending, one.receiving, one.exporter) == (other.receiving, other.sending, other.exporter)
    assert len({one.sending, one.receiving, one.exporter}) == 3
    assert [len(message) for message in outcome.messages] == SIZES


@pytest.mark.parametrize("name", ["user", "x" * 64, "ünïcode", "name with spaces"])
def test_message_sizes_do_not_tell_the_names(name: str) -> None:
    known = {**KNOWN, name: KEYS["S0"].verify_key}
    outcome = converse(initiate(Identity(name, KEYS["S0"]), known, "S1"), respond(identity("S1"), known))
    assert isinstance(outcome.responder, Agreed)
    assert outcome.responder.peer == name
    assert [len(message) for message in outcome.messages] == SIZES
    assert not any(name.encode() in message for message in outcome.messages)


def test_two_runs_share_no_secret_and_no_message() -> None:
    runs = [converse(dial(), answer()) for _ in range(2)]
    seen = [message for outcome in runs for message in outcome.messages]
    for outcome in runs:
        assert isinstance(outcome.initiator, Agreed)
        seen += [outcome.initiator.sending, outcome.initiator.receiving, outcome.initiator.exporter]
    assert len(set(seen)) == len(seen)


def test_the_vector() -> None:
    """Both ends produce, byte for byte, what the description says; the digest holds the format in place."""
    expected = reference.run(CALLER, CALLED)
    outcome = converse(
        dial(entropy=fixed(CALLER.ephemeral, CALLER.nonce)), answer(entropy=fixed(CALLED.ephemeral, CALLED.nonce))
    )
    assert outcome.messages == [expected.hello, expected.answer, expected.proof, expected.verdict]
    one, other = outcome.initiator, outcome.responder
    assert isinstance(one, Agreed)
    assert isinstance(other, Agreed)
    assert one.sending == other.receiving == expected.initiator_records
    assert other.sending == one.receiving == expected.responder_records
    assert one.exporter == other.exporter == expected.exporter
    assert (
        hashlib.sha256(b"".join([*outcome.messages, one.exporter])).hexdigest()
        == "3fc894c577dbafb0baa7e003f13919a57b74c35e43a77b1a1657709a96326c25"
    )


# Refusals, and what each end learns ----------------------------------------------------------------------------


def test_the_caller_holds_another_key_than_the_pinned_one() -> None:
    outcome = converse(dial("S0", "stranger"), answer())
    assert "S0 proved another key" in says(outcome.responder)
    assert fingerprint(KEYS["stranger"].verify_key) in says(outcome.responder)
    assert "compare the deployment files" in says(outcome.responder)
    assert says(outcome.initiator).startswith("S1 refused S0: its deployment file pins another key")
    assert len(outcome.messages[-1]) == SIZES[-1]


def test_the_called_end_holds_another_key_than_the_pinned_one() -> None:
    outcome = converse(dial(), answer("S1", "stranger"))
    assert "S1 proved another key" in says(outcome.initiator)
    assert "its log says which" in says(outcome.responder)
    assert outcome.messages[2:] == [REFUSAL]  # and S0 did not say who it is


def test_names_that_are_not_in_the_deployment_file() -> None:
    outcome = converse(dial("stranger"), answer())
    assert "stranger is not in the deployment file" in says(outcome.responder)
    assert "not in its deployment file" in says(outcome.initiator)
    outcome = converse(dial(expect=None), answer("stranger"))
    assert "stranger is not in the deployment file" in says(outcome.initiator)
    with pytest.raises(HandshakeError, match="stranger is not in the deployment file"):
        next(dial(expect="stranger"))


def test_another_party_than_the_dialled_one_answers() -> None:
    outcome = converse(dial(expect="S2"), answer("S1"))
    assert "reached S1 where S2 was expected" in says(outcome.initiator)
    assert outcome.messages[2:] == [REFUSAL]


def test_a_party_does_not_talk_to_itself() -> None:
    outcome = converse(dial("S1", expect=None), answer("S1"))
    assert "two processes run as one party" in says(outcome.initiator)
    outcome = converse(dial("S1", "stranger", known={**KNOWN, "S1": KNOWN["S2"]}, expect="S2"), answer("S2"))
    assert isinstance(outcome.responder, HandshakeError)


def test_ends_with_different_prologues_say_so() -> None:
    outcome = converse(dial(prologue=b"another deployment"), answer())
    assert "S1 describes the channel differently" in says(outcome.initiator)
    expected = reference.run(replace(CALLER, prologue=b"another deployment"), CALLED)
    end = answer(entropy=fixed(CALLED.ephemeral, CALLED.nonce))
    next(end)
    end.send(expected.hello)
    with pytest.raises(HandshakeError, match="S0 describes the channel differently"):
        end.send(expected.proof)


@pytest.mark.parametrize("verdict", [5, 77])
def test_a_verdict_is_told_to_the_caller(verdict: int) -> None:
    expected = reference.run(CALLER, CALLED, verdict)
    end = dial(entropy=fixed(CALLER.ephemeral, CALLER.nonce))
    assert next(end) == expected.hello
    assert end.send(expected.answer) == expected.proof
    reason = "compare the deployment files" if verdict == 5 else "a reason that this side does not know"
    with pytest.raises(HandshakeError, match=f"S1 refused S0: .*{reason}"):
        end.send(expected.verdict)


def test_both_ends_learn_of_another_protocol_version() -> None:
    """The other end's release is played: its header holds version 2."""

    def newer(message: bytes) -> bytes:
        return message[:8] + b"\0\2" + message[10:]

    outcome = converse(dial(), answer(), lambda number, message: newer(message))
    assert "other end speaks protocol version 2, this side 1: install the same release" in says(outcome.responder)
    assert "other end speaks protocol version 2, this side 1" in says(outcome.initiator)
    assert outcome.messages[1:] == [REFUSAL]


def test_two_ends_that_both_dial() -> None:
    one = dial()
    next(one)
    with pytest.raises(HandshakeError, match="the other end dialled as well"):
        one.send(next(dial("S1", expect="S0")))


# Keys stay where they are --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "x" * 65, "ü" * 33, "S0\n", "S\0", "\ud800"])
def test_names_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="1 to 64 printable bytes"):
        Identity(name, KEYS["S0"])


def test_no_key_is_shown_or_pickled() -> None:
    me = identity("S0")
    agreed = converse(dial(), answer()).initiator
    assert isinstance(agreed, Agreed)
    for holder, secrets in (
        (me, [bytes(KEYS["S0"])]),
        (agreed, [agreed.sending, agreed.receiving, agreed.exporter]),
    ):
        for text in (repr(holder), str(holder), f"{holder}"):
            for secret in secrets:
                assert secret.hex() not in text
                assert repr(secret)[2:-1] not in text
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="holds keys"):
                copier(holder)


def test_the_ephemeral_key_is_dropped_when_it_has_served() -> None:
    expected = reference.run(CALLER, CALLED)
    called = answer(entropy=fixed(CALLED.ephemeral, CALLED.nonce))
    next(called)
    called.send(expected.hello)
    caller = dial(entropy=fixed(CALLER.ephemeral, CALLER.nonce))
    next(caller)
    assert CALLER.ephemeral in inspect.getgeneratorlocals(caller).values()
    caller.send(expected.answer)
    for end in (caller, called):
        held = inspect.getgeneratorlocals(end)
        assert "keys" in held
        assert not {CALLER.ephemeral, CALLED.ephemeral} & {
            value for value in held.values() if isinstance(value, bytes)
        }


def test_errors_name_no_secret_and_are_broken_links() -> None:
    outcome = converse(dial("S0", "stranger"), answer())
    for error in (outcome.initiator, outcome.responder):
        assert isinstance(error, LinkBrokenError)
        text = "".join(traceback.format_exception(error))
        for key in KEYS.values():
            assert bytes(key).hex() not in text
