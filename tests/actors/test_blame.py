"""Who is named when everybody waits: the one who waits for nobody, or who missed a frame first."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from fault_links import DEADLINE, LABEL, SERVERS, Wire, failure_of, some_features, tiny_defender, tiny_model
from hypothesis import given
from hypothesis import strategies as st

from siguard import open_cluster
from siguard.actors.blame import Note, who_is_missing
from siguard.errors import ProtocolError
from siguard.transport.frame import Kind

MODEL, DEFENDER = tiny_model(), tiny_defender()


def test_the_end_of_the_chain_is_named() -> None:
    assert who_is_missing("S0", Note("S1", 5.0), {}) == "S1"
    assert who_is_missing("S0", Note("S1", 5.0), {"S1": Note("S2", 4.9)}) == "S2"
    assert who_is_missing("S0", Note("S1", 5.0), {"S1": Note("", 0.0)}) == "S1"
    assert who_is_missing("S0", Note("S1", 5.0), {"S1": Note("user/1", 5.1)}) == "user/1"


def test_in_a_circle_whoever_waits_longest_is_right() -> None:
    """S0 lost a frame of S1, which then waits for S0."""
    assert who_is_missing("S0", Note("S1", 5.0), {"S1": Note("S0", 4.9)}) == "S1"
    assert who_is_missing("S1", Note("S0", 4.9), {"S0": Note("S1", 5.0)}) == "S1"
    # S2 waits for one in a circle that it is no part of, however long.
    notes = {"S0": Note("S1", 5.0), "S1": Note("S0", 4.9)}
    assert who_is_missing("S2", Note("S0", 9.0), notes) == "S1"


@given(
    st.dictionaries(
        st.sampled_from(SERVERS), st.builds(Note, st.sampled_from(("", *SERVERS, "user")), st.floats(0, 100))
    ),
    st.sampled_from(SERVERS[1:]),
    st.floats(0, 100),
)
def test_some_party_is_always_named(notes: dict[str, Note], awaited: str, waited: float) -> None:
    assert who_is_missing("S0", Note(awaited, waited), notes) in (*SERVERS, "user")


@pytest.mark.parametrize("values", [None, [], ["S0"], ["S0", "1"], [0, 1.0], ["S0", 1.0, 2], {"S0": 1.0}])
def test_a_note_is_a_name_and_seconds(values: Any) -> None:
    with pytest.raises(ProtocolError, match="name and seconds"):
        Note.from_values(values)


@pytest.mark.parametrize("hung", SERVERS)
async def test_a_server_that_hangs_is_named_by_everybody(hung: str, autojump_clock: Any) -> None:
    """Its process is stopped: what is sent to it is taken by the kernel, and nothing comes."""
    for calls in range(3):  # so that it has each role once
        wire = Wire()
        async with open_cluster(seed=calls, deadline=DEADLINE, wrap_link=wire) as cluster:
            for _ in range(calls + 1):
                frames = (await cluster.query(some_features(), MODEL, DEFENDER, LABEL)).traffic.messages
            seen = len(wire.frames)
            wire.change = lambda sent, seen=seen, frames=frames, wire=wire: (  # type: ignore[misc]
                [] if sent.sender == hung and len(wire.frames) > seen + frames // 3 else [sent.data]
            )
            failure = await failure_of(cluster.query(some_features(), MODEL, DEFENDER, LABEL))
            told = {
                msgpack.unpackb(sent.frame.payload.tobytes())["party"]
                for sent in wire.frames[seen:]
                if sent.frame.kind is Kind.ABORT and sent.sender != hung
            }
            where = f"{hung} hangs, call {calls}"
            assert failure.error.party == hung, f"{where}: {failure.error}"
            assert told == {hung}, f"{where}: told {told}"
            assert failure.seconds <= 1.2 * DEADLINE, where
