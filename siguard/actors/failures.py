"""What went wrong at a party, as an error that others may be told."""

from __future__ import annotations

from typing import Any

from siguard.actors.mailbox import Mailbox
from siguard.errors import PartyFailedError, SiguardError


def as_siguard_error(problem: BaseException, mailbox: Mailbox, log: Any) -> SiguardError:
    """The error of a session's task, out of its task groups, with party, session and step."""
    leaf = problem
    while isinstance(leaf, BaseExceptionGroup):
        leaf = next((e for e in leaf.exceptions if isinstance(e, SiguardError)), leaf.exceptions[0])
    session = mailbox.session.hex()
    if isinstance(leaf, SiguardError):
        leaf.session = leaf.session or session
        leaf.party = leaf.party or mailbox.party
        leaf.step = leaf.step or mailbox.last_step
        return leaf
    # The text of a foreign exception may hold values: only its type leaves the party.
    log.error("session failed", session=session, error=type(leaf).__name__)
    wrapped = PartyFailedError(
        f"{mailbox.party} failed with {type(leaf).__name__}",
        party=mailbox.party,
        session=session,
        step=mailbox.last_step,
    )
    wrapped.__cause__ = leaf
    return wrapped
