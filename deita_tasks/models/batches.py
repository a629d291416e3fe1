"""Batches of rows of one width within a token budget, the widest first.

A row's result must not depend on the rows beside it, to the bit. The order in which a processor
sums depends on the width of a batch, and on its size too if several threads share a product. So
a row's width follows from its own length, and a CPU computes each batch on one thread, and several
batches at a time. The widest come first: memory runs out at the start or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import takewhile
from threading import Barrier, Lock
from typing import Any, NamedTuple, TypeVar

from deita_tasks.models.batch_progress import report_share
from deita_tasks.models.stopping import raise_if_stopped

log = logging.getLogger(__name__)

T = TypeVar("T")

WIDTH_STEP = 16  # tokens; a multiple of what a processor adds up at once


@dataclass
class BatchLimit:
    """The most tokens that a batch may hold since memory ran out; None if it never did.

    A model keeps one, so that the limit holds for its later calls too.
    """

    tokens: int | None = None

    def lower(self, tokens: int) -> int:
        """Return `tokens`, or the limit if that is less."""
        return tokens if self.tokens is None else min(tokens, self.tokens)


def padded_width(length: int) -> int:
    """Return the tokens that a row of `length` tokens is padded to, a multiple of WIDTH_STEP.

    It depends on this row alone; a row without tokens has one step too.
    """
    return max(1, -(-length // WIDTH_STEP)) * WIDTH_STEP


def filled_rows(width: int, batch_tokens: int) -> int:
    """Return the rows that a batch of this width is filled up to, where their number matters.

    In bfloat16 a CPU with AMX rounds a product depending on how many rows it has.
    """
    return max(1, batch_tokens // width)


def run_batches(
    lengths: Sequence[int],
    batch_tokens: int,
    run: Callable[[list[int]], None],
    limit: BatchLimit | None = None,
    threads: int | None = None,
) -> list[int]:
    """Call `run(positions)` with batches that cover every position of `lengths`.

    `run` must pad each row to its `padded_width`, which all rows of a batch share. A batch holds at
    most `batch_tokens` tokens, padding included; a wider row is a batch of its own.

    threads: batches at a time, each on a thread of its own where torch uses no other; see
    `hardware.batch_threads`. None: one batch at a time, in the caller's thread.
    When memory runs out, batches run one at a time. If one alone does not fit, the budget is halved
    for those that follow, and for later calls with the same `limit`. Returns the positions of rows
    that did not fit even alone.
    """
    limit = limit or BatchLimit()
    batch_tokens = limit.lower(batch_tokens)
    widths = [padded_width(length) for length in lengths]
    pending = sorted(range(len(widths)), key=lambda position: (-widths[position], position))
    too_long: list[int] = []
    running: dict[Future[bool], _Batch] = {}
    at_once = threads or 1
    with _start_threads(threads) as pool:
        while pending or running:
            while pending and len(running) < at_once:
                raise_if_stopped()
                batch = _Batch(_take(pending, widths, batch_tokens), is_alone=at_once == 1)
                running[pool.submit(fits_in_memory, run, batch.positions)] = batch
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                positions, is_alone = running.pop(future)
                if future.result():
                    continue
                if is_alone and len(positions) == 1:
                    too_long += positions
                    continue
                pending[:0] = positions
                at_once = 1
                if is_alone:
                    batch_tokens = _halve(widths[positions[0]], len(positions))
                    limit.tokens = batch_tokens
            report_share(len(widths) - len(pending) - _count_rows(running), len(widths))
    return too_long


def out_of_memory_problem(device: object, tokens: int) -> str:
    """Return why a text of `tokens` tokens has no value if it did not fit memory even alone."""
    return f"out of memory on {device}, even alone: {tokens} tokens"


class _Batch(NamedTuple):
    """The positions of a batch, and whether no other one runs beside it."""

    positions: list[int]
    is_alone: bool


def _count_rows(running: Mapping[Future[bool], _Batch]) -> int:
    """Return the rows of the batches under way, which are no longer pending and not done either."""
    return sum(len(batch.positions) for batch in running.values())


class _CallersThread(Executor):
    """Calls at once, in the thread that submits."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a finished future. An error of `function` is raised here, not by the future."""
        future: Future[Any] = Future()
        future.set_result(function(*args, **kwargs))
        return future


_starting = Lock()


def _start_threads(threads: int | None) -> Executor:
    """Return `threads` threads, in each of which torch computes on that thread alone.

    None: the caller's own thread, and torch as it is. For all other threads of the process torch's
    setting stays.
    """
    import torch

    if threads is None:
        return _CallersThread()
    with _starting:
        own = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=_use_this_thread_alone)
        all_started = Barrier(threads)
        list(pool.map(lambda _: all_started.wait(), range(threads)))
        # What a thread sets for itself is also the default of every new thread of the process.
        torch.set_num_threads(own)
    return pool


def _use_this_thread_alone() -> None:
    """Make torch compute what this thread asks for without the help of others.

    Several threads would share a product out by its size, and the size of a batch would change its
    rounding.
    """
    import torch

    torch.get_num_threads()  # a thread's first use of torch would reset what is set before it
    torch.set_num_threads(1)


def _take(pending: list[int], widths: Sequence[int], batch_tokens: int) -> list[int]:
    """Remove the first batch from `pending`, which is sorted by width, and return it.

    Its rows have one width. At least one row, even if that is over `batch_tokens`.
    """
    width = widths[pending[0]]
    first = pending[: max(1, batch_tokens // width)]
    batch = list(takewhile(lambda position: widths[position] == width, first))
    del pending[: len(batch)]
    return batch


def _halve(width: int, rows: int) -> int:
    """Return the tokens of half a batch that did not fit memory; log that batches shrink."""
    batch_tokens = width * rows // 2
    log.warning(
        "out of memory with %d rows of %d tokens; continuing with %d tokens per batch",
        rows,
        width,
        batch_tokens,
    )
    return batch_tokens


def fits_in_memory(run: Callable[[T], None], batch: T) -> bool:
    """Run a batch. Return False if memory ran out, after freeing it; raise any other error."""
    try:
        run(batch)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
    else:
        return True
    _free_memory()  # not in `except`: the error's traceback holds the batch's tensors
    return False


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an error means that memory ran out, on a GPU or on the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator raises a plain RuntimeError with this text
    return "can't allocate memory" in str(error)


def _free_memory() -> None:
    """Give the freed blocks that torch keeps back to the GPU, which can then cut them anew."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
