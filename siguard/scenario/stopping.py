"""How a run stops: with one error that says what happened, or with KeyboardInterrupt, never half."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from siguard.errors import SiguardError, leaves_of


@contextmanager
def ctrl_c_is_not_swallowed() -> Iterator[None]:
    """scikit-learn's MLP turns Ctrl-C into a warning and goes on; here it stops the run."""
    text = "Training interrupted by user"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=text)
        try:
            yield
        except UserWarning as warning:
            if text in str(warning):
                raise KeyboardInterrupt from None
            raise


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
