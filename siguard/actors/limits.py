"""What one call, and what is prepared for calls to come, may take of a server; refused before anything is sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from siguard.errors import InputError
from siguard.guard.config import GuardConfig
from siguard.guard.plan import Plan
from siguard.guard.policy import policy_cost
from siguard.guard.shape import Shape
from siguard.nn.shared import inference_cost

#: The dealer runs ahead, so most of a call's bytes can be in memory at once, and again in working arrays.
_COPIES = 3

#: Prepared sessions that a server keeps at once.  Each has at most `siguard.actors.windows.WINDOW_BYTES` and one
#: frame unread, so 512 MiB and 32 frames in all.
MOST_PREPARED = 32
#: Seconds after which a client uses a prepared session no more; servers drop it a deadline later.
PREPARED_SECONDS = 600.0


def most_prepared(most_sessions: int | None) -> int:
    """Prepared sessions that a server keeps: half of its sessions at most, so that nobody's idle ones fill it."""
    return MOST_PREPARED if most_sessions is None else min(MOST_PREPARED, most_sessions // 2)


def check_prepare(batch: Any, count: Any) -> None:
    """Raise `InputError` naming what cannot be prepared."""
    for name, value, most in (("batch", batch, None), ("count", count, MOST_PREPARED)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < 1 or (most is not None and value > most):
            allowed = "a whole number of 1 or more" if most is None else f"a whole number from 1 to {most}"
            raise InputError(f"{name}: found {value!r}; allowed: {allowed}")


def available_bytes() -> int:
    """Memory that is free now; a generous constant where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 36


def check_memory(
    shape: Shape,
    model: Sequence[int] | None,
    config: GuardConfig,
    plan_of: Callable[[int], Plan] | None = None,
) -> None:
    """Raise `InputError` when the frames of one call could not be held.

    model: its public widths, input to output; None for a call without one.  plan_of: that of a call with so many
    rows, if it is not that of ``shape``; so that the cure holds.
    """

    def needed(rows: int) -> int:
        plan = shape.plan if plan_of is None else plan_of(rows)
        frames = policy_cost(shape._replace(batch=rows, plan=plan), config)
        if model is not None:
            frames += inference_cost(rows, model, plan.hidden)
        return frames.payload_bytes * _COPIES

    batch, available = shape.batch, available_bytes()
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
