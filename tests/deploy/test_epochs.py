"""Two servers never use keys of different connections in one session, and answer nothing if they did."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from deploy_helpers import assert_right, deployed, nothing_left, settled, some_features

from siguard import PartyFailedError, ProtocolError
from siguard.actors.server import Server
from siguard.deploy.user import Service, User, connect
from siguard.proofsim.patching import replaced_method
from siguard.transport.link import Link
from siguard.transport.profiles import Direction
from siguard.transport.shape import ShapedLink

#: Seconds by which the request is later at the two others than at the dealer.
LATE = 0.4


def _late_but_for_dealer(link: Link, owner: str, nursery: trio.Nursery) -> Link:
    return ShapedLink(link, Direction(0.0 if link.peer == "S2" else LATE), nursery)


async def _ask(user: User, service: Service, reconnect: trio.Event) -> object:
    """What a query gives, with S2 dealing."""
    user._first_turn, user._sessions._calls = 0, 0
    reconnect.set()
    try:
        return await user.query(some_features(1), service=service)
    except ProtocolError as error:
        return error


@pytest.mark.parametrize("told", [True, False])
async def test_a_connection_that_is_made_anew_between_dealer_and_role_0(told: bool) -> None:
    """S2 has dealt all it deals when its link to S0 is replaced; S0 begins with the new key."""

    def forgotten(self: Server, session: bytes, role_0: str, client: str) -> None:
        pass

    found = []
    with trio.fail_after(30):
        async with nothing_left(), deployed() as here, trio.open_nursery() as links:
            user_of = here.loopback.identities["user"]
            wrap = partial(_late_but_for_dealer, nursery=links)
            async with connect(here.deployment, user_of, wrap_link=wrap) as user:
                [service] = [one for one in await user.services() if one.config.policy == "linesearch"]
                assert_right(await user.query(some_features(), service=service))
                for _ in range(3):
                    began = trio.Event()

                    async def flap(began: trio.Event = began) -> None:
                        await began.wait()
                        await trio.sleep(LATE / 4)
                        old = here.servers["S2"]._links["S0"]
                        await old.aclose()
                        assert await settled(lambda: here.servers["S2"]._links.get("S0") not in (None, old), 5.0)

                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(flap)
                        if told:
                            found.append(await _ask(user, service, began))
                        else:
                            with replaced_method(Server, "_note_dealt", forgotten):
                                found.append(await _ask(user, service, began))
                links.cancel_scope.cancel()
    if told:
        for error in found:
            assert isinstance(error, ProtocolError), error
            assert error.party in ("S0", "S2"), error
            assert error.session is not None
    else:  # what it is for: the user is not told what happened, but that a link is gone, or is given something else
        others = [one for one in found if isinstance(one, ProtocolError) and not isinstance(one, PartyFailedError)]
        assert all(one.step == "reveal" for one in others), found
