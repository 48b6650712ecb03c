"""Two ends of a handshake in one process, with somebody in the middle."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from handshake_reference import Party
from nacl.signing import SigningKey, VerifyKey

from siguard.transport.handshake import Agreed, HandshakeError, Identity, Steps, initiate, respond

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
