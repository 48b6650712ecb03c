"""Rung "shape": what the network sees is the same for every input.

The shape of a call is the list (link, step, round, kind, length) of all its frames, of all parties, in canonical
order, with the servers named by their role; session ids, which are random, are no part of it.  All calls of one
policy with one batch size must have one and the same shape: no statistics, no tolerance.

Naming by role is a bijection for each dealer, so that equality here is equality of like dealers, and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from typing import NamedTuple

import numpy as np
import trio

from siguard.actors.cluster import Cluster, open_cluster
from siguard.actors.messages import Request
from siguard.actors.prepared import PREPARE, READY
from siguard.actors.server import UPSTREAM, USER
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.nn.model import FloatArray
from siguard.proofsim.claims import ALL, Claim, Scope
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.shape_cases import (
    Cases,
    Setting,
    accept_patterns,
    all_patterns,
    find_cases,
)
from siguard.proofsim.shape_leak import iteration_leak
from siguard.proofsim.shape_tcp import tcp_claims
from siguard.proofsim.shapes import by_role, first_difference
from siguard.proofsim.view import Message, ShapeLine
from siguard.transport.frame import Kind

QUICK = (Setting((5, 6, 4), (4, 8, 1), GuardConfig(outer=2, inner=2), covers=1, seeds=3, over_tcp=True),)
FULL = (
    Setting((5, 6, 4), (4, 8, 1), GuardConfig(outer=2, inner=2), covers=4, seeds=50, over_tcp=True),
    Setting((5, 6, 4), (4, 8, 1), GuardConfig(outer=3, inner=10), covers=2, seeds=20),
    Setting((16, 32, 10), (10, 128, 64, 1), GuardConfig(), covers=1, seeds=10),
    # Rows for 30 labels, none of them near an edge: with more noise there are none.
    Setting((16, 32, 30), (30, 128, 64, 1), GuardConfig(), covers=1, seeds=3, noise=2e-3),
)
#: Seconds that a server waits for a frame: what is broken on purpose must not make the rung wait for long.
_DEADLINE = 15.0
#: The two ways into the servers: logits from upstream, features from the user.
ENTRIES = ("guard", "query")
#: By which of them calls come, and how they are planned.  A control is shown the first two only, and nothing that
#: is prepared: a dealer that waits for a message is for the rungs that see what it says.
CALLS = (("guard", "few"), ("query", "few"), ("guard", "bytes"), ("query", "auto"))
#: Logits or features far outside what networks give, and ties of all classes.
_EXTREMES = (0.0, 1e-9, 40.0, -40.0, 4000.0, -4000.0)


def check(scope: Scope) -> list[Claim]:
    """One claim for each policy and each thing that the shape must not depend on; see the module."""
    with _own_scheduler():
        claims = trio.run(_check, scope, CALLS)
    return [*claims, _iteration_leak(scope)] if "siguard" in scope.policies else claims


def battery(seed: int, scope: Scope | None = None) -> list[Claim]:
    """What a negative control is shown: the cheapest policy and the one with a loop, unless ``scope`` says more."""
    with _own_scheduler():
        return trio.run(_check, scope or Scope(("label", "siguard"), seed=seed), CALLS[:2])


def _iteration_leak(scope: Scope) -> Claim:
    """What the fixed schedule is for: the attack on the counts of a loop that stops."""
    leak = iteration_leak(scope.seed, full=scope.full)
    problem = ""
    if leak.interval[0] <= 0.5:
        problem = (
            "the attack on the counts of a loop that stops finds nothing, so it shows nothing of the fixed one"
        )
    elif leak.agreeing != len(leak.compared):
        problem = "the frames of the loop under MPC do not show the counts that were attacked"
    text = f"a loop that stops would tell what the fixed schedule does not: {leak}"
    return Claim(text, "shape", ALL, leak.rows, not problem, leak.interval[1] - leak.auc, problem)


async def _check(scope: Scope, calls: Sequence[tuple[str, str]]) -> list[Claim]:
    claims: list[Claim] = []
    for setting in FULL if scope.full else QUICK:
        cases = find_cases(setting, scope.seed)
        recorder = Recorder()
        with accept_patterns() as patterns:
            async with open_cluster(
                scope.seed, debug_open=True, deadline=_DEADLINE, wrap_link=recorder.wrap_link
            ) as cluster:
                caller = _Caller(cluster, recorder, cases, patterns, scope.seed)
                for policy in scope.policies:
                    config = replace(setting.config(policy), rounds="few")
                    where = f" ({setting})" if scope.full else ""
                    claims += [_named(claim, where) for claim in await _check_policy(caller, config, calls)]
        if setting.over_tcp:
            configs = [replace(setting.config(name), rounds="few") for name in scope.policies]
            claims += await tcp_claims(cases, configs, caller.shapes)
    return claims


def _named(claim: Claim, where: str) -> Claim:
    return Claim(claim.claim + where, claim.rung, claim.corrupted, claim.cases, claim.holds, problem=claim.problem)


# One call -------------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """One call: what it was, in words, its shape, and how it failed if it did.

    accepted: the accept pattern of each row; empty where the policy has none.  plans: those of its requests.
    """

    what: str
    shape: list[ShapeLine]
    error: str
    accepted: list[str]
    plans: set[str]

    @property
    def failure(self) -> str:
        """The call and its error, in words; empty if it ended well."""
        return self.error and f"{self.what} failed: {self.error}"

    def without_control(self) -> Run:
        """A prepared call without its requests ahead and the replies to them."""
        control = [line for line in self.shape if line.step in (PREPARE, READY)]
        missing = "" if len(control) == 6 or self.error else f"{len(control)} frames of control"
        return self._replace(
            shape=[line for line in self.shape if line not in control], error=self.error or missing
        )


@dataclass
class _Caller:
    cluster: Cluster
    recorder: Recorder
    cases: Cases
    patterns: list[list[str]]
    seed: int
    calls: int = 0
    #: Of a query of one row, by policy.
    shapes: dict[str, list[ShapeLine]] = field(default_factory=dict)

    async def call(
        self, entry: str, values: FloatArray, config: GuardConfig, what: str, *, prepared: bool = False
    ) -> Run:
        """Guard rows by way of ``entry``, under a scheduler seed of this call's own, and note all frames."""
        self.calls += 1
        self.recorder.clear()
        self.patterns.clear()
        trio._core._run._r.seed(f"{self.seed} {self.calls}")
        error = ""
        try:
            if prepared:
                model = self.cases.model if entry == "query" else None
                await self.cluster.prepare(self.cases.defender, config, len(values), model=model)
            if entry == "query":
                result = await self.cluster.query(values, self.cases.model, self.cases.defender, config)
            else:
                result = await self.cluster.guard(values, self.cases.defender, config)
            self.recorder.learn_steps(result.traffic.by_step())
        except SiguardError as problem:
            error = f"{type(problem).__name__}: {problem.message}"
        messages = [event for event in self.recorder.events() if isinstance(event, Message) and not event.received]
        accepted = [pattern for rows in self.patterns for pattern in rows] if _outer(config) else []
        shape, dealer = by_role(messages)
        requests = [m for m in messages if m.kind == Kind.START and m.sender in (USER, UPSTREAM)]
        plans = {repr(Request.decode(m.array).plan) for m in requests}
        what = f"{entry} of {what}, {config.rounds}, dealer {dealer}, call {self.calls}"
        return Run(what, shape, error, accepted, plans)


# Families of calls ----------------------------------------------------------------------------------------


@dataclass
class _Family:
    """Calls that must all have one shape; ``problem`` names the first frame that differs."""

    detail: str
    runs: int = 0
    problem: str = ""
    _first: dict[str, Run] = field(default_factory=dict)

    def add(self, kind: str, run: Run) -> None:
        """Compare a call with the first one of its kind."""
        self.runs += 1
        first = self._first.setdefault(kind, run)
        if not self.problem:
            self.problem = run.failure
        if not self.problem and run.shape != first.shape:
            self.problem = f"{run.what} is not like {first.what}: {first_difference(run.shape, first.shape)}"

    def claim(self, policy: str) -> Claim:
        """What the calls say."""
        return Claim(
            f"shape of {policy}: {self.detail}", "shape", ALL, self.runs, not self.problem, problem=self.problem
        )


@dataclass
class _Plans:
    """Calls that must all come with one plan, those of one kind: a plan follows from what is public."""

    runs: int = 0
    problem: str = ""
    _first: dict[str, Run] = field(default_factory=dict)

    def add(self, kind: str, run: Run) -> None:
        """Compare a call's plan with that of the first one of its kind."""
        self.runs += 1
        first = self._first.setdefault(kind, run)
        if not self.problem and (run.plans != first.plans or len(run.plans) != 1):
            self.problem = f"{run.what} has the plans {sorted(run.plans)}, {first.what} {sorted(first.plans)}"

    def claim(self, policy: str) -> Claim:
        """What the calls say."""
        text = f"plan of {policy}: the same for all rows and all contents of a batch"
        return Claim(text, "shape", ALL, self.runs, not self.problem, problem=self.problem)


async def _check_policy(caller: _Caller, config: GuardConfig, calls: Sequence[tuple[str, str]]) -> list[Claim]:
    """All families of one policy.  After a family with a difference the ones that build on it are left out."""
    policy, cases = config.policy, caller.cases
    rows = [_Family(f"same for {what}") for what in ("members and non-members", "all labels")]
    rows += [_Family("same for all accept patterns")] if _outer(config) else []
    rows += [_Family("same for all dealers, read by role")]
    for entry in ENTRIES:  # sharing of networks and grants are set-up, not part of a call
        first = await caller.call(entry, _values(cases, entry)[:1], config, "a row")
        if first.error:
            return [Claim(f"shape of {policy}: a call ends well", "shape", ALL, 1, False, problem=first.failure)]

    accepted: set[tuple[str, str, str]] = set()
    plans = _Plans()
    for (entry, rounds), row in product(calls, range(len(cases.label))):
        planned = replace(config, rounds=rounds)
        run = await caller.call(entry, _values(cases, entry)[row : row + 1], planned, cases.describe(row))
        for family in rows:
            family.add(f"{entry} {rounds}", run)
        plans.add(f"{entry} {rounds}", run)
        if (entry, rounds) == ("query", "few"):
            caller.shapes[policy] = run.shape
        accepted |= {(entry, "alone", pattern) for pattern in run.accepted}
        if rows[0].problem:
            return [family.claim(policy) for family in rows]

    batches, schedulers = _Family("same for all batch contents"), _Family("same for all scheduler seeds")
    ahead = _Family("a prepared session is like another, but for its 6 frames of control")
    for entry, rounds in calls[: len(ENTRIES)]:
        for what, values in _batches(_values(cases, entry), caller.seed):
            run = await caller.call(entry, values, replace(config, rounds=rounds), what)
            batches.add(f"{entry} {rounds}", run)
            plans.add(f"{entry} {rounds}, batch", run)
            accepted |= {(entry, "in a batch", pattern) for pattern in run.accepted}
    for entry in ENTRIES:
        for _ in range(cases.setting.seeds):
            run = await caller.call(entry, _values(cases, entry)[:1], config, cases.describe(0))
            schedulers.add(entry, run)
        if calls == CALLS:
            ahead.add(entry, run)
            run = await caller.call(entry, _values(cases, entry)[:1], config, "a prepared row", prepared=True)
            ahead.add(entry, run.without_control())
    claims = [family.claim(policy) for family in (*rows, batches, schedulers, ahead) if family.runs]
    claims.append(plans.claim(policy))
    if _outer(config):
        claims.insert(0, _all_patterns_claim(accepted, config))
    return claims


def _values(cases: Cases, entry: str) -> FloatArray:
    return cases.features if entry == "query" else cases.logits


def _batches(values: FloatArray, seed: int) -> Iterable[tuple[str, FloatArray]]:
    """Batches of one size with different contents."""
    rng = np.random.default_rng(seed)
    yield "all rows in one batch", values
    yield "all rows, shuffled", rng.permutation(values)
    yield "one row, repeated", np.repeat(values[:1], len(values), axis=0)
    extreme = np.zeros_like(values)
    extreme[:, 0] = np.resize(_EXTREMES, len(values))
    yield "extreme values", extreme


def _outer(config: GuardConfig) -> int:
    """Number of runs that are accepted or not; 0 for a policy without."""
    return config.resolved().outer or 0


def _all_patterns_claim(accepted: set[tuple[str, str, str]], config: GuardConfig) -> Claim:
    """Whether the servers' own bits showed every accept pattern, alone and in batches, by each entry."""
    patterns = all_patterns(_outer(config))
    missing = sorted(set(product(ENTRIES, ("alone", "in a batch"), patterns)) - accepted)
    return Claim(
        f"accept patterns of {config.policy}: all {len(patterns)} occur, alone and in a batch",
        "shape",
        ALL,
        len(patterns),
        not missing,
        problem=f"never occurred under MPC: {'; '.join(' '.join(case) for case in missing)}" if missing else "",
    )


@contextmanager
def _own_scheduler() -> Iterator[None]:
    """Trio runs ready tasks in random order; calls here seed that, and it is put back as it was."""
    state = trio._core._run._r.getstate()
    try:
        yield
    finally:
        trio._core._run._r.setstate(state)
