"""How far a dealer may run ahead: bounded at each receiver, for each session; other sessions do not notice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from fault_links import (
    LABEL,
    SHORT,
    Sent,
    Wire,
    failure_of,
    open_sessions,
    parties,
    session_tasks,
    some_features,
    tiny_defender,
    tiny_model,
)
from hypothesis import given
from hypothesis import strategies as st

from siguard import DeadlineError, open_cluster
from siguard.actors import windows
from siguard.actors.mailbox import Mailbox
from siguard.actors.windows import SendWindows, TakenBytes
from siguard.transport.frame import Frame, Kind

MODEL, DEFENDER = tiny_model(), tiny_defender()
WINDOW, CREDIT = 1 << 12, 1 << 10


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_BYTES", WINDOW)
    monkeypatch.setattr(windows, "CREDIT_BYTES", CREDIT)


# By themselves ----------------------------------------------------------------------------------------------------


async def test_room_until_the_window_is_full(autojump_clock: Any) -> None:
    window = SendWindows()
    await window.room("S0", WINDOW - 1)
    await window.room("S0", 10 * WINDOW)  # one frame may go beyond it
    with trio.move_on_after(1) as scope:
        await window.room("S0", 1)
    assert scope.cancelled_caught
    await window.room("S1", 1)  # each peer has a window of its own
    window.give_back("S0", 10 * WINDOW)
    await window.room("S0", 1)
    with trio.move_on_after(1) as scope:
        await window.room("S0", 1)
    assert scope.cancelled_caught


async def test_those_who_wait_go_on_together(autojump_clock: Any) -> None:
    window = SendWindows()
    await window.room("S0", WINDOW)
    done = []

    async def send(number: int) -> None:
        await window.room("S0", 1)
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(send, number)
        await trio.testing.wait_all_tasks_blocked()
        assert done == []
        window.give_back("S0", CREDIT)
    assert sorted(done) == [0, 1, 2]


async def test_more_is_given_back_than_was_sent(autojump_clock: Any) -> None:
    """A peer that lies gets no larger window."""
    window = SendWindows()
    window.give_back("S0", 1 << 62)
    await window.room("S0", WINDOW)
    with trio.move_on_after(1) as scope:
        await window.room("S0", 1)
    assert scope.cancelled_caught


@given(st.lists(st.tuples(st.sampled_from(["S0", "S1"]), st.integers(0, 3 * CREDIT)), max_size=40), st.randoms())
def test_what_is_given_back_does_not_depend_on_the_order(taken: list[tuple[str, int]], shuffler: Any) -> None:
    def total(order: list[tuple[str, int]]) -> dict[str, int]:
        bytes_taken = TakenBytes()
        returned: dict[str, int] = defaultdict(int)
        for peer, size in order:
            due = bytes_taken.take(peer, size)
            assert due % CREDIT == 0
            returned[peer] += due
        return {peer: size for peer, size in returned.items() if size}

    shuffled = list(taken)
    shuffler.shuffle(shuffled)
    expected: dict[str, int] = defaultdict(int)
    for peer, size in taken:
        expected[peer] += size
    assert total(taken) == total(shuffled)
    assert total(taken) == {p: size // CREDIT * CREDIT for p, size in expected.items() if size >= CREDIT}


# In a cluster -----------------------------------------------------------------------------------------------------


def dealt_and_credited(frames: list[Sent], dealer: str) -> tuple[dict[str, int], int]:
    """Bytes that the dealer sent to each server, and the most that was not yet given back at one of them."""
    sent: dict[str, int] = defaultdict(int)
    unread: dict[str, int] = defaultdict(int)
    most = 0
    for one in frames:
        frame = one.frame
        if one.sender == dealer and one.receiver.startswith("S") and frame.kind is Kind.DATA:
            sent[one.receiver] += frame.payload.nbytes
            # Before this frame; itself it may go beyond the window.
            most = max(most, unread[one.receiver])
            unread[one.receiver] += frame.payload.nbytes
        elif one.receiver == dealer and frame.kind is Kind.CREDIT:
            unread[one.sender] -= int(frame.payload.sum())
    return sent, most


@pytest.mark.parametrize("seed", range(2))
async def test_a_long_session_with_a_small_window(
    seed: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: Any
) -> None:
    """It goes through window after window, with the answer of one that never waits."""
    features = some_features(8, seed)
    answers = []
    for size in (1 << 40, WINDOW, 1 << 8):
        monkeypatch.setattr(windows, "WINDOW_BYTES", size)
        monkeypatch.setattr(windows, "CREDIT_BYTES", max(1, size // 4))
        wire = Wire()
        async with open_cluster(seed=seed, wrap_link=wire) as cluster:
            await cluster.query(features, MODEL, DEFENDER, SHORT)  # shares and signs
            for _ in range(3):
                wire.frames.clear()
                answers.append((await cluster.query(features, MODEL, DEFENDER, SHORT)).confidences)
                request = wire.last_request()
                sent, most = dealt_and_credited(wire.frames, request.dealer)
                assert max(sent.values()) > 3 * WINDOW
                assert most <= size
            assert open_sessions(cluster) == {}
            assert session_tasks(cluster) == {}
    assert all(np.array_equal(answer, answers[n % 3]) for n, answer in enumerate(answers))


class Held:
    """Lets one server take nothing of one session while it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, party: str) -> None:
        self.session: bytes | None = None
        self.open = trio.Event()
        take = Mailbox.take

        async def held(mailbox: Mailbox, sender: str, path: str, depth: int = 0) -> Frame:
            if mailbox.party == party and sender.startswith("S"):
                self.session = self.session or mailbox.session
                if mailbox.session == self.session:
                    await self.open.wait()
            return await take(mailbox, sender, path, depth)

        monkeypatch.setattr(Mailbox, "take", held)


async def test_a_slow_session_stalls_no_other(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    """The dealer stops at the window of the slow one; a whole session beside it ends; then the slow one does."""
    wire = Wire()
    features = some_features(16)
    async with open_cluster(seed=0, wrap_link=wire) as cluster:
        for _ in range(3):
            await cluster.query(features, MODEL, DEFENDER, SHORT)
        # The next one is dealt by S2, and S1 takes what it deals.
        held = Held(monkeypatch, "S1")
        wire.frames.clear()
        answers = []

        async def ask() -> None:
            answers.append((await cluster.query(features, MODEL, DEFENDER, SHORT)).confidences)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            slow = held.session
            assert slow is not None
            dealer = wire.last_request().dealer
            mailbox = parties(cluster)[dealer]._mailboxes[slow]
            unread = dict(mailbox.windows._unread)
            sent, _ = dealt_and_credited(wire.of_session(slow), dealer)
            assert max(unread.values()) >= WINDOW
            # No more than the window and the one frame that filled it.
            largest = max(one.frame.payload.nbytes for one in wire.of_session(slow))
            assert max(unread.values()) < WINDOW + largest
            assert answers == []
            for _ in range(3):
                await ask()
            assert len(answers) == 3
            assert dict(mailbox.windows._unread) == unread
            held.open.set()
        assert len(answers) == 4
        whole, _ = dealt_and_credited(wire.of_session(slow), dealer)
        assert max(whole.values()) > 2 * max(sent.values())
        assert np.abs(answers[3] - answers[0]).max() < 1e-3
        assert open_sessions(cluster) == {}


async def test_a_server_that_takes_nothing_is_named(monkeypatch: pytest.MonkeyPatch, autojump_clock: Any) -> None:
    deadline = 5.0
    async with open_cluster(seed=0, deadline=deadline) as cluster:
        for _ in range(3):
            await cluster.query(some_features(16), MODEL, DEFENDER, SHORT)
        Held(monkeypatch, "S1")
        failure = await failure_of(cluster.query(some_features(16), MODEL, DEFENDER, SHORT))
        assert isinstance(failure.error, DeadlineError)
        assert failure.error.party == "S1"
        assert failure.seconds <= 1.1 * deadline
        monkeypatch.undo()
        await trio.sleep(0.1)
        assert open_sessions(cluster) == {}
        assert session_tasks(cluster) == {}
        await cluster.query(some_features(16), MODEL, DEFENDER, SHORT)


async def test_a_session_that_fails_leaves_no_one_waiting_for_room(autojump_clock: Any) -> None:
    """Credits that never come: the dealer's wait ends with the session."""
    wire = Wire()

    def no_credit(sent: Sent) -> list[bytes]:
        return [] if sent.frame.kind is Kind.CREDIT else [sent.data]

    async with open_cluster(seed=0, deadline=5.0, wrap_link=wire) as cluster:
        await cluster.query(some_features(16), MODEL, DEFENDER, SHORT)
        wire.change = no_credit
        failure = await failure_of(cluster.query(some_features(16), MODEL, DEFENDER, SHORT))
        assert isinstance(failure.error, DeadlineError)
        await trio.sleep(0.1)
        assert open_sessions(cluster) == {}
        assert session_tasks(cluster) == {}
        wire.change = lambda sent: [sent.data]
        await cluster.query(some_features(2), MODEL, DEFENDER, LABEL)
