"""The three states a secret has between gates: `Share`, `Additive`, `Opened`.

x = x0 + x1 + x2 in the ring, and the party in role i holds (x_i, x_{i+1}).  Read every share as a masked
wire: a = x1 is known to roles 0 and 1, the mask alpha = x0 + x2 to role 2, the dealer, and x = a + alpha.
Roles rotate with the session; the server in role 2 deals and never waits (`docs/protocol.md`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from siguard.mpc.secret import Secret
from siguard.ring import PreparedMatrix, Rearrangement, Ring, RingArray

#: Anything public that may be added to or multiplied with a share: ring elements or (signed) integers.
Public = int | npt.NDArray[Any]


class Share(Secret):
    """A replicated sharing of an array: role i holds ``first`` = x_i and ``second`` = x_{i+1}.

    depth: longest chain of messages this party's part was computed from.
    Additions, subtractions and products with public integers are local; everything else is a gate.
    """

    __slots__ = ("_prepared", "depth", "first", "ring", "role", "second")

    def __init__(self, role: int, ring: Ring, first: RingArray, second: RingArray, depth: int) -> None:
        self.role = role
        self.ring = ring
        self.first = first
        self.second = second
        self.depth = depth
        self._prepared: dict[str, PreparedMatrix] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Public shape of the shared array."""
        return self.first.shape

    def __repr__(self) -> str:
        return f"Share(shape={self.shape}, ring={self.ring!r})"

    def _with(self, first: RingArray, second: RingArray, depth: int | None = None) -> Share:
        return Share(self.role, self.ring, first, second, self.depth if depth is None else depth)

    @classmethod
    def public(cls, role: int, ring: Ring, values: npt.ArrayLike) -> Share:
        """A sharing of public integers: (0, x, 0)."""
        value = ring.constant(values)
        zeros = np.zeros_like(value)
        parts = ((zeros, value), (value, zeros), (zeros, zeros))[role]
        return cls(role, ring, *parts, 0)

    # Linear operations ------------------------------------------------------------------------------------

    def __add__(self, other: Share | Public) -> Share:
        ring = self.ring
        if isinstance(other, Share):
            depth = max(self.depth, other.depth)
            return self._with(ring.add(self.first, other.first), ring.add(self.second, other.second), depth)
        # A public constant belongs to x1, which is second at role 0, first at role 1, and not held at role 2.
        value = ring.constant(other)
        shape = np.broadcast_shapes(self.shape, value.shape)
        first = ring.add(self.first, value) if self.role == 1 else np.broadcast_to(self.first, shape)
        second = ring.add(self.second, value) if self.role == 0 else np.broadcast_to(self.second, shape)
        return self._with(first, second)

    __radd__ = __add__

    def __sub__(self, other: Share | Public) -> Share:
        if isinstance(other, Share):
            ring = self.ring
            depth = max(self.depth, other.depth)
            return self._with(ring.sub(self.first, other.first), ring.sub(self.second, other.second), depth)
        return self + self.ring.neg(self.ring.constant(other))

    def __rsub__(self, other: Public) -> Share:  # type: ignore[misc]  # an array leaves it to us, see Secret
        return -self + other

    def __neg__(self) -> Share:
        return self._with(self.ring.neg(self.first), self.ring.neg(self.second))

    def __mul__(self, factor: Public) -> Share:
        if isinstance(factor, Secret):
            raise TypeError("the product of two secrets is a gate: use siguard.mpc.arithmetic.multiply")
        value = self.ring.constant(factor)
        return self._with(self.ring.mul(self.first, value), self.ring.mul(self.second, value))

    __rmul__ = __mul__

    def sum(self, axis: int) -> Share:
        """Sum over one axis."""
        return self._with(self.ring.sum(self.first, axis), self.ring.sum(self.second, axis))

    # Public rearrangement ---------------------------------------------------------------------------------

    def map(self, rearrangement: Rearrangement) -> Share:
        """The same public rearrangement of elements applied to both parts."""
        return self._with(rearrangement(self.first), rearrangement(self.second))

    def __getitem__(self, index: Any) -> Share:
        return self._with(self.first[index], self.second[index])

    def reshape(self, *shape: int) -> Share:
        """The same elements in another shape."""
        return self._with(self.first.reshape(shape), self.second.reshape(shape))

    def broadcast(self, *shape: int) -> Share:
        """Repeated along new or unit axes, as `numpy.broadcast_to`."""
        return self.map(lambda part: np.broadcast_to(part, shape))

    @staticmethod
    def concatenate(shares: Sequence[Share], axis: int = 0) -> Share:
        """One share of all the arrays, joined along an axis."""
        return shares[0]._with(
            np.concatenate([share.first for share in shares], axis),
            np.concatenate([share.second for share in shares], axis),
            max(share.depth for share in shares),
        )

    # The masked-wire reading ------------------------------------------------------------------------------

    def masked(self) -> RingArray:
        """a = x1, known to roles 0 and 1."""
        return self.second if self.role == 0 else self.first

    def mask(self) -> RingArray:
        """alpha = x0 + x2, known to role 2."""
        return self.ring.add(self.first, self.second)

    def mask_part(self) -> RingArray:
        """x0 at role 0, x2 at role 1: the additive halves of alpha."""
        return self.first if self.role == 0 else self.second

    def with_masked(self, masked: RingArray) -> Share:
        """The wire with this mask and another public part a; at roles 0 and 1."""
        parts = (self.first, masked) if self.role == 0 else (masked, self.second)
        return self._with(*parts)

    def prepared(self, part: str) -> PreparedMatrix:
        """``first``, ``second`` or their ``sum`` as a right operand whose limbs are kept for reuse."""
        if self._prepared is None:
            self._prepared = {}
        if part not in self._prepared:
            matrix = self.mask() if part == "sum" else cast(RingArray, getattr(self, part))
            self._prepared[part] = PreparedMatrix(matrix)
        return self._prepared[part]

    def with_role(self, role: int) -> Share:
        """The same long-lived parts read in another role: the sharing is symmetric under rotation."""
        turned = Share(role, self.ring, self.first, self.second, self.depth)
        if self._prepared is None:
            self._prepared = {}
        turned._prepared = self._prepared
        return turned


class Additive(Secret):
    """x = v0 + v1 + v2, with v_i at role i: a local result that has not been exchanged yet.

    ``value`` is None at role 2 when its part is 0 by construction, which is public knowledge
    (``dealer_part`` False at every role).
    """

    __slots__ = ("dealer_part", "depth", "ring", "role", "value")

    def __init__(self, role: int, ring: Ring, value: RingArray, depth: int, *, dealer_part: bool = True) -> None:
        self.role = role
        self.ring = ring
        self.value = value
        self.depth = depth
        self.dealer_part = dealer_part

    @property
    def shape(self) -> tuple[int, ...]:
        """Public shape of the array."""
        return self.value.shape

    def __repr__(self) -> str:
        return f"Additive(shape={self.shape}, ring={self.ring!r})"

    def _with(self, value: RingArray, depth: int | None = None, dealer_part: bool | None = None) -> Additive:
        return Additive(
            self.role,
            self.ring,
            value,
            self.depth if depth is None else depth,
            dealer_part=self.dealer_part if dealer_part is None else dealer_part,
        )

    def __add__(self, other: Additive | Share) -> Additive:
        term = as_additive(other) if isinstance(other, Share) else other
        return self._with(
            self.ring.add(self.value, term.value),
            max(self.depth, term.depth),
            self.dealer_part or term.dealer_part,
        )

    def __neg__(self) -> Additive:
        return self._with(self.ring.neg(self.value))

    def __sub__(self, other: Additive | Share) -> Additive:
        return self + -other

    def __mul__(self, factor: Public) -> Additive:
        return self._with(self.ring.mul(self.value, self.ring.constant(factor)))

    __rmul__ = __mul__

    def sum(self, axis: int) -> Additive:
        """Sum over one axis."""
        return self._with(self.ring.sum(self.value, axis))

    def map(self, rearrangement: Rearrangement) -> Additive:
        """A public rearrangement of elements."""
        return self._with(rearrangement(self.value))

    def __getitem__(self, index: Any) -> Additive:
        return self._with(self.value[index])

    def reshape(self, *shape: int) -> Additive:
        """The same elements in another shape."""
        return self._with(self.value.reshape(shape))

    @staticmethod
    def concatenate(terms: Sequence[Additive], axis: int = 0) -> Additive:
        """One additive sharing of all the arrays, joined along an axis."""
        return terms[0]._with(
            np.concatenate([term.value for term in terms], axis),
            max(term.depth for term in terms),
            any(term.dealer_part for term in terms),
        )


class Opened(Secret):
    """An opened wire: roles 0 and 1 hold c = x + r, role 2 holds the mask r (both as ``value``)."""

    __slots__ = ("depth", "ring", "role", "value")

    def __init__(self, role: int, ring: Ring, value: RingArray, depth: int) -> None:
        self.role = role
        self.ring = ring
        self.value = value
        self.depth = depth

    @property
    def shape(self) -> tuple[int, ...]:
        """Public shape of the array."""
        return self.value.shape

    def __repr__(self) -> str:
        return f"Opened(shape={self.shape}, ring={self.ring!r})"

    def __getitem__(self, index: Any) -> Self:
        return type(self)(self.role, self.ring, self.value[index], self.depth)

    def reshape(self, *shape: int) -> Self:
        """The same elements in another shape."""
        return type(self)(self.role, self.ring, self.value.reshape(shape), self.depth)

    def masked(self) -> RingArray:
        """c, known to roles 0 and 1: an opened value is a wire whose mask has not been shared out."""
        return self.value

    def mask(self) -> RingArray:
        """-r, known to role 2."""
        return self.ring.neg(self.value)

    def reduce(self, shift: int, ring: Ring) -> Opened:
        """x / 2^shift in a ring of at most k - shift bits: floor or floor + 1, never a wrap.  Local.

        Both hold the upper bits of what they held: (c >> shift) - (r >> shift).  Source: gates.md, 2 (b).
        """
        if ring.bits > self.ring.bits - shift:
            raise ValueError(f"{self.ring} shifted by {shift} has no {ring}")
        return Opened(self.role, ring, ring.convert(self.ring.shift_right(self.value, shift)), self.depth)

    def minus_public(self, values: Public) -> Self:
        """x - t for public t: only c moves."""
        shifted = self.ring.sub(self.value, self.ring.constant(values) if self.role != 2 else self.ring.zeros(1))
        if self.role == 2:
            shifted = np.broadcast_to(shifted, np.broadcast_shapes(self.shape, np.shape(values)))
        return type(self)(self.role, self.ring, shifted, self.depth)


def as_additive(share: Share) -> Additive:
    """A replicated sharing as an additive one without a dealer part: (x0 + x1, x2, 0).  Local."""
    ring = share.ring
    if share.role == 0:
        value = ring.add(share.first, share.second)
    elif share.role == 1:
        value = share.second
    else:
        value = ring.zeros(*share.shape)
    return Additive(share.role, ring, value, share.depth, dealer_part=False)


def as_opened(share: Share | Opened) -> Opened:
    """Any wire read as an opened one: c = a, r = -alpha.  Local."""
    if isinstance(share, Opened):
        return share
    value = share.ring.neg(share.mask()) if share.role == 2 else share.masked()
    return Opened(share.role, share.ring, value, share.depth)
