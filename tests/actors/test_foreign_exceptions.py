"""An exception inside one server's protocol: the session fails and names it, and its text goes nowhere."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
import trio
from fault_links import (
    DEADLINE,
    SERVERS,
    SHORT,
    Failure,
    Wire,
    failure_of,
    open_sessions,
    session_tasks,
    some_logits,
    tiny_defender,
)
from structlog.testing import capture_logs

from siguard import (
    Cluster,
    DeadlineError,
    PartyFailedError,
    RandomnessReuseError,
    SecretError,
    SiguardError,
    open_cluster,
)
from siguard.mpc.party import Party

DEFENDER = tiny_defender()
TEXT = "the logit was 3.14159"
#: A step that runs alone, and one that runs in a nursery beside others.
GATES = ["siguard.guard.policies.siguard.start", "siguard.guard.iteration._log_weights"]


class Sabotage:
    """Lets one party raise inside a gate, once."""

    def __init__(self, patch: pytest.MonkeyPatch, gate: str, party: str, act: Callable[[], None]) -> None:
        module_name, name = gate.rsplit(".", 1)
        module = importlib.import_module(module_name)
        original = getattr(module, name)
        self.done = False

        async def sabotaged(at: Party, *args: Any, **kwargs: Any) -> Any:
            if at.channel.mailbox.party == party and not self.done:  # type: ignore[attr-defined]
                self.done = True
                act()
            return await original(at, *args, **kwargs)

        patch.setattr(module, name, sabotaged)


def _raise(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def _texts(error: BaseException | None) -> list[str]:
    """Everything that a traceback of this error would print."""
    if error is None:
        return []
    return [str(error), repr(error), *_texts(error.__cause__), *_texts(error.__context__)]


async def _fail(cluster: Cluster) -> Failure:
    return await failure_of(cluster.guard(some_logits(), DEFENDER, SHORT))


@pytest.mark.parametrize("gate", GATES, ids=["alone", "beside others"])
@pytest.mark.parametrize("party", SERVERS)
@pytest.mark.parametrize(
    "error",
    [ValueError(TEXT), KeyError(TEXT), ZeroDivisionError(TEXT), ExceptionGroup(TEXT, [ValueError(TEXT)])],
    ids=lambda error: type(error).__name__,
)
async def test_it_is_named_and_its_text_stays(
    error: Exception, party: str, gate: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire()
    with capture_logs() as events:
        async with open_cluster(seed=1, deadline=DEADLINE, wrap_link=wire) as cluster:
            expected = (await cluster.guard(some_logits(), DEFENDER, SHORT)).confidences
            Sabotage(monkeypatch, gate, party, _raise(error))
            failure = await _fail(cluster)
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party == party, str(failure.error)
            assert failure.error.session is not None
            assert failure.seconds <= 1
            await trio.sleep(0.01)
            assert open_sessions(cluster) == {}
            assert session_tasks(cluster) == {}
            after = await cluster.guard(some_logits(), DEFENDER, SHORT)
            assert abs(after.confidences - expected).max() < 1e-3, "sessions after it are served rightly"
    assert not [text for text in _texts(failure.error) if "3.14159" in text], "in the caller's error"
    assert "3.14159" not in repr(events), "in a log event"
    assert not [sent for sent in wire.frames if b"3.14159" in sent.data], "in a frame"
    assert any(event.get("party") == party for event in events), "the failure is logged at the party it began"


@pytest.mark.parametrize("party", SERVERS)
@pytest.mark.parametrize("kind", [SecretError, RandomnessReuseError])
async def test_errors_of_the_package_that_are_the_partys_own(
    kind: type[SiguardError], party: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        Sabotage(monkeypatch, GATES[1], party, _raise(kind("drawn twice")))
        failure = await _fail(cluster)
    assert isinstance(failure.error, PartyFailedError)
    assert failure.error.party == party
    assert failure.error.step is not None


async def test_an_error_that_blames_another_party_keeps_the_blame(
    autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        Sabotage(monkeypatch, GATES[0], "S1", _raise(DeadlineError("waited", party="S2", step="there")))
        failure = await _fail(cluster)
    assert isinstance(failure.error, DeadlineError)
    assert (failure.error.party, failure.error.step) == ("S2", "there")


@pytest.mark.parametrize("gate", GATES, ids=["alone", "beside others"])
@pytest.mark.parametrize("party", SERVERS)
async def test_a_server_that_fails_while_it_is_killed(
    party: str, gate: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both at once: still only an error of this session, and the cluster stands."""

    def act() -> None:
        cluster.kill(party)
        raise ValueError(TEXT)

    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        await cluster.guard(some_logits(), DEFENDER, SHORT)
        Sabotage(monkeypatch, gate, party, act)
        failure = await _fail(cluster)
        assert failure.error.party == party
        assert failure.seconds <= DEADLINE
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}


@pytest.mark.parametrize("gate", GATES, ids=["alone", "beside others"])
async def test_a_server_that_fails_while_the_cluster_is_left(
    gate: str, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        scope.cancel()
        raise ValueError(TEXT)

    Sabotage(monkeypatch, gate, "S1", act)
    with trio.CancelScope() as scope:
        async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
            await cluster.guard(some_logits(), DEFENDER, SHORT)
    assert scope.cancelled_caught


@pytest.mark.parametrize("parties", [("S0", "S1"), ("S1", "S2"), ("S0", "S2"), SERVERS])
async def test_several_servers_fail_at_once(
    parties: tuple[str, ...], autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        traps = [Sabotage(monkeypatch, GATES[1], party, _raise(ValueError(TEXT))) for party in parties]
        failure = await _fail(cluster)
        for trap in traps:  # some may have been told before they came to it
            trap.done = True
        assert failure.error.party in parties
        assert failure.seconds <= 1
        await trio.sleep(0.01)
        assert session_tasks(cluster) == {}
        assert (await cluster.guard(some_logits(), DEFENDER, SHORT)).confidences.shape == (2, 4)


async def test_sessions_beside_a_failing_one_finish(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[int, Any] = {}
    failures: list[SiguardError] = []

    async def one(index: int) -> None:
        try:
            answers[index] = (await cluster.guard(some_logits(seed=index), DEFENDER, SHORT)).confidences
        except SiguardError as error:
            failures.append(error)

    async with open_cluster(seed=1, deadline=DEADLINE) as cluster:
        expected = [(await cluster.guard(some_logits(seed=i), DEFENDER, SHORT)).confidences for i in range(6)]
        Sabotage(monkeypatch, GATES[1], "S2", _raise(ValueError(TEXT)))
        async with trio.open_nursery() as nursery:
            for index in range(6):
                nursery.start_soon(one, index)
    assert len(failures) == 1
    assert failures[0].party == "S2"
    assert len(answers) == 5
    for index, confidences in answers.items():
        assert abs(confidences - expected[index]).max() < 1e-3
