"""The contract's check lets a sound link pass, and each kind of broken link fails at the clause meant for it."""

from __future__ import annotations

import pytest
from broken_endings import BROKEN as BROKEN_ENDINGS
from broken_exchange import BROKEN as BROKEN_EXCHANGE
from sound_link import Sound, maker_of
from trio.testing import MockClock

from siguard.transport.testing import CLAUSES, CLOGGED_CLAUSES, check_transport

BROKEN = BROKEN_EXCHANGE | BROKEN_ENDINGS
#: Messages in a link, and in one that is soon full.
ROOM, LITTLE_ROOM = 500, 2


async def test_a_sound_link_passes(autojump_clock: MockClock) -> None:
    await check_transport(maker_of(Sound, ROOM), maker_of(Sound, LITTLE_ROOM))


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
async def test_a_broken_link_is_caught_by_the_clause_meant_for_it(
    kind: type[Sound], autojump_clock: MockClock
) -> None:
    with pytest.raises(AssertionError) as caught:
        await check_transport(maker_of(kind, ROOM), maker_of(kind, LITTLE_ROOM))
    assert str(caught.value).split(":")[0].split(" (")[0] == BROKEN[kind], str(caught.value)


def test_every_clause_catches_something() -> None:
    names = {clause.__name__ for clause in (*CLAUSES, *CLOGGED_CLAUSES)}
    assert names | {"no_task_outlives_a_link"} == set(BROKEN.values())
    assert all((clause.__doc__ or "").strip() for clause in (*CLAUSES, *CLOGGED_CLAUSES))


async def test_back_pressure_is_left_out_without_a_clogged_maker(autojump_clock: MockClock) -> None:
    (never_full,) = [kind for kind, clause in BROKEN.items() if clause == CLOGGED_CLAUSES[0].__name__]
    await check_transport(maker_of(never_full, ROOM), None)
