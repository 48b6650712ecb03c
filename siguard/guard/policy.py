"""What a guard policy owes, and which there are.

A policy is one module in `siguard.guard.policies` with

    async def protect(party, logits, defender, config) -> Share

shares in, shares out: logits (batch, C) at `relative.LOGIT_BITS`, result (batch, C) at 16 fraction bits, entries
>= 0, rows proportional to the confidences by a factor that is a function of the confidences, label kept.  Its
frames depend on batch, C, the shape of h and the configuration only.  To add one: a module, a line here, its
parameters in `siguard.guard.config`, and its float64 twin in `siguard.guard.reference`
(docs/adding-a-policy.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from siguard.guard.config import GuardConfig
from siguard.guard.defender import SharedDefender
from siguard.guard.policies import label, linesearch, none, siguard
from siguard.mpc.party import Party
from siguard.mpc.share import Share

Protect = Callable[[Party, Share, SharedDefender, GuardConfig], Awaitable[Share]]

PROTECT: dict[str, Protect] = {
    "siguard": siguard.protect,
    "linesearch": linesearch.protect,
    "label": label.protect,
    "none": none.protect,
}
