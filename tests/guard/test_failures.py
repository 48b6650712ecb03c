"""Declared failure probabilities: what grows them, what they must stay below, and what views really open."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib import import_module
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np
import pytest
import trio
from guard_helpers import PLANS, force_plan

from siguard import Defender, GuardConfig, open_cluster
from siguard.actors.debug import DebugProbe, Internals
from siguard.guard.defender import encode_defender
from siguard.guard.failures import Failures, failure_probabilities
from siguard.guard.iteration import WIDE_INDEX_BITS
from siguard.guard.plan import Plan
from siguard.guard.shape import Shape
from siguard.guard.start import LOGIT_BITS
from siguard.mpc.arithmetic import view
from siguard.mpc.party import Party
from siguard.mpc.share import Opened, Share
from siguard.mpc.splines import ARGUMENT_BITS, CELL_BITS, EXP_BITS, HIGH_BITS
from siguard.mpc.tabled import FACTOR_BITS
from siguard.ring import Z64, Ring

#: Bounds that were published for h 10-128-64-1, trained on digits.
BOUNDS = (1, 2, 3)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "scenarios.md"


def declared(
    config: GuardConfig | None = None, batch: int = 1, classes: int = 10, plan: Plan | None = None
) -> Failures:
    shape = Shape(batch, (classes, 128, 64, 1), BOUNDS, plan or Plan())
    return failure_probabilities(shape, config or GuardConfig())


@pytest.mark.parametrize("policy", ["siguard", "decay", "linesearch", "none"])
@pytest.mark.parametrize("classes", [10, 30])
def test_a_wrong_answer_is_less_likely_than_2_to_the_minus_20(policy: str, classes: int) -> None:
    assert 0 < declared(GuardConfig(policy), classes=classes).wrong_answer < 2.0**-20


def test_probabilities_grow_with_rows_steps_runs_and_classes() -> None:
    least = declared()
    for more in (declared(batch=2), declared(classes=11)):
        assert more.wrong_answer > least.wrong_answer
        assert more.noise_lost > least.noise_lost
    assert declared(batch=100).noise_lost == pytest.approx(100 * least.noise_lost)
    for config in (GuardConfig(inner=11), GuardConfig(outer=4)):
        assert declared(config).noise_lost > least.noise_lost
        assert declared(config).wrong_answer == least.wrong_answer
    assert declared(plan=Plan(sequential=True)).noise_lost < least.noise_lost


def test_what_has_no_noise_loses_none_and_what_truncates_nothing_never_fails() -> None:
    assert declared(GuardConfig("none")).noise_lost == 0
    assert declared(GuardConfig("label")) == Failures(0, 0, {})
    for policy in ("siguard", "decay", "linesearch"):
        found = declared(GuardConfig(policy))
        assert found.wrong_answer + found.noise_lost == pytest.approx(sum(found.by_step.values()))


def test_figures_of_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| 2\^-([\d.]+) \| ([\d.e-]+) \|", text, re.MULTILINE)
    assert len(rows) == 6
    for policy, classes, exponent, noise in rows:
        found = declared(GuardConfig(policy), classes=int(classes))
        assert f"{-np.log2(found.wrong_answer):.1f}" == exponent
        assert f"{found.noise_lost:.1e}" == noise


def test_a_wrap_of_x_keeps_the_index_of_its_exponential() -> None:
    # A wrap adds 2^54; the index is made of the bits below.
    assert WIDE_INDEX_BITS + ARGUMENT_BITS - CELL_BITS <= 64 - (LOGIT_BITS - ARGUMENT_BITS)


# --- against what is opened -------------------------------------------------------------------------------


def watch(monkeypatch: pytest.MonkeyPatch) -> list[DebugProbe]:
    """From now on every view into the full ring that truncates is observed by its step; the probes of calls."""
    probes = []

    async def watched(party: Party, opened: Opened, shift: int = 0, ring: Ring | None = None) -> Share:
        if shift > 0 and ring is None:
            party.observe(f"view {party.path}", opened)
        return await view(party, opened, shift, ring)

    internals = DebugProbe.internals

    def kept(self: DebugProbe, config: GuardConfig) -> Internals:
        probes.append(self)
        return internals(self, config)

    monkeypatch.setattr(DebugProbe, "internals", kept)
    guard = Path(str(import_module("siguard.guard").__file__)).parent
    mpc = guard.parent / "mpc"
    for file in (*guard.glob("*.py"), *guard.glob("policies/*.py"), mpc / "arithmetic.py", mpc / "tabled.py"):
        name = ".".join(file.relative_to(guard.parent.parent).with_suffix("").parts)
        if getattr(import_module(name), "view", None) is view:
            monkeypatch.setattr(f"{name}.view", watched)
    return probes


def step_of(path: str) -> str:
    """The name of a step without the phase and the loop around it."""
    return re.sub(r"^((guard|first|optimise|answer|runs|(inner|run)\[\d+\])/)+", "", path)


def observed(probe: DebugProbe, classes: int) -> dict[str, float]:
    """Sum of |z| 2^-64 by step; what brings a lost label back counts where it is lost."""
    paths = [name.removeprefix("view ") for name in probe._parts if name.startswith("view ")]
    values = {path: np.abs(Z64.signed(probe.open(f"view {path}")).astype(np.float64)) for path in paths}
    totals: defaultdict[str, float] = defaultdict(float)
    for path, value in values.items():
        loop = re.match(r"(.*inner\[[^0]\d*\]/)(exp|exp/product|terms/label/.*)$", path)
        if loop is not None:
            by_key = f"{loop[1]}exp" in values
            exponentials = values[f"{loop[1]}exp" if by_key else f"{loop[1]}exp/product"]
            bits = EXP_BITS if by_key else HIGH_BITS + FACTOR_BITS
            E = exponentials[..., :classes].max(axis=-1, keepdims=True) * 2.0**-bits
            lost = E > 0.99
            if loop[2] == "terms/label/product":
                assert not value[~lost[..., 0]].any()  # whatever the other factor has become
            elif loop[2].startswith("exp"):
                value = np.concatenate([value[..., :-1], value[..., -1:] * lost], axis=-1)
            else:
                value = value * lost
        totals[step_of(path)] += float(value.sum()) * 2.0**-64
    return dict(totals)


@pytest.mark.parametrize("policy", ["siguard", "decay", "linesearch", "none"])
@pytest.mark.parametrize("name", ["keys", "adders", "in turn"])
@pytest.mark.parametrize("scale", [1, 6])
def test_every_view_is_declared_and_stays_within_its_bound(
    policy: str, name: str, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    widths = (10, 24, 12, 1)
    layers = [(rng.normal(size=(m, n)) * np.sqrt(2 / m), rng.normal(size=n) / 10) for m, n in pairwise(widths)]
    defender = Defender(layers)
    config = GuardConfig(policy)
    force_plan(monkeypatch, PLANS[name])
    if policy == "siguard":
        config = config.with_values(outer=2, inner=4)
    probes = watch(monkeypatch)

    async def main() -> None:
        async with open_cluster(seed=5, debug_open=True) as cluster:
            await cluster.guard(rng.normal(size=(6, 10)) * scale, defender, config)

    trio.run(main)
    shape = Shape(6, widths, encode_defender(defender).magnitude_bits, PLANS[name])
    bounds = failure_probabilities(shape, config).by_step
    found = observed(probes[-1], 10)
    assert set(found) == set(bounds)
    for step, value in found.items():
        assert value <= bounds[step], step
    # Where no bound of h and no logits enter, the declared figures are near what is.
    for step in {"direction", "move"} & set(found):
        assert value_is_near(found[step], bounds[step]), step


def value_is_near(value: float, bound: float) -> bool:
    return 0.1 < value / bound < inf
