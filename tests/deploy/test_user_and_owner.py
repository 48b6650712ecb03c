"""The user and the owner of a deployment: what they may ask for, and what they are told."""

from __future__ import annotations

import numpy as np
import pytest
import trio
from deploy_helpers import (
    LINESEARCH,
    SHORT,
    assert_right,
    deployed,
    failure_of,
    nothing_left,
    some_features,
    tiny_defender,
    tiny_model,
)
from frame_taps import Sent, Tap

from siguard import Defender, GuardConfig, InputError, PartyFailedError, PolicyError, ProtocolError
from siguard.actors.messages import read_grant
from siguard.deploy.owner import connect_owner
from siguard.transport.frame import Kind


async def test_services_and_how_one_is_chosen() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(share=()) as here, here.connect() as user:
            assert await user.services() == []
            with pytest.raises(PolicyError, match="the servers offer nothing yet: the model owner has shared no"):
                await user.query(some_features())
            name, defender = await here.share([SHORT], label="first")
            [service] = await user.services()
            assert (service.label, service.model, service.defender) == ("first", name, defender)
            assert (service.config.resolved(), service.widths) == (SHORT.resolved(), (5, 7, 4))
            assert service.defender_widths == (4, 8, 6, 1)
            assert_right(await user.query(some_features()))
            for policy in ("linesearch", LINESEARCH):
                with pytest.raises(PolicyError, match="is not signed by the model owner for this model; signed: "):
                    await user.query(some_features(), policy)
            with pytest.raises(PolicyError, match="not signed"):
                await user.query(some_features(), GuardConfig(outer=1, inner=2))
            await here.share([SHORT, LINESEARCH], label="second", model=tiny_model(1))
            with pytest.raises(InputError, match="model: several are held"):
                await user.query(some_features(), SHORT)
            with pytest.raises(
                InputError, match=r"model: found 'third'; the servers hold '\w+' \([0-9a-f]{32}\), '\w+' \("
            ):
                await user.query(some_features(), model="third")
            with pytest.raises(InputError, match="policy: several are signed for this model"):
                await user.query(some_features(), model="second")
            one = await user.query(some_features(), model="first")
            two = await user.query(some_features(), "siguard", model="second")
            assert np.abs(one.confidences - two.confidences).max() > 0.01
            assert_right(await user.query(some_features(), service=service), one.confidences)


async def test_features_are_checked_before_they_are_shared() -> None:
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect(wrap_link=tap) as user:
            for features in (np.zeros((2, 4)), np.full((2, 5), np.nan), np.zeros((0, 5))):
                with pytest.raises(InputError):
                    await user.query(features, SHORT)
            assert all(sent.frame.kind is Kind.ASK for sent in tap.frames)


async def test_an_offer_that_the_owner_did_not_sign() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed() as here, here.connect() as user:
            offers = here.servers["S1"].offers()
            forged = [{**offers[0], "signature": bytes(64)}]
            here.servers["S1"].offers = lambda: forged  # type: ignore[method-assign]
            with pytest.raises(ProtocolError, match="S1 offers a guard that the owner has not signed") as caught:
                await user.query(some_features(), SHORT)
            assert caught.value.party == "S1"
            # Fewer offers are no forgery: it does not take part in the others.
            here.servers["S1"].offers = lambda: offers[:1]  # type: ignore[method-assign]
            [service] = await user.services()
            assert read_grant(offers[0]["grant"])[2] == service.config


async def test_the_owner_shares_only_what_fits() -> None:
    with trio.fail_after(20):
        async with nothing_left(), deployed(share=()) as here:
            owner_of = connect_owner(here.deployment, here.loopback.identities["owner"])
            async with owner_of as owner:
                narrow = Defender([(np.ones((3, 2)), np.ones(2)), (np.ones((2, 1)), np.ones(1))])
                with pytest.raises(InputError, match="defender: it takes 3 confidences, and the model gives 4"):
                    await owner.share(tiny_model(), narrow, [SHORT])
                with pytest.raises(InputError, match="configs: none"):
                    await owner.share(tiny_model(), tiny_defender(), [])
                for label in ("x" * 65, "a\nb"):
                    with pytest.raises(InputError, match="label: found"):
                        await owner.share(tiny_model(), tiny_defender(), [SHORT], label)
            assert [(await server.status())["networks"] for server in here.servers.values()] == [0, 0, 0]


async def test_a_server_that_fails_while_the_owner_shares() -> None:
    """It cannot keep the second network; nothing is offered, and a later attempt works."""
    tap = Tap()
    with trio.fail_after(20):
        async with nothing_left(), deployed(share=(), wrap_link=tap) as here, here.connect() as user:

            async def stop(sent: Sent) -> list[bytes]:
                here.stop_soon("S2")
                return [sent.data]

            # S2's second word to the owner is that it holds the defender.
            hit = tap.at("S2", "owner", 2, stop)
            failure = await failure_of(here.share())
            assert len(hit) == 1
            assert isinstance(failure.error, PartyFailedError)
            assert failure.error.party == "S2"
            assert failure.error.session is not None
            await here.start("S2")
            await here.linked()
            assert await user.services() == []
            await here.share()
            assert_right(await user.query(some_features(), SHORT))
