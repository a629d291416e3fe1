"""A function applied to many values in threads, with each result handed out as it comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeVar

from deita_tasks.models.stopping import STOP_INTERVAL, raise_if_stopped, stopped_by

V = TypeVar("V")
R = TypeVar("R")


class _Skipped(Exception):
    """Another call failed or the work was stopped, so this call has no result."""


class _Failure(NamedTuple):
    """A call that ended in an error, on its way to the caller's thread."""

    error: BaseException


def concurrent_map(
    function: Callable[[V], R], values: Sequence[V], threads: int
) -> Generator[tuple[int, R]]:
    """Yield (i, function(values[i])) for every i, in the order in which the results come.

    At the first error, and when the caller has to stop (`raise_if_stopped`), no further call
    begins, and those under way are told to stop, also by `raise_if_stopped`. Results that still
    come are yielded; then the error is raised. Closing the iterator stops the calls too.
    """
    stopping = threading.Event()
    outcomes: SimpleQueue[tuple[int, R] | _Failure | None] = SimpleQueue()

    def call(position: int) -> None:
        """Put the outcome of a call into the queue: nobody reads its future."""
        outcomes.put(_call(function, values, position, stopping))

    first_error: BaseException | None = None
    remaining = len(values)
    executor = ThreadPoolExecutor(threads, "deita-request")
    try:
        for position in range(len(values)):
            executor.submit(call, position)
        while remaining:
            first_error = first_error or _stop_error()
            if first_error is not None:
                stopping.set()
            try:
                outcome = outcomes.get(timeout=STOP_INTERVAL)
            except Empty:
                continue
            remaining -= 1
            if isinstance(outcome, _Failure):
                first_error = first_error or outcome.error
            elif outcome is not None:
                yield outcome
    finally:
        stopping.set()
        executor.shutdown(cancel_futures=True)
    if first_error is not None:
        raise first_error


def _call(
    function: Callable[[V], R], values: Sequence[V], position: int, stopping: threading.Event
) -> tuple[int, R] | _Failure | None:
    """Return a position with its result, a _Failure, or None for a call that was stopped.

    Never raises: whatever goes wrong in a thread is an outcome, and stops the calls that follow.
    """

    def skip_if_stopping() -> None:
        """Raise _Skipped if another call failed or the caller stopped."""
        if stopping.is_set():
            raise _Skipped

    try:
        # the caller's own check applies in the caller's thread only
        with stopped_by(skip_if_stopping):
            skip_if_stopping()
            return position, function(values[position])
    except _Skipped:
        return None
    except BaseException as error:
        stopping.set()
        return _Failure(error)


def _stop_error() -> BaseException | None:
    """Return what `raise_if_stopped` raises, None if it raises nothing."""
    try:
        raise_if_stopped()
    except BaseException as error:
        return error
    return None
