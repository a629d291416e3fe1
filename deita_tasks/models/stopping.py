"""Where long work can be stopped: between two batches or requests. A batch under way ends first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


def may_stop() -> None:
    """Called where work may be stopped: raises what the one who started it wants raised, which is
    nothing where it may go on.
    """
    _check.get()()


@contextmanager
def stopped_by(check: Callable[[], None]) -> Iterator[None]:
    """Within this block, in this thread, `may_stop` calls `check`."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)
