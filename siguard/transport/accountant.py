"""The one place where traffic is counted: every frame once, at its sender, with its header.

Rounds are the largest dependency depth of a frame: the depth travels with the data, so that concurrency
and run-ahead cannot change the figure.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Count:
    """Messages and bytes (headers included), and the largest depth seen."""

    messages: int = 0
    bytes: int = 0
    depth: int = 0

    def add(self, size: int, depth: int) -> None:
        """Count one frame."""
        self.messages += 1
        self.bytes += size
        if depth > self.depth:
            self.depth = depth

    @property
    def figures(self) -> tuple[int, int, int]:
        """Messages, bytes, depth."""
        return self.messages, self.bytes, self.depth

    def merge(self, other: Count) -> None:
        """Add another count."""
        self.messages += other.messages
        self.bytes += other.bytes
        self.depth = max(self.depth, other.depth)


@dataclass(slots=True)
class Traffic:
    """The frames of one call, from input sharing to reveal.

    rounds: longest chain of dependent frames.  bytes_total, messages: all frames of all parties.
    prepare: bytes of the frames that the dealer sent to servers, whether or not they were dealt ahead of the query;
    online: bytes of all others.  Their sum is bytes_total.
    """

    total: Count = field(default_factory=Count)
    prepare: int = 0
    _steps: dict[str, Count] = field(default_factory=lambda: defaultdict(Count))
    _links: dict[tuple[str, str], Count] = field(default_factory=lambda: defaultdict(Count))

    def record(self, sender: str, receiver: str, step: str, size: int, depth: int, *, dealt: bool = False) -> None:
        """Count one frame of ``size`` bytes; by the sending party's codec.  dealt: by the dealer."""
        self.total.add(size, depth)
        if dealt:
            self.prepare += size
        self._steps[step].add(size, depth)
        self._links[sender, receiver].add(size, depth)

    def to_plain(self) -> list[Any]:
        """Counts per step and per link, and what was dealt, as lists of numbers and names, for another process."""
        steps = [[step, *count.figures] for step, count in self.by_step().items()]
        links = [[*link, *count.figures] for link, count in self.by_link().items()]
        return [steps, links, self.prepare]

    @classmethod
    def from_plain(cls, plain: Any) -> Traffic:
        """What `to_plain` wrote; raises ValueError for anything else."""
        traffic = cls()
        try:
            steps, links, prepare = plain
            traffic.prepare = int(prepare)
            for step, *counts in steps:
                traffic._steps[str(step)] = count = Count(*map(int, counts))
                traffic.total.merge(count)
            for sender, receiver, *counts in links:
                traffic._links[str(sender), str(receiver)] = Count(*map(int, counts))
        except (TypeError, OverflowError) as error:
            raise ValueError(f"not counts of traffic: {error}") from None
        if not 0 <= traffic.prepare <= traffic.total.bytes:
            raise ValueError(f"not counts of traffic: {traffic.prepare} of {traffic.total.bytes} bytes were dealt")
        return traffic

    def merge(self, other: Traffic) -> None:
        """Add the frames of another record."""
        for mine, theirs in ((self._steps, other._steps), (self._links, other._links)):
            for key, count in theirs.items():
                mine[key].merge(count)  # type: ignore[index]
        self.total.merge(other.total)
        self.prepare += other.prepare

    @property
    def rounds(self) -> int:
        """Longest chain of dependent frames."""
        return self.total.depth

    @property
    def bytes_total(self) -> int:
        """Bytes of all frames with their headers."""
        return self.total.bytes

    @property
    def online(self) -> int:
        """Bytes of all frames that the dealer did not send to servers."""
        return self.total.bytes - self.prepare

    @property
    def messages(self) -> int:
        """Number of frames."""
        return self.total.messages

    def by_step(self) -> dict[str, Count]:
        """Counts per step path, in the order of the paths' names."""
        return dict(sorted(self._steps.items()))

    def by_link(self) -> dict[tuple[str, str], Count]:
        """Counts per (sender, receiver)."""
        return dict(sorted(self._links.items()))
