"""The guard as a function of secrets for SPU: jax, traced and compiled by `spu_guard.py`.

What is meant to be fast on SPU: comparisons, exponentials and divisions that do not depend on each other go into
one call; one-hot vectors that are used often are kept as arithmetic shares; the outer runs go side by side, for
every (c3, rate) they can reach, where the batch is small, and one after another where arithmetic counts more than
calls.  The state is relative to the label and the gradient normalised by the other classes, so that confident rows
keep theirs at 18 fraction bits.
"""

from __future__ import annotations

from typing import Any

import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np
from serving import (
    C1,
    C2,
    C3,
    C3_GROWTH,
    CANDIDATES,
    DECAY_RATES,
    DECAY_TOLERANCE,
    INNER,
    MARGIN,
    OUTER,
    RATE,
    RATE_GROWTH,
    pairs,
)

#: Bits of a number's fraction.
FRACTION = 18
#: Largest batch whose outer runs go side by side: measured, twice as fast at 1 and slower at 100.
SIDE_BY_SIDE = 20
#: Added to the label's entry so that it is never among the others; above any difference of logits.
FAR = 2.0**12
#: (c3, rate) that the three outer runs can have: after (), (yes), (no), (yes, yes), one of two, (no, no).
LANES = [
    (C3 * C3_GROWTH**accepted, RATE * RATE_GROWTH**rejected)
    for accepted, rejected in [(0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)]
]
Secret = Any  # traced by jax; shares when it runs


def arithmetic(bits: Secret, like: Secret) -> Secret:
    """The same numbers as arithmetic shares, which SPU then need not convert at each use."""
    return (bits + like) - like


def dot(x: Secret, y: Secret) -> Secret:
    """Row by row, (batch, 1)."""
    return total(x * y)


def total(x: Secret) -> Secret:
    """Sum of each row, (batch, 1)."""
    return jnp.sum(x, axis=-1, keepdims=True)


def largest(x: Secret) -> Secret:
    """One-hot of the largest entry of each row, lowest index first."""
    count = x.shape[-1]
    _, tally, offset = pairs(count)
    differences = jnp.concatenate([x[:, i : i + 1] - x[:, i + 1 :] for i in range(count - 1)], axis=-1)
    wins = (differences >= 0).astype(jnp.int32) @ tally + offset
    return arithmetic((wins == count - 1).astype(jnp.float32), x)


class Guard:
    """The policies on one model's h, whose weights are secret."""

    def __init__(self, layers: list[tuple[Secret, Secret]]) -> None:
        (self.W1, self.b1), (self.W2, self.b2), (self.W3, self.b3) = layers
        self.folded = (self.W2 * self.W3[:, 0]).T

    def forward(self, q: Secret) -> Secret:
        """h, (batch, 1)."""
        x = jnp.maximum(q @ self.W1 + self.b1, 0)
        return jnp.maximum(x @ self.W2 + self.b2, 0) @ self.W3 + self.b3

    def confidences(self, x: Secret, label: Secret, also: Secret | None = None) -> dict[str, Secret]:
        """Softmax of ``x``, what it is made of, and in the same call exp of ``also``."""
        classes = x.shape[-1]
        relative = x - dot(x, label)
        others = relative - FAR * label
        runner_up = largest(others)
        gap = dot(runner_up, relative)  # at most 0 while the label is kept
        exponents = [others - gap, gap] if also is None else [others - gap, gap, also]
        powers = jnp.exp(jnp.concatenate(exponents, axis=-1))
        v = powers[:, :classes]  # 0 at the label
        V = total(v)
        odds = powers[:, classes : classes + 1] * V
        reciprocals = 1.0 / jnp.concatenate([V, 1 + odds, 1 + V], axis=-1)
        share, own = v * reciprocals[:, :1], reciprocals[:, 1:2]
        rest = odds * own
        return {
            "q": rest * share + own * label,
            "share": share,
            "rest": rest,
            "odds": odds,
            "gap": gap,
            "runner_up": runner_up,
            "also": powers[:, classes + 1 :],
            "over_1_plus_V": reciprocals[:, 2:],
        }

    def step(self, x: Secret, z: Secret, label: Secret, odds0: Secret, c3: Any, rate: Any) -> Secret:
        """One normalised step of the noise optimisation."""
        classes, hidden = x.shape[-1], self.b1.shape[-1]
        noise = x - z
        now = self.confidences(x, label, noise - dot(noise, label))
        x1 = now["q"] @ self.W1 + self.b1
        growth = now["also"] * (1 + odds0) - (1 + now["odds"]) + 2.0 ** (1 - FRACTION)
        bits = jnp.concatenate([x1, growth, now["gap"]], axis=-1) > 0
        d1, rises, lost = bits[:, :hidden], bits[:, hidden : hidden + classes], bits[:, hidden + classes :]
        x2 = jnp.where(d1, x1, 0.0) @ self.W2 + self.b2
        d2 = x2 > 0
        h = jnp.where(d2, x2, 0.0) @ self.W3 + self.b3
        back = jnp.where(d1, d2.astype(jnp.float32) @ self.folded, 0.0) @ self.W1.T
        u = C1 * jnp.where(h > 0, back, -back) + c3 * jnp.where(rises, 1.0, -1.0)
        a = u - dot(u, label)
        g = now["share"] * (a - now["rest"] * dot(now["share"], a))
        g = g - total(g) * label
        g = jnp.where(lost, now["rest"] * g + C2 * (now["runner_up"] - label), g)
        g = g * 4.0  # keeps digits of a short gradient's square
        return x - rate * g * jax.lax.rsqrt(dot(g, g))

    def run(self, policy: str, z: Secret) -> Secret:
        """Confidences (batch, classes) that ``policy`` releases."""
        label = largest(z)
        start = self.confidences(z, label)
        if policy == "linesearch":
            return self.linesearch(label, start)
        h0 = self.forward(start["q"])
        if policy == "decay":
            return self.decay(z, label, start, h0)
        if z.shape[0] <= SIDE_BY_SIDE:
            return self.side_by_side(z, label, start, h0)
        return self.in_turn(z, label, start, h0)

    def in_turn(self, z: Secret, label: Secret, start: dict[str, Secret], h0: Secret) -> Secret:
        """``siguard`` with one outer run after another."""
        sign0 = h0 > 0

        def outer(_: Any, state: tuple[Secret, Secret, Secret]) -> tuple[Secret, Secret, Secret]:
            best, c3, rate = state
            x = self.optimised(z, label, start["odds"], c3, rate)
            end = self.confidences(x, label)
            bits = jnp.concatenate([self.forward(end["q"]), end["gap"]], axis=-1) > 0
            ok = jnp.logical_and(jnp.logical_xor(bits[:, :1], sign0), jnp.logical_not(bits[:, 1:]))
            return (
                jnp.where(ok, end["q"], best),
                jnp.where(ok, C3_GROWTH * c3, c3),
                jnp.where(ok, rate, RATE_GROWTH * rate),
            )

        return jax.lax.fori_loop(0, OUTER, outer, (start["q"], C3 + 0 * h0, RATE + 0 * h0))[0]

    def side_by_side(self, z: Secret, label: Secret, start: dict[str, Secret], h0: Secret) -> Secret:
        """``siguard`` with a lane for every (c3, rate) that a run can have, and a choice at the end."""
        batch, lanes = z.shape[0], len(LANES)
        c3, rate = (np.repeat(values, batch)[:, None].astype(np.float32) for values in zip(*LANES, strict=True))
        every_z, every_label, odds0 = (jnp.concatenate([part] * lanes) for part in (z, label, start["odds"]))
        x = self.optimised(every_z, every_label, odds0, c3, rate)
        end = self.confidences(x, every_label)
        bits = jnp.concatenate([h0, self.forward(end["q"]), end["gap"]]) > 0
        sign0, sign, lost = bits[:batch], bits[batch : (1 + lanes) * batch], bits[(1 + lanes) * batch :]
        every_ok = jnp.logical_and(jnp.logical_xor(sign, jnp.concatenate([sign0] * lanes)), jnp.logical_not(lost))
        ok, q = ([part[k * batch : (k + 1) * batch] for k in range(lanes)] for part in (every_ok, end["q"]))
        ok2, q2 = (jnp.where(ok[0], part[1], part[2]) for part in (ok, q))
        both, neither = jnp.logical_and(ok[0], ok2), jnp.logical_not(jnp.logical_or(ok[0], ok2))
        ok3, q3 = (jnp.where(both, part[3], jnp.where(neither, part[5], part[4])) for part in (ok, q))
        return jnp.where(ok3, q3, jnp.where(ok2, q2, jnp.where(ok[0], q[0], start["q"])))

    def optimised(self, z: Secret, label: Secret, odds0: Secret, c3: Any, rate: Any) -> Secret:
        """Where one outer run ends."""
        return jax.lax.fori_loop(0, INNER, lambda _, x: self.step(x, z, label, odds0, c3, rate), z)

    def decay(self, z: Secret, label: Secret, start: dict[str, Secret], h0: Secret) -> Secret:
        """The ``decay`` policy."""
        rates = jnp.array(DECAY_RATES, dtype=jnp.float32)
        x = jax.lax.fori_loop(0, len(rates), lambda t, x: self.step(x, z, label, start["odds"], C3, rates[t]), z)
        end = self.confidences(x, label)
        values = jnp.concatenate([h0, self.forward(end["q"]), end["gap"]], axis=-1)
        bits = values > 0
        sizes = jnp.where(bits[:, :2], values[:, :2], -values[:, :2])
        closer = sizes[:, 1:] < sizes[:, :1] + DECAY_TOLERANCE
        return jnp.where(jnp.logical_and(closer, jnp.logical_not(bits[:, 2:])), end["q"], start["q"])

    def linesearch(self, label: Secret, start: dict[str, Secret]) -> Secret:
        """The ``linesearch`` policy; the largest share is 1 / V, so m / (1 + m) is 1 / (1 + V)."""
        batch, classes = label.shape
        c = jnp.maximum(np.array(CANDIDATES, dtype=np.float32), MARGIN * start["over_1_plus_V"])[:, :, None]
        tried = c * label[:, None] + (1 - c) * start["share"][:, None]
        h = self.forward(tried.reshape(-1, classes)).reshape(batch, -1)
        chosen = largest(jnp.where(h > 0, -h, h))
        return jnp.sum(chosen[:, :, None] * tried, axis=1)
