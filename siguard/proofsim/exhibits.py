"""What the report shows of views: for each policy, one real view beside a simulated one."""

from __future__ import annotations

from functools import partial

import numpy as np
import trio

from siguard.proofsim.claims import Corrupted, Scope
from siguard.proofsim.page import Exhibit
from siguard.proofsim.recordings import FULL, QUICK, record
from siguard.proofsim.simulator import ideal_answers, simulate
from siguard.proofsim.statistics import uniformity
from siguard.proofsim.view import View


def exhibits(scope: Scope) -> list[Exhibit]:
    """One exhibit for each policy in scope, of the first corrupted set: one query, from set-up to answer."""
    corrupted = scope.corrupted[0]
    found = []
    for policy in scope.policies:
        config = (FULL if scope.full else QUICK)[policy]
        recording = trio.run(partial(record, config, scope.seed, queries=1))
        real = recording.view(corrupted)
        ideal = ideal_answers(recording.queries, recording.dealers, scope.seed)
        simulated = trio.run(simulate, real, ideal, scope.seed + 1)
        title = f"{policy}: one query and one call of the test role upstream, as {{{corrupted}}} sees them"
        found.append(Exhibit(title, policy, real, simulated, _statistics(real, simulated, corrupted)))
    return found


def _statistics(real: View, simulated: View, corrupted: Corrupted) -> list[tuple[str, str]]:
    rows = [
        ("events", f"{len(real.events)} real, {len(simulated.events)} simulated"),
        ("frames, links, steps, rounds and lengths", "equal" if real.shape() == simulated.shape() else "DIFFERENT"),
    ]
    for name, view in (("real", real), ("simulated", simulated)):
        # Elements of a ring of 48 bits travel in 64-bit words too: those are not full.
        words = [m.array.reshape(-1) for m in view.received if m.itemsize == 8 and m.array.max(initial=0) >> 60]
        if words:
            found = uniformity(np.concatenate(words), 64)
            rows.append(
                (
                    f"received 64-bit words, {name}",
                    f"{found.n} words; p = {found.p_value:.2g} for the most suspicious of their bits ({found.what})"
                    if not found.lacks
                    else found.lacks,
                )
            )
    if corrupted.user:
        pairs = zip(real.answers.values(), simulated.answers.values(), strict=True)
        largest = max((float(np.abs(np.subtract(a, b)).max()) for a, b in pairs), default=0.0)
        rows.append(
            ("answers, real against simulated", f"differ by at most {largest:.2g}: other coins, other rounding")
        )
    return rows
