"""Run one corrupted server's own code with simulators in place of everybody else.

Before each gate of that code runs, its simulator posts the messages which the server would receive from honest
parties (`siguard.mpc.gate.Simulator`).  Simulators compose by this alone: a protocol's simulator is the corrupted
server's own code with every gate simulated.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from math import prod
from typing import Any

import numpy as np

from siguard.actors.compute import ComputeDoor
from siguard.actors.local import local_keys, local_session
from siguard.actors.mailbox import Mailbox
from siguard.actors.session import SERVERS, Outbox, ServerSession, roles_for
from siguard.actors.windows import SendWindows
from siguard.mpc.gate import CLIENT, gate_info
from siguard.mpc.party import Party
from siguard.prf import RandomnessFactory, derive_key
from siguard.proofsim.patching import replaced_all
from siguard.proofsim.walk import Gate, gates_of_the_package
from siguard.ring import Ring, RingArray
from siguard.transport.accountant import Traffic
from siguard.transport.frame import Frame, Kind, step_digest
from siguard.transport.link import Link

Uniform = Callable[[Ring, tuple[int, ...]], RingArray]
#: The simulator's coins at an address, (session, gate, step): independent of the order in which tasks run.
UniformAt = Callable[[bytes, str, str], Uniform]
#: The round of a frame, which is public: (session, sender, path).
DepthOf = Callable[[bytes, str, str], int]
#: Takes a simulated message to the server whose session it is: (session, sender, frame).
Deliver = Callable[[ServerSession, str, Frame], None]
#: Called with (gate, party, arguments, result) after a gate has run at a party.
GateObserver = Callable[[Gate, Party, tuple[Any, ...], Any], None]


def uniform_from(generator: np.random.Generator) -> Uniform:
    """Uniform elements from a seeded generator: coins of a simulator, never masks of a protocol."""

    def uniform(ring: Ring, shape: tuple[int, ...]) -> RingArray:
        return ring.from_bytes(generator.bytes(ring.itemsize * prod(shape)), shape)

    return uniform


def uniform_at(key: bytes, *address: str | bytes | int) -> Uniform:
    """The same, addressed: independent of the order in which tasks run."""
    return uniform_from(np.random.default_rng(int.from_bytes(derive_key(key, *address), "little")))


class CoinsOnly:
    """The `siguard.mpc.gate.Simulation` of a party that is no server: coins, and no mailbox."""

    def __init__(self, uniform: Uniform) -> None:
        self._uniform = uniform

    def uniform(self, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh uniform elements of the simulator's own."""
        return self._uniform(ring, shape)

    def receives(self, sender: int, path: str, message: RingArray) -> None:
        """No server here receives anything."""
        raise AssertionError("there is no server to receive this")


class PostedMessages:
    """The `siguard.mpc.gate.Simulation` of one server in one session: posts into its mailbox.

    depth_of: rounds of frames, which are public.
    from_client: what a corrupted client sends itself at a path; it takes the place of the simulator's message.
    """

    def __init__(
        self,
        channel: ServerSession,
        uniform: Uniform,
        depth_of: DepthOf,
        from_client: Callable[[str], RingArray] | None = None,
        deliver: Deliver | None = None,
    ) -> None:
        self._channel = channel
        self._uniform = uniform
        self._depth_of = depth_of
        self._from_client = from_client
        self._deliver = deliver or _into_mailbox

    def uniform(self, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh uniform elements of the simulator's own."""
        return self._uniform(ring, shape)

    def receives(self, sender: int, path: str, message: RingArray) -> None:
        """Deliver a message as if it had come from this role."""
        channel = self._channel
        name = channel.client if sender == CLIENT else channel.roles[sender]
        if sender == CLIENT and self._from_client is not None:
            message = self._from_client(path)
        box = channel.mailbox
        frame = Frame(Kind.DATA, box.session, step_digest(path), self._depth_of(box.session, name, path), message)
        self._deliver(channel, name, frame)


def _into_mailbox(channel: ServerSession, sender: str, frame: Frame) -> None:
    channel.mailbox.deliver(sender, frame)


@contextmanager
def around_gates(
    before: Callable[[Gate, Party, tuple[Any, ...], dict[str, Any]], None] | None = None,
    after: GateObserver | None = None,
) -> Iterator[None]:
    """While open, every gate of the package calls ``before`` and ``after``; it runs as shipped in between."""

    def wrapper(gate: Gate) -> Callable[..., Awaitable[Any]]:
        coroutine = gate.current
        # In a hybrid model another coroutine, with a simulator of its own, may stand in for the gate.
        gate = gate._replace(info=gate_info(coroutine) or gate.info)
        parameters = signature(coroutine)

        # The declaration goes along, so that a wrapped gate is still one.
        @functools.wraps(coroutine)
        async def run(party: Party, *arguments: Any, **options: Any) -> Any:
            if options:  # observers see arguments in their places
                bound = parameters.bind(party, *arguments, **options)
                bound.apply_defaults()
                arguments, options = bound.args[1:], bound.kwargs
            if before is not None:
                before(gate, party, arguments, options)
            result = await coroutine(party, *arguments, **options)
            if after is not None:
                after(gate, party, arguments, result)
            return result

        return run

    with replaced_all({gate.current: wrapper(gate) for gate in gates_of_the_package()}):
        yield


def _no_depth(session: bytes, sender: str, path: str) -> int:
    return 0


@contextmanager
def simulators_answer(
    uniform_at: UniformAt,
    depth_of: DepthOf = _no_depth,
    after: GateObserver | None = None,
    from_client: Callable[[str], RingArray] | None = None,
    deliver: Deliver | None = None,
    honest_client: Callable[[str], bool] = lambda client: True,
) -> Iterator[None]:
    """While open, each gate that a server runs is first simulated: the honest parties' messages are posted to it.

    honest_client: whether a client by this name is honest; what a corrupted one sends comes over its own link.
    The patch is of this process: nothing but what is simulated may run meanwhile.
    """

    def before(gate: Gate, party: Party, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        assert isinstance(party.channel, ServerSession)  # noqa: S101 - actors' code runs on nothing else
        if gate.name == "io.receive_input" and not honest_client(party.channel.client):
            return
        uniform = uniform_at(party.channel.mailbox.session, gate.name, party.path)
        simulation = PostedMessages(party.channel, uniform, depth_of, from_client, deliver)
        gate.info.simulator(simulation, party, *arguments, **options)

    with around_gates(before, after):
        yield


class SilentLink:
    """A link whose other end is not there: takes everything, brings nothing."""

    def __init__(self, peer: str, sent: Callable[[str, bytes], None] | None) -> None:
        self.peer = peer
        self._sent = sent

    async def send(self, data: bytes) -> None:
        """Pass what is sent to the observer, if there is one."""
        if self._sent is not None:
            self._sent(self.peer, data)

    async def send_eof(self) -> None:
        """Nothing to end."""

    async def receive(self) -> bytes:
        """Nothing ever comes: simulators post to the mailbox."""
        raise AssertionError("nobody reads a silent link")

    async def aclose(self) -> None:
        """Nothing to close."""


async def run_alone(
    protocol: Callable[[Party], Awaitable[Any]],
    role: int,
    uniform: Uniform,
    randomness: RandomnessFactory,
    *,
    seed: int = 0,
    dealer: str = "S2",
    session: bytes | None = None,
    after: GateObserver | None = None,
    from_client: Callable[[str], RingArray] | None = None,
    observe_posted: Callable[[str, bytes, RingArray], None] | None = None,
    observe_sent: Callable[[str, bytes], None] | None = None,
) -> Any:
    """Run ``protocol`` at the server in one role, all others simulated; the same keys as in `run_three`.

    observe_posted: called with (sender, step digest, payload) of each simulated message.
    observe_sent: called with (receiver, frame) of each message that the server sends.
    """
    roles = roles_for(dealer)
    name = roles[role]
    session = local_session(seed) if session is None else session
    box = _ObservedMailbox(session, name, observe_posted)
    peers = [*(other for other in SERVERS if other != name), "user"]
    links: dict[str, Link] = {peer: SilentLink(peer, observe_sent) for peer in peers}
    source = randomness(local_keys(seed, name), session, dealer, name)
    channel = ServerSession(box, Outbox(box, links, Traffic()), roles, source, ComputeDoor())
    with simulators_answer(lambda *address: uniform, after=after, from_client=from_client):
        result = None
        with box.scope:
            result = await protocol(Party(role, channel))
        if box.failure is not None:
            raise box.failure
    return result


class _ObservedMailbox(Mailbox):
    def __init__(self, session: bytes, party: str, observe: Callable[[str, bytes, RingArray], None] | None) -> None:
        # A message that no simulator posted never comes: do not wait for it.
        super().__init__(session, party, deadline=0.001)
        # Nobody takes what this party deals, so nobody gives room back.
        self.windows = SendWindows(math.inf)
        self._observe = observe

    def deliver(self, sender: str, frame: Frame) -> None:
        if self._observe is not None:
            self._observe(sender, frame.step, frame.payload)
        super().deliver(sender, frame)
