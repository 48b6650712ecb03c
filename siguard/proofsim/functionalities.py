"""What instances must compute, as statements on whole numbers: F(inputs; coins), case by case.

A statement gets the inputs (cases, wires), a user's input last, the recombined outputs (cases, n), and the openings
c = z + r by which truncations round (cases, truncations), in the order of the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from siguard.proofsim.enumeration import Values

Bools = npt.NDArray[np.bool_]
Right = Callable[[Values, Values, Values], Bools]
#: From inputs alone, and from inputs and openings.
Exact = Callable[[Values], Values]
Rounded = Callable[[Values, Values], Values]


def equals(expected: Exact) -> Right:
    """The outputs are a function of the inputs."""
    return rounded(lambda inputs, openings: expected(inputs))


def modulo(bits: int, expected: Exact) -> Right:
    """The same, modulo 2^bits."""
    return equals(lambda inputs: expected(inputs) % (1 << bits))


def rounded(expected: Rounded) -> Right:
    """The outputs are a function of the inputs and of the openings, which are the coins."""

    def right(inputs: Values, outputs: Values, openings: Values) -> Bools:
        values = expected(inputs, openings).reshape(len(inputs), -1)
        return np.asarray(np.all(values == outputs, axis=1))

    return right


def truncation(z: Values, c: Values, shift: int, bits: int, target: int | None = None) -> Values:
    """floor(z / 2^shift) + [c mod 2^shift < z mod 2^shift], wraps included: (c >> f) - ((c - z) >> f).

    z in Z_2^bits; the result in Z_2^target, or the same ring.
    """
    r = (c - z) % (1 << bits)
    return np.asarray(((c >> shift) - (r >> shift)) % (1 << (bits if target is None else target)))


def signed(x: Values, bits: int) -> Values:
    """Two's complement."""
    half = 1 << (bits - 1)
    return (x + half) % (2 * half) - half


def relu_of_two_bits(inputs: Values, outputs: Values, openings: Values) -> Bools:
    """max(x, 0) and [x > 0], for x != -2."""
    x = signed(inputs[:, 0], 2)
    good = (outputs[:, 0] == np.maximum(x, 0)) & (outputs[:, 1] == (x > 0))
    return np.asarray(good | (x == -2))


def wins_of_two(inputs: Values, outputs: Values, openings: Values) -> Bools:
    """Two classes of two bits: exact while the difference stays inside the ring."""
    x = signed(inputs, 2)
    first = x[:, 0] >= x[:, 1]
    difference = x[:, 0] - x[:, 1]
    good = (outputs[:, 0] == first) & (outputs[:, 1] == ~first)
    return np.asarray(good | (difference > 1) | (difference < -2))


def not_below(x: Values, threshold: int, bits: int) -> Values:
    """[x >= t] where x - t stays inside the ring of so many bits; else the sign bit says what it says."""
    return np.asarray(1 - ((x - threshold) % (1 << bits) >> (bits - 1)))


def selected(bits: int, thresholds: Sequence[int], target_bits: int) -> Right:
    """[x >= t] and [x >= t] times each other input, for every threshold."""

    def expected(x: Values) -> Values:
        taken = [not_below(x[:, 0], t, bits) for t in thresholds]
        return np.stack([bit * one for bit in taken for one in (bit, *x[:, 1:].T)], axis=1)

    return modulo(target_bits, expected)


def at_places_of(bits: int, first: int, count: int, target_bits: int) -> Right:
    """[x = first + m] and that times each other input, for every m."""

    def expected(x: Values) -> Values:
        there = [(x[:, 0] == (first + m) % (1 << bits)).astype(np.int64) for m in range(count)]
        return np.stack([bit * one for bit in there for one in (bit, *x[:, 1:].T)], axis=1)

    return modulo(target_bits, expected)


def ranked_of_two(ranks: int) -> Right:
    """[count_i = 1 - rank] for both classes, and times their values where there are any."""

    def expected(x: Values) -> Values:
        values = x[:, 2:].T
        found = []
        for entry in range(2):
            for rank in range(ranks):
                there = (x[:, entry] == 1 - rank).astype(np.int64)
                found += [there, *([there * values[entry]] if len(values) else [])]
        return np.stack(found, axis=1)

    return equals(expected)


def cubic_step(bits: int, linear: int) -> Right:
    """v'_i (linear - |v|^2)."""

    def expected(v: Values) -> Values:
        total = v.sum(axis=1, keepdims=True)
        square = (v**2).sum(axis=1, keepdims=True) + total**2
        return np.asarray((v + total) * (linear - square))

    return modulo(bits, expected)


def times(x: Values) -> Values:
    """The product of the first two."""
    return np.asarray(x[:, 0] * x[:, 1])
