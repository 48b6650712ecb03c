"""`siguard prove` and scenarios with ``[prove]`` as a user meets them, with made-up reports in place of a proof."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from typer.testing import CliRunner, Result

from siguard.cli import app
from siguard.errors import InputError
from siguard.guard.config import POLICIES
from siguard.proofsim.claims import CORRUPTED_SETS, Claim, ControlOutcome, Corrupted, ProofReport, Scope
from siguard.proofsim.prove import Progress

HOLDS = Claim("views of multiply equal: Z_4", "exact", "S0,U", 4096, True)
FAILS = Claim("frames are equal: siguard", "shape", "all", 8, False, 0.0, "round 4 is longer")
CAUGHT = ControlOutcome("product without its zero share", "exact", "exact")
MISSED = ControlOutcome("constant mask", "exact", "content")


@dataclass
class Stub:
    """In place of `prove`: what it was asked, and what it reports."""

    claims: list[Claim] = field(default_factory=lambda: [HOLDS])
    controls: list[ControlOutcome] = field(default_factory=lambda: [CAUGHT])
    error: BaseException | None = None
    asked: list[Scope] = field(default_factory=list)

    def __call__(self, scope: Scope, progress: Progress) -> ProofReport:
        self.asked.append(scope)
        progress("rung: exact", 0, 2)
        progress("rung: shape", 1, 2)
        progress("control: constant mask", 0, 1)
        if self.error is not None:
            raise self.error
        return ProofReport(scope, self.claims, self.controls, seconds=3.0)


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command configures structlog for its process; here that is the tests' process."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr("siguard.proofsim.prove.prove", made)
    return made


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ProofReport, object]]:
    """In place of the page's writer: what it was given; the page is the text ``page``."""
    given: list[tuple[ProofReport, object]] = []

    def write_page(report: ProofReport, exhibits: object, path: Path) -> None:
        given.append((report, exhibits))
        path.write_text("page", encoding="utf-8")

    def exhibits(scope: Scope) -> list[object]:
        return [scope]

    for name, function in (("page", write_page), ("exhibits", exhibits)):
        module = ModuleType(f"siguard.proofsim.{name}")
        setattr(module, function.__name__, function)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return given


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "view.toml"
    file.write_text('seed = 4\n[prove]\npolicies = ["label"]\ncorrupt = ["S1,U"]\n', encoding="utf-8")
    return file


def siguard(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_names_the_options() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", siguard("prove", "--help").stdout)
    for option in ("--policy", "--corrupt", "--quick", "--full", "--seed", "--json", "--html", "--all"):
        assert option in plain
    assert "prove" in siguard("--help").stdout


def test_by_default_everything_is_proved_quickly(stub: Stub) -> None:
    ran = siguard("prove")
    assert ran.exit_code == 0, ran.output
    assert stub.asked == [Scope(tuple(POLICIES), CORRUPTED_SETS, full=False, seed=1)]
    assert "views of multiply equal: Z_4" in ran.stdout
    assert "product without its zero share" in ran.stdout
    assert "All 1 claims hold and all 1 controls are caught (3 s)." in ran.stdout
    assert ran.stderr.splitlines() == ["rung: exact ...", "rung: shape ...", "control: constant mask ..."]


def test_options_make_the_scope_and_a_repeated_one_counts_once(stub: Stub) -> None:
    ran = siguard(
        *("prove", "--policy", "label", "--policy", "none", "--policy", "label"),
        *("--corrupt", "U,S0", "--corrupt", "U", "--corrupt", "S0,U", "--full", "--seed", "7"),
    )
    assert ran.exit_code == 0, ran.output
    sets = (Corrupted("S0", True), Corrupted(None, True))
    assert stub.asked == [Scope(("label", "none"), sets, full=True, seed=7)]


def test_json_is_all_there_is_on_stdout(stub: Stub) -> None:
    ran = siguard("prove", "--json")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == ProofReport(stub.asked[0], [HOLDS], [CAUGHT]).to_json()
    assert json.loads(ran.stdout)["holds"] is True
    assert "rung: exact ..." in ran.stderr


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["tables", "json"])
@pytest.mark.parametrize(
    ("claims", "controls", "named"),
    [
        ([HOLDS, FAILS], [CAUGHT], ["does not hold (shape, all): frames are equal: siguard: round 4 is longer"]),
        ([HOLDS], [MISSED], ["control missed: constant mask: expected to be caught by exact, caught by content"]),
        ([HOLDS], [replace(CAUGHT, caught_by=None)], ["control missed: product without", "caught by no rung"]),
        ([], [CAUGHT], ["no claim was tested"]),
    ],
    ids=["claim", "wrong rung", "no rung", "nothing"],
)
def test_what_does_not_hold_is_named_and_status_1(
    stub: Stub, claims: list[Claim], controls: list[ControlOutcome], named: list[str], options: list[str]
) -> None:
    stub.claims, stub.controls = claims, controls
    ran = siguard("prove", *options)
    assert ran.exit_code == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("siguard: ")]
    for part in named:
        assert part in line
    if options:
        assert json.loads(ran.stdout)["holds"] is False
    else:
        assert "Not proved" in ran.stdout


def test_all_lists_every_claim(stub: Stub) -> None:
    stub.claims = [replace(HOLDS, claim=f"multiply: Z_{2**k}") for k in (1, 2, 3)]
    assert "multiply (3 instances)" in siguard("prove").stdout
    listed = siguard("prove", "--all").stdout
    for k in (1, 2, 3):
        assert f"multiply: Z_{2**k}" in listed


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--policy", "labl"], ["--policy: found 'labl'", "did you mean 'label'?", "linesearch"]),
        (["--corrupt", "S0,S1"], ["--corrupt: found 'S0,S1'", "one server"]),
        (["--corrupt", ""], ["--corrupt: found ''"]),
        (["--corrupt", "S3"], ["--corrupt: found 'S3'"]),
        (["--html", "{folder}"], ["--html", "cannot be written (it is a folder)"]),
        (["--html", "{folder}/file/page.html"], ["--html", "cannot be written"]),
    ],
)
def test_bad_input_is_one_message_before_any_work(
    stub: Stub, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    ran = siguard("prove", *(argument.format(folder=tmp_path) for argument in arguments))
    assert ran.exit_code == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("siguard: ")
    for part in parts:
        assert part in line
    assert stub.asked == []


@pytest.mark.parametrize("package", ["scipy", "statsmodels", "sklearn", "jinja2"])
def test_a_missing_extra_says_how_to_install_it(
    stub: Stub, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what makes an import of it fail
    for ran in (siguard("prove"), siguard("run", scenario, "--out", tmp_path / "out")):
        assert ran.exit_code == 2
        (line,) = ran.stderr.splitlines()
        assert f"({package}): pip install 'siguard[proofs]'" in line
    assert stub.asked == []


@pytest.mark.parametrize(
    ("wrap", "error", "status", "told"),
    [
        (False, KeyboardInterrupt(), 130, "stopped before every claim was tested; no report was written"),
        (True, KeyboardInterrupt(), 130, "stopped before every claim was tested; no report was written"),
        (True, InputError("rows: too few"), 2, "rows: too few"),
    ],
)
def test_a_proof_that_cannot_go_on_is_one_message(
    stub: Stub, scenario: Path, tmp_path: Path, wrap: bool, error: BaseException, status: int, told: str
) -> None:
    stub.error = BaseExceptionGroup("from a nursery", [error]) if wrap else error
    out = tmp_path / "out"
    for ran in (siguard("prove"), siguard("run", scenario, "--out", out)):
        assert ran.exit_code == status
        assert ran.stdout == ""
        assert ran.stderr.splitlines()[-1] == f"siguard: {told}"
    assert list(out.iterdir()) == []


def test_the_page_gets_the_report_and_the_exhibits_of_its_scope(
    stub: Stub, pages: list[tuple[ProofReport, object]], tmp_path: Path
) -> None:
    page = tmp_path / "new" / "page.html"
    stub.claims = [FAILS]  # a page is wanted most of all where something fails
    ran = siguard("prove", "--json", "--html", page)
    assert ran.exit_code == 1
    ((report, exhibits),) = pages
    assert report.claims == [FAILS]
    assert exhibits == stub.asked
    assert page.read_text(encoding="utf-8") == "page"
    assert [file.name for file in page.parent.iterdir()] == ["page.html"]
    assert json.loads(ran.stdout)["holds"] is False
    assert f"wrote {page}" in ran.stderr


def test_a_page_that_fails_leaves_no_half_page_and_the_report_is_out(
    stub: Stub, pages: list[tuple[ProofReport, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(report: ProofReport, exhibits: object, path: Path) -> None:
        path.write_text("ha", encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["siguard.proofsim.page"], "write_page", stopped)
    ran = siguard("prove", "--json", "--html", tmp_path / "page.html")
    assert ran.exit_code == 130
    assert json.loads(ran.stdout)["holds"] is True
    assert list(tmp_path.iterdir()) == []
    assert len(stub.asked) == 1


def test_a_scenario_proves_the_same_and_writes_the_report(
    stub: Stub, scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = siguard("run", scenario, "--json", "--set", "prove.mode=full")
    assert ran.exit_code == 0, ran.output
    assert stub.asked == [Scope(("label",), (Corrupted("S1", True),), full=True, seed=4)]
    folder = tmp_path / "runs" / "view"
    assert (folder / "report.json").read_text(encoding="utf-8") == ran.stdout
    assert [file.name for file in folder.iterdir()] == ["report.json"]


def test_a_scenario_that_asks_for_a_page_gets_one(
    stub: Stub, pages: list[tuple[ProofReport, object]], scenario: Path, tmp_path: Path
) -> None:
    stub.controls = [MISSED]
    out = tmp_path / "out"
    ran = siguard("run", scenario, "--out", out, "--set", "prove.html=true")
    assert ran.exit_code == 1
    assert "control missed: constant mask" in ran.stderr
    assert "constant mask" in ran.stdout
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "report.json"]
    assert len(pages) == 1


def test_a_scenario_checks_its_folder_and_keys_before_any_work(stub: Stub, scenario: Path) -> None:
    for arguments, part in (
        (["--out", scenario], "cannot be written"),
        (["--set", "samples=10"], "samples (set by an override)"),
    ):
        ran = siguard("run", scenario, *arguments)
        assert ran.exit_code == 2
        (line,) = ran.stderr.splitlines()
        assert part in line
    assert stub.asked == []
