"""A server that sends other frames than it should, inside the seal: its session ends, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import trio
from deploy_helpers import (
    GRACE,
    SHORT,
    assert_right,
    deals,
    deployed,
    failure_of,
    no_sessions,
    nothing_left,
    settled,
    some_features,
)
from frame_taps import Sent, Tap

from siguard import SiguardError
from siguard.transport.frame import Frame, encode_frame


def payload_doubled(sent: Sent, before: list[Sent]) -> list[bytes]:
    frame = sent.frame
    payload = np.concatenate([frame.payload.reshape(-1)] * 2)
    return [encode_frame(Frame(frame.kind, frame.session, frame.step, frame.depth, payload))]


def of_another_session(sent: Sent, before: list[Sent]) -> list[bytes]:
    step = sent.frame.step
    return [next(one.data for one in before if one.frame.step == step and one[:2] == sent[:2])]


#: What a server that is changed sends in place of one frame, given what all sent before.
FRAMES: dict[str, Callable[[Sent, list[Sent]], list[bytes]]] = {
    "nothing": lambda sent, before: [],
    "no bytes": lambda sent, before: [b""],
    "noise": lambda sent, before: [np.random.default_rng(0).bytes(len(sent.data))],
    "half of it": lambda sent, before: [sent.data[: len(sent.data) // 2]],
    "another shape": payload_doubled,
    "the same frame of a session before": of_another_session,
}


#: Nobody reads these, so that the next frame is waited for.
MISSED = {"nothing", "the same frame of a session before"}


@pytest.mark.parametrize("name", FRAMES)
async def test_frames_that_are_wrong_inside_the_seal(name: str) -> None:
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed(wrap_link=tap, deadline=0.4) as here, here.connect() as user:
            deals(user, "S0")
            expected = (await user.query(some_features(), SHORT)).confidences
            before = list(tap.frames)

            async def change(sent: Sent) -> list[bytes]:
                return FRAMES[name](sent, before)

            links = dict(here.servers["S1"]._links)
            deals(user, "S0")
            hit = tap.at("S1", "S2", 12, change)
            failure = await failure_of(user.query(some_features(), SHORT))
            assert len(hit) == 1
            # Where only time tells, the two who wait for each other lose patience at nearly the same moment.
            assert failure.error.party in (("S1", "S2") if name in MISSED else ("S1",)), failure.error
            assert failure.error.session == hit[0].frame.session.hex()
            assert failure.error.step is not None
            assert failure.seconds < GRACE
            assert await settled(lambda: no_sessions(*here.servers.values()))
            # Messages are whole, so the link stays.
            assert here.servers["S1"]._links == links
            assert_right(await user.query(some_features(), SHORT), expected)


async def test_a_frame_that_comes_twice_inside_the_seal() -> None:
    """It is read once or ends the session; never another answer."""
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed(wrap_link=tap) as here, here.connect() as user:
            expected = (await user.query(some_features(), SHORT)).confidences

            async def double(sent: Sent) -> list[bytes]:
                return [sent.data, sent.data]

            for number in (1, 5, 12):
                deals(user, "S0")
                hit = tap.at("S1", "S2", number, double)
                error: SiguardError | None = None
                try:
                    assert_right(await user.query(some_features(), SHORT), expected)
                except SiguardError as caught:
                    error = caught
                assert len(hit) == 1
                if error is not None:
                    assert error.party == "S1"
                    assert "two frames for step" in error.message
                assert await settled(lambda: no_sessions(*here.servers.values()))
