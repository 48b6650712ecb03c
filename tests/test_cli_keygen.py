"""`siguard keygen` as its user meets it: files, what is printed, and what is never printed."""

from __future__ import annotations

import base64
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner, Result

from siguard.cli import app
from siguard.deploy.file import load_deployment

ALL = ("S0", "S1", "S2", "owner", "user")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()  # the command configures it for its process; here that is the tests' process


def keygen(*arguments: object) -> Result:
    ran = CliRunner().invoke(app, ["keygen", *map(str, arguments)])
    for file in Path().rglob("*.key"):
        seed = file.read_text(encoding="ascii").split()[-1]
        for form in (seed, base64.b64decode(seed).hex()):
            assert form not in ran.output
    return ran


def files() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*") if path.is_file()}


def refused(*arguments: object) -> str:
    before = {name: Path(name).read_bytes() for name in files()}
    ran = keygen(*arguments)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert {name: Path(name).read_bytes() for name in files()} == before
    (line,) = ran.stderr.splitlines()
    assert line.startswith("siguard: ")
    return line


def test_a_whole_deployment_for_one_machine() -> None:
    ran = keygen()
    assert ran.exit_code == 0, ran.output
    assert files() == {"deployment.toml", *(f"keys/{name}.key" for name in ALL)}
    deployment = load_deployment("deployment.toml")
    assert {name: server.address for name, server in deployment.servers.items()} == {
        "S0": "127.0.0.1:7100",
        "S1": "127.0.0.1:7101",
        "S2": "127.0.0.1:7102",
    }
    assert tuple(deployment.known()) == ALL
    for name in ALL:
        assert deployment.identity(name).signing_key.verify_key == deployment.known()[name]
        assert stat.S_IMODE(Path("keys", f"{name}.key").stat().st_mode) == 0o600
        assert f"keys/{name}.key" in ran.stdout
    for name in ("S0", "S1", "S2"):
        assert f"siguard party --config deployment.toml --as {name}" in ran.stdout


def test_the_options_of_a_whole_deployment() -> None:
    ran = keygen("--config", "lab/two rooms.toml", "--out", "safe", "--host", "::1", "--port", 9000)
    assert ran.exit_code == 0, ran.output
    assert files() == {"lab/two rooms.toml", *(f"safe/{name}.key" for name in ALL)}
    deployment = load_deployment("lab/two rooms.toml")
    assert deployment.name == "two rooms"
    assert deployment.servers["S2"].address == "[::1]:9002"
    assert "--config 'lab/two rooms.toml' --as S0" in ran.stdout
    assert "Keys are looked for in lab/keys: move them there." in ran.stdout


def test_three_hosts_and_two_people_each_with_their_own_key(tmp_path: Path) -> None:
    pasted = 'name = "clinic"\n'
    for index, name in enumerate(ALL):
        folder = tmp_path / f"host of {name}"
        ran = keygen(name, "--config", folder / "deployment.toml", "--host", f"10.0.0.{index + 1}")
        assert ran.exit_code == 0, ran.output
        assert {path.name for path in folder.rglob("*.key")} == {f"{name}.key"}
        assert "its first line is a name, for example: name =" in ran.stderr
        pasted += ran.stdout
    for name in ALL:
        file = tmp_path / f"host of {name}" / "deployment.toml"
        file.write_text(pasted, encoding="utf-8")
        deployment = load_deployment(file)
        assert deployment.identity(name).name == name
    assert deployment.servers["S2"].address == "10.0.0.3:7100"


def test_several_keys_at_once_and_an_address_that_must_be_put_in() -> None:
    ran = keygen("S1", "alice", "S2", "--port", 8000)
    assert ran.exit_code == 0, ran.output
    assert files() == {"keys/S1.key", "keys/alice.key", "keys/S2.key"}
    pasted = tomllib.loads(ran.stdout)
    assert set(pasted["servers"]) == {"S1", "S2"}
    assert set(pasted["users"]) == {"alice"}
    assert pasted["servers"]["S2"]["address"] == "<HOST>:8001"
    assert "Put the address at which the others reach S1, S2 for HOST." in ran.stderr
    Path("deployment.toml").write_text('name = "c"\n' + ran.stdout, encoding="utf-8")
    with pytest.raises(ValueError, match=r'servers\.S1\.address: found "<HOST>:8000"'):
        load_deployment("deployment.toml")


def test_existing_files_are_kept() -> None:
    assert keygen().exit_code == 0
    assert "deployment.toml: exists; name the parties" in refused()
    assert "keys/S0.key: exists" in refused("S0")
    assert "keys/user.key: exists" in refused("alice", "user")
    Path("deployment.toml").unlink()
    assert "keys/S0.key: exists" in refused()
    Path("keys/S0.key").unlink()
    assert "keys/S1.key: exists" in refused()


def test_force_replaces_all_of_it() -> None:
    assert keygen().exit_code == 0
    before = load_deployment("deployment.toml")
    assert keygen("--force").exit_code == 0
    after = load_deployment("deployment.toml")
    assert set(before.known().values()).isdisjoint(after.known().values())
    assert all(after.identity(name) for name in ALL)
    assert keygen("owner", "--force").exit_code == 0
    with pytest.raises(ValueError, match="does not belong to the key"):
        after.identity("owner")


def test_a_new_key_in_an_existing_deployment() -> None:
    assert keygen().exit_code == 0
    ran = keygen("alice")
    with Path("deployment.toml").open("a", encoding="utf-8") as file:
        file.write(ran.stdout)
    deployment = load_deployment("deployment.toml")
    assert set(deployment.users) == {"user", "alice"}
    assert deployment.identity("alice").name == "alice"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["Alice"], ["found 'Alice'", "S0, S1, S2, owner, or a user's name, 1 to 32 lowercase letters"]),
        (["S3"], ["found 'S3'"]),
        (["../S0"], ["found '../S0'"]),
        (["S0", "S0"], ["S0 S0", "each name once"]),
        (["--host", "::"], ["--host, --port", "the address at which the other hosts reach it"]),
        (["S0", "--host", "a b"], ["--host, --port", 'found "a b:7100"']),
        (["--port", "65535"], ["--host, --port", 'found "127.0.0.1:65536"', "a port from 1 to 65535"]),
        (["--out", "file/keys"], ["file/keys: cannot be made a folder (Not a directory)"]),
        (["--config", "file/deployment.toml", "--out", "keys"], ["file/deployment.toml: cannot be written"]),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(arguments: list[str], parts: list[str]) -> None:
    Path("file").write_text("", encoding="ascii")
    line = refused(*arguments)
    for part in parts:
        assert part in line
