"""The error tree.  Whose fault it is decides the class; where it began is in the attributes.

SiguardError
  InputError            a value the caller passed: wrong shape, not finite, out of range (also a ValueError)
    ScenarioError       a scenario file or an override
  PolicyError           a guard configuration that the model owner did not sign
  SecretError           local code tried to look at a secret (also a TypeError)
  ProtocolError         a party broke the protocol or stopped taking part
    DeadlineError       a wait on another party passed its deadline
    PartyFailedError    a party reported that it failed, crashed or was cancelled
    FrameError          bytes that are not a frame of this protocol version
  RandomnessReuseError  an address of the pairwise randomness was used twice
  DialError             nobody answers at an address (`siguard.transport.dial`); parties dial again
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class SiguardError(Exception):
    """Base of all errors of this package.

    ``party``, ``session`` and ``step`` name where the failure began; each is None where it has no meaning
    (bad input is refused before a session exists).
    """

    def __init__(
        self,
        message: str,
        *,
        party: str | None = None,
        session: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.party = party
        self.session = session
        self.step = step

    def __str__(self) -> str:
        where = [
            f"{name} {value}"
            for name, value in (("party", self.party), ("session", self.session), ("step", self.step))
            if value is not None
        ]
        return f"{self.message} [{', '.join(where)}]" if where else self.message


class InputError(SiguardError, ValueError):
    """A value passed by the caller cannot be used; the message names the field and the cure."""


class ScenarioError(InputError):
    """A scenario file or an override is wrong; the message names file, key, what was found, what is allowed."""


class PolicyError(SiguardError):
    """The requested guard configuration is not among those the model owner signed."""


class SecretError(SiguardError, TypeError):
    """Local code tried to branch on, index with, compare, format, hash, pickle or convert a secret."""


class ProtocolError(SiguardError):
    """The protocol could not go on: ``party`` names where the failure began."""


class DeadlineError(ProtocolError):
    """A wait passed its deadline; ``party`` is the party that was awaited."""


class PartyFailedError(ProtocolError):
    """Another party failed, crashed or was cancelled; ``party`` is that party."""


class FrameError(ProtocolError):
    """Received bytes are not a frame of this protocol version."""


class RandomnessReuseError(SiguardError):
    """A randomness address was used a second time: some mask would have protected two values."""


def leaves_of(error: BaseException) -> Iterator[BaseException]:
    """What went wrong, without the task groups through which it came."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves_of(inner)
    else:
        yield error


@contextmanager
def without_groups() -> Iterator[None]:
    """The one thing that went wrong, not the tree of task groups through which it came."""
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(leaves_of(group))
        for kind in (KeyboardInterrupt, SiguardError):
            for leaf in leaves:
                if isinstance(leaf, kind):
                    raise leaf from None
        raise
