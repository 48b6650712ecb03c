"""The guard on MPyC: three local processes, Shamir sharing, one may be corrupted.  Runs under MPyC's interpreter.

    python mpyc_guard.py INPUT.npz OUTPUT.npz POLICY

Speaks with `peers.py` as told in `peer_process.py`.  Nothing is revealed but the confidences.

MPyC evaluates whatever is ready at the same time, so there is nothing to group by hand; arrays, not single numbers,
are what is fast.  It has no exponential and no inverse root: both are below.  The state is relative to the label
and the gradient normalised by the other classes, so that confident rows keep theirs.
"""

from __future__ import annotations

import sys
import time
from typing import Any

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
    FloatArray,
    free_ports,
    pairs,
    read_input,
    say,
    write_answer,
)

PARTIES = 3
#: Bits of a number, and of its fraction: 2^28 holds the largest exponential that ten steps can reach.
BITS, FRACTION = 52, 24
#: Bits that decide a comparison: of logits and activations, and of numbers up to 2^24.
NARROW, WIDE = FRACTION + 14, FRACTION + 25
#: Added to the label's entry so that it is never among the others; above twice any difference of logits.
FAR = 2.0**12
#: Below this an exponential is 0 at 24 fraction bits.
LEAST_EXPONENT = -17.0
#: exp(x) = exp(x / 2^5)^(2^5)
SQUARINGS = 5


# MPyC reads its options, and starts the other parties with them, when it is imported.
if not any(argument.startswith("-I") for argument in sys.argv):
    sys.argv += ["-M", str(PARTIES), "-B", str(free_ports(PARTIES)), "--no-log"]

from mpyc.runtime import mpc  # type: ignore[import-not-found]  # noqa: E402

FXP = mpc.SecFxp(BITS, FRACTION)
Secret = Any  # an array of MPyC's secure fixed-point numbers


def below_zero(x: Secret, bits: int = NARROW) -> Secret:
    """[x < 0] as integers."""
    return mpc.np_sgn(x, l=bits, LT=True)


def above_zero(x: Secret, bits: int = NARROW) -> Secret:
    """[x > 0] as integers."""
    return below_zero(-x, bits)


def dot(x: Secret, y: Secret) -> Secret:
    """Row by row, (batch, 1)."""
    return mpc.np_sum(x * y, axis=1, keepdims=True)


def total(x: Secret) -> Secret:
    """Sum of each row, (batch, 1)."""
    return mpc.np_sum(x, axis=1, keepdims=True)


def largest(x: Secret) -> Secret:
    """One-hot of the largest entry of each row, lowest index first."""
    count = x.shape[1]
    compared, tally, offset = pairs(count)
    left, right = (np.array(side) for side in zip(*compared, strict=True))
    wins = (1 - below_zero(x[:, left] - x[:, right])) @ tally + offset
    return 1 - below_zero(wins - (count - 1), FRACTION + 8)


def exponential(x: Secret) -> Secret:
    """exp of numbers up to 14, each at least `LEAST_EXPONENT`."""
    excess = x - LEAST_EXPONENT
    x = excess * (1 - below_zero(excess)) + LEAST_EXPONENT
    x = x * 2.0**-SQUARINGS
    square = x * x
    fourth = square * square
    result = 1 + x + square * 0.5 + (square * x) * (1 / 6) + fourth * (1 / 24)
    result += (fourth * x) * (1 / 120) + (fourth * square) * (1 / 720)
    for _ in range(SQUARINGS):
        result = result * result
    return result


def power_guess(x: Secret, exponent: float) -> Secret:
    """x ** exponent of positive numbers within a factor 2^(|exponent| / 2), from the place of the leading bit."""
    bits = mpc.np_to_bits(x)[..., : BITS - 1]  # low to high, without the sign
    seen = mpc.np_flip(bits, axis=-1)
    shift = 1
    while shift < BITS - 1:  # [a 1 at this place or before it], in a logarithmic number of steps
        head, tail, earlier = seen[..., :shift], seen[..., shift:], seen[..., :-shift]
        seen = mpc.np_concatenate((head, tail + earlier - tail * earlier), axis=-1)
        shift *= 2
    before = mpc.np_concatenate((seen[..., :1] * 0, seen[..., :-1]), axis=-1)
    place = np.arange(BITS - 2, -1, -1) - FRACTION
    return (seen - before) @ (2.0 ** ((place + 0.5) * exponent))


def inverse_root(x: Secret) -> Secret:
    """1 / sqrt(x) of positive numbers, by Newton's steps."""
    y = power_guess(x, -0.5)
    for _ in range(4):
        y = y * (1.5 - (x * y) * y * 0.5)
    return y


def inverse(x: Secret) -> Secret:
    """1 / x of positive numbers, by Newton's steps."""
    y = power_guess(x, -1.0)
    for _ in range(5):
        y = y * (2 - x * y)
    return y


class Guard:
    """The policies on one model's shared h."""

    def __init__(self, layers: list[tuple[Secret, Secret]]) -> None:
        (self.W1, self.b1), (self.W2, self.b2), (self.W3, self.b3) = layers
        self.folded = (self.W2 * self.W3[:, 0]).T

    def forward(self, q: Secret) -> tuple[Secret, Secret, Secret]:
        """h (batch, 1) and the derivative bits of both hidden layers."""
        x = q @ self.W1 + self.b1
        first = above_zero(x)
        x = (x * first) @ self.W2 + self.b2
        second = above_zero(x)
        return (x * second) @ self.W3 + self.b3, first, second

    def confidences(self, x: Secret, label: Secret) -> dict[str, Secret]:
        """Softmax of ``x``, and what it is made of."""
        relative = x - dot(label, x)
        others = relative - label * FAR
        runner_up = largest(others)
        gap = dot(runner_up, relative)  # at most 0 while the label is kept
        powers = exponential(mpc.np_concatenate((others - gap, gap), axis=1))
        classes = label.shape[1]
        v = powers[:, :classes]  # 0 at the label
        V = total(v)
        odds = powers[:, classes:] * V
        reciprocals = inverse(mpc.np_concatenate((V, odds + 1), axis=1))
        share = v * reciprocals[:, :1]
        rest = odds * reciprocals[:, 1:]
        q = rest * share + reciprocals[:, 1:] * label
        return {
            "q": q,
            "share": share,
            "V": V,
            "rest": rest,
            "odds": odds,
            "gap": gap,
            "runner_up": runner_up,
            "reciprocals": reciprocals,
        }

    def step(self, x: Secret, z: Secret, label: Secret, odds0: Secret, c3: Secret, rate: Secret) -> Secret:
        """One normalised step of the noise optimisation."""
        now = self.confidences(x, label)
        noise = x - z
        growth = exponential(noise - dot(label, noise))
        falls = below_zero(growth * (odds0 + 1) - (now["odds"] + 1) + 2.0**-20, WIDE)
        lost = above_zero(now["gap"])
        h, first, second = self.forward(now["q"])
        back = ((second @ self.folded) * first) @ self.W1.T
        u = back * (above_zero(h) * 2 - 1) * C1 + (1 - 2 * falls) * c3
        a = u - dot(u, label)
        g = now["share"] * (a - now["rest"] * dot(now["share"], a))
        g = g - label * total(g)
        where_lost = now["rest"] * g + (now["runner_up"] - label) * C2
        g = (g + lost * (where_lost - g)) * 4  # the factor keeps digits of a short gradient's square
        return x - g * (inverse_root(dot(g, g)) * rate)

    def run(self, policy: str, z: Secret) -> Secret:
        """Confidences (batch, classes) that ``policy`` releases."""
        label = largest(z)
        start = self.confidences(z, label)
        if policy == "linesearch":
            return self.linesearch(label, start)
        h0 = self.forward(start["q"])[0]
        if policy == "decay":
            x = z
            for rate in DECAY_RATES:
                x = self.step(x, z, label, start["odds"], C3, rate)
            end = self.confidences(x, label)
            h = self.forward(end["q"])[0]
            sizes = [value * (above_zero(value) * 2 - 1) for value in (h, h0)]
            accepted = below_zero(sizes[0] - sizes[1] - DECAY_TOLERANCE) * (1 - above_zero(end["gap"]))
            return start["q"] + accepted * (end["q"] - start["q"])
        best, c3, rate = start["q"], C3 + h0 * 0, RATE + h0 * 0
        sign0 = above_zero(h0)
        for _ in range(OUTER):
            x = z
            for _ in range(INNER):
                x = self.step(x, z, label, start["odds"], c3, rate)
            end = self.confidences(x, label)
            sign = above_zero(self.forward(end["q"])[0])
            crossed = sign + sign0 - 2 * (sign * sign0)
            accepted = crossed * (1 - above_zero(end["gap"]))
            best = best + accepted * (end["q"] - best)
            c3 = c3 + accepted * c3 * (C3_GROWTH - 1)
            rate = rate + (1 - accepted) * rate * (RATE_GROWTH - 1)
        return best

    def linesearch(self, label: Secret, start: dict[str, Secret]) -> Secret:
        """The candidate with the smallest |h|."""
        batch = label.shape[0]
        rest = start["share"]
        # The largest share is 1 / V, so m / (1 + m) is 1 / (1 + V).
        floor = inverse(start["V"] + 1) * MARGIN
        short = floor - np.array([CANDIDATES])
        c = np.array([CANDIDATES]) + short * above_zero(short)
        tried = [c[:, k : k + 1] * (label - rest) + rest for k in range(len(CANDIDATES))]
        h = self.forward(mpc.np_concatenate(tried, axis=0))[0]
        h = mpc.np_concatenate([h[k * batch : (k + 1) * batch] for k in range(len(CANDIDATES))], axis=1)
        chosen = largest(-h * (above_zero(h) * 2 - 1))
        answer = chosen[:, :1] * tried[0]
        for k in range(1, len(CANDIDATES)):
            answer = answer + chosen[:, k : k + 1] * tried[k]
        return answer


def shared(values: FloatArray) -> Secret:
    """Shares of what party 0 holds."""
    return mpc.input(FXP.array(values), senders=0)


def bytes_sent() -> int:
    """Bytes that this party has sent so far."""
    return sum(peer.protocol.nbytes_sent for peer in mpc.parties if peer.pid != mpc.pid)


async def agreed(number: int, senders: int | None = None) -> int:
    """What party 0 says, or the sum of what all parties say."""
    secint = mpc.SecInt(48)
    given = mpc.input(secint(number), senders=senders)
    return int(await mpc.output(given if senders is not None else mpc.sum(given)))


async def main(input_path: str, answer_path: str, policy: str) -> None:
    """Share h, then answer calls until the driver closes the pipe."""
    logits, layers = read_input(input_path, policy)
    await mpc.start()
    guard = Guard([(shared(W), shared(b)) for W, b in layers])
    first = mpc.pid == 0
    await mpc.barrier()
    if first:
        say({"ready": True})
    while True:
        # The others wait for party 0 in the protocol, as only party 0 hears the driver.
        asked = int(bool(sys.stdin.readline())) if first else 0
        if not await agreed(asked, senders=0):
            break
        before = bytes_sent()
        start = time.perf_counter()
        z = shared(logits)
        confidences = await mpc.output(guard.run(policy, z), receivers=0)
        seconds = time.perf_counter() - start
        sent = await agreed(bytes_sent() - before)
        if first:
            write_answer(answer_path, np.asarray(confidences, dtype=np.float64))
            say({"seconds": seconds, "bytes_total": sent})
    await mpc.shutdown()


if __name__ == "__main__":
    mpc.run(main(*sys.argv[1:4]))
