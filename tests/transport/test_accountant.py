"""Counting frames: each once, at its sender; sums per step and link; records that add up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from siguard.transport.accountant import Count, Traffic

FEW = settings(deadline=None, max_examples=60, derandomize=True)
Entry = tuple[str, str, str, int, int]

parties = st.sampled_from(["S0", "S1", "S2", "user"])
entries = st.lists(
    st.tuples(
        parties,
        parties,
        st.sampled_from(["input", "guard", "guard/exp"]),
        st.integers(80, 10**9),
        st.integers(0, 99),
    ),
    max_size=20,
)


def recorded(frames: list[Entry]) -> Traffic:
    traffic = Traffic()
    for frame in frames:
        traffic.record(*frame)
    return traffic


def figures(traffic: Traffic) -> tuple[int, int, int, dict[str, Count], dict[tuple[str, str], Count]]:
    return traffic.messages, traffic.bytes_total, traffic.rounds, traffic.by_step(), traffic.by_link()


def test_nothing_sent() -> None:
    assert figures(Traffic()) == (0, 0, 0, {}, {})


def test_counts_of_a_few_frames() -> None:
    traffic = recorded(
        [
            ("S0", "S1", "b", 100, 1),
            ("S1", "S0", "b", 120, 3),
            ("S2", "S1", "a", 80, 2),
            ("S0", "S1", "a", 90, 1),
        ]
    )
    assert (traffic.messages, traffic.bytes_total, traffic.rounds) == (4, 390, 3)
    assert list(traffic.by_step().items()) == [("a", Count(2, 170, 2)), ("b", Count(2, 220, 3))]
    assert list(traffic.by_link().items()) == [
        (("S0", "S1"), Count(2, 190, 1)),
        (("S1", "S0"), Count(1, 120, 3)),
        (("S2", "S1"), Count(1, 80, 2)),
    ]


@FEW
@given(frames=entries)
def test_steps_and_links_add_up_to_the_total(frames: list[Entry]) -> None:
    traffic = recorded(frames)
    assert traffic.messages == len(frames)
    assert traffic.bytes_total == sum(frame[3] for frame in frames)
    assert traffic.rounds == max((frame[4] for frame in frames), default=0)
    for parts in (traffic.by_step().values(), traffic.by_link().values()):
        assert sum(count.messages for count in parts) == traffic.messages
        assert sum(count.bytes for count in parts) == traffic.bytes_total
        assert max((count.depth for count in parts), default=0) == traffic.rounds


@FEW
@given(frames=entries, data=st.data())
def test_merged_records_are_the_record_of_all(frames: list[Entry], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(frames)), label="cut")
    one, other = recorded(frames[:cut]), recorded(frames[cut:])
    before = figures(other)
    one.merge(other)
    assert figures(one) == figures(recorded(frames))
    assert figures(other) == before, "merging must not change the other record"


@FEW
@given(frames=entries, data=st.data())
def test_the_order_of_frames_does_not_matter(frames: list[Entry], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(frames), label="shuffled")
    assert figures(recorded(frames)) == figures(recorded(shuffled))


def test_a_merged_record_is_counted_on_by_itself() -> None:
    one, other = Traffic(), recorded([("S0", "S1", "a", 100, 1)])
    one.merge(other)
    one.record("S0", "S1", "a", 50, 4)
    assert other.by_step() == {"a": Count(1, 100, 1)}
    assert one.by_link() == {("S0", "S1"): Count(2, 150, 4)}
