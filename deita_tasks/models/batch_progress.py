"""Tell whoever wants to know how far a computation is, after each batch or answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _ignore(share: float) -> None:
    """Do nothing with the share: outside `reported_to` nobody wants to know it."""


_listener: ContextVar[Callable[[float], None]] = ContextVar("listener", default=_ignore)


def report_share(done: int, total: int) -> None:
    """Report that `done` of `total` texts are computed, as a share from 0 to 1.

    Changes no result.
    """
    listener = _listener.get()
    listener(done / max(total, 1))


@contextmanager
def reported_to(listener: Callable[[float], None]) -> Iterator[None]:
    """Within this block, in this thread, `report_share` calls `listener` with the share."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
