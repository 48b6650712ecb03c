"""exp, log and reciprocal against float64: dense sweeps over the stated ranges, with the stated bounds.

The inputs are fixed-point numbers, so each is compared with the function of exactly what was shared.  The
rounding coins are those of a fixed seed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from mpc_helpers import F, Integers, floats_of, run, share, signed_of

from siguard.mpc import softmax as gates
from siguard.mpc.share import Share

Floats = npt.NDArray[np.float64]
ONE = 1 << F
#: Most elements of one call: a table of 2^12 entries deals 32 KB for each.
CHUNK = {7: 30_000, 8: 15_000, 9: 8_000, 10: 4_000, 11: 2_000, 12: 1_000}


def sweep(gate: Callable[[Any, Share], Awaitable[Share]], x: Integers, chunk: int, seed: int = 1) -> Floats:
    """The gate at every x, in units of 2^-16."""
    parts = []
    for start in range(0, len(x), chunk):
        shares = share(x[start : start + chunk], seed=seed + start)
        parts.append(floats_of(run(lambda party: gate(party, shares[party.role]), seed=seed + start).results))  # noqa: B023 - run at once
    return np.concatenate(parts)


# --- exp --------------------------------------------------------------------------------------------------


@cache
def exponentials() -> tuple[Floats, Floats]:
    """x and the gate's result, dense over [-12, 6) and sparse over the whole range |x| < 255."""
    dense = np.arange(-12 * ONE, 6 * ONE, 7)
    edges = [at * ONE + off for at in (-11, -10, 4, 5) for off in range(-40, 41)]
    cells = [cell * (ONE // 8) + off for cell in range(-88, 48) for off in (-1, 0, 1)]
    far = np.linspace(-255 * ONE + 1, 255 * ONE - 1, 3001).astype(np.int64)
    x = np.unique(np.concatenate([dense, edges, cells, far]))
    return x / ONE, sweep(gates.exp, x, CHUNK[7])


def test_exp_is_within_its_bound_from_minus_10_to_4() -> None:
    x, result = exponentials()
    inside = (x >= -10) & (x < 4)
    exact = np.exp(x[inside])
    excess = np.abs(result[inside] - exact) - (1.2e-4 * exact + 6e-5)
    assert excess.max() <= 0, (x[inside][excess.argmax()], excess.max())


def test_exp_of_zero_is_one_exactly() -> None:
    shares = share(np.zeros(500, np.int64))
    assert set(signed_of(run(lambda party: gates.exp(party, shares[party.role])).results).tolist()) == {ONE}


def test_exp_flushes_below_minus_11() -> None:
    x, result = exponentials()
    assert not result[x < -11].any()
    # From -11 to -10 it is e^x within the bound, or 0.
    between = (x >= -11) & (x < -10)
    exact = np.exp(x[between])
    good = np.abs(result[between] - exact) <= 1.2e-4 * exact + 6e-5
    assert (good | (result[between] == 0)).all()
    assert exact.max() <= 4.6e-5


def test_exp_saturates_at_5() -> None:
    x, result = exponentials()
    top = np.exp(5.0)
    # e^5 in fixed point: half a unit off at most.
    assert np.abs(result[x >= 5] - top).max() <= 2.0 ** -(F + 1)
    between = (x >= 4) & (x < 5)
    exact = np.exp(x[between])
    good = np.abs(result[between] - exact) <= 1.2e-4 * exact + 6e-5
    assert (good | (np.abs(result[between] - top) <= 2.0 ** -(F + 1))).all()


def test_exp_is_never_negative() -> None:
    assert exponentials()[1].min() >= 0


def test_exp_keeps_shapes() -> None:
    x = np.zeros((2, 1, 3), np.int64)
    shares = share(x)
    assert signed_of(run(lambda party: gates.exp(party, shares[party.role])).results).shape == (2, 1, 3)


def test_the_bytes_of_exp_are_those_its_docstring_states() -> None:
    cost = gates.exp_cost(1)
    assert cost.rounds == 3
    assert "1,139 bytes dealt and 84 exchanged" in (gates.exp.__doc__ or "")
    assert cost.payload_bytes == 1139 + 84


# --- log and reciprocal -----------------------------------------------------------------------------------

DOMAINS = range(1, 8)


def domain_sweep(low: int, domain_bits: int, count: int) -> Integers:
    """Every scale from ``low`` to the end of the domain, its ends, and the cells' ends."""
    top = ceil(2**domain_bits * (1 - 2.0**-8) * ONE)
    rng = np.random.default_rng(domain_bits)
    near = rng.integers(low, min(top, 4 * low), count)
    anywhere = np.exp(rng.uniform(np.log(low), np.log(top - 1), count)).astype(np.int64)
    step = 2**domain_bits * ONE >> gates.log_index_bits(domain_bits)
    cells = np.arange(low - low % step + step, top, step)[:: 1 + len(range(low, top, step)) // 200]
    u: Integers = np.unique(np.concatenate([near, anywhere, cells - 1, cells, cells + 1, [low, low + 1, top - 1]]))
    return np.asarray(u[(u >= low) & (u < top)])


@cache
def logarithms(domain_bits: int) -> tuple[Floats, Floats]:
    u = domain_sweep(ONE // 4, domain_bits, 600)
    result = sweep(lambda party, x: gates.log(party, x, domain_bits), u, CHUNK[gates.log_index_bits(domain_bits)])
    return u / ONE, np.abs(result - np.log(u / ONE))


@pytest.mark.parametrize("domain_bits", DOMAINS)
def test_log_is_within_its_bounds(domain_bits: int) -> None:
    u, error = logarithms(domain_bits)
    assert error[u >= 1].max() <= 7e-5
    assert error.max() <= 1e-3
    step = 2.0**domain_bits / 2 ** gates.log_index_bits(domain_bits)
    # H is the cell of u or the next one.
    ratio = step / np.maximum(np.floor(u / step) * step, step)
    excess = error - (ratio**3 / 3 + 6e-5)
    assert excess.max() <= 0, u[excess.argmax()]


@pytest.mark.parametrize("domain_bits", [0, 3, 6])
def test_log_is_bounded_below_one_step(domain_bits: int) -> None:
    step = max(2, 2**domain_bits * ONE >> gates.log_index_bits(domain_bits))
    u = np.arange(1, step, max(1, step // 400))
    result = sweep(lambda party, x: gates.log(party, x, domain_bits), u, CHUNK[gates.log_index_bits(domain_bits)])
    # log of half a step, and at most 4 for the series: |r| <= 1, so |r (2 - r) / 2| <= 1.5.
    assert np.abs(result).max() <= abs(np.log(step / ONE / 2)) + 1.5 + 1e-3


@pytest.mark.parametrize("numerator", [1.0, 1.02, 3.5])
@pytest.mark.parametrize("domain_bits", DOMAINS)
def test_reciprocal_is_within_its_bound(domain_bits: int, numerator: float) -> None:
    units = domain_sweep(ONE, domain_bits, 1500)
    chunk = CHUNK[gates.log_index_bits(domain_bits)]
    result = sweep(lambda party, x: gates.reciprocal(party, x, domain_bits, numerator), units, chunk)
    u = units / ONE
    # The numerator is rounded to 2^-8, as the docstring says.
    exact = round(numerator * 256) / 256 / u
    step = 2.0**domain_bits / 2 ** gates.log_index_bits(domain_bits)
    excess = np.abs(result - exact) - numerator * ((step / u) ** 2 / u + 6e-5)
    assert excess.max() <= 0, (u[excess.argmax()], excess.max())


@pytest.mark.parametrize("domain_bits", range(3, 8))
def test_steps_are_a_32nd_in_domains_of_8_and_up(domain_bits: int) -> None:
    assert 2.0**domain_bits / 2 ** gates.log_index_bits(domain_bits) == 1 / 32
