"""The active rung: its claims hold on the shipped code, and each fails where what it is about is broken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import msgpack
import numpy as np
import pytest
import trio
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from siguard import Defender, GuardConfig, Model, PartyFailedError, SiguardError, open_cluster
from siguard.actors.actor import Actor
from siguard.actors.mailbox import Mailbox
from siguard.actors.session import SERVERS, Outbox
from siguard.errors import FrameError, ProtocolError
from siguard.proofsim.attacked import Attack, Case, attacked
from siguard.proofsim.claims import Claim, Scope, failures
from siguard.proofsim.faults import CONTENT, COPIES, HARMLESS, STRUCTURE, Arrival, Network, Passing, honest
from siguard.proofsim.patching import replaced, replaced_method
from siguard.proofsim.rungs.active import check
from siguard.proofsim.sealed import attacked_sealed
from siguard.transport.frame import _TYPES, HEADER_BYTES, Frame, Kind, decode_frame
from siguard.transport.link import LinkClosedError
from siguard.transport.memory import memory_link_pair
from siguard.transport.records import SEAL_BYTES, Opener, expand
from siguard.transport.secure import SealedLink

LABEL = GuardConfig("label")
PLACES_TRIED = ["between servers", "input", "answer"] * 6


def scope(seed: int = 1, *policies: str) -> Scope:
    return Scope(policies or ("label",), seed=seed)


def failing(claims: Sequence[Claim]) -> list[str]:
    """The claims that fail, by a word of each, in their order."""
    words = {
        "noticed, and no answer": "refused",
        "no bit of the answer": "same",
        "twice": "copies",
        "bent, f": "content",
        "sealed links a record that is lost": "sealed: changed",
        "sealed links a record that is doubled": "sealed: beside",
    }
    return [
        next(name for word, name in reversed(words.items()) if word in claim.claim) for claim in failures(claims)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_claims_hold(seed: int) -> None:
    claims = check(scope(seed))
    assert len(claims) == 6
    assert failing(claims) == [], f"seed {seed}: {[claim.problem for claim in claims]}"
    assert all(claim.cases >= 8 and claim.rung == "active" and claim.corrupted == "all" for claim in claims)


def test_quick_takes_the_cheapest_policy_of_the_scope() -> None:
    claims = check(scope(1, "siguard", "none"))
    assert {claim.claim.partition(":")[0] for claim in claims} == {"none"}
    assert failing(claims) == [], [claim.problem for claim in claims]


# Broken on purpose ------------------------------------------------------------------------------------------------


def second_frame_taken() -> AbstractContextManager[None]:
    shipped = Mailbox.deliver

    def deliver(self: Mailbox, sender: str, frame: Frame) -> None:
        self._arrived.pop((sender, frame.step), None)
        shipped(self, sender, frame)

    return replaced_method(Mailbox, "deliver", deliver)


def length_not_checked() -> AbstractContextManager[None]:
    """What is missing of a payload is 0, what is too much is ignored."""

    def loose(data: bytes) -> Frame:
        try:
            unpacker = msgpack.Unpacker()
            unpacker.feed(data[:HEADER_BYTES])
            _, kind, session, step, depth, itemsize, shape, size = unpacker.unpack()
            payload = np.frombuffer(data[HEADER_BYTES:].ljust(size, b"\0")[:size], _TYPES[itemsize]).reshape(shape)
            return Frame(Kind(kind), session, step, depth, payload)
        except Exception as error:
            raise FrameError(type(error).__name__) from None

    return replaced(decode_frame, loose)


def sessions_not_told_apart() -> AbstractContextManager[None]:
    """A frame of any session is taken for the one that runs."""
    shipped = Actor._dispatch

    def dispatch(self: Actor, peer: str, frame: Frame) -> None:
        running = list(self._mailboxes)
        if frame.kind is Kind.DATA and frame.session not in running and running:
            frame = Frame(frame.kind, running[-1], frame.step, frame.depth, frame.payload)
        shipped(self, peer, frame)

    return replaced_method(Actor, "_dispatch", dispatch)


def steps_not_told_apart() -> AbstractContextManager[None]:
    """A server takes the oldest frame of its sender, whatever its step."""
    shipped = Mailbox.take

    async def take(self: Mailbox, sender: str, path: str, depth: int = 0) -> Frame:
        oldest = next((key for key in self._arrived if key[0] == sender), None)
        if sender in SERVERS and self.party in SERVERS and oldest is not None:
            return self._arrived.pop(oldest)
        return await shipped(self, sender, path, depth)

    return replaced_method(Mailbox, "take", take)


def failure_is_told_with_a_share() -> AbstractContextManager[None]:
    shipped = Actor._tell

    async def tell(self: Actor, session: bytes, peers: Any, error: SiguardError) -> None:
        if self.name in SERVERS:
            state = next(iter(self.mailbox(session)._arrived.values()), None)
            payload = np.zeros((2, 3), np.uint64) if state is None else state.payload
            with suppress(SiguardError):  # the user's link may be what failed
                await Outbox(self.mailbox(session), self._links, self.ledger.traffic(session)).send(
                    "user", Kind.DATA, "last words", 1, payload
                )
        await shipped(self, session, peers, error)

    return replaced_method(Actor, "_tell", tell)


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (second_frame_taken, {"copies"}),
        (length_not_checked, {"refused"}),
        (sessions_not_told_apart, {"refused", "same"}),
        (steps_not_told_apart, {"same"}),
        (failure_is_told_with_a_share, {"refused", "content"}),
    ],
)
def test_a_broken_party_is_noticed(broken: Any, expected: set[str]) -> None:
    with broken():
        claims = check(scope())
    assert expected <= set(failing(claims)), [(claim.claim, claim.problem) for claim in claims]


def unauthenticated() -> AbstractContextManager[None]:
    """Records are decrypted, and their tags are not looked at (GCM is counter mode from block 2 on)."""

    def opened(self: Opener, record: bytes) -> bytes:
        nonce = (self._iv ^ self._counter).to_bytes(12)
        self._counter += 1
        key = expand(self._secret, b"record key")
        return Cipher(AES(key), CTR(nonce + (2).to_bytes(4))).decryptor().update(record[:-SEAL_BYTES])

    return replaced_method(Opener, "open", opened)


def not_sealed() -> AbstractContextManager[None]:
    return replaced(SealedLink, lambda inner, agreed: inner)


@pytest.mark.parametrize("broken", [unauthenticated, not_sealed])
def test_a_broken_seal_is_noticed(broken: Any) -> None:
    # Each answer of `none` stays one when a low bit of it is bent.
    with broken():
        claims = check(scope(1, "none"))
    found = set(failing(claims))
    assert "sealed: changed" in found, [(claim.claim, claim.problem) for claim in claims]
    assert found <= {"sealed: changed", "sealed: beside"}


def test_a_bent_record_ends_the_session_with_the_name_of_an_end_of_its_link() -> None:
    for seed in (1, 2):
        bent = [case for case in attacked_sealed(LABEL, seed, 3) if case.attack == "a bit flipped"]
        assert len(bent) == 3
        for case in bent:
            assert isinstance(case.error, PartyFailedError), f"seed {seed}: {case}: {case.error}"
            assert case.error.party in case.record[:2], f"seed {seed}: {case}: {case.error}"
            assert case.error.session is not None
            assert "link" in case.error.message, case.error


# What is not claimed ----------------------------------------------------------------------------------------------


def unnoticed(name: str) -> list[Case]:
    """Calls in which this fault changed the answer, and that did not fail."""
    found = attacked(LABEL, 1, [Attack(name, CONTENT[name], place=place) for place in PLACES_TRIED])
    return [
        case
        for case in found
        if case.found.answer is not None
        and case.expected.answer is not None
        and not np.array_equal(case.found.answer, case.expected.answer)
    ]


@pytest.mark.parametrize("name", ["a payload bit flipped", "another payload", "forged, itself late"])
def test_content_of_the_right_form_gives_a_wrong_answer_unnoticed(name: str) -> None:
    """The limit of links that are not sealed, which the claim states."""
    wrong = unnoticed(name)
    assert wrong, f"{name}: never both unnoticed and of consequence"
    for case in wrong:
        assert case.found.lines() == case.expected.lines(), str(case)
        assert sum(case.found.lines(["user"]).values()) == 2, "more than the two parts of an answer"


async def test_an_exchange_that_is_reflected_goes_unnoticed(autojump_clock: Any) -> None:
    """A server cannot tell its own message of an exchange from the other's."""
    rng = np.random.default_rng(1)
    model = Model([(rng.normal(size=(3, 3)), np.zeros(3))])
    defender = Defender([(rng.normal(size=(3, 4)), np.zeros(4)), (rng.normal(size=(4, 1)), np.zeros(1))])
    rows = rng.normal(size=(2, 3))

    async def run(step: bytes | None) -> tuple[Any, list[Passing]]:
        """The confidences, or None where the parts of the answer are none."""
        network = Network()

        def tamper(passing: Passing) -> list[Arrival]:
            if passing.frame.step != step:
                return honest(passing)
            back = passing.receiver, passing.sender
            return [Arrival(passing.data, link=back), Arrival(passing.data, after=1)]

        network.tamper = tamper
        async with open_cluster(1, wrap_link=network.wrap_link) as cluster:
            try:
                return (await cluster.query(rows, model, defender, LABEL)).confidences, network.passed
            except ProtocolError as error:
                noticed_by = error.party
        assert noticed_by == "user", "no server notices"
        return None, network.passed

    expected, passed = await run(None)
    links: dict[bytes, set[str]] = {}
    for passing in passed:
        if passing.receiver in SERVERS:
            links.setdefault(passing.frame.step, set()).add(passing.sender)
    exchanges = [step for step, senders in links.items() if senders == {"S0", "S1"}]
    assert exchanges
    answers = [(await run(step))[0] for step in exchanges]
    assert any(answer is None or not np.array_equal(answer, expected) for answer in answers)


# The network itself -----------------------------------------------------------------------------------------------


async def test_the_network_delivers_what_it_is_told_when_it_is_told(autojump_clock: Any) -> None:
    network = Network()
    one, other = memory_link_pair("S0", "S1")
    near, far = network.wrap_link(one, "S0"), network.wrap_link(other, "S1")
    await near.send(b"a")
    assert await far.receive() == b"a"
    delays = iter([5.0, 1.0, 0.0])
    network.tamper = lambda passing: [Arrival(passing.data, next(delays))]
    started = autojump_clock.current_time()
    for data in (b"late", b"later than the next", b"at once"):
        await near.send(data)
    await near.aclose()
    got = [await far.receive() for _ in range(3)]
    assert got == [b"at once", b"later than the next", b"late"]
    assert autojump_clock.current_time() - started == 5
    assert network.overtakes == 2
    assert [passing.data for passing in network.passed] == [b"a", b"late", b"later than the next", b"at once"]
    with pytest.raises(LinkClosedError):
        await far.receive()


async def test_a_frame_may_come_out_of_another_link_that_waits(autojump_clock: Any, nursery: Any) -> None:
    network = Network()
    ends = {pair: memory_link_pair(*pair) for pair in (("S0", "S1"), ("S0", "S2"))}
    near, _ = (network.wrap_link(end, name) for end, name in zip(ends["S0", "S1"], ("S0", "S1"), strict=True))
    network.wrap_link(ends["S0", "S2"][0], "S0")
    elsewhere = network.wrap_link(ends["S0", "S2"][1], "S2")
    far = network._ends["S0", "S1"]
    network.tamper = lambda passing: [Arrival(passing.data, link=("S0", "S2"))]
    got = []

    async def wait() -> None:
        got.append(await elsewhere.receive())

    nursery.start_soon(wait)
    nursery.start_soon(far.receive)
    await near.send(b"x")
    await trio.sleep(1)
    assert got == [b"x"]
    nursery.cancel_scope.cancel()


def test_no_fault_leaves_a_frame_as_it_is() -> None:
    (case,) = attacked(LABEL, 2, [Attack("untouched")])
    rng = np.random.default_rng(2)
    for faults in (STRUCTURE, HARMLESS, COPIES, CONTENT):
        for name, fault in faults.items():
            for passing in case.expected.sent:
                past = [other for other in case.expected.sent if other.frame.step != passing.frame.step]
                assert fault(passing, rng, past) != honest(passing), f"{name}: {passing}"


def test_a_frame_that_was_never_met_is_not_a_case() -> None:
    """A claim about attacks that did not take place does not hold."""
    with replaced(attacked, lambda config, seed, attacks: [case._replace(met=None) for case in some(attacks)]):
        assert set(failing(check(scope()))) == {"refused", "same", "copies", "content"}
    never = [case._replace(met=False) for case in attacked_sealed(LABEL, 1, 1)]
    with replaced(attacked_sealed, lambda config, seed, times: never):
        assert set(failing(check(scope()))) == {"sealed: changed", "sealed: beside"}


def some(attacks: Sequence[Attack]) -> list[Case]:
    """Calls that went well."""
    (case,) = attacked(LABEL, 2, [Attack("untouched")])
    return [case._replace(attack=attack) for attack in attacks]
