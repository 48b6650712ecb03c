"""siguard: guarded secure inference on trio.

Three servers hold replicated shares of a model's logits, add defensive noise inside MPC, and reveal only the
perturbed confidences, only to the user.  Semi-honest, one corrupted server together with the user.

    ring, prf        Z_2^k arrays, fixed point, exact matmul; addressed pairwise randomness
    sections, explain  tables of a settings file, and what is wrong with one
    transport/       frames, links, accounting: how bytes get from one party to another
    mpc/             gates on shares, one file per family
    nn/              dense networks, in plaintext and on shares
    guard/           the policies, their configuration, and the float64 reference
    actors/          servers, clients, sessions, the in-memory cluster
    deploy/          parties as processes: deployment file, keys, connections, remote users
    privacy/         attacks, metrics, datasets (extra "eval")
    proofsim/        the security claim as something that runs (extra "proofs")
    scenario/, cli   experiments and proofs from a file

Imports go downwards only: a module uses those listed above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siguard.actors.cluster import Cluster, GuardResult, open_cluster
from siguard.actors.timing import VirtualTime
from siguard.actors.virtual import virtual_clock
from siguard.errors import (
    DeadlineError,
    FrameError,
    InputError,
    PartyFailedError,
    PolicyError,
    ProtocolError,
    RandomnessReuseError,
    ScenarioError,
    SecretError,
    SiguardError,
)
from siguard.guard import reference
from siguard.guard.config import GuardConfig
from siguard.nn.model import Defender, Model
from siguard.transport.profiles import Direction, NetworkProfile

if TYPE_CHECKING:
    from siguard.scenario.report import Report as Report
    from siguard.scenario.runner import run_scenario as run_scenario

__version__ = "0.1.0"

__all__ = [
    "Cluster",
    "DeadlineError",
    "Defender",
    "Direction",
    "FrameError",
    "GuardConfig",
    "GuardResult",
    "InputError",
    "Model",
    "NetworkProfile",
    "PartyFailedError",
    "PolicyError",
    "ProtocolError",
    "RandomnessReuseError",
    "ScenarioError",
    "SecretError",
    "SiguardError",
    "VirtualTime",
    "__version__",
    "open_cluster",
    "reference",
    "run_scenario",
    "virtual_clock",
]


def __getattr__(name: str) -> Any:
    # Scenarios need the extra "eval" and a validator: the core must import without either.
    if name == "run_scenario":
        from siguard.scenario.runner import run_scenario

        return run_scenario
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
