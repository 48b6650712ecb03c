"""`debug_open`: values recombined from shares that live in one process.  Sends nothing, changes no transcript."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from siguard.guard.answer import choice_table
from siguard.guard.config import GuardConfig
from siguard.guard.lanes import lanes_of
from siguard.guard.start import FLOOR
from siguard.mpc.secret import Secret
from siguard.mpc.share import Opened, Share
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.ring import Z64, RingArray, decode


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
        self._parts: dict[str, dict[str, Share | Opened]] = {}

    def record(self, name: str, party: str, share: Secret) -> None:
        """Remember one server's part."""
        assert isinstance(share, (Share, Opened))  # noqa: S101 - nothing else is observed
        self._parts.setdefault(name, {})[party] = share

    def internals(self, config: GuardConfig) -> Internals:
        """Recombine what the policy observed: x of all lanes, and which was chosen."""
        if "start" not in self._parts:
            return Internals(None, None)
        x = decode(self._moved(), ARGUMENT_BITS)
        # The steps begin at the floor where the undefended answer lies below it.
        own = np.maximum(decode(self.open("start"), ARGUMENT_BITS), FLOOR)
        chosen = self._chosen(config)
        moved = (x - own[:, None]) * (1 - self.open("label").astype(np.float64))[:, None]
        return Internals(np.asarray(chosen.any(axis=1)), (moved * chosen[:, :, None]).sum(axis=1))

    def _moved(self) -> RingArray:
        """x of all lanes; of the runs one after another, of each run."""
        if "x" in self._parts:
            return self.open("x")
        return np.concatenate([self.open(name) for name in sorted(self._parts) if name.startswith("x")], axis=1)

    def _chosen(self, config: GuardConfig) -> npt.NDArray[np.bool_]:
        """One-hot of the lane whose noise was used, (batch, lanes); all 0 where none was accepted."""
        if "pattern" in self._parts:
            lanes = tuple(lanes_of(config.resolved().outer or 1))
            return choice_table(lanes)[self.open("pattern")].astype(bool)
        if "runs" in self._parts:
            accepted = self.open("runs").astype(bool)
            later = np.cumsum(accepted[:, ::-1], axis=1)[:, ::-1] - accepted
            return np.asarray(accepted & (later == 0))
        if "difference" in self._parts:
            closer = Z64.signed(self.open("difference")) < 0
            return np.asarray(closer & self.open("kept").astype(bool))
        return self.open("chosen").astype(bool)

    def open(self, name: str) -> RingArray:
        """Recombine a named value."""
        parts = list(self._parts[name].values())
        ring = parts[0].ring
        by_role = {part.role: part for part in parts}
        return ring.add(by_role[0].masked(), by_role[2].mask())
