"""The shape of a query over sealed TCP, beside that of the same query in memory: they are one and the same.

Three servers and the user in this process, linked by the sockets, seals and flow control of a deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from siguard.actors.naming import client_of
from siguard.deploy.loopback import make_loopback, open_servers
from siguard.deploy.owner import connect_owner
from siguard.deploy.user import User, connect
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.nn.model import FloatArray
from siguard.proofsim.claims import ALL, Claim
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.shape_cases import Cases
from siguard.proofsim.shapes import by_role, first_difference
from siguard.proofsim.view import Message, ShapeLine
from siguard.transport.frame import Kind


async def tcp_claims(
    cases: Cases, configs: Sequence[GuardConfig], shapes: Mapping[str, list[ShapeLine]]
) -> list[Claim]:
    """For each configuration: queries of every row over TCP have the shape that ``shapes`` holds for its policy."""
    recorder = Recorder()
    loopback = await make_loopback()
    owner, user = loopback.identities["owner"], loopback.identities["user"]
    claims = []
    async with open_servers(loopback, wrap_link=recorder.wrap_link):
        async with connect_owner(loopback.deployment, owner) as sharing:
            await sharing.share(cases.model, cases.defender, configs)
        async with connect(loopback.deployment, user, wrap_link=recorder.wrap_link) as asking:
            for config in configs:
                problem = ""
                for row in range(len(cases.label)):
                    features = cases.features[row : row + 1]
                    problem = problem or await _problem(
                        asking, recorder, features, config, shapes.get(config.policy)
                    )
                claims.append(
                    Claim(
                        f"shape of {config.policy}: over sealed TCP the same as in memory, for every row",
                        "shape",
                        ALL,
                        len(cases.label),
                        not problem,
                        problem=problem,
                    )
                )
    return claims


async def _problem(
    user: User,
    recorder: Recorder,
    features: FloatArray,
    config: GuardConfig,
    expected: list[ShapeLine] | None,
) -> str:
    """What is wrong with the shape of one query, in words."""
    recorder.clear()
    try:
        result = await user.query(features, config)
    except SiguardError as error:
        return f"a query failed: {error.message}"
    recorder.learn_steps(result.traffic.by_step())
    sent = [event for event in recorder.events() if isinstance(event, Message) and not event.received]
    session = next(message.session for message in sent if message.kind == Kind.START)
    shape, dealer = by_role([_renamed(message) for message in sent if message.session == session])
    if shape != expected:
        return f"over TCP, with dealer {dealer}, against memory: {first_difference(shape, expected or [])}"
    return ""


def _renamed(message: Message) -> Message:
    """A user's process goes by the user's name here: which process it is, is no part of a shape."""
    return replace(message, party=client_of(message.party), peer=client_of(message.peer))
