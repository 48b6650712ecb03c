"""Corrupted sets as they are written, reports as JSON, and when a proof run holds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from siguard.errors import InputError
from siguard.proofsim.claims import (
    CORRUPTED_SETS,
    RUNGS,
    Claim,
    ControlOutcome,
    Corrupted,
    ProofReport,
    Scope,
    failures,
)

# Corrupted sets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["S0,U", " S0 , U ", "U,S0"])
def test_a_set_is_read_in_any_order(text: str) -> None:
    assert Corrupted.parse(text) == Corrupted("S0", True)


@pytest.mark.parametrize(
    "text",
    ["", ",", "S0,S1", "S0,S1,U", "S3", "s0", "u", "S0,U,U", "S0,S0", "S0,", "S0;U", "S0 U", "user", "owner"],
)
def test_other_sets_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(InputError, match="two servers together can open everything") as raised:
        Corrupted.parse(text)
    assert repr(text) in str(raised.value)


def test_sets_are_spelled_as_they_are_read() -> None:
    assert [Corrupted.parse(str(one)) for one in CORRUPTED_SETS] == list(CORRUPTED_SETS)
    assert [str(one) for one in CORRUPTED_SETS] == ["S0,U", "S1,U", "S2,U", "S0", "S1", "S2", "U"]
    assert [one.parties for one in CORRUPTED_SETS[::3]] == [("S0", "user"), ("S0",), ("user",)]


# Reports ----------------------------------------------------------------------------------------------------------

TRUE = Claim("views are equal", "exact", "S0,U", 12, True)
CAUGHT = ControlOutcome("constant mask", "exact", "exact", "a finding")
report = partial(ProofReport, Scope(("label",)))


def test_the_json_form_has_these_keys_and_no_others() -> None:
    made = report([TRUE, replace(TRUE, holds=False, detectable=0.25, problem="at S0")], [CAUGHT], 1.5)
    assert json.loads(made.to_json()) == {
        "schema": 1,
        "holds": False,
        "claims": [
            {
                "claim": "views are equal",
                "rung": "exact",
                "corrupted": "S0,U",
                "cases": 12,
                "verdict": verdict,
                "detectable": detectable,
            }
            for verdict, detectable in (("holds", 0.0), ("fails", 0.25))
        ],
        "controls": [
            {"control": "constant mask", "expected_rung": "exact", "caught_by": "exact", "verdict": "caught"}
        ],
    }


@pytest.mark.parametrize(
    ("made", "holds"),
    [
        (report(), False),
        (report([], [CAUGHT]), False),
        (report([TRUE], [CAUGHT]), True),
        (report([TRUE, replace(TRUE, holds=False)], [CAUGHT]), False),
        (report([TRUE], [CAUGHT, replace(CAUGHT, caught_by=None)]), False),
        (report([TRUE], [replace(CAUGHT, caught_by="content")]), False),
    ],
)
def test_when_a_report_holds(made: ProofReport, holds: bool) -> None:
    assert made.holds is holds
    assert json.loads(made.to_json())["holds"] is holds


@pytest.mark.parametrize("caught_by", [None, *RUNGS])
def test_a_control_is_caught_where_it_should_be(caught_by: str | None) -> None:
    outcome = replace(CAUGHT, expected_rung="shape", caught_by=caught_by)
    assert outcome.caught is (caught_by == "shape")
    assert outcome.to_dict()["caught_by"] == caught_by
    assert outcome.to_dict()["verdict"] == ("caught" if caught_by == "shape" else "missed")


def test_failures_are_the_claims_that_do_not_hold() -> None:
    false = replace(TRUE, holds=False)
    assert failures([TRUE, false, TRUE]) == [false]
