"""A proof report on a terminal: what is put together, what never is, and what is said about failures."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from siguard.proofsim.claims import RUNGS, Claim, ControlOutcome, ProofReport, Scope
from siguard.proofsim.table import closing, complaints, family, lines, tables

SCOPE = Scope(("siguard", "label"), seed=7)
EXACT = [
    Claim(f"views of multiply equal: {ring}", "exact", corrupted, 256, True)
    for ring in ("Z_2", "Z_4")
    for corrupted in ("U", "S1", "S0,U")
]
FAILING = Claim("views of multiply equal: Z_8 [b]", "exact", "S2", 64, False, 0.0, "total variation 0.75")
SAMPLED = [
    Claim(f"members look like non-members: {policy}", "content", "S0,U", 400, True, effect)
    for policy, effect in (("siguard", 0.03125), ("label", 0.0))
]
CAUGHT = ControlOutcome("product without its zero share", "exact", "exact", "views differ at input 3")
MISSED = ControlOutcome("constant mask", "exact", None)
ELSEWHERE = ControlOutcome("noise revealed", "shape", "content", "uniformity")


def printed(report: ProofReport, *, every: bool = False, width: int = 200) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for table in tables(report, every=every):
        console.print(table)
    return out.getvalue()


def test_what_holds_is_one_line_for_each_rung_and_family() -> None:
    exact, content = lines([*EXACT, *SAMPLED])
    assert exact == (
        "views of multiply equal (2 instances)",
        "exact",
        "S0,U S1 U",  # the largest sets first, whatever order they were tested in
        6 * 256,
        True,
        0.0,
        "",
    )
    assert (content.claim, content.cases) == ("members look like non-members (2 instances)", 800)
    assert content.detectable == 0.03125  # the weakest of the tests


def test_one_claim_against_several_sets_keeps_its_text() -> None:
    (line,) = lines(EXACT[:3])
    assert line.claim == "views of multiply equal: Z_2"
    (line,) = lines([Claim("false alarms", "null", "all", 9, True)])
    assert (line.claim, line.corrupted) == ("false alarms", "all")


def test_the_same_family_on_two_rungs_is_two_lines() -> None:
    both = [EXACT[0], Claim(EXACT[0].claim, "simulation", "U", 1, True)]
    assert [line.rung for line in lines(both)] == ["exact", "simulation"]


def test_a_failure_has_a_line_of_its_own_with_the_problem() -> None:
    found = lines([*EXACT, FAILING, FAILING])
    assert [line.holds for line in found] == [True, False, False]
    assert found[1][:4] == (FAILING.claim, "exact", "S2", 64)
    assert found[1].problem == "total variation 0.75"
    text = printed(ProofReport(SCOPE, [*EXACT, FAILING]))
    assert "views of multiply equal: Z_8 [b]" in text  # a bracket is no style
    assert "total variation 0.75" in text
    assert text.count("fails") == 1


CLAIMS = st.lists(
    st.builds(
        Claim,
        claim=st.sampled_from(["a: x", "a: y", "b", "b: x: y"]),
        rung=st.sampled_from(RUNGS),
        corrupted=st.sampled_from(["S0,U", "S1", "U", "all"]),
        cases=st.integers(1, 10**9),
        holds=st.booleans(),
        detectable=st.sampled_from([0.0, 0.01, 0.1]),
    ),
    max_size=30,
)


@given(CLAIMS)
def test_no_case_no_failure_and_no_weakness_is_lost(claims: list[Claim]) -> None:
    found = lines(claims)
    assert sum(line.cases for line in found) == sum(claim.cases for claim in claims)
    assert sum(not line.holds for line in found) == sum(not claim.holds for claim in claims)
    holding = [line for line in found if line.holds]
    for claim in (claim for claim in claims if claim.holds):
        about = (claim.rung, family(claim.claim))
        (line,) = [line for line in holding if (line.rung, family(line.claim).partition(" (")[0]) == about]
        assert claim.corrupted in line.corrupted.split()
        assert line.detectable >= claim.detectable
    every = lines(claims, every=True)
    assert [line.claim for line in every] == [claim.claim for claim in claims]
    assert [line.corrupted for line in every] == [claim.corrupted for claim in claims]


def test_the_tables_say_what_was_proved_and_which_rung_caught_what() -> None:
    text = printed(ProofReport(SCOPE, [*EXACT, *SAMPLED], [CAUGHT, MISSED, ELSEWHERE]))
    assert "quick proof, seed 7: policies siguard, label" in text
    rows = {line.split("  ")[0].strip(): line for line in text.splitlines()}
    assert rows["views of multiply equal (2 instances)"].split()[-3:] == ["1,536", "holds", "exact"]
    assert rows["members look like non-members (2 instances)"].split()[-1] == "0.0312"
    assert rows[CAUGHT.control].split()[-3:] == ["exact", "exact", "caught"]
    assert rows[MISSED.control].split()[-4:] == ["exact", "no", "rung", "missed"]
    assert rows[ELSEWHERE.control].split()[-3:] == ["shape", "content", "missed"]
    assert ELSEWHERE.finding in text
    assert CAUGHT.finding not in text


def test_every_claim_and_finding_on_request() -> None:
    report = ProofReport(SCOPE, EXACT, [CAUGHT])
    text = printed(report, every=True)
    assert text.count("views of multiply equal: Z_") == len(EXACT)
    assert CAUGHT.finding in text


def test_a_report_without_controls_has_one_table() -> None:
    assert len(tables(ProofReport(SCOPE, EXACT))) == 1
    assert tables(ProofReport(SCOPE)) == []


def test_eighty_columns_lose_nothing() -> None:
    report = ProofReport(SCOPE, [*EXACT, FAILING, *SAMPLED], [CAUGHT, ELSEWHERE])
    narrow = printed(report, width=80)
    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert "…" not in narrow
    assert sorted(_words(narrow)) == sorted(_words(printed(report)))


def _words(text: str) -> list[str]:
    return [word for word in text.split() if set(word) != {"─"}]


@pytest.mark.parametrize(
    ("report", "start", "reasons"),
    [
        (ProofReport(SCOPE, EXACT, [CAUGHT], 12.4), "All 6 claims hold and all 1 controls are caught (12 s).", []),
        (
            ProofReport(SCOPE, [*EXACT, FAILING], [CAUGHT, MISSED, ELSEWHERE], 99.6),
            "Not proved: of 7 claims 1 do not hold, of 3 controls 2 were missed (100 s).",
            [
                "does not hold (exact, S2): views of multiply equal: Z_8 [b]: total variation 0.75",
                "control missed: constant mask: expected to be caught by exact, caught by no rung",
                "control missed: noise revealed: expected to be caught by shape, caught by content: uniformity",
            ],
        ),
        (ProofReport(SCOPE, [], [CAUGHT]), "Not proved: of 0 claims", ["no claim was tested"]),
    ],
    ids=["proved", "not proved", "nothing tested"],
)
def test_the_closing_sentence_and_the_complaints(report: ProofReport, start: str, reasons: list[str]) -> None:
    told = closing(report)
    assert told.startswith(start)
    assert "semi-honest" in told
    assert "one server, together with the user" in told
    assert complaints(report) == reasons
    assert report.holds == (not reasons)
