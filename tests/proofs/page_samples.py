"""Reports and views for the tests of the HTML page."""

from __future__ import annotations

import numpy as np
import trio

import siguard
from siguard.proofsim.claims import ALL, CORRUPTED_SETS, RUNGS, Claim, ControlOutcome, Corrupted, ProofReport, Scope
from siguard.proofsim.page import Exhibit
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.view import View

#: (gate, statement) as the exact rung names them, and so on: plausible names of plausible lengths.
STATEMENTS = {
    "exact": ("product", "truncated product", "bit injection", "table look-up", "pair of products in sequence"),
    "simulation": ("siguard", "linesearch", "label", "none", "comparison at 64 bits"),
    "shape": ("accept patterns of siguard", "scheduler seeds of linesearch", "member and non-member of label"),
    "content": ("uniform messages", "joint bins of own share and received message", "trained distinguisher"),
    "null": ("false alarms over seeds",),
    "taint": ("no branch, index, length or print",),
    "active": ("a flipped bit is noticed", "a dropped frame is noticed"),
}
CONTROLS = (
    "product without its zero share",
    "constant mask",
    "mask with one random bit per byte",
    "mask used in two steps",
    "loop that stops when the noise is good",
    "accept bit opened",
    "weight updated in the clear",
    "noise revealed to the servers",
    "message whose length depends on the value",
    "secret in a log line",
)


def sample_claims(repeat: int = 1) -> list[Claim]:
    """Claims on every rung, all of which hold: seven corrupted sets each, ``repeat`` times."""
    return [
        Claim(
            f"{name}, case {number}" if repeat > 1 else name,
            rung,
            ALL if rung == "taint" else str(corrupted),
            4096 * 7**number,
            True,
            0.0 if rung in ("exact", "shape", "taint") else 0.0123,
        )
        for rung, names in STATEMENTS.items()
        for name in names
        for corrupted in CORRUPTED_SETS
        for number in range(1, repeat + 1)
    ]


def sample_controls(count: int = 30) -> list[ControlOutcome]:
    """Controls that were all caught where expected."""
    return [
        ControlOutcome(
            f"{CONTROLS[k % len(CONTROLS)]}, variant {k // len(CONTROLS) + 1}",
            RUNGS[k % len(RUNGS)],
            RUNGS[k % len(RUNGS)],
            f"{STATEMENTS[RUNGS[k % len(RUNGS)]][0]}: 512 of 4096 counts differ",
        )
        for k in range(count)
    ]


def sample_report(*, broken: bool = False) -> ProofReport:
    """A report of about 150 claims and 30 controls; broken: some of each kind fail."""
    report = ProofReport(Scope(("siguard", "linesearch", "label", "none")), sample_claims(), sample_controls())
    report.seconds = 97.3
    if broken:
        report.claims[40:40] = [
            Claim("product of <secret> & co", "exact", "S1,U", 262_144, False, 0.0, "16384 of 65536 counts differ"),
            Claim(
                "trained distinguisher",
                "content",
                "S0,U",
                4_000,
                False,
                0.02,
                "accuracy 0.93, at most 0.52 allowed",
            ),
        ]
        report.controls[3] = ControlOutcome("mask used in two steps, variant 1", "content", None)
        report.controls[5] = ControlOutcome("accept bit opened, variant 1", "shape", "exact", "sizes of 4 frames")
    return report


def record_view(seed: int, policy: str = "siguard", corrupted: str = "S0,U") -> View:
    """The view of one query of two rows with ten classes; the inputs are always the same."""
    rng = np.random.default_rng(1)
    model = siguard.Model([(rng.normal(size=(5, 10)), np.zeros(10))])
    defender = siguard.Defender([(rng.normal(size=(10, 8)), np.zeros(8)), (rng.normal(size=(8, 1)), np.zeros(1))])
    features = rng.normal(size=(2, 5))

    async def run() -> View:
        recorder = Recorder()
        async with siguard.open_cluster(
            seed=seed, wrap_link=recorder.wrap_link, randomness=recorder.randomness
        ) as cluster:
            result = await cluster.query(features, model, defender, siguard.GuardConfig(policy))
            recorder.learn_steps(result.traffic.by_step())
        return recorder.view(Corrupted.parse(corrupted))

    return trio.run(run)


def sample_exhibit(policy: str = "siguard", corrupted: str = "S0,U") -> Exhibit:
    """Two runs with different seeds: the second one stands for the simulated view, with the same shape."""
    return Exhibit(
        f"One query with policy {policy}",
        policy,
        record_view(1, policy, corrupted),
        record_view(2, policy, corrupted),
        [
            ("Uniformity of bytes, G-test", "p = 0.41"),
            ("Distinguisher, 95 % interval of its advantage", "-0.011 to 0.014"),
        ],
    )
