"""The handshake: who may talk, what each failure says, and that nobody in the middle gets anywhere.

The vector and the deviating parties come from `handshake_reference.py`, which shares no code with the package.
"""

from __future__ import annotations

import copy
import hashlib
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import handshake_reference as reference
import pytest
from handshake_reference import HELLO, REFUSAL, Party
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey, VerifyKey

from siguard.errors import InputError
from siguard.transport.handshake import Agreed, HandshakeError, Identity, Steps, fingerprint, initiate, respond
from siguard.transport.link import LinkBrokenError

KEYS = {name: SigningKey(hashlib.sha256(name.encode()).digest()) for name in ("S0", "S1", "S2", "user", "stranger")}
KNOWN = {name: key.verify_key for name, key in KEYS.items() if name != "stranger"}
PROLOGUE = b"a deployment"
SIZES = [74, 315, 251, 27]

Change = Callable[[int, bytes], bytes | None]


def identity(name: str, key: str | None = None) -> Identity:
    return Identity(name, KEYS[key or name])


@dataclass
class Outcome:
    """What each end of a run got, and every message that was sent, refusals included."""

    initiator: Agreed | HandshakeError | None
    responder: Agreed | HandshakeError | None
    messages: list[bytes]


def converse(initiator: Steps, responder: Steps, change: Change = lambda _, message: message) -> Outcome:
    """Let two ends talk; ``change`` sits in the middle and sees each message with its number (None: it is lost).

    An end whose run is over reads nothing more; None is the outcome of one that goes on waiting.
    """
    ends: list[Steps] = [responder, initiator]
    outcomes: list[Agreed | HandshakeError | None] = [None, None]
    assert next(responder) == b""
    messages: list[bytes] = []
    outgoing = step(initiator, None, outcomes, 1)
    for number in range(8):
        if outgoing is None:
            break
        messages.append(outgoing)
        arriving = change(number, outgoing)
        receiver = number % 2
        if arriving is None or outcomes[receiver] is not None:
            break
        outgoing = step(ends[receiver], arriving, outcomes, receiver)
    return Outcome(outcomes[1], outcomes[0], messages)


def step(end: Steps, data: bytes | None, outcomes: list[Agreed | HandshakeError | None], who: int) -> bytes | None:
    try:
        return next(end) if data is None else end.send(data)
    except StopIteration as done:
        last: bytes
        last, outcomes[who] = done.value
        return last or None
    except HandshakeError as error:
        outcomes[who] = error
        return error.reply


def dial(name: str = "S0", key: str | None = None, expect: str | None = "S1", **options: object) -> Steps:
    known: Mapping[str, VerifyKey] = options.pop("known", KNOWN)  # type: ignore[assignment]
    return initiate(identity(name, key), known, expect, **{"prologue": PROLOGUE, **options})  # type: ignore[arg-type]


def answer(name: str = "S1", key: str | None = None, **options: object) -> Steps:
    known: Mapping[str, VerifyKey] = options.pop("known", KNOWN)  # type: ignore[assignment]
    return respond(identity(name, key), known, **{"prologue": PROLOGUE, **options})  # type: ignore[arg-type]


def fixed(*values: bytes) -> Callable[[int], bytes]:
    remaining: Iterator[bytes] = iter(values)

    def entropy(length: int) -> bytes:
        value = next(remaining)
        assert len(value) == length
        return value

    return entropy


def bytes_of(label: str) -> bytes:
    return hashlib.sha256(label.encode()).digest()


CALLER = Party(b"S0", KEYS["S0"], bytes_of("ephemeral 0"), bytes_of("nonce 0"), PROLOGUE)
CALLED = Party(b"S1", KEYS["S1"], bytes_of("ephemeral 1"), bytes_of("nonce 1"), PROLOGUE)


def says(outcome: Agreed | HandshakeError | None) -> str:
    assert isinstance(outcome, HandshakeError), outcome
    return str(outcome)


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


@pytest.mark.parametrize("name", ["S", "S0", "x" * 64, "ünïcode", "name with spaces"])
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
    assert hashlib.sha256(b"".join([*outcome.messages, one.exporter])).hexdigest() == "DIGEST"


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


# Bytes that are not what they should be ------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000), HELLO[:-1]])
def test_garbage_gets_a_clear_error_and_no_reply(garbage: bytes) -> None:
    for end in (answer(), dial()):
        next(end)
        with pytest.raises(HandshakeError, match=f"a frame of {len(garbage)} bytes is not a handshake") as caught:
            end.send(bytearray(garbage))
        assert caught.value.reply is None


EARLIER = converse(dial(), answer()).messages


def changes(number: int) -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Ways to spoil a message that keep or do not keep its shape."""
    size = SIZES[number]
    flips = st.tuples(st.integers(0, size - 1), st.integers(1, 255)).map(
        lambda flip: lambda m: m[: flip[0]] + bytes([m[flip[0]] ^ flip[1]]) + m[flip[0] + 1 :]
    )
    cuts = st.integers(0, size - 1).map(lambda length: lambda m: m[:length])
    longer = st.binary(min_size=1, max_size=400).map(lambda tail: lambda m: m + tail)
    # Message 0 of an earlier run is as good as any: the answer to it is what the caller cannot use.
    others = st.sampled_from(EARLIER + [REFUSAL]).map(lambda other: lambda m: other)
    noise = st.binary(max_size=400).map(lambda data: lambda m: data)
    body = st.binary(min_size=size - 10, max_size=size - 10).map(lambda data: lambda m: m[:10] + data)
    return st.one_of(flips, cuts, longer, others, noise, body)


@given(st.integers(0, 3).flatmap(lambda number: st.tuples(st.just(number), changes(number))))
def test_no_changed_message_passes(case: tuple[int, Callable[[bytes], bytes]]) -> None:
    """Whichever message is changed, replaced or replayed: only `HandshakeError`, and no one ends up sealed.

    But the called end, when only its last word is changed: it has nothing more to wait for.
    """
    target, spoil = case
    outcome = converse(dial(), answer(), lambda number, message: spoil(message) if number == target else message)
    assert not isinstance(outcome.initiator, Agreed)
    assert isinstance(outcome.responder, Agreed) == (target == 3)
    receiver = outcome.initiator if target % 2 else outcome.responder
    assert isinstance(receiver, HandshakeError | Agreed)


@given(st.lists(st.binary(max_size=400) | st.sampled_from(EARLIER), min_size=1, max_size=4), st.booleans())
def test_no_invented_messages_pass(messages: list[bytes], calls: bool) -> None:
    end = dial() if calls else answer()
    next(end)
    with pytest.raises(HandshakeError):
        for message in messages:
            end.send(message)
        raise HandshakeError("still waiting")


def test_the_unused_bit_of_a_point_is_authenticated_too() -> None:
    """X25519 ignores the top bit: the secret is the same, the transcript is not."""

    def flip(number: int, message: bytes) -> bytes:
        return message[:41] + bytes([message[41] ^ 0x80]) + message[42:] if number == 0 else message

    assert "does not authenticate" in says(converse(dial(), answer(), flip).initiator)


# Somebody in the middle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(4))
def test_a_message_of_another_run_at_the_same_time_is_refused(number: int) -> None:
    """Two runs of the same parties, interleaved; one message of the first is delivered in the second."""
    first = converse(dial(), answer()).messages
    outcome = converse(dial(), answer(), lambda n, message: first[n] if n == number else message)
    assert not isinstance(outcome.initiator, Agreed)
    assert isinstance(outcome.responder, Agreed) == (number == 3)


@pytest.mark.parametrize("number", range(1, 4))
def test_a_message_is_not_accepted_where_another_belongs(number: int) -> None:
    """Reflection within a run: each message is given back to the end that sent the one before it."""
    sent: list[bytes] = []

    def reflect(n: int, message: bytes) -> bytes:
        sent.append(message)
        return sent[-2] if n == number else message

    outcome = converse(dial(), answer(), reflect)
    assert "dialled as well" in says(outcome.initiator) or number != 1
    assert not (isinstance(outcome.initiator, Agreed) or (number < 3 and isinstance(outcome.responder, Agreed)))


def test_a_proof_of_one_role_does_not_serve_in_the_other() -> None:
    """Even with the run's secrets, the called end's own proof is not taken for the caller's."""

    class Reflected(Party):
        def proof(self, role: bytes, secret: bytes, h: bytes) -> bytes:
            return CALLED.proof(b"responder", secret, h)

    expected = reference.run(Reflected(b"", KEYS["S0"], CALLER.ephemeral, CALLER.nonce), CALLED)
    end = answer(entropy=fixed(CALLED.ephemeral, CALLED.nonce))
    next(end)
    end.send(expected.hello)
    with pytest.raises(HandshakeError, match="signature does not verify"):
        end.send(expected.proof)


def test_an_insider_in_the_middle_can_only_be_itself() -> None:
    """S2 answers a call meant for S1 with a run of its own, and calls S1: neither takes it for the other."""
    outcome = converse(dial("S0", expect="S1"), answer("S2"))
    assert "reached S2 where S1 was expected" in says(outcome.initiator)
    outcome = converse(dial("S2", expect="S1"), answer("S1"))
    assert isinstance(outcome.responder, Agreed)
    assert outcome.responder.peer == "S2"


BAD_MAC = "MAC does not verify"
BAD_NAME = "no proper name"


def block(name: bytes, key: SigningKey = KEYS["S0"], length: int | None = None) -> bytes:
    count = len(name) if length is None else length
    return bytes([count]) + name.ljust(64, b"\0") + bytes(key.verify_key) + hashlib.sha256(PROLOGUE).digest()


def plus_order(signature: bytes) -> bytes:
    """The same signature in its other spelling: S + L, with L the order of the group."""
    order = 2**252 + 27742317777372353535851937790883648493
    return signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("deviation", "reason"),
    [
        # Identity misbinding: a run's signature with the sender's own name, without the run's MAC key.
        ({"name": b"S2", "key": KEYS["S2"], "change_mac": lambda mac: bytes(32)}, BAD_MAC),
        ({"change_mac": lambda mac: mac[:-1] + bytes([mac[-1] ^ 1])}, BAD_MAC),
        # S2 says that it is S0.
        ({"key": KEYS["S2"]}, "S0 proved another key"),
        ({"key": KEYS["S2"], "block": block(b"S0")}, "signature does not verify"),
        ({"change_signature": plus_order}, "signature does not verify"),
        ({"change_signature": lambda signature: bytes(64)}, "signature does not verify"),
        # A key of small order signs everything, where that is not refused.
        ({"block": block(b"S0")[:65] + b"\1" + bytes(31) + block(b"S0")[-32:]}, "signature does not verify"),
        ({"block": block(b"")}, BAD_NAME),
        ({"block": block(b"S0", length=255)}, BAD_NAME),
        ({"block": block(b"S0", length=1)}, BAD_NAME),
        ({"block": block(b"S0", length=3)}, BAD_NAME),
        ({"block": block(b"\xff\xfe")}, BAD_NAME),
        ({"block": block(b"S0\n2026 forged log line")}, BAD_NAME),
    ],
)
def test_a_deviating_caller_is_refused(deviation: dict[str, object], reason: str) -> None:
    """It knows the run's keys, for it took part, and still gets no further than its own pinned name."""
    expected = reference.run(replace(CALLER, **deviation), CALLED)  # type: ignore[arg-type]
    end = answer(entropy=fixed(CALLED.ephemeral, CALLED.nonce))
    next(end)
    assert end.send(expected.hello) == expected.answer
    with pytest.raises(HandshakeError, match=reason) as caught:
        end.send(expected.proof)
    assert caught.value.reply is not None
    assert len(caught.value.reply) == SIZES[3]


P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


@pytest.mark.parametrize("top", [0, 1 << 255])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_points_of_low_order_are_refused(point: int, top: int) -> None:
    bad = (point + top).to_bytes(32, "little")
    for number in (0, 1):
        outcome = converse(
            dial(),
            answer(),
            lambda n, m, target=number: m[:10] + bad + m[42:] if n == target else m,  # type: ignore[misc]
        )
        assert "low order" in says(outcome.initiator if number else outcome.responder)


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


def test_errors_name_no_secret_and_are_broken_links() -> None:
    outcome = converse(dial("S0", "stranger"), answer())
    for error in (outcome.initiator, outcome.responder):
        assert isinstance(error, LinkBrokenError)
        text = "".join(traceback.format_exception(error))
        for key in KEYS.values():
            assert bytes(key).hex() not in text
