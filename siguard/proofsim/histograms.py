"""Compare histograms of views exactly: whole counts, no tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.int64]
#: Components of what a set of cases shows: one array (cases,) each.
Columns = Sequence[Values]

#: Codes stay below this, so that two of them fit into one word.
_CODE_LIMIT = 1 << 31


class Distances(NamedTuple):
    """Largest total variation between two distributions of views that should be the same; 0.0 exactly if they are.

    hidden: between two values of what the corrupted set does not hold.  simulated: between real and simulated.
    """

    hidden: float
    simulated: float


def codes(*tables: Columns) -> list[Values]:
    """A small whole number per case, equal for equal cases of any of the tables, which have the same columns."""
    lengths = [len(table[0]) for table in tables]
    code = np.zeros(sum(lengths), np.int64)
    size = 1
    for parts in zip(*tables, strict=True):
        column = np.concatenate(parts)
        low = int(column.min())
        radix = int(column.max()) - low + 1
        if radix == 1:
            continue
        if size * radix > _CODE_LIMIT:
            distinct, code = np.unique(code, return_inverse=True)
            size = len(distinct)
        code = code * radix + (column - low)
        size *= radix
        if size > _CODE_LIMIT:
            raise ValueError("a view takes more values than can be counted at once")
    return np.split(code, np.cumsum(lengths)[:-1])


def distances(
    given: Columns, hidden: Columns, view: Columns, simulated_given: Columns, simulated_view: Columns
) -> Distances:
    """Compare the distribution of ``view`` for each (given, hidden) with that of others and with the simulated one.

    All cases are equally likely.  ``given``: what the simulator gets; each of its values in the real world must
    occur in the simulated one.
    """
    given_code, simulated_given_code = codes(given, simulated_given)
    (hidden_code,) = codes(hidden)
    view_code, simulated_code = codes(view, simulated_view)
    groups, group = np.unique(given_code * _CODE_LIMIT + hidden_code, return_inverse=True)
    given_of_group = groups // _CODE_LIMIT
    real = _Counts(group, view_code)
    simulated = _Counts(simulated_given_code, simulated_code)
    first = np.searchsorted(given_of_group, given_of_group)  # the first group with the same given value
    return Distances(_largest_distance(real, real, first), _largest_distance(real, simulated, given_of_group))


class _Counts:
    """How often each (group, view) occurs, sorted by group and view."""

    def __init__(self, group: Values, view: Values) -> None:
        self.keys, self.counts = np.unique(group * _CODE_LIMIT + view, return_counts=True)
        self.totals = np.bincount(group)

    def of(self, keys: Values) -> Values:
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.counts[place], 0)


def _largest_distance(real: _Counts, other: _Counts, partner: Values) -> float:
    """Over all groups of ``real``: total variation to the group ``partner[group]`` of ``other``."""
    group, view = np.divmod(real.keys, _CODE_LIMIT)
    n, m = real.counts, other.of(partner[group] * _CODE_LIMIT + view)
    totals, other_totals = real.totals, other.totals[partner]
    # |n / N - m / M| in whole numbers, times N M; what the other group has outside real's support counts too.
    difference = np.bincount(group, np.abs(n * other_totals[group] - m * totals[group]))
    covered = np.bincount(group, m * totals[group])
    scale = totals * other_totals
    return float(((difference + scale - covered) / (2 * scale)).max())
