"""The network itself attacks: frames are lost, cut, doubled, replayed, misrouted, forged between honest parties.

Links in memory authenticate nothing, so against a frame of the right form with other content nothing is claimed but
that it releases no more than a wrong answer.  The wrong answer is not an answer of the guard: whoever forges
content together with a user can choose what is wrong about it.  Sealed links, as a deployment has them over TCP,
refuse it: a seal binds the whole frame to sender, receiver, direction, connection and its number on the link.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from siguard.actors.server import USER
from siguard.actors.session import SERVERS
from siguard.guard.config import GuardConfig
from siguard.proofsim.attacked import PLACES, Attack, Case, attacked
from siguard.proofsim.claims import ALL, Claim, Scope
from siguard.proofsim.faults import CHANGED_RECORDS, CONTENT, COPIES, HARMLESS, OTHER_RECORDS, STRUCTURE
from siguard.proofsim.sealed import SealedCase, attacked_sealed

#: Cheapest first; the quick rung takes the first that is in its scope.
_CONFIGS = {
    "label": GuardConfig("label", rounds="few"),
    "linesearch": GuardConfig("linesearch", rounds="few"),
    "none": GuardConfig("none", rounds="few"),
    "decay": GuardConfig("decay", inner=1, rounds="few"),
    "siguard": GuardConfig("siguard", outer=1, inner=1, rounds="few"),
}
_CHANGED = (
    "on sealed links a record that is lost, cut, lengthened, flipped in any bit, forged, replayed, reflected or "
    "misrouted is refused, and no answer is released"
)
_BESIDE = (
    "on sealed links a record that is doubled, overtaken, or preceded by an old or foreign one is refused or "
    "changes no bit of the answer"
)
_UNTOUCHED = Attack("untouched")
_ALL_LATE = Attack("all late, in any order", all_late=True)


def check(scope: Scope) -> list[Claim]:
    """The claims against an active network, for the cheapest policy of the scope, or (full) for each."""
    policies = [policy for policy in _CONFIGS if policy in scope.policies]
    chosen = policies[: None if scope.full else 1]
    return [claim for policy in chosen for claim in (*_claims(policy, scope), *_sealed_claims(policy, scope))]


def battery(seed: int) -> list[Claim]:
    """What a negative control is shown: seals are below what it leaks."""
    return list(_claims("label", Scope(("label",), seed=seed)))


def _claims(policy: str, scope: Scope) -> Iterator[Claim]:
    times, seeds = (12, 3) if scope.full else (4, 1)
    cases: dict[str, list[tuple[int, Case]]] = {text: [] for text in _ATTACKS}
    for seed in range(scope.seed, scope.seed + seeds):
        planned = [
            (text, attack._replace(place=_place(number, turn)))
            for text, attacks in _ATTACKS.items()
            for number, attack in enumerate(attacks)
            for turn in range(times)
        ]
        order = np.random.default_rng([seed, 9]).permutation(len(planned))
        # The last call is left alone: the parties must be well after all the others.
        planned = [*(planned[i] for i in order), (_SAME, _UNTOUCHED)]
        found = attacked(_CONFIGS[policy], seed, [attack for _, attack in planned])
        for (text, _), case in zip(planned, found, strict=True):
            cases[text].append((seed, case))
    for text, mine in cases.items():
        yield _claim(f"{policy}: {text}", _JUDGES[text], mine)


def _sealed_claims(policy: str, scope: Scope) -> Iterator[Claim]:
    times, seeds = (12, 3) if scope.full else (4, 1)
    found = [
        (seed, case)
        for seed in range(scope.seed, scope.seed + seeds)
        for case in attacked_sealed(_CONFIGS[policy], seed, times)
    ]
    for text, faults, may_answer in ((_CHANGED, CHANGED_RECORDS, False), (_BESIDE, OTHER_RECORDS, True)):
        cases = [(seed, case) for seed, case in found if case.attack in faults]
        problems = [
            f"seed {seed}, {case}: {problem}"
            for seed, case in cases
            if (problem := _sealed_problem(case, may_answer=may_answer))
        ]
        yield _verdict(f"{policy}: {text}", len(cases), problems)


def _sealed_problem(case: SealedCase, *, may_answer: bool) -> str:
    if not case.met:
        return "the record was never sent"
    if case.answer is None:
        return ""
    if not may_answer:
        return "answered"
    return "" if np.array_equal(case.answer, case.expected) else "another answer"


def _place(attack: int, turn: int) -> str:
    """Every other time between servers, else at another place each time."""
    between, *others = PLACES
    return between if turn % 2 == 0 else others[(attack + turn // 2) % len(others)]


def _claim(text: str, judge: Callable[[Case], str], cases: Sequence[tuple[int, Case]]) -> Claim:
    problems = []
    for seed, case in cases:
        missed = case.attack.fault is not None and case.met is None
        problem = "the frame was never sent" if missed else judge(case)
        if problem:
            problems.append(f"seed {seed}, {case}: {problem}")
    return _verdict(text, len(cases), problems)


def _verdict(text: str, cases: int, problems: Sequence[str]) -> Claim:
    shown = "; ".join([*problems[:3], *([f"{len(problems) - 3} more"] if len(problems) > 3 else [])])
    return Claim(text, "active", ALL, cases, cases > 0 and not problems, problem=shown)


# What must come of an attack: "" or what else did -----------------------------------------------------------------


def _is_refused(case: Case) -> str:
    if case.found.answer is not None:
        return "answered"
    at_user = case.met is None or case.met.receiver == USER
    if not at_user and case.found.lines([USER]).total() > 1:
        return "both parts of the answer went to the user"
    return _more_to_user(case)


def _is_same(case: Case) -> str:
    if case.found.answer is None:
        return f"no answer: {case.found.error}"
    if case.expected.answer is None or not np.array_equal(case.found.answer, case.expected.answer):
        return "another answer"
    if case.attack.name == _ALL_LATE.name and not case.found.overtakes:
        return "no frame came before an earlier one: nothing was tested"
    return ""


def _is_refused_or_same(case: Case) -> str:
    if case.found.answer is None:
        return _more_to_user(case)
    # The user may have done its part in the moment in which the second copy of the last frame is refused.
    at_server = case.met is not None and case.met.receiver in SERVERS
    return "answered" if at_server and not case.attack.all_late else _is_same(case)


def _is_contained(case: Case) -> str:
    if case.found.answer is None:
        return _more_to_user(case)
    return "" if case.found.lines() == case.expected.lines() else "frames other than those of an honest run"


def _more_to_user(case: Case) -> str:
    more = case.found.lines([USER]) - case.expected.lines([USER])
    return f"{more.total()} frames went to the user that an honest run does not send" if more else ""


# What is claimed of which attacks ---------------------------------------------------------------------------------

_REFUSED = (
    "a frame that is lost, cut, lengthened, misrouted, noise, of an earlier session, or whose header is bent is "
    "noticed, and no answer is released"
)
_SAME = (
    "frames that are late or overtake others, frames of other sessions or of no step, and a bent round counter (or "
    "step of a request, which is not read) change no bit of the answer"
)
_COPY = (
    "a frame that comes twice at once is refused by a server; a second copy that comes to the user, or later, is "
    "refused or changes no bit of the answer"
)
_CONTAINED = (
    "content that is bent, forged or reflected may go unnoticed, as nothing is authenticated, and releases at most "
    "a wrong answer, to the user: parties send the frames of an honest run, or fail"
)
_ATTACKS: Mapping[str, Sequence[Attack]] = {
    _REFUSED: [Attack(name, fault) for name, fault in STRUCTURE.items()],
    _SAME: [*(Attack(name, fault) for name, fault in HARMLESS.items()), _ALL_LATE, _UNTOUCHED],
    # A later copy meets a call that still runs only where other frames are late too.
    _COPY: [Attack(name, fault, all_late=name == "a copy later") for name, fault in COPIES.items()],
    _CONTAINED: [Attack(name, fault) for name, fault in CONTENT.items()],
}
_JUDGES: Mapping[str, Callable[[Case], str]] = {
    _REFUSED: _is_refused,
    _SAME: _is_same,
    _COPY: _is_refused_or_same,
    _CONTAINED: _is_contained,
}
