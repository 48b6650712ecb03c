"""The HTML report as text: what is on it, and that nothing on it is live."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from page_samples import record_view, sample_claims, sample_controls, sample_exhibit, sample_report

from siguard.errors import InputError
from siguard.proofsim.chart import SECTION_ROWS, bars, compare_views, within
from siguard.proofsim.claims import RUNGS, ProofReport, Scope
from siguard.proofsim.page import FRAMES_DRAWN, RUNG_TEXT, Exhibit, render_page, write_page
from siguard.proofsim.view import Event, Message, View


@pytest.fixture(scope="module")
def exhibit() -> Exhibit:
    return sample_exhibit()


@pytest.fixture(scope="module")
def small() -> Exhibit:
    return sample_exhibit("label", "S1,U")


def changed(exhibit: Exhibit, index: int, message: Message | None) -> Exhibit:
    """The exhibit with one frame of the simulated view replaced or left out."""
    wanted = exhibit.simulated.messages[index]
    events: list[Event] = []
    for event in exhibit.simulated.events:
        if event is not wanted:
            events.append(event)
        elif message:
            events.append(message)
    return replace(exhibit, simulated=replace(exhibit.simulated, events=events))


def between(page: str, start: str, end: str) -> str:
    return page[page.index(start) : page.index(end)]


def test_a_full_page_holds_verdict_claims_and_controls(exhibit: Exhibit, tmp_path: Path) -> None:
    report = sample_report()
    path = tmp_path / "page.html"
    write_page(report, [exhibit], path)
    page = path.read_text(encoding="utf-8")
    assert "The claim holds" in page
    assert "<title>siguard prove: holds</title>" in page
    assert "What fails" not in page
    assert page.count('<tr class="claim') == len(report.claims) >= 140
    assert page.count('<tr class="control') == len(report.controls) == 30
    for control in report.controls:
        assert f'<th scope="row">{control.control}<span' in page
    assert "97.3 s" in page
    assert "siguard, linesearch, label, none" in page
    assert "<dd>quick</dd>" in page
    assert "Distinguisher, 95 % interval of its advantage" in page
    assert '<html lang="en">' in page


def test_failures_are_said_first_and_opened(small: Exhibit) -> None:
    report = sample_report(broken=True)
    page = render_page(report, [small])
    assert "The claim does not hold." in page
    problems = between(page, 'id="failing"', 'id="ladder"')
    assert problems.count("<li>") == 4
    assert "16384 of 65536 counts differ" in problems
    assert "expected: content; caught by: no rung" in problems
    rungs = re.findall(r'<details class="rung"( open)?>.*?</details>', page, re.S)
    assert [bool(opened) for opened in rungs] == [name in ("exact", "content") for name in RUNGS]
    for rung in re.findall(r'<details class="rung" open>.*?</details>', page, re.S):
        first = re.search(r'<tr class="claim([^"]*)"', rung)
        assert first is not None
        assert first[1] == " bad", "a failing claim stands first"


def test_the_matrix_marks_expected_and_catching_rung(small: Exhibit) -> None:
    page = between(render_page(sample_report(broken=True), [small]), 'id="controls"', 'id="exhibit-1"')
    columns = re.findall(r'<th scope="col" class="column">(\w+)</th>', page)
    assert columns == list(RUNGS)
    rows = re.findall(r'<tr class="control[^"]*"><th scope="row">(.*?)</th>(.*?)</tr>', page, re.S)
    marks = {
        name.partition("<")[0]: [
            re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", cells, re.S)
        ]
        for name, cells in rows
    }
    assert marks["constant mask, variant 1"] == ["", "caught", "", "", "", "", "", "caught"]
    assert marks["mask used in two steps, variant 1"] == ["", "", "", "expected", "", "", "", "missed"]
    assert marks["accept bit opened, variant 1"] == ["caught here", "", "expected", "", "", "", "", "missed"]


def test_everything_is_escaped(small: Exhibit) -> None:
    nasty = replace(small, title="<script>alert(1)</script>", statistics=[("<b>", "</table>")])
    page = render_page(sample_report(broken=True), [nasty])
    assert "product of &lt;secret&gt; &amp; co" in page
    assert "<script" not in page
    assert "&lt;/table&gt;" in page


def test_the_page_loads_nothing_and_is_small(exhibit: Exhibit) -> None:
    """A view of about 660 frames; the bound leaves room for four times as many."""
    page = render_page(sample_report(), [exhibit])
    assert len(exhibit.real.messages) > 600
    assert len(page.encode()) < 1_000_000
    assert not re.search(r"https?:|<script|<link|<img|<iframe|@import|url\(|\bsrc=|\bon\w+=", page)
    assert set(re.findall(r'href="(.)', page)) == {"#"}
    names = re.findall(r'\bid="([^"]+)"', page)
    assert not [name for name, count in Counter(names).items() if count > 1]
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)


def test_every_frame_is_one_row_with_both_sides(exhibit: Exhibit) -> None:
    page = render_page(sample_report(), [exhibit])
    chart = compare_views(exhibit.real, exhibit.simulated)
    twice = [m for m in exhibit.real.messages if m.received and m.sender in exhibit.real.corrupted.parties]
    assert len(chart.rows) == len(exhibit.real.messages) - len(twice)
    assert page.count("<use ") == 2 * len(chart.rows)
    assert chart.different == 0
    assert f"All {len(chart.rows):,} frames agree" in page
    assert max(len(section.rows) for section in chart.sections) <= SECTION_ROWS
    assert sum(len(section.rows) for section in chart.sections) == len(chart.rows)
    assert chart.parties == ["owner", "user", "S0", "S1", "S2"]
    real, simulated = chart.profile()
    assert real == simulated
    assert sum(real) == sum(len(m.payload) for m in exhibit.real.messages) - sum(len(m.payload) for m in twice)
    agreement = chart.agreement()
    assert agreement is not None
    assert agreement[1] < 0.02


def test_a_frame_of_another_size_is_seen(small: Exhibit) -> None:
    index = next(
        i for i, m in enumerate(small.simulated.messages) if m.step.startswith("guard/") and len(m.shape) > 1
    )
    message = small.simulated.messages[index]
    shorter = replace(message, shape=(1,), payload=message.payload[: message.itemsize])
    page = unescape(render_page(sample_report(), [changed(small, index, shorter)]))
    assert "shapes differ" in page
    assert page.count("<i>sizes differ</i>") == 1
    assert "Both sides show the same arrows" not in page


def test_a_missing_frame_is_seen(small: Exhibit) -> None:
    index = next(i for i, m in enumerate(small.simulated.messages) if m.step.startswith("guard/"))
    page = render_page(sample_report(), [changed(small, index, None)])
    assert page.count("no such frame") == 1
    assert page.count("<i>only in the real view</i>") == 1


def test_equal_bytes_are_seen(small: Exhibit) -> None:
    same = replace(small, simulated=small.real)
    chart = compare_views(same.real, same.simulated)
    assert chart.same_bytes == len(chart.rows)
    agreement = chart.agreement()
    assert agreement is not None
    assert agreement[1] == 1.0
    assert agreement[2] < 0.2


def test_long_views_are_compared_in_full_and_drawn_in_part(exhibit: Exhibit) -> None:
    chart = compare_views(exhibit.real, exhibit.simulated)
    sections = within(chart.sections, 300)
    drawn = sum(len(section.rows) for section in sections if not section.hidden)
    assert 100 < drawn <= 300
    assert [section.rows for section in sections] == [section.rows for section in chart.sections]
    many = [replace(exhibit, title=str(number)) for number in range(8)]
    page = render_page(sample_report(), many)
    assert 8 * len(chart.rows) > FRAMES_DRAWN
    assert FRAMES_DRAWN < page.count("<use ") <= 2 * FRAMES_DRAWN
    assert "not drawn" in page
    assert len(page.encode()) < 3_000_000


def test_a_section_that_differs_is_drawn_before_others(exhibit: Exhibit) -> None:
    last = max(i for i, m in enumerate(exhibit.simulated.messages) if m.step.startswith("guard/answer/choice"))
    odd = changed(exhibit, last, None)
    sections = within(compare_views(odd.real, odd.simulated).sections, 60)
    (different,) = [section for section in sections if section.different]
    assert not different.hidden


def test_a_report_without_anything_is_a_page() -> None:
    page = render_page(ProofReport(Scope(("none",))), [])
    assert "The claim does not hold." in page
    assert "Nothing was tested" in page
    assert page.count("not tested") == len(RUNGS)
    assert "No control was run." in page


def test_a_view_without_frames_is_an_exhibit(small: Exhibit) -> None:
    empty = View(small.real.corrupted)
    page = render_page(sample_report(), [replace(small, real=empty, simulated=empty)])
    assert "All 0 frames agree" in page


def test_three_hundred_claims_and_the_server_alone() -> None:
    report = ProofReport(Scope(("label",)), sample_claims(repeat=3), sample_controls())
    view = record_view(1, "label", "S2")
    page = render_page(report, [Exhibit("S2 alone", "label", view, record_view(2, "label", "S2"), [])])
    assert page.count('<tr class="claim') == len(report.claims) > 300
    assert "What {S2} sees" in page


def test_every_rung_is_described() -> None:
    assert set(RUNG_TEXT) == set(RUNGS)


def test_bars_reach_from_nothing_to_the_top() -> None:
    assert bars([0, 5, 10], 10) == "M1 0v-50h1v50zM2 0v-100h1v100z"
    assert bars([0, 0], 0) == ""
    assert bars([1, 3], 3, logarithmic=True) == "M0 0v-50h1v50zM1 0v-100h1v100z"


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_page(ProofReport(Scope(("none",))), [], tmp_path / "missing" / "page.html")
