"""What is enumerated: every gate that fits, on rings of 2 to 16 elements; gates in sequence; whole queries.

Each instance comes with the functionality it must compute, as a statement on whole numbers.  A gate of the package
that neither an instance here nor one of `siguard.proofsim.wide` covers fails the exact rung by name.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from siguard.proofsim import instance_gates as run
from siguard.proofsim.enumeration import GateUnderTest, Instance, Values
from siguard.proofsim.functionalities import (
    equals,
    modulo,
    not_below,
    rounded,
    times,
    truncation,
)
from siguard.proofsim.key_instances import gates_on_keys, named, one, sequences_on_keys
from siguard.ring import Z2, ring

Z4, Z8 = ring(2), ring(3)


def single_gates(full: bool) -> list[Instance]:
    """Every gate that fits."""
    found = [
        one("deal: Z_4", "arithmetic.deal", [Z4], run.dealt, equals(_first)),
        one("deal_wire: Z_4", "arithmetic.deal_wire", [Z4], run.dealt_wire, equals(_first)),
        one(
            "remask_together: Z_2 and Z_4",
            "arithmetic.remask_together",
            [Z2, Z4],
            run.together,
            equals(lambda x: x),
        ),
        one("two views of one opening: Z_4", "arithmetic.view", [Z4], run.two_views, _two_views_right),
        one(
            "view into a small ring: Z_8",
            "arithmetic.view",
            [Z8],
            partial(run.viewed, shift=1, target=Z4),
            rounded(_half_of_three_bits),
        ),
        # In the full ring it wraps in |z| of 2^k cases.
        one(
            "view in the full ring: Z_8",
            "arithmetic.view",
            [Z8],
            partial(run.viewed, shift=1, target=Z8),
            rounded(lambda x, c: truncation(x[:, 0], c[:, 0], 1, 3)),
        ),
        one(
            "truncate: Z_8",
            "arithmetic.truncate",
            [Z8],
            partial(run.truncated, shift=1, target=Z4),
            rounded(_half_of_three_bits),
        ),
        one(
            "multiply, truncated: Z_4",
            "arithmetic.multiply",
            [Z4, Z4],
            partial(run.multiplied, shift=1),
            rounded(_halved),
        ),
        one(
            "dot: Z_2",
            "arithmetic.dot",
            [Z2] * 4,
            run.dot_of,
            modulo(1, lambda x: x[:, 0] * x[:, 2] + x[:, 1] * x[:, 3]),
        ),
        one("and_bits: Z_2", "boolean.and_bits", [Z2, Z2], run.conjunction, equals(lambda x: x[:, 0] * x[:, 1])),
    ]
    for R in (Z2, Z4, *([Z8] if full else [])):
        k = R.bits
        found += [
            one(f"multiply: {named(R)}", "arithmetic.multiply", [R, R], run.multiplied, modulo(k, times)),
            one(
                f"open_additive: {named(R)}",
                "arithmetic.open_additive",
                [R, R],
                run.open_product,
                modulo(k, times),
            ),
        ]
    for R in (Z2, Z4, Z8):
        found.append(one(f"remask: {named(R)}", "arithmetic.remask", [R], run.remasked, equals(lambda x: x)))
        found.append(one(f"open: {named(R)}", "arithmetic.open_additive", [R], run.opened, equals(lambda x: x)))
    for R in (Z4, Z8, *([ring(4)] if full else [])):
        msb = equals(lambda x, k=R.bits: x[:, 0] >> (k - 1))  # type: ignore[misc]
        found.append(one(f"sign_bit: {named(R)}", "boolean.sign_bit", [R], run.sign, msb))
    for R in (Z2, Z4):
        k = R.bits
        as_number = partial(run.bit_as_number, target=R)
        found += [
            one(
                f"bit_terms: into {named(R)}",
                "conversion.bit_terms",
                [Z2],
                partial(run.terms_of_bit, target=R),
                equals(lambda x: x),
            ),
            one(
                f"bit_to_arithmetic: into {named(R)}",
                "conversion.bit_to_arithmetic",
                [Z2],
                as_number,
                equals(lambda x: x),
            ),
            one(
                f"bit_product: {named(R)}",
                "conversion.bit_product",
                [Z2, R],
                run.product_with_bit,
                modulo(k, times),
            ),
            one(
                f"bit_multiply: {named(R)}",
                "conversion.bit_multiply",
                [Z2, R],
                run.multiplied_by_bit,
                modulo(k, times),
            ),
        ]
    for R in (Z2, *([Z4] if full else [])):
        chosen = equals(lambda x: np.where(x[:, 0] == 1, x[:, 1], x[:, 2]))
        found.append(one(f"select: {named(R)}", "conversion.select", [Z2, R, R], run.selected, chosen))
    return [*found, *gates_on_keys(full)]


def _two_views_right(inputs: Values, outputs: Values, openings: Values) -> npt.NDArray[np.bool_]:
    z = inputs[:, 0]
    return np.asarray((outputs[:, 0] == z) & (outputs[:, 1] == truncation(z, openings[:, 0], 1, 2, 1)))


def _first(x: Values) -> Values:
    return x[:, 0]


def _all(x: Values) -> Values:
    return np.asarray(np.prod(x, axis=1))


def _half_of_three_bits(x: Values, c: Values) -> Values:
    return truncation(x[:, 0], c[:, 0], 1, 3, 2)


def _halved(x: Values, c: Values) -> Values:
    return truncation(times(x) % 4, c[:, 0], 1, 2)


def _halved_twice(x: Values, c: Values) -> Values:
    half = truncation(x[:, 0] ** 2 % 4, c[:, 0], 1, 2)
    return truncation(half**2 % 4, c[:, 1], 1, 2)


def _halved_product_twice(x: Values, c: Values) -> Values:
    return truncation(_halved(x, c) * x[:, 1] % 4, c[:, 1], 1, 2)


def _sign_of_half(x: Values, c: Values) -> Values:
    return truncation(x[:, 0] ** 2 % 4, c[:, 0], 1, 2) >> 1


def sequences(full: bool) -> list[Instance]:
    """Pairs on Z_2 and Z_4, triples on Z_2: masks of one gate must not meet those of the next."""
    pair, triple = "pair of gates", "triple of gates"
    product = run.multiplied
    halve = partial(run.multiplied, shift=1)
    found = [
        one(f"{pair}: product, product, Z_2", "", [Z2] * 3, _chain(product, product), modulo(1, _all)),
        one(
            f"{pair}: square, times itself, Z_4",
            "",
            [Z4],
            _chain(product, product),
            modulo(2, lambda x: x[:, 0] ** 4),
        ),
        one(f"{pair}: truncated square, truncated, Z_4", "", [Z4], _chain(halve, halve), rounded(_halved_twice)),
        one(
            f"{pair}: product, sign of it, Z_4",
            "",
            [Z4],
            _chain(product, run.sign),
            equals(lambda x: x[:, 0] ** 2 % 4 >> 1),
        ),
        one(f"{pair}: truncated product, sign, Z_4", "", [Z4], _chain(halve, run.sign), rounded(_sign_of_half)),
        one(
            f"{pair}: remask, product, Z_4",
            "",
            [Z4],
            _chain(run.remask_value, product),
            modulo(2, lambda x: x[:, 0] ** 2),
        ),
        one(
            f"{pair}: sign, times the same bit's value, Z_4",
            "",
            [Z4, Z2],
            run.double_bit,
            equals(lambda x: (x[:, 0] >> 1) * x[:, 1]),
        ),
        one(f"{triple}: three products, Z_2", "", [Z2] * 2, _chain(product, product, product), equals(times)),
        one(
            f"{triple}: product, remask, bit product, Z_2",
            "",
            [Z2] * 2,
            _chain(product, run.remask_value, run.multiplied_by_bit),
            equals(times),
        ),
        one(
            f"{triple}: bit product, and, remask, Z_2",
            "",
            [Z2] * 2,
            _chain(run.multiplied_by_bit, run.conjunction, run.remask_value),
            equals(times),
        ),
    ]
    found += sequences_on_keys()
    # Long-lived wires in two sessions, and with another dealer: no stream may serve both.
    twice = one("two sessions: product, Z_2", "", [Z2] * 3, run.multiplied, equals(times))
    found.append(replace(twice, sessions=((0, "S2"), (1, "S2"))))
    for dealer in ("S0", "S1"):
        name = f"two dealers: product, Z_2, S2 then {dealer}"
        found.append(replace(twice, name=name, sessions=((0, "S2"), (0, dealer))))
    if full:
        found += [
            one(
                f"{pair}: product, product, Z_4",
                "",
                [Z4] * 2,
                _chain(product, product),
                modulo(2, lambda x: x[:, 0] * x[:, 1] ** 2),
            ),
            one(
                f"{pair}: product, bit product, Z_2",
                "",
                [Z2] * 3,
                _chain(product, run.multiplied_by_bit),
                equals(_all),
            ),
            one(
                f"{pair}: truncated product of two, truncated, Z_4",
                "",
                [Z4] * 2,
                _chain(halve, halve),
                rounded(_halved_product_twice),
            ),
            one(
                f"{triple}: three products of four, Z_2",
                "",
                [Z2] * 4,
                _chain(product, product, product),
                equals(_all),
            ),
        ]
    return found


def _chain(*gates: GateUnderTest) -> GateUnderTest:
    return partial(run.then, gates=gates)


def queries(full: bool) -> list[Instance]:
    """Whole queries in small, with an input of the user and an answer to it."""
    gates = ("io.receive_input", "io.reveal")
    found = [
        Instance(
            f"query: product, {named(R)}",
            gates,
            (R,),
            partial(run.query, ring_of_input=R),
            modulo(R.bits, times),
            user_ring=R,
        )
        for R in (Z2, Z4)
    ]
    for R, shift in ((Z4, 1), *(((Z8, 2),) if full else ())):
        name = f"answer: truncated secret, {named(R)}"
        answer = partial(run.answer, shift=shift)
        right = rounded(lambda x, c, f=shift, k=R.bits: truncation(x[:, 0], c[:, 0], f, k))  # type: ignore[misc]
        found.append(Instance(name, ("io.reveal",), (R,), answer, right, user_ring=R, user_shares=False))
    truncated = partial(run.query, shift=1, ring_of_input=Z4)
    found.append(Instance("query: truncated product, Z_4", gates, (Z4,), truncated, rounded(_halved), user_ring=Z4))
    right = equals(lambda x: not_below((x[:, 0] + x[:, 1]) % 4, 0, 2))
    found.append(Instance("query: sign by key of a sum, Z_4", gates, (Z4,), run.query_key, right, user_ring=Z4))
    if full:
        right = equals(lambda x: ((x[:, 0] + x[:, 1]) % 4) >> 1)
        found.append(Instance("query: sign of a sum, Z_4", gates, (Z4,), run.query_sign, right, user_ring=Z4))
    return found
