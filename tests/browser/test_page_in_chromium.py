"""The HTML report in headless Chromium: it renders, complains about nothing, and fits a narrow screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pytest
from page_samples import sample_exhibit, sample_report

from siguard.proofsim.chart import compare_views
from siguard.proofsim.page import Exhibit, render_page

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)
DARK = "--blink-settings=preferredColorScheme=0"
SCRIPT = "<script>console.error('never')</script>"

#: Loads a page into a frame of a given width (a window has a least width) and writes what it measured there.
MEASURE = """<!doctype html><title>measure</title>
<iframe width="{width}" height="800" srcdoc="{page}"></iframe><pre></pre>
<script>
onload = () => {{
  const page = document.querySelector('iframe').contentDocument, root = page.documentElement;
  const boxes = [...page.querySelectorAll('.chart td svg use')].map(arrow => arrow.getBoundingClientRect());
  document.querySelector('pre').textContent = JSON.stringify({{
    inner: root.clientWidth, scroll: root.scrollWidth,
    paper: getComputedStyle(page.body).backgroundColor, ink: getComputedStyle(page.body).color,
    drawn: boxes.filter(box => box.width > 10 && box.height > 1).length,
    name: Math.min(...[...page.querySelectorAll('.matrix tbody th')].map(cell => cell.clientWidth)),
    outside: boxes.filter(box => box.right > root.clientWidth).length,
  }});
}};
</script>"""


@dataclass(frozen=True)
class Browser:
    """Headless Chromium with an empty profile for each page."""

    program: str
    folder: Path

    def open(self, page: str, *options: str) -> tuple[str, list[str]]:
        """The DOM after loading, and what was written to the console."""
        path = self.folder / "page.html"
        path.write_text(page, encoding="utf-8")
        profile = self.folder / "profile"
        shutil.rmtree(profile, ignore_errors=True)
        command = [self.program, *OPTIONS, *options, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def measure(self, page: str, width: int, *options: str) -> dict[str, Any]:
        """Widths, colours and arrows with every fold open."""
        opened = re.sub(r"<details class=\"(\w+)\"(?: open)?>", r'<details class="\1" open>', page)
        dom, _ = self.open(MEASURE.format(width=width, page=escape(opened)), *options)
        found = re.search(r"<pre>(.+?)</pre>", dom, re.S)
        assert found, "the page was not measured"
        measured: dict[str, Any] = json.loads(found[1])
        return measured


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("no chromium on the path; cure: make browser-test as root, or apt install chromium")
    return Browser(program, tmp_path)


@pytest.fixture(scope="module")
def exhibit() -> Exhibit:
    return sample_exhibit()


@pytest.fixture(scope="module", params=[False, True], ids=["holds", "fails"])
def page(request: pytest.FixtureRequest, exhibit: Exhibit) -> str:
    return render_page(sample_report(broken=request.param), [exhibit])


def test_it_renders_without_complaint(browser: Browser, page: str, exhibit: Exhibit) -> None:
    report = sample_report(broken="does not hold" in page)
    dom, console = browser.open(page)
    assert console == []
    verdict = re.search(r'<h1 id="verdict">(.*?)</h1>', dom)
    assert verdict is not None
    assert verdict[1] == (
        "The claim holds, as far as it was tested." if report.holds else "The claim does not hold."
    )
    assert dom.count('<tr class="claim') == len(report.claims)
    for control in report.controls:
        assert f'<th scope="row">{control.control}' in dom
    rows = len(compare_views(exhibit.real, exhibit.simulated).rows)
    assert dom.count("<use ") == 2 * rows
    assert dom.count('class="mirror"') == 2


def test_a_script_in_the_page_would_be_refused_and_seen(browser: Browser, page: str) -> None:
    _, console = browser.open(page.replace("</body>", f"{SCRIPT}</body>"))
    assert len(console) == 1, console
    assert "Content Security Policy" in console[0]


@pytest.mark.parametrize("width", [400, 720, 1000, 1300])
def test_nothing_sticks_out(browser: Browser, page: str, exhibit: Exhibit, width: int) -> None:
    measured = browser.measure(page, width)
    assert 0 < measured["scroll"] <= measured["inner"] <= width
    assert measured["outside"] == 0
    assert measured["name"] >= 200, "names of controls are squeezed"
    assert measured["drawn"] == 2 * len(compare_views(exhibit.real, exhibit.simulated).rows)


def test_what_sticks_out_is_noticed(browser: Browser, page: str) -> None:
    wide = page.replace("</main>", '<div style="width: 900px">wide</div></main>')
    measured = browser.measure(wide, 400)
    assert measured["scroll"] > measured["inner"]


def test_it_follows_the_colour_scheme(browser: Browser, page: str) -> None:
    light, dark = browser.measure(page, 800), browser.measure(page, 800, DARK)
    assert brightness(light["paper"]) > 200 > 100 > brightness(light["ink"])
    assert brightness(dark["paper"]) < 100 < 200 < brightness(dark["ink"])


def test_it_prints(browser: Browser, page: str, tmp_path: Path) -> None:
    """Folded: the ladder, the controls and one section on a few pages."""
    paper = tmp_path / "page.pdf"
    browser.open(page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    pages = len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes()))
    assert 2 <= pages <= 10


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue
