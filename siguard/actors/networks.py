"""How a server takes the parts of a network that the owner shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from siguard.mpc.io import receive_input
from siguard.mpc.party import Party
from siguard.mpc.share import Share
from siguard.ring import Z64


async def receive_network(party: Party, shapes: Sequence[Sequence[int]]) -> list[Share]:
    """The arrays of these shapes, in order, sent as one vector."""
    sizes = [math.prod(shape) for shape in shapes]
    weights = await receive_input(party.at("input"), Z64, (sum(sizes),), 0)
    arrays: list[Share] = []
    start = 0
    for size, shape in zip(sizes, shapes, strict=True):
        arrays.append(_as_long_lived(weights[start : start + size].reshape(*shape)))
        start += size
    return arrays


def _as_long_lived(share: Share) -> Share:
    """A copy with depth 0: sharing a network is set-up, not part of a call."""
    copy = share.map(np.ascontiguousarray)
    copy.depth = 0
    return copy
