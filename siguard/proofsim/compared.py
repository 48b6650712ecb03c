"""Batches of views to compare: a member's with a non-member's, and real ones with simulated ones."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import trio

from siguard.actors.server import USER
from siguard.actors.session import roles_for
from siguard.guard.query import answer_query
from siguard.mpc.party import DEALER, Party
from siguard.proofsim.claims import Corrupted
from siguard.proofsim.distinguisher import Distinguished, distinguish, features_of_words, views_needed
from siguard.proofsim.keys import dealt_as_in
from siguard.proofsim.membership import FEWER_ROWS, PairedQueries, paired_queries
from siguard.proofsim.queries import Query, run_real, share_networks
from siguard.proofsim.recorder import Recorder
from siguard.proofsim.recordings import QUICK, small_networks
from siguard.proofsim.rowwise import words_of_rows
from siguard.proofsim.simulation import run_alone, uniform_from
from siguard.proofsim.statistics import Outcome, g_test, low_bits, top_bits
from siguard.proofsim.steering import steered_by
from siguard.proofsim.view import Event, Message, View
from siguard.ring import Z64, RingArray
from siguard.transport.frame import SESSION_BYTES, Frame, Kind, encode_frame

_DEALER = "S2"
#: Elements of a message that a test looks at.
_ELEMENTS = 1 << 16
#: Power with which a planted leak is found: one that is missed by chance would fail a run.
_SURE = 1 - 1e-7


@dataclass(frozen=True)
class MemberViews:
    """Real views of members and of non-members for the same answer and coins; row by row a pair.

    same_tape: the non-members' view with what stays free of the masks as in the members'; other_tape: drawn anew.
    kept: the rows whose answers agree; its length is the number of rows in the batch.
    """

    members: View
    same_tape: View
    other_tape: View
    kept: npt.NDArray[np.bool_]

    def of(self, corrupted: Corrupted) -> MemberViews:
        """What a smaller set sees of it."""

        def part(view: View) -> View:
            return View(corrupted, [event for event in view.events if event.party in corrupted.parties])

        return MemberViews(part(self.members), part(self.same_tape), part(self.other_tape), self.kept)


def member_views(policy: str, server: str, seed: int, rows: int) -> MemberViews:
    """Views of one server and the user of a batch of pairs; see `siguard.proofsim.membership`.

    For roles 0 and 1 in the hybrid model of keys: of each they have shares of its values where they evaluate it.
    """
    corrupted = Corrupted(server, True)
    role = roles_for(_DEALER).index(server)
    pairs: PairedQueries = trio.run(paired_queries, policy, role, seed, rows)

    def view(query: Query, run: str, tape: int) -> View:
        trusted = pairs.member_run if run == "member" else pairs.other_run
        recorder = Recorder(steered_by(trusted, _DEALER, tape))
        # A dealer makes keys, of what it knows, and is given none: it makes real ones.
        with nullcontext() if role == DEALER else dealt_as_in(trusted):
            trio.run(partial(run_real, query, pairs.networks, seed=tape, dealer=_DEALER, recorder=recorder))
        return _without_the_owner_of_the_logits(recorder, corrupted)

    return MemberViews(
        view(pairs.member, "member", seed),
        view(pairs.other, "other", seed),
        view(pairs.other, "other", seed + 1),
        pairs.kept,
    )


def _without_the_owner_of_the_logits(recorder: Recorder, corrupted: Corrupted) -> View:
    """The view of the set.

    In these runs one party shares the logits and receives the answer.  Only the second is the user's; the first is
    what the test role upstream does, or the model before the guard.
    """
    events: list[Event] = []
    for event in recorder.events(corrupted.parties):
        if event.party != USER or (isinstance(event, Message) and event.received):
            events.append(event)
    return View(corrupted, events)


def differences(views: MemberViews) -> list[str]:
    """Where a pair's views differ on the same tape: nowhere, in the server's part and in the rows that are kept."""
    corrupted = views.members.corrupted
    server = views.of(Corrupted(corrupted.server, False))
    problems = server.members.diff(server.same_tape)
    one, other = (
        {m.peer: m.array[views.kept] for m in _to_user(view)} for view in (views.members, views.same_tape)
    )
    if corrupted.server == _DEALER:
        # What roles 0 and 1 have in common is honest, and hides the one's part of a key from the user: of their two
        # parts only the sum is the same.
        one, other = ({"both": sum(parts.values(), Z64.zeros(1))} for parts in (one, other))
    for peer in one:
        if not np.array_equal(one[peer], other[peer]):
            problems.append(f"the user's part from {peer} differs in rows with the same answer")
    return problems


def _to_user(view: View) -> list[Message]:
    return sorted((m for m in view.messages if m.party == USER), key=lambda m: m.peer)


def tell_apart(views: MemberViews, seed: int, alpha: float) -> tuple[Distinguished, Distinguished, float]:
    """Train a distinguisher on the views of the rows that are kept; what is free of the tapes is drawn anew.

    It is given a summary of every draw and message (`siguard.proofsim.rowwise`).

    Returns what it found, what it found of a planted leak, and the advantage that the planted leak gives: the
    smallest for which there are enough views to be sure of it, so that finding nothing means something.
    """
    member, other = (
        features_of_words([words[views.kept] for words in words_of_rows(view, len(views.kept))])
        for view in (views.members, views.other_tape)
    )
    found = distinguish(member, other, seed, alpha=alpha)
    rows, features = member.shape
    sizes = np.arange(0.02, 0.5, 0.01)
    enough = bisect_left(sizes, True, key=lambda size: views_needed(size, features, alpha, _SURE) <= rows)
    advantage = float(sizes[enough]) if enough < len(sizes) else 0.5
    rng = np.random.default_rng([seed, 0x9A])
    column = int(rng.integers(features))
    # Where a pair's coins are the same the bit may be as well: it is made uniform, and then set for members and
    # cleared for others, each with probability 2 x advantage.
    member[:, column], other[:, column] = rng.integers(0, 2, (2, rows))
    member[rng.random(rows) < 2 * advantage, column] = 1.0
    other[rng.random(rows) < 2 * advantage, column] = 0.0
    return found, distinguish(member, other, seed, alpha=alpha), advantage


# --- real against simulated -------------------------------------------------------------------------------


def real_and_simulated(policy: str, server: str, seed: int, rows: int) -> tuple[View, View]:
    """Views of one server of a batch of queries: one real, one simulated, both on fresh tapes."""
    _, defender = small_networks(seed)
    rng = np.random.default_rng([seed, 0x7E])
    query = Query.of_logits(rng.normal(size=(rows, defender.classes)), defender, QUICK[policy])
    networks = share_networks(query, seed)
    corrupted = Corrupted(server, False)
    real = Recorder()
    trio.run(partial(run_real, query, networks, seed=seed, dealer=_DEALER, recorder=real))
    view = real.view(corrupted)
    simulated = Recorder(names=real.steps)

    def posted(sender: str, step: bytes, payload: RingArray) -> None:
        frame = Frame(Kind.DATA, bytes(SESSION_BYTES), step, 0, payload)
        simulated.note_frame(sender, server, encode_frame(frame))

    async def protocol(party: Party) -> None:
        shape = (query.value.shape[0], query.value.shape[1])
        await answer_query(party, shape, None, networks[server].defender, query.config, query.plan, 0)

    alone = partial(
        run_alone,
        protocol,
        roles_for(_DEALER).index(server),
        uniform_from(np.random.default_rng([seed, 0x51])),
        simulated.randomness,
        seed=seed + 1,
        dealer=_DEALER,
        session=bytes(SESSION_BYTES),
        observe_posted=posted,
        observe_sent=lambda receiver, data: simulated.note_frame(server, receiver, data),
    )
    trio.run(alone)
    return view, simulated.view(corrupted)


def compare_with_simulated(
    policy: str, server: str, seed: int, alpha: float, rows: int = FEWER_ROWS
) -> list[Outcome]:
    """Tests of a simulated view against a real one: step by step what is received, and rows by a distinguisher.

    alpha: level of all of them together.
    """
    real, simulated = real_and_simulated(policy, server, seed, rows)
    pairs = list(zip(_by_step(real), _by_step(simulated), strict=True))
    level = alpha / (len(pairs) + 1)
    rng = np.random.default_rng([seed, 0xE7])
    outcomes: list[Outcome] = [
        g_test(_ends(one.array, rng), _ends(other.array, rng), alpha=level)
        for one, other in pairs
        if one.array.size >= rows
    ]
    features = [features_of_words(words_of_rows(view, rows)) for view in (real, simulated)]
    return [*outcomes, distinguish(features[0], features[1], seed, alpha=level)]


def _by_step(view: View) -> list[Message]:
    return sorted((m for m in view.received if m.kind == Kind.DATA), key=lambda m: (m.step, m.peer))


def _ends(array: RingArray, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Joint bins of the two highest bits and the two lowest, of at most `_ELEMENTS` elements."""
    flat = array.reshape(-1)
    values = (flat if flat.size <= _ELEMENTS else flat[rng.integers(0, flat.size, _ELEMENTS)]).astype(np.uint64)
    bits = max(4, 8 * array.itemsize)
    return np.stack([top_bits(values, bits, 2), low_bits(values, 2)], axis=1)
