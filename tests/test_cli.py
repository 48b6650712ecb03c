"""The command as a user meets it: output, exit status, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from siguard.cli import app

ROOT = Path(__file__).resolve().parents[1]
SMALL = """
samples = 20
batch = 10
[data]
rows = 20
[target]
hidden = [8]
[guard]
policies = ["linesearch"]
[attacks]
shadows = 1
"""


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command configures structlog for its process; here that is the tests' process."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    return file


def siguard(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_and_version() -> None:
    told = siguard("--help")
    assert told.exit_code == 0
    assert "run" in told.stdout
    told = siguard("run", "--help")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", told.stdout)  # some environments force colours
    for option in ("--out", "--set", "--json"):
        assert option in plain
    assert siguard("--version").stdout.startswith("siguard 0.")


def test_a_run_prints_tables_and_writes_the_report(scenario: Path, tmp_path: Path) -> None:
    ran = siguard("run", scenario, "--out", tmp_path / "out")
    assert ran.exit_code == 0, ran.output
    assert "linesearch" in ran.stdout
    assert "correctness" in ran.stdout
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["partial"] is False
    assert set(report["guard"]) == {"none", "linesearch"}
    for stage in ("training the target ...", "guarding under MPC: linesearch ...", "wrote "):
        assert stage in ran.stderr


def test_json_is_all_there_is_on_stdout_and_the_folder_has_a_default(
    scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = siguard("run", scenario, "--json", "--set", 'guard.policies=["none"]', "--set", "samples=10")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout) == json.loads((tmp_path / "runs" / "small" / "report.json").read_bytes())
    assert json.loads(ran.stdout)["samples"] == 10


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["absent.toml"], ["absent.toml: no such file"]),
        (["{scenario}", "--set", "guard.inner=5"], ["guard.inner (set by an override)", "linesearch"]),
        (["{scenario}", "--set", "guard"], ["--set", "allowed: key=value"]),
        (["{scenario}", "--set", "sampels=4"], ["sampels", "did you mean 'samples'?"]),
        (["{scenario}", "--set", "data.kind=npz", "--set", "data.path=x.npz"], ["data.rows", "leave it out"]),
        (["{scenario}", "--out", "{scenario}"], ["--out", "cannot be written"]),
    ],
)
def test_bad_input_is_one_message_and_status_2(scenario: Path, arguments: list[str], parts: list[str]) -> None:
    ran = siguard("run", *(part.format(scenario=scenario) for part in arguments))
    assert ran.exit_code == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("siguard: ")
    for part in parts:
        assert part in line


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", "from siguard.cli import main; main()", *map(str, arguments)]
    # Its own process group: the signal must reach the command alone.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        with process:
            yield process
    finally:
        if process.poll() is None:
            process.kill()


#: A long call of little memory: one that does not fit is refused before it can be stopped.
LONG = ["--set", 'guard.policies=["siguard"]', "--set", "guard.inner=1000", "--set", 'guard.rounds="bytes"']


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        ("training the target", ["--set", "target.hidden=[1024, 1024]", "--set", "data.rows=300"]),
        (
            "guarding under MPC: siguard",
            LONG,
        ),
    ],
)
def test_ctrl_c_leaves_a_partial_report(scenario: Path, tmp_path: Path, stage: str, options: list[str]) -> None:
    out = tmp_path / "out"
    with started("run", scenario, "--out", out, *options) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(stage):
                break
        os.kill(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "partial report: stopped during" in stderr
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["partial"] is True
    assert stage in report["reason"]
    assert list(report["guard"]) == (["none"] if "MPC" in stage else [])
    assert report["attacks"] == {}
    assert ("none" in stdout) == ("MPC" in stage)


def test_a_terminal_gets_a_bar(scenario: Path, tmp_path: Path) -> None:
    """On a terminal the stages are drawn by rich, and the tables still come out on stdout."""
    pty = pytest.importorskip("pty")
    main_end, terminal = pty.openpty()
    command = [
        sys.executable,
        "-c",
        "from siguard.cli import main; main()",
        "run",
        str(scenario),
        "--set",
        'guard.policies=["none"]',
    ]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(main_end, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not part:
                break
            shown += part
        assert process.stdout is not None
        assert "correctness" in process.stdout.read()
    os.close(main_end)
    assert process.returncode == 0
    assert b"training the target" in shown
    assert b"training the target ..." not in shown
