"""Stop long work between two batches or requests. A running batch ends first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

STOP_INTERVAL = 0.5  # seconds between two checks of code that waits


def _never_stop() -> None:
    """Do nothing: outside `stopped_by` no work has to stop."""


_check: ContextVar[Callable[[], None]] = ContextVar("check", default=_never_stop)


def raise_if_stopped() -> None:
    """Call the check of the enclosing `stopped_by`, which raises if the work has to stop.

    Long-running code calls this wherever it may be interrupted. Without a check it does nothing.
    """
    check = _check.get()
    check()


@contextmanager
def stopped_by(check: Callable[[], None]) -> Iterator[None]:
    """Within this block, in this thread, `raise_if_stopped` calls `check`.

    What `check` raises ends the work. Threads that are started within the block do not inherit it.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
