"""Queries that are disturbed on their way, and what must hold of how they end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio
from campaign_deployment import Fleet

from siguard import GuardConfig, SiguardError

#: Seconds that a busy machine may add to every bound.
SLACK = 4.0
#: A wait is up to a tenth longer than the deadline, and a failure is told within a second.
_PATIENCE = 1.1
_TELLING = 1.0
#: A query that starts in the same moment in which a link breaks may still be put on it.
_NOTICING = 0.3


@dataclass(frozen=True)
class Outcome:
    """How a query ended.  wrong: with its answer.  seconds: from the disturbance on."""

    policy: str
    error: BaseException | None
    wrong: Sequence[str]
    seconds: float

    def named(self) -> str | None:
        """The party that the error names."""
        return None if self.error is None else str(getattr(self.error, "party", None)).partition("/")[0]

    def as_dict(self) -> dict[str, Any]:
        if self.error is None:
            return {"policy": self.policy, "answered": True, "seconds": round(self.seconds, 3)}
        values = {
            "error": type(self.error).__name__,
            "party": self.named(),
            "step": getattr(self.error, "step", None),
            "text": str(self.error)[:300],
        }
        return {"policy": self.policy, "seconds": round(self.seconds, 3), **values}


def bound(fleet: Fleet) -> float:
    """Seconds after a disturbance in which every query must have ended."""
    return _PATIENCE * fleet.loopback.deployment.limits.deadline + _TELLING + SLACK


async def ask_during(
    fleet: Fleet,
    configs: Sequence[GuardConfig],
    moment: float,
    disturb: Callable[[], Awaitable[None]],
) -> list[Outcome]:
    """Ask all ``configs`` at once, ``disturb`` after ``moment`` seconds, and wait until all have ended.

    A query that has not ended long after its bound is cancelled, which is its error.
    """
    outcomes: list[Outcome] = []
    started = trio.current_time()
    limit = moment + 2 * bound(fleet) + 10

    async def ask(number: int, config: GuardConfig) -> None:
        error: BaseException | None = None
        wrong: list[str] = []
        try:
            with trio.fail_after(limit):
                wrong = await fleet.checked(number, config)
        except (Exception, BaseExceptionGroup) as problem:
            error = problem
        outcomes.append(Outcome(config.policy, error, wrong, trio.current_time() - started - moment))

    async with trio.open_nursery() as nursery:
        for number, config in enumerate(configs):
            nursery.start_soon(ask, number, config)
        await trio.sleep(moment)
        await disturb()
    return outcomes


def must_fail_or_be_right(outcomes: Sequence[Outcome], culprits: Collection[str], seconds: float) -> list[str]:
    """What is wrong unless every query gave the right answer, or an error in time that names a culprit."""
    wrong: list[str] = []
    for one in outcomes:
        say = partial("{}: {}".format, one.policy)
        wrong += [say(text) for text in one.wrong]
        if one.error is None:
            continue
        if not isinstance(one.error, SiguardError):
            wrong.append(say(f"ended with {type(one.error).__name__}: {one.error}"))
            continue
        if one.named() not in culprits:
            wrong.append(say(f"the error names {one.named()}, not {' or '.join(sorted(culprits))}: {one.error}"))
        if one.error.session is None:
            wrong.append(say(f"the error names no session: {one.error}"))
        if one.seconds > seconds:
            wrong.append(say(f"ended after {one.seconds:.1f} s; the bound is {seconds:.1f} s: {one.error}"))
    return wrong


def must_be_right(outcomes: Sequence[Outcome]) -> list[str]:
    """What is wrong unless every query gave the right answer."""
    failed = [f"{one.policy}: {type(one.error).__name__}: {one.error}" for one in outcomes if one.error is not None]
    return failed + [f"{one.policy}: {text}" for one in outcomes for text in one.wrong]


async def later(fleet: Fleet, config: GuardConfig, number: int = 0) -> list[str]:
    """What is wrong with a query that nobody disturbs any more."""
    await trio.sleep(_NOTICING)
    try:
        with trio.fail_after(60):
            wrong = await fleet.checked(number, config)
    except (Exception, BaseExceptionGroup) as problem:
        return [f"a later query failed: {type(problem).__name__}: {problem}"]
    return [f"a later query: {text}" for text in wrong]


async def nothing() -> None:
    """Disturbs nobody."""
    await trio.lowlevel.checkpoint()
