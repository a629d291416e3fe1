"""Batches by a token budget: the longest first, so that padding is little and memory runs out at
the start or not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deita_tasks.models.stopping import may_stop

log = logging.getLogger(__name__)


@dataclass
class BatchLimit:
    """The most tokens that a batch may hold, once memory ran out with more. Kept with a model, it
    holds for its later calls too.
    """

    tokens: int | None = None


def run_batches(
    lengths: Sequence[int],
    batch_tokens: int,
    run: Callable[[list[int]], None],
    limit: BatchLimit | None = None,
) -> list[int]:
    """Calls `run(positions)` with batches that cover every position of `lengths`, the longest
    first.

    A batch holds at most `batch_tokens` tokens, each row counted as long as its longest; a row over
    the budget is a batch of its own. Once a quarter full it ends where rows are under three
    quarters of its longest: a smaller batch costs less than the padding. Where memory runs out, the
    budget is halved, for the batches that follow too, and for the calls that follow with the same
    `limit`. Returns the positions that alone were too much.
    """
    if limit is not None and limit.tokens is not None:
        batch_tokens = min(batch_tokens, limit.tokens)
    waiting = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    too_much: list[int] = []
    start = 0
    while start < len(waiting):
        may_stop()
        longest = max(lengths[waiting[start]], 1)
        batch = waiting[start : start + max(1, batch_tokens // longest)]
        enough = range(max(1, -(-batch_tokens // (4 * longest))), len(batch))
        batch = batch[
            : next((row for row in enough if lengths[batch[row]] < 0.75 * longest), len(batch))
        ]
        try:
            run(batch)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            del error
            _free_memory()
            if len(batch) > 1:
                batch_tokens = longest * len(batch) // 2
                if limit is not None:
                    limit.tokens = batch_tokens
                log.warning(
                    "out of memory with %d rows of %d tokens: going on with %d tokens a batch",
                    len(batch),
                    longest,
                    batch_tokens,
                )
                continue
            too_much.append(batch[0])
        start += len(batch)
    return too_much


def _out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(
        error
    )  # what torch's CPU allocator raises, as a plain RuntimeError


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
