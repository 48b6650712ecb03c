"""Whole runs of small scenarios on the real cluster: what the report says, twice the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio

from siguard.errors import DeadlineError, InputError, ScenarioError, without_groups
from siguard.nn.model import Defender
from siguard.privacy.logits_file import ShadowLogits
from siguard.scenario.experiment import Experiment
from siguard.scenario.load import load_scenario
from siguard.scenario.report import Report
from siguard.scenario.runner import ScenarioRun, run_scenario
from siguard.scenario.stopping import ctrl_c_is_not_swallowed, sigterm_is_ctrl_c

SMALL = """
seed = 5
samples = 40
batch = 16
[data]
rows = 20
[target]
hidden = [16]
[guard]
policies = ["siguard", "linesearch", "label"]
outer = 1
inner = 2
[attacks]
shadows = 1
"""
SECONDS = {"seconds", "seconds_min", "seconds_max"}
COSTS = {"plan", "rounds_declared", "bytes_declared", "bytes_prepare", "bytes_online", "failures"}
FIGURES = {"label_kept", "accepted", "l1", "rounds", "bytes_total", "messages", "iterations", *COSTS, *SECONDS}
ATTACKS = ["nn", "gb", "confidence", "modified_entropy", "correctness"]


def write(folder: Path, text: str) -> Path:
    file = folder / "small.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run_scenario(write(tmp_path_factory.mktemp("run"), SMALL))


def test_the_report_has_the_agreed_layout(report: Report) -> None:
    content = report.to_dict()
    assert content["schema"] == 1
    assert (content["scenario"], content["seed"], content["samples"], content["batch"]) == (
        "small",
        5,
        40,
        16,
    )
    assert list(content["guard"]) == ["none", "siguard", "linesearch", "label"]
    for row in content["guard"].values():
        assert set(row) == FIGURES
    assert list(content["attacks"]) == list(content["guard"])
    for scores in content["attacks"].values():
        assert list(scores) == ATTACKS
        for score in scores.values():
            assert set(score) == {"balanced_accuracy", "auc", "tpr_at_1pct_fpr"}
            assert all(0 <= value <= 1 for value in score.values())
    assert not content["partial"]


def test_the_guards_did_their_work(report: Report) -> None:
    rows = report.guard
    assert [row.label_kept for row in rows.values()] == [1.0] * 4
    assert [row.iterations for row in rows.values()] == [0, 2, 1, 0]
    assert [name for name, row in rows.items() if row.accepted is not None] == ["siguard"]
    assert rows["none"].l1 == 0 < 0.01 < min(rows["linesearch"].l1, rows["label"].l1)
    for row in rows.values():
        assert 0 < row.seconds_min <= row.seconds <= row.seconds_max
        assert min(row.rounds, row.bytes_total, row.messages) > 0
    assert rows["none"].rounds < rows["linesearch"].rounds
    assert rows["none"].bytes_total < rows["siguard"].bytes_total
    for found in report.agreement.values():
        assert found.rows_within_0_02 >= 0.9
        assert found.label >= 0.95
    assert 0 < report.agreement["none"].mean_difference < 1e-3


def test_the_label_decides_correctness_under_every_policy(report: Report) -> None:
    assert len({scores["correctness"] for scores in report.attacks.values()}) == 1
    accuracy = report.accuracy
    assert accuracy["target_members"] is not None
    assert accuracy["target_non_members"] is not None
    gap = (accuracy["target_members"] + 1 - accuracy["target_non_members"]) / 2
    assert report.attacks["none"]["correctness"].balanced_accuracy == pytest.approx(gap)


def test_the_same_seed_gives_the_same_report_but_for_seconds(report: Report, tmp_path: Path) -> None:
    again = run_scenario(write(tmp_path, SMALL)).to_dict()
    first = report.to_dict()
    for content in (first, again):
        for row in content["guard"].values():
            for name in SECONDS:
                del row[name]
    assert again == first


def logits_file(folder: Path, **arrays: Any) -> Path:
    with (folder / "logits.npz").open("wb") as file:
        np.savez(file, **arrays)
    return write(folder, 'batch = 64\n[data]\nkind = "npz"\npath = "logits.npz"\n[guard]\npolicies = ["none"]\n')


def test_logits_without_a_leak_lack_power_and_say_so(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(0, 3, (20, 4))
    everyone = np.concatenate([rows, rows])  # members and non-members alike: no attack can tell
    member = np.repeat([0, 1], 20)
    file = logits_file(tmp_path, logits=everyone, member=member, shadow_logits=everyone, shadow_member=member)
    report = run_scenario(file)
    assert report.samples == 40
    assert report.batch == 40
    assert list(report.attacks["none"]) == ["nn", "gb"]
    assert report.attacks["none"]["gb"].auc == pytest.approx(0.5)
    assert report.accuracy["target_members"] is None
    batch, power = report.warnings
    assert "one batch of 40" in batch
    assert "lacks power" in power


def test_logits_with_a_leak_do_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    member = np.tile([0, 1], 60)
    logits = rng.normal(0, 1 + 4 * member[:, None], (120, 4))  # members are far more certain
    report = run_scenario(logits_file(tmp_path, logits=logits, member=member, labels=logits.argmax(axis=1)))
    assert report.samples == 60  # the other half went to the attacker
    assert list(report.attacks["none"]) == ATTACKS
    assert report.attacks["none"]["gb"].auc > 0.8
    assert not any("power" in line for line in report.warnings)
    assert any("random half" in line for line in report.notes)


def test_overrides_reach_the_run(tmp_path: Path) -> None:
    overrides = {"samples": 10, "batch": 10, "guard.policies": ["none"], "name": "other"}
    report = run_scenario(write(tmp_path, SMALL), overrides)
    assert (report.scenario, report.samples, list(report.guard)) == ("other", 10, ["none"])


#: One policy on few rows: runs about how a guard is computed, not about what it does.
FEW = {"samples": 4, "batch": 2, "guard.policies": ["linesearch"], "guard.rounds": "few"}


@pytest.fixture
def untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario whose run neither trains nor attacks: random logits, a random classifier."""
    rng = np.random.default_rng(0)
    defender = Defender([(rng.normal(size=(m, n)), np.zeros(n)) for m, n in ((3, 8), (8, 6), (6, 1))])
    member = np.array([1, 0, 1, 0])
    logits = rng.normal(size=(4, 3))
    shadow = ShadowLogits(logits, member, None)
    made = Experiment(None, None, logits, None, member, defender, shadow, {})
    monkeypatch.setattr("siguard.scenario.runner.prepare", lambda *_: made)
    monkeypatch.setattr(ScenarioRun, "_attack", lambda *_: None)
    return write(tmp_path, SMALL)


def test_how_a_guard_is_computed_is_chosen_and_reported(untrained: Path) -> None:
    overrides = {**FEW, "prepare": True}
    few = run_scenario(untrained, overrides)
    least = run_scenario(untrained, {**overrides, "guard.rounds": "bytes", "prepare": False})
    rows, rows_least = few.guard["linesearch"], least.guard["linesearch"]
    assert rows.rounds < rows_least.rounds
    assert rows.bytes_total > rows_least.bytes_total
    for row in (rows, rows_least):
        assert row.bytes_prepare + row.bytes_online == row.bytes_total
        assert row.rounds_declared <= row.rounds
        assert row.bytes_declared <= row.bytes_total
        assert 0 < row.failures.wrong_answer < 2 * 2.0**-20
    assert rows.plan["hidden"] == "key"
    assert rows_least.plan["hidden"] == "adder"
    assert any("sent its part before each query" in line for line in few.notes)
    assert not any("sent its part" in line for line in least.notes)
    assert few.agreement["linesearch"].rows_within_0_02 == least.agreement["linesearch"].rows_within_0_02 == 1


def test_what_was_prepared_is_not_waited_for(untrained: Path) -> None:
    overrides = {**FEW, "network.profile": "wan", "network.mbit_per_s": 10, "network.clock": "virtual"}
    prepared, at_once = (run_scenario(untrained, {**overrides, "prepare": value}) for value in (True, False))
    assert prepared.guard["linesearch"].bytes_prepare == at_once.guard["linesearch"].bytes_prepare
    assert prepared.guard["linesearch"].seconds < at_once.guard["linesearch"].seconds


def test_bytes_that_no_plan_keeps_to_are_refused_with_file_and_key(untrained: Path) -> None:
    with pytest.raises(ScenarioError, match=r"linesearch\.max_bytes: found 1000; .* takes at least") as caught:
        run_scenario(untrained, {**FEW, "guard.linesearch.max_bytes": 1000})
    assert str(caught.value).startswith(str(untrained))


def test_more_samples_than_rows_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"samples: found 60; allowed: at most 40 \(2 x data\.rows\)"):
        run_scenario(write(tmp_path, SMALL), {"samples": 60})


def test_missing_data_says_where_it_was_looked_for_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ScenarioError, match=r"location30.*--set data\.path="):
        run_scenario(write(folder, '[data]\nkind = "location30"\n'))
    with pytest.raises(InputError, match=r"absent\.npz: no such file"):
        run_scenario(write(folder, '[data]\nkind = "npz"\npath = "absent.npz"\n'))


def test_progress_names_each_stage_from_nothing_to_all(tmp_path: Path) -> None:
    seen: dict[str, list[int]] = {}
    totals = {}

    def listen(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append(done)
        totals[stage] = total

    overrides = {"guard.policies": ["none"]}
    ScenarioRun(load_scenario(write(tmp_path, SMALL), overrides)).execute(listen)
    assert list(seen) == [
        "training the target",
        "training the defender",
        "training the attacker's shadow models",
        "guarding under MPC: none",
        "attacking: none",
    ]
    for stage, counts in seen.items():
        assert counts == sorted(set(counts))
        assert (counts[0], counts[-1]) == (0, totals[stage])
    assert seen["training the target"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("stage", "guarded", "attacked"),
    [
        ("training the target", [], []),
        ("guarding under MPC: label", ["none"], []),
        ("attacking: label", ["none", "label"], ["none"]),
    ],
)
def test_ctrl_c_anywhere_leaves_what_was_complete(
    tmp_path: Path, stage: str, guarded: list[str], attacked: list[str]
) -> None:
    def stop(now: str, done: int, total: int) -> None:
        if now == stage and done == 1:
            raise KeyboardInterrupt

    job = ScenarioRun(load_scenario(write(tmp_path, SMALL), {"guard.policies": ["label"]}))
    with pytest.raises(KeyboardInterrupt):
        job.execute(stop)
    report = job.interrupted()
    assert report.partial
    assert repr(stage) in str(report.reason)
    assert (list(report.guard), list(report.attacks)) == (guarded, attacked)


def test_ctrl_c_inside_a_fit_is_not_swallowed() -> None:
    from sklearn.neural_network import MLPClassifier

    class Interrupting(MLPClassifier):  # type: ignore[misc]
        def _update_no_improvement_count(self, *_arguments: object) -> None:
            raise KeyboardInterrupt

    rows, classes = np.eye(4), [0, 1, 0, 1]
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        Interrupting(max_iter=2).fit(rows, classes)  # what scikit-learn does on its own
    with pytest.raises(KeyboardInterrupt), ctrl_c_is_not_swallowed():
        Interrupting(max_iter=2).fit(rows, classes)


def test_sigterm_stops_a_block_that_started_something() -> None:
    async def work() -> None:
        with sigterm_is_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        trio.run(work)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_is_ctrl_c():  # somebody else decided what it does
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeadlineError("late", party="S1")])
def test_one_error_comes_out_of_task_groups(error: BaseException) -> None:
    async def fail() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery():
            outer.start_soon(trio.sleep_forever)
            raise error

    with pytest.raises(type(error)) as caught, without_groups():
        trio.run(fail)
    assert caught.value is error


def test_an_unknown_error_keeps_its_group() -> None:
    async def fail() -> None:
        async with trio.open_nursery():
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup), without_groups():
        trio.run(fail)
