"""Rungs 1 and 2 on tiny rings: all inputs, all sharings, all randomness; views counted, no statistics.

One enumeration serves both: real views of any two hidden inputs against each other ("exact"), and real against
simulated views ("simulation").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import trio

from siguard.guard.policy import POLICIES
from siguard.proofsim.claims import ALL, CORRUPTED_SETS, Claim, Corrupted, Scope
from siguard.proofsim.enumeration import Instance
from siguard.proofsim.exact import enumerate_views
from siguard.proofsim.instances import queries, sequences, single_gates
from siguard.proofsim.membership import CONFIGS
from siguard.proofsim.recordings import QUICK
from siguard.proofsim.walk import gates_of_the_package, policy_modules
from siguard.proofsim.wide import coupled, wide_cases

#: Whether the adversary is given the coins of truncation, as the claim says.  A negative control says no.
COINS_ARE_GIVEN = True


def check(scope: Scope) -> Iterator[Claim]:
    """Every instance for every corrupted set in scope; on Z_2 with each server as dealer."""
    instances = [*single_gates(scope.full), *sequences(scope.full)]
    instances += [
        replace(instance, name=f"{instance.name}, dealer {dealer}", sessions=((0, dealer),))
        for instance in single_gates(False)
        for dealer in ("S0", "S1")
        if max(one.bits for one in instance.rings) == 1
    ]
    servers = [one for one in scope.corrupted if not one.user]
    # {S_i, U} without a user in the protocol is {S_i}: shown there, unless only the larger set was asked for.
    servers += [s for one in scope.corrupted if one.server and (s := Corrupted(one.server, False)) not in servers]
    yield from _claims(instances, servers)
    yield from _claims(queries(scope.full), scope.corrupted)
    yield from _wide_claims(servers, range(3 if scope.full else 1))
    yield from coverage()


def battery(seed: int) -> Iterator[Claim]:
    """What a negative control is shown: everything that takes milliseconds."""
    servers = [one for one in CORRUPTED_SETS if not one.user]
    every = [one for one in [*single_gates(False), *sequences(False)] if one.name not in _SLOW]
    # Leaks in addresses show first: most others show in the first gates too.
    yield from _claims([one for one in every if len(one.sessions) > 1], servers)
    yield from _claims([one for one in queries(False) if one.name not in _SLOW], CORRUPTED_SETS)
    yield from _claims([one for one in every if _bits(one) <= 2 and len(one.sessions) == 1], servers)
    yield from _wide_claims(servers, range(1))


#: A few tenths of a second for each set.
_SLOW = {
    "piecewise: Z_4",
    "query: sign by key of a sum, Z_4",
    "pair of gates: square, times itself, Z_4",
    "pair of gates: truncated square, truncated, Z_4",
    "query: product, Z_4",
    "query: truncated product, Z_4",
}


def _bits(instance: Instance) -> int:
    return sum(one.bits for one in instance.rings)


def coverage() -> Iterator[Claim]:
    """Every gate of the package has a case here, every policy what it needs; a new one without fails by name."""
    covered = {name for one in [*single_gates(True), *queries(True)] for name in one.gates}
    covered |= {name for one in wide_cases() for name in one.gates}
    names = [gate.name for gate in gates_of_the_package()]
    missing = [name for name in names if name not in covered]
    problem = (
        f"no instance covers {', '.join(missing)}: add one to siguard/proofsim/instances.py" if missing else ""
    )
    yield Claim(
        "every gate has an instance or a hybrid case", "exact", ALL, len(names), not missing, problem=problem
    )
    modules = policy_modules()
    lacking = [
        name
        for name in sorted({*modules, *POLICIES})
        if not (name in modules and name in POLICIES and name in QUICK and name in CONFIGS)
        or not callable(POLICIES[name].simulator)
    ]
    problem = (
        f"no recording, pairs or simulator for {', '.join(lacking)}: see docs/adding-a-policy.md" if lacking else ""
    )
    text = "every policy has a cost, a simulator, recordings and pairs"
    yield Claim(text, "exact", ALL, len(modules), not lacking, problem=problem)


def _wide_claims(servers: Sequence[Corrupted], seeds: Sequence[int]) -> Iterator[Claim]:
    """Gates too wide to enumerate: the hybrid model, in every role that a server may have."""
    for case in wide_cases() if servers else ():
        found = [trio.run(coupled, case.run, case.hidden, role, seed) for seed in seeds for role in range(3)]
        problem, runs = next(filter(None, found), ""), len(found) * len(case.hidden)
        claim = f"no message, draw or call depends on the inputs, hybrid model: {case.name}, 64 bits"
        for one in servers:
            yield Claim(claim, "exact", str(one), runs, not problem, problem=problem)


def _claims(instances: Sequence[Instance], corrupted: Sequence[Corrupted]) -> Iterator[Claim]:
    for instance in instances:
        for one in corrupted:
            yield from claims_of(instance, one)


def claims_of(instance: Instance, corrupted: Corrupted) -> Iterator[Claim]:
    """What one enumeration shows: equal views and right values, and equality with the simulated view."""
    found = trio.run(partial(enumerate_views, instance, corrupted, coins=COINS_ARE_GIVEN))
    hidden, simulated = found.distances
    problem = f"views differ by total variation {hidden:.3g}" if hidden else ""
    if found.wrong:
        problem += f"{'; ' if problem else ''}{found.wrong} of {found.cases} values are wrong"
    yield Claim(
        f"equal views of {instance.name}", "exact", str(corrupted), found.cases, not problem, problem=problem
    )
    problem = f"real and simulated views differ by total variation {simulated:.3g}" if simulated else ""
    claim = f"simulated view of {instance.name}"
    yield Claim(claim, "simulation", str(corrupted), found.cases, not problem, problem=problem)
