"""What a client plans with: the links between servers, as far as they are known."""

from __future__ import annotations

from itertools import permutations

from siguard.actors.session import SERVERS
from siguard.guard.planner import Conditions
from siguard.transport.profiles import NetworkProfile

#: Links inside a process, and between processes of one machine or rack where nothing is said.
IN_MEMORY = Conditions(one_way_seconds=3.0e-5, bytes_per_second=5e9)
UNKNOWN = Conditions(one_way_seconds=1.0e-4, bytes_per_second=1.25e8)


def conditions_of(profile: NetworkProfile | None, otherwise: Conditions) -> Conditions:
    """The slowest link between two servers, on top of what there is without the profile."""
    if profile is None:
        return otherwise
    directions = [profile.direction(*pair) for pair in permutations(SERVERS, 2)]
    rates = [direction.bits_per_second / 8 for direction in directions if direction.bits_per_second is not None]
    latency = max(direction.latency_seconds + direction.jitter_seconds / 2 for direction in directions)
    return Conditions(otherwise.one_way_seconds + latency, min([otherwise.bytes_per_second, *rates]))
