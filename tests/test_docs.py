"""The documents do what they say: their code runs, their commands work, their links lead somewhere.

Convention: the ``python`` blocks of a page continue one another, in order, in one program.  In a ``console``
block each line that begins with ``$ `` is a command; one that ends with ``&`` runs until the page has ended.  Both
run beside a copy of scenarios/.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import BaseModel

from siguard.deploy.schema import (
    ExperimentSection,
    LimitsSection,
    NetworkSection,
    OwnerSection,
    ServerSection,
    UserSection,
)
from siguard.proofsim.claims import Claim, ControlOutcome, ProofReport, Scope
from siguard.scenario.overrides import parse_overrides
from siguard.scenario.proof import ProofScenario, load_any
from siguard.scenario.report import AttackFigures, PolicyFigures, Report
from siguard.scenario.schema import ProofSections, Sections

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "NOTES.md"]
#: Put after the options of each ``siguard run`` of a document: the command is tested, at a size for tests.
SMALL = ["samples=20", "batch=10", "data.rows=20", "target.hidden=[8]", "attacks.shadows=1"]
#: The same where the scenario is a proof.
SMALL_PROOF = ["prove.mode=quick", 'prove.policies=["label"]', 'prove.corrupt=["S0,U"]']


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "scenarios", tmp_path / "scenarios")
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python"), ids=named)
def test_python_blocks_run(page: Path, folder: Path) -> None:
    program = folder / "page.py"
    program.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    command = [sys.executable, "-W", "error", str(program)]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def small(command: str) -> list[str]:
    """Options that make a command of a document fit for a test."""
    program, *arguments = shlex.split(command)
    if program != "siguard" or arguments[0] != "run":
        return []
    sizes = SMALL_PROOF if isinstance(load_any(ROOT / arguments[1]), ProofScenario) else SMALL
    return [option for item in sizes for option in ("--set", item)]


@pytest.mark.parametrize("page", pages_with("console"), ids=named)
def test_commands_work(page: Path, folder: Path) -> None:
    here = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    commands = [line[2:] for text in blocks(page, "console") for line in text.splitlines() if line.startswith("$ ")]
    assert commands
    with ExitStack() as background:
        _run_all(commands, folder, here, background)


def _run_all(commands: list[str], folder: Path, here: dict[str, str], background: ExitStack) -> None:
    for command in commands:
        if command.endswith("&"):
            arguments = shlex.split(command.removesuffix("&"))
            process = subprocess.Popen(arguments, cwd=folder, env=here, stdout=subprocess.DEVNULL)
            background.callback(process.wait, 20)
            background.callback(process.terminate)
            continue
        ran = subprocess.run(  # noqa: S602 - commands of this repository's documents, as a user types them
            f"{command} {shlex.join(small(command))}",
            shell=True,
            cwd=folder,
            env=here,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), f"{named(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{named(page)} links to {target}"


def test_the_readme_is_short_and_names_the_adversary_first() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    first = text.split("\n\n")[1].lower()
    for part in ("semi-honest", "one of the three servers together with the user"):
        assert part in first.replace("\n", " ")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_named_in_documents_exist(page: Path) -> None:
    """In code style, a path that begins with a folder of this repository."""
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:siguard|scenarios|tests|bench|docs)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{named(page)} names {path}"


def test_every_make_target_in_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE):
            assert target in targets, f"{named(page)} names make {target}"


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, str]:
    """Each scenario key with what its row in the table must hold."""
    rows = {}
    for name, field in model.model_fields.items():
        kind, extra = field.annotation, field.json_schema_extra
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows.update(keys_of(kind, f"{prefix}{name}."))
        else:
            assert isinstance(extra, dict)
            rows[f"{prefix}{name}"] = f"| {extra['allowed']} | {field.description} |"
    return rows


def test_every_scenario_key_and_report_figure_is_documented() -> None:
    text = (ROOT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    for key, row in {**keys_of(Sections), **keys_of(ProofSections)}.items():
        (line,) = [line for line in lines if line.startswith(f"| `{key}` |")]
        assert line.endswith(row)
    for kind in (Report, PolicyFigures, AttackFigures):
        for name in kind.__dataclass_fields__:
            assert re.search(rf"`[\w.<>]*\b{name}\b[\w.<>]*`", text), f"{name} is not in docs/scenarios.md"
    report = ProofReport(
        Scope(("none",)), [Claim("c", "exact", "U", 1, True)], [ControlOutcome("c", "exact", None)]
    )
    content = json.loads(report.to_json())
    for name in (*content, *content["claims"][0], *content["controls"][0]):
        assert re.search(rf"`[\w.\[\]]*\b{name}\b[\w.\[\]]*`", text), f"{name} is not in docs/scenarios.md"


def test_every_key_of_a_deployment_is_documented() -> None:
    lines = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").splitlines()
    sections: dict[str, type[BaseModel]] = {
        "servers.S0.": ServerSection,
        "owner.": OwnerSection,
        "users.NAME.": UserSection,
        "limits.": LimitsSection,
        "network.": NetworkSection,
        "experiment.": ExperimentSection,
    }
    for prefix, model in sections.items():
        for key, row in keys_of(model, prefix).items():
            (line,) = [line for line in lines if line.startswith(f"| `{key}` |")]
            assert line.endswith(row)


def test_a_proof_in_a_document_is_run_at_the_size_of_a_proof() -> None:
    assert "samples=20" in small("siguard run scenarios/quickstart.toml --json")
    assert small("siguard run scenarios/security_view_all.toml --json")[1] == "prove.mode=quick"
    assert small("siguard prove --policy label") == small("ls") == []
    file = ROOT / "scenarios" / "security_view_all.toml"
    loaded = load_any(file, parse_overrides(SMALL_PROOF))
    assert isinstance(loaded, ProofScenario)
    assert loaded.scope.policies == ("label",)
    assert [str(one) for one in loaded.scope.corrupted] == ["S0,U"]
