"""A proof run as processes: how work is cut, what comes back, and what happens when a process ends early."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.guard.config import POLICIES
from siguard.proofsim import controls
from siguard.proofsim import prove as module
from siguard.proofsim.claims import CORRUPTED_SETS, RUNGS, Claim, ControlOutcome, Corrupted, ProofReport, Scope
from siguard.proofsim.controls import CONTROLS, Control
from siguard.proofsim.prove import ProofFailedError, prove
from siguard.proofsim.worker import check_control, check_rung, scope_from_dict, scope_to_dict

LABEL = Scope(("label",), (Corrupted("S0", True),))
#: Controls that the first look of the exact rung catches.
CHEAP = [
    next(n for n, control in enumerate(CONTROLS) if control.name == name)
    for name in ("one key for all pairs", "mask with one random bit per byte")
]

SCOPES = st.builds(
    Scope,
    st.lists(st.sampled_from(list(POLICIES)), min_size=1, unique=True).map(tuple),
    st.lists(st.sampled_from(CORRUPTED_SETS), min_size=1, unique=True).map(tuple),
    st.booleans(),
    st.integers(0, 2**31),
)

# How work is cut --------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(scope=SCOPES)
def test_a_scope_travels_as_json(scope: Scope) -> None:
    found = scope_from_dict(json.loads(json.dumps(scope_to_dict(scope))))
    assert found == scope
    assert all(isinstance(one, Corrupted) for one in found.corrupted)


@settings(max_examples=25)
@given(scope=SCOPES)
def test_every_rung_policy_set_and_control_is_one_task(scope: Scope) -> None:
    tasks: list[dict[str, Any]] = json.loads(json.dumps(module._tasks(scope)))
    assert [task["control"] for task in tasks if "control" in task] == list(range(len(CONTROLS)))
    checked: Counter[tuple[str, str, Corrupted]] = Counter()
    for task in tasks:
        assert ("rung" in task) != ("control" in task)
        given_scope = scope_from_dict(task["scope"])
        if "rung" in task:
            spread = replace(given_scope, policies=scope.policies, corrupted=scope.corrupted)
            assert spread == scope, "only policies and sets are spread"
            checked.update(
                (task["rung"], policy, one) for policy in given_scope.policies for one in given_scope.corrupted
            )
        else:
            assert given_scope == scope
    every = ((rung, policy, one) for rung in RUNGS for policy in scope.policies for one in scope.corrupted)
    assert checked == Counter(every)


def test_long_tasks_come_first() -> None:
    rungs = [task["rung"] for task in module._tasks(Scope(tuple(POLICIES))) if "rung" in task]
    assert set(rungs[: 4 + 2 * len(POLICIES)]) == {"exact", "shape", "content"}
    assert Counter(rungs)["exact"] == 4, "one for each server, and the user alone"
    assert Counter(rungs)["shape"] == Counter(rungs)["content"] == len(POLICIES)


@pytest.mark.parametrize("rung", RUNGS)
def test_every_rung_is_a_module_that_a_worker_finds(rung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = Claim("a claim", rung, "all", 1, True)
    monkeypatch.setattr(f"siguard.proofsim.rungs.{rung}.check", lambda scope: iter([claim]))
    assert check_rung(rung, LABEL) == [claim]


# A control in a campaign ------------------------------------------------------------------------------------------


def outcome(monkeypatch: pytest.MonkeyPatch, scope: Scope, missed: int | None = None) -> tuple[Any, list[int]]:
    """What is made of a control's outcomes, and the seeds it ran with; one of them is caught elsewhere."""
    seeds = []

    def run_control(control: Control, seed: int) -> ControlOutcome:
        seeds.append(seed)
        caught_by = "content" if seed == missed else control.expected_rung
        return ControlOutcome(control.name, control.expected_rung, caught_by, f"seen with seed {seed}")

    monkeypatch.setattr(controls, "run_control", run_control)
    return check_control(CHEAP[0], scope), seeds


def test_a_quick_control_runs_once_and_one_of_a_campaign_with_twenty_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seeds = outcome(monkeypatch, replace(LABEL, seed=5))
    assert (made.caught_by, made.finding, seeds) == ("exact", "seen with seed 5", [5])
    made, seeds = outcome(monkeypatch, replace(LABEL, seed=5, full=True))
    assert (made.control, made.expected_rung, made.caught_by) == ("one key for all pairs", "exact", "exact")
    assert made.caught
    assert "all of 20 seeds" in made.finding
    assert seeds == list(range(5, 25))


def test_a_control_that_one_seed_does_not_catch_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = outcome(monkeypatch, replace(LABEL, full=True), missed=7)
    assert not made.caught
    assert made.caught_by is None
    assert made.finding.endswith("[7]")


# A run ------------------------------------------------------------------------------------------------------------


def rung_task(rung: str, scope: Scope = LABEL) -> dict[str, Any]:
    return {"rung": rung, "scope": scope_to_dict(scope)}


def control_task(number: int) -> dict[str, Any]:
    return {"control": number, "scope": scope_to_dict(LABEL)}


@contextmanager
def processes_of(tasks: list[dict[str, Any]]) -> Iterator[list[trio.Process]]:
    """`prove` has these tasks; the processes that it opens."""
    opened: list[trio.Process] = []
    shipped = trio.lowlevel.open_process

    async def noted(*arguments: Any, **options: Any) -> trio.Process:
        opened.append(await shipped(*arguments, **options))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_tasks", lambda scope: tasks)
        patch.setattr(trio.lowlevel, "open_process", noted)
        yield opened


class Run(NamedTuple):
    report: ProofReport
    progress: list[tuple[str, int, int]]
    processes: list[trio.Process]


@pytest.fixture(scope="module")
def run() -> Run:
    """Two rungs, the higher one first, and two controls, in two processes."""
    told: list[tuple[str, int, int]] = []
    tasks = [rung_task("taint"), rung_task("shape"), *map(control_task, CHEAP)]
    with processes_of(tasks) as processes:
        report = prove(LABEL, lambda *one: told.append(one), workers=2)
    return Run(report, told, processes)


def test_claims_come_in_the_order_of_the_ladder(run: Run) -> None:
    rungs = [claim.rung for claim in run.report.claims]
    assert list(dict.fromkeys(rungs)) == ["shape", "taint"]
    assert rungs == sorted(rungs, key=RUNGS.index)


def test_claims_are_those_of_the_rung_itself(run: Run) -> None:
    for rung in ("shape", "taint"):
        found = [claim for claim in run.report.claims if claim.rung == rung]
        # How many shares a failing session makes depends on the scheduler.
        expected = [
            replace(claim, cases=one.cases) for one, claim in zip(found, check_rung(rung, LABEL), strict=True)
        ]
        assert found == expected
        assert all(claim.cases > 0 for claim in found)


def test_controls_come_in_the_order_of_their_tasks(run: Run) -> None:
    assert [control.control for control in run.report.controls] == [CONTROLS[n].name for n in CHEAP]
    assert all(control.caught_by == "exact" and control.finding for control in run.report.controls)


def test_a_report_holds_and_says_how_long_it_took(run: Run) -> None:
    assert run.report.scope == LABEL
    assert run.report.holds, [claim for claim in run.report.claims if not claim.holds]
    assert 0.1 < run.report.seconds < 100


def test_the_json_form_has_the_keys_that_are_promised(run: Run) -> None:
    made = json.loads(run.report.to_json())
    assert list(made) == ["schema", "holds", "claims", "controls"]
    assert made["holds"] is True
    assert {tuple(claim) for claim in made["claims"]} == {
        ("claim", "rung", "corrupted", "cases", "verdict", "detectable")
    }
    assert {tuple(control) for control in made["controls"]} == {
        ("control", "expected_rung", "caught_by", "verdict")
    }
    assert {claim["verdict"] for claim in made["claims"]} == {"holds"}
    assert {control["verdict"] for control in made["controls"]} == {"caught"}


def test_progress_counts_up_to_the_end(run: Run) -> None:
    assert run.progress[:2] == [("rungs", 0, 2), ("controls", 0, 2)]
    for stage in ("rungs", "controls"):
        told = [one for one in run.progress if one[0].partition(":")[0] == stage]
        assert [(done, total) for _, done, total in told] == [(n, 2) for n in range(3)]
        assert all(" s" in text for text, done, _ in told if done), "what took how long"
        found = r"(\d+) of \1 claims hold" if stage == "rungs" else ", caught, "
        assert all(re.search(found, text) for text, done, _ in told if done), "known of a run that is stopped"


def test_all_processes_end_with_the_run(run: Run) -> None:
    assert len(run.processes) == 2
    assert all(process.returncode is not None for process in run.processes)


def test_there_are_no_more_processes_than_tasks() -> None:
    with processes_of([rung_task("taint")]) as processes:
        report = prove(LABEL, workers=5)
    assert len(processes) == 1
    assert len(report.claims) == 4


# A process that ends early ----------------------------------------------------------------------------------------


def test_a_process_that_dies_is_named_and_no_other_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    """The other one would work for minutes."""
    long = rung_task("null", replace(LABEL, full=True))
    started = time.perf_counter()
    with (
        processes_of([long, rung_task("no-such-rung")]) as processes,
        pytest.raises(ProofFailedError, match="no-such-rung of label ended without an answer"),
    ):
        prove(LABEL, workers=2)
    assert time.perf_counter() - started < 20
    assert len(processes) == 2
    assert all(process.returncode is not None for process in processes)
    said = capfd.readouterr()
    assert "siguard.proofsim.rungs.no-such-rung" in said.err, "why it died"
    assert said.out == ""


def test_a_control_whose_process_dies_is_named() -> None:
    with (
        processes_of([control_task(len(CONTROLS))]) as processes,
        pytest.raises(ProofFailedError, match=f"control {len(CONTROLS)} ended without"),
    ):
        prove(LABEL, workers=1)
    assert processes[0].returncode


def test_a_process_that_is_gone_before_its_task_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not read what it is sent."""
    shipped = trio.lowlevel.open_process

    async def gone(*arguments: Any, **options: Any) -> trio.Process:
        process = await shipped(["true"], **options)
        await process.wait()
        return process

    monkeypatch.setattr(module, "_tasks", lambda scope: [rung_task("taint")])
    monkeypatch.setattr(trio.lowlevel, "open_process", gone)
    with pytest.raises(ProofFailedError, match="taint of label ended without an answer"):
        prove(LABEL, workers=1)


# What a process prints --------------------------------------------------------------------------------------------

#: A worker whose rung talks in every way there is.
TALKATIVE = """
import os, subprocess, sys
import structlog
from siguard.proofsim import worker
from siguard.proofsim.claims import Claim
def check_rung(rung, scope):
    print("by print", flush=True)
    os.write(1, b"by descriptor\\n")
    subprocess.run(["echo", "by child"], check=True)
    structlog.get_logger().error("by log")
    print("at the end")
    return [Claim("a claim", rung, "all", 1, True)]
worker.check_rung = check_rung
worker.main()
"""


def test_nothing_but_answers_is_on_stdout() -> None:
    tasks = "".join(json.dumps(rung_task(rung)) + "\n" for rung in ("shape", "taint"))
    ran = subprocess.run([sys.executable, "-c", TALKATIVE], input=tasks, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [list(answer) for answer in answers] == [["claims"], ["claims"]]
    assert [answer["claims"][0]["rung"] for answer in answers] == ["shape", "taint"]
    for way in ("by print", "by descriptor", "by child", "by log", "at the end"):
        assert ran.stderr.count(way) == 2, way
