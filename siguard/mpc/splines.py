"""Public splines and step functions in exact integers: exponential, logarithm, inverse square root.

Pure numpy.  The protocol evaluates them at secrets with one key each (`siguard.mpc.curves`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from siguard.ring import Z64, RingArray

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Fraction bits of the argument of `exponential_cells`, and of its result.
ARGUMENT_BITS = 14
EXP_BITS = 37
#: log2 of the number of cells to a unit.
CELL_BITS = 3
#: The exponential is 0 below the first of its window, and up to a step of a cell beyond the last.
EXP_WINDOW = (-12, 6)


@lru_cache(maxsize=4)
def exponential_cells(below: int = EXP_WINDOW[1]) -> tuple[int, RingArray]:
    """The first cell's index, and (cells, 3) coefficients T0, T1, T2 in Z_2^64 of e^x at `EXP_BITS`.

    below: the end of the window.

    Cell i, at F = i / 8, serves F - 1/8 <= x < F + 1/8, as an index of floor(8 x) or one more needs it:
    e^x = e^F (1 + lo + lo^2 / 2 + ...), the quadratic of least error, rounded with the constants refitted, and
    expanded in the whole argument X at `ARGUMENT_BITS`, exactly in the ring: T0 + T1 X + T2 X^2.
    |error| <= 1.0e-4 e^x + 1.0e-5 inside the window.
    """
    first, last = EXP_WINDOW[0] << CELL_BITS, below << CELL_BITS
    index = np.arange(first, last + 1)
    half = 2.0**-CELL_BITS
    power = np.exp(index / 2.0**CELL_BITS)
    # e^lo on [-half, half] without its even part above the square and with lo^3 / 6 spread by Chebyshev's 3/4.
    square = np.rint(power / 2 * 2.0 ** (EXP_BITS - 2 * ARGUMENT_BITS))
    exact_square = square * 2.0 ** (2 * ARGUMENT_BITS - EXP_BITS)
    slope = np.rint(power * (1 + half**2 / 8) * 2.0 ** (EXP_BITS - ARGUMENT_BITS))
    # What rounding the square lost, at its mean over the cell; exactly e^F where nothing was lost.
    constant = np.rint((power + (power / 2 - exact_square) * half**2 / 2) * 2.0**EXP_BITS)
    S0, S1, S2 = (Z64.constant(part.astype(np.int64)) for part in (constant, slope, square))
    F = Z64.constant(index << (ARGUMENT_BITS - CELL_BITS))
    T1 = Z64.sub(S1, Z64.mul(Z64.mul(S2, F), Z64.constant(2)))
    T0 = Z64.add(Z64.sub(S0, Z64.mul(S1, F)), Z64.mul(S2, Z64.mul(F, F)))
    return first, np.stack([T0, T1, S2], axis=1)


#: Bits of the two lower digits of a cell's number; fraction bits of the factors of the upper two, and the lowest.
DIGIT_BITS = 4
HIGH_BITS, LOW_BITS = 20, 34
_MOST = (1 << DIGIT_BITS) - 1
#: Differences of the top digit for which some difference of the middle one lies inside the window.
TOP_DIFFERENCES = (-1, 0, 1)


@lru_cache(maxsize=1)
def middle_digit_tables() -> RingArray:
    """e^(2 m) at `HIGH_BITS`, m = 16 top + middle, inside the window, else 0: for every r1, every c1, every top.

    middle = c1 - r1; (16, 16, 3).
    """
    digits = np.arange(_MOST + 1)
    middle = digits - digits[:, None]
    exponents = 2 * (middle[..., None] + (_MOST + 1) * np.array(TOP_DIFFERENCES))
    inside = (exponents >= EXP_WINDOW[0]) & (exponents <= EXP_WINDOW[1])
    values = np.rint(np.exp(np.where(inside, exponents, 0)) * 2.0**HIGH_BITS)
    return Z64.constant(np.where(inside, values, 0).astype(np.int64))


@lru_cache(maxsize=1)
def _low_digit_cells() -> tuple[Integers, Integers, Integers, Floats]:
    """For lo = -15 .. 15: e^(lo / 8 + D) as S0 + S1 D + S2 D^2 at `LOW_BITS`, and what rounding took from S2."""
    power = np.exp(np.arange(-_MOST, _MOST + 1) / 2.0**CELL_BITS)
    half = 2.0**-CELL_BITS
    square = np.rint(power / 2 * 2.0 ** (LOW_BITS - 2 * ARGUMENT_BITS))
    slope = np.rint(power * (1 + half**2 / 8) * 2.0 ** (LOW_BITS - ARGUMENT_BITS))
    constant = np.rint(power * 2.0**LOW_BITS)
    lost = power / 2 - square * 2.0 ** (2 * ARGUMENT_BITS - LOW_BITS)
    return constant.astype(np.int64), slope.astype(np.int64), square.astype(np.int64), lost


def low_digit_table(digits: Integers, within: Integers) -> RingArray:
    """e^(lo / 8 + D) at `LOW_BITS` as quadratics in cl, for every c0: (n, 2^`DIGIT_BITS`, 3).

    lo = c0 - r0 and D = cl - rl, at `ARGUMENT_BITS`, |D| < 1/8.  digits: r0; within: rl; both (n,).
    |error| <= 1.8e-4 e^(lo / 8 + D), most of it what S2 lost where e^(lo / 8) is small.
    """
    cells = np.arange(_MOST, 2 * _MOST + 1) - digits[:, None]
    S0, S1, S2, lost = (column[cells] for column in _low_digit_cells())
    rl = within[:, None]
    # What S2 lost times D^2, with cl^2 as the line w cl - w^2 / 8 of least error, where cl lies from 0 to w.
    w, unit = 2.0**-CELL_BITS, 2.0**ARGUMENT_BITS
    P0 = S0 - rl * (S1 - rl * S2) + np.rint(lost * ((rl / unit) ** 2 - w**2 / 8) * 2.0**LOW_BITS).astype(np.int64)
    P1 = S1 - 2 * rl * S2 + np.rint(lost * (w - 2 * rl / unit) * 2.0**LOW_BITS / unit).astype(np.int64)
    return Z64.constant(np.stack([P0, P1, S2], axis=-1))


@dataclass(frozen=True)
class Pieces:
    """A piecewise linear function: below ``thresholds[0]`` piece 0, from ``thresholds[j]`` on piece j + 1.

    thresholds: at the scale in which the argument is compared.  constants, slopes: (pieces,), for the argument at
    its own scale, result at `LOG_BITS`.
    """

    thresholds: tuple[int, ...]
    constants: Integers
    slopes: Integers


#: Fraction bits of a logarithm.
LOG_BITS = 34


@lru_cache(maxsize=16)
def logarithm_pieces(low: int, high: int, per_octave: int, value_bits: int, compare_bits: int) -> Pieces:
    """Natural logarithm between 2^low and 2^high; beyond, the value at that end is held.

    The chords between knots 2^(j / per_octave), rounded to what is compared.  Continuous and never falling in exact
    integers, so that the order of two logarithms is that of their arguments, where the comparison is exact.
    Shifted up by half of their error, (ln 2 / per_octave)^2 / 16: 4.7e-4 with 8 knots an octave.  Rounded knots and
    slopes make it 6.0e-4 from 1 to 2^10 with value_bits 16, compare_bits 12; with 4 knots from 2^-6 and 10
    compare_bits, 2.7e-3.
    value_bits, compare_bits: fraction bits of the argument, and of what is compared.
    """
    exponents = low + np.arange((high - low) * per_octave + 1) / per_octave
    knots = np.unique(np.rint(2.0 ** (exponents + compare_bits))).astype(np.int64)
    shift = (np.log(2) / per_octave) ** 2 / 16
    logs = np.rint((np.log(knots / 2.0**compare_bits) + shift) * 2.0**LOG_BITS)
    lefts = knots << (value_bits - compare_bits)
    # Each chord starts where the rounded slope of the one before has ended.
    ends, slopes = [int(logs[0])], []
    for width, log in zip(np.diff(lefts).tolist(), logs[1:].tolist(), strict=True):
        slopes.append(round((log - ends[-1]) / width))
        ends.append(ends[-1] + slopes[-1] * width)
    values, rises = np.array(ends), np.array([0, *slopes, 0])
    constants = np.concatenate([values[:1], values]) - rises * np.concatenate([lefts[:1], lefts])
    return Pieces(tuple(knots.tolist()), constants, rises)


@lru_cache(maxsize=4)
def inverse_root_steps(low: int, high: int, per_octave: int) -> tuple[Integers, Floats]:
    """Thresholds and values of a step function for 1 / sqrt(v), v an integer from 2^low to 2^high.

    Each value holds at the geometric middle of its step, so that it is within 2^(1 / (4 per_octave)) - 1 of the
    root: 4.4 % with 4 to an octave.  Outside the range the first or last value holds.
    """
    exponents = low + np.arange((high - low) * per_octave + 1) / per_octave
    # An integer v lies above a threshold where it lies above the next integer.
    thresholds = np.ceil(2.0 ** exponents[1:-1]).astype(np.int64)
    middles = (exponents[:-1] + exponents[1:]) / 2
    return thresholds, 2.0 ** (-middles / 2)
