"""The Makefile's answers to a machine that lacks something: each says the cure."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make_environment(folder: Path, python: str | Path) -> subprocess.CompletedProcess[str]:
    target = folder / "env" / "bin" / "pip"
    command = ["make", "-C", str(ROOT), f"VENV={folder / 'env'}", f"PYTHON={python}", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def python_that(folder: Path, does_first: str) -> Path:
    """A Python that runs a line of its own before every ``-c``."""
    wrapper = folder / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{does_first}; exec(\'$2\')"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    return wrapper


def test_a_missing_venv_module_gets_the_cure(tmp_path: Path) -> None:
    made = make_environment(tmp_path, python_that(tmp_path, "import sys; sys.modules['ensurepip'] = None"))
    assert made.returncode != 0
    assert "has no venv module" in made.stderr
    assert "apt install python3-venv" in made.stderr
    assert not (tmp_path / "env").exists()


def test_an_old_python_gets_the_cure(tmp_path: Path) -> None:
    made = make_environment(tmp_path, python_that(tmp_path, "import sys; sys.version_info = (3, 10, 9)"))
    assert made.returncode != 0
    assert "older than Python 3.11" in made.stderr
    assert "make PYTHON=" in made.stderr


@pytest.mark.parametrize("python", ["", "no-such-python"])
def test_no_python_gets_the_cure(tmp_path: Path, python: str) -> None:
    made = make_environment(tmp_path, python)
    assert made.returncode != 0
    assert "no Python 3.11 or newer found" in made.stderr
    assert "apt install python3" in made.stderr


def test_help_names_every_target() -> None:
    told = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "bench", "chaos", "soak", "fuzz", "clean"):
        assert f"make {target} " in told
