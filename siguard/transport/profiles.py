"""Networks as numbers: what a message meets on its way from one party to another.

network_profile("wan")                             # by name: none, lan, wan
NetworkProfile("mine", Direction(0.010, 50e6))     # every link, both ways
NetworkProfile("far user", LAN.default, {("S0", "user"): Direction(0.03), ("user", "S0"): Direction(0.02)})
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from siguard.errors import InputError


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Direction:
    """One way of one link: its messages go on the line one after another, and arrive in order.

    latency_seconds: from the last bit on the line to the arrival.  bits_per_second: of the line; None: no limit.
    jitter_seconds: each message is late by up to this much more, uniformly, and never overtakes.
    """

    latency_seconds: float = 0.0
    bits_per_second: float | None = None
    jitter_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latency_seconds", "jitter_seconds"):
            value = getattr(self, name)
            if not _is_finite(value) or value < 0:
                raise InputError(f"{name}: found {value!r}; allowed: finite seconds, 0 or more")
        rate = self.bits_per_second
        if rate is not None and (not _is_finite(rate) or rate <= 0):
            raise InputError(
                f"bits_per_second: found {rate!r}; allowed: a finite number above 0, or None: no limit"
            )

    def seconds_on_line(self, size: int) -> float:
        """How long ``size`` bytes keep the line busy."""
        return 0.0 if self.bits_per_second is None else 8 * size / self.bits_per_second


@dataclass(frozen=True, slots=True)
class NetworkProfile:
    """The directions of all links of a deployment; each ordered pair of parties has a line of its own.

    default: every direction that ``links`` does not name.  links: (sender, receiver) -> direction.
    """

    name: str
    default: Direction
    links: Mapping[tuple[str, str], Direction] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_profile(self.name, self.default, self.links)

    def direction(self, sender: str, receiver: str) -> Direction:
        """What messages of ``sender`` to ``receiver`` meet."""
        return self.links.get((sender, receiver), self.default)

    def check_parties(self, parties: Collection[str]) -> None:
        """Raise `InputError` if a link is named between parties that do not exist."""
        for pair in self.links:
            for name in pair:
                if name not in parties:
                    raise InputError(f"links: no party {name!r} in {pair!r}; there are {', '.join(parties)}")


def _check_profile(name: Any, default: Any, links: Any) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"name: found {name!r}; allowed: a text that is not empty")
    if not isinstance(default, Direction):
        raise InputError(f"default: found {type(default).__name__}; expected a Direction")
    if not isinstance(links, Mapping):
        raise InputError(f"links: found {type(links).__name__}; expected (sender, receiver) -> Direction")
    for pair, direction in links.items():
        names = isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(one, str) for one in pair)
        if not names or pair[0] == pair[1] or not isinstance(direction, Direction):
            raise InputError(
                f"links: found {pair!r}: {direction!r}; expected two names (sender, receiver) and a Direction"
            )


LAN = NetworkProfile("lan", Direction(0.2e-3, 1e9))  # 0.4 ms there and back
WAN = NetworkProfile("wan", Direction(20e-3, 100e6))  # 40 ms there and back

#: By name; "none" is the transport as it is.
PROFILES: Mapping[str, NetworkProfile | None] = {"none": None, "lan": LAN, "wan": WAN}


def network_profile(name: str) -> NetworkProfile | None:
    """The profile of this name; raises `InputError` with the names that there are."""
    if name not in PROFILES:
        raise InputError(f"profile: found {name!r}; allowed: {', '.join(PROFILES)}")
    return PROFILES[name]
