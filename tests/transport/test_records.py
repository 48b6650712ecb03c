"""Records: bytes as described, every attack noticed, keys that change and go, no nonce used twice."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from functools import partial

import handshake_reference as reference
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from siguard.transport import records
from siguard.transport.records import MAX_SKIP, SEAL_BYTES, Mark, Opener, RecordError, Sealer

SECRET = bytes(range(32))
OTHER_SECRET = bytes(range(1, 33))


def ends(rekey_records: int = 4) -> tuple[Sealer, Opener]:
    return Sealer(SECRET, rekey_records), Opener(SECRET, rekey_records)


@given(st.lists(st.binary(max_size=100), max_size=20), st.integers(1, 5))
def test_messages_come_out_as_they_went_in(messages: list[bytes], rekey_records: int) -> None:
    sealer, opener = ends(rekey_records)
    sealed = [sealer.seal(message) for message in messages]
    assert [len(record) - len(message) for record, message in zip(sealed, messages, strict=True)] == [
        SEAL_BYTES for _ in messages
    ]
    assert [opener.open(bytearray(record)) for record in sealed] == messages
    assert opener.open(sealer.seal_end()) is Mark.END


def test_the_bytes_are_those_of_the_description() -> None:
    """Ten records across two changes of the key, then a skip, then the end."""
    sealer, _ = ends()
    for counter in range(10):
        text = bytes([counter]) * counter
        assert sealer.seal(text) == reference.record(SECRET, counter, text, b"data", 4)
    sealer.doubt()
    header = struct.pack(">QQ", 9, 10)
    assert sealer.seal_skip() == header + reference.record(SECRET, 10, b"", b"skip" + header, 4)
    assert sealer.seal_end() == reference.record(SECRET, 11, b"", b"end", 4)


def sealed_messages(secret: bytes = SECRET, count: int = 8) -> list[bytes]:
    sealer = Sealer(secret, 4)
    return [sealer.seal(b"message %d" % number) for number in range(count)]


def flipped(record: bytes, bit: int) -> bytes:
    bit %= 8 * len(record)
    return record[: bit // 8] + bytes([record[bit // 8] ^ 1 << bit % 8]) + record[bit // 8 + 1 :]


ATTACKS: dict[str, Callable[[list[bytes], int], list[bytes]]] = {
    "replay the last": lambda sealed, at: [*sealed[: at + 1], sealed[at]],
    "replay the first": lambda sealed, at: [*sealed[: at + 1], sealed[0]],
    "leave one out": lambda sealed, at: [*sealed[:at], *sealed[at + 1 :]],
    "exchange two": lambda sealed, at: [*sealed[:at], sealed[at + 1], sealed[at]],
    "cut a byte": lambda sealed, at: [*sealed[:at], sealed[at][:-1]],
    "cut to a tag": lambda sealed, at: [*sealed[:at], sealed[at][-SEAL_BYTES:]],
    "cut to less": lambda sealed, at: [*sealed[:at], sealed[at][:5]],
    "cut to nothing": lambda sealed, at: [*sealed[:at], b""],
    "add a byte": lambda sealed, at: [*sealed[:at], sealed[at] + b"\0"],
    "join two": lambda sealed, at: [*sealed[:at], sealed[at] + sealed[at + 1]],
    "other keys": lambda sealed, at: [*sealed[:at], sealed_messages(OTHER_SECRET)[at]],
    "plaintext": lambda sealed, at: [*sealed[:at], b"message %d" % at],
    "an invented skip": lambda sealed, at: [*sealed[:at], struct.pack(">QQ", at, at + 1) + bytes(SEAL_BYTES)],
    "a far skip": lambda sealed, at: [*sealed[:at], struct.pack(">QQ", 0, 2**64 - 1) + bytes(SEAL_BYTES)],
    "an invented end": lambda sealed, at: [*sealed[:at], bytes(SEAL_BYTES)],
}


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_noticed_at_once(attack: str, at: int) -> None:
    """At any place, before and after a change of the key; what came before was delivered."""
    sealed = sealed_messages()
    attacked = ATTACKS[attack](sealed, at)
    assert attacked != sealed
    _, opener = ends()
    good = next(number for number in range(len(attacked)) if attacked[number] != sealed[number])
    for number in range(good):
        assert opener.open(attacked[number]) == b"message %d" % number
    with pytest.raises(RecordError):
        opener.open(attacked[good])


@given(st.binary(max_size=40), st.integers(0, 1000))
def test_any_flipped_bit_is_noticed(message: bytes, bit: int) -> None:
    for make in (lambda sealer: sealer.seal(message), Sealer.seal_skip, Sealer.seal_end):
        sealer, opener = ends()
        with pytest.raises(RecordError):
            opener.open(flipped(make(sealer), bit))


def test_nothing_comes_after_the_end() -> None:
    sealer, opener = ends()
    assert opener.open(sealer.seal_end()) is Mark.END
    with pytest.raises(RecordError):
        opener.open(sealer.seal(b"more"))


def test_kinds_are_not_taken_for_one_another() -> None:
    """An empty message is no end, and the end no empty message, though both are a bare tag."""
    sealer, opener = ends()
    assert opener.open(sealer.seal(b"")) == b""
    assert opener.open(sealer.seal_end()) is Mark.END


# Records that nobody knows to have left --------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["sent", "cancelled, left", "cancelled, lost"]), max_size=40), st.integers(1, 5))
def test_after_cancelled_sends_the_rest_arrives(sends: list[str], rekey_records: int) -> None:
    """As `SealedLink` does it: a skip first, whose own send may be cancelled too.  No counter serves twice."""
    sealer, opener = ends(rekey_records)
    wire: list[bytes] = []
    expected: list[bytes] = []
    for number, how in enumerate(sends):
        message = b"message %d" % number
        skips = sealer.in_doubt > 0
        seals: list[Callable[[], bytes]] = [sealer.seal_skip] if skips else []
        seals.append(partial(sealer.seal, message))
        for seal in seals:
            record = seal()
            if how != "cancelled, lost":
                wire.append(record)
            if how != "sent":
                sealer.doubt()
                break
            sealer.settle()
        else:
            expected.append(message)
            continue
        if how == "cancelled, left" and not skips:
            expected.append(message)
    opened = [opener.open(record) for record in wire]
    assert [message for message in opened if message is not Mark.SKIP] == expected
    assert len(set(wire)) == len(wire)


def test_a_skip_lets_nothing_be_left_out_but_what_was_in_doubt() -> None:
    sealer, opener = ends()
    first, second, doubtful = (sealer.seal(text) for text in (b"first", b"second", b"doubtful"))
    sealer.doubt()
    skip = sealer.seal_skip()
    assert opener.open(first) == b"first"
    with pytest.raises(RecordError):
        opener.open(skip)  # the second was left out
    opener = Opener(SECRET, 4)
    assert [opener.open(record) for record in (first, second, skip)] == [b"first", b"second", Mark.SKIP]
    for late in (doubtful, skip):
        with pytest.raises(RecordError):
            opener.open(late)


def test_a_far_skip_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header is read before anything authenticates it, so that it must not cost many keys."""
    _, opener = ends(rekey_records=1)
    monkeypatch.setattr(Opener, "_rekey", lambda self: pytest.fail("keys were made"))
    with pytest.raises(RecordError):
        opener.open(struct.pack(">QQ", 0, MAX_SKIP + 1) + bytes(SEAL_BYTES))


# Keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rekey_records", [1, 3])
def test_no_nonce_is_used_twice_and_keys_change_when_due(
    monkeypatch: pytest.MonkeyPatch, rekey_records: int
) -> None:
    used: list[tuple[bytes, bytes]] = []

    class Spy:
        def __init__(self, key: bytes) -> None:
            self._key, self._aead = key, AESGCM(key)

        def encrypt(self, nonce: bytes, data: bytes, kind: bytes) -> bytes:
            used.append((self._key, nonce))
            return self._aead.encrypt(nonce, data, kind)

    monkeypatch.setattr(records, "AESGCM", Spy)
    sealer = Sealer(SECRET, rekey_records)
    for _ in range(4):
        sealer.seal(b"same")
        sealer.doubt()
        sealer.seal_skip()
        sealer.settle()
    sealer.seal_end()
    assert len(set(used)) == len(used) == 9
    assert [key for key, _ in used] == [used[index - index % rekey_records][0] for index in range(9)]
    assert len({key for key, _ in used}) == -(-9 // rekey_records)


def test_old_keys_are_dropped_and_new_ones_do_not_lead_back() -> None:
    sealer, opener = ends(rekey_records=2)
    secrets = [SECRET]
    for _ in range(3):
        secrets.append(reference.expand(secrets[-1], b"next records"))
    for _ in range(7):
        opener.open(sealer.seal(b"x"))
    for end in (sealer, opener):
        held = [getattr(end, name) for name in ("_secret", "_iv", "_counter", "_until")]
        assert held[0] == secrets[3]
        assert not any(secret in held for secret in secrets[:3])
        end.forget()
        end.forget()
        assert not hasattr(end, "_secret")
        assert not hasattr(end, "_aead")
        assert not hasattr(end, "_iv")


def test_no_key_is_shown_or_pickled() -> None:
    for end in ends():
        assert SECRET.hex() not in repr(end)
        with pytest.raises(TypeError, match="holds keys"):
            pickle.dumps(end)
