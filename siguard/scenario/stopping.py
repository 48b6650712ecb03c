"""How a run stops: with one error that says what happened, or with KeyboardInterrupt, never half."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


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
def sigterm_is_ctrl_c() -> Iterator[None]:
    """SIGTERM stops the block as Ctrl-C does, so that it can end what it started; in a main thread that has no
    handler of its own."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
