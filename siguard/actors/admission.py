"""Which requests a server serves: what the model owner signed, for networks that are here, in a size that fits."""

from __future__ import annotations

from typing import NamedTuple

from siguard.actors.holdings import Holdings
from siguard.actors.limits import check_memory
from siguard.actors.messages import Request
from siguard.actors.session import SERVERS
from siguard.errors import InputError, PolicyError, ProtocolError
from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.plan import Plan
from siguard.guard.shape import Shape
from siguard.nn.shared import SharedModel


class Admitted(NamedTuple):
    """What an admitted request runs with."""

    config: GuardConfig
    plan: Plan
    defender: SharedDefender
    model: SharedModel | None


def admit(holdings: Holdings, peer: str, expected: str, request: Request) -> Admitted:
    """Check a request against what the owner shared and signed; raises before anything is computed.

    expected: the one kind of request that this peer may send.
    """
    try:
        config = GuardConfig(**request.config)
        plan = Plan.from_dict(request.plan)
    except (TypeError, InputError) as error:
        raise InputError(f"the request's configuration is not valid: {error}") from None
    # Only upstream may share logits: a user without a model would choose them.
    if request.kind != expected or bool(request.model) != (expected == "query"):
        raise ProtocolError(f"{peer} sent a {request.kind!r} request that it may not send", party=peer)
    if request.dealer not in SERVERS or request.batch < 1:
        raise ProtocolError(f"{peer} asked for dealer {request.dealer!r}, batch {request.batch}", party=peer)
    if not holdings.allows(request.defender, request.model, config):
        raise PolicyError(
            f"the model owner has not signed policy {config.policy!r} with these parameters; "
            "ask for one of the signed configurations"
        )
    try:
        defender, model = holdings.networks(request.defender, request.model)
    except KeyError:
        raise InputError("the request names a network that the model owner has not shared", party=peer) from None
    if model is not None and model.shape[-1] != defender.classes:
        raise InputError(f"the model gives {model.shape[-1]} classes, the classifier takes {defender.classes}")
    width = model.shape[0] if model is not None else defender.classes
    if request.width != width:
        raise InputError(f"the request has {request.width} columns; expected {width}", party=peer)
    check_memory(
        Shape(request.batch, defender.shape, defender.magnitude_bits, plan), model.shape if model else None, config
    )
    return Admitted(config, plan, defender, model)
