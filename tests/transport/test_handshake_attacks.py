"""The handshake against bytes that are not what they should be, and against somebody in the middle.

Deviating parties come from `handshake_reference.py`, which shares no code with the package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import handshake_reference as reference
import pytest
from handshake_helpers import CALLED, CALLER, KEYS, PROLOGUE, SIZES, answer, converse, dial, fixed, says
from handshake_reference import HELLO, REFUSAL, Party
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from siguard.transport.handshake import Agreed, HandshakeError

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
    others = st.sampled_from([*EARLIER, REFUSAL]).map(lambda other: lambda m: other)
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


@pytest.mark.parametrize("number", range(4))
def test_a_message_of_another_size_is_refused_for_that(number: int) -> None:
    outcome = converse(dial(), answer(), lambda n, message: message + b"\0" if n == number else message)
    receiver = outcome.initiator if number % 2 else outcome.responder
    assert f"a frame of {SIZES[number] + 1} bytes is not a handshake message of kind {number + 1}" in says(receiver)


@given(st.lists(st.binary(max_size=400) | st.sampled_from(EARLIER), min_size=1, max_size=4), st.booleans())
def test_no_invented_messages_pass(messages: list[bytes], calls: bool) -> None:
    end = dial() if calls else answer()
    next(end)
    try:
        for message in messages:
            end.send(message)
    except HandshakeError:
        return
    except StopIteration:
        pytest.fail("sealed with nobody")


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
    assert not isinstance(outcome.initiator, Agreed)
    assert isinstance(outcome.responder, Agreed) == (number == 3)
    if number == 1:
        assert "dialled as well" in says(outcome.initiator)


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
        ({"block": block(b"x" * 64, length=65)}, BAD_NAME),
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
