"""The oblivious choice among all lanes by their accept bits, for more outer runs than a table holds."""

from __future__ import annotations

from collections.abc import Sequence

from siguard.guard.lanes import Lane
from siguard.mpc.arithmetic import product_cost
from siguard.mpc.boolean import and_bits, invert, xor
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.share import Share


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
