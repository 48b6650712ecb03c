"""`debug_open`: values recombined from shares that live in one process.  Sends nothing, changes no transcript."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siguard.guard.config import GuardConfig
from siguard.mpc.secret import Secret
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS
from siguard.ring import RingArray, decode


@dataclass(frozen=True)
class Internals:
    """What the servers decided and nobody is told.

    accepted: (batch,) bool, some outer run was accepted; None where the policy has no validation.
    noise: (batch, C), the noise that was used, relative to the label's; None where the policy has none.
    """

    accepted: npt.NDArray[np.bool_] | None
    noise: npt.NDArray[np.float64] | None


class DebugProbe:
    """Collects the parts of named shares from all three servers of a session."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, Share]] = {}

    def record(self, name: str, party: str, share: Secret) -> None:
        """Remember one server's part."""
        assert isinstance(share, Share)  # noqa: S101 - only replicated shares are observed
        self._parts.setdefault(name, {})[party] = share

    def internals(self, config: GuardConfig) -> Internals:
        """Recombine what the policy observed."""
        if "chosen" not in self._parts:
            return Internals(None, None)
        chosen = self.open("chosen").astype(bool)
        x = decode(self.open("x"), FRACTION_BITS)
        moved = x[:, 1:] - x[:, :1]
        return Internals(np.asarray(chosen.any(axis=1)), (moved * chosen[:, :, None]).sum(axis=1))

    def open(self, name: str) -> RingArray:
        """Recombine a named value."""
        parts = [share.first for share in self._parts[name].values()]
        ring = next(iter(self._parts[name].values())).ring
        return ring.add(ring.add(parts[0], parts[1]), parts[2])
