"""The taint rung: its claims hold on the shipped code, and each fails where what it is about is broken."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from siguard import GuardConfig, SecretError, SiguardError
from siguard.actors.mailbox import Mailbox
from siguard.guard.policy import POLICIES
from siguard.mpc.compare import win_counts
from siguard.mpc.party import Party
from siguard.mpc.secret import Secret
from siguard.mpc.share import Opened, Share
from siguard.proofsim.capture import LEAST, Secrets, captured, of_error, spelled
from siguard.proofsim.claims import Claim, Scope, failures
from siguard.proofsim.patching import replaced, replaced_method
from siguard.proofsim.rungs.taint import check
from siguard.proofsim.watched import secret_types, watched_run

LABEL = Scope(("label",))
Peek = Callable[[Party, Any], object]


def failing(claims: Sequence[Claim]) -> list[int]:
    """Which of the four claims fail: 0 uses, 1 refusals, 2 what is said, 3 errors."""
    assert len(claims) == 4
    return [number for number, claim in enumerate(claims) if not claim.holds]


def test_the_claims_hold_for_every_policy() -> None:
    claims = check(Scope(tuple(POLICIES)))
    assert failing(claims) == [], [claim.problem for claim in claims]
    assert all(claim.rung == "taint" and claim.corrupted == "all" for claim in claims)
    assert min(claims[0].cases, claims[2].cases) > 5_000
    assert claims[1].cases >= 100
    assert claims[3].cases == 2 * len(POLICIES)


def test_the_secret_types_are_all_there() -> None:
    assert {kind.__name__ for kind in secret_types()} >= {"Share", "Additive", "Opened"}


# A policy that peeks ----------------------------------------------------------------------------------------------


@contextmanager
def peeking(peek: Peek) -> Iterator[None]:
    """The policy `label` does something with its share of the logits first."""
    shipped = win_counts

    async def leaky(party: Party, logits: Share, *rest: Any) -> Opened:
        peek(party, logits)
        return await shipped(party, logits, *rest)

    with replaced(win_counts, leaky):
        yield


def swallowed(party: Party, share: Share) -> None:
    try:
        bool(share)
    except SecretError:
        return


def log_event(**values: Any) -> None:
    structlog.get_logger("siguard").info("x", **values)


def raise_with(text: str) -> None:
    raise SecretError(text)


PEEKS: dict[str, tuple[Peek, int]] = {
    "a branch": (lambda party, share: 1 if share else 0, 0),
    "a branch whose refusal is swallowed": (swallowed, 0),
    "a comparison": (lambda party, share: share == 0, 0),
    "a list in a log event": (lambda party, share: log_event(value=share.first.tolist()), 2),
    "an array in a log event": (lambda party, share: log_event(value={"deep": [share.second]}), 2),
    "one signed number": (lambda party, share: log_event(value=int(share.first.view(np.int64).flat[0])), 2),
    "a text in a debug event": (lambda party, share: structlog.get_logger().debug(f"got {share.first}"), 2),
    "hexadecimal": (lambda party, share: log_event(value=f"{int(share.first.flat[1]):x}"), 2),
    "a dump": (lambda party, share: log_event(value=share.first.tobytes().hex()), 2),
    "bytes": (lambda party, share: log_event(value=share.first.tobytes()), 2),
    "fixed point": (lambda party, share: log_event(value=float(share.first.view(np.int64).flat[0]) / 2.0**16), 2),
    "logging": (lambda party, share: logging.getLogger("any").debug("share %s", share.first.flat[0]), 2),
    "print": (lambda party, share: print(share.second.tolist()), 2),  # noqa: T201 - the point
    "standard error": (lambda party, share: sys.stderr.write(repr(share.second.flat[0])), 2),
    "raw output": (lambda party, share: sys.stdout.buffer.write(share.first.tobytes()), 2),
    "a mask": (
        lambda party, share: log_event(
            value=int(party.at("peek").draw((party.role + 1) % 3, "peek", share.ring, (2,))[0])
        ),
        2,
    ),
    "an error's message": (lambda party, share: raise_with(f"value {share.first.flat[0]}"), 3),
}


@pytest.mark.parametrize(("peek", "claim"), PEEKS.values(), ids=PEEKS)
def test_a_policy_that_peeks_is_found(peek: Peek, claim: int) -> None:
    with peeking(peek):
        claims = check(LABEL)
    assert claim in failing(claims), [(one.claim, one.problem) for one in claims]
    run = watched_run(GuardConfig("label"), 1)
    for one in failures(claims):
        assert run.secrets.found_in(one.problem.encode()) == [], "the finding tells the secret"


def test_repr_and_shapes_may_be_said() -> None:
    with peeking(lambda party, share: log_event(value=share, shape=share.shape, role=party.role)):
        assert failing(check(LABEL)) == []


def test_planted_inputs_are_found() -> None:
    shipped = watched_run(GuardConfig("label"), 1)
    assert len(shipped.secrets) > 1_000
    rng = np.random.default_rng([1, 7])
    # The first numbers that the run draws are weights of the classifier.
    weights = rng.normal(size=(4, 5))
    for text in (repr(float(weights[0, 0])), f"w = {weights[2].tolist()}", spelled(weights)):
        assert "planted" in shipped.secrets.found_in(text.encode()), text


# Share types that do not refuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", [name for name, value in vars(Secret).items() if callable(value) and "__" in name]
)
def test_a_check_that_is_off_is_noticed(method: str) -> None:
    answers: dict[str, object] = {
        "__bool__": True,
        "__hash__": 1,
        "__len__": 3,
        "__int__": 1,
        "__index__": 1,
        "__float__": 1.0,
        "__complex__": 1j,
        "__bytes__": b"",
        "__str__": "",
        "__format__": "",
        "__iter__": iter(()),
        "__array__": np.zeros(3),
        "__reduce_ex__": "x",
    }
    with replaced_method(Secret, method, lambda *args, **more: answers.get(method, True)):
        assert 1 in failing(check(LABEL))


def test_a_type_that_shows_its_words_is_noticed() -> None:
    with replaced_method(Opened, "__repr__", lambda self: f"Opened({self.value.tolist()})"):
        (claim,) = failures(check(LABEL))
    assert claim.problem == "repr of Opened shows its words"


def test_a_new_secret_type_must_be_probed() -> None:
    with replaced(secret_types, lambda: [Share, type("Fresh", (Secret,), {})]):
        claims = check(LABEL)
    assert "Fresh is not probed" in claims[1].problem


# Capture and search -----------------------------------------------------------------------------------------------


def test_capture_leaves_everything_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config(), structlog.is_configured(), sys.stdout
    with captured() as said:
        structlog.get_logger().debug("event", secret=1)
        logging.getLogger("deep.down").debug("record")
        sys.stdout.write("out")
        sys.stderr.write("err")
    assert before[:2] == (root.handlers, root.level)
    assert before[3:] == (structlog.is_configured(), sys.stdout)
    assert capsys.readouterr() == ("", "")
    for part in (b"event", b"secret", b"deep.down", b"record", b"out", b"err"):
        assert part in said.getvalue()


def test_capture_hears_what_a_configured_program_would_filter() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        with captured() as said:
            structlog.get_logger().debug("quiet")
        assert b"quiet" in said.getvalue()
        assert structlog.is_configured()
    finally:
        structlog.reset_defaults()


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.integers(LEAST, 2**64 - LEAST), st.text(max_size=5), st.text("xyz ,[]=\n", min_size=1, max_size=3))
def test_every_form_of_a_word_is_found(word: int, before: str, after: str) -> None:
    secrets = Secrets([np.array([word], np.uint64)])
    signed = word - 2**64 if word >> 63 else word
    shown = {
        "decimal": [str(word), str(signed), repr(np.array([word], np.uint64)), repr([signed])],
        "hexadecimal": [hex(word), f"{word:X}", word.to_bytes(8, "little").hex(), word.to_bytes(8, "big").hex()],
        "real": [repr(float(word)), repr(signed / 2**16), repr(signed / 2**24), repr(np.float64(signed))],
        "bytes": [repr(b"ab" + word.to_bytes(8, "little")), repr(word.to_bytes(8, "big") + b"'")],
    }
    for form, texts in shown.items():
        for text in texts:
            # A letter or digit beside it would belong to the number.
            found = secrets.found_in(f"{before} {text}{after}".encode("utf-8", "surrogatepass"))
            assert form in found, f"{word}: {text!r} is not found as {form}, only as {found}"


def test_chance_hits_do_not_occur() -> None:
    """A text of 40,000 random digits, real and hexadecimal numbers beside 100,000 words: chance 2^-20 at most."""
    rng = np.random.default_rng(1)
    secrets = Secrets([rng.integers(0, 1 << 64, 100_000, np.uint64)])
    text = " ".join(
        [rng.bytes(16).hex() for _ in range(300)]
        + [str(word) for word in rng.integers(0, 1 << 64, 300, np.uint64)]
        + [repr(value) for value in (rng.normal(size=300) * 1e15).tolist()]
        + ["60.0", "1e300", "18446744073709551615", "-1", "b'", "b'\\x00'"]
    )
    assert secrets.found_in(text.encode() + rng.bytes(1_000)) == []


def test_an_error_is_searched_to_its_last_note() -> None:
    secret = 0xDEADBEEF12345678
    secrets = Secrets([np.array([secret], np.uint64)])

    def error(place: str) -> Exception:
        top = ValueError("top")
        if place == "note":
            top.add_note(f"value {secret}")
        elif place == "cause":
            top.__cause__ = KeyError(secret)
        elif place == "context":
            top.__context__ = RuntimeError([np.array([secret], np.uint64)])
        elif place == "attribute":
            top.extra = {"word": secret}  # type: ignore[attr-defined]
        elif place == "group":
            return ExceptionGroup("several", [top, OSError(5, str(secret))])
        return top

    assert secrets.found_in(of_error(error("nowhere"))) == []
    for place in ("note", "cause", "context", "attribute", "group"):
        assert secrets.found_in(of_error(error(place))) != [], place


@contextmanager
def failing_with(tell: Callable[[SiguardError, list[Any]], object]) -> Iterator[None]:
    """A party whose session fails tells what it has not read yet."""
    shipped = Mailbox.fail

    def leaky(self: Mailbox, error: SiguardError, *, told: bool = False) -> None:
        if self.failure is None:
            tell(error, [frame.payload.tolist() for frame in self._arrived.values()])
        shipped(self, error, told=told)

    with replaced_method(Mailbox, "fail", leaky):
        yield


def tell_in_the_message(error: SiguardError, unread: list[Any]) -> None:
    error.message += f" with {unread} unread"


@pytest.mark.parametrize(
    ("tell", "claim"),
    [(tell_in_the_message, 3), (lambda error, unread: log_event(unread=unread), 2)],
    ids=["message", "log"],
)
def test_a_failing_session_that_tells_a_share_is_noticed(tell: Any, claim: int) -> None:
    with failing_with(tell):
        claims = check(Scope(("siguard",)))
    assert claim in failing(claims), [(one.claim, one.problem) for one in claims]
    assert 0 not in failing(claims), "the honest call went well"
