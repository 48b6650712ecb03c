"""How a gate is declared: a coroutine with its cost formula and simulator.  Nothing is registered at import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from siguard.ring import Ring, RingArray
from siguard.transport.frame import HEADER_BYTES

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Cost:
    """Declared cost of one call: depth it adds, frames, and payload bytes of all parties.

    The tests compare it with what the accountant measured; equality is exact.
    """

    rounds: int = 0
    messages: int = 0
    payload_bytes: int = 0
    #: Blocks that all servers expand of function keys; for planning, nothing measures it.
    blocks: int = field(default=0, compare=False)

    @property
    def bytes(self) -> int:
        """Payload and headers."""
        return self.payload_bytes + self.messages * HEADER_BYTES

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(
            self.rounds + other.rounds,
            self.messages + other.messages,
            self.payload_bytes + other.payload_bytes,
            self.blocks + other.blocks,
        )

    def with_rounds(self, rounds: int) -> Cost:
        """The same frames, of which the longest chain is known otherwise."""
        return Cost(rounds, self.messages, self.payload_bytes, self.blocks)

    def __mul__(self, times: int) -> Cost:
        return Cost(self.rounds * times, self.messages * times, self.payload_bytes * times, self.blocks * times)

    __rmul__ = __mul__


class Simulation(Protocol):
    """What a gate's simulator may use: fresh coins, and the mailbox of the one corrupted server.

    It has no shares of other servers and no keys: what it posts cannot depend on them.
    """

    def uniform(self, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        """Fresh uniform elements of the simulator's own."""
        ...

    def receives(self, sender: int, path: str, message: RingArray) -> None:
        """The corrupted server receives ``message`` from a role (`CLIENT`: the input's owner) at this step."""
        ...


#: In place of a role: the owner of the input.
CLIENT = -1

#: Called with (simulation, party, the gate's own arguments) before the corrupted server's code of the gate runs;
#: posts each message that this server receives from honest parties in it.
Simulator = Callable[..., None]


def composed(simulation: Simulation, party: Any, *arguments: Any, **options: Any) -> None:
    """The simulator of a gate that sends nothing itself: the simulators of its inner gates do all there is to do.

    Universal composition of passive protocols (Canetti, J. Cryptology 2000, theorem for semi-honest adversaries).
    """


@dataclass(frozen=True)
class GateInfo:
    """Metadata of a gate.  ``cost`` takes public sizes only (elements, width, ring bytes)."""

    name: str
    cost: Callable[..., Cost]
    simulator: Simulator


def gate(*, cost: Callable[..., Cost], simulator: Simulator) -> Callable[[F], F]:
    """Declare a protocol coroutine as a gate with this cost formula and simulator; it is itself unchanged."""

    def attach(coroutine: F) -> F:
        coroutine.__gate__ = GateInfo(coroutine.__qualname__, cost, simulator)  # type: ignore[attr-defined]
        return coroutine

    return attach


def gate_info(coroutine: Any) -> GateInfo | None:
    """The declaration of a gate, or None."""
    info = getattr(coroutine, "__gate__", None)
    return info if isinstance(info, GateInfo) else None
