"""Logits relative to the label: what every policy starts from.

x_i = z_i - z_l is at most 0 at the start and exactly 0 at the label l.  Softmax only depends on x, and an
over-confident row keeps its structure: nothing underflows that matters (docs/numerics.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from siguard.mpc.arithmetic import dot, open_additive, product_cost, view
from siguard.mpc.compare import one_hot_cost, one_hot_ranks, relu, relu_cost
from siguard.mpc.gate import Cost
from siguard.mpc.party import Party
from siguard.mpc.products import dot_product
from siguard.mpc.share import Share, as_additive
from siguard.mpc.softmax import FRACTION_BITS

#: Fraction bits of the logits: ties are decided at this resolution.
LOGIT_BITS = 24
#: x saturates from below here: e^-128 is 0 in any answer.
FLOOR = -128
#: Ring in which x is compared with the floor: |x| < 2^31.
_FLOOR_BITS = 48
#: Subtracted at the label, it takes x - lead below everything that exp resolves: lead >= -142, see optimisation.
LABEL_OFFSET = 168


@dataclass
class RelativeLogits:
    """label, second: one-hot (batch, C) of the largest and the second logit.  x: (batch, C) at 16 bits."""

    label: Share
    second: Share
    x: Share

    async def lead(self, party: Party) -> Share:
        """The runner-up's x, (batch, 1): at most 0.  1 round."""
        return await dot(party, self.second, self.x)


async def label_one_hot(party: Party, logits: Share) -> Share:
    """One-hot label of logits at `LOGIT_BITS`, exact; the lowest index on ties at that resolution."""
    return (await one_hot_ranks(party, logits))[0]


async def relative_logits(party: Party, logits: Share) -> RelativeLogits:
    """Label and relative logits of logits (batch, C) at `LOGIT_BITS`.

    x_i = max(z_i - <l, z>, -128).  Exact at the label; elsewhere within 2^-16.
    Failure: a wrap with probability |x| 2^-40 per entry.  Rounds: argmax, 1, a ReLU.
    """
    ranks = await one_hot_ranks(party.at("rank"), logits, ranks=2)
    label, second = ranks[0], ranks[1]
    difference = as_additive(logits) - dot_product(label, logits)
    opened = await open_additive(party.at("relative"), difference)
    x = await view(party.at("relative"), opened, LOGIT_BITS - FRACTION_BITS)
    above, _ = await relu(party.at("floor"), x - (FLOOR << FRACTION_BITS), bits=_FLOOR_BITS)
    x = above + (FLOOR << FRACTION_BITS)
    return RelativeLogits(label, second, x)


def label_cost(batch: int, classes: int) -> Cost:
    """Declared cost of `label_one_hot`."""
    return one_hot_cost(batch, classes, 64, 1)


def relative_cost(batch: int, classes: int) -> Cost:
    """Declared cost of `relative_logits`."""
    n = batch * classes
    return one_hot_cost(batch, classes, 64, 2) + product_cost(n, 8) + relu_cost(n, _FLOOR_BITS, 8)


def lead_cost(batch: int) -> Cost:
    """Declared cost of `RelativeLogits.lead`."""
    return product_cost(batch, 8)
