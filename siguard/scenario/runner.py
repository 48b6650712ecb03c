"""Run a scenario: data and training, the guard under MPC on every row, attacks before and after, a report."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import trio

from siguard.actors.virtual import virtual_clock
from siguard.errors import InputError, ScenarioError, without_groups
from siguard.guard import reference
from siguard.guard.config import GuardConfig
from siguard.guard.defender import encode_defender
from siguard.guard.failures import failure_probabilities
from siguard.guard.plan import Plan
from siguard.guard.planner import Conditions, plan_for
from siguard.guard.shape import Shape
from siguard.nn.model import FloatArray
from siguard.scenario.deployed import Ask, open_deployed
from siguard.scenario.experiment import Experiment, prepare
from siguard.scenario.figures import Released, agreement, complaints, network_figures, policy_figures
from siguard.scenario.load import Scenario, load_scenario
from siguard.scenario.progress import Progress, counted, silent
from siguard.scenario.report import AttackFigures, Report
from siguard.scenario.stopping import ctrl_c_is_not_swallowed
from siguard.scenario.threads import one_thread

#: With an AUC of the adaptive attack at or below this without any guard, there is no leak to defend.
LEAST_POWER = 0.55
_ATTACK_STEPS = 6  # how often the attacks on one policy report


def run_scenario(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Report:
    """Run the scenario file ``path`` from data to attacks; takes as long as the scenario is large.

    overrides: dotted keys to values, put over the file like ``--set``: ``{"guard.inner": 5, "samples": 40}``.
    Runs its own event loop: inside trio call it through ``trio.to_thread.run_sync``.
    Raises `ScenarioError` for the file or an override, `InputError` for data or a missing extra, and whatever
    the cluster raises.  To keep what was measured when a run is stopped, use `ScenarioRun`.
    """
    return ScenarioRun(load_scenario(path, overrides)).execute()


class ScenarioRun:
    """One run of a scenario; ``report`` holds what was measured so far.

    Raises `InputError` at once where the extra ``eval`` is not installed.
    """

    def __init__(self, scenario: Scenario) -> None:
        if find_spec("sklearn") is None:
            raise InputError("scenarios need scikit-learn, which is not installed: pip install 'siguard[eval]'")
        self.scenario = scenario
        network = network_figures(scenario.network)
        self.report = Report(
            scenario.name, scenario.seed, scenario.samples or 0, scenario.batch, scenario.transport.kind, network
        )
        self._stage = "loading the data"
        self._progress: Progress = silent

    def execute(self, progress: Progress = silent) -> Report:
        """Do all of it and return the finished report; Ctrl-C raises KeyboardInterrupt at any time."""
        self._progress = progress
        with ctrl_c_is_not_swallowed(), one_thread():
            experiment = prepare(self.scenario, self._enter)
        self._describe(experiment)
        with without_groups():
            clock = virtual_clock() if self.scenario.network.clock == "virtual" else None
            released = trio.run(self._guard, experiment, clock=clock)
        with ctrl_c_is_not_swallowed(), one_thread():
            self._attack(experiment, released)
        return self.report

    def interrupted(self) -> Report:
        """The report of a run that Ctrl-C stopped: what was complete by then, marked as partial."""
        self.report.partial = True
        missing = [name for name in self.scenario.policies if name not in self.report.attacks]
        attacks = f"; no attacks yet on: {', '.join(missing)}" if missing else ""
        self.report.reason = f"stopped during {self._stage!r}{attacks}"
        return self.report

    def _enter(self, stage: str, done: int, total: int) -> None:
        self._stage = stage
        self._progress(stage, done, total)

    def _describe(self, experiment: Experiment) -> None:
        report = self.report
        report.samples = len(experiment.logits)
        report.accuracy = experiment.accuracy
        report.notes = [
            *experiment.notes,
            *_notes(self.scenario),
            "Shadow rows of the adaptive attacks were guarded in float64 (siguard.reference), not under MPC.",
        ]
        if report.batch > report.samples:
            report.warnings.append(f"batch {report.batch} is larger than the data: one batch of {report.samples}.")
            report.batch = report.samples

    async def _guard(self, experiment: Experiment) -> dict[str, FloatArray]:
        """Release every row under every policy; returns the confidences by policy."""
        answers = {}
        bounds = encode_defender(experiment.defender).magnitude_bits
        shape = Shape(self.report.batch, experiment.defender.shape, bounds, Plan())
        self._check_plans(shape)
        async with open_deployed(self.scenario, experiment, self._enter) as ask:
            for policy, config in self.scenario.policies.items():
                released = await self._release(ask, len(experiment.logits), policy, config, shape)
                answers[policy] = released.all_confidences()
                figures = policy_figures(answers["none"], released)  # the first policy of every scenario
                expected = reference.guard(experiment.logits, experiment.defender, config)
                self.report.guard[policy] = figures
                self.report.agreement[policy] = agreement(released, expected)
                self.report.warnings += complaints(policy, self.report.samples, figures, released)
        return answers

    def _check_plans(self, shape: Shape) -> None:
        """Refuse a `max_bytes` that no plan keeps before any row is guarded; whether one does depends on h."""
        for policy, config in self.scenario.policies.items():
            try:
                plan_for(config, shape, Conditions())
            except InputError as error:
                raise ScenarioError(f"{self.scenario.file}: guard.{policy}.{error.message}") from None

    async def _release(self, ask: Ask, rows: int, policy: str, config: GuardConfig, shape: Shape) -> Released:
        batch, stage = self.report.batch, f"guarding under MPC: {policy}"
        starts = range(0, rows, batch)
        self._enter(stage, 0, len(starts))
        released = Released()
        for number, start in enumerate(starts, start=1):
            result = await ask(slice(start, start + batch), config)
            released.iterations = result.iterations
            released.confidences.append(result.confidences)
            if result.internals is not None and result.internals.accepted is not None:
                released.accepted.append(result.internals.accepted)
            if len(result.confidences) == batch:  # the last one may be smaller, and cheaper
                traffic = result.traffic
                released.costs.append((traffic.rounds, traffic.bytes_total, traffic.messages, traffic.prepare))
                released.seconds.append(result.seconds)
                released.planned = result.planned
            self._enter(stage, number, len(starts))
        if released.planned is not None:
            released.failures = failure_probabilities(shape._replace(plan=released.planned.plan), config)
        return released

    def _attack(self, experiment: Experiment, released: Mapping[str, FloatArray]) -> None:
        from siguard.privacy.attacks import AttackerData, evaluate_attacks

        shadow = experiment.shadow
        for policy, config in self.scenario.policies.items():
            attacker = AttackerData(
                undefended=reference.softmax(shadow.logits),
                guarded=reference.guard(shadow.logits, experiment.defender, config).confidences,
                member=shadow.member,
                labels=shadow.labels,
            )
            with counted(self._enter, f"attacking: {policy}", _ATTACK_STEPS) as step:
                scores = evaluate_attacks(
                    attacker,
                    released[policy],
                    experiment.member,
                    experiment.labels,
                    seed=self.scenario.seed,
                    progress=step,
                )
            self.report.attacks[policy] = {
                name: AttackFigures(score.balanced_accuracy, score.auc, score.tpr_at_1pct_fpr)
                for name, score in scores.items()
            }
        self._judge_power()

    def _judge_power(self) -> None:
        auc = self.report.attacks["none"]["gb"].auc
        if auc <= LEAST_POWER:
            self.report.warnings.append(
                f"This experiment lacks power: without a guard the adaptive attack (gb) has AUC {auc:.3f}, "
                f"not above {LEAST_POWER}: there is no leak here that a guard could close."
            )


def _notes(scenario: Scenario) -> list[str]:
    """How the answers and their seconds came about."""
    notes = []
    if scenario.prepare:
        notes.append("The dealing server sent its part before each query: seconds count from the query on.")
    if scenario.transport.kind == "tcp":
        return [
            *notes,
            "The servers ran as three processes: nobody learned which rows were accepted.",
            "Keys are fresh in every run over TCP: no seed repeats the answers, which differ in their last bits.",
        ]
    notes.append("An experiment: debug_open recombined in this process what the servers had decided.")
    if scenario.network.clock == "virtual":
        differ = "repeat with the seed" if scenario.network.costs == "table" else "differ from run to run"
        notes.append(f"Seconds are virtual: network and work as computed, not as passed; they {differ}.")
    return notes
