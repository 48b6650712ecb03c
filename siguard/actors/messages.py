"""What parties say to each other outside the protocol: requests, grants, reasons for an abort.  msgpack only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import msgpack
import numpy as np

from siguard.errors import (
    DeadlineError,
    InputError,
    PartyFailedError,
    PolicyError,
    ProtocolError,
    SiguardError,
)
from siguard.guard.config import GuardConfig
from siguard.prf import PROTOCOL_VERSION
from siguard.ring import BYTES, RingArray

_GRANT = "siguard grant"


def to_payload(value: Any) -> RingArray:
    """msgpack bytes of plain values, as a frame payload."""
    return np.frombuffer(msgpack.packb(value), BYTES.dtype)


def from_payload(payload: RingArray) -> Any:
    """Plain values from a frame payload; raises `ProtocolError` on anything else."""
    try:
        return msgpack.unpackb(payload.tobytes(), use_list=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a message is not msgpack ({type(error).__name__})") from None


class _Message:
    """A flat dataclass that travels as a msgpack map with exactly its fields."""

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    def encode(self) -> RingArray:
        """The frame payload."""
        return to_payload(self.as_dict())

    @classmethod
    def decode(cls, payload: RingArray) -> Self:
        """Raises `ProtocolError` when fields are missing, unknown or of the wrong type."""
        return cls.from_values(from_payload(payload))

    @classmethod
    def from_values(cls, values: Any) -> Self:
        """As `decode`, of what is unpacked already."""
        expected = {field.name: field.type for field in fields(cls)}  # type: ignore[arg-type]
        if not isinstance(values, dict) or set(values) != set(expected):
            raise ProtocolError(f"a {cls.__name__} message does not have the fields {', '.join(expected)}")
        for name, kind in expected.items():
            if type(values[name]).__name__ != str(kind).split("[")[0]:
                raise ProtocolError(f"{cls.__name__}.{name} has type {type(values[name]).__name__}, not {kind}")
        return cls(**values)


@dataclass(frozen=True)
class Request(_Message):
    """Opens a session at a server.

    kind: ``query`` (features, from the user) or ``guard`` (logits, from the test role upstream).
    dealer: the server in role 2.  model: empty for ``guard``.  plan: `siguard.guard.plan.Plan`, the same to all.
    """

    kind: str
    dealer: str
    defender: bytes
    model: bytes
    config: dict[str, Any]
    plan: dict[str, Any]
    batch: int
    width: int


@dataclass(frozen=True)
class Load(_Message):
    """Opens a session in which the owner shares a network.

    label: what people call it.  shapes: of the arrays, in order, sent as one vector.
    public: bounds that go with the shares.
    """

    kind: str
    name: bytes
    label: str
    shapes: list[list[int]]
    public: list[float]


@dataclass(frozen=True)
class Grant(_Message):
    """The owner's permission to run one guard configuration with one classifier and model."""

    grant: bytes
    signature: bytes


@dataclass(frozen=True)
class Ask(_Message):
    """A client's question to one server about something public; see `siguard.actors.inquiries`."""

    what: str
    about: bytes


@dataclass(frozen=True)
class Offer(_Message):
    """A guard configuration that the owner signed, and the public side of the networks it is for.

    label, widths: of the target model.  defender, bounds: widths of h, log2 of the bound of each of its layers.
    limit: largest feature.
    """

    grant: bytes
    signature: bytes
    label: str
    widths: list[int]
    defender: list[int]
    bounds: list[int]
    limit: float


@dataclass(frozen=True)
class Abort(_Message):
    """Why a session failed, and at whom."""

    reason: str
    error: str
    party: str
    step: str


def grant_bytes(defender: bytes, model: bytes, config: GuardConfig) -> bytes:
    """What the owner signs: canonical bytes of a permission."""
    packed: bytes = msgpack.packb([_GRANT, PROTOCOL_VERSION, defender, model, list(config.to_dict().items())])
    return packed


def read_grant(grant: bytes) -> tuple[bytes, bytes, GuardConfig]:
    """Classifier, model and configuration of a permission; raises `ProtocolError` for what is none."""
    try:
        head, version, defender, model, items = msgpack.unpackb(grant)
        config = GuardConfig(**dict(items))
        good = head == _GRANT and version == PROTOCOL_VERSION and grant_bytes(defender, model, config) == grant
    except (ValueError, TypeError, InputError, msgpack.UnpackException):
        good = False
    if not good:
        raise ProtocolError("a grant is not a permission of this protocol version")
    return defender, model, config


_ERRORS: dict[str, type[SiguardError]] = {
    error.__name__: error for error in (DeadlineError, InputError, PartyFailedError, PolicyError, ProtocolError)
}


def abort_for(error: SiguardError, party: str) -> Abort:
    """The message that tells others of a failure at ``party``."""
    name = type(error).__name__
    return Abort(
        error.message, name if name in _ERRORS else "PartyFailedError", error.party or party, error.step or ""
    )


def error_from(abort: Abort, session: bytes) -> SiguardError:
    """The same failure as an error at the party that was told."""
    kind = _ERRORS.get(abort.error, PartyFailedError)
    return kind(abort.reason, party=abort.party, session=session.hex(), step=abort.step or None)
