"""Refuse a batch that cannot fit in memory before anything is sent."""

from __future__ import annotations

import os

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.policy import policy_cost
from siguard.nn.model import Defender, Model
from siguard.nn.shared import inference_cost

#: The dealer runs ahead, so most of a call's bytes can be in memory at once, and again in working arrays.
_COPIES = 3


def available_bytes() -> int:
    """Memory that is free now; a generous constant where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 36


def check_memory(batch: int, model: Model | None, defender: Defender, config: GuardConfig) -> None:
    """Raise `InputError` when the frames of one call could not be held; public sizes only."""
    needed = policy_cost(batch, defender.shape, config).payload_bytes
    if model is not None:
        needed += inference_cost(batch, model.shape).payload_bytes
    needed *= _COPIES
    available = available_bytes()
    if needed > available:
        fits = max(1, batch * available // needed)
        raise InputError(
            f"batch: {batch} rows would need about {needed / 1e9:.3g} GB of memory, {available / 1e9:.3g} GB are "
            f"free; pass at most {fits} rows in a call"
        )
