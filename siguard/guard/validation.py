"""Secure noise validation, and the oblivious choice among all lanes.

Source: SIGuard (NDSS 2025), section on noise validation.  What is validated is what is released: the label and
the sign of h are taken of the very exponentials that the answer is selected from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siguard.guard.defender import SIGN_BITS, SharedDefender, activations_cost, logit_cost
from siguard.guard.lanes import Lane
from siguard.mpc.arithmetic import deal_cost, exchange_cost, product_cost, remask
from siguard.mpc.boolean import and_bits, invert, sign_bit, sign_cost, xor
from siguard.mpc.compare import count_ring
from siguard.mpc.concurrency import side_by_side
from siguard.mpc.conversion import bit_terms
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.mpc.softmax import FRACTION_BITS
from siguard.mpc.tables import lookup, lookup_cost
from siguard.ring import Z2

#: The label's entry of a released answer is 1 + 2^-12, every other one is validated to be at most 1 + 2^-13.
LABEL_MARGIN = 1 << (FRACTION_BITS - 12)
_TIE = 1 << (FRACTION_BITS - 13)


async def validate(party: Party, E: Share, label: Share, defender: SharedDefender) -> Share:
    """Bit per row and lane, (batch, lanes): label kept and h0 h <= 0.

    E: unnormalised answers, (batch, 1 + lanes, C), entry 0 of the lane axis the unguarded one.
    Rounds: those of h, 6 for signs, 2 for the conjunctions.
    """
    kept, on_other_side = await side_by_side(
        lambda: _label_kept(party.at("label"), E[:, 1:], label),
        lambda: _crossed(party.at("crossed"), E, defender),
    )
    return await and_bits(party.at("both"), kept, on_other_side)


async def _label_kept(party: Party, E: Share, label: Share) -> Share:
    """0 <= E_i <= 1 + 2^-13 for all classes, and 1 <= E_l: count what is outside, compare the count with 0.

    In the full ring, so that it holds for every value that E could take: whatever was lost on the way here (a wrap
    in the optimisation), nothing passes that is not an answer with this label.
    """
    batch, lanes, classes = E.shape
    one = 1 << FRACTION_BITS
    floor = (label * one).reshape(batch, 1, classes)
    outside = await sign_bit(party.at("sign"), Share.concatenate([E - floor, one + _TIE - E], axis=-1))
    counts = count_ring(2 * classes + 1)
    excesses = await bit_terms(party.at("bits"), outside, counts)
    count = await remask(party.at("count"), excesses.sum(-1))
    is_zero = np.zeros((1, 1 << counts.bits), np.int64)
    is_zero[0, 0] = 1
    return (await lookup(party.at("none"), count, Z2.constant(is_zero), Z2)).reshape(batch, lanes)


async def _crossed(party: Party, E: Share, defender: SharedDefender) -> Share:
    """h0 h <= 0, with h = 0 on both sides: not both positive and not both negative."""
    factor = E.sum(-1)[..., None]
    hidden = await defender.activations(party.at("hidden"), E, factor)
    h = (await defender.logit(party.at("logit"), hidden, factor))[..., 0]
    signs = await sign_bit(party.at("signs"), Share.concatenate([(-h)[None], h[None]]))
    own, others = signs[:, :, :1], signs[:, :, 1:]
    same = await and_bits(party.at("same"), own.broadcast(*others.shape), others)
    return invert(xor(same[0], same[1]))


async def choose(party: Party, ok: Share, lanes: Sequence[Lane], outer: int) -> Share:
    """One-hot bits of the lane whose noise is used, (batch, lanes); all 0 where none was accepted.

    Walks the runs as the published loop does: reach(i, j) says that run i starts with j acceptances, the noise
    of the last accepted run stays.  Rounds: outer - 1 forward and at most outer - 1 back.
    """
    index = {(lane.run, lane.accepted): position for position, lane in enumerate(lanes)}
    accepted: list[Share] = []  # accepted[i]: (batch, i + 1) bits, reach(i, j) and ok(i, j)
    rejected_before: Share | None = None
    for run in range(outer):
        positions = [index[run, j] for j in range(run + 1)]
        here = ok[:, positions]
        if rejected_before is None:
            taken = here
            missed = invert(here)
        else:
            # reach(i, j): j accepted before and rejected now, or j - 1 before and accepted now; exclusive.
            empty = rejected_before[:, :1] * 0
            reach = xor(
                Share.concatenate([rejected_before, empty], axis=1),
                Share.concatenate([empty, accepted[-1]], axis=1),
            )
            taken = await and_bits(party.at("run", run), reach, here)
            missed = xor(reach, taken)
        accepted.append(taken)
        rejected_before = missed
    return await _last_accepted(party, accepted, lanes)


async def _last_accepted(party: Party, accepted: list[Share], lanes: Sequence[Lane]) -> Share:
    outer = len(accepted)
    chosen: list[Share] = [accepted[-1]]
    none_later: Share | None = None
    for run in range(outer - 2, -1, -1):
        missed = invert(accepted[run + 1].sum(1)[:, None])
        if none_later is None:
            none_later = missed
        else:
            none_later = await and_bits(party.at("later", run), none_later, missed)
        width = accepted[run].shape[1]
        step = party.at("last", run)
        chosen.insert(0, await and_bits(step, accepted[run], none_later.broadcast(accepted[run].shape[0], width)))
    return Share.concatenate(chosen, axis=1)


def validate_cost(batch: int, lanes: int, shape: Sequence[int]) -> Cost:
    """Declared cost of `validate`; shape: widths of h."""
    classes, rows = shape[0], batch * lanes
    counts = count_ring(2 * classes + 1)
    n = 2 * rows * classes
    kept = (
        sign_cost(n, 64)
        + deal_cost(n, counts.itemsize)
        + exchange_cost(rows, counts.itemsize)
        + lookup_cost(rows, counts.bits, 1, 1)
    )
    with_own = batch * (lanes + 1)
    crossed = (
        activations_cost(with_own, shape)
        + logit_cost(with_own, shape)
        + sign_cost(2 * with_own, SIGN_BITS)
        + product_cost(2 * rows, 1)
    )
    return kept.beside(crossed) + product_cost(rows, 1)


def choose_cost(batch: int, outer: int) -> Cost:
    """Declared cost of `choose`."""
    total = Cost()
    for run in range(1, outer):
        total += product_cost(batch * (run + 1), 1)
    for run in range(outer - 2, -1, -1):
        # The conjunction with "none later" of run i waits for that of run i + 1 only.
        last = product_cost(batch * (run + 1), 1)
        if run < outer - 2:
            later = product_cost(batch, 1)
            total += later + Cost(0, last.messages, last.payload_bytes)
        else:
            total += Cost(0, last.messages, last.payload_bytes)
    return total + Cost(rounds=1 if outer > 1 else 0)
