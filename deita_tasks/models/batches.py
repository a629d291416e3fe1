"""Batches of rows of one width within a token budget, the widest first.

A row's width is its length rounded up to a multiple of WIDTH_STEP, whatever the rows beside it. A
product sums in an order that depends on the width, so a row of a fixed width has the same result in
every batch. The widest come first: memory runs out at the start or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

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
    """Return the tokens that a row of `length` tokens is padded to."""
    return max(1, -(-length // WIDTH_STEP)) * WIDTH_STEP


def run_batches(
    lengths: Sequence[int],
    batch_tokens: int,
    run: Callable[[list[int]], None],
    limit: BatchLimit | None = None,
) -> list[int]:
    """Call `run(positions)` with batches that cover every position of `lengths`.

    `run` must pad each row to its `padded_width`, which all rows of a batch share. A batch holds at
    most `batch_tokens` tokens, padding included; a wider row is a batch of its own.

    When memory runs out, the budget is halved for the batches that follow, and for later calls with
    the same `limit`. Returns the positions of rows that did not fit even alone.
    """
    limit = limit or BatchLimit()
    batch_tokens = limit.lower(batch_tokens)
    widths = [padded_width(length) for length in lengths]
    order = sorted(range(len(widths)), key=lambda position: (-widths[position], position))
    too_long: list[int] = []
    start = 0
    while start < len(order):
        raise_if_stopped()
        batch = _next_batch(order, start, widths, batch_tokens)
        if fits_in_memory(run, batch):
            start += len(batch)
        elif len(batch) == 1:
            too_long.append(batch[0])
            start += 1
        else:
            width = widths[batch[0]]
            batch_tokens = width * len(batch) // 2
            limit.tokens = batch_tokens
            log.warning(
                "out of memory with %d rows of %d tokens; continuing with %d tokens per batch",
                len(batch),
                width,
                batch_tokens,
            )
    return too_long


def out_of_memory_problem(device: object, tokens: int) -> str:
    """Return why a text of `tokens` tokens has no value if it did not fit memory even alone."""
    return f"out of memory on {device}, even alone: {tokens} tokens"


def _next_batch(
    order: Sequence[int], start: int, widths: Sequence[int], batch_tokens: int
) -> list[int]:
    """Return the positions of the batch at `start` of `order`, which is sorted by width."""
    width = widths[order[start]]
    most = max(1, batch_tokens // width)
    batch = order[start : start + most]
    return [position for position in batch if widths[position] == width]


def fits_in_memory(run: Callable[[T], None], batch: T) -> bool:
    """Run a batch. Return False if memory ran out."""
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
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # torch's CPU allocator raises a plain RuntimeError with this text
    return "can't allocate memory" in str(error)


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
