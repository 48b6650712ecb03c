"""Figures against values worked out by hand."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from siguard.guard.failures import Failures
from siguard.guard.plan import Plan
from siguard.guard.planner import Planned
from siguard.guard.reference import ReferenceResult
from siguard.mpc.thresholds import Way
from siguard.scenario.figures import Released, agreement, complaints, network_figures, policy_figures
from siguard.scenario.report import (
    AttackFigures,
    DirectionFigures,
    NetworkFigures,
    PolicyFigures,
    Report,
)
from siguard.scenario.schema import NetworkSection

FAILURES = Failures(2.0**-23, 5e-5, {"exp": 5e-5})
UNDEFENDED = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])


#: Plan, declared rounds and bytes, dealt and other bytes, failures: all as wide as they get.
DECLARED = (
    Plan(Way.BIT_KEY, Way.BIT_KEY, Way.BIT_KEY, sequential=True).to_dict(),
    1478,
    344_678_901,
    300_678_901,
    45_000_000,
    FAILURES,
)


def released(*, accepted: bool = True) -> Released:
    """Two batches; the second row changes its label, the third is released as it is."""
    return Released(
        iterations=30,
        confidences=[np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([[0.3, 0.7]])],
        accepted=[np.array([True, True]), np.array([False])] if accepted else [],
        costs=[(7, 1000, 12, 600)] * 3,
        seconds=[0.1, 0.9, 0.2],
        planned=Planned(Plan(hidden=Way.BIT_KEY, joined=False), 6, 900, 0.5),
        failures=FAILURES,
    )


def test_policy_figures() -> None:
    figures = policy_figures(UNDEFENDED, released())
    assert figures.label_kept == pytest.approx(2 / 3)
    assert figures.accepted == pytest.approx(2 / 3)
    assert figures.l1 == pytest.approx((0.2 + 0.4 + 0.0) / 3)
    assert (figures.rounds, figures.bytes_total, figures.messages) == (7, 1000, 12)
    assert (figures.seconds, figures.seconds_min, figures.seconds_max) == (0.2, 0.1, 0.9)
    assert figures.iterations == 30
    assert (figures.rounds_declared, figures.bytes_declared) == (6, 900)
    assert (figures.bytes_prepare, figures.bytes_online) == (600, 400)
    assert figures.plan["hidden"] == "bit key"
    assert figures.failures == FAILURES
    assert policy_figures(UNDEFENDED, released(accepted=False)).accepted is None


def test_agreement() -> None:
    expected = ReferenceResult(
        confidences=np.array([[0.7, 0.3], [0.51, 0.49], [0.31, 0.69]]),
        noise=None,
        accepted=np.array([True, False, False]),
    )
    found = agreement(released(), expected)
    assert found.label == pytest.approx(2 / 3)
    assert found.accept_bit == pytest.approx(2 / 3)
    assert found.rows_within_0_02 == pytest.approx(2 / 3)
    assert found.mean_difference == pytest.approx((0 + 0 + 0.11 + 0.11 + 0.01 + 0.01) / 6)
    assert found.largest_difference == pytest.approx(0.11)
    assert agreement(released(accepted=False), expected).accept_bit is None


def test_a_reader_is_told_of_changed_labels_and_of_costs_that_move() -> None:
    answers = released()
    (line,) = complaints("p", 3, policy_figures(UNDEFENDED, answers), answers)
    assert line == "p: the label changed on 1 of 3 rows."
    answers.costs[1] = (7, 1008, 12, 600)
    assert "batches of one size differ" in complaints("p", 3, policy_figures(UNDEFENDED, answers), answers)[1]


def test_a_network_is_reported_with_the_values_of_its_profile() -> None:
    assert network_figures(NetworkSection()) == NetworkFigures()
    assert str(NetworkFigures()) == "unshaped; wall clock"
    lan = network_figures(NetworkSection(profile="lan", clock="virtual"))
    assert lan == NetworkFigures(0.2, 1000.0, 0.0, "lan", clock="virtual", costs="table")
    assert str(lan) == "lan: 0.2 ms, 1000 Mbit/s; virtual clock (table)"
    raw = {"profile": "wan", "jitter_ms": 3, "links": {"S0->user": {"mbit_per_s": 0.5}}}
    own = network_figures(NetworkSection.model_validate(raw))
    assert own == NetworkFigures(
        20.0, 100.0, 3.0, "wan", {"S0->user": DirectionFigures(20.0, 0.5, 3.0)}, clock="wall", costs=None
    )
    assert "some directions differ" in str(own)


def test_a_report_is_written_whole_and_as_plain_json(tmp_path: Path) -> None:
    report = Report("s", seed=3, samples=3, batch=2)
    report.guard["none"] = policy_figures(UNDEFENDED, released(accepted=False))
    report.attacks["none"] = {"nn": AttackFigures(0.5, math.nan, 0.0)}
    file = report.write(tmp_path / "deep" / "folder")
    assert [path.name for path in file.parent.iterdir()] == ["report.json"]
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content["schema"] == 1
    assert (content["scenario"], content["seed"], content["samples"], content["batch"]) == ("s", 3, 3, 2)
    assert content["transport"] == "memory"
    assert content["network"] == {
        "profile": "none",
        "latency_ms": 0.0,
        "mbit_per_s": None,
        "jitter_ms": 0.0,
        "links": {},
        "clock": "wall",
        "costs": None,
        "cores": None,
    }
    assert content["guard"]["none"]["accepted"] is None
    assert content["guard"]["none"]["plan"] == Plan(hidden=Way.BIT_KEY, joined=False).to_dict()
    assert content["guard"]["none"]["failures"] == {
        "wrong_answer": 2.0**-23,
        "noise_lost": 5e-5,
        "by_step": {"exp": 5e-5},
    }
    assert content["attacks"]["none"]["nn"] == {"balanced_accuracy": 0.5, "auc": None, "tpr_at_1pct_fpr": 0.0}
    assert content["partial"] is False
    assert content["reason"] is None


def test_tables_hold_every_policy_and_attack_and_fit_a_terminal() -> None:
    from rich.console import Console

    network = NetworkFigures(20.0, 100.0, 1.5, "wan", clock="virtual", costs="measured", cores=2)
    report = Report("s", seed=3, samples=3, batch=2, network=network)
    for policy in ("none", "linesearch"):
        report.guard[policy] = PolicyFigures(
            1.0, None, 0.1234, 1500, 345_678_901, 12_345, 101.25, 99.5, 103.75, 30, *DECLARED
        )
        report.attacks[policy] = {
            name: AttackFigures(0.512, 0.634, 0.01)
            for name in ("nn", "gb", "confidence", "modified_entropy", "correctness")
        }
    report.guard["label"] = PolicyFigures(
        1.0, 0.5, 0.1234, 1500, 345_678_901, 12_345, 0.05, 0.04321, 0.9994, 30, *DECLARED
    )
    del report.attacks["linesearch"]["nn"]
    console = Console(width=80, record=True, file=io.StringIO())
    for table in report.tables():
        console.print(table)
    text = console.export_text()
    for part in (
        "none",
        "linesearch",
        "345.68",
        "12345",
        "101",
        "99.5-104",
        "0.043-0.999",
        "0.123",
        "0.512/0.634",
        "hidden bit key",
        "sequential",
        "1478",
        "344.68",
        "300.68",
        "45.00",
        "1e-07",
        "5e-05",
        "correctness",
    ):
        assert part in text
    assert "…" not in text
    assert "in memory; wan: 20 + 1.5 ms, 100 Mbit/s; virtual clock (measured, 2 cores)" in " ".join(text.split())
    assert Report("s", seed=3, samples=3, batch=2).tables() == []
