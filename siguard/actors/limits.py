"""Refuse a batch that cannot fit in memory before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Sequence

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.policy import policy_cost
from siguard.nn.shared import inference_cost

#: The dealer runs ahead, so most of a call's bytes can be in memory at once, and again in working arrays.
_COPIES = 3


def available_bytes() -> int:
    """Memory that is free now; a generous constant where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 36


def check_memory(batch: int, model: Sequence[int] | None, defender: Sequence[int], config: GuardConfig) -> None:
    """Raise `InputError` when the frames of one call could not be held.

    model, defender: their public widths, input to output; None for a call without a model.
    """

    def needed(rows: int) -> int:
        frames = policy_cost(rows, defender, config)
        if model is not None:
            frames += inference_cost(rows, model)
        return frames.payload_bytes * _COPIES

    available = available_bytes()
    if needed(batch) <= available:
        return
    fits, too_many = 0, batch
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        fits, too_many = (middle, too_many) if needed(middle) <= available else (fits, middle)
    cure = f"pass at most {fits} rows in a call" if fits else "not even one row fits"
    raise InputError(
        f"batch: {batch} rows would need about {needed(batch) / 1e9:.3g} GB of memory, "
        f"{available / 1e9:.3g} GB are free; {cure}"
    )
