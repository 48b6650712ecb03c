"""Inputs for the shape rung: rows of every label, of members and non-members, and of every accept pattern.

Random networks, random rows, and the float64 reference as the judge; the servers' own bits confirm the patterns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from siguard.actors.debug import DebugProbe, Internals
from siguard.guard import reference
from siguard.guard.config import GuardConfig
from siguard.guard.lanes import Lane, lanes_of
from siguard.nn.model import Defender, FloatArray, Model
from siguard.proofsim.patching import replaced_method

BoolArray = npt.NDArray[np.bool_]

#: Rows among which cases are looked for.
_POOL = 3000
#: A row counts only if noise on its logits leaves label, membership and pattern as they are, so many times.
_SHAKEN = 3
#: Networks tried before the search is given up.
_ATTEMPTS = 50


class Setting(NamedTuple):
    """Widths and schedule of one set of runs.

    model, defender: widths; siguard: schedule of the published policy; covers: rows per thing to be covered;
    seeds: schedulers for one and the same row.  over_tcp: queries over sealed TCP are compared, too.
    noise: of logits, by which no row must change: servers round, and a row at the edge would go either way.
    """

    model: tuple[int, ...]
    defender: tuple[int, ...]
    siguard: GuardConfig
    covers: int
    seeds: int
    over_tcp: bool = False
    noise: float = 2e-2

    @property
    def outer(self) -> int:
        """Number of outer runs of the published policy."""
        return int(self.siguard.resolved().outer or 0)

    @property
    def decay(self) -> GuardConfig:
        """`decay` with as many steps, at most its own number."""
        own = GuardConfig("decay")
        return own.with_values(inner=min(self.siguard.resolved().inner or 1, own.iterations))

    def config(self, policy: str) -> GuardConfig:
        """How a policy runs here."""
        return {"siguard": self.siguard, "decay": self.decay}.get(policy) or GuardConfig(policy)

    def __str__(self) -> str:
        full = self.siguard.resolved()
        return f"{full.outer} x {full.inner}, h {'-'.join(map(str, self.defender))}"


@dataclass(frozen=True, eq=False)
class Cases:
    """Networks, rows and what the float64 reference says of them.

    features: (n, d).  logits: (n, C), the model's.  label, member: (n,), as the model and h judge.
    patterns: (n,), which outer runs of ``siguard`` are accepted, as text: "01" is the second of two.
    decays: (n,), whether the noise of ``decay`` is accepted.
    """

    setting: Setting
    model: Model
    defender: Defender
    features: FloatArray
    logits: FloatArray
    label: npt.NDArray[np.intp]
    member: BoolArray
    patterns: list[str]
    decays: BoolArray

    def describe(self, row: int) -> str:
        """A row in words."""
        who = "member" if self.member[row] else "non-member"
        accepts = f"siguard accepts {self.patterns[row]}, decay {self.decays[row]:d}"
        return f"row {row} (label {self.label[row]}, {who}, {accepts})"


def all_patterns(outer: int) -> list[str]:
    """All 2^outer accept patterns."""
    return [f"{number:0{outer}b}" for number in range(1 << outer)]


def walk_lanes(ok: BoolArray, outer: int) -> list[str]:
    """Accept patterns from one bit per lane, (n, lanes): the lanes that the published loop would go through."""
    index = {lane: position for position, lane in enumerate(lanes_of(outer))}
    return ["".join(_walk(bits, index, outer)) for bits in ok]


def _walk(bits: BoolArray, index: dict[Lane, int], outer: int) -> Iterator[str]:
    accepted = 0
    for run in range(outer):
        taken = int(bits[index[Lane(run, accepted)]])
        accepted += taken
        yield str(taken)


def find_cases(setting: Setting, seed: int) -> Cases:
    """Networks and rows that cover every label with either membership, and every accept pattern of both policies.

    Raises ValueError where `_ATTEMPTS` random networks have no such rows.
    """
    for attempt in range(_ATTEMPTS):
        rng = np.random.default_rng([seed, attempt])
        model, defender = _networks(setting, rng)
        features = rng.normal(size=(_POOL, setting.model[0]))
        logits = model(features)
        seen = _properties(logits, defender, setting)
        stable = list(range(_POOL))
        for _ in range(_SHAKEN):
            near = logits[stable] + rng.normal(size=(len(stable), logits.shape[1])) * setting.noise
            shaken = _properties(near, defender, setting)
            stable = [row for row, found in zip(stable, shaken, strict=True) if seen[row] == found]
        rows = _cover(seen, stable, setting)
        if rows is not None:
            label, member, patterns, decays = zip(*[seen[row] for row in rows], strict=True)
            return Cases(
                setting,
                model,
                defender,
                features[rows],
                logits[rows],
                np.array(label),
                np.array(member),
                list(patterns),
                np.array(decays),
            )
    raise ValueError(f"no rows for {setting} with seed {seed}")


#: Label, membership and accept pattern of a row, and whether `decay` accepts.
_Seen = tuple[int, bool, str, bool]


def _networks(setting: Setting, rng: np.random.Generator) -> tuple[Model, Defender]:
    """Random networks; every label is frequent, and h says "member" of half the rows."""

    def layers(widths: Sequence[int], gain: float) -> list[tuple[FloatArray, FloatArray]]:
        return [
            (rng.normal(size=(m, n)) * gain / np.sqrt(m), rng.normal(size=n) * 0.3) for m, n in pairwise(widths)
        ]

    def shifted(network: Any, by: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        W, b = network.layers[-1]
        return [*network.layers[:-1], (W, b - by)]

    probe = rng.normal(size=(1000, setting.model[0]))
    model = Model(layers(setting.model, 2.5))
    model = Model(shifted(model, model(probe).mean(axis=0)))
    defender = Defender(layers(setting.defender, 2.5))
    return model, Defender(shifted(defender, np.median(defender(reference.softmax(model(probe))), axis=0)))


def _properties(logits: FloatArray, defender: Defender, setting: Setting) -> list[_Seen]:
    member = defender(reference.softmax(logits))[:, 0] > 0
    config = setting.siguard.resolved()
    # A lane is one outer run with its own public parameters.
    ok = [
        reference.guard(
            logits,
            defender,
            config.with_values(outer=1, learning_rate=lane.learning_rate(config), c3=lane.c3(config)),
        ).accepted
        for lane in lanes_of(setting.outer)
    ]
    patterns = walk_lanes(np.stack([bits for bits in ok if bits is not None], axis=1), setting.outer)
    decays = reference.guard(logits, defender, setting.decay).accepted
    assert decays is not None  # noqa: S101 - the policy validates its noise
    return list(zip(logits.argmax(axis=1).tolist(), member.tolist(), patterns, decays.tolist(), strict=True))


def _cover(seen: Sequence[_Seen], stable: Sequence[int], setting: Setting) -> list[int] | None:
    """A few rows in which everything occurs ``covers`` times; None if something does not."""
    wanted: dict[object, int] = dict.fromkeys(all_patterns(setting.outer), setting.covers)
    wanted |= {("decays", accepted): setting.covers for accepted in (False, True)}
    wanted |= {(label, member): setting.covers for label in range(setting.defender[0]) for member in (False, True)}
    rows = []
    for row in stable:
        label, member, pattern, decays = seen[row]
        useful = [thing for thing in (pattern, ("decays", decays), (label, member)) if wanted[thing] > 0]
        if useful:
            rows.append(row)
        for thing in useful:
            wanted[thing] -= 1
    return None if any(wanted.values()) else rows


@contextmanager
def accept_patterns() -> Iterator[list[list[str]]]:
    """While open, each call with ``debug_open`` appends the accept pattern of each of its rows to the list.

    They are read off what a policy names for the probe; servers send what they always send.
    """
    collected: list[list[str]] = []
    internals = DebugProbe.internals

    def kept(probe: DebugProbe, config: GuardConfig) -> Internals:
        found, outer = internals(probe, config), config.resolved().outer or 1
        if "pattern" in probe._parts:
            lanes = np.arange(len(lanes_of(outer)))
            collected.append(walk_lanes((probe.open("pattern")[:, None] >> lanes & 1).astype(bool), outer))
        elif "runs" in probe._parts:
            collected.append(["".join(map(str, row)) for row in probe.open("runs").tolist()])
        elif found.accepted is not None:
            if outer > 1:
                raise ValueError("the accept bits of so many outer runs are not named for the probe")
            collected.append([f"{accepted:d}" for accepted in found.accepted])
        return found

    with replaced_method(DebugProbe, "internals", kept):
        yield collected
