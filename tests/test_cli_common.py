"""What the commands share: how one is stopped, what a terminal shows, and that no half file is left."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from siguard.cli_common import replacing, shown_progress

SLEEPY = """
import sys, trio
import siguard.proofsim.prove as module

def prove(scope, progress):
    async def sleep():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            progress("rung: exact", 0, 1)
    trio.run(sleep, strict_exception_groups=True)

module.prove = prove
from siguard.cli import main
main()
"""


def test_ctrl_c_ends_a_running_proof_with_status_130() -> None:
    # Its own process group: the signal must reach the command alone.
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPY, "prove", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "rung: exact ...\n"
            os.kill(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert stderr == "siguard: stopped before every claim was tested; no report was written\n"


class Terminal(io.StringIO):
    """In place of stderr: it says that it is a terminal, and keeps what rich draws."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_bar_for_rungs_and_one_for_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Terminal()
    monkeypatch.setattr(sys, "stderr", drawn)
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress(lambda stage: stage.partition(": ")[0]) as progress:
        for number in range(3):
            progress(f"rung: [r{number}]", number, 3)
        progress("control: c0", 0, 5)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.getvalue())
    assert re.search(r"rung: \[r2\] .*2/3.*\n.*control: c0 .*0/5", plain), plain
    assert "rung: [r2] ..." not in plain


def test_a_log_gets_one_line_for_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_progress() as progress:
        for stage, done in (("a", 0), ("a", 1), ("b", 1), ("a", 2)):
            progress(stage, done, 2)
    assert capsys.readouterr() == ("", "a ...\nb ...\n")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(UnicodeEncodeError), replacing(file) as draft:
        draft.write_text("half\ud800", encoding="utf-8")  # no such character in UTF-8
    assert file.read_text(encoding="utf-8") == "old"
    with replacing(file) as draft:
        draft.write_text("new", encoding="utf-8")
        assert file.read_text(encoding="utf-8") == "old"
    assert file.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [file]
