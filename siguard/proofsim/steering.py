"""Real runs with chosen coins: the shipped protocol under masks that give the corrupted server chosen parts.

The real view *given the coins* is what a claim "for the same answer and the same coins" speaks of; two independent
runs never have the same coins.  An ideal run says what every role holds after every gate for the chosen coins; the
masks of the shipped gates follow from that, and the one that stays free (one of two masks of an opening) is drawn
as ever.  So this is a sample of the real view conditioned on the coins, not an approximation of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siguard.actors.session import client_pair, pair_name, roles_for
from siguard.prf import KEY_BYTES, PairwiseRandomness, RandomnessFactory, RandomnessSource, derive_key
from siguard.proofsim.ideal import TrustedParty
from siguard.ring import Ring, RingArray

_Address = tuple[str, str, str]
#: Gates whose outputs are dealt in a steered run (`siguard.proofsim.keys.dealt_as_in`).
KEYED = ("keyed.comparison", "keyed.window")


def steered_by(trusted: TrustedParty, dealer: str, tape: int) -> RandomnessFactory:
    """Sources under which a real run of the same query gives every role what the ideal run ``trusted`` gave it.

    tape: the seed of what stays free.
    """
    key = derive_key(tape.to_bytes(KEY_BYTES, "little"), "free masks")
    masks = _masks(trusted, dealer, PairwiseRandomness({"free": key}, bytes(16), "", ""))

    def factory(keys: Mapping[str, bytes], session: bytes, dealer: str, party: str) -> RandomnessSource:
        return _Steered(PairwiseRandomness(keys, session, dealer, party), masks)

    return factory


class _Steered:
    def __init__(self, source: RandomnessSource, masks: Mapping[_Address, RingArray]) -> None:
        self._source = source
        self._masks = masks

    def draw(self, pair: str, purpose: str, path: str, ring: Ring, shape: tuple[int, ...]) -> RingArray:
        # Drawn in any case: the shipped source refuses a second use of an address.
        drawn = self._source.draw(pair, purpose, path, ring, shape)
        return self._masks.get((pair, purpose, path), drawn)


def _masks(trusted: TrustedParty, dealer: str, free: RandomnessSource) -> dict[_Address, RingArray]:
    """What to draw at each address."""
    roles = roles_for(dealer)
    with_first, with_second = pair_name(roles[0], roles[2]), pair_name(roles[1], roles[2])
    masks: dict[_Address, RingArray] = {}

    def wire(path: str, purpose: str, dealer_output: Any, client: bool = False) -> None:
        first, second = with_first, with_second
        if client:
            first, second = client_pair("user", first), client_pair("user", second)
        masks[first, purpose, path] = dealer_output.second
        masks[second, purpose, path] = dealer_output.first

    for (gate, path), outputs in trusted.outputs.items():
        if gate in ("arithmetic.deal", *KEYED):
            masks[with_first, "dealt", path] = outputs[0].value
        elif gate == "arithmetic.deal_wire":
            masks[with_first, "dealt", path] = outputs[0].first
        elif gate == "arithmetic.view":
            masks[with_first, "view", path] = outputs[0].first
        elif gate == "arithmetic.remask":
            wire(path, "remask", outputs[2])
        elif gate == "arithmetic.remask_together":
            for index, output in enumerate(outputs[2]):
                wire(f"{path}/part[{index}]", "remask", output)
        elif gate == "io.receive_input":
            wire(path, "input", outputs[2], client=True)
        elif gate == "arithmetic.open_additive":
            ring = outputs[2].ring
            total = ring.add(outputs[2].value, trusted.dealer_parts[path])
            own = free.draw("free", "open", path, ring, total.shape)
            # What is free is the corrupted server's own mask.
            mine, other = (with_second, with_first) if trusted.role == 1 else (with_first, with_second)
            masks[mine, "open", path] = own
            masks[other, "open", path] = ring.sub(total, own)
        elif gate != "io.reveal":
            raise ValueError(f"the masks of {gate} cannot be chosen: say here how they follow from its outputs")
    return masks
