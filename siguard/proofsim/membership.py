"""Pairs of a member and a non-member query that get the same answer for the same coins, and are not the same query.

`siguard`: z2 = z1 + e(z1), exact in the ring: the guard moves z1, a member to h, across h = 0 and accepts; z2
starts where z1 ended, is a non-member to h, and its own noise is *not* accepted, so that it is answered as it is.
Accept bits differ, membership differs, the answer is the same.  `decay`: the same.
`linesearch`: two logits that differ in the label's only: the candidates are the same, the member is more confident.
`label`: natural pairs, a row of handwritten digits that a model was trained on and one that it was not.
`none`: rows that differ below the resolution of an answer; nothing else can agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from siguard.actors.debug import DebugProbe
from siguard.guard import reference
from siguard.guard.config import GuardConfig
from siguard.guard.start import LOGIT_BITS
from siguard.mpc.splines import ARGUMENT_BITS
from siguard.nn.model import Defender, FloatArray
from siguard.proofsim.ideal import FreshParts, TrustedParty
from siguard.proofsim.queries import Networks, Query, run_ideal, share_networks
from siguard.ring import Z64, RingArray, encode

if TYPE_CHECKING:
    from siguard.proofsim.shape_leak import Target

#: Rows in one batch, quick and full: primes, so that it is seen which axis of an array holds the rows.
ROWS, MANY_ROWS = 521, 2053
#: Of a real batch beside a simulated one, in a quick run; in a full one `ROWS`.
FEWER_ROWS = 257
#: Fewer classes mean fewer entries whose rounding has to agree: with two, half of the pairs get one answer.
CLASSES = {"siguard": 2, "decay": 2, "linesearch": 3, "none": 3}
_CANDIDATES = 4000
_DISTINCT = 100
#: Policies that add noise to the logits and validate it.
_MOVING = ("siguard", "decay")

CONFIGS = {
    "siguard": GuardConfig("siguard", outer=1, inner=2),
    "decay": GuardConfig("decay", inner=1),
    "linesearch": GuardConfig("linesearch"),
    "label": GuardConfig("label"),
    "none": GuardConfig("none"),
}


@dataclass(frozen=True)
class PairedQueries:
    """A batch of pairs for one corrupted server, with the ideal runs that they come from.

    kept: (rows,) bool, where the answers agree, and where membership and decisions differ as they should.
    """

    member: Query
    other: Query
    networks: dict[str, Networks]
    member_run: TrustedParty
    other_run: TrustedParty
    kept: npt.NDArray[np.bool_]


@cache
def classifier(classes: int) -> Defender:
    """A small h, above 0 for confident rows: what a membership classifier learns."""
    rng = np.random.default_rng(5)
    first = np.concatenate([np.eye(classes), rng.normal(size=(classes, 5)) / 4], axis=1)
    bias = np.concatenate([np.full(classes, -0.5), rng.normal(size=5) / 10])
    last = np.concatenate([np.full(classes, 4.0), rng.normal(size=5) / 4])
    return Defender([(first, bias), (last[:, None], np.array([-0.8]))])


async def paired_queries(policy: str, role: int, seed: int, rows: int = ROWS, dealer: str = "S2") -> PairedQueries:
    """Pairs for the server in ``role``; seed: of the coins, and of which rows are paired."""
    config = CONFIGS[policy]
    defender, first, partner = _rows(policy, seed, rows)
    member = Query(config, defender, None, _on_grid(first))
    networks = share_networks(member, seed)
    seen = DebugProbe()
    member_run = await run_ideal(member, networks, role, FreshParts(seed), dealer=dealer, probe=seen)
    if policy in _MOVING:
        # Where the optimisation ended, for the coins of this run, exactly: relative to the label, which is at 0.
        end = Z64.signed(seen.open("x")[:, 0]) * (1 - Z64.signed(seen.open("label")))
        other = Query(config, defender, None, Z64.constant(end << (LOGIT_BITS - ARGUMENT_BITS)))
    else:
        other = Query(config, defender, None, _on_grid(partner))
    seen_other = DebugProbe()
    other_run = await run_ideal(other, networks, role, FreshParts(seed), dealer=dealer, probe=seen_other)
    same = member_run.answers["reveal"] == other_run.answers["reveal"]
    kept = np.asarray(same.all(axis=1))
    kept &= np.asarray((member.value != other.value).any(axis=1))
    if policy in _MOVING:
        kept &= _accepted(seen, config) & ~_accepted(seen_other, config)
    if policy in (*_MOVING, "linesearch"):
        kept &= (_membership(member) > 0) & (_membership(other) <= 0)
    return PairedQueries(member, other, networks, member_run, other_run, kept)


def _accepted(seen: DebugProbe, config: GuardConfig) -> npt.NDArray[np.bool_]:
    accepted = seen.internals(config).accepted
    assert accepted is not None  # noqa: S101 - the policy validates its noise
    return accepted


def _membership(query: Query) -> FloatArray:
    """h of the rows, in float64."""
    logits = Z64.signed(query.value) / 2.0**LOGIT_BITS
    return query.defender(reference.softmax(logits))[:, 0]


def _on_grid(logits: FloatArray) -> RingArray:
    """Relative to the largest, at the fraction bits of x: what a guard rounds is then in its own steps only."""
    relative = encode(logits - logits.max(axis=1, keepdims=True), ARGUMENT_BITS)
    return Z64.constant(Z64.signed(relative) << (LOGIT_BITS - ARGUMENT_BITS))


def _rows(policy: str, seed: int, rows: int) -> tuple[Defender, FloatArray, FloatArray]:
    """h, a batch of member rows, and of their partners (for `siguard` the partners follow from a run)."""
    rng = np.random.default_rng([seed, 0x3E])
    if policy == "label":
        defender, member, partner = _natural_rows(rng, seed)
    else:
        found: dict[str, Callable[[np.random.Generator], tuple[FloatArray, FloatArray]]] = {
            "siguard": partial(_moved_rows, "siguard"),
            "decay": partial(_moved_rows, "decay"),
            "linesearch": _shifted_rows,
            "none": _flushed_rows,
        }
        defender, (member, partner) = classifier(CLASSES[policy]), found[policy](rng)
    order = np.arange(rows) % len(member)
    return defender, member[order], partner[order]


def _moved_rows(policy: str, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Members whose noise is accepted, and ends where noise is not: searched in float64, confirmed by the runs."""
    classes, config = CLASSES[policy], CONFIGS[policy]
    h = classifier(classes)
    z = rng.normal(size=(_CANDIDATES, classes)) * 2
    guarded = reference.guard(z, h, config)
    assert guarded.noise is not None  # noqa: S101 - the policy has noise
    assert guarded.accepted is not None  # noqa: S101 - and validates it
    end = z + guarded.noise
    again = reference.guard(end, h, config)
    assert again.accepted is not None  # noqa: S101 - as above
    margin = np.minimum(h(reference.softmax(z))[:, 0], -h(reference.softmax(end))[:, 0])
    good = guarded.accepted & ~again.accepted & (margin > 0.02)
    if not good.any():
        raise AssertionError("no row of this classifier is moved across h = 0 and then stays")
    return z[good][:_DISTINCT], end[good][:_DISTINCT]


def _shifted_rows(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    classes = CLASSES["linesearch"]
    z = rng.normal(size=(_CANDIDATES, classes))
    label = z.argmax(axis=1)
    sure, unsure = z.copy(), z.copy()
    sure[np.arange(len(z)), label] += 2.0
    h = classifier(classes)
    good = (h(reference.softmax(sure))[:, 0] > 0.05) & (h(reference.softmax(unsure))[:, 0] < -0.05)
    return sure[good][:_DISTINCT], unsure[good][:_DISTINCT]


@cache
def _digits(seed: int) -> Target:
    from siguard.proofsim.shape_leak import digits_target  # scikit-learn loads slowly

    return digits_target(seed)


def _natural_rows(rng: np.random.Generator, seed: int) -> tuple[Defender, FloatArray, FloatArray]:
    """Each member of a model of digits with a non-member that the model gives the same label."""
    target = _digits(seed)
    label = target.logits.argmax(axis=1)
    members, partners = [], []
    for row in np.flatnonzero(target.member == 1):
        others = np.flatnonzero((target.member == 0) & (label == label[row]))
        if len(others):
            members.append(row)
            partners.append(rng.choice(others))
    return target.defender, target.logits[members], target.logits[partners]


def _flushed_rows(rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    z = rng.normal(size=(_DISTINCT, CLASSES["none"]))
    z[np.arange(_DISTINCT), rng.integers(0, CLASSES["none"], _DISTINCT)] -= rng.uniform(20, 40, _DISTINCT)
    below = z < -15
    return z, np.where(below, z - rng.uniform(1, 20, z.shape), z)
