"""The report of `siguard prove` as one HTML page: no script, no request, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from siguard.errors import InputError
from siguard.proofsim.chart import Chart, bars, compare_views, first_bytes, within
from siguard.proofsim.claims import ALL, RUNGS, Claim, ProofReport, failures
from siguard.proofsim.view import View

#: Frames drawn in all exhibits of a page together: about 0.5 kB each.
FRAMES_DRAWN = 4_000

#: A section that is opened to show what a section is has more rows.
_FEW = 12

#: What each rung does, in a sentence.
RUNG_TEXT = {
    "exact": "Gates on tiny rings, with every input, every sharing and every coin: views are counted and the "
    "counts compared. No statistics, no tolerance.",
    "simulation": "A simulator makes the view from inputs and outputs of the corrupted set alone; it is compared "
    "with the real view.",
    "shape": "Steps, rounds and lengths of all frames of a whole guard are the same for every input, label, "
    "accept pattern and schedule.",
    "content": "Whole guard: the recorded view is replayed, simulated messages are put in place of honest ones, "
    "and statistical tests and a trained distinguisher look for a difference.",
    "null": "The same class against itself: false alarms must be as rare as the tests promise.",
    "taint": "Every protocol runs on shares that raise when they are looked at.",
    "active": "Frames are dropped, delayed, repeated, reordered, cut or changed: that is noticed, and no answer "
    "is released.",
}

NOT_PROMISED = (
    "security against servers that deviate from the protocol, or two that collude",
    "security against a model owner who colludes with the corrupted server",
    "differential privacy: the guard lowers what known attacks gain, and bounds nothing",
    "strength of the pseudorandom function and of encryption, which are assumed",
    "that the time of the arithmetic tells nothing, or traffic beyond number, order and size of messages",
)


@dataclass(frozen=True)
class Exhibit:
    """A real view beside a simulated one.  statistics: what was measured on them, as (name, value)."""

    title: str
    policy: str
    real: View
    simulated: View
    statistics: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _Rung:
    number: int
    name: str
    text: str
    claims: Sequence[Claim]

    @property
    def failing(self) -> int:
        return len(failures(self.claims))

    @property
    def cases(self) -> int:
        return sum(claim.cases for claim in self.claims)


def write_page(report: ProofReport, exhibits: Sequence[Exhibit], path: Path) -> None:
    """Write the page to ``path``; raises `InputError` if that cannot be written."""
    try:
        path.write_text(render_page(report, exhibits), encoding="utf-8")
    except OSError as error:
        raise InputError(f"page {path}: cannot be written ({error.strerror})") from None


def render_page(report: ProofReport, exhibits: Sequence[Exhibit]) -> str:
    """The page as text."""
    charts = [compare_views(exhibit.real, exhibit.simulated) for exhibit in exhibits]
    budgets = _budgets([len(chart.rows) for chart in charts])
    return _template().render(
        report=report,
        rungs=_ladder(report.claims),
        columns=list(dict.fromkeys([*RUNGS, *(c.expected_rung for c in report.controls)])),
        failing=failures(report.claims),
        missed=[control for control in report.controls if not control.caught],
        not_promised=NOT_PROMISED,
        exhibits=[
            _drawn(exhibit, chart, budget) for exhibit, chart, budget in zip(exhibits, charts, budgets, strict=True)
        ],
    )


def _ladder(claims: Sequence[Claim]) -> list[_Rung]:
    names = list(dict.fromkeys([*RUNGS, *(claim.rung for claim in claims)]))
    return [
        _Rung(
            number,
            name,
            RUNG_TEXT.get(name, ""),
            sorted((claim for claim in claims if claim.rung == name), key=lambda claim: claim.holds),
        )
        for number, name in enumerate(names, 1)
    ]


def _drawn(exhibit: Exhibit, chart: Chart, budget: int) -> dict[str, Any]:
    real, simulated = chart.profile()
    counts = chart.byte_values()
    highest = max([*real, *simulated], default=0)
    most = max(max(side, default=0) for side in counts)
    sections = within(chart.sections, budget)
    drawn = [section for section in sections if not section.hidden]
    return {
        "about": exhibit,
        "chart": chart,
        "sections": sections,
        # One is open from the start, so that it is seen what the others hold.
        "opened": next((section for section in drawn if len(section.rows) > _FEW), drawn[0] if drawn else None),
        "rounds": len(real),
        "highest": highest,
        "profile": [bars(side, highest, logarithmic=True) for side in (real, simulated)],
        "lengths": (sum(real), sum(simulated)),
        "most": most,
        "values": [bars(side, most) for side in counts],
        "learned": [sum(side) for side in counts],
    }


def _budgets(rows: Sequence[int]) -> list[int]:
    """How many frames of each exhibit are drawn: an even share, and what shorter ones leave over."""
    left, budgets = FRAMES_DRAWN, [0] * len(rows)
    for done, index in enumerate(sorted(range(len(rows)), key=rows.__getitem__)):
        budgets[index] = min(rows[index], left // (len(rows) - done))
        left -= budgets[index]
    return budgets


def _detectable(claim: Claim) -> str:
    return f"{claim.detectable:.3g}" if claim.detectable else "exact"


def _parties(corrupted: str) -> str:
    return "any observer" if corrupted == ALL else "{" + corrupted.replace(",", ", ") + "}"


def _share(value: float) -> str:
    return f"{value:.2%}"


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("siguard.proofsim", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "detectable": _detectable,
        "parties": _parties,
        "share": _share,
        "first_bytes": first_bytes,
    }
    return environment.get_template("page.html.j2")
