"""`siguard party`, `share-model`, `query` and `doctor` as their users meet them; three servers run as processes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import structlog
from nacl.signing import SigningKey
from typer.testing import CliRunner

from siguard import Defender, GuardConfig, Model
from siguard.cli import app
from siguard.deploy.file import DeploymentFile, Endpoint, load_deployment
from siguard.deploy.keys import public_text, write_key
from siguard.nn.model import FloatArray

SERVERS = ("S0", "S1", "S2")
#: Seconds for a process to start or to end, on a machine that does other things too.
PATIENCE = 30.0


def layers(*widths: int) -> list[tuple[FloatArray, FloatArray]]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=(m, n)), rng.normal(size=n) / 10) for m, n in pairwise(widths)]


FEATURES = np.random.default_rng(0).normal(size=(3, 5))


class Site:
    """A folder with deployment.toml, all keys, a model and a classifier; servers as processes on held ports."""

    def __init__(self, folder: Path, stack: ExitStack, **limits: float) -> None:
        self.folder = folder
        self.config = folder / "deployment.toml"
        self.sockets = {server: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for server in SERVERS}
        keys = {name: SigningKey.generate() for name in (*SERVERS, "owner", "user")}
        deployment = DeploymentFile(
            "site",
            {
                server: Endpoint("127.0.0.1", one.getsockname()[1], keys[server].verify_key)
                for server, one in self.sockets.items()
            },
            keys["owner"].verify_key,
            {"user": keys["user"].verify_key},
        )
        allowed = deployment.limits.model_copy(update={"connect": PATIENCE, "deadline": 10.0, **limits})
        DeploymentFile(
            deployment.name, deployment.servers, deployment.owner_key, deployment.users, limits=allowed
        ).write(self.config)
        for name, key in keys.items():
            write_key(folder / "keys" / f"{name}.key", name, key)
        Model(layers(5, 7, 4)).save(folder / "model.npz")
        Defender(layers(4, 8, 6, 1)).save(folder / "h.npz")
        np.savetxt(folder / "rows.csv", FEATURES, delimiter=",")
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, server: str, *options: str) -> subprocess.Popen[str]:
        descriptor = self.sockets[server].fileno()
        command = [sys.executable, "-m", "siguard", "party", "--config", str(self.config), "--as", server]
        command += ["--listen-fd", str(descriptor), "--log", str(self.folder / f"{server}.log"), *options]
        self.processes[server] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[descriptor],
        )
        return self.processes[server]

    def end(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=PATIENCE)

    def log(self, server: str) -> list[dict[str, object]]:
        text = (self.folder / f"{server}.log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        here = Site(tmp_path_factory.mktemp("site"), stack)
        try:
            for server in SERVERS:
                here.start(server)
            yield here
        finally:
            here.end()


@pytest.fixture(scope="module")
def shared(site: Site) -> Site:
    said = succeeded(site, "share-model", "model.npz", "h.npz", "--allow", "linesearch", "--label", "tiny")
    assert "as 'tiny', name " in said
    assert said.splitlines()[-1] == f"signed {GuardConfig('linesearch').described()}"
    return site


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()  # a command configures logs for its process; here that is the tests' process


def run(site: Site, command: str, *arguments: object) -> tuple[int, str, str]:
    """A command in the site's folder: its status, and what it wrote."""
    texts = [str(one) for one in arguments]
    files = [str(site.folder / one) if one.endswith((".npz", ".csv", ".npy")) else one for one in texts]
    ran = CliRunner().invoke(app, [command, *files, "--config", str(site.config)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout, ran.stderr


def succeeded(site: Site, command: str, *arguments: object) -> str:
    status, out, err = run(site, command, *arguments)
    assert status == 0, err
    return out


def refused(site: Site, command: str, *arguments: object) -> str:
    status, out, err = run(site, command, *arguments)
    assert status == 2, out
    assert out == ""
    assert err.startswith("siguard: ")
    assert "Traceback" not in err
    return err


def read_rows(text: str) -> FloatArray:
    return np.array([[float(cell) for cell in line.split(",")] for line in text.splitlines()])


# While the servers run --------------------------------------------------------------------------------------------


def test_before_anything_is_shared(site: Site) -> None:
    """The first test of those with servers: the next ones share."""
    assert "the model owner has shared no model; siguard share-model" in refused(site, "query", "rows.csv")
    assert not (site.folder / "out.csv").exists()


def test_doctor_finds_all_links_open(site: Site) -> None:
    said = succeeded(site, "doctor")
    assert len(said.splitlines()) == 6
    assert all(line.startswith("ok    ") for line in said.splitlines())
    assert re.search(r"ok    S2 -> S1  [\d.]+ ms there and back", said)
    assert succeeded(site, "doctor", "--as", "owner").startswith("ok    owner -> S0  127.0.0.1:")


def test_features_in_and_answer_out(shared: Site) -> None:
    status, out, err = run(shared, "query", "rows.csv")
    assert status == 0, err
    answer = read_rows(out)
    assert answer.shape == (3, 4)
    assert answer.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert err.startswith("3 rows in ")
    assert " rounds, " in err
    np.save(shared.folder / "rows.npy", FEATURES)
    for features, out_file in (("rows.npy", "out.npy"), ("rows.csv", "out.csv"), ("rows.csv", "out.csv")):
        assert succeeded(shared, "query", features, "--out", out_file, "--policy", "linesearch") == ""
        file = shared.folder / out_file
        kept = np.load(file) if file.suffix == ".npy" else np.loadtxt(file, delimiter=",")
        assert np.abs(kept - answer).max() < 1e-3
    assert not list(shared.folder.glob("*.tmp"))


def test_how_a_query_is_computed_is_chosen_and_told(shared: Site) -> None:
    few, least = (
        json.loads(succeeded(shared, "query", "rows.csv", "--json", "--rounds", rounds))
        for rounds in ("few", "bytes")
    )
    assert np.abs(np.array(few["confidences"]) - np.array(least["confidences"])).max() < 1e-3
    for told in (few, least):
        assert told["rows"] == 3
        assert told["bytes_prepare"] + told["bytes_online"] == told["bytes_total"]
        assert told["rounds_declared"] <= told["rounds"]
    assert few["rounds"] < least["rounds"]
    assert few["bytes_total"] > least["bytes_total"]
    assert (few["plan"]["hidden"], least["plan"]["hidden"]) == ("key", "adder")
    most = (few["bytes_declared"] + least["bytes_declared"]) // 2
    options = ("--policy", "linesearch:", "--rounds", "few", "--max-bytes", most)
    status, out, err = run(shared, "query", "rows.csv", "--json", "--out", "between.csv", *options)
    assert status == 0, err
    between = json.loads(out)
    assert "confidences" not in between
    assert between["bytes_declared"] <= most
    assert few["rounds_declared"] <= between["rounds_declared"] <= least["rounds_declared"]
    assert f"guard declared: {between['rounds_declared']} rounds" in err
    assert "plan: hidden " in err


def test_a_wrong_way_to_compute_is_told_of_its_option(shared: Site) -> None:
    assert "--rounds: found 'fast'; allowed: auto, few, bytes" in refused(
        shared, "query", "rows.csv", "--rounds", "fast"
    )
    assert "--max-bytes: it steers rounds = 'few'" in refused(shared, "query", "rows.csv", "--max-bytes", 9)
    options = ("--rounds", "few", "--max-bytes", 9)
    assert "--max-bytes: found 9; policy 'linesearch'" in refused(shared, "query", "rows.csv", *options)
    said = refused(shared, "query", "rows.csv", "--policy", "siguard", "--rounds", "few")
    assert "'siguard' is not signed by the model owner" in said


def test_what_is_not_signed_or_not_there(shared: Site) -> None:
    said = refused(shared, "query", "rows.csv", "--policy", "siguard")
    assert "'siguard' is not signed by the model owner for this model; signed: linesearch" in said
    assert "is not signed" in refused(shared, "query", "rows.csv", "--policy", "siguard:inner=2")
    assert "model: found 'other'; the servers hold 'tiny'" in refused(
        shared, "query", "rows.csv", "--model", "other"
    )
    np.savetxt(shared.folder / "narrow.csv", FEATURES[:, :4], delimiter=",")
    assert "found 4 columns; the model takes 5" in refused(shared, "query", "narrow.csv")


def test_a_key_that_the_servers_do_not_know(shared: Site, tmp_path: Path) -> None:
    """With a file of its own that pins it: the servers have another one, and say so."""
    key = SigningKey.generate()
    write_key(tmp_path / "keys" / "user.key", "user", key)
    text = shared.config.read_text(encoding="utf-8")
    old = public_text(load_deployment(shared.config).users["user"])
    mine = tmp_path / "deployment.toml"
    mine.write_text(
        text.replace(old, public_text(key.verify_key)).replace(f"connect = {PATIENCE}", "connect = 0.5")
    )
    ran = CliRunner().invoke(app, ["query", str(shared.folder / "rows.csv"), "--config", str(mine)])
    assert ran.exit_code == 2
    assert "pins another key: compare the deployment files and this key file" in ran.stderr


def test_a_port_that_is_taken(site: Site) -> None:
    command = [sys.executable, "-m", "siguard", "party", "--config", str(site.config), "--as", "S0"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ran.returncode == 2
    [line] = [line for line in ran.stderr.splitlines() if line.startswith("siguard: ")]
    assert "cannot listen at 127.0.0.1:" in line
    assert "another process may" in line


def test_where_to_listen_is_checked(site: Site) -> None:
    for listen in ("7100", "0.0.0.0:", "0.0.0.0:x", ":7100", "0.0.0.0:70000"):
        command = [sys.executable, "-m", "siguard", "party", "--config", str(site.config), "--as", "S0"]
        ran = subprocess.run(
            [*command, "--listen", listen], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert ran.returncode == 2
        assert f"--listen: found {listen!r}" in ran.stderr


def test_sigterm_lets_a_session_end(shared: Site) -> None:
    """All three are told to end while a query runs; it is answered, and they go."""
    np.save(shared.folder / "many.npy", np.tile(FEATURES, (2000, 1)))
    command = [sys.executable, "-m", "siguard", "query", str(shared.folder / "many.npy"), "--config"]
    query = subprocess.Popen(
        [*command, str(shared.config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        log = shared.folder / "S0.log"
        before = log.read_text(encoding="utf-8").count('"link open"')
        deadline = time.monotonic() + PATIENCE
        while log.read_text(encoding="utf-8").count('"link open"') == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        assert query.poll() is None
        for process in shared.processes.values():
            process.send_signal(signal.SIGTERM)
        out, err = query.communicate(timeout=PATIENCE)
    finally:
        query.kill()
    assert query.returncode == 0, err
    assert read_rows(out).shape == (6000, 4)
    for server, process in shared.processes.items():
        assert process.wait(PATIENCE) == 0
        assert process.communicate() == ("", "")
        lines = shared.log(server)
        assert {line["party"] for line in lines} == {server}
        assert not any(line["level"] == "error" for line in lines)


# Without servers --------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Site:
    with ExitStack() as stack:
        # The ports are free again when this returns.
        return Site(tmp_path, stack, connect=0.3)


def test_keys(alone: Site) -> None:
    keys = alone.folder / "keys"
    (keys / "user.key").rename(keys / "away.key")
    assert "user.key: no such key file; make one with siguard keygen" in refused(alone, "query", "rows.csv")
    said = refused(alone, "query", "rows.csv", "--key", keys / "owner.key")
    assert "this is the key of 'owner', not 'user'" in said
    said = refused(alone, "query", "rows.csv", "--as", "S3")
    assert "found 'S3'" in said
    (keys / "owner.key").chmod(0o640)
    assert "run: chmod 600" in refused(alone, "share-model", "model.npz", "h.npz", "--allow", "siguard")
    assert "run: chmod 600" in refused(alone, "doctor")
    (keys / "owner.key").unlink()
    assert "no key of user, owner in" in refused(alone, "doctor")
    for server in SERVERS:
        write_key(keys / f"{server}.key", server, SigningKey.generate(), force=True)
    assert "does not belong to the key that" in refused(alone, "party", "--as", "S0")
    assert "user is no server of" in refused(
        alone, "party", "--as", "user", "--key", keys / "away.key", "--log", alone.folder / "log"
    )


def test_deployment_files(alone: Site) -> None:
    text = alone.config.read_text(encoding="utf-8")
    alone.config.write_text(text.replace('name = "site"', "name = 5"), encoding="utf-8")
    assert "name" in refused(alone, "query", "rows.csv")
    alone.config.unlink()
    assert "deployment.toml" in refused(alone, "query", "rows.csv")


BAD_ROWS: dict[str, bytes] = {
    "a heading.csv": b"a,b,c\n1,2,3\n",
    "ragged.csv": b"1,2,3\n1,2\n",
    "binary.csv": bytes(range(256)),
    "empty.csv": b"",
    "empty.npy": b"",
    "text.npy": b"1,2,3\n",
    "objects.npy": b"",
    "packed.npy": b"",
    "words.npy": b"",
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_features_that_are_no_rows_of_numbers(alone: Site, name: str) -> None:
    file = alone.folder / name
    file.write_bytes(BAD_ROWS[name])
    if name == "objects.npy":
        np.save(file, np.array([{}, []], dtype=object), allow_pickle=True)
    elif name == "words.npy":
        np.save(file, np.array([["a", "b"]]))
    elif name == "packed.npy":
        with file.open("wb") as stream:
            np.savez(stream, a=FEATURES)
    said = refused(alone, "query", name)
    assert f"{file}: not rows of numbers; expected .npy, or CSV without a heading" in said


def test_files_that_are_not_there(alone: Site) -> None:
    assert "gone.csv: no such file" in refused(alone, "query", "gone.csv")
    (alone.folder / "folder.npy").mkdir()
    assert "folder.npy: cannot be read" in refused(alone, "query", "folder.npy")
    for networks in (("gone.npz", "h.npz"), ("model.npz", "gone.npz")):
        assert "gone.npz" in refused(alone, "share-model", *networks, "--allow", "siguard")
    assert "rows.csv" in refused(alone, "share-model", "rows.csv", "h.npz", "--allow", "siguard")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("guardian", "guardian"),
        ("siguard:inner", "found 'inner' in 'siguard:inner'; allowed: NAME=NUMBER, for example siguard:inner=5"),
        ("siguard:inner=x", "found 'inner=x'"),
        (
            "siguard:speed=3",
            "found speed in 'siguard:speed=3'; a guard has outer, inner, learning_rate, c1, c2, c3",
        ),
        ("siguard:inner=-1", "inner"),
    ],
)
def test_guards_that_are_none(alone: Site, text: str, said: str) -> None:
    assert said in refused(alone, "share-model", "model.npz", "h.npz", "--allow", text)


def test_nobody_is_there(alone: Site) -> None:
    assert "connection refused" in refused(alone, "query", "rows.csv")
    assert "connection refused" in refused(alone, "share-model", "model.npz", "h.npz", "--allow", "siguard")
    status, out, err = run(alone, "doctor")
    assert status == 2
    assert [line[:4] for line in out.splitlines()] == ["FAIL"] * 6
    assert err == "siguard: 6 of 6 links are not as they should be\n"


def test_a_party_that_cannot_begin(alone: Site) -> None:
    assert "log level: found 'loud'" in refused(alone, "party", "--as", "S0", "--level", "loud")
    log = alone.folder / "none" / "S0.log"
    assert f"log file {log}: cannot be written" in refused(alone, "party", "--as", "S0", "--log", log)
    assert "file descriptor 0" in refused(
        alone, "party", "--as", "S0", "--listen-fd", 0, "--log", alone.folder / "log"
    )
