"""Wheel and sdist as a user gets them: built, installed outside the checkout, with core requirements only."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
NOT_IN_CORE = ("sklearn", "scipy", "typer", "rich", "pydantic")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    assert built.returncode == 0, built.stdout + built.stderr
    return out


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment that holds the wheel and what it requires, without any extra.

    The requirements are linked from this environment, file by file: what the wheel does not declare, or what
    only an extra brings, is not there.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False, symlinks=True)
    scheme = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    scripts = Path(sysconfig.get_path("scripts", "venv", vars=scheme))
    (wheel,) = dist.glob("*.whl")
    python = scripts / "python"
    pip = run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    assert pip.returncode == 0, pip.stderr
    (own,) = metadata.distributions(name="siguard", path=[str(packages)])
    for name in requirements_of(own):
        link_distribution(metadata.distribution(name), packages)
    return scripts


def requirements_of(distribution: metadata.Distribution) -> set[str]:
    """Names of everything it needs here, directly or not, without extras."""
    needed: set[str] = set()
    todo = [distribution]
    while todo:
        for text in todo.pop().requires or ():
            requirement = Requirement(text)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and requirement.name not in needed:
                needed.add(requirement.name)
                todo.append(metadata.distribution(requirement.name))
    return needed


def link_distribution(distribution: metadata.Distribution, packages: Path) -> None:
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        link = packages / top
        if not link.exists():
            link.symlink_to(Path(str(distribution.locate_file(top))))


def test_the_wheel_is_complete_and_typed(installed: Path) -> None:
    code = (
        "import pathlib, siguard; here = pathlib.Path(siguard.__file__).parent; "
        "print(here); print((here / 'py.typed').exists())"
    )
    seen = run(installed / "python", "-c", code, cwd=installed)
    assert seen.returncode == 0, seen.stderr
    where, typed = seen.stdout.split()
    assert not Path(where).is_relative_to(ROOT)
    assert Path(where).is_relative_to(installed.parent)
    assert typed == "True"


def test_every_public_name_works_without_any_extra(installed: Path) -> None:
    code = (
        "import sys, siguard; [getattr(siguard, name) for name in siguard.__all__]; "
        "assert 'sklearn' not in sys.modules; print(len(siguard.__all__))"
    )
    seen = run(installed / "python", "-c", code, cwd=installed)
    assert seen.returncode == 0, seen.stderr
    assert int(seen.stdout) > 0


def test_the_command_works_outside_the_checkout(installed: Path) -> None:
    seen = run(installed / "siguard", "--help", cwd=installed)
    assert seen.returncode == 0, seen.stderr
    assert "run" in seen.stdout
    seen = run(installed / "siguard", "--version", cwd=installed)
    assert seen.stdout.split() == ["siguard", metadata.version("siguard")]


def test_a_scenario_without_the_extra_says_how_to_install_it(installed: Path, tmp_path: Path) -> None:
    seen = run(installed / "siguard", "run", ROOT / "scenarios" / "quickstart.toml", cwd=tmp_path)
    assert seen.returncode == 2
    assert "pip install 'siguard[eval]'" in seen.stderr
    assert "Traceback" not in seen.stderr


def test_the_sdist_has_what_a_reader_needs(dist: Path) -> None:
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = "README.md LICENSE CHANGELOG.md Makefile pyproject.toml siguard/py.typed scenarios/quickstart.toml"
    assert set(wanted.split()) <= names
    assert {"tests", "docs", "bench"} <= {name.partition("/")[0] for name in names}


def test_the_core_is_imported_fast_and_alone(tmp_path: Path) -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import siguard; print(time.perf_counter() - start); "
        f"print(*[name for name in {NOT_IN_CORE} if name in sys.modules])"
    )
    seconds = []
    for _ in range(5):  # the least of several: the machine may be busy with something else
        seen = run(sys.executable, "-c", code, cwd=tmp_path)
        assert seen.returncode == 0, seen.stderr
        time, *modules = seen.stdout.split()
        assert modules == []
        seconds.append(float(time))
    assert min(seconds) < 0.5
