"""Rung 4: replay and content of the whole guard.

Views are replayed by the corrupted parties' own code, simulated, and compared: real with simulated, a member's with
a non-member's that gets the same answer for the same coins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import trio

from siguard.actors.client import confidences_of
from siguard.actors.session import SERVERS, roles_for
from siguard.errors import SiguardError
from siguard.guard.config import GuardConfig
from siguard.mpc.party import DEALER
from siguard.nn.model import Defender, Model
from siguard.proofsim.bound import Coins
from siguard.proofsim.claims import Claim, Corrupted, Scope
from siguard.proofsim.compared import compare_with_simulated, differences, member_views, tell_apart
from siguard.proofsim.distinguisher import Distinguished
from siguard.proofsim.ideal import FreshParts, OwnParts, RecordedParts, same_parts
from siguard.proofsim.membership import FEWER_ROWS, MANY_ROWS, ROWS
from siguard.proofsim.queries import Networks, Query, WorldRun, run_ideal, run_real, share_networks
from siguard.proofsim.recordings import FULL, QUICK, Recording, record, small_networks
from siguard.proofsim.replay import replay
from siguard.proofsim.simulator import ideal_answers, same_answers, simulate
from siguard.proofsim.wide import first_difference
from siguard.ring import RingArray

Network = TypeVar("Network", Model, Defender)

RUNG = "content"
#: Level of a family of tests: 28 of them in a quick run and 52 in a full one stay below 1e-4 together.  A planted
#: leak is missed with less than that (`siguard.proofsim.compared`).
ALPHA = 1e-6


def check(scope: Scope) -> Iterator[Claim]:
    """Every policy and every corrupted set in scope."""
    servers = dict.fromkeys(one.server for one in scope.corrupted if one.server)
    for policy in scope.policies:
        config = (FULL if scope.full else QUICK)[policy]
        recording = trio.run(record, config, scope.seed)
        for corrupted in scope.corrupted:
            yield from _replayed_and_swapped(policy, recording, corrupted, scope.seed)
            yield _simulated(policy, recording, corrupted, scope.seed)
        yield from _functions(policy, config, tuple(servers), scope)
        alone = [one for one in scope.corrupted if one.server is None]
        if alone:
            # The user's part is the same whichever server looks on.
            yield from _membership(policy, "S0", alone, scope.seed, ROWS)
        for server in servers:
            # What is shown of {S_i, U} is shown of {S_i} in the same run.
            sets = [one for one in scope.corrupted if one.server == server]
            yield _coupled(policy, config, server, scope.seed)
            for seed in range(scope.seed, scope.seed + (3 if scope.full else 1)):
                yield from _membership(policy, server, sets, seed, MANY_ROWS if scope.full else ROWS)
            yield _alike(policy, server, scope.seed, ROWS if scope.full else FEWER_ROWS)


def battery(seed: int) -> Iterator[Claim]:
    """What a negative control is shown: one policy with every gate, and one that is quick."""
    for policy in ("siguard", "label"):
        config = QUICK[policy]
        yield from _functions(policy, config, ("S0", "S2"), Scope((policy,), seed=seed), dealers=("S2",))
        for server in ("S0", "S2"):
            yield _coupled(policy, config, server, seed)
        recording = trio.run(partial(record, config, seed, queries=1))
        for corrupted in (Corrupted("S0", True), Corrupted("S1", True)):
            yield from _replayed_and_swapped(policy, recording, corrupted, seed)


def _for_all(claim: Claim, sets: Iterable[Corrupted]) -> Iterator[Claim]:
    return (replace(claim, corrupted=str(one)) for one in sets)


def _claim(text: str, corrupted: Corrupted, cases: int, problem: str, detectable: float = 0.0) -> Claim:
    return Claim(text, RUNG, str(corrupted), cases, not problem, detectable, problem)


# --- replay and simulation of whole sessions --------------------------------------------------------------


def _replayed_and_swapped(policy: str, recording: Recording, corrupted: Corrupted, seed: int) -> Iterator[Claim]:
    """The view is complete: the parties' own code, given it, sends the same bytes and gets the same answers.

    Then honest messages are swapped for simulated ones, made for the same answers and coins (only the masks of
    openings are free): the user's own code must come to the same answers, the server's to the same parts.
    """
    view = recording.view(corrupted)
    problem, swapped = "", ""
    try:
        again = trio.run(replay, view)
        problem = next(iter(again.problems), "")
        given = again.coins if corrupted.server else None
        simulated = trio.run(simulate, view, same_answers(view), seed, given)
        played = trio.run(replay, simulated)
        swapped = next(iter(played.problems), "")
        if simulated.shape() != view.shape():
            swapped = "the simulated view has another shape than the real one"
        elif simulated.answers != view.answers:
            swapped = "the user's own code comes to another answer"
        elif corrupted.server and [m.payload for m in simulated.received] == [m.payload for m in view.received]:
            swapped = "no message was swapped"
        elif corrupted.server and not _same_coins(again.coins, played.coins):
            swapped = "the server's own code comes to other parts"
    except SiguardError as error:
        problem = swapped = str(error)
    yield _claim(f"replay reproduces the view: {policy}", corrupted, len(view.events), problem)
    remade = f"messages remade for the same coins give the same parts{' and answer' if corrupted.user else ''}"
    text = f"{remade}: {policy}"
    yield _claim(text, corrupted, len(view.events), swapped)


def _same_coins(one: Coins, other: Coins) -> bool:
    return one.keys() == other.keys() and all(
        one[session].keys() == other[session].keys()
        and all(same_parts(result, other[session][place]) for place, result in one[session].items())
        for session in one
    )


def _simulated(policy: str, recording: Recording, corrupted: Corrupted, seed: int) -> Claim:
    """The same for coins of the simulator's own: same shape, the user gets F(inputs; coins), and it replays."""
    view = recording.view(corrupted)
    problem = ""
    ideal = ideal_answers(recording.queries, recording.dealers, seed)
    given: dict[bytes, list[list[float]]] = {}

    async def functionality(
        session: bytes, role: int, parts: OwnParts, held: dict[str, Networks] | None
    ) -> RingArray:
        answer = await ideal(session, role, parts, held)
        given[session] = confidences_of(answer).tolist()
        return answer

    try:
        simulated = trio.run(simulate, view, functionality, seed)
        if simulated.shape() != view.shape():
            problem = "the simulated view has another shape than the real one"
        elif simulated.answers != given:
            problem = "the user's own code does not come to F(inputs; coins)"
        problem = problem or next(iter(trio.run(replay, simulated).problems), "")
    except SiguardError as error:
        problem = str(error)
    return _claim(f"simulated view replays to the answer: {policy}", corrupted, len(view.events), problem)


# --- the functionality ------------------------------------------------------------------------------------


def _functions(
    policy: str, config: GuardConfig, servers: Sequence[str], scope: Scope, dealers: Sequence[str] = SERVERS
) -> Iterator[Claim]:
    """The answer of a real run is F(inputs; coins) bit for bit, with a corrupted server's own parts as coins."""
    problems, cases = dict.fromkeys(servers, ""), 0
    queries = _queries(config, scope.seed)
    for number, dealer in enumerate(dealers):
        for query in queries if scope.full else [queries[number]]:
            networks = share_networks(query, scope.seed)
            real = trio.run(partial(run_real, query, networks, seed=scope.seed, dealer=dealer))
            cases += real.answer.size
            for server in servers:
                role = roles_for(dealer).index(server)
                problem = _differs_from_ideal(query, networks, real, role, dealer)
                problems[server] = problems[server] or problem
    for server, problem in problems.items():
        claim = _claim(f"the answer is F(inputs; coins): {policy}", Corrupted(server, False), cases, problem)
        yield from _for_all(claim, [one for one in scope.corrupted if one.server == server])


def _differs_from_ideal(
    query: Query, networks: Mapping[str, Networks], real: WorldRun, role: int, dealer: str
) -> str:
    parts = RecordedParts(real.results[role])
    try:
        ideal = trio.run(partial(run_ideal, query, networks, role, parts, dealer=dealer))
    except (SiguardError, AssertionError) as error:
        return f"dealer {dealer}: {error}"
    if not np.array_equal(ideal.answers["reveal"], real.answer):
        return f"dealer {dealer}: the answer is not F(inputs; coins)"
    for gate, path, output in ideal.handed_out:
        # A dealer gets nothing of what it deals; nobody gets anything of a reveal.
        if output is None or (gate == "arithmetic.deal" and role == DEALER):
            continue
        if not same_parts(output, real.results[role][gate, path]):
            return f"dealer {dealer}: {gate} at {path!r} gave the server something else"
    return ""


def _coupled(policy: str, config: GuardConfig, server: str, seed: int) -> Claim:
    """In the hybrid model, three networks and inputs: see `siguard.proofsim.wide`."""
    role = SERVERS.index(server)
    problem, logs = "", []
    queries = _queries(config, seed)
    held = {server: share_networks(queries[0], seed)[server]}
    for query in queries:
        networks = share_networks(query, seed, held)
        try:
            trusted = trio.run(run_ideal, query, networks, role, FreshParts(seed))
            logs.append({(gate, path): output for gate, path, output in trusted.handed_out})
        except (SiguardError, AssertionError) as error:
            problem = problem or str(error)
    problem = problem or first_difference(logs)
    text = f"no message, draw or call depends on networks and inputs, hybrid model: {policy}"
    return _claim(text, Corrupted(server, False), len(logs), problem)


def _queries(config: GuardConfig, seed: int) -> list[Query]:
    """Queries with other networks, features, labels and accept bits, of one shape."""
    found = []
    for number in range(3):
        rng = np.random.default_rng([seed, number])
        model, defender = small_networks(seed)
        scale = (1.0, -2.0, 0.25)[number]
        # The public bounds that go with the shares stay as they are when the rows of a first layer are turned.
        features = rng.normal(size=(2, model.shape[0])) * scale
        found.append(Query.of_features(features, _turned(model, number), _turned(defender, number), config))
    return found


def _turned(network: Network, number: int) -> Network:
    (W, b), *rest = network.layers
    return type(network)([(np.roll(W, number, axis=0), b), *rest])


# --- members against non-members --------------------------------------------------------------------------


def _membership(policy: str, server: str, sets: Sequence[Corrupted], seed: int, rows: int) -> Iterator[Claim]:
    """Views of pairs: the same bits on the same tape; on other tapes, nothing for a classifier to find."""
    both = member_views(policy, server, seed, rows)
    pairs = int(both.kept.sum())
    # An answer of `none` fixes the row but for its resolution: its pairs are rows, not members and non-members.
    pair = "two rows" if policy == "none" else "a member and a non-member"
    text = f"equal views of {pair}, same answer, same coins: {policy}"
    for corrupted in sets:
        problem = next(iter(differences(both.of(corrupted))), "")
        yield _claim(text, corrupted, pairs, problem if pairs else "no pair gets one answer for the same coins")
    # The largest of the sets is shown; the others see less.
    largest = max(sets, key=lambda one: len(one.parties))
    found, planted, advantage = tell_apart(both.of(largest), seed, ALPHA)
    result = _told_apart(f"no distinguisher of members: {policy}", found, advantage, leak=False)
    yield from _for_all(result, sets)
    text = f"a planted leak of members is found: {policy}, advantage {advantage:.2f}"
    yield from _for_all(_told_apart(text, planted, advantage, leak=True), sets)


def _alike(policy: str, server: str, seed: int, rows: int) -> Claim:
    """Real and simulated views of a batch: what is received at each step, and rows as a whole."""
    outcomes = compare_with_simulated(policy, server, seed, ALPHA, rows)
    level = ALPHA / len(outcomes)
    problem = next((one.lacks for one in outcomes if one.lacks), "")
    alarm = next((one for one in outcomes if one.p_value < level), None)
    if alarm is not None:
        problem = f"{alarm.what} (p = {alarm.p_value:.1e})"
    text = f"real and simulated views alike: {policy}"
    return _claim(text, Corrupted(server, False), rows, problem, max(one.detectable for one in outcomes))


def _told_apart(text: str, result: Distinguished, advantage: float, *, leak: bool) -> Claim:
    problem = result.lacks
    if not problem and (result.p_value < ALPHA) != leak:
        problem = f"accuracy {result.accuracy:.2f} on {result.n} views (p = {result.p_value:.1e})"
    return Claim(text, RUNG, "", result.n, not problem, advantage, problem)
