"""One scenario in memory, in virtual time and between processes: the same frames, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

import siguard
from siguard.deploy.launch import Processes
from siguard.errors import PartyFailedError
from siguard.scenario import deployed, runner
from siguard.scenario.experiment import Experiment, prepare
from siguard.scenario.load import Scenario, load_scenario
from siguard.scenario.progress import Progress, silent
from siguard.scenario.report import Report
from siguard.scenario.runner import ScenarioRun, run_scenario

SMALL = """
seed = 5
samples = 40
batch = 20
[data]
rows = 20
[target]
hidden = [16]
[guard]
policies = ["siguard", "linesearch", "label"]
outer = 1
inner = 2
rounds = "few"
[attacks]
shadows = 1
"""
TCP = {"transport.kind": "tcp"}
WAN = {"network.profile": "wan", "network.clock": "virtual"}
#: One policy and few rows: for what does not depend on them.
TINY = {"samples": 10, "guard.policies": ["none"]}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("places") / "small.toml"
    file.write_text(SMALL, encoding="utf-8")
    return file


@pytest.fixture(scope="module", autouse=True)
def trained_once() -> Iterator[Callable[[Scenario, Progress], Experiment]]:
    """All scenarios here have the same data, target and h; some have fewer rows."""
    whole: list[Experiment] = []

    def prepared(scenario: Scenario, progress: Progress) -> Experiment:
        if not whole:
            whole.append(prepare(load_scenario(scenario.file), silent))
        all_rows, some = whole[0], slice(scenario.samples)
        assert all_rows.features is not None
        assert all_rows.labels is not None
        return replace(
            all_rows,
            features=all_rows.features[some],
            logits=all_rows.logits[some],
            labels=all_rows.labels[some],
            member=all_rows.member[some],
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "prepare", prepared)
        yield prepared


@pytest.fixture(scope="module")
def memory(file: Path) -> Report:
    return run_scenario(file)


@pytest.fixture(scope="module")
def wan(file: Path) -> Report:
    return run_scenario(file, WAN)


@pytest.fixture(scope="module")
def tcp(file: Path) -> Report:
    return run_scenario(file, TCP)


def test_frames_and_rounds_are_the_same_everywhere(memory: Report, wan: Report, tcp: Report) -> None:
    for policy, row in memory.guard.items():
        for other in (wan.guard[policy], tcp.guard[policy]):
            assert (other.rounds, other.bytes_total, other.messages, other.iterations) == (
                row.rounds,
                row.bytes_total,
                row.messages,
                row.iterations,
            ), policy
    for report in (memory, wan, tcp):
        assert not any("batches of one size differ" in line for line in report.warnings)


def test_auto_plans_for_the_network(file: Path) -> None:
    options = {"samples": 10, "batch": 5, "guard.policies": ["label"], "guard.rounds": "auto"}
    near, far = (run_scenario(file, {**options, **place}).guard["label"] for place in ({}, WAN))
    assert near.plan["hidden"] == "adder"
    assert far.plan["hidden"] == "key"
    assert far.rounds < near.rounds


def test_virtual_time_changes_seconds_only_and_repeats_to_the_bit(file: Path, memory: Report, wan: Report) -> None:
    assert wan.attacks == memory.attacks
    assert wan.agreement == memory.agreement
    for policy, row in wan.guard.items():
        real = memory.guard[policy]
        assert row == replace(real, seconds=row.seconds, seconds_min=row.seconds_min, seconds_max=row.seconds_max)
        # Each round waits for the line once; the dealer's two lines, at 12.5 MB a second, carry most of the bytes.
        waits = row.rounds * 0.02
        assert waits <= row.seconds_min <= row.seconds_max < 1.2 * (waits + row.bytes_total / 2 / 12.5e6)
    assert (wan.network.latency_ms, wan.network.clock, wan.network.costs) == (20.0, "virtual", "table")
    assert any("Seconds are virtual" in line for line in wan.notes)
    assert not any("differ from run to run" in line for line in wan.notes)
    assert run_scenario(file, WAN).to_dict() == wan.to_dict()


def test_servers_as_processes_give_the_same_answers_and_keep_what_they_decided(tcp: Report, memory: Report) -> None:
    assert tcp.transport == "tcp"
    for policy, row in tcp.guard.items():
        assert row.label_kept == 1.0
        assert row.accepted is None
        assert 0 < row.seconds_min <= row.seconds <= row.seconds_max
        found = tcp.agreement[policy]
        assert found.accept_bit is None
        assert found.rows_within_0_02 >= 0.9
    assert memory.guard["siguard"].accepted is not None
    assert set(tcp.attacks) == set(memory.attacks)
    assert not any("debug_open" in line for line in tcp.notes)
    assert any("no seed repeats the answers" in line for line in tcp.notes)
    assert any("debug_open" in line for line in memory.notes)


def test_a_direction_cores_and_costs_reach_the_cluster(
    file: Path, trained_once: Callable[[Scenario, Progress], Experiment]
) -> None:
    def seconds(**changes: Any) -> float:
        overrides = {f"network.{key}": value for key, value in changes.items()}
        scenario = load_scenario(file, {**TINY, "network.clock": "virtual", **overrides})

        async def ask() -> float:
            async with deployed.open_deployed(scenario, trained_once(scenario, silent), silent) as ask:
                return (await ask(slice(10), scenario.policies["none"])).seconds

        return trio.run(ask, clock=siguard.virtual_clock())

    plain = seconds()
    assert plain == seconds() < 0.1
    assert seconds(cores=1) > 1.5 * plain
    # The user's shares go to every server, and nothing later does.
    assert 0.5 < seconds(links={"user->S1": {"latency_ms": 500}}) < 0.6
    assert 0 < seconds(costs="measured") != plain


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Started:
    """Remembers the processes of a run, to harm them and to see that they ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pids: dict[str, int] = {}
        start = Processes.start

        async def remembered(processes: Processes, server: str) -> None:
            await start(processes, server)
            self.pids[server] = processes.pid(server)

        monkeypatch.setattr(Processes, "start", remembered)

    def assert_gone(self) -> None:
        assert sorted(self.pids) == ["S0", "S1", "S2"]
        for server, pid in self.pids.items():
            assert not alive(os.kill, pid), server


def descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


@pytest.mark.usefixtures("tcp")  # what the first run of a process opens for good is open
@pytest.mark.parametrize("what", ["a server dies", "no process"])
def test_a_run_that_fails_leaves_no_process_socket_or_folder(
    file: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    started = Started(monkeypatch)
    before = descriptors()

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "guarding under MPC: none" and done == 1:
            os.kill(started.pids["S1"], signal.SIGKILL)

    if what == "no process":

        async def refuse(*_arguments: object) -> None:
            raise PermissionError("no process today")

        monkeypatch.setattr(Processes, "start", refuse)
    job = ScenarioRun(load_scenario(file, {**TCP, **TINY, "batch": 2}))
    with pytest.raises(PartyFailedError if what == "a server dies" else PermissionError) as caught:
        job.execute(stop)
    if what == "a server dies":
        message = str(caught.value)
        assert message.startswith("S1 ended with status -9; the end of its log:\n")
        assert '"event": "link open"' in message
        started.assert_gone()
    assert list(temporary.iterdir()) == []
    assert descriptors() == before


def test_ctrl_c_in_a_terminal_ends_the_servers_and_writes_what_was_complete(file: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "temporary", tmp_path / "out"
    folder.mkdir()
    command = [sys.executable, "-m", "siguard", "run", str(file), "--out", str(out)]
    # By few bytes: a call that does not fit in memory would be refused before it can be stopped.
    long = ('guard.policies=["siguard"]', "guard.inner=500", 'guard.rounds="bytes"')
    for item in ("transport.kind=tcp", "samples=20", *long):
        command += ["--set", item]
    log = tmp_path / "stderr"
    with log.open("wb") as stderr:
        run = subprocess.Popen(
            command, env={**os.environ, "TMPDIR": str(folder)}, stderr=stderr, start_new_session=True
        )
    try:
        wait_for(lambda: "guarding under MPC: siguard" in log.read_text(encoding="utf-8"), run)
        time.sleep(0.3)  # the query has begun, and takes far longer
        os.killpg(run.pid, signal.SIGINT)  # the servers get it too, as in a terminal
        assert run.wait(timeout=20) == 130
        wait_for(lambda: not alive(os.killpg, run.pid), None)
    finally:
        if alive(os.killpg, run.pid):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert list(folder.iterdir()) == []
    content = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert content["partial"]
    assert "guarding under MPC: siguard" in content["reason"]
    assert list(content["guard"]) == ["none"]
    assert "Traceback" not in log.read_text(encoding="utf-8")


def alive(kill: Callable[[int, int], None], number: int) -> bool:
    try:
        kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Any, run: subprocess.Popen[bytes] | None, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        assert run is None or run.poll() is None, "ended early"
        time.sleep(0.02)


async def test_an_error_of_a_link_gives_way_to_that_of_the_process_which_left_it() -> None:
    class Ending:
        async def watch(self) -> None:
            await trio.sleep(0.01)
            raise PartyFailedError("S1 ended with status 1; the end of its log:\nout of memory", party="S1")

    with trio.fail_after(5), pytest.RaisesGroup(pytest.RaisesExc(PartyFailedError, match="out of memory")):
        async with deployed._watched(Ending()):  # type: ignore[arg-type]
            raise PartyFailedError("the link to S1 is lost", party="S1")
