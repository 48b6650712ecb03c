"""Leaks in how masks are addressed: parts left out of an address or of a key, so that two draws are one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from siguard.actors.server import OWNER, UPSTREAM, USER
from siguard.actors.session import client_pair
from siguard.prf import PairwiseRandomness, _counter_mode, derive_key
from siguard.proofsim.patching import replaced, replaced_method
from siguard.ring import Ring, RingArray

_INDEX = re.compile(r"\[\d+\]")
_ZERO_SESSION = bytes(16)


@contextmanager
def at_address(other: Callable[[PairwiseRandomness, str, str, str], tuple[str, str]]) -> Iterator[None]:
    """Draw at (purpose, path) = other(randomness, pair, purpose, path), with the check for reuse off."""
    shipped = PairwiseRandomness.draw

    def draw(
        self: PairwiseRandomness, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]
    ) -> RingArray:
        purpose, path = other(self, pair, purpose, path)
        self._used.discard((pair, purpose, path))
        return shipped(self, pair, purpose, path, ring, shape)

    with replaced_method(PairwiseRandomness, "draw", draw):
        yield


def steps_share_masks() -> AbstractContextManager[None]:
    """The step path is not part of an address: gates of one kind have one mask."""
    return at_address(lambda randomness, pair, purpose, path: (purpose, ""))


def loop_index_ignored() -> AbstractContextManager[None]:
    """The index of a loop, or of a component, is not part of an address."""
    return at_address(lambda randomness, pair, purpose, path: (purpose, _INDEX.sub("", path)))


def purpose_ignored() -> AbstractContextManager[None]:
    """The purpose is not part of an address: r0 of an opening is t0 of its view."""
    return at_address(lambda randomness, pair, purpose, path: ("", path))


def call_order() -> AbstractContextManager[None]:
    """The n-th draw from a key has address n, whatever it is for."""

    def next_call(randomness: PairwiseRandomness, pair: str, purpose: str, path: str) -> tuple[str, str]:
        calls: Counter[str] = vars(randomness).setdefault("_calls", Counter())
        calls[pair] += 1
        return "", str(calls[pair])

    return at_address(next_call)


# Keys -------------------------------------------------------------------------------------------------------


@contextmanager
def _keyed(
    derive: Callable[[PairwiseRandomness, bytes, str], tuple[bytes, str]],
) -> Iterator[None]:
    """Session keys are derived from (session, dealer) = derive(randomness, session, dealer)."""
    shipped: Any = PairwiseRandomness.__init__

    def init(self: PairwiseRandomness, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None:
        shipped(self, keys, *derive(self, session, dealer), party)
        # Errors still name the session.
        self._session = session

    with replaced_method(PairwiseRandomness, "__init__", init):
        yield


def session_not_in_the_keys() -> AbstractContextManager[None]:
    """All sessions of a deployment with one dealer draw the same masks."""
    return _keyed(lambda randomness, session, dealer: (_ZERO_SESSION, dealer))


def dealer_not_in_the_keys() -> AbstractContextManager[None]:
    """A session that is run again with another dealer draws the same masks in other roles."""
    return _keyed(lambda randomness, session, dealer: (session, "S2"))


@contextmanager
def _one_key(group: Callable[[str], str]) -> Iterator[None]:
    """Pairs with a common ``group`` have one session key, from a constant seed; "" keeps a pair's own."""
    shipped: Any = PairwiseRandomness.__init__

    def init(self: PairwiseRandomness, keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> None:
        shipped(self, keys, session, dealer, party)
        for pair in keys:
            if group(pair):
                key = derive_key(bytes(32), "constant seed", session, dealer, group(pair))
                self._keys[pair] = key
                self._ciphers[pair] = _counter_mode(key, bytes(16))

    with replaced_method(PairwiseRandomness, "__init__", init):
        yield


def one_key_for_all_pairs() -> AbstractContextManager[None]:
    """Every pair has the key that a constant seed gives: each server knows all masks."""
    return _one_key(lambda pair: "all")


def one_client_key_for_all_servers() -> AbstractContextManager[None]:
    """A client has one key with all servers: each of them knows both masks of the input."""
    clients = tuple(client_pair(client, "") for client in (OWNER, USER, UPSTREAM))
    return _one_key(lambda pair: next((client for client in clients if pair.startswith(client)), ""))


def client_masks_from_the_servers_keys() -> AbstractContextManager[None]:
    """A client masks its input with the servers' pair keys: with one server it knows the masks of all wires."""
    return replaced(client_pair, lambda client, pair: pair)
