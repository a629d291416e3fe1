"""Repeat an action while a block runs: how a run shows others that it is still there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(
    action: Callable[[], bool], seconds: float, patience: float | None = None
) -> Iterator[None]:
    """Call `action` every so many `seconds` during the block, in a thread, while it returns True.

    At the end, wait up to `patience` seconds for a call that is under way; None: until it ends.
    """
    ended = threading.Event()

    def repeat() -> None:
        """Call the action, first after `seconds`, until it returns False or the block has ended."""
        while not ended.wait(seconds):
            if not action():
                return

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(patience)
