"""From released confidences to the figures of a report."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt

from siguard.guard.failures import Failures
from siguard.guard.planner import Planned
from siguard.guard.reference import ReferenceResult
from siguard.nn.model import FloatArray
from siguard.scenario.report import Agreement, DirectionFigures, NetworkFigures, PolicyFigures
from siguard.scenario.schema import NetworkSection
from siguard.transport.profiles import Direction

_CLOSE = 2e-2


@dataclass(eq=False)
class Released:
    """One policy's answers, batch after batch, and what the full batches cost.

    confidences: arrays (rows, classes).  accepted: arrays (rows,), none where nothing is validated.
    costs: (rounds, bytes, messages, bytes that the dealer sent) and seconds, of each full batch.
    planned, failures: of a full batch, as declared.
    """

    iterations: int = 0
    planned: Planned | None = None
    failures: Failures | None = None
    confidences: list[FloatArray] = field(default_factory=list)
    accepted: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    costs: list[tuple[int, int, int, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def all_confidences(self) -> FloatArray:
        """Shape (all rows, classes)."""
        return np.concatenate(self.confidences)

    def all_accepted(self) -> npt.NDArray[np.bool_] | None:
        """Shape (all rows,), or None where nothing is validated."""
        return np.concatenate(self.accepted) if self.accepted else None


def policy_figures(undefended: FloatArray, released: Released) -> PolicyFigures:
    """Figures of one policy; undefended: (rows, classes), what policy ``none`` released for the same rows."""
    confidences, accepted = released.all_confidences(), released.all_accepted()
    rounds, bytes_total, messages, bytes_prepare = released.costs[0]
    planned, failures = released.planned, released.failures
    assert planned is not None  # noqa: S101 - every run has a full batch
    assert failures is not None  # noqa: S101
    return PolicyFigures(
        label_kept=float(np.mean(confidences.argmax(axis=1) == undefended.argmax(axis=1))),
        accepted=None if accepted is None else float(accepted.mean()),
        l1=float(np.abs(confidences - undefended).sum(axis=1).mean()),
        rounds=rounds,
        bytes_total=bytes_total,
        messages=messages,
        seconds=statistics.median(released.seconds),
        seconds_min=min(released.seconds),
        seconds_max=max(released.seconds),
        iterations=released.iterations,
        plan=planned.plan.to_dict(),
        rounds_declared=planned.rounds,
        bytes_declared=planned.bytes,
        bytes_prepare=bytes_prepare,
        bytes_online=bytes_total - bytes_prepare,
        failures=failures,
    )


def network_figures(network: NetworkSection) -> NetworkFigures:
    """The network and the clock of a scenario, with its profile's values spelled out."""
    profile, virtual = network.as_profile(), network.clock == "virtual"
    everywhere = Direction() if profile is None else profile.default
    links = {} if profile is None else profile.links
    return NetworkFigures(
        **asdict(_direction_figures(everywhere)),
        profile=network.profile,
        links={f"{sender}->{receiver}": _direction_figures(one) for (sender, receiver), one in links.items()},
        clock=network.clock,
        costs=network.costs if virtual else None,
        cores=network.cores,
    )


def _direction_figures(one: Direction) -> DirectionFigures:
    rate = one.bits_per_second
    # Rounded: 0.2 ms are 0.0002 s and not 0.20000000000000001 ms.
    return DirectionFigures(
        latency_ms=round(one.latency_seconds * 1e3, 9),
        mbit_per_s=None if rate is None else round(rate / 1e6, 9),
        jitter_ms=round(one.jitter_seconds * 1e3, 9),
    )


def agreement(released: Released, expected: ReferenceResult) -> Agreement:
    """How closely the answers follow the float64 guard on the same rows."""
    accepted, confidences = released.all_accepted(), released.all_confidences()
    difference = np.abs(confidences - expected.confidences)
    both = accepted is not None and expected.accepted is not None
    return Agreement(
        label=float(np.mean(confidences.argmax(axis=1) == expected.confidences.argmax(axis=1))),
        accept_bit=float(np.mean(accepted == expected.accepted)) if both else None,
        rows_within_0_02=float(np.mean(difference.max(axis=1) <= _CLOSE)),
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
    )


def complaints(policy: str, samples: int, figures: PolicyFigures, released: Released) -> list[str]:
    """What a reader must be told about one policy's figures."""
    found = []
    changed = round((1.0 - figures.label_kept) * samples)
    if changed:
        found.append(f"{policy}: the label changed on {changed} of {samples} rows.")
    if len(set(released.costs)) > 1:  # sizes and order of messages are public: they must not depend on values
        kinds = ", ".join(map(str, sorted(set(released.costs))))
        found.append(f"{policy}: batches of one size differ in (rounds, bytes, messages, bytes dealt): {kinds}.")
    return found
