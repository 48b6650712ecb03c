"""A view of a batch, row by row: what a distinguisher is given of each query in it.

Every draw and every message is used, in summary: a row's first word, its last one, and the sum of all its words;
and for every exchange the same of the sum of what the corrupted server sent and received, the opened value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from siguard.proofsim.view import Draw, Event, Message, View

Words = npt.NDArray[np.uint64]


def words_of_rows(view: View, rows: int) -> list[Words]:
    """Arrays (rows, n) of words, in an order that is the same for views of one shape."""
    found = []
    sent: dict[tuple[str, str, bytes, str], Message] = {}
    for event in sorted(view.events, key=_place):
        if isinstance(event, Message) and not event.received:
            sent[event.party, event.peer, event.session, event.step] = event
    for event in sorted(view.events, key=_place):
        if isinstance(event, Message) and not event.received:
            continue  # follows from the rest
        words = split_rows(event.array, rows)
        if words is None:
            continue  # a request: the same for all rows
        found.append(_summary(words))
        if isinstance(event, Message):
            own = sent.get((event.party, event.peer, event.session, event.step))
            mine = None if own is None else split_rows(own.array, rows)
            if mine is not None and mine.shape == words.shape:
                found.append(_summary(mine.astype(np.uint64) + words))
    return found


def split_rows(array: npt.NDArray[Any], rows: int) -> npt.NDArray[Any] | None:
    """The elements of each row, (rows, n), where the array holds a multiple of ``rows`` elements or packed bits.

    ``rows`` should be a prime, so that no other length is a multiple of it.  An array whose rows lie interleaved is
    cut in another order: each piece is still of one batch.
    """
    if rows in array.shape:
        return np.moveaxis(array, array.shape.index(rows), 0).reshape(rows, -1)
    if array.size and array.size % rows == 0:
        return array.reshape(rows, -1)
    if array.itemsize == 8 and array.ndim == 2 and 64 * array.shape[1] >= rows:
        bits = np.unpackbits(np.ascontiguousarray(array).view(np.uint8), axis=1, bitorder="little")
        each = bits.shape[1] // rows
        return bits[:, : each * rows].reshape(len(bits), rows, each).swapaxes(0, 1).reshape(rows, -1)
    return None


def _summary(words: npt.NDArray[Any]) -> Words:
    ends = (words[:, place].astype(np.uint64) for place in (0, -1))
    return np.stack([*ends, words.sum(axis=1, dtype=np.uint64)], axis=1)


def _place(event: Event) -> tuple[str, ...]:
    if isinstance(event, Draw):
        return "draw", event.party, event.session.hex(), event.step, event.pair, event.purpose
    return "message", event.party, event.session.hex(), event.step, event.peer, str(event.received)
