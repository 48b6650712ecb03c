"""How values enter and leave: input sharing by a client, and reveal to the one party that may learn the answer."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from siguard.mpc.gate import CLIENT, Cost, Simulation, gate
from siguard.mpc.party import Party
from siguard.mpc.share import Additive, Share
from siguard.ring import Ring, RingArray

#: Draws elements of (ring, shape) that the client shares with the servers in two roles.
ClientDraw = Callable[[tuple[int, int], Ring, tuple[int, ...]], RingArray]


def input_cost(elements: int, itemsize: int) -> Cost:
    """The masked value to roles 0 and 1; the masks come from keys."""
    return Cost(rounds=1, messages=2, payload_bytes=2 * elements * itemsize)


def mask_input(value: RingArray, ring: Ring, draw: ClientDraw) -> RingArray:
    """What the client sends to roles 0 and 1: x1 = x - x0 - x2, for a fresh sharing of ``value``.

    x0 comes from a key of the client with roles 0 and 2, x2 from one with roles 1 and 2, never from a key of two
    servers alone: {S0, client} must not know the masks of the servers' wires.  Source: gates.md, 4.
    """
    x0 = draw((0, 2), ring, value.shape)
    x2 = draw((1, 2), ring, value.shape)
    return ring.sub(ring.sub(value, x0), x2)


def simulate_input(simulation: Simulation, party: Party, ring: Ring, shape: tuple[int, ...], depth: int) -> None:
    """Roles 0 and 1: x - x0 - x2, of which each knows one mask only, so uniform.  For an honest client."""
    if not party.is_dealer:
        simulation.receives(CLIENT, party.path, simulation.uniform(ring, shape))


@gate(cost=input_cost, simulator=simulate_input)
async def receive_input(party: Party, ring: Ring, shape: tuple[int, ...], depth: int) -> Share:
    """The servers' end of `mask_input`: a wire whose mask role 2 knows from keys alone.

    depth: that of the request that opened the session, which is all role 2 waits for.
    Cost: 1 round, 2 messages, 2 n elements, sent by the client.
    """
    if party.is_dealer:
        x2 = party.draw_with_client(1, "input", ring, shape)
        x0 = party.draw_with_client(0, "input", ring, shape)
        return Share(2, ring, x2, x0, depth)
    mask = party.draw_with_client(2, "input", ring, shape)
    masked, depth = await party.channel.receive_input(party.path, ring, shape)
    return Share(party.role, ring, *((mask, masked) if party.role == 0 else (masked, mask)), depth)


def reveal_cost(elements: int, itemsize: int) -> Cost:
    """One message from each of roles 0 and 1 to the receiver."""
    return Cost(rounds=1, messages=2, payload_bytes=2 * elements * itemsize)


def simulate_reveal(simulation: Simulation, party: Party, x: Additive) -> None:
    """Servers receive nothing; what the receiver is sent, `simulate_answer` makes of the answer."""


def simulate_answer(
    simulation: Simulation, answer: RingArray, ring: Ring, own: tuple[int, RingArray] | None
) -> tuple[RingArray, RingArray]:
    """The two messages to the receiver, from the answer and the part that a corrupted server sends (role, part).

    rho is known to roles 0 and 1 alone: one part is uniform, or the corrupted server's own; the other is the rest.
    """
    role, part = own or (0, simulation.uniform(ring, answer.shape))
    rest = ring.sub(answer, part)
    return (part, rest) if role == 0 else (rest, part)


@gate(cost=reveal_cost, simulator=simulate_reveal)
async def reveal(party: Party, x: Additive) -> None:
    """Reveal x to the receiver of the session and to nobody else.

    Role 0 sends v0 + rho, role 1 sends v1 - rho, rho from PRF(0, 1); role 2, which holds nothing of x, sends and
    receives nothing.
    The receiver adds the two and learns x, but no mask.  Reveal truncated wires only: the low bits of an
    untruncated one are not part of the answer.  Cost: 1 round, 2 messages, 2 n elements.  Source: gates.md, 9.
    """
    assert not x.dealer_part, "the dealer sends nothing to the receiver"  # noqa: S101
    if party.is_dealer:
        return
    ring = x.ring
    rho = await party.compute(lambda: party.draw(1 - party.role, "reveal", ring, x.shape), prod(x.shape))
    part = ring.add(x.value, rho) if party.role == 0 else ring.sub(x.value, rho)
    await party.channel.send_answer(party.path, x.depth + 1, part)


def open_answer(parts: tuple[RingArray, RingArray], ring: Ring) -> RingArray:
    """What the receiver computes from the two messages of `reveal`."""
    return ring.add(*parts)
