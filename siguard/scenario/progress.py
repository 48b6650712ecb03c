"""How a long run says where it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called at the start of a stage, after each part of it and at its end."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """``done`` of ``total`` parts of ``stage`` are finished."""


def silent(stage: str, done: int, total: int) -> None:
    """The progress of a run that nobody watches."""


@contextmanager
def counted(progress: Progress, stage: str, total: int) -> Iterator[Callable[[str], None]]:
    """One stage of about ``total`` parts, each of which calls what this yields with a line of text.

    For training code that reports in lines: their number is what counts, not their words.
    """
    done = 0
    progress(stage, 0, total)

    def step(_line: str) -> None:
        nonlocal done
        if done < total - 1:  # the last part is over when the stage is
            done += 1
            progress(stage, done, total)

    yield step
    progress(stage, total, total)
